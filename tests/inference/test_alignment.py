import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.inference import alignment
from decodec_jax.inference.alignment import aligned

VECTORS = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)


def test_the_same_words_elsewhere_are_found():
    reference = np.random.default_rng(1).permutation(50)
    assert aligned(reference[10:30], reference, VECTORS)[2:-2].tolist() == list(range(12, 28))
    assert aligned(reference, reference, VECTORS).tolist() == list(range(50))


def test_the_nearest_in_context_by_hand(rng):
    source, reference = rng.integers(0, 50, 13), rng.integers(0, 50, 7)
    padded = [np.pad(codes, alignment.REACH, "edge") for codes in (source, reference)]
    windows = [VECTORS[np.lib.stride_tricks.sliding_window_view(p, 2 * alignment.REACH + 1)] for p in padded]
    distances = ((windows[0][:, None] - windows[1][None]) ** 2).sum(axis=(2, 3))
    assert aligned(source, reference, VECTORS).tolist() == distances.argmin(axis=1).tolist()


def test_long_sources_are_compared_in_parts(rng, monkeypatch):
    source, reference = rng.integers(0, 50, 13), rng.integers(0, 50, 7)
    whole = aligned(source, reference, VECTORS)
    monkeypatch.setattr(alignment, "ROWS", 4)
    np.testing.assert_array_equal(aligned(source, reference, VECTORS), whole)


def test_tiling_repeats_or_cuts():
    assert aligned(np.zeros(5, int), np.zeros(3, int), VECTORS, "tile").tolist() == [0, 1, 2, 0, 1]
    assert aligned(np.zeros(2, int), np.zeros(3, int), VECTORS, "tile").tolist() == [0, 1]


def test_other_alignments_are_refused():
    with pytest.raises(UserError, match="alignment is 'dtw'; it must be one of content, tile"):
        aligned(np.zeros(1, int), np.zeros(1, int), VECTORS, "dtw")
