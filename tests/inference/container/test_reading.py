"""What went in comes out, from any place and through any pipe, and no more is read than is asked for."""

import io
import itertools
import os

import numpy as np
import pytest
from dcc_files import Pipe, any_tokens, make, only, packed, sources, streamed
from hypothesis import given, settings
from hypothesis import strategies as st

from decodec_jax.errors import UserError
from decodec_jax.inference import container
from decodec_jax.inference.container import Writer
from decodec_jax.inference.container.format import HEADER_BYTES
from decodec_jax.inference.tokens import STREAMS, join


@settings(max_examples=100)
@given(any_tokens(), st.integers(1, 40), st.data())
def test_any_tokens_come_back(tokens, block_frames, draws):
    block_seconds = block_frames * tokens.hop / tokens.sample_rate
    whole = packed(tokens, block_seconds=block_seconds)
    assert container.read(io.BytesIO(whole)) == tokens
    assert container.read(Pipe(whole)) == tokens
    assert container.recover(io.BytesIO(whole)) == (tokens, [])
    header = container.info(io.BytesIO(whole))
    assert (header.block_frames, header.length, header.file_bytes) == (block_frames, tokens.length, len(whole))
    assert header.gain == tokens.gain

    # in pieces of unknown number, as an encoder that streams gives them: only the length in the first header differs
    cuts = sorted(draws.draw(st.sets(st.integers(1, tokens.frames))) | {0, tokens.frames})
    file = io.BytesIO()
    with Writer(file, block_seconds) as writer:
        for first, last in itertools.pairwise(cuts):
            writer.write(tokens.cut(first, last))
    data = file.getvalue()
    assert data[:40] == whole[:40] and data[HEADER_BYTES:] == whole[HEADER_BYTES:]
    assert container.read(io.BytesIO(data)) == tokens
    pieces = list(container.read_blocks(Pipe(data)))
    assert join(pieces) == tokens and {piece.frames for piece in pieces[:-1]} <= {block_frames}


@pytest.mark.parametrize("length", [16_000 - 5, 16_000, 16_001, 3 * 16_000 - 319])
def test_last_frames_and_blocks_of_any_length(length):
    for source in sources(streamed(make(length))):
        assert container.read(source) == make(length)


@settings(max_examples=60)
@given(st.integers(1, 400), st.integers(1, 9), st.floats(0, 0.5), st.floats(0.001, 0.5), st.booleans())
def test_a_crop_is_that_part_of_the_whole(length, block_frames, start, seconds, pipe):
    tokens = make(length, (2, 1), (16, 1000), 1000, 7)
    data = packed(tokens, block_seconds=block_frames * 0.007)
    first, last = round(start * 1000) // 7, -(-round((start + seconds) * 1000) // 7)
    file = Pipe(data) if pipe else io.BytesIO(data)
    if first >= tokens.frames:
        with pytest.raises(UserError, match=r"s long; nothing can be read at"):
            container.read(file, start, seconds)
    else:
        assert container.read(file, start, seconds) == tokens.cut(first, max(first + 1, min(last, tokens.frames)))


def test_a_file_within_a_file(tmp_path):
    """File objects are read from where they stand, stay open, and `info` leaves them standing there."""
    tokens = make()
    path = tmp_path / "a.bin"
    path.write_bytes(b"something else" + packed(tokens))
    with path.open("rb") as file:
        file.seek(14)
        assert container.info(file).length == 16_000
        assert container.read(file, 0.5) == tokens.cut(25, 50)
        assert not file.closed


def test_paths_and_what_info_says(tmp_path):
    tokens = make(40_000, (8, 4))
    container.write(str(tmp_path / "a.dcc"), tokens)
    assert container.read(tmp_path / "a.dcc") == tokens
    header = container.info(tmp_path / "a.dcc")
    assert (header.seconds, header.bitrate, header.bits, header.levels) == (2.5, 6000, (10, 10), (8, 4))
    assert container.info(Pipe(packed(tokens))).length == 40_000
    assert os.stat(tmp_path / "a.dcc").st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Counted(io.BytesIO):
    """Counts the bytes that are read, by their place."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.touched = np.zeros(len(data), int)

    def read(self, count=-1):
        at = self.tell()
        piece = super().read(count)
        self.touched[at : at + len(piece)] += 1
        return piece


def test_one_second_is_read_without_the_rest():
    tokens = make(16_000 * 60)
    file = Counted(packed(tokens))
    assert container.read(file, 42.0, 1.0) == tokens.cut(2100, 2150)
    assert file.touched.sum() == 1008 + 2 * HEADER_BYTES
    assert file.touched[HEADER_BYTES + 42 * 1008 :][:1008].all()


@pytest.mark.parametrize("stream", STREAMS)
def test_one_stream_is_read_without_the_other(stream):
    tokens = make(16_000 * 60, (8, 4))
    file = Counted(packed(tokens))
    assert container.read(file, streams=[stream]) == only(tokens, stream)
    part = {"speech": 504, "background": 254}[stream]
    assert file.touched.sum() == 60 * part + 2 * HEADER_BYTES
    assert file.touched.max() == 1
    assert container.read(Pipe(packed(tokens)), streams=[stream]) == only(tokens, stream)


def test_a_block_comes_through_a_pipe_before_the_next_is_made():
    """Or else whoever listens would be a block behind; the last one may be ragged, and is."""
    tokens = make(5 * 320 - 1)
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as source, os.fdopen(sink, "wb") as sink:
        pieces = container.read_blocks(source)
        with Writer(sink, block_seconds=0.02) as writer:
            for n in range(4):
                writer.write(tokens.cut(n, n + 1))
                assert next(pieces) == tokens.cut(n, n + 1)
            writer.write(tokens.cut(4, 5))
        sink.close()
        assert list(pieces) == [tokens.cut(4, 5)]


def test_other_weights_are_named_with_those_of_the_file():
    data = packed(make())
    assert container.read(io.BytesIO(data), fingerprint="00112233445566ff") == make()
    for read in (container.read, container.recover):
        with pytest.raises(UserError, match="weights 00112233445566ff, not with these, 0123456789abcdef"):
            read(io.BytesIO(data), fingerprint="0123456789abcdef")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start": -1}, "start at 0"), ({"start": float("nan")}, "start at 0"), ({"start": 1e308}, "start at 0"),
        ({"seconds": 0}, "more than 0"), ({"seconds": float("inf")}, "more than 0"), ({"streams": ()}, "some of"),
        ({"streams": ["music"]}, "music"), ({"streams": ["background"]}, "has no background"),
        ({"start": 1.0}, "is 1.000 s long; nothing can be read at 1.000 s"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(arguments, words):
    with pytest.raises(UserError, match=words):
        container.read(io.BytesIO(packed(make(levels=(8, 0)))), **arguments)


def test_missing_files_folders_and_failing_devices(tmp_path):
    class Failing(io.BytesIO):
        def read(self, count=-1):
            raise OSError(5, "Input/output error")

    class Waiting(io.BytesIO):
        def read(self, count=-1):
            return None

    for source, words in [
        (tmp_path / "none.dcc", "none.dcc cannot be read .No such file"), (tmp_path, "cannot be read .Is a directory"),
        (Failing(), "cannot be read .Input/output error"), (Waiting(), "no data yet"),
    ]:  # fmt: skip
        for read in (container.read, container.info, container.recover):
            with pytest.raises(UserError, match=words):
                read(source)
