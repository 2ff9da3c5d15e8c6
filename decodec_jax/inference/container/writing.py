"""Tokens to a .dcc file as they come: a block leaves when it is full, and at a path the file appears when complete."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from decodec_jax.errors import UserError
from decodec_jax.inference.container.format import MAX_SECONDS, Header, pack_codes
from decodec_jax.inference.container.opening import File, name_of, reported
from decodec_jax.inference.tokens import Tokens, check_following, join


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
        self._name, self._file, self._part = name_of(file), file, None
        self._target = Path(file).resolve() if isinstance(file, (str, os.PathLike)) else None
        if self._target is None:
            return
        if self._target.is_file() or not self._target.exists():  # a device or named pipe cannot be replaced
            self._part = self._target.with_name(f".{self._target.name}.{os.getpid()}.part")
        with reported(self._name, "written"):
            self._file = open(self._part or self._target, "wb")

    def write(self, tokens: Tokens) -> None:
        """Append tokens. Raises UserError if they do not fit those before them or cannot be written."""
        if self._file is None:
            raise UserError(f"{self._name} cannot be written: the writer is closed, or has failed before")
        if self._last is None:
            frames = max(1, round(self.block_seconds * tokens.sample_rate / tokens.hop))
            self._header = Header(tokens.sample_rate, tokens.hop, tokens.levels, tokens.entries,
                                  tokens.fingerprint, tokens.gain, frames, self.length)  # fmt: skip
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
                with reported(self._name, "written"):
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
            with reported(self._name, "written"):
                while data:
                    count = self._file.write(data)  # of a file without a buffer, perhaps less than asked for
                    if not count:
                        raise OSError("it takes no more bytes")
                    data = data[count:]
                self._file.flush()
        except BaseException:
            self.abort()
            raise
