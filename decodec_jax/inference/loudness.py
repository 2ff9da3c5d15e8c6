"""The loudness of a recording, and the gain that brings it to the level at which it is coded.

If recordings came at all levels, codebooks would spend entries on the differences. So models are trained on speech of
about one level. Recordings are scaled to that level before they are coded, and the results are scaled back.
"""

import numbers
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from decodec_jax import arrays
from decodec_jax.errors import UserError

LEVEL = -26.0  # dB of full scale, at which recordings are coded
BLOCK = 0.4  # s, length of a block
SILENCE = 1e-7  # power, -70 dB of full scale; blocks are gated as in ITU-R BS.1770, but without its weighting
PAUSE = 0.1  # share of the mean power of blocks that are not silent, -10 dB; quieter blocks are pauses
GAINS = (-20.0, 40.0)  # dB, minimum and maximum of the measured gain
MAX_GAIN = 100.0  # dB, up or down, that a caller may ask for


def gain_of(wave: ArrayLike, sample_rate: int) -> float:
    """The gain (dB) that brings a recording, `[t]` or `[channels, t]`, to `LEVEL`: one gain for all channels.

    The level is the RMS over blocks that are neither silence nor pause; if there are none, the gain is 0. Raises
    UserError for what is not a waveform.
    """
    return gain_of_pieces([np.atleast_2d(arrays.waveform(wave))], sample_rate)


def gain_of_pieces(pieces: Iterable[ArrayLike], sample_rate: int) -> float:
    """`gain_of` for a recording in pieces `[channels, n]`, with the same result. Stores two numbers for each block."""
    level = level_of_pieces(pieces, sample_rate)
    return float(np.float32(np.clip(LEVEL - level, *GAINS))) if np.isfinite(level) else 0.0  # float32, as in a file


def level_of_pieces(pieces: Iterable[ArrayLike], sample_rate: int) -> float:
    """The level (dB of full scale) of a recording in pieces `[channels, n]`, as in `gain_of`; -inf for silence."""
    size = max(1, round(BLOCK * arrays.checked_rate(sample_rate)))
    blocks = [(_power(block), block.shape[1]) for block in _blocks(arrays.pieces(pieces), size)]
    power, samples = np.array(blocks, np.float64).reshape(-1, 2).T  # the last block may be shorter, and so weighs less
    heard = power > SILENCE
    if not heard.any():
        return -np.inf
    active = heard & (power > PAUSE * np.average(power[heard], weights=samples[heard]))
    return float(10 * np.log10(np.average(power[active], weights=samples[active])))


def amplitude(gain: float) -> float:
    """The factor for a gain in dB. Raises UserError unless it is a number from -100 to 100."""
    return 10.0 ** (checked_gain(gain) / 20)


def checked_gain(gain: float) -> float:
    """A gain in dB. Raises UserError unless it is a number from -100 to 100."""
    if not isinstance(gain, numbers.Real) or not abs(gain) <= MAX_GAIN:
        raise UserError(f"gain is {gain!r}; it must be a number of dB from {-MAX_GAIN:g} to {MAX_GAIN:g}")
    return float(gain)


def _blocks(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Regroup pieces `[channels, n]` of any lengths into blocks `[channels, size]`; the last may be shorter."""
    held = None
    for piece in pieces:
        held = piece if held is None else np.concatenate([held, piece], axis=1)
        while held.shape[1] >= size:
            yield held[:, :size]
            held = held[:, size:]
    if held is not None and held.shape[1]:
        yield held


def _power(block: np.ndarray) -> float:
    """Mean square. order="C": the order of summation must not depend on the block's memory layout."""
    return np.mean(np.square(block, dtype=np.float64, order="C"))
