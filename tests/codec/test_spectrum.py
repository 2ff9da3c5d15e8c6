"""The transforms are those of numpy, librosa and torch; pieces of a signal give what the whole gives."""

import sys

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from decodec_jax.codec import spectrum
from decodec_jax.codec.spectrum import PARTS
from decodec_jax.testing import background_clips, speech_clips

RATE = 16_000
HOPS = (2, 5, 20, 320)  # of the STFT; the inverse transform's window is one of these, times 2


def istft(spectra, past=None):
    """Spectra `[b, n, 2, bins]` to the waveform that the decoder makes of them."""
    return spectrum.overlap_add(spectrum.synthesis_frames(spectra.reshape(*spectra.shape[:2], -1)), past)


def complex_of(spectra) -> np.ndarray:
    """`[..., 2, bins] -> [..., bins]`."""
    return np.asarray(spectra[..., 0, :]) + 1j * np.asarray(spectra[..., 1, :])


def pair_of(spectra: np.ndarray) -> np.ndarray:
    """The inverse of `complex_of`."""
    return np.stack([spectra.real, spectra.imag], axis=-2).astype(np.float32)


def cut_in_frames(wave: np.ndarray, window: int, hop: int) -> np.ndarray:
    """`[b, t] -> [b, n, window]`: every window that fits."""
    return np.lib.stride_tricks.sliding_window_view(wave, window, axis=-1)[:, ::hop]


# --- there ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hop", HOPS)
def test_stft_is_that_of_numpy(rng, hop):
    wave = rng.standard_normal((2, 7 * hop)).astype(np.float32)
    frames = cut_in_frames(np.pad(wave, ((0, 0), (hop, 0))), 2 * hop, hop)
    expected = np.fft.rfft(frames * hann(2 * hop, sym=False))
    spectra = spectrum.stft(wave, hop)
    assert spectra.shape == (2, 7, 2, hop + 1)
    np.testing.assert_allclose(complex_of(spectra), expected, rtol=0, atol=1e-4)


def test_stft_is_that_of_scipy_too(rng):
    hop = 20
    wave = rng.standard_normal(9 * hop).astype(np.float32)
    theirs = ShortTimeFFT(hann(2 * hop, sym=False), hop, RATE, phase_shift=None).stft(wave, p0=0, p1=9)
    np.testing.assert_allclose(complex_of(spectrum.stft(wave[None], hop))[0], theirs.T, rtol=0, atol=1e-5)


def test_pieces_have_the_spectra_of_the_whole(rng):
    hop, wave = 20, rng.standard_normal((2, 160)).astype(np.float32)
    pieces, past = [], None
    for piece in np.split(wave, [20, 80, 100], axis=1):
        pieces.append(spectrum.stft(piece, hop, past))
        past = piece[:, -hop:]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), spectrum.stft(wave, hop), rtol=0, atol=1e-6)


# --- and back ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [8, 40, 640])
def test_what_the_window_let_through_comes_back(rng, window):
    """But for the first samples, which nearly nothing lets through."""
    hop, signal = window // PARTS, rng.standard_normal((2, 3 * window)).astype(np.float32)
    frames = cut_in_frames(signal, window, hop) * hann(window, sym=False)
    count = frames.shape[1]
    back = istft(pair_of(np.fft.rfft(frames)))
    assert back.shape == (2, count * hop)
    heard = int(np.argmax(hann(window, sym=False) ** 2 > 0.03))
    np.testing.assert_allclose(back[:, heard:], signal[:, heard : count * hop], rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [8, 40, 640])
def test_istft_of_what_is_no_signals_spectrum_is_that_of_numpy(rng, window):
    hop, count = window // PARTS, 9
    spectra = rng.standard_normal((2, count, 2, window // 2 + 1)).astype(np.float32)
    shape = hann(window, sym=False)
    total, weight = np.zeros((2, (count + PARTS - 1) * hop)), np.zeros((count + PARTS - 1) * hop)
    for j, frame in enumerate(np.moveaxis(np.fft.irfft(complex_of(spectra)), 1, 0)):
        total[:, j * hop : j * hop + window] += frame * shape
        weight[j * hop : j * hop + window] += shape**2
    expected = (total / np.maximum(weight, 0.03))[:, : count * hop]
    np.testing.assert_allclose(istft(spectra), expected, rtol=0, atol=1e-5)


def test_pieces_of_spectra_give_the_waveform_of_the_whole(rng):
    window, spectra = 40, rng.standard_normal((2, 11, 2, 21)).astype(np.float32)
    past, pieces = None, []
    for piece in np.split(spectra, [1, 2, 7], axis=1):
        pieces.append(istft(piece, past))
        before = jnp.zeros((2, PARTS - 1, window + 1)) if past is None else past
        frames = spectrum.synthesis_frames(piece.reshape(*piece.shape[:2], -1))
        past = jnp.concatenate([before, frames], axis=1)[:, -(PARTS - 1) :]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), istft(spectra), rtol=0, atol=1e-6)


class TestBesideTorch:
    """The `test` extra brings torch for Python 3.11, where this is never skipped."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch") if sys.version_info >= (3, 12) else __import__("torch")

    def test_stft_on_the_interior(self, torch, rng):
        hop, wave = 40, rng.standard_normal((2, 400)).astype(np.float32)
        theirs = torch.stft(
            torch.from_numpy(wave), 2 * hop, hop, window=torch.hann_window(2 * hop), center=False, return_complex=True
        )
        ours = complex_of(spectrum.stft(wave, hop))[:, 1:]  # the first reaches to before the signal
        np.testing.assert_allclose(ours, theirs.mT.numpy(), rtol=0, atol=1e-5)

    def test_istft_on_the_interior(self, torch, rng):
        window, count = 80, 12
        hop, spectra = window // PARTS, rng.standard_normal((2, count, 2, window // 2 + 1)).astype(np.float32)
        theirs = torch.istft(
            torch.from_numpy(complex_of(spectra)).mT, window, hop, window=torch.hann_window(window), center=True
        )
        ours = np.asarray(istft(spectra))[:, window // 2 :]  # torch leaves out half a window at both ends
        np.testing.assert_allclose(ours, theirs[:, : ours.shape[1]].numpy(), rtol=0, atol=1e-5)


# --- compression and mel ----------------------------------------------------------------------------------------------


def test_compression_changes_magnitudes_and_keeps_phases(rng):
    before = np.geomspace(0.1, 100, 30) * np.exp(1j * rng.uniform(-np.pi, np.pi, 30))
    after = complex_of(spectrum.compressed(pair_of(before)))
    np.testing.assert_allclose(np.abs(after), np.abs(before) ** 0.3, rtol=1e-3)
    np.testing.assert_allclose(np.angle(after / before), 0, atol=1e-5)


@pytest.mark.parametrize(("rate", "hop", "bands"), [(RATE, 320, 80), (RATE, 20, 6), (48_000, 320, 53)])
def test_log_mel_is_that_of_librosa(rate, hop, bands):
    wave = 20 * (speech_clips(2, 10 * hop, sample_rate=rate) + background_clips(2, 10 * hop))
    magnitudes = librosa.feature.melspectrogram(
        y=np.pad(wave, ((0, 0), (hop, 0))), sr=rate, n_fft=2 * hop, hop_length=hop, center=False, n_mels=bands,
        norm=None, power=1.0,
    )  # fmt: skip
    ours = spectrum.log_mel(spectrum.stft(wave, hop), rate, bands)
    np.testing.assert_allclose(ours, np.log(magnitudes + 0.01).swapaxes(1, 2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("rate", [8_000, RATE, 44_100, 96_000])
@pytest.mark.parametrize("hop", [2, 3, 10, 75, 320, 512])
def test_no_band_is_empty(rate, hop):
    filters = spectrum.mel_filters(rate, hop, 80)
    assert filters.shape[0] == hop + 1 and 1 <= filters.shape[1] <= 80
    assert filters.max(axis=0).min() > 0.1 and filters.min() == 0 and filters.max() <= 1


def test_gradients_of_silence_are_finite():
    def heard(wave):
        spectra = spectrum.stft(wave, 20)
        return spectrum.log_mel(spectra, RATE, 6).sum() + spectrum.compressed(spectra).sum()

    assert np.all(np.isfinite(jax.grad(heard)(jnp.zeros((1, 60)))))
