"""A teacher's targets that need no weights: cepstra in context, normalised within the clip.

They do not replace HuBERT if its weights are available. But these features tell phones better than the spectrum that
they are made of, and speakers much worse, which is what the first level needs.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.fft import dct

from decodec_jax.codec.spectrum import analysis_matrix
from decodec_jax.objective.spectral import mel_filters

SAMPLE_RATE = 16_000
HOP = 320  # samples per frame, the codec's

STEP = HOP // 2  # a spectrum every 10 ms, two a frame
WINDOW = 3 * STEP  # 30 ms, centred on its step
BANDS = 40
COEFFICIENTS = 13
CONTEXT = 12  # spectra around the middle of a frame, 120 ms
SHAPES = 3  # per coefficient over the context: mean, slope and curvature
WIDTH = SHAPES * COEFFICIENTS
RANGE = 1e-7  # 70 dB below the loudest band of the clip: anything quieter is the room, not the voice
FLOOR = 1e-10  # of band powers; digital silence is normal
EPS = 1e-3  # of variances: a dimension that does not vary is zero


@lru_cache
def _cosines(points: int, functions: int) -> np.ndarray:
    """The first functions of the orthonormal DCT-II, `[points, functions]`."""
    return np.float32(dct(np.eye(points), axis=1, norm="ortho")[:, :functions])


def cepstra(wave: Array) -> Array:
    """Cepstra in context: `[b, t]` at 16 kHz to `[b, ceil(t / 320), 39]`, zero mean and unit variance over the clip.

    13 DCT coefficients of 40 log mel powers every 10 ms; then 3 coefficients (mean, slope, curvature) of each over the
    120 ms around a frame's middle. Normalisation removes all that is constant in a clip: level, channel, much of the
    voice. Silence gives zeros.

    The Fourier transform is a product with a matrix: `jnp.fft` under a mesh may gather the batch.
    """
    return normalised(in_context(wave))


def _coefficients(wave: Array) -> Array:
    """`[b, t] -> [b, 2 ceil(t / 320), 13]`, each centred on its 10 ms; zeros beyond the clip's ends."""
    b, t = wave.shape
    steps = 2 * -(-t // HOP)
    blocks = jnp.pad(wave, ((0, 0), (STEP, steps * STEP - t + STEP))).reshape(b, steps + 2, STEP)
    windows = jnp.concatenate([blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:]], axis=-1)
    real, imaginary = jnp.split(windows @ analysis_matrix(WINDOW), 2, axis=-1)
    power = (real**2 + imaginary**2) @ mel_filters(SAMPLE_RATE, WINDOW, BANDS)
    floor = RANGE * jnp.max(power, axis=(1, 2), keepdims=True) + FLOOR
    return jnp.log1p(power / floor) @ _cosines(BANDS, COEFFICIENTS)


def in_context(wave: Array) -> Array:
    """`cepstra` before normalisation; the first and last spectra continue beyond the ends of a clip."""
    with jax.default_matmul_precision("highest"):  # products in bfloat16 cannot cover a range of 70 dB
        coefficients = _coefficients(wave)
        b, steps, _ = coefficients.shape
        reach = CONTEXT // 2 - 1
        padded = jnp.pad(coefficients, ((0, 0), (reach, reach), (0, 0)), mode="edge")
        course = jnp.stack([padded[:, i : i + steps - 1 : 2] for i in range(CONTEXT)], axis=-1)
        return (course @ _cosines(CONTEXT, SHAPES)).reshape(b, steps // 2, WIDTH)


def normalised(x: Array) -> Array:
    """Zero mean and unit variance over frames, `[b, f, w]` of numpy or JAX; zero where nothing varies."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / ((centred**2).mean(axis=1, keepdims=True) + EPS) ** 0.5
