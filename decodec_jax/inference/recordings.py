"""Recordings of one kind side by side, and what is made of a recording cut to its length."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from decodec_jax.errors import UserError

SIDE_BY_SIDE = 8  # recordings processed as one batch, at the most: memory is theirs together


def as_long(
    pieces: Iterable[np.ndarray], process: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]
) -> Iterator[np.ndarray]:
    """`process` of pieces `[b, n]`, without what it adds at the end. Raises UserError if there are no samples."""
    heard = given = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal heard
        for piece in pieces:
            heard += piece.shape[1]
            yield piece
        if not heard:
            raise UserError("the recording has no samples")

    for wave in process(counted()):
        wave = wave[:, : heard - given]
        given += wave.shape[1]
        if wave.shape[1]:
            yield wave


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
