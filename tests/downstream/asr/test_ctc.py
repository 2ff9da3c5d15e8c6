"""The loss beside a sum over alignments that is written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.downstream.asr.model import Heard
from decodec_jax.downstream.asr.task import ctc

PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.6, 0.1, 0.3]])  # frames x (blank, a, b)


def loss(text, frames=3, padding=0):
    logits = np.log(PROBABILITIES)
    logits = np.concatenate([logits, 9.0 * np.ones((padding, 3))])[None]  # what stands behind the end counts nothing
    padded = np.zeros((1, 4), np.int32)
    padded[0, : len(text)] = text
    heard = Heard(jnp.asarray(logits), jnp.array([frames]))
    return float(ctc(heard, jnp.asarray(padded), jnp.array([len(text)]))[0])


def test_a_worked_example():
    """ "ab" in three frames: aab, abb, ab-, a-b, -ab."""
    p = PROBABILITIES
    paths = [(1, 1, 2), (1, 2, 2), (1, 2, 0), (1, 0, 2), (0, 1, 2)]
    chance = sum(p[0, a] * p[1, b] * p[2, c] for a, b, c in paths)
    assert chance == pytest.approx(0.063 + 0.009 + 0.018 + 0.018 + 0.105)
    assert loss([1, 2]) == pytest.approx(-np.log(chance) / 2, rel=1e-5)
    assert loss([1, 2], padding=2) == pytest.approx(-np.log(chance) / 2, rel=1e-5)


def test_a_repeated_symbol_needs_a_blank():
    """ "aa" in three frames: a-a alone."""
    assert loss([1, 1]) == pytest.approx(-np.log(0.3 * 0.2 * 0.1) / 2, rel=1e-5)


def test_fewer_frames_count():
    """ "b" in the first two frames: bb, b-, -b."""
    assert loss([2], frames=2) == pytest.approx(-np.log(0.2 * 0.1 + 0.2 * 0.2 + 0.5 * 0.1), rel=1e-5)
