"""Reads tokens from .dcc files, from any second, and one stream or both. Damage to what is read raises an error."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from decodec_jax.errors import UserError
from decodec_jax.inference.container.format import (
    HEADER_BYTES,
    MAX_SECONDS,
    Block,
    Header,
    check_fingerprint,
    header_or_none,
    to_tokens,
    unpack_block,
    unpack_part,
)
from decodec_jax.inference.container.opening import File, opened, read_bytes
from decodec_jax.inference.tokens import STREAMS, Tokens, join

HINT = "; `recover` reads what is intact"


def info(file: File) -> Header:
    """Read the header alone. Its length can be None only for a pipe. A seekable file object keeps its position."""
    with opened(file) as (file, name):
        if not file.seekable():
            return Header.unpack(read_bytes(file, HEADER_BYTES), name)
        start, header = _start_and_header(file, name)
        file.seek(start)
        return header


def read(
    file: File, start: float = 0.0, seconds: float | None = None, streams: Sequence[str] = STREAMS,
    fingerprint: str | None = None,
) -> Tokens:  # fmt: skip
    """Read a file, or only the frames that hold the `seconds` (s; None: all) from `start` (s) on, or only one stream.

    The first frame returned is number round(start * sample_rate) // hop. Other blocks and streams are not read, so
    damage to them goes unnoticed. A stream that is not asked for is left out of the tokens. fingerprint: that of the
    weights that will decode them. Raises UserError if the file has another one, and if it is damaged, truncated or not
    a .dcc file.
    """
    return join(list(read_blocks(file, start, seconds, streams, fingerprint)))


def read_blocks(
    file: File, start: float = 0.0, seconds: float | None = None, streams: Sequence[str] = STREAMS,
    fingerprint: str | None = None,
) -> Iterator[Tokens]:  # fmt: skip
    """Like `read`, but block by block in constant memory. From a pipe, each block comes as soon as it is complete.

    A truncated file raises an error at once if it is seekable, otherwise at its end.
    """
    if not 0 <= start < MAX_SECONDS or not (seconds is None or 0 < seconds < MAX_SECONDS):
        raise UserError(f"{seconds} s from {start} s cannot be read; start at 0 or later, for more than 0 seconds")
    if not streams or not set(streams) <= set(STREAMS):
        raise UserError(f"streams is {streams!r}; it must be some of {STREAMS}")
    with opened(file) as (file, name):
        if file.seekable():
            begin, header = _start_and_header(file, name)
        else:
            header = Header.unpack(read_bytes(file, HEADER_BYTES), name)
        check_fingerprint(header, fingerprint, name)
        wanted = [i for i, each in enumerate(STREAMS) if each in streams and header.levels[i]]
        if not wanted:
            raise UserError(f"{name} has no {' or '.join(streams)}: the encoder left it out")

        rate, hop = header.sample_rate, header.hop
        first = round(start * rate) // hop
        last = math.inf if seconds is None else max(first + 1, math.ceil(round((start + seconds) * rate) / hop))
        if file.seekable():
            blocks = _seek_blocks(file, begin, header, first, last, wanted)
        else:
            blocks = _pipe_blocks(file, header, name)
        end = header.frames(header.length or 0)
        for sample, samples, codes in blocks:
            frame = sample // hop
            end = frame + header.frames(samples)
            if end <= first:
                continue
            for i in wanted:
                if codes[i] is None:
                    raise UserError(f"{name}: the {STREAMS[i]} from {sample / rate:.3f} to "
                                    f"{(sample + samples) / rate:.3f} s is damaged{HINT}")  # fmt: skip
            tokens = to_tokens(header, samples, [codes[i] if i in wanted else None for i in range(2)])
            yield tokens.cut(max(first, frame) - frame, min(last, end) - frame)
            if end >= last:
                return
        if end <= first:
            raise UserError(f"{name} is {end * hop / rate:.3f} s long; nothing can be read at {start:.3f} s")


def _seek_blocks(
    file: BinaryIO, begin: int, header: Header, first: int, last: float, wanted: Sequence[int]
) -> Iterator[Block]:
    """The wanted streams of the blocks with frames `first` to `last` - 1 in a seekable file."""
    until = min(last, header.frames(header.length))
    for n in range(first // header.block_frames, math.ceil(until / header.block_frames)):
        sample = n * header.block_samples
        samples = min(header.block_samples, header.length - sample)
        sizes = header.part_bytes(samples)
        codes = [None, None]
        for i in wanted:
            file.seek(begin + HEADER_BYTES + n * header.block_bytes + i * sizes[0])
            codes[i] = unpack_part(header, sample, samples, i, read_bytes(file, sizes[i]))
        yield sample, samples, codes


def _pipe_blocks(file: BinaryIO, header: Header, name: str) -> Iterator[Block]:
    """All blocks from a pipe whose header has been read.

    The end is reached when at most a block and a header are left. A full block with correct checksums is yielded at
    once, without waiting for the bytes that follow it.
    """
    size, whole = header.block_bytes, header.block_samples
    sample, data = 0, b""
    while True:
        data += read_bytes(file, size - len(data))
        codes = unpack_block(header, sample, whole, data[:size])
        if any(k and c is None for k, c in zip(header.levels, codes, strict=True)):
            data += read_bytes(file, size + HEADER_BYTES + 1 - len(data))
            if len(data) <= size + HEADER_BYTES:
                break
        yield sample, whole, codes
        sample, data = sample + whole, data[size:]
    end = header_or_none(data[-HEADER_BYTES:])
    _check_ends(header, end, None, name)
    rest, left = data[:-HEADER_BYTES], end.length - sample
    if not 0 <= left <= whole or len(rest) != sum(header.part_bytes(left)):
        raise UserError(f"{name} is damaged: bytes were lost or added{HINT}")
    if left:
        yield sample, left, unpack_block(header, sample, left, rest)


def _start_and_header(file: BinaryIO, name: str) -> tuple[int, Header]:
    """The start position of a seekable file, and its header with the length, after checking both ends."""
    begin = file.tell()
    head = Header.unpack(read_bytes(file, HEADER_BYTES), name)
    size = file.seek(0, os.SEEK_END) - begin
    file.seek(begin + size - HEADER_BYTES)
    end = header_or_none(read_bytes(file, HEADER_BYTES))
    _check_ends(head, end, size, name)
    if size != end.file_bytes:
        raise UserError(f"{name} is damaged: it has {size} bytes, not {end.file_bytes}{HINT}")
    return begin, end


def _check_ends(head: Header, end: Header | None, size: int | None, name: str) -> None:
    """Raise UserError unless the header at the end of a file agrees with the one at its start."""
    if size is not None and head.length is not None and size < head.file_bytes:
        raise UserError(f"{name} is truncated: {size} of its {head.file_bytes} bytes are there{HINT}")
    if end is None or end.length is None or end.form != head.form or head.length not in (None, end.length):
        raise UserError(f"{name} is truncated, or its end is damaged{HINT}")
