"""Forced alignment, against all alignments of short texts, and by a trained recogniser."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodec_jax.downstream.asr.alignment import best_path, durations
from decodec_jax.downstream.asr.decoding import collapsed


def logs_of(frames, symbols, seed):
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(symbols + 1), frames))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(4, 6), st.integers(0, 99))
def test_it_is_the_likeliest_of_all_alignments(symbols, frames, seed):
    logs = logs_of(frames, 3, seed)
    spelling = [path for path in itertools.product(range(4), repeat=frames) if collapsed(np.array(path)) == symbols]
    if not spelling:
        with pytest.raises(ValueError, match="do not fit"):
            best_path(logs, symbols)
        return
    found = best_path(logs, symbols)
    heard = np.where(found < 0, 0, np.array(symbols)[found])
    assert collapsed(heard) == symbols and list(dict.fromkeys(found[found >= 0])) == list(range(len(symbols)))
    def likelihood(path):
        return logs[np.arange(frames), path].sum()

    assert likelihood(heard) == pytest.approx(max(map(likelihood, spelling)))


def test_boundaries_are_half_way_between_symbols():
    path = np.array([-1, 0, 0, -1, -1, 1, -1, 2])  # middles at 2, 5.5 and 7.5
    np.testing.assert_array_equal(durations(path, 1, 8), [4, 3, 1])
    np.testing.assert_array_equal(durations(path, 2, 15), [8, 5, 2])


@given(st.data())
def test_durations_are_at_least_one_frame_and_sum_to_all(data):
    frames, stack = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 3))
    places = sorted(data.draw(st.sets(st.integers(0, frames - 1), min_size=1)))
    path = np.full(frames, -1)
    path[places] = np.arange(len(places))
    total = frames * stack - data.draw(st.integers(0, stack - 1))
    found = durations(path, stack, total)
    assert found.sum() == total and found.min() >= 1
