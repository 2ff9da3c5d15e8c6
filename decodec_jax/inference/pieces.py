"""Tools for recordings and frames that come in pieces: regroup, cut, join, and keep them in a temporary file."""

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import jax
import numpy as np

from decodec_jax import arrays
from decodec_jax.errors import UserError

Frames = Any  # one array or a tuple; axis 1 counts frames, so a waveform is [b, f, hop] here, and codes are [b, f, k]


def trimmed_to_input(
    pieces: Iterable[np.ndarray], process: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]
) -> Iterator[np.ndarray]:
    """The result of `process` for pieces `[b, n]`, cut to the input's length. Raises UserError if it has no samples."""
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


def checked(waves: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same pieces as float samples. Raises UserError if one does not have the shape `[b, n]`."""
    for wave in map(arrays.samples, waves):
        if wave.ndim != 2:
            raise UserError(f"a piece of a recording is [b, n], one row a channel; this one has shape {wave.shape}")
        yield wave


def whole_frames(waves: Iterable[np.ndarray], hop: int) -> Iterator[np.ndarray]:
    """Regroup pieces `[b, n]` of any lengths into whole frames `[b, f, hop]`, as soon as frames are complete.

    Silence fills up the last frame.
    """
    held = None
    for wave in checked(waves):
        held = wave if held is None else np.concatenate([held, wave], axis=1)
        full = held.shape[1] // hop * hop
        if full:
            yield held[:, :full].reshape(held.shape[0], -1, hop)
            held = held[:, full:]
    if held is not None and held.shape[1]:
        yield np.pad(held, ((0, 0), (0, hop - held.shape[1])))[:, None]


def followed_by_silence(pieces: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Pieces `[b, f, hop]`, followed by `count` frames of zeros if there were any pieces."""
    piece = None
    for piece in pieces:
        yield piece
    if piece is not None and count:
        yield np.zeros((piece.shape[0], count, piece.shape[2]), piece.dtype)


def without_first(pieces: Iterable[Frames], count: int) -> Iterator[Frames]:
    """All but the first `count` frames."""
    for piece in pieces:
        dropped = min(count, count_of(piece))
        count -= dropped
        if count_of(piece) > dropped:
            yield cut(piece, dropped, None) if dropped else piece


def in_groups(pieces: Iterable[Frames], groups: tuple[int, ...]) -> Iterator[tuple[Frames, int]]:
    """The same frames in pieces of the sizes in `groups` only (from large to small, ending in 1), with their sizes."""
    for piece in pieces:
        if count_of(piece) in groups:
            yield piece, count_of(piece)  # unchanged, because `cut` would move it off its device
            continue
        done = 0
        for group in groups:
            while count_of(piece) - done >= group:
                yield cut(piece, done, done + group), group
                done += group


def in_padded_groups(pieces: Iterable[Frames], groups: tuple[int, ...]) -> Iterator[tuple[Frames, int]]:
    """The same frames in pieces of the first size, and at the end of the last size.

    Yields each piece with its number of real frames; zeros fill up the rest.
    """
    large, small, held = groups[0], groups[-1], None
    for piece in pieces:
        held = piece if held is None else joined([held, piece])
        while count_of(held) >= large:
            yield cut(held, 0, large), large
            held = cut(held, large, None)
    while held is not None and (count := min(count_of(held), small)):
        piece, held = cut(held, 0, small), cut(held, small, None)
        missing = [(0, 0), (0, small - count)]
        yield jax.tree.map(lambda a, missing=missing: np.pad(a, missing + [(0, 0)] * (a.ndim - 2)), piece), count


def joined(pieces: Iterable[Frames], axis: int = 1) -> Frames:
    """Concatenate pieces whose frames lie along `axis`."""
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis), *pieces)


def count_of(piece: Frames) -> int:
    """The number of frames in a piece."""
    return jax.tree.leaves(piece)[0].shape[1]


def cut(piece: Frames, first: int | None, last: int | None) -> Frames:
    """Frames `first` to `last` - 1, cut on the host, because on a device each cut would need a compilation."""
    return jax.tree.map(lambda a: np.asarray(a)[:, first:last], piece)


def to_numpy(pieces: Iterable[Frames]) -> Iterator[Frames]:
    return (jax.tree.map(np.asarray, piece) for piece in pieces)


Place = tuple[int, tuple[int, ...], np.dtype]  # offset, shape and type of an array in a file


def spill(file: BinaryIO, pieces: Iterable[np.ndarray]) -> list[Place]:
    """Write all pieces to a file and return their places. Raises UserError if the disk is full."""
    places = []
    for piece in pieces:
        places.append((file.tell(), piece.shape, piece.dtype))
        left = memoryview(np.ascontiguousarray(piece).view(np.uint8).reshape(-1))
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise UserError(f"the temporary folder {tempfile.gettempdir()} is full after {file.tell() / 1e6:.0f} MB: "
                            f"{os.strerror(error.errno)}; set TMPDIR to a folder with more space") from None
    return places


def read_back(file: BinaryIO, place: Place) -> np.ndarray:
    """The piece that `spill` wrote at a place."""
    offset, shape, dtype = place
    file.seek(offset)
    return np.frombuffer(file.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
