"""Whisper's encoder (Radford et al. 2022): log mel spectrum, two convolutions, transformer layers, 50 frames a second.

interop/whisper.py reads its weights, objective/teacher.py makes it a teacher.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from decodec_jax.codec.spectrum import analysis_matrix
from decodec_jax.objective.cepstra import HOP, SAMPLE_RATE
from decodec_jax.objective.spectral import mel_filters
from decodec_jax.objective.transformer import gelu, layers, norm

STEP = HOP // 2  # samples from one spectrum to the next, 10 ms
WINDOW = 400  # samples of a spectrum, 25 ms
RANGE = 8.0  # of log10 powers, below the loudest band of a clip; quieter ones are raised to it
FLOOR = 1e-10  # of band powers


@dataclass(frozen=True)
class WhisperSizes:
    """Of the encoder; the defaults are those of Whisper tiny."""

    bands: int = 80  # of the mel spectrum
    width: int = 384
    layers: int = 4
    heads: int = 6
    feed_forward: int = 1536
    positions: int = 1500  # most frames, 30 s
    final: bool = True  # whether the last layer is Whisper's last, whose output is normalised for the decoder


def log_mel(wave: Array, bands: int) -> Array:
    """Whisper's log mel spectrum of `[b, t]` at 16 kHz, t whole steps of 160: `[b, t / 160, bands]`.

    Spectrum j is centred on sample 160 j; a clip is mirrored beyond its ends. The Fourier transform is a product with a
    matrix: `jnp.fft` under a mesh may gather the batch.
    """
    b, t = wave.shape
    part = STEP // 2  # five are a window, two are a step
    padded = jnp.pad(wave, ((0, 0), (WINDOW // 2, WINDOW // 2)), mode="reflect").reshape(b, -1, part)
    count = t // STEP
    windows = jnp.concatenate([padded[:, i : i + 2 * count : 2] for i in range(WINDOW // part)], axis=-1)
    with jax.default_matmul_precision("highest"):  # products in bfloat16 cannot cover a range of 80 dB
        real, imaginary = jnp.split(windows @ analysis_matrix(WINDOW), 2, axis=-1)
        power = (real**2 + imaginary**2) @ mel_filters(SAMPLE_RATE, WINDOW, bands)
    level = jnp.log10(jnp.maximum(power, FLOOR))
    return jnp.maximum(level, jnp.max(level, axis=(1, 2), keepdims=True) - RANGE) / 4 + 1


class Whisper(nn.Module):
    """The encoder: a log mel spectrum `[b, 2 f, bands]` of at most `positions` frames to `[layers + 1, b, f, w]`.

    These are the first layer's input and the output of each layer. The layers' parameters are stacked.
    """

    sizes: WhisperSizes
    precision: str = "float32"  # of the layers' products, see codec/product.py

    @nn.compact
    def __call__(self, mel: Array) -> Array:
        sizes = self.sizes
        x = gelu(nn.Conv(sizes.width, (3,), padding=1, name="conv1")(mel))
        x = gelu(nn.Conv(sizes.width, (3,), 2, padding=1, name="conv2")(x))
        positions = self.param("positions", nn.initializers.normal(0.02), (sizes.positions, sizes.width))
        x = x + positions[: x.shape[1]]
        last, each = layers(sizes.layers, sizes.heads, sizes.feed_forward, True, self.precision)(x, None)
        if sizes.final:
            last = norm(name="norm")(last)
        return jnp.concatenate([x[None], each[:-1], last[None]])
