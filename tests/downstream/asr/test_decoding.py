"""Decoding beside cases that are small enough to be done by hand, or by trying every alignment."""

import itertools

import numpy as np
import pytest

from decodec_jax.downstream.asr.decoding import beam, greedy


def logs(rows):
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, np.float64))


def text_of(alignment):
    return tuple(symbol for symbol, _ in itertools.groupby(alignment) if symbol)


def test_greedy_joins_repetitions_and_leaves_blanks_out():
    scores = np.eye(4)[[0, 1, 1, 0, 1, 2, 2, 3, 0]]
    assert greedy(scores) == [1, 1, 2, 3]
    assert greedy(np.zeros((0, 4))) == []


def test_beam_adds_up_alignments_where_greedy_does_not():
    """By hand, with blank 0.6 and a 0.4 in both frames: "" has 0.36, and "a" has 0.24 + 0.24 + 0.16 = 0.64."""
    frames = [[0.6, 0.4], [0.6, 0.4]]
    assert greedy(logs(frames)) == [] and beam(logs(frames)) == [1]


def test_beam_needs_a_blank_between_repetitions():
    """By hand: "aa" has one alignment, a-blank-a, 0.7 x 0.5 x 0.7 = 0.245; "a" has 0.7^2 x 0.5 + ... = 0.455."""
    frames = [[0.3, 0.7], [0.5, 0.5], [0.3, 0.7]]
    by_text = {}
    for alignment in itertools.product(range(2), repeat=3):
        chance = np.prod([frames[t][symbol] for t, symbol in enumerate(alignment)])
        by_text[text_of(alignment)] = by_text.get(text_of(alignment), 0.0) + chance
    assert by_text[1, 1] == pytest.approx(0.245)
    assert beam(logs(frames)) == list(max(by_text, key=by_text.get)) == [1]
    assert beam(logs([[0.01, 0.99], [0.99, 0.01], [0.01, 0.99]])) == [1, 1]


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_likeliest_of_all_texts(seed):
    frames = np.random.default_rng(seed).dirichlet(np.full(4, 0.7), 6)
    by_text = {}
    for alignment in itertools.product(range(4), repeat=6):
        chance = np.prod(frames[np.arange(6), list(alignment)])
        by_text[text_of(alignment)] = by_text.get(text_of(alignment), 0.0) + chance
    assert tuple(beam(logs(frames), width=5000)) == max(by_text, key=by_text.get)
