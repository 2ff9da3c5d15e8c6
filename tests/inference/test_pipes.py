"""Samples through pipes: read and written as any wav program does it, in pieces as they come."""

import io
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.inference import pipes
from decodec_jax.inference.live import Stopwatch
from decodec_jax.testing import tiny_model


def wav(wave, rate=8000, subtype="PCM_16", kind="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave.T, rate, subtype, format=kind)
    return file.getvalue()


def read(data: bytes, most=7):
    file = io.BytesIO(data)
    form = pipes.read_header(file, "standard input")
    pieces = list(pipes.read_pieces(file, form, "standard input", most))
    assert all(0 < piece.shape[1] <= most and piece.dtype == np.float32 for piece in pieces)
    return form, np.concatenate(pieces, axis=1)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_32", "FLOAT"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_wav_as_others_write_it(rng, subtype, kind):
    wave = np.round(0.1 * rng.standard_normal((3, 50)) * 32768) / 32768
    form, got = read(wav(wave, subtype=subtype, kind=kind))
    assert (form.rate, form.channels, form.frames) == (8000, 3, 50)
    np.testing.assert_allclose(got, wave, atol=1e-9)


def test_wav_as_others_read_it(rng, tmp_path):
    wave = np.round(0.1 * rng.standard_normal((2, 50)) * 32768) / 32768
    for frames in (50, None):
        file = io.BytesIO()
        put = pipes.writer(file, pipes.Form(22_050, 2, "<f4", frames), "standard output")
        put(wave[:, :20])
        put(wave[:, 20:])
        (tmp_path / "a.wav").write_bytes(file.getvalue())
        got, rate = audio.read(tmp_path / "a.wav")
        assert rate == 22_050
        np.testing.assert_array_equal(got, wave)
        form, got = read(file.getvalue())
        assert form.frames == frames
        np.testing.assert_array_equal(got, wave)


def test_a_piece_comes_before_the_next_is_sent():
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as source, os.fdopen(sink, "wb", buffering=0) as sink:
        pieces = pipes.read_pieces(source, pipes.raw(8000), "standard input", 100)
        sink.write(struct.pack("<3h", 1, 2, -32768) + b"\1")
        assert next(pieces).tolist() == [[1 / 32768, 2 / 32768, -1.0]]
        sink.write(b"\0")
        assert next(pieces).tolist() == [[1 / 32768]]
        sink.close()
        assert list(pieces) == []


def test_chunks_before_the_samples_are_passed_over():
    data = wav(np.ones((1, 5)) / 2)
    assert read(data[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + data[12:])[1].tolist() == [[0.5] * 5]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not wav"), (b"fLaC" + bytes(50), "is not wav"), (wav(np.ones((1, 9)))[:30], "truncated"),
        (wav(np.ones((1, 9)))[:-4], "it ends 0.000 s early"), (wav(np.ones((1, 9)), subtype="PCM_24"), "24-bit"),
        (wav(np.ones((1, 9)))[:12] + b"data" + bytes(4), "samples before the format chunk"),
        (wav(np.full((1, 9), np.nan), subtype="FLOAT"), "NaN"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(data, words):
    with pytest.raises(UserError, match=f"^standard input .*{words}.*$"):
        read(data)


def test_a_listener_who_has_gone():
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(UserError, match="No space left"):
        pipes.writer(full, pipes.raw(8000), "standard output")(np.zeros((1, 9)))


def test_a_listener_who_has_gone_is_mentioned_once():
    program = (
        "import sys, numpy as np; from decodec_jax.inference import pipes\n"
        "try: pipes.writer(sys.stdout.buffer, pipes.raw(8000), 'standard output')(np.zeros((1, 10**6)))\n"
        "except Exception as error: print(error, file=sys.stderr); sys.exit(2)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b"standard output cannot be written (Broken pipe)\n"
    assert running.returncode == 2


def test_ctrl_c_ends_a_stream_that_waits():
    def microphone():
        yield np.zeros((1, 20))
        raise KeyboardInterrupt

    assert len(list(Stopwatch(tiny_model(causal=True), 16_000).started(microphone()))) == 1
