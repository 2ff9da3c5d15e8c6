"""Formats that libsndfile does not know, made by PyAV."""

import io
import sys

import av
import numpy as np
import pytest
import soundfile

from decodec_jax import audio, cli, ffmpeg
from decodec_jax.errors import UserError

RATE = 48_000  # the only one that Opus has
CODECS = {
    ".m4a": "aac", ".aac": "aac", ".webm": "libopus", ".mka": "libopus", ".wma": "wmav2", ".mp4": "alac",
}  # fmt: skip
SAMPLES = 60_000


def write(path, channels=2, samples=SAMPLES):
    """A rising tone in the format of the path's suffix; returns its samples, float32 [channels, t]."""
    time = np.arange(samples)
    wave = (0.3 * np.sin(time * (0.01 + 1e-6 * time) * np.array([[1], [2]])[:channels])).astype(np.float32)
    layout = {1: "mono", 2: "stereo"}[channels]
    with av.open(str(path), "w", format="matroska" if path.suffix == ".mka" else None) as container:
        stream = container.add_stream(CODECS[path.suffix], rate=RATE, layout=layout)
        stream.bit_rate = 128_000
        stream.open() if hasattr(stream, "open") else stream.codec_context.open()
        size = stream.codec_context.frame_size or 4096
        to_codec = av.AudioResampler(stream.codec_context.format, layout, RATE, size)
        frame = av.AudioFrame.from_ndarray(wave, "fltp", layout)
        frame.sample_rate = RATE
        for piece in [*to_codec.resample(frame), *to_codec.resample(None), None]:
            container.mux(stream.encode(piece))
    return wave


@pytest.mark.parametrize("suffix", CODECS)
def test_they_are_read_like_any_other(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    wave = write(path)
    read, rate = audio.read(path)
    assert (rate, read.dtype, len(read)) == (RATE, np.float32, 2)
    assert abs(read.shape[1] - SAMPLES) < 4096  # a codec may fill up its last frame
    assert audio.info(path) == audio.AudioInfo(RATE, *read.shape)
    part = wave[:, 30_000:35_000]
    delays = (read[:, 30_000 + lag : 35_000 + lag] for lag in range(-2048, 2049, 1024))  # some keep the codec's delay
    assert min(np.abs(delayed - part).max() for delayed in delays) < 0.03
    np.testing.assert_array_equal(audio.read(io.BytesIO(path.read_bytes()))[0], read)


def test_a_crop_and_pieces_are_parts_of_the_whole(tmp_path):
    write(tmp_path / "a.m4a")
    whole, _ = audio.read(tmp_path / "a.m4a")
    np.testing.assert_array_equal(audio.read(tmp_path / "a.m4a", start=0.5, seconds=0.25)[0], whole[:, 24_000:36_000])
    resampled, _ = audio.read(tmp_path / "a.m4a", 16_000)
    crop, _ = audio.read(tmp_path / "a.m4a", 16_000, 0.5, 0.25)
    np.testing.assert_allclose(crop, resampled[:, 8000:12_000], atol=2e-5)
    with audio.reading(tmp_path / "a.m4a", seconds=0.1) as (_, pieces):
        np.testing.assert_array_equal(np.concatenate(list(pieces), axis=1), whole)
    with ffmpeg.SoundFile(str(tmp_path / "a.m4a"), "a") as file:
        last = file.frames - 100
        file.seek(last)
        np.testing.assert_array_equal(file.read(500).T, whole[:, last:])
        file.seek(10)
        np.testing.assert_array_equal(file.read(20).T, whole[:, 10:30])
        assert file.tell() == 30


def test_lossless_formats_give_every_sample(tmp_path):
    wave = write(tmp_path / "a.mp4", channels=1)
    np.testing.assert_allclose(audio.read(tmp_path / "a.mp4")[0], wave, atol=1e-4)


@pytest.mark.parametrize("suffix", [".m4a", ".webm", ".mka"])
def test_a_file_that_is_cut_short_is_one_line(tmp_path, suffix):
    write(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"truncated") as caught:
        audio.read(tmp_path / f"cut{suffix}")
    assert f"cut{suffix}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_film_without_sound_and_noise_under_a_known_name(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    (tmp_path / "text.m4a").write_text("not audio")
    (tmp_path / "head.m4a").write_bytes(b"\0\0\0\x1cftypM4A \0\0\0\0")
    for name, words in (("a.mp4", "no sound"), ("text.m4a", "not an audio file"), ("head.m4a", "head.m4a is damaged")):
        with pytest.raises(UserError, match=words) as caught:
            audio.read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_without_pyav_the_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.m4a")
    soundfile.write(tmp_path / "a.wav", np.zeros(100), RATE)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"a\.m4a is in a format .* pip install 'decodec_jax\[av\]'"):
        audio.read(tmp_path / "a.m4a")
    assert audio.info(tmp_path / "a.wav").frames == 100
    assert cli.main(["enhance", str(tmp_path / "a.m4a"), str(tmp_path / "b.wav")]) == 2
    assert capsys.readouterr().err.count("pip install 'decodec_jax[av]'") == 1
