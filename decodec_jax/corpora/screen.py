"""Decide whether a clip is fit for training, and where to cut a long recording. Functions of samples, in numpy."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 0.1  # s; recordings are cut in the middle of the quietest block
FLAT = 3  # this many samples in a row at the peak count as clipped; a sine has fewer
DYNAMICS = 70.0  # dB below the loudest band; anything quieter does not count as content


@dataclass(frozen=True)
class Limits:
    """The limits that a clip must keep."""

    longest: float = 30.0  # s; longer recordings are split
    shortest: float = 0.3  # s
    quietest: float = -60.0  # dB of full scale, RMS of the parts that are not silence
    clipped: float = 1e-3  # largest share of samples in flat tops
    bandwidth: float = 4000.0  # Hz that speech must reach


def fault(wave: np.ndarray, rate: int, kind: str, level: float, limits: Limits) -> str:
    """Why a clip [t] at `rate` (Hz) and `level` (dB of full scale) is unfit; "" if it is fit."""
    if kind != "room" and len(wave) < limits.shortest * rate:
        return "too short"
    if not level >= limits.quietest:
        return "too quiet"
    if kind != "room" and clipped(wave) > limits.clipped:
        return "clipped"
    if kind == "speech" and bandwidth(wave, rate) < limits.bandwidth:
        return "band-limited"
    return ""


def clipped(wave: np.ndarray) -> float:
    """The share of samples in flat tops: FLAT or more in a row, within 0.1 % of a peak above 0.5."""
    share = 0.0
    for side in (wave, -wave):
        peak = side.max(initial=0.0)
        if peak > 0.5:
            at_peak = side >= 0.999 * peak
            edges = np.flatnonzero(np.diff(np.concatenate([[0], at_peak.view(np.int8), [0]])))
            runs = edges[1::2] - edges[::2]
            share += runs[runs >= FLAT].sum() / max(1, len(wave))
    return float(share)


def bandwidth(wave: np.ndarray, rate: int) -> float:
    """The highest frequency (Hz) at which the mean spectrum of [t] is within DYNAMICS of its maximum."""
    size = rate // 40  # 25 ms
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    if not len(frames):
        return 0.0
    power = np.mean(np.square(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1))), axis=0)
    heard = np.flatnonzero(power > power.max() * 10 ** (-DYNAMICS / 10))
    return float(heard[-1] * rate / size) if len(heard) else 0.0


def split(pieces: Iterable[np.ndarray], rate: int, longest: float) -> Iterator[np.ndarray]:
    """Cut a recording, given in pieces [n], at pauses into clips [t] of at most `longest` seconds, in constant memory.

    Each cut is in the quietest block between half of `longest` and `longest`. There are no gaps between clips.
    """
    most, block = round(longest * rate), max(1, round(BLOCK * rate))
    held = np.zeros(0, np.float32)
    for piece in pieces:
        held = np.concatenate([held, piece])
        while len(held) > most:
            first = most // 2
            count = max(1, (most - first) // block)
            size = (most - first) // count
            blocks = held[first : first + count * size].reshape(count, size)
            cut = first + int(np.argmin(np.square(blocks, dtype=np.float64).sum(axis=1))) * size + size // 2
            yield held[:cut]
            held = held[cut:]
    if len(held):
        yield held
