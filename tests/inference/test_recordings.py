import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.inference.recordings import as_long, grouped


def held_back(pieces):
    """What a codec does to time: nothing at first, then whole frames, more than there was."""
    yield np.zeros((1, 0))
    wave = np.concatenate(list(pieces), axis=1)
    yield wave[:, :3]
    yield np.pad(wave[:, 3:], ((0, 0), (0, 4)))
    yield np.zeros((1, 5))


def test_what_is_added_at_the_end_is_cut_and_nothing_empty_is_given():
    pieces = list(as_long([np.ones((1, 2)), np.ones((1, 0)), np.ones((1, 5))], held_back))
    assert [piece.shape for piece in pieces] == [(1, 3), (1, 4)] and all(piece.all() for piece in pieces)
    with pytest.raises(UserError, match="has no samples"):
        list(as_long([np.ones((1, 0))], held_back))


def test_those_of_a_kind_are_side_by_side():
    assert grouped("abcab") == [("a", [0, 3]), ("b", [1, 4]), ("c", [2])]
    assert grouped("aaa") == [("a", [0, 1, 2, 2])]
    assert grouped("aaaaaaa", most=4) == [("a", [0, 1, 2, 3]), ("a", [4, 5, 6, 6])]
