"""The log mel spectrum: how loud a waveform is at each pitch, whatever its phase.

A product with a fixed matrix, as `jnp.fft` under a mesh may gather the batch.
"""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import conv_down, stream_past

BANDS = 64  # or as many as the window resolves


def log_mel(wave: Array, sample_rate: int, hop: int, past: Array | None = None) -> Array:
    """Log mel powers of a waveform of RMS 1 or so, -1.7 (nothing) to 2 (loud): `[b, f hop, 1]` to `[b, f, bands]`.

    Frame i hears the samples (i - 1) hop to (i + 1) hop, none of a later frame. White noise of RMS 1 has a power of 1
    in each bin.
    past: `[b, hop, 1]`, the samples before `wave`, in place of zeros.
    """
    with jax.default_matmul_precision("highest"):  # what is quiet beside what is loud does not fit bfloat16
        spectrum = conv_down(wave, _fourier(hop), True, past)
        power = spectrum**2 @ np.tile(mel_filters(sample_rate, hop), (2, 1))  # of cosines, and of sines
    return 0.25 * jnp.log(power + 1e-3)


class LogMel(nn.Module):
    """`log_mel` of a whole waveform or of a stream's next piece; it has no parameters."""

    sample_rate: int
    hop: int

    @nn.compact
    def __call__(self, wave: Array) -> Array:
        return log_mel(wave, self.sample_rate, self.hop, stream_past(self, wave, self.hop))


@lru_cache
def _fourier(hop: int) -> np.ndarray:
    """Cosines and sines under a Hann window of unit norm, `[2 hop, 1, 2 (hop + 1)]`."""
    window = np.hanning(2 * hop + 1)[:-1]  # periodic
    phase = np.pi / hop * np.outer(np.arange(2 * hop), np.arange(hop + 1))
    waves = np.hstack([np.cos(phase), np.sin(phase)]) * (window / np.linalg.norm(window))[:, None]
    return np.float32(waves[:, None])


@lru_cache
def mel_filters(sample_rate: int, hop: int) -> np.ndarray:
    """Slaney's triangles, one as high as the next, over a window of two hops: `[hop + 1, bands]`.

    No side of one is narrower than a bin, so that none is empty. librosa has them too, but takes a second to import.
    """
    top = sample_rate / 2
    bands = max(1, min(BANDS, int(_mel(top) / _mel(top / hop)) - 1))
    edges = np.linspace(0, _mel(top), bands + 2)
    edges = np.where(edges < 15, edges * 200 / 3, 1000 * 6.4 ** ((edges - 15) / 27))
    bins, widths = np.linspace(0, top, hop + 1)[:, None], np.diff(edges)
    rising, falling = (bins - edges[:-2]) / widths[:-1], (edges[2:] - bins) / widths[1:]
    return np.float32(np.clip(np.minimum(rising, falling), 0, None))


def _mel(hz: float) -> float:
    """Slaney's scale: 15 mels to 1 kHz, then 27 to 6.4 times as much."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)
