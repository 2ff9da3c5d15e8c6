"""Every variant builds, shards and steps by shape alone; `paper` takes a real step on eight devices."""

import jax
import numpy as np
import pytest
import token_folders

from decodec_jax import config as settings
from decodec_jax.downstream.asr.config import Config
from decodec_jax.downstream.asr.task import Recognition
from decodec_jax.downstream.batches import Bucket
from decodec_jax.downstream.step import create, make_train_step
from decodec_jax.errors import UserError
from decodec_jax.training import sharding


@pytest.mark.parametrize(("variant", "least", "most"), [("tiny", 1e4, 5e4), ("mini", 5e5, 1e6),
                                                        ("small", 1.5e6, 2.5e6), ("paper", 5e6, 15e6)])  # fmt: skip
def test_variant_steps(asr, tokens, codec_folder, variant, least, most):
    config = asr.get_config(variant)
    config.data.tokens, config.data.codec = str(tokens), str(codec_folder)
    config.model.features.speech, config.mesh.data = 2, 1
    config.train.accumulate = 2 if variant == "paper" else 1
    config.check()
    task = config.task()
    before = jax.eval_shape(lambda: create(config, task.create))
    assert least < sum(np.prod(a.shape) for a in jax.tree.leaves(before.params)) < most
    step = make_train_step(config, sharding.make_mesh(config.mesh, config.data.batch), task.loss)
    batch = next(task.batches())
    after, metrics = jax.eval_shape(step, before, batch, task.frozen)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), before) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
    assert metrics["loss"].shape == ()


def test_paper_steps_on_eight_devices(asr, tokens, codec_folder):
    config = asr.get_config("paper")
    config.data.tokens, config.data.codec, config.data.batch = str(tokens), str(codec_folder), 8
    config.model.features.speech = 2
    config.mesh.data, config.mesh.fsdp, config.mesh.model = 2, 2, 2
    task, mesh = config.task(), sharding.make_mesh(config.mesh, 8)
    shapes = jax.eval_shape(lambda: create(config, task.create))
    layout = sharding.layout(shapes, mesh, config.mesh.fsdp_from)
    rng = np.random.default_rng(0)  # compiling the initialisers would take long
    drawn = jax.tree.map(lambda a: 0.02 * rng.standard_normal(a.shape), shapes.params)
    drawn = jax.tree.map(lambda a: a.astype(np.float32), drawn)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
    state = sharding.spread(zeros.replace(params=drawn), layout)
    split = state.params["blocks"]["feed1_up"]["kernel"].sharding.spec
    assert "model" in split and "fsdp" in split
    frozen = sharding.spread(task.frozen, sharding.layout(task.frozen, mesh))
    short = Bucket(np.arange(8), 64, 16)
    batch = task._batch_maker([each for each in task.train if each.frames <= 64])(range(8), short)
    after, metrics = make_train_step(config, mesh, task.loss)(state, sharding.place(batch, mesh), frozen)
    assert metrics["not_finite"] == 0 and int(after.step) == 1


def test_saved_and_read_back_a_config_is_the_same(asr):
    config = asr.get_config("small")
    assert settings.from_dict(Config, settings.to_dict(config)) == config


@pytest.mark.parametrize(("name", "value", "reason"), [
    ("model.features.kind", "wave", "must be one of codebook, learned, latents, mel"),
    ("model.features.speech", 0, "one level"),
    ("model.features.kind", "mel", "set data.waves"), ("model.text", "words", "characters, pieces, phones"),
    ("model.width", 30, "a multiple of 2 x model.heads, 4"), ("model.dropout", 1.0, "from 0 to below 1"),
    ("data.tokens", "", "--config.data.tokens=TOKENS"), ("data.longest", 0.1, "0 < shortest"),
    ("data.train_splits", "train", "a tuple such as"), ("train.valid_items", 0, "valid_items is 0"),
    ("train.precision", "half", "must be auto"),
    ("optim.kind", "sgd", "must be one of adamw, muon"),
])  # fmt: skip
def test_a_value_no_run_can_use_is_refused(config, name, value, reason):
    *sections, field = name.split(".")
    section = config
    for each in sections:
        section = getattr(section, each)
    setattr(section, field, value)
    with pytest.raises(UserError, match=reason):
        config.check()


def of(config, folder):
    config.data.tokens = str(folder)
    return Recognition(config)


def test_tokens_without_transcripts_are_refused(config, tmp_path, codec):
    rows = [token_folders.row(f"{n}", "abcdef", "") for n in range(4)]
    with pytest.raises(UserError, match=r"has no transcripts; tokenize a folder whose manifest.csv has the column"):
        of(config, token_folders.write(tmp_path / "t", rows, codec.fingerprint))


def test_transcripts_of_no_use_are_counted(config, tmp_path, codec):
    rows = token_folders.utterances(40)
    rows += [token_folders.row("digits", "abcdef", "in 1815"), token_folders.row("empty", "abcdef", ""),
             token_folders.row("fast", "abcdef", "a" * 40), token_folders.row("short", "a")]  # fmt: skip
    said = of(config, token_folders.write(tmp_path / "t", rows, codec.fingerprint)).describe()
    assert "1 without transcript" in said and "1 with text that cannot be spelled" in said
    assert "1 with more symbols than frames" in said and "too short or too long" in said


def test_another_codec_and_more_levels_than_there_are_are_refused(config, tmp_path):
    other = token_folders.write(tmp_path / "t", token_folders.utterances(20), "f" * 16)
    with pytest.raises(UserError, match=r"the tokens are of the codec ffffffffffffffff, and data.codec="):
        of(config, other)
    config.model.features.speech = 3
    with pytest.raises(UserError, match=r"model.features.speech is 3; the tokens have 2 levels of speech"):
        of(config, other)
