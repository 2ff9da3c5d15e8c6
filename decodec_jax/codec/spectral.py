"""The spectral family: ConvNeXt blocks between an STFT and an inverse STFT, all at the frame rate.

After Vocos (arXiv 2306.00814), whose decoder has the same blocks and head. Frame f of the encoder's STFT covers samples
(f - 1) hop to (f + 1) hop. The decoder turns each frame into two spectra, which it overlaps and adds from sample f hop
on. So the encoder sees one frame ahead of what the decoder plays: `LOOKAHEAD`.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from decodec_jax.codec.layers import BothPasses, Dense, Passes, sine_of_double, sine_squared, stream_past
from decodec_jax.codec.lstm import LSTM
from decodec_jax.codec.spectrum import PARTS, compressed, log_mel, overlap_add, stft, synthesis_frames
from decodec_jax.config import Model

LOOKAHEAD = 1  # frames: the codes of a frame need the samples of the next
SCALE = 0.05  # waveforms are divided by this, to an RMS of about 1
SPECTRUM_SCALE = 0.1  # of spectra: white noise of RMS 1 gets magnitudes of about 1.5
LOUDEST = 5.0  # logarithm of the largest magnitude that the head can make


# --- functions ------------------------------------------------------------------------------------------------------


def taps(x: Array, size: int, causal: bool, past: Array | None) -> Array:
    """Pad `[b, f, c]` to `[b, f + size - 1, c]`: with `past` or zeros in front, and after it too unless causal."""
    if past is not None:
        return jnp.concatenate([past, x], axis=1)
    right = 0 if causal else (size - 1) // 2
    return jnp.pad(x, ((0, 0), (size - 1 - right, right), (0, 0)))


@jax.custom_vjp
def depthwise(padded: Array, kernel: Array) -> Array:
    """Depthwise convolution over time: `[b, f + k - 1, c] x [k, c] -> [b, f, c]`.

    A sum of shifted products, because the library's depthwise convolution is many times slower on CPUs.
    """
    size = kernel.shape[0]
    frames = padded.shape[1] - size + 1
    return sum(padded[:, i : i + frames] * kernel[i] for i in range(size))


def _depthwise_backward(kept: tuple[Array, Array], gradient: Array):
    padded, kernel = kept
    size, frames = kernel.shape[0], gradient.shape[1]
    around = jnp.pad(gradient, ((0, 0), (size - 1, size - 1), (0, 0)))
    for_padded = sum(around[:, i : i + padded.shape[1]] * kernel[size - 1 - i] for i in range(size))

    def of_tap(i: Array) -> Array:
        return jnp.sum(lax.dynamic_slice_in_dim(padded, i, frames, axis=1) * gradient, axis=1)

    # Tap by tap, because a single reduction copies the input for every tap. The sum over the batch comes last, so that
    # devices sum once and not for each tap.
    return for_padded, jnp.sum(lax.map(of_tap, jnp.arange(size)), axis=1)


depthwise.defvjp(lambda padded, kernel: (depthwise(padded, kernel), (padded, kernel)), _depthwise_backward)


@jax.checkpoint
def gelu(x: Array) -> Array:
    """The GELU activation. The backward pass only keeps x, because recomputing is faster than reading memory."""
    return jax.nn.gelu(x)


def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    """Layer normalisation over the last axis."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6) * scale + bias


def features(
    wave: Array, sample_rate: int, hop: int, bands: int, past: Array | None = None, precision: str = "float32"
) -> Array:
    """The encoder's input features: waveform `[b, n hop]` to `[b, n, 2 (hop + 1) + bands]`.

    Real and imaginary parts of the compressed spectrum, and half the log mel magnitudes.
    """
    spectra = SPECTRUM_SCALE / SCALE * stft(wave, hop, past, precision)
    parts = compressed(spectra)
    return jnp.concatenate([parts.reshape(*parts.shape[:2], -1), 0.5 * log_mel(spectra, sample_rate, bands)], axis=-1)


@jax.custom_vjp
def polar(x: Array) -> Array:
    """Log magnitudes and phases to spectra, two per frame: `[b, f, 4 bins]` to `[b, 2 f, 2 bins]`, real, imaginary.

    The gradient is computed from the output. Autodiff would store every term of the series.
    """
    magnitude, phase = _split(x.reshape(x.shape[0], -1, x.shape[-1] // 2))
    size = jnp.exp(jnp.minimum(magnitude - 1, LOUDEST))
    cosine, sine = 1 - 2 * sine_squared(phase / 2), sine_of_double(phase / 2)
    return jnp.concatenate([size * cosine, size * sine], axis=-1)


def _polar_forward(x: Array):
    spectra = polar(x)
    return spectra, (x, spectra)


def _polar_backward(kept: tuple[Array, Array], gradient: Array):
    x, spectra = kept
    (real, imaginary), (for_real, for_imaginary) = _split(spectra), _split(gradient)
    for_magnitude = real * for_real + imaginary * for_imaginary
    for_phase = real * for_imaginary - imaginary * for_real
    magnitude = _split(x.reshape(spectra.shape))[0]
    for_magnitude = jnp.where(magnitude - 1 < LOUDEST, for_magnitude, 0.0)
    return (jnp.concatenate([for_magnitude, for_phase], axis=-1).reshape(x.shape),)


polar.defvjp(_polar_forward, _polar_backward)


def _split(x: Array) -> list[Array]:
    return lax.split(x, [x.shape[-1] // 2] * 2, axis=x.ndim - 1)


# --- modules --------------------------------------------------------------------------------------------------------


class Features(nn.Module):
    """`features` of a whole waveform or of the next piece of a stream, without parameters."""

    sample_rate: int
    hop: int
    bands: int
    precision: str = "float32"

    @nn.compact
    def __call__(self, wave: Array) -> Array:
        past = stream_past(self, wave[..., None], self.hop)
        past = None if past is None else past[..., 0]
        return features(wave, self.sample_rate, self.hop, self.bands, past, self.precision)


class OverlapAdd(nn.Module):
    """`overlap_add` of a whole signal or of the next piece of a stream, without parameters."""

    @nn.compact
    def __call__(self, frames: Array) -> Array:
        return overlap_add(frames, stream_past(self, frames, PARTS - 1))


class LayerNorm(nn.Module):
    """`layer_norm` with its parameters."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1:]
        return layer_norm(x, self.param("scale", nn.initializers.ones, width),
                          self.param("bias", nn.initializers.zeros, width))  # fmt: skip


def _depthwise_start(causal: bool):
    """Initialiser of a depthwise kernel `[k, c]`: noise plus half the current frame."""

    def draw(key: Array, shape: tuple[int, int]) -> Array:
        present = shape[0] - 1 if causal else shape[0] // 2
        return (0.2 * jax.random.normal(key, shape)).at[present].add(0.5)

    return draw


class ConvNeXtBlock(nn.Module):
    """x + scale * (dense(gelu(dense(norm(depthwise(x)))))): `[b, f, c] -> [b, f, c]`."""

    expansion: int
    kernel: int
    causal: bool
    layer_scale: float  # initial
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        kernel = self.param("kernel", _depthwise_start(self.causal), (self.kernel, width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        past = stream_past(self, x, self.kernel - 1) if self.causal else None
        y = depthwise(taps(x, self.kernel, self.causal, past), kernel) + bias
        y = Dense(self.expansion * width, self.precision, name="up")(LayerNorm(name="norm")(y))
        y = Dense(width, self.precision, name="down")(gelu(y))
        return x + self.param("scale", nn.initializers.constant(self.layer_scale), (width,)) * y


def _blocks(config: Model, count: int, remat: bool, precision: str) -> list[ConvNeXtBlock]:
    spectral = config.spectral
    block = nn.remat(ConvNeXtBlock) if remat else ConvNeXtBlock
    scale = 1 / math.sqrt(max(count, 1))
    return [
        block(spectral.expansion, spectral.kernel, config.causal, scale, precision, name=f"block{i}")
        for i in range(count)
    ]


class Encoder(nn.Module):
    """Waveform `[b, n hop]` to `[b, n, latent]`; embedding i belongs to frame i - `LOOKAHEAD`.

    Its stages `front`, `lstm` and `back` can run one by one, as a bidirectional LSTM over a long recording requires.
    """

    config: Model
    remat: bool = False
    precision: str = "float32"

    def setup(self):
        config, spectral = self.config, self.config.spectral
        self.features = Features(config.sample_rate, config.hop, spectral.bands, self.precision)
        self.first = Dense(spectral.width, self.precision)
        self.first_norm = LayerNorm()
        self.blocks = _blocks(config, spectral.encoder_blocks, self.remat, self.precision)
        if spectral.lstm_layers:
            self.lstm = LSTM(spectral.lstm_layers, not config.causal, self.precision)
        self.last_norm = LayerNorm()
        self.last = Dense(config.latent, self.precision)

    def front(self, wave: Array) -> Array:
        """Up to the LSTM: `[b, n hop]` to `[b, n, width]`."""
        x = self.first_norm(self.first(self.features(wave)))
        for block in self.blocks:
            x = block(x)
        return x

    def back(self, x: Array) -> Array:
        """After the LSTM: `[b, n, width]` to `[b, n, latent]`."""
        return self.last(self.last_norm(x))

    def __call__(self, wave: Array) -> Array:
        x = self.front(wave)
        return self.back(self.lstm(x) if self.config.spectral.lstm_layers else x)


class Decoder(nn.Module):
    """`[b, f, latent]` to a float32 waveform `[b, f hop]` in [-1, 1], in stages like the encoder."""

    config: Model
    remat: bool = False
    precision: str = "float32"

    def setup(self):
        config, spectral = self.config, self.config.spectral
        self.first = Dense(spectral.width, self.precision)
        self.first_norm = LayerNorm()
        if spectral.lstm_layers:
            self.lstm = LSTM(spectral.lstm_layers, not config.causal, self.precision)
        self.blocks = _blocks(config, spectral.decoder_blocks, self.remat, self.precision)
        self.last_norm = LayerNorm()
        self.head = Dense(4 * (config.hop + 1), self.precision)
        self.overlap_add = OverlapAdd()

    def front(self, latent: Array) -> Array:
        """Up to the LSTM: `[b, f, latent] -> [b, f, width]`."""
        return self.first_norm(self.first(latent))

    def back(self, x: Array) -> Array:
        """After the LSTM: `[b, f, width]` to a waveform `[b, f hop]`."""
        for block in self.blocks:
            x = block(x)
        frames = synthesis_frames(polar(self.head(self.last_norm(x))), self.precision)
        return jnp.clip(SCALE / SPECTRUM_SCALE * self.overlap_add(frames), -1, 1)

    def __call__(self, latent: Array) -> Array:
        x = self.front(latent)
        return self.back(self.lstm(x) if self.config.spectral.lstm_layers else x)


def passes(config: Model) -> BothPasses:
    """The receptive fields of the stages of a non-causal network, in frames.

    They add up the blocks, the overlap of the STFT's frames, and that of the inverse STFT's.
    """
    spectral = config.spectral
    reach = math.ceil((spectral.kernel - 1) / 2)
    return BothPasses(
        Passes(reach * spectral.encoder_blocks + 1, spectral.lstm_layers, 0),
        Passes(0, spectral.lstm_layers, reach * spectral.decoder_blocks + PARTS // 2),
    )
