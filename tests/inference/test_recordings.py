import numpy as np
import pytest

from decodec_jax.codec.model import Halves
from decodec_jax.inference.recordings import grouped, keep_parts


def test_those_of_a_kind_are_side_by_side():
    assert grouped("abcab") == [("a", [0, 3]), ("b", [1, 4]), ("c", [2])]
    assert grouped("aaa") == [("a", [0, 1, 2, 2])]
    assert grouped("aaaaaaa", most=4) == [("a", [0, 1, 2, 3]), ("a", [4, 5, 6, 6])]


@pytest.mark.parametrize(
    ("keep", "levels", "speech", "background"),
    [
        ("both", (3, 2), 3 * [1], 2 * [2]),
        ("speech", (3, 2), 3 * [1], 4 * [0]),
        ("background", (3, 2), 4 * [0], 2 * [2]),
        ("semantic", (3, 2), [1], 4 * [0]),
        ("both", (3, 0), 3 * [1], 4 * [0]),
        ("both", (0, 2), 4 * [0], 2 * [2]),
    ],
)
def test_silence_stands_where_nothing_is_kept(keep, levels, speech, background):
    codes = Halves(np.full((2, levels[0], 5), 1), np.full((2, levels[1], 5), 2))
    silence = np.zeros((1, 4, 5), int)
    given = keep_parts(codes, Halves(silence, silence), keep)
    assert [half.shape[::2] for half in given] == [(2, 5), (2, 5)]
    assert [half[1, :, 0].tolist() for half in given] == [speech, background]
