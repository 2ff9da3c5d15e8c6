"""Reads samples from pipes as they arrive, and writes them at once, as wav or raw 16-bit samples."""

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from decodec_jax.audio import UNKNOWN_SIZE, sixteen_bits
from decodec_jax.errors import UserError

PIPE = "-"  # the name of standard input and output
ENCODINGS = {(1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4"}  # by wav's format tag and bits a sample
EXTENSIBLE = 0xFFFE  # format tag meaning that the actual tag comes later in the chunk
SIZE = struct.Struct("<I")


class Form(NamedTuple):
    """The format of the samples in a pipe."""

    rate: int  # Hz
    channels: int
    encoding: str  # numpy's name for a sample
    frames: int | None  # samples per channel; None: unknown, until the pipe ends

    @property
    def block(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * np.dtype(self.encoding).itemsize


def raw(rate: int) -> Form:
    """The form of raw samples: one channel, 16 bits, little-endian."""
    return Form(rate, 1, "<i2", None)


def read_header(file: BinaryIO, name: str) -> Form:
    """Read a wav header. Raises UserError, naming the pipe, for anything else."""
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise UserError(f"{name} is not wav; `ffmpeg -i FILE -f wav -` writes wav")
    form = None
    while True:
        chunk, size = file.read(4), file.read(4)
        size = SIZE.unpack(size)[0] if len(size) == SIZE.size else None
        if chunk == b"data" and size is not None:
            break
        body = b"" if size is None else file.read(size + size % 2)
        if size is None or len(body) < size:
            raise UserError(f"{name} is truncated: it ends within the header")
        if chunk == b"fmt ":
            form = _form(body, name)
    if form is None:
        raise UserError(f"{name} is damaged: it has samples before the format chunk")
    return form if size == 0 or size >= UNKNOWN_SIZE else form._replace(frames=size // form.block)


def _form(body: bytes, name: str) -> Form:
    if len(body) < 16:
        raise UserError(f"{name} is damaged: its format chunk has {len(body)} bytes, not 16")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack("<H", body[24:26])[0]
    if (tag, bits) not in ENCODINGS or not channels or not rate:
        raise UserError(f"{name} has {bits}-bit samples of wav format {tag}, {channels} channel(s) at {rate} Hz; "
                        "send 16-bit samples (ffmpeg -c:a pcm_s16le)")  # fmt: skip
    return Form(rate, channels, ENCODINGS[tag, bits], None)


def read_pieces(file: BinaryIO, form: Form, name: str, most: int) -> Iterator[np.ndarray]:
    """Yield samples as float32 `[channels, n]` as soon as they arrive, at most `most` at a time."""
    scale = 1.0 if form.encoding == "<f4" else 2.0 ** (1 - 8 * np.dtype(form.encoding).itemsize)
    left = None if form.frames is None else form.frames * form.block
    held = b""
    while left != 0:
        wanted = most * form.block - len(held)
        data = file.read1(wanted if left is None else min(wanted, left))
        if not data:
            break
        left = None if left is None else left - len(data)
        held += data
        whole = len(held) // form.block * form.block
        wave = np.frombuffer(held[:whole], form.encoding).reshape(-1, form.channels).T
        held = held[whole:]
        if whole:
            wave = wave.astype(np.float32) * np.float32(scale)
            if not np.isfinite(wave).all():
                raise UserError(f"{name} contains samples that are not finite numbers (NaN or inf)")
            yield wave
    if left:
        raise UserError(f"{name} is truncated: it ends {left // form.block / form.rate:.3f} s early")


def writer(file: BinaryIO, form: Form, name: str, header: bool = True) -> Callable[[np.ndarray], None]:
    """A function that writes waveforms `[channels, n]` at once, with 16 bits.

    header: first write a wav header for `form.frames` samples.
    """
    form = form._replace(encoding="<i2")
    if header:
        write_bytes(file, _header(form), name)
    return lambda wave: write_bytes(file, sixteen_bits(wave.T).astype("<i2").tobytes(), name)


def _header(form: Form) -> bytes:
    size = 0xFFFFFFFF if form.frames is None else min(form.frames * form.block, 0xFFFFFFFF)
    fields = struct.pack("<HHIIHH", 1, form.channels, form.rate, form.rate * form.block, form.block, 16)
    total = SIZE.pack(min(size + 36, 0xFFFFFFFF))
    return b"RIFF" + total + b"WAVEfmt " + SIZE.pack(len(fields)) + fields + b"data" + SIZE.pack(size)


def write_bytes(file: BinaryIO, data: bytes, name: str) -> None:
    """Write and flush. Raises UserError, naming the pipe, if it cannot be written, as when its reader has gone."""
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # otherwise Python flushes again at exit and prints a second error
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        raise UserError(f"{name} cannot be written ({os.strerror(error.errno)})") from None
