import io
import resource

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from decodec_jax import audio
from decodec_jax.errors import UserError


def noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
@pytest.mark.parametrize("channels", [1, 2])
def test_sixteen_bit_formats_return_the_samples_written(tmp_path, suffix, channels):
    wave = np.round(noise(channels, 1001) * 32768) / 32768
    audio.write(tmp_path / f"a{suffix}", wave, 22050)
    read, rate = audio.read(tmp_path / f"a{suffix}")
    assert rate == 22050 and read.dtype == np.float32
    np.testing.assert_array_equal(read, wave)
    assert audio.info(tmp_path / f"a{suffix}") == audio.AudioInfo(22050, channels, 1001)


def test_ogg_keeps_length_and_sound(tmp_path):
    wave = 0.5 * np.sin(np.arange(200_000) * 0.05).astype(np.float32)
    audio.write(tmp_path / "a.ogg", wave, 16000)
    read, _ = audio.read(tmp_path / "a.ogg")
    assert read.shape == (1, 200_000)
    assert np.sqrt(np.mean((read[0] - wave) ** 2)) < 0.02


def test_what_ogg_cannot_hold_is_one_line(tmp_path):
    for wave, rate in ((noise(1, 2000), 384_000), (noise(256, 2000), 16_000)):
        with pytest.raises(UserError, match=r"a\.ogg: OGG cannot hold \d+ channel"):
            audio.write(tmp_path / "a.ogg", wave, rate)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("start", "seconds"), [(-0.5, None), (0.0, -0.2), (float("nan"), None), (0.0, float("inf"))])
def test_a_part_that_cannot_be_is_refused(tmp_path, start, seconds):
    audio.write(tmp_path / "a.wav", noise(1, 2000), 16_000)
    with pytest.raises(UserError, match="is no part of a recording"):
        audio.read(tmp_path / "a.wav", start=start, seconds=seconds)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integers_are_written_as_they_are(tmp_path, dtype):
    wave = np.array([[-(2**15), 0, 1, 2**14]], np.int64)
    audio.write(tmp_path / "a.wav", (wave << (0 if dtype is np.int16 else 16)).astype(dtype), 8000)
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav", np.int64(8000))[0], wave / np.float32(2**15))


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path):
    audio.write(tmp_path / "a.wav", np.array([2.0, 1.0, -1.0, -3.0]), 8000)
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav")[0][0], [32767 / 32768] * 2 + [-1, -1])


def test_bytes_are_read_like_a_file(tmp_path):
    audio.write(tmp_path / "a.flac", noise(500), 16000)
    held = io.BytesIO((tmp_path / "a.flac").read_bytes())
    np.testing.assert_array_equal(audio.read(held)[0], audio.read(tmp_path / "a.flac")[0])


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 22050])
@pytest.mark.parametrize("start", [0.0, 0.3, 1.23456, 1.9])
def test_a_crop_is_that_part_of_the_whole(tmp_path, rate, start):
    audio.write(tmp_path / "a.flac", noise(2, 2 * rate + 7), rate)
    whole, _ = audio.read(tmp_path / "a.flac", 16000)
    crop, _ = audio.read(tmp_path / "a.flac", 16000, start, 0.25)
    assert whole.shape == (2, -(-(2 * rate + 7) * 16000 // rate))
    first = round(start * 16000)
    np.testing.assert_allclose(crop, whole[:, first : first + 4000], atol=2e-5)


RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), RATES, RATES)
def test_resampled_length_is_exact(t, rate_in, rate_out):
    out = audio.resample(noise(t), rate_in, rate_out)
    assert out.shape == (-(-t * rate_out // rate_in),)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("rate_in,rate_out", [(44_100, 16_000), (16_000, 11_025), (8000, 16_000)])
def test_pieces_are_resampled_as_the_whole_within_the_delay(rate_in, rate_out):
    wave, heard, given = noise(2, 9001), 0, 0
    pieces, kept = [], audio.delay(rate_in, rate_out)

    def listened():
        nonlocal heard
        for piece in np.split(wave, range(rate_in // 100, 9001, rate_in // 100), axis=1):
            assert heard / rate_in - given / rate_out <= kept + 1e-9
            heard += piece.shape[1]
            yield piece

    for piece in audio.resampled(listened(), rate_in, rate_out):
        given += piece.shape[1]
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), audio.resample(wave, rate_in, rate_out))
    assert audio.delay(rate_in, rate_in) == pytest.approx(0, abs=1e-9)


def test_reading_and_writing_in_pieces(tmp_path):
    wave = np.round(noise(2, 25_000) * 32768) / 32768
    with audio.writing(tmp_path / "a.flac", 8000, 2) as put:
        for piece in np.split(wave, [0, 1, 9000], axis=1):
            put(piece)
    with audio.reading(tmp_path / "a.flac", seconds=1.0) as (info, pieces):
        assert info == audio.AudioInfo(8000, 2, 25_000)
        pieces = list(pieces)
    assert [piece.shape[1] for piece in pieces] == [8000, 8000, 8000, 1000]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), wave)
    with pytest.raises(KeyError), audio.writing(tmp_path / "b.wav", 8000, 2) as put:
        put(wave)
        raise KeyError
    for name, words in {name: words for name, words in bad_files(tmp_path).items() if words}.items():
        with pytest.raises(UserError, match=words), audio.reading(tmp_path / name) as (_, pieces):
            list(pieces)
    assert not (tmp_path / "b.wav").exists() and not list(tmp_path.glob(".*"))


def test_resampling_keeps_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000).astype(np.float32)
    want = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(audio.resample(tone, 48000, 16000)[200:-200], want[200:-200], atol=1e-3)


def test_mono_is_the_mean_of_the_channels():
    np.testing.assert_array_equal(audio.mono(np.array([[1.0, 2.0], [3.0, 0.0]])), [2.0, 1.0])
    np.testing.assert_array_equal(audio.mono(np.ones(3)), np.ones(3))


def test_every_function_takes_arrays_alike():
    stored = np.array([[2**14, 0, 2**13]], np.int16)
    np.testing.assert_array_equal(audio.mono(stored), np.float32([0.5, 0, 0.25]))
    np.testing.assert_array_equal(audio.resample(stored, 8000, 8000), np.float32([[0.5, 0, 0.25]]))
    for call in (lambda wave: audio.mono(wave), lambda wave: audio.resample(wave, 8000, 16_000)):
        with pytest.raises(UserError, match=r"pass x\.T"):
            call(np.zeros((24_000, 2)))
    for rates in (("8000", 8000), (8000, "8000")):
        with pytest.raises(UserError, match="sample_rate is '8000'"):
            audio.resample(stored, *rates)


def bad_files(folder):
    """Name -> words its error must have."""
    (folder / "text.wav").write_text("not audio\n" * 100)
    (folder / "nothing.flac").write_bytes(b"")
    (folder / "folder.wav").mkdir()
    audio.write(folder / "whole.flac", noise(50_000), 16000)
    (folder / "cut.flac").write_bytes((folder / "whole.flac").read_bytes()[:30_000])
    audio.write(folder / "whole.wav", noise(50_000), 16000)
    (folder / "cut.wav").write_bytes((folder / "whole.wav").read_bytes()[:30_000])
    (folder / "header.wav").write_bytes((folder / "whole.wav").read_bytes()[:20])
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan, 0.1]), 16000, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", np.array([0.0, np.inf, 0.1]), 16000, subtype="FLOAT")
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    return {
        "missing.wav": "does not exist",
        "text.wav": "not an audio file",
        "nothing.flac": "not an audio file",
        "folder.wav": "folder",
        "cut.flac": "truncated",
        "cut.wav": "truncated",
        "header.wav": "",
        "nan.wav": "NaN",
        "inf.wav": "NaN or inf",
        "empty.wav": "no samples",
    }


def test_bad_files_give_one_line_that_names_them(tmp_path):
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(UserError) as caught:
            audio.read(tmp_path / name)
        message = str(caught.value)
        assert name in message and words in message and "\n" not in message, (name, message)


def test_bad_bytes_are_called_by_the_given_name():
    with pytest.raises(UserError, match=r"shard#3 is not an audio file"):
        audio.read(io.BytesIO(b"hello"), name="shard#3")


def test_reading_past_the_end_says_so(tmp_path):
    audio.write(tmp_path / "a.wav", noise(800), 8000)
    with pytest.raises(UserError, match=r"0\.100 s long"):
        audio.read(tmp_path / "a.wav", start=0.2, seconds=1.0)


@pytest.mark.parametrize(
    ("name", "wave", "rate", "words"),
    [
        ("a.mp4", np.zeros(10), 16000, "suffix"),
        ("none/a.wav", np.zeros(10), 16000, "cannot be written"),
        ("a.wav", np.zeros(0), 16000, "no samples"),
        ("a.flac", np.array([np.nan]), 16000, "NaN"),
        ("a.flac", np.zeros((9, 10)), 16000, "9 channel"),
        ("a.wav", np.zeros(10), "16000", "sample_rate is '16000'"),
        ("a.wav", np.zeros((24_000, 2)), 16000, r"pass x\.T"),
        ("a.wav", np.zeros(10, complex), 16000, r"pass x\.real"),
        ("a.wav", np.full(10, 32767.0), 16000, "reaches 32767"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, wave, rate, words):
    with pytest.raises(UserError, match=words) as caught:
        audio.write(tmp_path / name, wave, rate)
    assert isinstance(rate, str) or wave.ndim == 2 or np.iscomplexobj(wave) or name in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(tmp_path):
    audio.write(tmp_path / "a.wav", noise(100), 16000)
    before = (tmp_path / "a.wav").read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(UserError, match=r"a\.wav cannot be written"):
            audio.write(tmp_path / "a.wav", noise(100_000), 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == before
