"""Recordings of one kind side by side, and silence in place of parts that are left out."""

from collections.abc import Iterable

import numpy as np

from decodec_jax.codec.model import Halves

SIDE_BY_SIDE = 8  # recordings processed as one batch, at the most: memory is theirs together


def grouped(keys: Iterable, most: int = SIDE_BY_SIDE) -> list[tuple]:
    """Each key with the places where it stands, 1, 2, 4 and so on up to `most` at a time, a power of two.

    Where there are fewer the last is repeated: what is compiled for each number is compiled for few.
    """
    places: dict = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    groups = []
    for key, alike in places.items():
        for begin in range(0, len(alike), most):
            some = alike[begin : begin + most]
            groups.append((key, some + some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))))
    return groups


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
