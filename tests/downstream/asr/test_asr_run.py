"""Runs of a tiny recogniser: it learns, goes on where it stopped, and computes the same on many devices."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import token_folders

from decodec_jax.corpora import shards
from decodec_jax.downstream import loop
from decodec_jax.downstream.asr.recogniser import Recogniser
from decodec_jax.downstream.step import create, make_train_step
from decodec_jax.errors import UserError
from decodec_jax.training import sharding, steps

ROOT = Path(__file__).parents[3]


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k} for row in lines]


def short(config):
    """Six steps with everything random in them."""
    config.train.steps, config.train.valid_every, config.train.save_every, config.train.log_every = 6, 3, 3, 1
    config.data.buckets = 1  # each is compiled
    config.masks.times, config.masks.channels, config.model.dropout = 2, 1, 0.2
    return config


@pytest.fixture(scope="module")
def trained(asr, tokens, codec_folder, tmp_path_factory):
    """The folder of a whole run of the variant `tiny`."""
    config = asr.get_config("tiny")
    config.data.tokens, config.data.codec = str(tokens), str(codec_folder)
    config.model.features.speech, config.model.stack = 1, 1
    config.data.buckets = 1  # each is compiled
    config.mesh.data, config.train.precision = 1, "float32"
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    loop.train(config, folder)
    return folder


def test_it_learns_what_codes_spell(trained, tokens, codec):
    last = rows(trained)[-1]
    assert last["step"] == 120 and last["valid/cer"] < 0.1 and last["loss"] < 0.2
    recogniser = Recogniser.load(trained, codec)
    found = [(row["transcript"], tokens) for row, tokens in shards.read(tokens) if row["split"] == "valid"]
    wrong = sum(said != recogniser.recognise(each) for said, each in found)
    assert wrong <= 0.3 * len(found)
    assert sum(said != recogniser.recognise(each, beams=4) for said, each in found) <= wrong + 1
    card = json.loads((trained / "card.json").read_text())
    assert card["codec"] == codec.fingerprint and card["data"]["utterances"] > 40


def test_tokens_of_another_codec_are_refused(trained, codec, tokens):
    recogniser = Recogniser.load(trained, codec)
    (_, one) = next(shards.read(tokens))
    with pytest.raises(UserError, match="the tokens are of the codec 0000000000000000"):
        recogniser.recognise(dataclasses.replace(one, fingerprint="0" * 16))


def test_interrupted_is_uninterrupted(config, tmp_path, monkeypatch):
    whole = loop.train(short(config), tmp_path / "whole")
    run = steps.run

    def stopped(settings, first, state, batches, checkpoints, monitor, work):
        record = monitor.record

        def terminated(step, metrics):
            record(step, metrics)
            if step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

        monitor.record = terminated
        return run(settings, first, state, batches, checkpoints, monitor, work)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "run", stopped)
        assert int(loop.train(config, tmp_path / "parts").step) in (4, 5)
    assert_equal(loop.train(config, tmp_path / "parts"), whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_other_tokens_in_the_same_run_are_refused(config, tmp_path, codec):
    card = config.task().card()
    loop.keep_card(tmp_path, card)
    assert loop.keep_card(tmp_path, card) == []
    assert "tokens have changed" in loop.keep_card(tmp_path, card | {"data": {"utterances": 1}})[0]
    with pytest.raises(UserError, match=f"a run whose codec is {codec.fingerprint}, and these tokens have feed"):
        loop.keep_card(tmp_path, card | {"codec": "feed"})


def after(config, count=2):
    mesh = sharding.make_mesh(config.mesh, config.data.batch, config.train.accumulate)
    task = config.task()
    state = create(config, task.create)
    state = sharding.spread(state, sharding.layout(state, mesh, config.mesh.fsdp_from))
    step, batches = make_train_step(config, mesh, task.loss), task.batches()
    frozen = sharding.spread(task.frozen, sharding.layout(task.frozen, mesh))
    for _ in range(count):
        state, metrics = step(state, sharding.place(next(batches), mesh), frozen)
    return jax.device_get(state), float(metrics["loss"])


def test_eight_devices_and_micro_batches_compute_what_one_does(config):
    config.optim.lr, config.data.buckets = 1e-4, 1
    one, loss = after(config)
    config.mesh = dataclasses.replace(config.mesh, data=2, fsdp=2, model=2, fsdp_from=64)
    config.train.accumulate = 2
    eight, other = after(config)
    assert other == pytest.approx(loss, rel=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.max(np.abs(a), initial=0)),
        one.optimizer, eight.optimizer,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "speech", "background"), [("learned", 1, 0), ("codebook", 2, 1)])
def test_other_features_step(config, kind, speech, background):
    features = config.model.features
    features.kind, features.speech, features.background = kind, speech, background
    task, mesh = config.task(), sharding.make_mesh(config.mesh, config.data.batch)
    state = jax.eval_shape(lambda: create(config, task.create))
    assert ("speech_vectors" in state.params) == (kind == "learned")
    _, metrics = jax.eval_shape(make_train_step(config, mesh, task.loss), state, next(task.batches()), task.frozen)
    assert metrics["loss"].shape == ()


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    for name, digit in (("a", "1"), ("b", "2")):
        token_folders.write(tmp_path / name, token_folders.utterances(4), digit * 16)
    done = subprocess.run(
        [sys.executable, "launch/train.py", "--config", "configs/asr.py:tiny", "--workdir", str(tmp_path / "run"),
         f"--config.data.tokens={tmp_path / 'a'},{tmp_path / 'b'}"],
        cwd=ROOT, text=True, capture_output=True, check=False, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("train.py: ") and "different codecs: fingerprint is 1111111111111111" in done.stderr
    assert not (tmp_path / "run/config.json").exists()
