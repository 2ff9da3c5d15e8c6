"""Pairs of speech and background arrays (`Halves`): joining them in time, and replacing parts by silence."""

from collections.abc import Iterable

import numpy as np

from decodec_jax.codec.model import Halves


def joined(pieces: Iterable[Halves[np.ndarray]], axis: int = 2) -> Halves[np.ndarray]:
    """Pieces `[b, k, f]`, or of any other shapes with frames along `axis`, as one."""
    return Halves(*(np.concatenate(half, axis) for half in zip(*pieces, strict=True)))


def kept(codes: Halves[np.ndarray], blank: Halves[np.ndarray], keep: str) -> Halves[np.ndarray]:
    """Codes `[b, k, f]`, with those of silence `[1, k, f]` in place of parts that are not kept or were left out."""
    speech, background = codes
    b = len(speech)
    if keep == "semantic":
        speech = speech[:, :1]
    if keep == "background" or not speech.shape[1]:
        speech = np.repeat(blank.speech, b, axis=0)
    if keep in ("speech", "semantic") or not background.shape[1]:
        background = np.repeat(blank.background, b, axis=0)
    return Halves(speech, background)
