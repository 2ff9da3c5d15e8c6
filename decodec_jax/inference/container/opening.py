"""Opens .dcc files, given as a path or as a binary file object, which may be a pipe."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from decodec_jax.errors import UserError

File = str | os.PathLike | BinaryIO


@contextlib.contextmanager
def opened(file: File) -> Iterator[tuple[BinaryIO, str]]:
    """Open a path, or use a file object as it is; yields the file and its name for messages."""
    name = name_of(file)
    with os_errors_as_user_errors(name, "read"), contextlib.ExitStack() as stack:
        if isinstance(file, (str, os.PathLike)):
            file = stack.enter_context(open(file, "rb"))
        yield file, name


@contextlib.contextmanager
def os_errors_as_user_errors(name: str, done: str) -> Iterator[None]:
    """Turn an OSError into a UserError saying that `name` cannot be `done` ("read" or "written")."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be {done} ({error.strerror or error})") from None


def read_bytes(file: BinaryIO, count: int) -> bytes:
    """Read `count` bytes, or as many as there are; none if `count` is negative."""
    pieces = []
    while count > 0:
        piece = file.read(count)
        if piece is None:
            raise OSError("it has no data yet; open it in blocking mode")
        if not piece:
            break
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def name_of(file: File) -> str:
    """The name of a file in messages."""
    name = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else "the .dcc data"
