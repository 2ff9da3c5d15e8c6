"""The bytes of a .dcc file: a header at both ends and, between them, blocks of bit-packed codes with checksums."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.inference.loudness import checked_gain
from decodec_jax.inference.tokens import MAX_ENTRIES, Tokens, bitrate, code_bits

VERSION = 1
MAGIC = b"\x89DCC"
START = struct.Struct("<4sH")  # magic and version, at the start of a header in every version
FORM = struct.Struct("<2B5I8sf")  # levels, entries, sample rate, hop, frames per block, fingerprint, gain
LENGTH = struct.Struct("<Q")  # in samples; 0: not known yet
CHECKSUM = struct.Struct("<I")
POSITION = struct.Struct("<QQB")  # first sample and number of samples of a block, index of the stream
HEADER_BYTES = START.size + FORM.size + LENGTH.size + CHECKSUM.size
MAX_BLOCK_BYTES = 1 << 20  # headers that claim more than these limits are rejected
MAX_SIZE = 1 << 24  # limit of sample rate, hop and frames per block
MAX_SECONDS = 1e9

Codes = Sequence[np.ndarray | None]  # of speech and background; None if damaged, left out or not read
Block = tuple[int, int, Codes]  # first sample, number of samples, codes


@dataclass(frozen=True)
class Header:
    """The header of a file. Pairs are (speech, background). Raises UserError for values that no file can have."""

    sample_rate: int  # Hz
    hop: int  # samples per frame
    levels: tuple[int, int]
    entries: tuple[int, int]
    fingerprint: str  # of the weights
    gain: float  # dB: how much louder the recording was when it was coded
    block_frames: int  # frames in every block except the last, which may be shorter
    length: int | None = None  # samples; None at the start of a file that was begun before its length was known

    def __post_init__(self):
        for name in ("sample_rate", "hop", "block_frames"):
            if not 1 <= getattr(self, name) <= MAX_SIZE:
                raise UserError(f"{name} is {getattr(self, name)}; it must be from 1 to {MAX_SIZE}")
        if not all(2 <= n <= MAX_ENTRIES for n in self.entries):
            raise UserError(f"entries are {self.entries}; a codebook has 2 to {MAX_ENTRIES}")
        if not all(0 <= k <= 255 for k in self.levels) or self.levels == (0, 0):
            raise UserError(f"levels are {self.levels}; a stream has 0 to 255, and not both have 0")
        checked_gain(self.gain)
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
        """Bits of one code."""
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
        """Bytes of each stream in a block of `samples` samples, including the checksum; 0 for a stream left out."""
        codes = (self.frames(samples) * k * bits for k, bits in zip(self.levels, self.bits, strict=True))
        return tuple(-(-bits // 8) + CHECKSUM.size if bits else 0 for bits in codes)

    def frames(self, samples: int) -> int:
        """The number of frames for `samples` samples, rounded up."""
        return -(-samples // self.hop)

    @cached_property
    def form(self) -> bytes:
        """The header's bytes without the length and the checksum."""
        fields = *self.levels, *self.entries, self.sample_rate, self.hop, self.block_frames
        return START.pack(MAGIC, VERSION) + FORM.pack(*fields, bytes.fromhex(self.fingerprint), self.gain)

    def checksum(self, first: int, samples: int, i: int, payload: bytes) -> bytes:
        """CRC-32 over the header's `form`, the position of stream i in the block, and the stream's bytes `payload`.

        The block has `samples` samples from sample `first` on.
        """
        return CHECKSUM.pack(zlib.crc32(self.form + POSITION.pack(first, samples, i) + payload))

    def pack(self) -> bytes:
        """The header as HEADER_BYTES bytes."""
        length = LENGTH.pack(self.length or 0)
        return self.form + length + CHECKSUM.pack(zlib.crc32(self.form + length))

    @classmethod
    def unpack(cls, data: bytes, name: str) -> "Header":
        """The inverse of `pack`. Raises UserError, calling the file `name`, if the header is damaged."""
        if not data:
            raise UserError(f"{name} is empty")
        if not data.startswith(MAGIC):
            raise UserError(f"{name} is not a .dcc file, or its first bytes are damaged")
        if len(data) < HEADER_BYTES:
            raise UserError(f"{name} is truncated: it ends after {len(data)} bytes, within its header")
        version = START.unpack_from(data)[1]
        if version != VERSION:
            raise UserError(f"{name} has .dcc version {version}; this decodec_jax reads version {VERSION}")
        if data[-CHECKSUM.size :] != CHECKSUM.pack(zlib.crc32(data[: -CHECKSUM.size])):
            raise UserError(f"the header of {name} is damaged (its checksum is wrong)")
        *pairs, rate, hop, block_frames, fingerprint, gain = FORM.unpack_from(data, START.size)
        length = LENGTH.unpack_from(data, START.size + FORM.size)[0] or None
        try:
            return cls(rate, hop, tuple(pairs[:2]), tuple(pairs[2:]), fingerprint.hex(), gain, block_frames, length)
        except UserError as error:
            raise UserError(f"{name} cannot be read: its {error}") from None


def header_or_none(data: bytes) -> Header | None:
    """The header in `data`, or None if it is damaged."""
    try:
        return Header.unpack(data, "")
    except UserError:
        return None


def check_fingerprint(header: Header, wanted: str | None, name: str) -> None:
    """Raise UserError if the file, called `name`, was not made with the weights `wanted` (None: any weights)."""
    if wanted not in (None, header.fingerprint):
        raise UserError(f"{name} was made with the weights {header.fingerprint}, not with these, {wanted}; "
                        "decode it with the model that made it")  # fmt: skip


def pack_codes(codes: np.ndarray, bits: int) -> bytes:
    """Pack codes `[k, f]` as f frames of k codes of `bits` bits each, highest bit first. Zeros fill the last byte."""
    columns = codes.T[..., None] >> np.arange(bits, dtype=np.int32)[::-1] & 1  # [f, k, bits]
    return np.packbits(columns.astype(np.uint8)).tobytes()


def unpack_codes(data: bytes, bits: int, k: int, f: int) -> np.ndarray:
    """The inverse of `pack_codes`: int32 `[k, f]`."""
    columns = np.unpackbits(np.frombuffer(data, np.uint8), count=f * k * bits).reshape(f, k, bits)
    return np.ascontiguousarray((columns @ (1 << np.arange(bits, dtype=np.int32)[::-1])).T)


def unpack_part(header: Header, first: int, samples: int, i: int, part: bytes) -> np.ndarray | None:
    """Codes `[k, f]` of stream i in the block of `samples` samples from `first` on; None if damaged or left out."""
    size = header.part_bytes(samples)[i] - CHECKSUM.size
    if size < 0 or part[size:] != header.checksum(first, samples, i, part[:size]):
        return None
    codes = unpack_codes(part[:size], header.bits[i], header.levels[i], header.frames(samples))
    return codes if codes.max() < header.entries[i] else None


def unpack_block(header: Header, first: int, samples: int, block: bytes) -> Codes:
    """Codes of both streams in the block of `samples` samples from `first` on."""
    size = header.part_bytes(samples)[0]
    return tuple(unpack_part(header, first, samples, i, part) for i, part in enumerate((block[:size], block[size:])))


def to_tokens(header: Header, samples: int, codes: Codes) -> Tokens:
    """Tokens of `samples` samples with these codes; a stream without codes has no levels."""
    speech, background = (np.zeros((0, header.frames(samples)), np.int32) if c is None else c for c in codes)
    form = header.sample_rate, header.hop, header.entries, header.fingerprint, header.gain
    return Tokens(speech, background, samples, *form)
