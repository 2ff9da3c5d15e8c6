"""What is heard between the words: the level and the spectrum of a recording where its speech pauses."""

import math

import numpy as np

from decodec_jax.evaluation.suites.scoring import Scores
from decodec_jax.inference.loudness import level_of_pieces
from decodec_jax.objective.spectral import log_mel

WINDOW, BANDS = 512, 40  # samples and mel bands of the spectra; a frame every quarter of a window
QUIET = -30.0  # dB relative to the level of the speech; below it, speech pauses
AROUND = 0.05  # s before and after a frame of a pause that must be quiet too, so that echoes of words do not count
LEAST = 10  # frames; fewer say nothing
FLOOR = 1e-12  # power, -120 dB of full scale


def found(speech: np.ndarray, rate: int) -> np.ndarray:
    """Whether each frame is within a pause of speech without a background, `[t]`: bool `[1 + ceil(t / 128)]`."""
    level = level_of_pieces([speech[None]], rate)
    return _power(speech, round(AROUND * rate)) < 10 ** ((level + QUIET) / 10)


def scores(wave: np.ndarray, pauses: np.ndarray, truth: np.ndarray, truth_pauses: np.ndarray, rate: int) -> Scores:
    """Level and log mel spectrum of a waveform in its pauses, compared with those of another in its own.

    They need not be of one length. NaN if one of them hardly pauses.
    """
    if min(pauses.sum(), truth_pauses.sum()) < LEAST:
        return dict.fromkeys(("pauses/level", "pauses/relative", "pauses/log_mel"), math.nan)
    ours, theirs = _level(wave, pauses), _level(truth, truth_pauses)
    apart = np.abs(_spectrum(wave, pauses, rate) - _spectrum(truth, truth_pauses, rate))
    return {"pauses/level": ours, "pauses/relative": ours - theirs, "pauses/log_mel": float(apart.mean())}


def _level(wave: np.ndarray, pauses: np.ndarray) -> float:
    """Level in the pauses, dB of full scale."""
    return float(10 * np.log10(_power(wave, WINDOW // 8)[pauses].mean() + FLOOR))


def _spectrum(wave: np.ndarray, pauses: np.ndarray, rate: int) -> np.ndarray:
    """Mean log10 mel spectrum of the pauses, `[BANDS]`."""
    return np.asarray(log_mel(wave[None], rate, WINDOW, BANDS)[0])[pauses].mean(axis=0)


def _power(wave: np.ndarray, around: int) -> np.ndarray:
    """Mean power of so many samples before and after the middle of each frame, `[f]`."""
    t, hop = len(wave), WINDOW // 4
    middle = np.minimum(np.arange(1 + -(-t // hop)) * hop, t)
    first, last = np.maximum(middle - around, 0), np.minimum(middle + around, t)
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    return (energy[last] - energy[first]) / (last - first)
