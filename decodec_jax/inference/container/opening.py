"""What .dcc files are read from and written to: a path, or a binary file object, perhaps a pipe."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from decodec_jax.errors import UserError

File = str | os.PathLike | BinaryIO


@contextlib.contextmanager
def opened(file: File) -> Iterator[tuple[BinaryIO, str]]:
    """Open a path, or take a file object as it is: yields (file, name for messages)."""
    name = name_of(file)
    with reported(name, "read"), contextlib.ExitStack() as stack:
        if isinstance(file, (str, os.PathLike)):
            file = stack.enter_context(open(file, "rb"))
        yield file, name


@contextlib.contextmanager
def reported(name: str, done: str) -> Iterator[None]:
    """What the system refuses, as a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be {done} ({error.strerror or error})") from None


def take(file: BinaryIO, count: int) -> bytes:
    """So many bytes, or as many as there are; none if count is negative."""
    pieces = []
    while count > 0:
        piece = file.read(count)
        if piece is None:
            raise OSError("it has no data yet; open it for reads that wait")
        if not piece:
            break
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def name_of(file: File) -> str:
    """What messages call it."""
    name = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else "the .dcc data"
