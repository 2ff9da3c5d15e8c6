"""Standard input and output, at once or at the end."""

import io
import json
import re
from types import SimpleNamespace

import numpy as np
from sounds import RATE, STEP, assert_holds, clips, streamed

from decodec_jax import audio, testing
from decodec_jax.codec.model import DeCodecNetwork
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import gain_of


def test_a_causal_model_answers_a_pipe_and_tells_its_delays(piped, codec, folder):
    wave = clips(139, 1)
    code, out, errors = piped((folder / "in/mono.wav").read_bytes(), "enhance", "-", "-")
    assert code == 0
    (folder / "out.wav").write_bytes(out)
    assert_holds(folder / "out.wav", streamed(codec, wave, "speech"), RATE)
    delays = r"decodec: latency: 2\.5 ms algorithmic; computing [\d.]+ ms \(p50\), [\d.]+ ms \(p99\).*"
    assert len(errors) == 1 and re.fullmatch(delays, errors[0])
    data = np.round(wave / STEP).astype("<i2").tobytes()
    code, raw, errors = piped(data, "enhance", "-", "-", "--raw", RATE, "--json")
    assert code == 0 and raw == out[44:]
    delays = json.loads(errors[-1])["files"][0]["more"]
    assert delays["algorithmic_ms"] == 2.5 and delays["pieces"] == 7
    assert 0 < delays["compute_p50_ms"] <= delays["compute_p99_ms"]
    gain = gain_of(wave, RATE)
    code, out, _ = piped((folder / "in/mono.wav").read_bytes(), "enhance", "-", "-", "--gain", gain)
    (folder / "out.wav").write_bytes(out)
    assert_holds(folder / "out.wav", codec.enhance(wave, RATE), RATE)
    code, told, _ = piped(data, "enhance", "-", folder / "out.wav", "--raw", 8000, "--json")
    assert code == 0 and json.loads(told)["files"][0]["more"]["algorithmic_ms"] > 100  # what resampling keeps
    assert audio.info(folder / "out.wav") == audio.AudioInfo(8000, 1, 139)


def test_a_file_becomes_raw_samples_of_one_channel(piped, codec, folder):
    code, out, _ = piped(b"", "enhance", folder / "in/deep/stereo.flac", "-", "--raw", RATE, "--gain", 0)
    assert code == 0
    wave, rate = audio.read(folder / "in/deep/stereo.flac")
    (expected,) = streamed(codec, audio.resample(audio.mono(wave), rate, RATE)[None], "speech")
    heard = np.frombuffer(out, "<i2") * STEP
    assert len(heard) == 139 and np.max(np.abs(heard - expected)) < 2 * STEP


def test_a_frame_is_answered_once_the_next_is_heard(decodec, monkeypatch):
    """The model looks ahead by one frame, and the pipe adds nothing to it."""
    data, out, answered = np.round(clips(100, 1) / STEP).astype("<i2").tobytes(), io.BytesIO(), []

    def read1(_):
        answered.append(out.tell())
        return data[40 * len(answered) - 40 : 40 * len(answered)]

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(read1=read1)))
        patch.setattr("sys.stdout", io.TextIOWrapper(out, write_through=True))
        assert decodec("enhance", "-", "-", "--raw", RATE)[0] == 0
    assert answered == [0, 0, 40, 80, 120, 160]


def test_tokens_through_pipes(piped, codec, folder):
    code, tokens, errors = piped((folder / "in/mono.wav").read_bytes(), "encode", "-", "-")
    assert (code, errors) == (0, [])
    code, out, errors = piped(tokens, "decode", "-", "-")
    assert (code, errors) == (0, [])
    (folder / "out.wav").write_bytes(out)
    assert_holds(folder / "out.wav", streamed(codec, clips(139, 1), "both"), RATE)
    code, out, errors = piped(b"nonsense", "enhance", "-", "-")
    assert (code, out) == (2, b"") and errors == [
        "decodec: standard input is not wav; `ffmpeg -i FILE -f wav -` writes wav"
    ]


def test_what_waits_for_the_end_of_a_pipe(piped, codec, folder):
    wave, rate = audio.read(folder / "in/deep/stereo.flac")
    other = audio.read(folder / "in/mono.wav")[0]
    audio.write(folder / "stereo.wav", wave, rate)
    for command, option, expected in (
        ("convert", "--reference", codec.convert(wave, other, rate, RATE)),
        ("recombine", "--background", codec.recombine(wave, other, rate, RATE)),
    ):
        data = (folder / "stereo.wav").read_bytes()
        code, out, errors = piped(data, command, "-", "-", option, folder / "in/mono.wav")
        assert (code, errors) == (0, [])
        (folder / "out.wav").write_bytes(out)
        assert_holds(folder / "out.wav", expected, rate)
        code, out, errors = piped(data[:40] + bytes(4), command, "-", "-", option, folder / "in/mono.wav")
        assert (code, out, errors) == (2, b"", ["decodec: standard input has no samples in it"])
        code, _, errors = piped(data, command, "-", "-", option, "-")
        assert code == 2 and errors == ["decodec: - does not exist"]


def test_a_model_that_hears_ahead_waits_for_the_end_of_a_pipe(piped, folder, monkeypatch):
    config = testing.tiny_model(strides=(20,), dilations=())
    variables = testing.random_variables(DeCodecNetwork(config), np.zeros((1, config.hop), np.float32))
    ahead, wave = DeCodec(config, variables["params"], variables["codebook"]), clips(139, 1)
    monkeypatch.setattr(DeCodec, "load", lambda path: ahead)
    data = (folder / "in/mono.wav").read_bytes()
    code, out, errors = piped(data, "enhance", "-", "-")
    assert (code, errors) == (0, [])
    (folder / "out.wav").write_bytes(out)
    assert_holds(folder / "out.wav", streamed(ahead, wave, "speech"), RATE)
    code, tokens, errors = piped(data, "encode", "-", "-")
    assert (code, errors) == (0, [])
    for recover in ((), ("--recover",)):
        code, out, errors = piped(tokens, "decode", "-", "-", *recover)
        assert (code, errors) == (0, [])
        (folder / "out.wav").write_bytes(out)
        assert_holds(folder / "out.wav", streamed(ahead, wave, "both"), RATE)
