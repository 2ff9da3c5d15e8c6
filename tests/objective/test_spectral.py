import warnings

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from scipy import signal

from configs.decodec import get_config
from decodec_jax.objective.spectral import log_mel, magnitude_distance, magnitudes, mel_distance, mel_filters
from decodec_jax.testing import speech_clips

RATE, EPS = 16_000, 1e-5


def floor(window, bands):
    """What is added to each band: the magnitude there of white noise of -70 dB."""
    filters = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=bands)
    return 10 ** (-70 / 20) * np.sqrt(3 / 8 * window) * filters.sum(axis=1)


log_mel = jax.jit(log_mel, static_argnums=(1, 2, 3), static_argnames=("floor", "overlap"))
mel_distance = jax.jit(mel_distance, static_argnums=(2, 3, 4), static_argnames=("floor", "overlap"))


@pytest.mark.parametrize("window", [64, 512])
@pytest.mark.parametrize("t", [1, 63, 512, 1000])
def test_magnitudes_equal_those_of_scipy_and_librosa(rng, t, window):
    wave = rng.standard_normal((2, t)).astype(np.float32)
    ours = np.asarray(magnitudes(wave, window))
    assert ours.shape == (2, 1 + -(-4 * t // window), window // 2 + 1)

    hop, hann = window // 4, signal.get_window("hann", window)
    # scipy pads nothing shorter than a window by itself; zeros past the end are what ours sees too
    padded = np.pad(wave, ((0, 0), (0, max(-t % hop, window - t))))
    _, _, scipys = signal.stft(padded, window=hann, nperseg=window, noverlap=window - hop, boundary="zeros")
    scipys = np.abs(scipys.swapaxes(1, 2))[:, : ours.shape[1]] * hann.sum()
    np.testing.assert_allclose(ours, np.sqrt(scipys**2 + EPS**2), rtol=1e-4, atol=1e-4)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a wave shorter than the window
        librosas = np.abs(librosa.stft(wave, n_fft=window, hop_length=hop, center=True, pad_mode="constant"))
    librosas = librosas.swapaxes(1, 2)  # without the last frame, where the hop does not divide t
    np.testing.assert_allclose(ours[:, : librosas.shape[1]], librosas, rtol=1e-4, atol=1e-4)


def test_a_sine_of_full_scale_peaks_at_its_bin_with_half_the_window_s_sum():
    spectrum = magnitudes(jnp.sin(2 * np.pi * 32 / 512 * jnp.arange(4096))[None], 512)[0, 16]
    assert np.argmax(spectrum) == 32
    np.testing.assert_allclose(spectrum[32], 512 / 4, rtol=1e-3)


def test_log_mel_equals_that_of_librosa():
    wave = speech_clips(2, 4096)
    expected = librosa.feature.melspectrogram(
        y=wave, sr=RATE, n_fft=512, hop_length=128, n_mels=40, power=1, center=True, pad_mode="constant"
    )
    ours = log_mel(wave, RATE, 512, 40)
    np.testing.assert_allclose(ours, np.log10(expected.swapaxes(1, 2) + floor(512, 40)), atol=1e-3)


@pytest.mark.parametrize("variant", ["paper", "light"])
def test_no_mel_band_of_a_shipped_config_is_empty(variant):
    config = get_config(variant)
    for window, bands in zip(config.loss.mel_windows, config.loss.mel_bands, strict=True):
        filters = mel_filters(config.model.sample_rate, window, bands)
        assert filters.shape == (window // 2 + 1, bands) and filters.dtype == np.float32
        assert np.all(filters.sum(axis=0) > 0)
        assert np.all(np.diff(filters.argmax(axis=0)) >= 0)  # low to high


def test_mel_distance_equals_numpy_s(rng):
    a, b = (0.1 * rng.standard_normal((2, 3, 1000))).astype(np.float32)
    expected = np.zeros(3)
    for window, bands in ((64, 10), (256, 40)):
        hann, hop = signal.get_window("hann", window), window // 4

        def mel(wave, window=window, bands=bands, hann=hann, hop=hop):
            padded = np.pad(wave.astype(np.float64), (window // 2, window // 2 + -len(wave) % hop))
            frames = np.stack([padded[i : i + window] * hann for i in range(0, len(padded) - window + 1, hop)])
            spectrum = np.abs(np.fft.rfft(frames))
            filters = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=bands).T
            return np.log10(spectrum @ filters + floor(window, bands))

        expected += [np.mean(np.abs(mel(x) - mel(y))) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(mel_distance(a, b, RATE, (64, 256), (10, 40)), expected, rtol=1e-4)


def test_mel_distance_of_equal_waves_is_zero_and_ten_times_as_loud_is_one_a_scale():
    wave = jnp.float32(speech_clips(2, 2000)) + 0.01 * jax.random.normal(jax.random.key(0), (2, 2000))
    np.testing.assert_allclose(mel_distance(wave, wave, RATE, (64, 256), (10, 40)), [0, 0], atol=1e-6)
    np.testing.assert_allclose(mel_distance(10 * wave, wave, RATE, (64, 256), (10, 40)), [2, 2], rtol=2e-2)


@pytest.mark.parametrize(("decibels", "heard"), [(-110, 0.01), (-70, 0.3), (-30, 2.0)])
def test_mel_distance_of_noise_and_silence_counts_from_the_floor_at_every_scale(rng, decibels, heard):
    noise = (10 ** (decibels / 20) * rng.standard_normal((1, 8000))).astype(np.float32)
    for window, bands in ((64, 10), (512, 80), (2048, 80)):
        distance = mel_distance(noise, jnp.zeros((1, 8000)), RATE, (window,), (bands,))
        assert distance == pytest.approx(heard, rel=0.2, abs=0.01)


def test_the_floor_can_be_set(rng):
    noise, silence = (0.1 * rng.standard_normal((1, 4000))).astype(np.float32), jnp.zeros((1, 4000))
    distances = [mel_distance(noise, silence, RATE, (512,), (40,), floor=floor)[0] for floor in (-90.0, -70.0)]
    assert distances[0] - distances[1] == pytest.approx(1, abs=0.02)  # far above both: 20 dB are 1


@pytest.mark.parametrize("overlap", [2, 4])
def test_a_smaller_overlap_leaves_frames_out(overlap, rng):
    wave = rng.standard_normal((2, 1024)).astype(np.float32)
    every = magnitudes(wave, 64)
    np.testing.assert_allclose(magnitudes(wave, 64, overlap), every[:, :: 4 // overlap], atol=1e-4)
    mel = log_mel(wave, RATE, 64, 10)
    np.testing.assert_allclose(log_mel(wave, RATE, 64, 10, overlap=overlap), mel[:, :: 4 // overlap], atol=1e-4)


@pytest.mark.parametrize("t", [1, 30, 500])
@pytest.mark.parametrize("silent", ["output", "target", "both"])
def test_silence_and_short_waves_have_finite_distances_and_gradients(rng, t, silent):
    output, target = 0.1 * rng.standard_normal((2, 2, t)).astype(np.float32)
    output *= silent == "target"
    target *= silent == "output"

    @jax.jit
    @jax.value_and_grad
    def distance(output):
        return mel_distance(output, target, RATE, (64, 256), (10, 40)).sum()

    value, gradient = distance(output)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    assert value < 1e-5 if silent == "both" else value > 0.1


@pytest.mark.parametrize("overlap", [2, 4])
def test_magnitude_distance_equals_that_of_scipy_s_spectra(overlap):
    output, target = (np.float64(clip) for clip in speech_clips(2, 4096))

    def roots(wave, window):
        hann = signal.get_window("hann", window)
        skipped = window - window // overlap
        _, _, spectrum = signal.stft(wave, window=hann, nperseg=window, noverlap=skipped, boundary="zeros")
        size = np.abs(spectrum) * hann.sum() / np.sqrt(np.sum(hann**2))  # of white noise of RMS 1: about 1
        return (size**2 + 3e-4**2) ** 0.25

    expected = [np.mean(np.abs(roots(output, window) - roots(target, window))) for window in (256, 1024)]
    ours = magnitude_distance(jnp.float32(output)[None], jnp.float32(target)[None], (256, 1024), overlap)
    np.testing.assert_allclose(ours, [np.mean(expected)], rtol=1e-3)


def test_magnitude_distance_hears_what_is_quiet_and_no_phase():
    time = np.arange(8000) / RATE
    loud, quiet = 0.1 * np.sin(2 * np.pi * 300 * time), 1e-3 * np.sin(2 * np.pi * 4000 * time)  # 40 dB apart

    def distance(output):
        return float(magnitude_distance(jnp.float32(output)[None], jnp.float32(loud + quiet)[None], (512,))[0])

    assert distance(loud) / distance(quiet) > 0.05  # of waveforms: 0.01
    assert distance(-loud - quiet) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("of", [0.0, 0.05])
def test_gradients_of_magnitude_distances_are_finite_and_of_one_size_for_silence(of):
    wave = of * jnp.float32(np.random.default_rng(0).standard_normal((1, 2000)))
    gradient = jax.grad(lambda output: magnitude_distance(output, wave, (256,))[0])(wave * 0.9)
    assert np.all(np.isfinite(gradient)) and np.abs(gradient).max() < 1
