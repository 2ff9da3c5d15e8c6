"""Figures of merit of waveforms and codes. Numpy only."""

import numpy as np

_TINY = 1e-10


def sdr(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Signal-to-distortion ratio in dB over the last axis, `[..., t] -> [...]`: every difference is distortion."""
    error = np.sum((estimate - reference) ** 2, axis=-1)
    return 10 * np.log10((np.sum(reference**2, axis=-1) + _TINY) / (error + _TINY))


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scale-invariant SDR in dB over the last axis (Le Roux et al. 2019), `[..., t] -> [...]`, means removed."""
    estimate = estimate - estimate.mean(-1, keepdims=True)
    reference = reference - reference.mean(-1, keepdims=True)
    energy = np.sum(reference**2, axis=-1, keepdims=True)
    target = np.sum(estimate * reference, axis=-1, keepdims=True) / (energy + _TINY) * reference
    error = np.sum((estimate - target) ** 2, axis=-1)
    return 10 * np.log10((np.sum(target**2, axis=-1) + _TINY) / (error + _TINY))


def perplexity(codes: np.ndarray, entries: int) -> np.ndarray:
    """Entries in effective use per level, exp of the entropy: codes `[b, k, f] -> [k]`, between 1 and `entries`."""
    levels = codes.swapaxes(0, 1).reshape(codes.shape[1], -1)
    shares = np.stack([np.bincount(level, minlength=entries) / level.size for level in levels])
    return np.exp(-np.sum(shares * np.log(shares + _TINY), axis=-1))


def separation(estimates: dict[str, np.ndarray], references: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """SDR and SI-SDR of "mixture", "speech" and "background" `[n, t]`, each `[n]`, and the parts' gain over doing
    nothing, that is, over taking the input mixture for them."""
    scores = {}
    for name, measure in (("sdr", sdr), ("si_sdr", si_sdr)):
        for part in ("mixture", "speech", "background"):
            scores[f"{name}/{part}"] = measure(estimates[part], references[part])
        for part in ("speech", "background"):
            unprocessed = measure(references["mixture"], references[part])
            scores[f"{name}_gain/{part}"] = scores[f"{name}/{part}"] - unprocessed
    return scores
