"""Tokens, .dcc files of them, and what these are read from, for all tests of the container."""

import io
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from decodec_jax.inference import container
from decodec_jax.inference.tokens import STREAMS, Tokens


def make(length=16_000, levels=(8, 8), entries=(1024, 1024), sample_rate=16_000, hop=320, seed=0, gain=-3.7) -> Tokens:
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, n, (k, -(-length // hop)), np.int32) for k, n in zip(levels, entries, strict=True)]
    return Tokens(*codes, length, sample_rate, hop, entries, "00112233445566ff", gain)


@st.composite
def any_tokens(draw) -> Tokens:
    levels = draw(st.tuples(st.integers(0, 16), st.integers(0, 16)).filter(any))
    entries = draw(st.tuples(*[st.integers(2, 65536) | st.sampled_from([2, 1024, 65536])] * 2))
    hop, rate = draw(st.integers(1, 40)), draw(st.integers(1, 48_000))
    gain = draw(st.floats(-100, 100))
    return make(draw(st.integers(1, 30 * hop)), levels, entries, rate, hop, draw(st.integers(0, 99)), gain)


def only(tokens: Tokens, stream: str) -> Tokens:
    left_out = next(other for other in STREAMS if other != stream)
    return replace(tokens, **{left_out: np.zeros((0, tokens.frames), np.int32)})


def packed(tokens: Tokens, **options) -> bytes:
    file = io.BytesIO()
    container.write(file, tokens, **options)
    return file.getvalue()


def streamed(tokens: Tokens, block_seconds: float = 1.0) -> bytes:
    """The bytes that a writer makes who does not know the length before the end."""
    file = io.BytesIO()
    with container.Writer(file, block_seconds) as writer:
        writer.write(tokens)
    return file.getvalue()


class Pipe(io.RawIOBase):
    """The reading end of a pipe: no seeking, and no more than a few bytes at a time."""

    def __init__(self, data: bytes, at_once: int = 7):
        self.rest, self.at_once = data, at_once

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self.rest[: min(len(buffer), self.at_once)]
        self.rest = self.rest[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def sources(data: bytes):
    return io.BytesIO(data), Pipe(data)


def one_line(caught) -> str:
    message = str(caught.value)
    assert message and "\n" not in message
    return message
