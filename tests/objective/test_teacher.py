import jax
import librosa
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import fft, signal

from decodec_jax.errors import UserError
from decodec_jax.objective import cepstra
from decodec_jax.objective.hubert import Hubert, HubertSizes, frame_aligned, grouped_conv
from decodec_jax.objective.teacher import CepstraTeacher, HubertTeacher, WhisperTeacher, require_frames
from decodec_jax.objective.whisper import Whisper, WhisperSizes
from decodec_jax.testing import background_clips, random_variables, speech_clips

# HuBERT's own kernels and strides, with few channels
SIZES = HubertSizes(
    convs=tuple((4, kernel, stride) for _, kernel, stride in HubertSizes().convs),
    width=8, layers=2, heads=2, feed_forward=8, position_kernel=6, position_groups=2,
)  # fmt: skip
WHISPER_SIZES = WhisperSizes(bands=8, width=8, layers=2, heads=2, feed_forward=8)
LENGTHS = [1, 320, 321, 1000]

targets = jax.jit(lambda teacher, wave: teacher.targets(wave))


@pytest.fixture(scope="module")
def hubert():
    params = random_variables(Hubert(SIZES), np.zeros((1, 320), np.float32))["params"]
    return HubertTeacher(params, SIZES, SIZES.layers, "0")


@pytest.fixture(scope="module")
def whisper():
    params = random_variables(Whisper(WHISPER_SIZES), np.zeros((1, 2, 8), np.float32))["params"]
    return WhisperTeacher(params, WHISPER_SIZES, "0")


@pytest.fixture(params=["cepstra", "hubert", "whisper"])
def teacher(request):
    return CepstraTeacher() if request.param == "cepstra" else request.getfixturevalue("hubert")


# --- all ------------------------------------------------------------------------------------------------------------


def test_as_many_frames_as_the_codec_for_any_length(teacher):
    for t in LENGTHS:
        shape = jax.eval_shape(targets, teacher, np.zeros((2, t), np.float32))
        assert shape.shape == (2, -(-t // 320), teacher.width) and shape.dtype == np.float32


def test_silence_has_finite_targets(teacher):
    assert np.all(np.isfinite(targets(teacher, np.zeros((2, 1000), np.float32))))


def test_weights_are_arguments_and_not_constants_of_the_program(teacher):
    closed = jax.make_jaxpr(lambda teacher, wave: teacher.targets(wave))(teacher, np.zeros((1, 1000), np.float32))
    leaves = {id(leaf) for leaf in jax.tree.leaves(teacher)}
    assert not leaves & {id(constant) for constant in closed.consts}
    assert len(closed.jaxpr.invars) == len(leaves) + 1


def test_targets_of_a_batch_split_over_devices_are_the_same_and_gather_nothing(teacher):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    wave = speech_clips(8, 1000)
    split = jax.device_put(wave, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(teacher, NamedSharding(mesh, PartitionSpec()))
    compiled = targets.lower(everywhere, split).compile()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in compiled.as_text()
    for i in range(0, 8, 2):
        np.testing.assert_allclose(compiled(everywhere, split)[i : i + 2], targets(teacher, wave[i : i + 2]), atol=2e-4)


def test_targets_are_the_finished_features(teacher):
    wave = speech_clips(2, 1000)
    finished = teacher.finished(np.asarray(jax.jit(lambda teacher, wave: teacher.features(wave))(teacher, wave)))
    np.testing.assert_allclose(targets(teacher, wave), finished, atol=1e-4)
    assert teacher.window in (50, 1500)


@pytest.mark.parametrize(("sample_rate", "hop"), [(16_000, 160), (24_000, 320)])
def test_a_codec_of_other_frames_is_refused(sample_rate, hop):
    require_frames(16_000, 320)
    with pytest.raises(UserError, match=f"{hop} samples a frame at {sample_rate} Hz; .* needs 320 at 16000"):
        require_frames(sample_rate, hop)


# --- cepstra --------------------------------------------------------------------------------------------------------


def test_cepstra_equal_those_of_librosa_and_scipy():
    t = 5000
    wave = speech_clips(1, t, seed=3)[0] + background_clips(1, t)[0]
    frames = -(-t // 320)
    padded = np.pad(wave, (160, frames * 320 - t + 160))
    hann = signal.get_window("hann", 480)
    power = np.abs(librosa.stft(padded, n_fft=480, hop_length=160, window=hann, center=False)) ** 2  # [bins, 2 frames]
    mel = librosa.filters.mel(sr=16_000, n_fft=480, n_mels=40) @ power
    coefficients = fft.dct(np.log(mel + 1e-7 * mel.max() + 1e-10), axis=0, norm="ortho")[:13]
    around = np.pad(coefficients, ((0, 0), (5, 5)), mode="edge")
    course = np.stack([around[:, 2 * i : 2 * i + 12] for i in range(frames)])
    shapes = fft.dct(course, axis=-1, norm="ortho")[..., :3].reshape(frames, 39)
    expected = (shapes - shapes.mean(0)) / np.sqrt(shapes.var(0) + 1e-3)
    np.testing.assert_allclose(targets(CepstraTeacher(), wave[None])[0], expected, atol=2e-3)


def test_the_mean_of_the_first_coefficient_peaks_where_the_click_is():
    t, frame = 9600, 17
    clicks = np.zeros((1, t), np.float32)
    clicks[:, 320 * frame + 155 : 320 * frame + 165] = 0.5  # in the middle of a frame of the codec
    loudness = np.asarray(targets(CepstraTeacher(), clicks))[0, :, 0]
    np.testing.assert_allclose(loudness[frame - 3 : frame], loudness[frame + 3 : frame : -1], atol=0.05)
    assert loudness[frame] >= loudness.max() - 1e-3


def test_cepstra_do_not_depend_on_level_and_are_normalised_in_each_clip():
    wave = speech_clips(2, 9600) + background_clips(2, 9600)
    ours = np.asarray(targets(CepstraTeacher(), wave))
    np.testing.assert_allclose(ours.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(ours.var(1), 1, atol=0.05)
    np.testing.assert_allclose(targets(CepstraTeacher(), 0.1 * wave), ours, atol=0.01)


def test_cepstra_of_silence_are_zero():
    np.testing.assert_array_equal(targets(CepstraTeacher(), np.zeros((1, 3200), np.float32)), 0)


def test_the_same_vowels_are_nearer_than_the_same_voice():
    vowels = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}  # formants, Hz

    def say(order, pitch):
        harmonics = np.arange(pitch, 7000, pitch)
        said = []
        for vowel in order:
            level = sum(np.exp(-(((harmonics - f) / 150) ** 2)) for f in vowels[vowel]) + 1e-3
            said.append(level @ np.sin(2 * np.pi * harmonics[:, None] * np.arange(3200) / 16_000))
        return np.float32(0.02 * np.concatenate(said))

    order, others = "aiuiau", "uaiaui"
    low, high, low_others = targets(CepstraTeacher(), np.stack([say(order, 100), say(order, 170), say(others, 100)]))

    def alike(x, y):
        return np.sum(x * y) / np.sqrt(np.sum(x**2) * np.sum(y**2))

    assert alike(low, high) > 0.6
    assert alike(low, high) > alike(low, low_others) + 0.5


def test_the_cepstra_s_fingerprint_changes_with_their_settings(monkeypatch):
    before = CepstraTeacher().fingerprint
    assert len(before) == 12 and before == CepstraTeacher().fingerprint
    monkeypatch.setattr(cepstra, "RANGE", 1e-6)
    assert CepstraTeacher().fingerprint != before


# --- HuBERT (its values: tests/interop/test_hubert.py) --------------------------------------------------------------


@pytest.mark.parametrize("t", LENGTHS)
def test_the_middle_of_each_frame_is_the_middle_of_the_codec_s(t):
    sizes = HubertSizes()
    assert (sizes.hop, sizes.reach) == (320, 400)
    wave = np.arange(1, t + 1, dtype=np.float32)[None]
    padded = np.asarray(frame_aligned(wave, sizes))[0]
    heard = np.lib.stride_tricks.sliding_window_view(padded, 400)[::320]  # what the convolutions make a frame of
    assert len(heard) == -(-t // 320) and len(padded) == 400 + 320 * (len(heard) - 1)
    blocks = np.pad(wave[0], (0, -t % 320)).reshape(-1, 320)
    np.testing.assert_array_equal(heard[:, 40:360], blocks)  # 40 samples on either side of the codec's block


@pytest.mark.parametrize("size", [5, 6])
def test_grouped_convolution_equals_the_library_s(rng, size):
    x, kernel = rng.standard_normal((2, 9, 12), np.float32), rng.standard_normal((size, 3, 12), np.float32)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1,), [(size // 2, (size - 1) // 2)], dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=4
    )
    np.testing.assert_allclose(jax.jit(grouped_conv, static_argnums=2)(x, kernel, 4), expected, atol=1e-5)


def test_hubert_hears_no_level_and_no_offset(hubert):
    wave = speech_clips(2, 1000)
    assert SIZES.normalise
    np.testing.assert_allclose(targets(hubert, 0.1 * wave + np.float32(0.2)), targets(hubert, wave), atol=0.02)


# --- Whisper (its values: tests/interop/test_whisper.py) ------------------------------------------------------------


def test_whisper_s_frames_are_the_codec_s(whisper):
    """What only one frame of the codec holds changes the spectra around its middle alike."""
    frame, quiet = 6, np.float32(1e-3) * np.random.default_rng(0).standard_normal((1, 4000), np.float32)
    click = quiet.copy()
    click[:, 320 * frame + 159 : 320 * frame + 161] += 0.01
    heard = [np.asarray(whisper.spectra(wave)) for wave in (quiet, click)]
    changed = np.flatnonzero(np.abs(np.diff(heard, axis=0)).max((0, 1, 3)) > 0.05)
    assert changed.tolist() == [2 * frame]  # a frame is two spectra, and is centred on the first


def test_whisper_hears_no_more_than_half_a_minute(whisper):
    with pytest.raises(UserError, match=r"Whisper hears 30 s, not the 30\.1 s of this recording"):
        jax.eval_shape(targets, whisper, np.zeros((1, 481_600), np.float32))


def test_whisper_s_targets_are_normalised_and_silence_has_none(whisper):
    wave = np.concatenate([speech_clips(1, 9600), np.zeros((1, 9600), np.float32)])
    ours = np.asarray(targets(whisper, wave))
    np.testing.assert_allclose(ours[0].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(ours[0].var(0), 1, atol=0.1)
    np.testing.assert_array_equal(ours[1], 0)
