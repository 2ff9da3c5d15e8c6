"""Figures of codes and of words."""

from collections.abc import Sequence

import numpy as np

_TINY = 1e-10


def bitrate(bits: float, seconds: float) -> float:
    """kbps."""
    return bits / seconds / 1000


def perplexity(codes: np.ndarray, entries: int) -> np.ndarray:
    """Entries in effective use per level, exp of the entropy: codes `[b, k, f] -> [k]`, between 1 and `entries`."""
    shares = _shares(codes, entries)
    return np.exp(-np.sum(shares * np.log(shares + _TINY), axis=-1))


def surprise(codes: np.ndarray, entries: int) -> np.ndarray:
    """Bits that each item's codes take on average where all items' frequencies are known: codes `[b, k, f] -> [b, k]`.

    The mean over items is the entropy of each level in bits; their scatter tells how well it is known.
    """
    shares = _shares(codes, entries)
    bits = -np.log2(np.take_along_axis(shares[None], codes, axis=-1))
    return bits.mean(axis=-1)


def usage(codes: np.ndarray, entries: int) -> np.ndarray:
    """Share of the entries that occur at all, per level: codes `[b, k, f] -> [k]`, at most b f of them."""
    return np.mean(_shares(codes, entries) > 0, axis=-1)


def _shares(codes: np.ndarray, entries: int) -> np.ndarray:
    """How often each entry of each level is chosen, `[b, k, f] -> [k, entries]`, each level adding up to 1."""
    levels = codes.swapaxes(0, 1).reshape(codes.shape[1], -1)
    return np.stack([np.bincount(level, minlength=entries) / level.size for level in levels])


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to be replaced, put in or left out to make one of the other: what a word error rate counts."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
