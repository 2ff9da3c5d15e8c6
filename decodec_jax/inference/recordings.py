"""Recordings as a user gives them: checked, side by side with those of a kind, and given back as long as they came."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from decodec_jax.errors import UserError

SIDE_BY_SIDE = 8  # recordings processed as one batch, at the most: memory is theirs together


def checked(wave: np.ndarray) -> np.ndarray:
    """A waveform as float32. Raises UserError for what is none."""
    wave = np.asarray(wave, np.float32)
    if wave.ndim not in (1, 2):
        raise UserError(f"a waveform is [t] or [channels, t]; this has shape {wave.shape}")
    if wave.size == 0:
        raise UserError("the recording has no samples")
    return _finite(wave)


def checked_piece(wave: np.ndarray) -> np.ndarray:
    """Part of a waveform, perhaps an empty one, as float32. Raises UserError for what is none."""
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 2:
        raise UserError(f"a piece of a recording is [channels, n]; this has shape {wave.shape}")
    return _finite(wave)


def _finite(wave: np.ndarray) -> np.ndarray:
    if not np.isfinite(wave).all():
        raise UserError(f"the recording has {np.count_nonzero(~np.isfinite(wave))} samples that are NaN or infinite")
    return wave


def check_rate(sample_rate: int) -> None:
    """Raise UserError unless it is a rate in Hz."""
    if not sample_rate > 0 or sample_rate != int(sample_rate):
        raise UserError(f"sample_rate is {sample_rate}; it must be a whole number of Hz above 0")


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
