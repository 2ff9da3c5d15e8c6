"""Log mel spectra have the frames of the tokens, and the comparison with them opens the recordings."""

import jax
import numpy as np
import pytest
import token_folders

from decodec_jax import audio
from decodec_jax.downstream.mel import log_mel


@pytest.mark.parametrize("t", [1, 319, 320, 321, 16_000])
def test_a_frame_for_each_hop(t):
    assert log_mel(np.zeros(t, np.float32), 16_000, 320, 80).shape == (-(-t // 320), 80)


def test_a_frame_is_centred_on_its_own_samples_and_a_tone_on_its_band():
    wave = np.zeros(3200, np.float32)
    wave[5 * 320 : 6 * 320] = np.sin(2 * np.pi * 1000 * np.arange(320) / 16_000)
    mel = log_mel(wave, 16_000, 320, 80)
    assert np.argmax(mel.max(1)) == 5 and mel[5].max() > mel[4].max() and mel[5].max() > mel[6].max()
    assert np.argmax(mel[5]) == pytest.approx(26, abs=1)  # 1 kHz on Slaney's scale


def test_a_recogniser_of_spectra_reads_the_waves_that_were_tokenized(config, tmp_path, codec, rng):
    rows = token_folders.utterances(20)
    for row in rows:
        (tmp_path / "waves" / row["id"]).parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * rng.standard_normal(16 * row["length"]).astype(np.float32)
        audio.write(tmp_path / "waves" / row["id"], wave, 16_000)
    config.data.tokens = str(token_folders.write(tmp_path / "t", rows, codec.fingerprint))
    config.data.waves, config.model.features.kind, config.model.features.bands = str(tmp_path / "waves"), "mel", 6
    task = config.task()
    batch = next(task.batches())
    assert "speech" not in batch and batch["mel"].shape[2] == 6
    for row, frames in zip(batch["mel"], batch["frames"], strict=True):
        assert np.all(np.any(row[:frames], axis=1)) and not np.any(row[frames:])
    key = jax.random.key(0)
    params = jax.eval_shape(task.create, key)
    loss, _ = jax.eval_shape(task.loss, params, task.frozen, batch, key)
    assert loss.shape == ()
