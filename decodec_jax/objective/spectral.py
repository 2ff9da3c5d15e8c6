"""Spectrograms, the multi-scale mel distance and the distance of compressed spectra.

The FFT is left to the device it runs on: in jaxlib < 0.12 its partitioner gathers the whole batch, so under a mesh call
these through `jax.shard_map` (training/step.py does).
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.signal import get_window

_EPS = 1e-5  # of magnitudes: the square root is kept from zero, where it has no gradient

# White noise of this RMS, -70 dB of full scale, is what counts as silence, in each band and at each scale. The usual
# floor, one magnitude of 1e-5 for all, is -110 dB at a window of 2048: there the faint rest of a silent clip has
# gradients many times those of speech, and a few such clips drown what the rest of a batch says.
_FLOOR = 3e-4


def stft(wave: Array, window: int) -> Array:
    """Complex spectrogram `[n, t] -> [n, 1 + ceil(4 t / window), window / 2 + 1]`; Hann, hop of a quarter window.

    Frame m is centred on sample m hop, with zeros outside the waveform.
    """
    hop = window // 4
    n, t = wave.shape
    padded = jnp.pad(wave, ((0, 0), (window // 2, window // 2 + -t % hop)))
    blocks = padded.reshape(n, -1, hop)
    count = blocks.shape[1] - 3
    frames = jnp.concatenate([blocks[:, i : i + count] for i in range(4)], axis=-1)
    return jnp.fft.rfft(frames * get_window("hann", window).astype(np.float32))


def magnitudes(wave: Array, window: int) -> Array:
    """Magnitudes of `stft`."""
    spectrum = stft(wave, window)
    return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + _EPS**2)


@lru_cache
def mel_filters(sample_rate: int, window: int, bands: int) -> np.ndarray:
    """Slaney's triangular mel filters, `[window / 2 + 1, bands]`."""
    import librosa  # takes most of a second to import

    return librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bands).T.astype(np.float32)


def log_mel(wave: Array, sample_rate: int, window: int, bands: int) -> Array:
    """log10 of the mel magnitudes of `[n, t]`, floored: `[n, frames, bands]`."""
    filters = mel_filters(sample_rate, window, bands)
    floor = _FLOOR * np.sqrt(np.sum(get_window("hann", window) ** 2)) * filters.sum(0)
    return jnp.log10(jnp.maximum(magnitudes(wave, window) @ filters, floor.astype(np.float32)))


def mel_distance(output: Array, target: Array, sample_rate: int, windows: tuple[int, ...], bands: tuple[int, ...]):
    """Mean absolute difference of the log mel spectrograms of `[n, t]` waveforms, summed over scales: `[n]`."""
    total = 0.0
    for window, count in zip(windows, bands, strict=True):
        difference = log_mel(output, sample_rate, window, count) - log_mel(target, sample_rate, window, count)
        total += jnp.mean(jnp.abs(difference), axis=(1, 2))
    return total


_POWER = 0.3  # what magnitudes are compressed to


def compressed_distance(output: Array, target: Array, windows: tuple[int, ...]) -> Array:
    """Mean distance of spectra whose magnitudes are compressed, `[n, t]` twice to `[n]`, averaged over windows.

    Waveform distances hear what is loudest, some hundred Hz of it, and mel distances no phase. Raised to the power of
    0.3, as enhancement has it (Ephrat and others 2018, section 3.2), what is 40 dB below the loudest still has a
    quarter of its weight. 0.3 of the distance is that of complex spectra, 0.7 that of their magnitudes.
    """
    total = 0.0
    for window in windows:
        norm = np.float32(np.sqrt(np.sum(get_window("hann", window) ** 2)))
        (x, size_x), (y, size_y) = (_compressed(stft(wave, window) / norm) for wave in (output, target))
        apart = jnp.sqrt((x.real - y.real) ** 2 + (x.imag - y.imag) ** 2 + _EPS)
        total += jnp.mean(0.3 * apart + 0.7 * jnp.abs(size_x - size_y), axis=(1, 2))
    return total / len(windows)


def _compressed(spectrum: Array) -> tuple[Array, Array]:
    """A spectrum and its magnitudes, compressed; what is below `_FLOOR` is taken as it is, in proportion."""
    size = spectrum.real**2 + spectrum.imag**2 + _FLOOR**2
    return spectrum * size ** ((_POWER - 1) / 2), size ** (_POWER / 2)
