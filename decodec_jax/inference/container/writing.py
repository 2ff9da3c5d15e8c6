"""Writes tokens to .dcc files as they come: each block as soon as it is full. A path appears only when complete."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from decodec_jax.errors import UserError
from decodec_jax.inference.container.format import MAX_SECONDS, Header, pack_codes
from decodec_jax.inference.container.opening import File, name_of, os_errors_as_user_errors
from decodec_jax.inference.tokens import Tokens, check_following, join


def write(file: File, tokens: Tokens, block_seconds: float = 1.0) -> None:
    """Write a file in blocks of `block_seconds` (s, rounded to frames).

    Shorter blocks cost more bytes, but readers get them sooner, and damage affects less. At a path the file appears
    only when complete; an existing file is kept until then. Raises UserError if the file cannot be written.
    """
    with Writer(file, block_seconds, tokens.length) as writer:
        writer.write(tokens)


class Writer:
    """Writes tokens as they come, to pipes too. Each block is written and flushed as soon as it is full.

        with Writer("long.dcc") as writer:
            for tokens in pieces:  # any number of frames each; only the last piece may end within a frame
                writer.write(tokens)

    length: total number of samples, if known. It is only used for the header at the start of the file.
    """

    def __init__(self, file: File, block_seconds: float = 1.0, length: int | None = None):
        if not 0 < block_seconds < MAX_SECONDS:
            raise UserError(f"block_seconds is {block_seconds}; it must be above 0")
        self.block_seconds, self.length = block_seconds, length
        self._header: Header | None = None
        self._last: Tokens | None = None  # the previous piece, which the next one must continue
        self._waiting: list[Tokens] = []  # tokens that do not fill a block yet
        self._frames = 0  # number of waiting frames
        self._written = 0  # number of samples in written blocks
        self._name, self._file, self._part = name_of(file), file, None
        self._target = Path(file).resolve() if isinstance(file, (str, os.PathLike)) else None
        if self._target is None:
            return
        if self._target.is_file() or not self._target.exists():  # a device or named pipe cannot be replaced
            self._part = self._target.with_name(f".{self._target.name}.{os.getpid()}.part")
        with os_errors_as_user_errors(self._name, "written"):
            self._file = open(self._part or self._target, "wb")

    def write(self, tokens: Tokens) -> None:
        """Append tokens. Raises UserError if they do not fit those before them or cannot be written."""
        if self._file is None:
            raise UserError(f"{self._name} cannot be written: the writer is closed, or has failed before")
        if self._last is None:
            frames = max(1, round(self.block_seconds * tokens.sample_rate / tokens.hop))
            self._header = Header(tokens.sample_rate, tokens.hop, tokens.levels, tokens.entries,
                                  tokens.fingerprint, tokens.gain, frames, self.length)  # fmt: skip
            self._write_bytes(self._header.pack())
        else:
            check_following(self._last, tokens)
        self._last = tokens
        self._waiting.append(tokens)
        self._frames += tokens.frames
        block = self._header.block_frames
        if self._frames >= block:
            waiting, whole = join(self._waiting), self._frames // block * block
            for first in range(0, whole, block):
                self._write_block(waiting.cut(first, first + block))
            self._frames -= whole
            self._waiting = [waiting.cut(whole, waiting.frames)] if self._frames else []

    def close(self) -> None:
        """Write the remaining tokens and the end of the file; at a path, the file appears only now.

        Raises UserError as `write` does.
        """
        if self._file is None:
            return
        try:
            if self._waiting:
                self._write_block(join(self._waiting))
            if self._written == 0:
                raise UserError(f"{self._name} is not written: there are no tokens to write")
            if self.length not in (None, self._written):
                raise UserError(f"{self._name} is not written: {self._written} samples came, not {self.length}")
            self._write_bytes(replace(self._header, length=self._written).pack())
            if self._target is not None:
                with os_errors_as_user_errors(self._name, "written"):
                    self._file.close()
                    if self._part is not None:
                        os.replace(self._part, self._target)
        except BaseException:
            self.abort()
            raise
        self._file = None

    def abort(self) -> None:
        """Stop writing. A path gets no file; data in a file object lacks its end, so it reads as truncated."""
        file, self._file = self._file, None
        if file is None or self._target is None:
            return
        with contextlib.suppress(OSError):  # flushing the buffer may fail again
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

    def _write_block(self, tokens: Tokens) -> None:
        data = b""
        for i, codes in enumerate((tokens.speech, tokens.background)):
            if codes.size:
                payload = pack_codes(codes, self._header.bits[i])
                data += payload + self._header.checksum(self._written, tokens.length, i, payload)
        self._write_bytes(data)
        self._written += tokens.length

    def _write_bytes(self, data: bytes) -> None:
        try:
            with os_errors_as_user_errors(self._name, "written"):
                while data:
                    count = self._file.write(data)  # an unbuffered file may write less
                    if not count:
                        raise OSError("it accepts no more bytes")
                    data = data[count:]
                self._file.flush()
        except BaseException:
            self.abort()
            raise
