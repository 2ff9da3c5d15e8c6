"""A recogniser of latents: its batches, what it refuses, and a short run from recordings to text."""

import csv
import sys

import jax
import numpy as np
import pytest
import token_folders

from decodec_jax import audio
from decodec_jax.corpora import shards, tokenize
from decodec_jax.downstream import loop
from decodec_jax.downstream.asr.recogniser import STEP, Recogniser
from decodec_jax.downstream.corpus import stacked
from decodec_jax.errors import UserError

WIDTH = 5


def with_latents(rows, rng):
    for row in rows:
        row["latents"] = rng.standard_normal((row["speech"].shape[1], WIDTH)).astype(np.float16)
    return rows


@pytest.fixture
def hearing(config):
    config.model.features.kind = "latents"
    return config


@pytest.mark.parametrize("form", shards.FORMS)
def test_batches_hold_the_latents_of_the_shards(hearing, tmp_path, codec, rng, form):
    rows = with_latents(token_folders.utterances(40), rng)
    hearing.data.tokens = str(token_folders.write(tmp_path / "t", rows, codec.fingerprint, form))
    task = hearing.task()
    batch = next(task.batches())
    assert "speech" not in batch and batch["latents"].dtype == np.float32 and task.frozen == {}
    by_frames = {}
    for row in rows:
        by_frames.setdefault(len(row["latents"]), []).append(row["latents"])
    for row, frames in zip(batch["latents"], batch["frames"], strict=True):
        assert any(np.array_equal(row[:frames], each) for each in by_frames[frames]) and not np.any(row[frames:])
    key = jax.random.key(0)
    params = jax.eval_shape(task.create, key)
    assert params["dense_in"]["kernel"].shape == (WIDTH, 32)
    loss, _ = jax.eval_shape(task.loss, params, task.frozen, batch, key)
    assert loss.shape == () and task.card()["width"] == WIDTH


def test_shards_without_latents_and_those_of_other_codecs_are_refused(hearing, tmp_path, codec, rng):
    with pytest.raises(UserError, match="holds no latents; run `decodec tokenize --latents`"):
        hearing.task()
    for name, fingerprint in (("a", codec.fingerprint), ("b", "f" * 16)):
        token_folders.write(tmp_path / name, with_latents(token_folders.utterances(8), rng), fingerprint)
    hearing.data.tokens = f"{tmp_path / 'a'},{tmp_path / 'b'}"
    with pytest.raises(UserError, match="tokens of different codecs"):
        hearing.task()


def test_latents_of_another_length_are_damage(hearing, tmp_path, codec, rng):
    rows = with_latents(token_folders.utterances(8), rng)
    rows[3]["latents"] = rows[3]["latents"][1:]
    hearing.data.tokens = str(token_folders.write(tmp_path / "t", rows, codec.fingerprint))
    with pytest.raises(UserError, match=r"tokens-000000.parquet is damaged \(latents have shape"):
        hearing.task()


@pytest.fixture
def recordings(tmp_path, rng):
    """A folder of 12 recordings of noise with transcripts."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    rows = [("path", "split", "kind", "speaker", "transcript")]
    for n in range(12):
        audio.write(folder / f"{n}.wav", 0.1 * rng.standard_normal(700 + 20 * n).astype(np.float32), 1000)
        rows.append((f"{n}.wav", "valid" if n > 9 else "train", "speech", "ann", "a cat sat on a mat"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_from_recordings_to_pieces_of_words(hearing, recordings, tmp_path, codec, monkeypatch):
    tokenize.tokenize(codec, str(recordings), str(tmp_path / "tokens"), latents=True)
    hearing.data.tokens, hearing.data.buckets = str(tmp_path / "tokens"), 1
    hearing.model.text, hearing.model.pieces = "pieces", 30
    hearing.train.steps = hearing.train.save_every = 2
    loop.train(hearing, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # only training needs it
    recogniser = Recogniser.load(tmp_path / "run", codec)
    row, tokens = next(shards.read(tmp_path / "tokens", latents=True))
    wave, rate = audio.read(recordings / row["id"])
    written = stacked([row["latents"]], STEP)
    told = [recogniser._run(recogniser._params, {"frames": np.array([tokens.frames]), "latents": each}, {})[0]
            for each in (written, stacked([codec.embed(audio.mono(wave), rate).speech], STEP))]  # fmt: skip
    np.testing.assert_allclose(*told, atol=0.01)  # of the shard's float16, and of the recording
    assert isinstance(recogniser.recognise_wave(audio.mono(wave), rate), str) and not recogniser.hears_waves
    with pytest.raises(UserError, match="hears latents, not codes; give the recording to recognise_wave"):
        recogniser.recognise(tokens)
