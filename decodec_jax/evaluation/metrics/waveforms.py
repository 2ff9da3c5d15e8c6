"""Metrics of waveforms, on numpy arrays.

ESTOI and PESQ come from the packages `pystoi` and `pesq`; the others are computed here.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import numpy as np
import scipy.fft
import scipy.linalg

from decodec_jax import audio
from decodec_jax.arrays import samples
from decodec_jax.evaluation.extras import package

_TINY = 1e-10
_MEL_SCALES = ((2048, 150), (512, 80))  # window in samples, mel bands
_MEL_FLOOR = 1e-5
_LOG_MEL_WINDOWS, _LOG_MEL_BANDS = (512, 1024, 2048), 80
_BSS_TAPS = 512  # length of the filter that BSS-eval allows for
_PESQ_RATE = 16_000  # Hz, of wideband PESQ
_INAUDIBLE = 1e-8  # -160 dB


Metric = TypeVar("Metric", bound=Callable)


def _accepts_any_array(metric: Metric) -> Metric:
    """Let a metric take any kind of array, see arrays.py."""

    @wraps(metric)
    def wrapper(estimate, reference, *rest, **options):
        return metric(samples(estimate), samples(reference), *rest, **options)

    return wrapper


@_accepts_any_array
def sdr(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Signal-to-distortion ratio in dB over the last axis, `[..., t] -> [...]`: any difference is distortion."""
    error = np.sum((estimate - reference) ** 2, axis=-1)
    return 10 * np.log10((np.sum(reference**2, axis=-1) + _TINY) / (error + _TINY))


@_accepts_any_array
def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scale-invariant SDR in dB over the last axis (Le Roux et al. 2019), without means, `[..., t] -> [...]`."""
    estimate = estimate - estimate.mean(-1, keepdims=True)
    reference = reference - reference.mean(-1, keepdims=True)
    energy = np.sum(reference**2, axis=-1, keepdims=True)
    target = np.sum(estimate * reference, axis=-1, keepdims=True) / (energy + _TINY) * reference
    error = np.sum((estimate - target) ** 2, axis=-1)
    return 10 * np.log10((np.sum(target**2, axis=-1) + _TINY) / (error + _TINY))


@_accepts_any_array
def bss_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """BSS-eval's SDR in dB of `[t]` (Vincent et al. 2006, one source): the reference may pass a filter of 512 taps.

    So changes of level and colour and delays of up to 511 samples cost nothing. Silence, which no filter improves,
    scores 0.
    """
    estimate, reference = (np.asarray(wave, np.float64) for wave in (estimate, reference))
    t = len(reference) + _BSS_TAPS - 1
    size = scipy.fft.next_fast_len(t, real=True)
    spectrum = scipy.fft.rfft(reference, size)
    correlation = scipy.fft.irfft(np.abs(spectrum) ** 2, size)[:_BSS_TAPS]
    correlation[0] += _TINY  # silence would give a singular matrix
    cross = scipy.fft.irfft(spectrum.conj() * scipy.fft.rfft(estimate, size), size)[:_BSS_TAPS]
    taps = np.linalg.solve(scipy.linalg.toeplitz(correlation), cross)
    target = scipy.fft.irfft(spectrum * scipy.fft.rfft(taps, size), size)[:t]
    error = np.sum((np.pad(estimate, (0, _BSS_TAPS - 1)) - target) ** 2)
    return float(10 * np.log10((np.sum(target**2) + _TINY) / (error + _TINY)))


@_accepts_any_array
def estoi(estimate: np.ndarray, reference: np.ndarray, rate: int) -> float:
    """Extended short-time objective intelligibility of `[t]` (Jensen and Taal 2016), at most 1, by `pystoi`.

    Returns 0 for silence, and NaN if the reference has less than 0.4 s of speech, the length of one segment. Raises
    UserError if the package is missing.
    """
    stoi = package("pystoi").stoi
    if not np.any(estimate):
        return 0.0
    # Where a waveform is exactly 0, pystoi would compare random noise of its own, different at each call.
    noise = _INAUDIBLE * np.random.default_rng(0).standard_normal((2, len(reference)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames")
        try:
            return float(stoi(reference + noise[0], estimate + noise[1], rate, extended=True))
        except (RuntimeWarning, ValueError):  # an error: there is not even one frame
            return float("nan")


@_accepts_any_array
def pesq(estimate: np.ndarray, reference: np.ndarray, rate: int) -> float:
    """Wideband PESQ of `[t]` (ITU-T P.862.2), from 1 to 4.64, by the package `pesq`; resampled to 16 kHz.

    Returns NaN if it finds no speech in one of the waveforms, or if they are shorter than 0.25 s. Raises UserError if
    the package is missing.
    """
    module = package("pesq")
    if not (np.any(estimate) and np.any(reference)):
        return float("nan")
    waves = (audio.resample(np.asarray(wave, np.float32), rate, _PESQ_RATE) for wave in (reference, estimate))
    try:
        return float(module.pesq(_PESQ_RATE, *waves, "wb"))
    except (module.NoUtterancesError, module.BufferTooShortError):
        return float("nan")


@_accepts_any_array
def mel_distance(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> np.ndarray:
    """Distance of mel spectrograms as in DAC's evaluation, but at our rate, `[..., t] -> [...]`; 0 if they are equal.

    The mean absolute differences of the magnitudes and of log10 of their squares, summed over windows of 2048 and 512
    samples.
    """
    total = 0.0
    for window, bands in _MEL_SCALES:
        ours, theirs = (_mel(wave, sample_rate, window, bands) for wave in (estimate, reference))
        logs = [2 * np.log10(np.maximum(mel, _MEL_FLOOR)) for mel in (ours, theirs)]
        total += np.mean(np.abs(ours - theirs), axis=(-2, -1)) + np.mean(np.abs(logs[0] - logs[1]), axis=(-2, -1))
    return total


@_accepts_any_array
def log_mel_distance(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean absolute difference of log10 mel magnitudes in 80 bands, mean of three windows: `[..., t] -> [...]`."""
    each = []
    for window in _LOG_MEL_WINDOWS:
        mels = (_mel(wave, sample_rate, window, _LOG_MEL_BANDS) for wave in (estimate, reference))
        ours, theirs = (np.log10(np.maximum(mel, _MEL_FLOOR)) for mel in mels)
        each.append(np.mean(np.abs(ours - theirs), axis=(-2, -1)))
    return np.mean(each, axis=0)


def _mel(wave: np.ndarray, sample_rate: int, window: int, bands: int) -> np.ndarray:
    """Mel magnitudes `[..., t] -> [..., frames, bands]`: Hann window, hop of a quarter window, reflected ends."""
    import librosa  # takes most of a second to import

    around = [(0, 0)] * (wave.ndim - 1) + [(window // 2, window // 2)]
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, around, "reflect"), window, axis=-1)
    spectrum = np.fft.rfft(frames[..., :: window // 4, :] * np.hanning(window + 1)[:-1])
    return np.abs(spectrum) @ librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bands).T


def separation(estimates: dict[str, np.ndarray], references: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """SDR and SI-SDR of "mixture", "speech" and "background" `[n, t]`, and the gains of the last two; each `[n]`.

    A gain is the score of the estimate minus the score of the unprocessed mixture.
    """
    scores = {}
    for name, measure in (("sdr", sdr), ("si_sdr", si_sdr)):
        for part in ("mixture", "speech", "background"):
            scores[f"{name}/{part}"] = measure(estimates[part], references[part])
        for part in ("speech", "background"):
            unprocessed = measure(references["mixture"], references[part])
            scores[f"{name}_gain/{part}"] = scores[f"{name}/{part}"] - unprocessed
    return scores
