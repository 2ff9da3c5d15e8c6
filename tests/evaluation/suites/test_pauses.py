"""Pauses that are known are found, and what is in them is measured."""

import math

import numpy as np
import pytest

from decodec_jax.evaluation.suites import pauses

RATE = 16_000


@pytest.fixture
def speech():
    """A second of a tone, half a second of nothing, a second of a tone."""
    tone = 0.1 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    return np.concatenate([tone, np.zeros(RATE // 2), tone]).astype(np.float32)


def test_a_frame_is_in_a_pause_where_all_around_it_is_quiet(speech):
    found = pauses.found(speech, RATE)
    where = np.arange(len(found)) * 128 / RATE
    assert len(found) == 1 + len(speech) // 128 + (len(speech) % 128 > 0)
    np.testing.assert_array_equal(found, (where > 1.05) & (where < 1.45))
    assert not pauses.found(np.zeros(RATE, np.float32), RATE).any()  # without speech there is nothing to pause


def test_the_noise_in_pauses_is_compared_with_that_of_the_prompt(speech, rng):
    noise = 0.03 * rng.standard_normal(len(speech)).astype(np.float32)
    where = pauses.found(speech, RATE)

    def measured(level):
        return pauses.scores(speech + level * noise, where, speech + noise, where, RATE)

    same = measured(1)
    assert same["pauses/level"] == pytest.approx(-30.5, abs=0.5)
    assert same["pauses/relative"] == same["pauses/log_mel"] == 0
    quieter = measured(0.1)
    assert quieter["pauses/relative"] == pytest.approx(-20, abs=0.01)
    assert quieter["pauses/log_mel"] == pytest.approx(1, abs=0.1)  # a tenth, in log10
    assert measured(0)["pauses/level"] == -120


def test_recordings_that_hardly_pause_have_no_scores(speech):
    where = pauses.found(speech, RATE)
    few = where & (np.cumsum(where) < pauses.LEAST)
    assert all(math.isnan(score) for score in pauses.scores(speech, few, speech, where, RATE).values())
