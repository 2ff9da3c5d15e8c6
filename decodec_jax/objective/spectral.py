"""Spectrograms, the multi-scale mel distance and the distance of compressed magnitudes.

Under a mesh, call these functions through `jax.shard_map`, as training/step.py does, so that each device computes its
own FFTs: the partitioner of jaxlib < 0.12 would gather the whole batch.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import Array

from decodec_jax.codec.spectrum import hann, hann_norm, mel_triangles

_EPS = 1e-5  # least magnitude: keeps the square root away from zero, where it has no gradient
_QUIET = 3e-4  # least normalised magnitude, -70 dB: differences below it count less and less


def stft(wave: Array, window: int, overlap: int = 4) -> Array:
    """Complex spectrogram `[n, t] -> [n, 1 + ceil(t / hop), window / 2 + 1]`: Hann window, hop = window / overlap.

    Frame m is centred on sample m * hop; outside the waveform there are zeros.
    """
    hop = window // overlap
    n, t = wave.shape
    padded = jnp.pad(wave, ((0, 0), (window // 2, window // 2 + -t % hop)))
    blocks = padded.reshape(n, -1, hop)
    count = blocks.shape[1] - overlap + 1
    frames = jnp.concatenate([blocks[:, i : i + count] for i in range(overlap)], axis=-1)
    return jnp.fft.rfft(frames * hann(window))


def magnitudes(wave: Array, window: int, overlap: int = 4, eps: float = _EPS) -> Array:
    """Magnitudes of `stft`; silence has the magnitude `eps`."""
    spectrum = stft(wave, window, overlap)
    return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + eps**2)


@lru_cache
def mel_filters(sample_rate: int, window: int, bands: int) -> np.ndarray:
    """Slaney's mel filters, all of equal area, over the bins of a window, `[window / 2 + 1, bands]`."""
    triangles, widths = mel_triangles(sample_rate, window // 2 + 1, bands)
    return np.float32(triangles * 2 / widths)


def log_mel(
    wave: Array, sample_rate: int, window: int, bands: int, floor: float = -70.0, overlap: int = 4
) -> Array:
    """log10 of mel magnitudes, `[n, t] -> [n, frames, bands]`.

    floor: dB of full scale. White noise at this level counts as silence in each band and at each scale: its magnitude
    is added. The usual floor, a magnitude of 1e-5 everywhere, is -110 dB at a window of 2048. With it, the faint
    residue of a silent clip has gradients many times those of speech, and a few such clips drown out the rest of a
    batch.
    """
    filters = mel_filters(sample_rate, window, bands)
    quiet = 10 ** (floor / 20) * hann_norm(window) * filters.sum(0)
    return jnp.log10(magnitudes(wave, window, overlap) @ filters + quiet)


def mel_distance(
    output: Array, target: Array, sample_rate: int, windows: tuple[int, ...], bands: tuple[int, ...],
    floor: float = -70.0, overlap: int = 4,
) -> Array:  # fmt: skip
    """Mean absolute difference of the log mel spectrograms of `[n, t]` waveforms, summed over scales: `[n]`."""
    total = 0.0
    for window, count in zip(windows, bands, strict=True):
        ours, theirs = (log_mel(wave, sample_rate, window, count, floor, overlap) for wave in (output, target))
        total += jnp.mean(jnp.abs(ours - theirs), axis=(1, 2))
    return total


def magnitude_distance(output: Array, target: Array, windows: tuple[int, ...], overlap: int = 4) -> Array:
    """Mean absolute difference of the square roots of magnitudes, averaged over windows: two `[n, t]` to `[n]`.

    The loudest components dominate a waveform distance. With square roots, a component 40 dB below the loudest still
    has a tenth of its weight. Magnitudes are divided by the window's norm, so that white noise of RMS 1 has magnitudes
    of about 1.
    """
    total = 0.0
    for window in windows:
        norm = hann_norm(window)  # divides magnitudes, not waves, so that `mel_distance` can share the spectra
        ours, theirs = (
            jnp.sqrt(magnitudes(wave, window, overlap, _QUIET * norm) / norm) for wave in (output, target)
        )  # fmt: skip
        total += jnp.mean(jnp.abs(ours - theirs), axis=(1, 2))
    return total / len(windows)
