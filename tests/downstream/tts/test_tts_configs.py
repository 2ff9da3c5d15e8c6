"""Every variant builds, shards and steps by shape alone; a narrow `paper` takes a real step on eight devices."""

import dataclasses

import jax
import numpy as np
import pytest
import token_folders

from decodec_jax import config as settings
from decodec_jax.downstream.step import create, make_train_step
from decodec_jax.downstream.tts.config import STAGES, Config
from decodec_jax.downstream.tts.task import Synthesis
from decodec_jax.errors import UserError
from decodec_jax.training import sharding

SIZES = {"tiny": (1e4, 5e4), "small": (3e6, 6e6), "paper": (145e6, 165e6)}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", SIZES)
def test_variant_steps(config_of, size, stage):
    config = config_of(stage, size)
    config.check()
    task = config.task()
    before = jax.eval_shape(lambda: create(config, task.create))
    least, most = SIZES[size]
    assert least < sum(np.prod(a.shape) for a in jax.tree.leaves(before.params)) < most
    step = make_train_step(config, sharding.make_mesh(config.mesh, config.data.batch), task.loss)
    after, metrics = jax.eval_shape(step, before, next(task.batches()), task.frozen)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), before) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
    assert metrics["loss"].shape == ()


def after(config):
    mesh = sharding.make_mesh(config.mesh, config.data.batch)
    task = config.task()
    shapes = jax.eval_shape(lambda: create(config, task.create))
    rng = np.random.default_rng(0)  # compiling the initialisers would take long
    drawn = jax.tree.map(lambda a: (0.1 * rng.standard_normal(a.shape)).astype(np.float32), shapes.params)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
    state = sharding.spread(zeros.replace(params=drawn), sharding.layout(shapes, mesh, config.mesh.fsdp_from))
    frozen = sharding.spread(task.frozen, sharding.layout(task.frozen, mesh))
    batch = sharding.place(next(task.batches()), mesh)
    state, metrics = make_train_step(config, mesh, task.loss)(state, batch, frozen)
    return state, float(metrics["loss"])


@pytest.mark.parametrize("stage", STAGES)
def test_eight_devices_compute_what_one_does(config_of, stage):
    """`paper`, but narrow and with fewer layers, which a scan goes through anyway."""
    config = config_of(stage, "paper")
    config.model.width, config.model.layers = 32, 2
    config.data.batch, config.data.buckets, config.optim.lr = 8, 1, 1e-4
    one, loss = after(config)
    config.mesh = dataclasses.replace(config.mesh, data=2, fsdp=2, model=2, fsdp_from=64)
    eight, other = after(config)
    split = eight.params["transformer"]["blocks"]["feed1_up"]["kernel"].sharding.spec
    assert "model" in split and "fsdp" in split
    assert other == pytest.approx(loss, rel=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.max(np.abs(a), initial=0)),
        *(jax.device_get(state.optimizer) for state in (one, eight)),
    )  # fmt: skip


def test_saved_and_read_back_a_config_is_the_same(tts):
    config = tts.get_config("small_nar")
    assert settings.from_dict(Config, settings.to_dict(config)) == config
    with pytest.raises(ValueError, match="no variant 'small'; it has paper_ar, paper_parallel, paper_nar"):
        tts.get_config("small")


@pytest.mark.parametrize(("name", "value", "reason"), [
    ("model.stage", "both", "must be ar or parallel or nar"), ("model.text", "words", "characters or phones"),
    ("model.vectors", "mel", "codebook or learned"), ("model.width", 30, "a multiple of 2 x model.heads, 4"),
    ("model.dropout", 1.0, "from 0 to below 1"), ("model.hidden", 2.0, "from 0 to 1"), ("model.prompt", 0, "above 0"),
    ("model.levels", 1, "two levels or more"), ("data.tokens", "", "--config.data.tokens=TOKENS"),
    ("data.speakers", "LJ", "a tuple such as"),
])  # fmt: skip
def test_a_value_no_run_can_use_is_refused(config_of, name, value, reason):
    config = config_of("nar")
    section, field = name.split(".")
    setattr(getattr(config, section), field, value)
    with pytest.raises(UserError, match=reason):
        config.check()


def test_a_parallel_model_needs_a_recogniser_of_its_codec_that_writes_its_symbols(config_of, tmp_path):
    config = config_of("parallel")
    config.data.aligner = ""
    with pytest.raises(UserError, match=r"durations from a recogniser.*--config.data.aligner=RUN"):
        config.check()
    config.data.aligner = str(tmp_path)
    with pytest.raises(UserError, match="is not a run on tokens"):
        config.task()


def test_the_recogniser_finds_how_long_symbols_last(config_of, tmp_path, codec):
    """Five frames a letter."""
    config = config_of("parallel")
    batch = next(config.task().batches())
    inside = batch["durations"][batch["durations"] > 0]
    assert np.mean(np.abs(inside - 5) <= 1) > 0.9
    np.testing.assert_array_equal(batch["durations"].sum(axis=1), batch["frames"])
    counts = [np.bincount(row[:f]) for row, f in zip(batch["owners"], batch["frames"], strict=True)]
    assert all(np.array_equal(n, long[: len(n)]) for n, long in zip(counts, batch["durations"], strict=True))
    rows = [*token_folders.utterances(40), token_folders.row("long", "abcdef", "a" * 40)]
    config.data.tokens = str(token_folders.write(tmp_path / "t", rows, codec.fingerprint))
    assert "with text that the recogniser cannot align" in config.task().describe()


def test_which_utterances_are_used(config_of, tmp_path, codec):
    rows = token_folders.utterances(40)
    rows += [token_folders.row("digits", "abcdef", "in 1815"), token_folders.row("empty", "abcdef", ""),
             token_folders.row("short", "a")]  # fmt: skip
    folder = token_folders.write(tmp_path / "t", rows, codec.fingerprint)
    config = config_of("ar")
    config.data.tokens = str(folder)
    said = config.task().describe()
    assert "2 without a transcript that can be spelled" in said and "too short or too long" in said
    config.data.speakers = ("s1",)
    task = config.task()
    assert {each.speaker for each in task.train} == {"s1"} and "by 1 speakers" in task.describe()
    config.model.stage, config.data.speakers = "nar", ()
    task = config.task()
    assert {"digits", "empty"} <= {each.id for each in task.train}
    config.data.speakers = ("nobody",)
    with pytest.raises(UserError, match=r"has 0 utterances .* data.speakers \('nobody',\)"):
        config.task()


def test_another_codec_and_more_levels_than_there_are_are_refused(config_of, tmp_path):
    config = config_of("nar")
    config.model.levels = 3
    with pytest.raises(UserError, match=r"model.levels is 3; the tokens have 2 levels of speech"):
        config.task()
    config = config_of("ar")
    config.data.tokens = str(token_folders.write(tmp_path / "t", token_folders.utterances(20), "f" * 16))
    with pytest.raises(UserError, match=r"the tokens are of the codec ffffffffffffffff, and data.codec="):
        Synthesis(config)
