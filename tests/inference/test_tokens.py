import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.inference.tokens import Tokens, bitrate, join

GOOD = {
    "speech": np.arange(15).reshape(3, 5), "background": np.zeros((0, 5), np.int32), "length": 99, "sample_rate": 1000,
    "hop": 20, "entries": (15, 2), "fingerprint": "0123456789abcdef",
}  # fmt: skip


def test_codes_are_held_as_int32_and_measured():
    tokens = Tokens(**GOOD)
    assert tokens.speech.dtype == tokens.background.dtype == np.int32
    assert (tokens.frames, tokens.levels, tokens.seconds) == (5, (3, 0), 0.099)
    assert type(Tokens(**(GOOD | {"length": np.int64(99)})).length) is int
    assert (tokens.gain, Tokens(**(GOOD | {"gain": 0.1})).gain) == (0.0, float(np.float32(0.1)))


@pytest.mark.parametrize(
    ("levels", "entries", "expected"),
    [
        ((8, 8), (1024, 1024), 8000),
        ((1, 0), (1024, 1024), 500),
        ((3, 0), (1000, 2), 1500),
        ((0, 2), (2, 3), 200),
    ],
)
def test_a_code_takes_the_bits_of_its_largest_value(levels, entries, expected):
    assert bitrate(levels, entries, 50.0) == expected


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("length", 0, "length is 0"),
        ("length", 99.0, "length is 99.0"),
        ("length", True, "length is True"),
        ("length", 101, r"speech has shape \(3, 5\).*\[levels, 6\]"),
        ("hop", -1, "hop is -1"),
        ("sample_rate", "16000", "sample_rate is '16000'"),
        ("entries", (15, 1), "from 2 to 65536"),
        ("entries", (65537, 2), "from 2 to 65536"),
        ("entries", (15,), "two numbers"),
        ("entries", (14, 2), "codes from 0 to 14; its codebooks have entries 0 to 13"),
        ("fingerprint", "0123456789ABCDEF", "16 digits"),
        ("fingerprint", "0123456789abcde", "16 digits"),
        ("gain", float("nan"), "gain is nan; it must be a number of dB from -100 to 100"),
        ("gain", 100.5, "gain is 100.5"),
        ("gain", "3", "gain is '3'"),
        ("speech", -np.ones((3, 5), int), "codes from -1"),
        ("speech", np.full((3, 5), 2**40), "codes from 1099511627776"),
        ("speech", np.zeros((3, 5)), "float64"),
        ("speech", np.zeros((1, 3, 5), int), "shape"),
        ("background", np.zeros(5, int), "background has shape"),
        ("speech", np.zeros((0, 5), int), "both streams are left out"),
    ],
)
def test_what_no_codec_makes_is_refused(field, value, words):
    with pytest.raises(UserError, match=words):
        Tokens(**(GOOD | {field: value}))


def test_cut_and_join_are_inverses():
    tokens = Tokens(**GOOD)
    pieces = [tokens.cut(0, 1), tokens.cut(1, 4), tokens.cut(4, 5)]
    assert [piece.length for piece in pieces] == [20, 60, 19]
    assert join(pieces) == tokens
    assert join([tokens]) == tokens
    assert tokens != tokens.cut(0, 4)
    assert tokens != 5


def test_pieces_that_do_not_fit_are_refused():
    tokens = Tokens(**GOOD)
    with pytest.raises(UserError, match="within a frame"):
        join([tokens, tokens])
    with pytest.raises(UserError, match="cannot follow"):
        join([tokens.cut(0, 1), Tokens(**(GOOD | {"fingerprint": 16 * "0"}))])
    with pytest.raises(UserError, match="and gain must be the same"):
        join([tokens.cut(0, 1), Tokens(**(GOOD | {"gain": 1.0}))])
    with pytest.raises(UserError, match="length is 0"):
        tokens.cut(2, 2)
