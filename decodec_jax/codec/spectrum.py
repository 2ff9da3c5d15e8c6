"""STFT, inverse STFT by overlap-add, and mel filters, for whole waveforms or pieces of a stream.

Analysis uses a Hann window of two hops. Transforms are products with fixed matrices, because `jnp.fft` may gather the
batch under a mesh, and every runtime that a model is exported to can multiply matrices.

The arguments `past` hold what came before a piece of a stream. A stream starts from zeros, which are also the padding
of a whole signal, so a signal gives the same result in pieces as in one.
"""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from decodec_jax.codec.product import product

PARTS = 4  # hops of the inverse transform in a window


def stft(wave: Array, hop: int, past: Array | None = None, precision: str = "float32") -> Array:
    """Spectra `[b, n hop] -> [b, n, 2, hop + 1]` (real, imaginary); frame i covers samples (i - 1) hop to (i + 1) hop.

    past: `[b, hop]`, the samples before `wave`.
    """
    b = wave.shape[0]
    past = jnp.zeros((b, hop), wave.dtype) if past is None else past
    blocks = jnp.concatenate([past, wave], axis=1).reshape(b, -1, hop)
    frames = jnp.concatenate([blocks[:, :-1], blocks[:, 1:]], axis=-1)
    return _transformed(frames, analysis_matrix(2 * hop), precision).reshape(b, -1, 2, hop + 1)


def synthesis_frames(spectra: Array, precision: str = "float32") -> Array:
    """Windowed inverse transforms: `[b, n, w + 2]`, real parts then imaginary, to `[b, n, w + 1]`.

    The last entry is a one. It marks a frame of the signal, unlike the zeros before the start of a stream.
    """
    frames = _transformed(spectra, synthesis_matrix(spectra.shape[-1] - 2), precision)
    return jnp.concatenate([frames, jnp.ones_like(frames[..., :1])], axis=-1)


def _transformed(x: Array, matrix: np.ndarray, precision: str) -> Array:
    with jax.default_matmul_precision("highest"):  # so that float32 stays float32 on accelerators
        return product(x, matrix, precision)


def overlap_add(frames: Array, past: Array | None = None) -> Array:
    """The inverse STFT's sum: `[b, n, w + 1]` of `synthesis_frames` to `[b, n w / 4]`; frame j starts at j w / 4.

    The sum is divided by that of the squared windows of frames within the signal, so that a signal does not fade in.

    past: `[b, PARTS - 1, w + 1]`, the frames before.
    """
    b, n, size = frames.shape
    window, hop = size - 1, (size - 1) // PARTS
    squares = hann(window).reshape(PARTS, hop) ** 2
    if past is None:
        past = jnp.zeros((b, PARTS - 1, size), frames.dtype)
    # splits and pads have cheap gradients; the gradient of a slice is an array of zeros as large as the whole
    *parts, present = lax.split(jnp.concatenate([past, frames], axis=1), (*[hop] * PARTS, 1), axis=2)
    total, weight = 0.0, 0.0
    for part, (samples, square) in enumerate(zip(parts, squares, strict=True)):
        cut = ((0, 0, 0), (part - PARTS + 1, -part, 0), (0, 0, 0))
        total += lax.pad(samples, 0.0, cut)
        weight += lax.pad(present, 0.0, cut) * square
    # only the foot of one window covers the first samples; dividing by its small values would amplify noise
    return (total / jnp.maximum(weight, 0.03)).reshape(b, n * hop)


def compressed(spectra: Array, power: float = 0.3, floor: float = 1e-5) -> Array:
    """Raise the magnitudes of spectra `[..., 2, bins]` to `power`; `floor` is added to squared magnitudes."""
    return spectra * (jnp.sum(spectra**2, axis=-2, keepdims=True) + floor) ** ((power - 1) / 2)


def log_mel(spectra: Array, sample_rate: int, bands: int) -> Array:
    """Logarithms of the mel magnitudes of spectra `[..., 2, bins]`: `[..., bands]`."""
    magnitudes = jnp.sqrt(jnp.sum(spectra**2, axis=-2) + 1e-8)
    return jnp.log(magnitudes @ mel_filters(sample_rate, spectra.shape[-1] - 1, bands) + 0.01)


@lru_cache
def hann(window: int) -> np.ndarray:
    """The periodic Hann window."""
    return np.float32(np.hanning(window + 1)[:-1])


@lru_cache
def hann_norm(window: int) -> np.float32:
    """Length of the Hann window: white noise of RMS 1 has spectra of about this size."""
    return np.linalg.norm(hann(window))


@lru_cache
def analysis_matrix(window: int) -> np.ndarray:
    """The real FFT under a Hann window as a matrix, `[window, 2 (window / 2 + 1)]`: cosines, then negative sines."""
    spectra = np.fft.rfft(np.diag(np.hanning(window + 1)[:-1]))
    return np.float32(np.hstack([spectra.real, spectra.imag]))


@lru_cache
def synthesis_matrix(window: int) -> np.ndarray:
    """The inverse real FFT, windowed, as a matrix `[2 (window / 2 + 1), window]`."""
    bins = window // 2 + 1
    waves = np.vstack([np.fft.irfft(np.eye(bins)), np.fft.irfft(1j * np.eye(bins))])
    return np.float32(waves * np.hanning(window + 1)[:-1])


@lru_cache
def mel_filters(sample_rate: int, hop: int, bands: int) -> np.ndarray:
    """Slaney's mel filters, all of equal height, over the bins of a window of two hops: `[hop + 1, bands]`.

    No filter is empty, because neither of its sides is narrower than a bin. If that leaves no room for `bands` filters,
    there are fewer.
    """
    top = sample_rate / 2
    bands = max(1, min(bands, int(_mel(top) / _mel(top / hop)) - 1))
    return np.float32(mel_triangles(sample_rate, hop + 1, bands)[0])


def mel_triangles(sample_rate: int, bins: int, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """Slaney's mel filters, all of height 1, over the bins of a spectrum, `[bins, bands]`, and their widths in Hz.

    librosa has them too, but takes a second to import.
    """
    top = sample_rate / 2
    edges = np.linspace(0, _mel(top), bands + 2)
    edges = np.where(edges < 15, edges * 200 / 3, 1000 * 6.4 ** ((edges - 15) / 27))
    hertz, sides = np.linspace(0, top, bins)[:, None], np.diff(edges)
    rising, falling = (hertz - edges[:-2]) / sides[:-1], (edges[2:] - hertz) / sides[1:]
    return np.clip(np.minimum(rising, falling), 0, None), edges[2:] - edges[:-2]


def _mel(hz: float) -> float:
    """Slaney's mel scale: linear to 15 mels at 1 kHz, then logarithmic, 27 mels per factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)
