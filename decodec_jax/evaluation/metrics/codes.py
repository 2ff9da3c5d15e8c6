"""Metrics of codes."""

import numpy as np

_TINY = 1e-10


def bitrate(bits: float, seconds: float) -> float:
    """Bitrate in kbps."""
    return bits / seconds / 1000


def perplexity(codes: np.ndarray, entries: int) -> np.ndarray:
    """Effective number of entries per level, exp of the entropy: codes `[b, k, f] -> [k]`, from 1 to `entries`."""
    shares = _shares(codes, entries)
    return np.exp(-np.sum(shares * np.log(shares + _TINY), axis=-1))


def surprisal(codes: np.ndarray, entries: int) -> np.ndarray:
    """Mean surprisal in bits of each item's codes under the frequencies in all items: codes `[b, k, f] -> [b, k]`.

    The mean over items is the entropy of each level in bits; the spread over items shows how precise that is.
    """
    shares = _shares(codes, entries)
    bits = -np.log2(np.take_along_axis(shares[None], codes, axis=-1))
    return bits.mean(axis=-1)


def usage(codes: np.ndarray, entries: int) -> np.ndarray:
    """Share of the entries that occur at all, per level: codes `[b, k, f] -> [k]`. At most b f entries can occur."""
    return np.mean(_shares(codes, entries) > 0, axis=-1)


def _shares(codes: np.ndarray, entries: int) -> np.ndarray:
    """Relative frequency of each entry of each level, `[b, k, f] -> [k, entries]`; each level adds up to 1."""
    levels = codes.swapaxes(0, 1).reshape(codes.shape[1], -1)
    return np.stack([np.bincount(level, minlength=entries) / level.size for level in levels])

