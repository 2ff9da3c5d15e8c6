"""Level and gain: of what is heard, not of the pauses, and the same however the samples come."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodec_jax.errors import UserError
from decodec_jax.inference.loudness import BLOCK, amplitude, gain_of, gain_of_pieces
from decodec_jax.testing import speech_clips

RATE = 1000
SIZE = round(BLOCK * RATE)  # samples a block


def level(db, blocks=1.0):
    """A square wave of so many dB of full scale, and so many blocks."""
    return np.float32(10 ** (db / 20)) * (-1.0) ** np.arange(round(SIZE * blocks))


@pytest.mark.parametrize(
    ("wave", "gain"),
    [
        (level(-26), 0.0),
        (level(-40, 0.01), 14.0),  # shorter than a block
        (level(-30, 7.3), 4.0),
        (np.stack([level(-26), 0 * level(-26)]), 10 * np.log10(2)),  # mean of the channels' powers
        (level(0), -20.0),  # limited
        (level(-69), 40.0),
        (level(-71), 0.0),  # silence
        (np.zeros(3 * SIZE + 1), 0.0),
        (np.ones(1) / 8, 20 * np.log10(8) - 26),
        (np.full(1, 999.0), -20.0),
    ],
)
def test_gains_of_known_levels(wave, gain):
    assert gain_of(wave, RATE) == pytest.approx(gain, abs=1e-4)


def test_pauses_do_not_count():
    pauses = level(-60, 5), level(-75, 20), level(-36.5, 3), np.zeros(9 * SIZE)
    said = level(-20, 2), level(-23, 1)
    among = np.concatenate([pauses[0], said[0], pauses[1], said[1], pauses[2], pauses[3]])
    assert gain_of(among, RATE) == pytest.approx(gain_of(np.concatenate(said), RATE), abs=1e-4)
    power = (2 * 10**-2.0 + 10**-2.3) / 3
    assert gain_of(among, RATE) == pytest.approx(-26 - 10 * np.log10(power), abs=1e-4)


def test_quieter_passages_count():
    """What is less than 10 dB below the mean, here of -27.2 dB, is no pause."""
    wave = np.concatenate([level(-20, 1), level(-30, 9)])
    assert gain_of(wave, RATE) == pytest.approx(-26 - 10 * np.log10((10**-2 + 9 * 10**-3) / 10), abs=1e-4)


def test_the_rest_of_a_block_weighs_as_long_as_it_is():
    wave = np.concatenate([level(-26, 2), level(-20, 0.5)])
    assert gain_of(wave, RATE) == pytest.approx(-26 - 10 * np.log10((2 * 10**-2.6 + 0.5 * 10**-2) / 2.5), abs=1e-4)


def test_speech_with_long_pauses_is_as_loud_as_without():
    speech = speech_clips(1, 4 * SIZE, sample_rate=RATE)[0]
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(40 * SIZE)
    assert gain_of(np.concatenate([hiss, speech, hiss]), RATE) == pytest.approx(gain_of(speech, RATE), abs=1e-4)


@given(st.integers(1, 5 * SIZE), st.integers(1, 3), st.sampled_from([1, 8, 300, RATE]), st.data())
def test_any_pieces_give_the_gain_of_the_whole(t, channels, rate, data):
    rng = np.random.default_rng(t)
    wave = (rng.uniform(0, 0.3, t) ** 3 * rng.standard_normal((channels, t))).astype(np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, t), max_size=9)))
    pieces = np.split(wave, cuts, axis=1)
    interleaved = [np.asfortranarray(piece) for piece in pieces]  # as files are read
    gain = gain_of(wave, rate)
    assert gain_of_pieces(pieces, rate) == gain_of_pieces(iter(interleaved), rate) == gain == float(np.float32(gain))


@pytest.mark.parametrize(
    ("wave", "rate", "words"),
    [(np.zeros(0), RATE, "no samples"), ([0.1, np.nan], RATE, "NaN"), (np.ones(9), 0, "sample_rate is 0"),
     (np.ones((1, 1, 9)), RATE, "shape")],
)  # fmt: skip
def test_what_has_no_level(wave, rate, words):
    with pytest.raises(UserError, match=words):
        gain_of(wave, rate)


def test_gains_are_decibels():
    assert amplitude(20) == 10 and amplitude(0) == 1 and amplitude(np.float32(-6)) == pytest.approx(0.5012, abs=1e-4)
    for wrong in (np.nan, np.inf, 101, None, "6"):
        with pytest.raises(UserError, match="it must be a number of dB from -100 to 100"):
            amplitude(wrong)
