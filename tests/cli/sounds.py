"""Small recordings for the command, and what they should hold."""

import numpy as np

from decodec_jax import audio, testing

RATE = 16_000
STEP = 1 / 32768


def clips(t, b=2, seed=0):
    return np.round((testing.speech_clips(b, t, seed) + testing.background_clips(b, t, seed)) / STEP) * STEP


def streamed(codec, wave, keep, gain=0.0):
    """As a pipe is coded, which nobody measures."""
    return np.concatenate(list(codec.stream([wave], RATE, keep, gain=gain)), axis=1)


def assert_holds(path, wave, rate):
    got, got_rate = audio.read(path)
    assert (got.shape, got_rate) == (np.atleast_2d(wave).shape, rate)
    np.testing.assert_allclose(got, np.clip(np.atleast_2d(wave), -1, 1), atol=0.51 * STEP + 1e-5)
