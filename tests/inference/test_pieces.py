import numpy as np
import pytest

from decodec_jax.codec.model import Halves
from decodec_jax.errors import UserError
from decodec_jax.inference.pieces import joined, trimmed_to_input


def held_back(pieces):
    """What a codec does to time: nothing at first, then whole frames, more than there was."""
    yield np.zeros((1, 0))
    wave = np.concatenate(list(pieces), axis=1)
    yield wave[:, :3]
    yield np.pad(wave[:, 3:], ((0, 0), (0, 4)))
    yield np.zeros((1, 5))


def test_what_is_added_at_the_end_is_cut_and_nothing_empty_is_given():
    pieces = list(trimmed_to_input([np.ones((1, 2)), np.ones((1, 0)), np.ones((1, 5))], held_back))
    assert [piece.shape for piece in pieces] == [(1, 3), (1, 4)] and all(piece.all() for piece in pieces)
    with pytest.raises(UserError, match="has no samples"):
        list(trimmed_to_input([np.ones((1, 0))], held_back))


def test_pieces_are_joined_in_time():
    codes = Halves(np.arange(12).reshape(1, 2, 6), np.arange(6).reshape(1, 1, 6))
    pieces = [Halves(*(c[..., :2] for c in codes)), Halves(*(c[..., 2:] for c in codes))]
    assert all(map(np.array_equal, joined(pieces, axis=2), codes))
