import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from scipy.signal import get_window

from decodec_jax.codec.encoder import SCALE
from decodec_jax.codec.mel import log_mel, mel_filters
from decodec_jax.testing import background_clips, speech_clips

RATE, HOP = 16_000, 320  # of every variant
SILENCE = 0.25 * np.log(1e-3)


def heard(wave, rate=RATE, hop=HOP):
    """`[b, t] -> [b, f, bands]`, as a network hears it."""
    return np.asarray(log_mel(wave[..., None] / SCALE, rate, hop))


@pytest.mark.parametrize(("rate", "hop", "bands"), [(RATE, HOP, 64), (RATE, 20, 6), (48_000, HOP, 53)])
def test_it_is_that_of_librosa(rate, hop, bands):
    wave = (speech_clips(2, 10 * hop, sample_rate=rate) + background_clips(2, 10 * hop)) / SCALE
    power = librosa.feature.melspectrogram(
        y=np.pad(wave, ((0, 0), (hop, 0))), sr=rate, n_fft=2 * hop, hop_length=hop, center=False, n_mels=bands,
        norm=None,
    )  # fmt: skip
    expected = 0.25 * np.log(power / np.sum(get_window("hann", 2 * hop) ** 2) + 1e-3).swapaxes(1, 2)
    np.testing.assert_allclose(heard(wave * SCALE, rate, hop), expected, atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, RATE, 44_100, 96_000])
@pytest.mark.parametrize("hop", [2, 3, 10, 75, HOP, 512])
def test_no_band_is_empty(rate, hop):
    filters = mel_filters(rate, hop)
    assert filters.shape[0] == hop + 1 and 1 <= filters.shape[1] <= 64
    assert filters.max(axis=0).min() > 0.1 and filters.min() == 0 and filters.max() <= 1


def test_silence_and_loud_speech_are_of_the_size_of_other_features():
    assert np.all(heard(np.zeros((1, HOP), np.float32)) == np.float32(SILENCE))
    loud = 10 ** (-16 / 20) * speech_clips(4, 16_000) / np.std(speech_clips(4, 16_000))  # dB of full scale
    assert 1.5 < heard(loud).max() < 2.5


def test_a_steady_tone_is_steady():
    """The power of a coefficient of a block transform would come and go with the phase."""
    tone = 0.1 * np.sin(2 * np.pi * 443 / RATE * np.arange(50 * HOP, dtype=np.float32))
    loudest = heard(tone[None])[0, 1:].max(axis=1)
    assert loudest.min() > 1 and np.ptp(loudest) < 0.01


def test_gradients_of_silence_are_finite():
    gradient = jax.grad(lambda wave: log_mel(wave, RATE, HOP).sum())(jnp.zeros((1, 2 * HOP, 1)))
    assert np.all(gradient == 0)
