"""Damage is one clear line, never noise; what is intact is recovered."""

import io
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from dcc_files import Pipe, any_tokens, make, one_line, only, packed, sources, streamed
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from decodec_jax.errors import UserError
from decodec_jax.inference import container
from decodec_jax.inference.container.format import HEADER_BYTES
from decodec_jax.inference.tokens import STREAMS, Tokens


@pytest.mark.parametrize("length_known", [True, False])
def test_every_flipped_bit_is_found(length_known):
    tokens = make(50, (2, 1), (16, 1000), 1000, 20)
    data = packed(tokens, block_seconds=0.04) if length_known else streamed(tokens, 0.04)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        for source in sources(bytes(flipped)):
            with pytest.raises(UserError) as caught:
                container.read(source)
            one_line(caught)
        check_honest(tokens, *container.recover(io.BytesIO(flipped)))


def check_honest(tokens: Tokens, left: Tokens, damaged) -> None:
    """What `recover` returns and does not call damaged is what was written."""
    for stream in STREAMS:
        want, got = getattr(tokens, stream), getattr(left, stream)
        spans = [damage for damage in damaged if damage.stream == stream]
        intact = np.ones(left.frames, bool)
        for damage in spans:
            intact[damage.frames] = False
        if want.size and not got.size:
            assert not intact.any()
        else:
            np.testing.assert_array_equal(got[:, intact], want[:, : left.frames][:, intact])
        if want.size and left.length != tokens.length:
            assert left.length < tokens.length and spans[-1].end > tokens.seconds - 1e-9


@settings(max_examples=100)
@given(any_tokens(), st.integers(1, 30), st.booleans(), st.data())
def test_every_truncation_is_found(tokens, block_frames, length_known, data):
    block_seconds = block_frames * tokens.hop / tokens.sample_rate
    whole = packed(tokens, block_seconds=block_seconds) if length_known else streamed(tokens, block_seconds)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for source in sources(cut):
        with pytest.raises(UserError) as caught:
            container.read(source)
        one_line(caught)
    try:
        left, damaged = container.recover(io.BytesIO(cut))
    except UserError:
        return
    assert damaged or left == tokens  # where only the second header is cut
    check_honest(tokens, left, damaged)


@settings(max_examples=100)
@given(any_tokens(), st.integers(1, 30), st.booleans(), st.data())
def test_any_damage_is_found(tokens, block_frames, length_known, draws):
    """Bytes replaced, lost, added, moved: never other tokens, and `recover` only ever returns what was written."""
    block_seconds = block_frames * tokens.hop / tokens.sample_rate
    data = packed(tokens, block_seconds=block_seconds) if length_known else streamed(tokens, block_seconds)
    damaged = data
    for _ in range(draws.draw(st.integers(1, 4))):
        at, until = sorted(draws.draw(st.integers(0, len(damaged))) for _ in range(2))
        damaged = damaged[:at] + draws.draw(st.binary(max_size=50) | st.just(damaged[:at])) + damaged[until:]
    assume(damaged != data)
    for source in sources(damaged):
        with pytest.raises(UserError) as caught:
            container.read(source)
        one_line(caught)
    try:
        recovered = container.recover(io.BytesIO(damaged))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        check_honest(tokens, *recovered)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_bytes_are_an_error(noise, kept):
    """Random bytes, by themselves, after the magic, the version and a true header."""
    data = packed(make(500, (1, 1), hop=20))[: (0, 4, 6, HEADER_BYTES)[kept]] + noise
    for source in sources(data):
        with pytest.raises(UserError) as caught:
            container.read(source)
        one_line(caught)
    with pytest.raises(UserError) as caught:
        container.recover(io.BytesIO(data))
    one_line(caught)


@settings(max_examples=200)
@given(st.data())
def test_a_forged_header_is_an_error(data):
    """Random values under a right checksum, at both ends."""
    numbers = [data.draw(st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 2**24])) for _ in range(5)]
    levels = data.draw(st.tuples(st.integers(0, 255), st.integers(0, 255)))
    gain, length = data.draw(st.floats(width=32)), data.draw(st.integers(0, 2**64 - 1))
    unchecked = struct.pack("<4sH2B5I8sfQ", b"\x89DCC", 1, *levels, *numbers, bytes(8), gain, length)
    header = unchecked + struct.pack("<I", zlib.crc32(unchecked))
    for source in sources(header + bytes(100) + header):
        with pytest.raises(UserError) as caught:
            container.read(source)
        one_line(caught)
    with pytest.raises(UserError) as caught:
        container.recover(io.BytesIO(header + bytes(100) + header))
    one_line(caught)


def test_terabytes_are_not_allocated():
    data = packed(make())
    header = replace(container.info(io.BytesIO(data)), length=2**62).pack()
    forged = header + data[HEADER_BYTES:-HEADER_BYTES] + header
    tracemalloc.start()
    for source in sources(forged):
        with pytest.raises(UserError, match=r"truncated|lost"):
            container.read(source)
    left, damaged = container.recover(io.BytesIO(forged))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert left == make() and damaged[0] == ("speech", 1.0, 2**62 / 16_000, slice(50, 50))
    with pytest.raises(UserError, match="limit is 1048576"):
        replace(container.info(io.BytesIO(data)), block_frames=2**20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: b"RIFF" + data[4:], "not a .dcc file"),
        (lambda data: data[:4] + b"\2" + data[5:], ".dcc version 2; this decodec_jax reads version 1"),
        (lambda data: data[:20] + b"\0" + data[21:], "header of the .dcc data is damaged"),
        (lambda data: data[:30], "ends after 30 bytes, within its header"),
        (lambda data: data[:2000], "truncated: 2000 of its 3128 bytes are there; `recover`"),
        (lambda data: data[:-1] + b"\xff", "truncated, or its end is damaged"),
        (lambda data: data + b"x", "truncated, or its end is damaged"),
        (lambda data: data[:1500] + data[1500 + 1008 :] + data[:1008], "truncated, or its end is damaged"),
        (lambda data: data[:1200] + b"x" + data[1200:], "it has 3129 bytes, not 3128"),
        (lambda data: data[:100] + b"\0" + data[101:], r"speech from 0\.000 to 1\.000 s is damaged; `recover`"),
        (lambda data: data[:1700] + b"\0" + data[1701:], r"background from 1\.000 to 2\.000 s is damaged"),
        (lambda data: data[:1060] + data[52:1060] + data[2068:], r"speech from 1\.000 to 2\.000 s is damaged"),
    ],
)
def test_damage_is_called_by_its_name(change, words):
    with pytest.raises(UserError, match=words) as caught:
        container.read(io.BytesIO(change(packed(make(48_000)))))
    one_line(caught)


# --- recovery -----------------------------------------------------------------------------------------------------


def test_undamaged_blocks_are_recovered():
    """Block 0 loses its background, 2 and 3 their speech: held frames stand in, and the spans are told."""
    tokens = make(16_000 * 6)
    data = bytearray(packed(tokens))
    for at in (52 + 600, 52 + 2 * 1008 + 5, 52 + 3 * 1008 + 503):
        data[at] ^= 4
    left, damaged = container.recover(Pipe(bytes(data)))
    assert damaged == [("speech", 2.0, 4.0, slice(100, 200)), ("background", 0.0, 1.0, slice(0, 50))]
    assert left.length == tokens.length
    want = tokens.speech.copy(), tokens.background.copy()
    want[0][:, 100:200] = want[0][:, 99:100]
    want[1][:, :50] = want[1][:, 50:51]
    np.testing.assert_array_equal(left.speech, want[0])
    np.testing.assert_array_equal(left.background, want[1])


def test_a_stream_without_an_intact_block_is_left_out():
    data = bytearray(packed(make(levels=(1, 1))))
    data[54] ^= 1
    left, damaged = container.recover(io.BytesIO(data))
    assert left == only(make(levels=(1, 1)), "background") and damaged == [("speech", 0.0, 1.0, slice(0, 50))]


@pytest.mark.parametrize("length_known", [True, False])
def test_of_a_truncated_file_the_beginning_is_recovered(length_known):
    """Cut within the background of block 3: its speech is there. A length that was unknown stays so."""
    tokens = make(16_000 * 6 - 100)
    data = packed(tokens) if length_known else streamed(tokens)
    left, damaged = container.recover(io.BytesIO(data[: 52 + 3 * 1008 + 700]))
    end = tokens.seconds if length_known else float("inf")
    assert damaged == [("speech", 4.0, end, slice(200, 200)), ("background", 3.0, end, slice(150, 200))]
    np.testing.assert_array_equal(left.speech, tokens.speech[:, :200])
    np.testing.assert_array_equal(left.background[:, :150], tokens.background[:, :150])


def test_either_header_is_enough():
    tokens = make(40_000)
    data = streamed(tokens)
    for at in range(HEADER_BYTES):
        assert container.recover(io.BytesIO(data[:at] + b"\xee" + data[at + 1 :])) == (tokens, [])
    left, damaged = container.recover(io.BytesIO(packed(tokens)[:-20]))
    assert (left, damaged) == (tokens, [])
    with pytest.raises(UserError, match=r"not a \.dcc file"):
        container.recover(io.BytesIO(b"x" + data[1:-1] + b"x"))
