"""Groups recordings into batches, and puts silence in place of parts that are left out."""

from collections.abc import Iterable

import numpy as np

from decodec_jax.codec.model import Halves

SIDE_BY_SIDE = 8  # maximum number of recordings in a batch; memory grows with it


def grouped(keys: Iterable, most: int = SIDE_BY_SIDE) -> list[tuple]:
    """Groups of equal keys: each key with the positions where it occurs, in groups of 1, 2, 4 and so on up to `most`.

    most: a power of two. A group is filled up by repeating its last position, so that code is compiled for few sizes.
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


def keep_parts(codes: Halves[np.ndarray], blank: Halves[np.ndarray], keep: str) -> Halves[np.ndarray]:
    """Codes `[b, k, f]` with the codes of silence, `blank` `[1, k, f]`, for parts not kept or left out before."""
    speech, background = codes
    b = len(speech)
    if keep == "semantic":
        speech = speech[:, :1]
    if keep == "background" or not speech.shape[1]:
        speech = np.repeat(blank.speech, b, axis=0)
    if keep in ("speech", "semantic") or not background.shape[1]:
        background = np.repeat(blank.background, b, axis=0)
    return Halves(speech, background)
