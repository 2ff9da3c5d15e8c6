"""ArrayRecord: one file that holds many records, such as encoded audio files, for random access."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from array_record.python import array_record_module

from decodec_jax.errors import UserError


def address(name: str) -> tuple[str, int] | None:
    """("speech.array_record", 17) for "speech.array_record#17"; None for the name of an ordinary file."""
    match = re.fullmatch(r"(.+\.array_?record[^#/]*)#(\d+)", name)
    return (match[1], int(match[2])) if match else None


def writer(path: Path) -> array_record_module.ArrayRecordWriter:
    """A new file. Each record is a chunk, so that a random read decompresses nothing but its own record."""
    return array_record_module.ArrayRecordWriter(str(path), "group_size:1")


def write(path: Path, contents: Iterable[bytes]) -> None:
    """Write a file of records. Raises OSError if it cannot be written."""
    try:
        file = writer(path)
        for record in contents:
            file.write(record)
        file.close()
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from None


def read_record(path: str, index: int) -> bytes:
    """The bytes of one record. Raises UserError when the file is damaged or has no such record."""
    with _one_line(f"{path}#{index}"):
        (record,) = _reader(path).read([index])
    return record


def count(path: str) -> int:
    """How many records a file holds. Raises UserError when it is damaged."""
    with _one_line(path):
        reader = _reader(path)
        if not reader.ok():  # then it would say that there are none
            raise OSError("it is damaged or cut short")
        return reader.num_records()


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        reason = re.split(r"[;\n]", str(error))[0] or type(error).__name__
        raise UserError(f"{name} cannot be read ({reason})") from None


@lru_cache(maxsize=512)
def _reader(path: str) -> array_record_module.ArrayRecordReader:
    # No read-ahead: the next crop is somewhere else.
    return array_record_module.ArrayRecordReader(path, options="readahead_buffer_size:0", file_reader_buffer_size=32768)
