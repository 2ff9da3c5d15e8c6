"""The .dcc file: tokens bit-packed in checksummed blocks of equal size, read from any second, a stream at a time.

docs/container.md has every byte of it. All functions take a path or a binary file object, which is read from where it
stands to its end and is left open. Pipes will do; what can be seeked in is only read where needed. Whatever is wrong
with a file ends as one UserError that names it, before any memory is spent on what its header claims.
"""

import contextlib
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.inference.tokens import MAX_ENTRIES, STREAMS, Tokens, bitrate, check_following, code_bits, join

File = str | os.PathLike | BinaryIO

VERSION = 1
MAGIC = b"\x89DCC"
START = struct.Struct("<4sH")  # magic and version, which every version begins with
FORM = struct.Struct("<2B5I8s")  # levels, entries (speech, background), sample rate, hop, frames a block, fingerprint
LENGTH = struct.Struct("<Q")  # in samples; 0: not known yet
CHECKSUM = struct.Struct("<I")
POSITION = struct.Struct("<QQB")  # first sample and samples of a block, number of the stream
HEADER_BYTES = START.size + FORM.size + LENGTH.size + CHECKSUM.size
MAX_BLOCK_BYTES = 1 << 20  # what a header claims beyond these is not believed
MAX_SIZE = 1 << 24  # of sample rate, hop and frames a block
MAX_SECONDS = 1e9
HINT = "; `recover` reads what is intact"

Codes = Sequence[np.ndarray | None]  # of speech and background; None where damaged, left out or not read
Block = tuple[int, int, Codes]  # with its first sample and number of samples


@dataclass(frozen=True)
class Header:
    """What a file says of itself. Pairs are (speech, background). Raises UserError for what no file can hold."""

    sample_rate: int  # Hz
    hop: int  # samples a frame
    levels: tuple[int, int]
    entries: tuple[int, int]
    fingerprint: str  # of the weights
    block_frames: int  # of every block but the last
    length: int | None = None  # samples; None at the head of a file whose end was not known when it was begun

    def __post_init__(self):
        for name in ("sample_rate", "hop", "block_frames"):
            if not 1 <= getattr(self, name) <= MAX_SIZE:
                raise UserError(f"{name} is {getattr(self, name)}; it must be from 1 to {MAX_SIZE}")
        if not all(2 <= n <= MAX_ENTRIES for n in self.entries):
            raise UserError(f"entries are {self.entries}; a codebook has from 2 to {MAX_ENTRIES}")
        if not all(0 <= k <= 255 for k in self.levels) or self.levels == (0, 0):
            raise UserError(f"levels are {self.levels}; a stream has from 0 to 255, and one of the two at least 1")
        if self.length is not None and not 1 <= self.length < 2**64:
            raise UserError(f"length is {self.length} samples; it must be from 1 to {2**64 - 1}")
        if self.block_bytes > MAX_BLOCK_BYTES:
            raise UserError(f"blocks of {self.block_samples / self.sample_rate:g} s take {self.block_bytes} bytes; "
                            f"the limit is {MAX_BLOCK_BYTES}: use shorter ones")  # fmt: skip

    @property
    def seconds(self) -> float | None:
        return None if self.length is None else self.length / self.sample_rate

    @property
    def bits(self) -> tuple[int, int]:
        """Of one code."""
        return tuple(map(code_bits, self.entries))

    @property
    def bitrate(self) -> float:
        """Bits of codes per second, without the file's own overhead."""
        return bitrate(self.levels, self.entries, self.sample_rate / self.hop)

    @property
    def block_samples(self) -> int:
        return self.block_frames * self.hop

    @property
    def block_bytes(self) -> int:
        return sum(self.part_bytes(self.block_samples))

    @property
    def file_bytes(self) -> int:
        blocks, rest = divmod(self.length, self.block_samples)
        return 2 * HEADER_BYTES + blocks * self.block_bytes + sum(self.part_bytes(rest))

    def part_bytes(self, samples: int) -> tuple[int, int]:
        """Bytes of either stream in a block of so many samples, checksum included."""
        codes = (self.frames(samples) * k * bits for k, bits in zip(self.levels, self.bits, strict=True))
        return tuple(-(-bits // 8) + CHECKSUM.size if bits else 0 for bits in codes)

    def frames(self, samples: int) -> int:
        """Frames that so many samples take."""
        return -(-samples // self.hop)

    @cached_property
    def form(self) -> bytes:
        """All but the length."""
        fields = *self.levels, *self.entries, self.sample_rate, self.hop, self.block_frames
        return START.pack(MAGIC, VERSION) + FORM.pack(*fields, bytes.fromhex(self.fingerprint))

    def checksum(self, first: int, samples: int, i: int, payload: bytes) -> bytes:
        """CRC-32 of the bytes of stream i in the block of `samples` from sample `first`, and of this their place."""
        return CHECKSUM.pack(zlib.crc32(self.form + POSITION.pack(first, samples, i) + payload))

    def pack(self) -> bytes:
        """The HEADER_BYTES of it."""
        length = LENGTH.pack(self.length or 0)
        return self.form + length + CHECKSUM.pack(zlib.crc32(self.form + length))

    @classmethod
    def unpack(cls, data: bytes, name: str) -> "Header":
        """The inverse of `pack`; `name` is what errors call the file."""
        if not data:
            raise UserError(f"{name} is empty")
        if not data.startswith(MAGIC):
            raise UserError(f"{name} is not a .dcc file, or its first bytes are damaged")
        if len(data) < HEADER_BYTES:
            raise UserError(f"{name} is truncated: it ends after {len(data)} bytes, within its header")
        version = START.unpack_from(data)[1]
        if version != VERSION:
            raise UserError(f"{name} is of version {version} of the .dcc format; this decodec_jax reads {VERSION}")
        if data[-CHECKSUM.size :] != CHECKSUM.pack(zlib.crc32(data[: -CHECKSUM.size])):
            raise UserError(f"the header of {name} is damaged (its checksum is wrong)")
        *pairs, rate, hop, block_frames, fingerprint = FORM.unpack_from(data, START.size)
        length = LENGTH.unpack_from(data, START.size + FORM.size)[0] or None
        try:
            return cls(rate, hop, tuple(pairs[:2]), tuple(pairs[2:]), fingerprint.hex(), block_frames, length)
        except UserError as error:
            raise UserError(f"{name} cannot be read: its {error}") from None


# --- writing --------------------------------------------------------------------------------------------------------


def write(file: File, tokens: Tokens, block_seconds: float = 1.0) -> None:
    """Write a file in blocks of `block_seconds` (s, rounded to frames).

    Shorter blocks cost more bytes; a reader waits less for them, and damage takes less with it. At a path the file
    appears only when complete; what was there before is kept until then. Raises UserError when it cannot be written.
    """
    with Writer(file, block_seconds, tokens.length) as writer:
        writer.write(tokens)


class Writer:
    """Writes tokens as they come, to pipes too; a block leaves, flushed, as soon as it is full.

        with Writer("long.dcc") as writer:
            for tokens in pieces:  # of any number of frames; all but the last in whole frames
                writer.write(tokens)

    length: samples there will be in all, if known. The head of the file tells it, which is all that this changes.
    """

    def __init__(self, file: File, block_seconds: float = 1.0, length: int | None = None):
        if not 0 < block_seconds < MAX_SECONDS:
            raise UserError(f"block_seconds is {block_seconds}; it must be above 0")
        self.block_seconds, self.length = block_seconds, length
        self._header: Header | None = None
        self._last: Tokens | None = None  # what the next piece has to fit
        self._waiting: list[Tokens] = []  # not yet a block
        self._frames = 0  # of those
        self._written = 0  # samples in blocks
        self._name, self._file, self._part = _name(file), file, None
        self._target = Path(file).resolve() if isinstance(file, (str, os.PathLike)) else None
        if self._target is None:
            return
        if self._target.is_file() or not self._target.exists():  # a device or named pipe cannot be replaced
            self._part = self._target.with_name(f".{self._target.name}.{os.getpid()}.part")
        with _reported(self._name, "written"):
            self._file = open(self._part or self._target, "wb")

    def write(self, tokens: Tokens) -> None:
        """Append tokens. Raises UserError if they do not fit those before them or cannot be written."""
        if self._file is None:
            raise UserError(f"{self._name} cannot be written: it has been closed, or failed before")
        if self._last is None:
            frames = max(1, round(self.block_seconds * tokens.sample_rate / tokens.hop))
            self._header = Header(tokens.sample_rate, tokens.hop, tokens.levels, tokens.entries,
                                  tokens.fingerprint, frames, self.length)  # fmt: skip
            self._put(self._header.pack())
        else:
            check_following(self._last, tokens)
        self._last = tokens
        self._waiting.append(tokens)
        self._frames += tokens.frames
        block = self._header.block_frames
        if self._frames >= block:
            waiting, whole = join(self._waiting), self._frames // block * block
            for first in range(0, whole, block):
                self._put_block(waiting.cut(first, first + block))
            self._frames -= whole
            self._waiting = [waiting.cut(whole, waiting.frames)] if self._frames else []

    def close(self) -> None:
        """Write what is left and the end; only now does a path's file appear. Raises UserError, as `write` does."""
        if self._file is None:
            return
        try:
            if self._waiting:
                self._put_block(join(self._waiting))
            if self._written == 0:
                raise UserError(f"{self._name} is not written: there are no tokens to write")
            if self.length not in (None, self._written):
                raise UserError(f"{self._name} is not written: {self._written} samples came, not {self.length}")
            self._put(replace(self._header, length=self._written).pack())
            if self._target is not None:
                with _reported(self._name, "written"):
                    self._file.close()
                    if self._part is not None:
                        os.replace(self._part, self._target)
        except BaseException:
            self.abort()
            raise
        self._file = None

    def abort(self) -> None:
        """Leave no file at a path; what went into a file object lacks its end and so reads as truncated."""
        file, self._file = self._file, None
        if file is None or self._target is None:
            return
        with contextlib.suppress(OSError):  # of the buffer that could not be written before
            file.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _put_block(self, tokens: Tokens) -> None:
        data = b""
        for i, codes in enumerate((tokens.speech, tokens.background)):
            if codes.size:
                payload = pack_codes(codes, self._header.bits[i])
                data += payload + self._header.checksum(self._written, tokens.length, i, payload)
        self._put(data)
        self._written += tokens.length

    def _put(self, data: bytes) -> None:
        try:
            with _reported(self._name, "written"):
                while data:
                    count = self._file.write(data)  # of a file without a buffer, perhaps less than asked for
                    if not count:
                        raise OSError("it takes no more bytes")
                    data = data[count:]
                self._file.flush()
        except BaseException:
            self.abort()
            raise


# --- reading --------------------------------------------------------------------------------------------------------


def info(file: File) -> Header:
    """The header alone. Its length is None only where a pipe does not tell. A file object stays where it stands."""
    with _opened(file) as (file, name):
        if not file.seekable():
            return Header.unpack(_take(file, HEADER_BYTES), name)
        start, header = _ends(file, name)
        file.seek(start)
        return header


def read(
    file: File,
    start: float = 0.0,
    seconds: float | None = None,
    streams: Sequence[str] = STREAMS,
    fingerprint: str | None = None,
) -> Tokens:
    """Read a file, or only the frames that hold the `seconds` (s; None: all) from `start` (s), or only one stream.

    The first frame returned is number round(start * sample_rate) // hop; of blocks and streams that are not asked for,
    nothing is read, and damage to them goes unnoticed. A stream that is not asked for is left out of the tokens.
    fingerprint: of the weights that will decode them. Raises UserError if the file's is another, and for whatever is
    damaged, truncated or no .dcc file.
    """
    return join(list(read_blocks(file, start, seconds, streams, fingerprint)))


def read_blocks(
    file: File,
    start: float = 0.0,
    seconds: float | None = None,
    streams: Sequence[str] = STREAMS,
    fingerprint: str | None = None,
) -> Iterator[Tokens]:
    """As `read`, block by block in constant memory, each block as soon as the whole of it has come through a pipe.

    That a file is cut shows at once where it can be seeked in, and else where it ends.
    """
    if not 0 <= start < MAX_SECONDS or not (seconds is None or 0 < seconds < MAX_SECONDS):
        raise UserError(f"{seconds} s from {start} s cannot be read; start at 0 or later, for more than 0 seconds")
    if not streams or not set(streams) <= set(STREAMS):
        raise UserError(f"streams is {streams!r}; it must be some of {STREAMS}")
    with _opened(file) as (file, name):
        if file.seekable():
            begin, header = _ends(file, name)
        else:
            header = Header.unpack(_take(file, HEADER_BYTES), name)
        _check_fingerprint(header, fingerprint, name)
        wanted = [i for i, each in enumerate(STREAMS) if each in streams and header.levels[i]]
        if not wanted:
            raise UserError(f"{name} has no {' or '.join(streams)} in it: that was left out when it was written")

        rate, hop = header.sample_rate, header.hop
        first = round(start * rate) // hop
        last = math.inf if seconds is None else max(first + 1, math.ceil(round((start + seconds) * rate) / hop))
        if file.seekable():
            blocks = _blocks_sought(file, begin, header, first, last, wanted)
        else:
            blocks = _blocks_passing(file, header, name)
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
            tokens = _tokens(header, samples, [codes[i] if i in wanted else None for i in range(2)])
            yield tokens.cut(max(first, frame) - frame, min(last, end) - frame)
            if end >= last:
                return
        if end <= first:
            raise UserError(f"{name} is {end * hop / rate:.3f} s long; nothing can be read at {start:.3f} s")


class Damage(NamedTuple):
    """Where a stream of a recovered file has no codes of its own."""

    stream: str
    start: float  # s
    end: float  # s; infinite where the rest is missing and nothing tells how long it was
    frames: slice  # of the recovered tokens; empty where they end before the damage


class Recovered(NamedTuple):
    """What `recover` finds."""

    tokens: Tokens
    damaged: list[Damage]


def recover(file: File, fingerprint: str | None = None) -> Recovered:
    """All that is intact in a damaged or truncated file, and where it is not.

    A damaged stretch of a stream is filled with its last intact frame, held (the next one, at the start): valid codes,
    but no sound that was ever there, so silence it or replace its `frames` by the codes of silence. A stream without
    one intact block is left out. Where the end is missing, the tokens end with the last block that something is left
    of. If the header is damaged, its copy at the end of the file serves. Bytes lost or added in the middle shift, and
    so damage, all blocks after them. Raises UserError if nothing is left, or the weights are others.
    """
    with _opened(file) as (file, name):
        data = b"".join(iter(lambda: _take(file, MAX_BLOCK_BYTES), b""))
    size = len(data) - HEADER_BYTES
    header, copy = (_unpacked_or_none(data[at], name) for at in (slice(HEADER_BYTES), slice(max(size, 0), None)))
    if header is None and copy is None:
        Header.unpack(data[:HEADER_BYTES], name)  # says what is wrong with it
    header = header or copy
    if header.length is None and copy is not None and copy.form == header.form:
        header = copy
    _check_fingerprint(header, fingerprint, name)

    blocks = _blocks_left(data, header)
    if not any(map(_anything, blocks)):
        raise UserError(f"nothing can be recovered of {name}: no block of it is intact")
    total = sum(samples for _, samples, _ in blocks)
    end = math.inf if header.length is None else header.length / header.sample_rate
    frames, second = header.frames(total), header.sample_rate / header.hop
    codes, damaged = [None, None], []
    for i in range(2):
        if not header.levels[i]:
            continue
        parts = [codes[i] for _, _, codes in blocks]
        intact = np.repeat([part is not None for part in parts], [header.frames(n) for _, n, _ in blocks])
        if intact.any():
            held = np.maximum(np.cumsum(intact) - 1, 0)  # of the intact frames, the one that each frame repeats
            codes[i] = np.concatenate([part for part in parts if part is not None], axis=1)[:, held]
        lost = [False, *~intact, header.length != total, False]  # all that is missing at the end counts as a frame
        for first, last in np.flatnonzero(np.diff(lost)).reshape(-1, 2).tolist():
            until = end if last >= frames else last / second
            damaged.append(Damage(STREAMS[i], first / second, until, slice(first, min(last, frames))))
    return Recovered(_tokens(header, total, codes), damaged)


# --- bytes ----------------------------------------------------------------------------------------------------------


def pack_codes(codes: np.ndarray, bits: int) -> bytes:
    """`[k, f]` as f frames of k codes of so many bits, highest bit first; zero bits fill the last byte."""
    columns = codes.T[..., None] >> np.arange(bits, dtype=np.int32)[::-1] & 1  # [f, k, bits]
    return np.packbits(columns.astype(np.uint8)).tobytes()


def unpack_codes(data: bytes, bits: int, k: int, f: int) -> np.ndarray:
    """The inverse of `pack_codes`: int32 `[k, f]`."""
    columns = np.unpackbits(np.frombuffer(data, np.uint8), count=f * k * bits).reshape(f, k, bits)
    return np.ascontiguousarray((columns @ (1 << np.arange(bits, dtype=np.int32)[::-1])).T)


def _intact(header: Header, first: int, samples: int, i: int, part: bytes) -> np.ndarray | None:
    """Codes `[k, f]` of stream i in the block of `samples` from sample `first`; None if damaged or left out."""
    size = header.part_bytes(samples)[i] - CHECKSUM.size
    if size < 0 or part[size:] != header.checksum(first, samples, i, part[:size]):
        return None
    codes = unpack_codes(part[:size], header.bits[i], header.levels[i], header.frames(samples))
    return codes if codes.max() < header.entries[i] else None


def _split(header: Header, first: int, samples: int, block: bytes) -> Codes:
    """Codes of both streams of a block."""
    size = header.part_bytes(samples)[0]
    return tuple(_intact(header, first, samples, i, part) for i, part in enumerate((block[:size], block[size:])))


def _tokens(header: Header, samples: int, codes: Codes) -> Tokens:
    speech, background = (np.zeros((0, header.frames(samples)), np.int32) if c is None else c for c in codes)
    return Tokens(speech, background, samples, header.sample_rate, header.hop, header.entries, header.fingerprint)


# --- blocks ---------------------------------------------------------------------------------------------------------


def _blocks_sought(
    file: BinaryIO, begin: int, header: Header, first: int, last: float, wanted: Sequence[int]
) -> Iterator[Block]:
    """The wanted streams of the blocks with frames first to last - 1 in a file that can be seeked in."""
    until = min(last, header.frames(header.length))
    for n in range(first // header.block_frames, math.ceil(until / header.block_frames)):
        sample = n * header.block_samples
        samples = min(header.block_samples, header.length - sample)
        sizes = header.part_bytes(samples)
        codes = [None, None]
        for i in wanted:
            file.seek(begin + HEADER_BYTES + n * header.block_bytes + i * sizes[0])
            codes[i] = _intact(header, sample, samples, i, _take(file, sizes[i]))
        yield sample, samples, codes


def _blocks_passing(file: BinaryIO, header: Header, name: str) -> Iterator[Block]:
    """All blocks of a pipe, whose header has been read.

    The end is where no more than a block and a header are left. Whole blocks before it are known by their checksums,
    so that nobody has to wait for the bytes after them.
    """
    size, whole = header.block_bytes, header.block_samples
    sample, data = 0, b""
    while True:
        data += _take(file, size - len(data))
        codes = _split(header, sample, whole, data[:size])
        if any(k and c is None for k, c in zip(header.levels, codes, strict=True)):
            data += _take(file, size + HEADER_BYTES + 1 - len(data))
            if len(data) <= size + HEADER_BYTES:
                break
        yield sample, whole, codes
        sample, data = sample + whole, data[size:]
    end = _unpacked_or_none(data[-HEADER_BYTES:], name)
    _check_ends(header, end, None, name)
    rest, left = data[:-HEADER_BYTES], end.length - sample
    if not 0 <= left <= whole or len(rest) != sum(header.part_bytes(left)):
        raise UserError(f"{name} is damaged: bytes were lost or added{HINT}")
    if left:
        yield sample, left, _split(header, sample, left, rest)


def _blocks_left(data: bytes, header: Header) -> list[Block]:
    """The blocks in what is left of a file; where that ends early, they end with the last that is partly intact."""
    size, whole = header.block_bytes, header.block_samples
    count = math.ceil((len(data) - HEADER_BYTES) / size)
    if header.length is not None:
        count = min(count, math.ceil(header.length / whole))
    blocks = []
    for n in range(count):
        samples = whole if header.length is None else min(whole, header.length - n * whole)
        at = HEADER_BYTES + n * size
        block = data[at : at + sum(header.part_bytes(samples))]
        blocks.append((n * whole, samples, _split(header, n * whole, samples, block)))
    if header.length is None or len(data) < header.file_bytes:
        while blocks and not _anything(blocks[-1]):
            blocks.pop()
    return blocks


def _anything(block: Block) -> bool:
    """Is any part of it intact?"""
    return any(codes is not None for codes in block[2])


def _ends(file: BinaryIO, name: str) -> tuple[int, Header]:
    """Where a file that can be seeked in begins, and its header with the length, on which both ends agree."""
    begin = file.tell()
    head = Header.unpack(_take(file, HEADER_BYTES), name)
    size = file.seek(0, os.SEEK_END) - begin
    file.seek(begin + size - HEADER_BYTES)
    end = _unpacked_or_none(_take(file, HEADER_BYTES), name)
    _check_ends(head, end, size, name)
    if size != end.file_bytes:
        raise UserError(f"{name} is damaged: it has {size} bytes, not {end.file_bytes}{HINT}")
    return begin, end


def _check_ends(head: Header, end: Header | None, size: int | None, name: str) -> None:
    """Raise UserError unless the header at the end of a file is what that at its head said it would be."""
    if size is not None and head.length is not None and size < head.file_bytes:
        raise UserError(f"{name} is truncated: {size} of its {head.file_bytes} bytes are there{HINT}")
    if end is None or end.length is None or end.form != head.form or head.length not in (None, end.length):
        raise UserError(f"{name} is truncated, or its end is damaged{HINT}")


def _check_fingerprint(header: Header, wanted: str | None, name: str) -> None:
    if wanted not in (None, header.fingerprint):
        raise UserError(f"{name} was made with the weights {header.fingerprint}, not with these, {wanted}; "
                        "decode it with the model that made it")  # fmt: skip


def _unpacked_or_none(data: bytes, name: str) -> Header | None:
    try:
        return Header.unpack(data, name)
    except UserError:
        return None


# --- files ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(file: File) -> Iterator[tuple[BinaryIO, str]]:
    """Open a path, or take a file object as it is: yields (file, name for messages)."""
    name = _name(file)
    with _reported(name, "read"), contextlib.ExitStack() as stack:
        if isinstance(file, (str, os.PathLike)):
            file = stack.enter_context(open(file, "rb"))
        yield file, name


@contextlib.contextmanager
def _reported(name: str, done: str) -> Iterator[None]:
    """What the system refuses, as a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be {done} ({error.strerror or error})") from None


def _take(file: BinaryIO, count: int) -> bytes:
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


def _name(file: File) -> str:
    name = file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) else "the .dcc data"
