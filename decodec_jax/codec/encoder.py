"""Waveform to embedding: DAC's strided convolution stack, the paper's LSTM, one last convolution."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import LSTM, Conv, Down, ResidualUnit, Snake, fold
from decodec_jax.codec.mel import LogMel
from decodec_jax.config import Model

# Waveforms are divided by this on their way in and multiplied by it on their way out: speech, of an RMS of 0.05 or so,
# has one of 1 inside, where the Snakes of residual units are far from linear (those that carry the waveform begin with
# small alphas, see start.py). The factor is fixed, as a gain far below one is learned badly: each of Adam's steps, of
# one size for all parameters, is a large part of it.
SCALE = 0.05


def unheard(config: Model) -> int:
    """How many of the channels that `Encoder.front` gives its LSTM lets pass unheard."""
    return config.channels * 2 ** len(config.strides) if config.mask else 0


class EncoderBlock(nn.Module):
    """Residual units, then downsampling by `stride` to twice the channels: `[b, t, c] -> [b, t / stride, 2c]`."""

    config: Model
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        for i, dilation in enumerate(self.config.dilations):
            x = ResidualUnit(self.config.kernel, dilation, self.config.causal, name=f"unit{i}")(x)
        return Down(2 * channels, self.stride, self.config.causal, name="down")(Snake(name="snake")(x))


class Encoder(nn.Module):
    """`[b, f hop]` waveform to `[b, f, latent]` embedding (paper section 1, "Encoder / decoder").

    In three stages, since a bidirectional LSTM over a long recording needs passes of its own: `front`, `lstm`, `back`.

    With `mask` every element of the embedding is multiplied by one of 0..1, as in Conv-TasNet, so that either half can
    let go of the other's sound. Sums of filters find that hard to learn: what is to be kept depends on how loud things
    are, now and before. So the LSTM hears the log mel spectrum of the waveform, and nothing else: filters' outputs jump
    with the phase of what is heard. The mask is made of what it makes of that, and the waveform's channels are told.
    """

    config: Model
    remat: bool = False  # keep no activations of the blocks for the backward pass, which computes them again

    def setup(self):
        config = self.config
        block = nn.remat(EncoderBlock) if self.remat else EncoderBlock
        self.first = Conv(config.channels, config.kernel, config.causal)
        self.blocks = [block(config, s, name=f"block{i}") for i, s in enumerate(config.strides)]
        if config.lstm_layers:
            self.lstm = LSTM(config.lstm_layers, not config.causal, unheard=unheard(config))
        if config.mask:
            self.mel = LogMel(config.sample_rate, config.hop)
            channels = unheard(config)
            self.loudness = Conv(channels, 1, config.causal)
            self.told = Conv(channels, 1, config.causal, gain=0.3)
            self.mask = Conv(config.latent, 1, config.causal, gain=0.3)
        self.snake = Snake()
        self.last = Conv(config.latent, 3, config.causal)

    def front(self, wave: Array) -> Array:
        """What the LSTM hears: `[b, f hop]` waveform to `[b, f, c]`, or with `mask` c channels and c that it hears."""
        wave = wave[..., None] / SCALE
        x = self.first(fold(wave.astype(self.config.dtype), self.config.patch))
        for block in self.blocks:
            x = block(x)
        if not self.config.mask:
            return x
        return jnp.concatenate([x, self.loudness(self.mel(wave).astype(x.dtype))], axis=-1)

    def back(self, x: Array) -> Array:
        """What becomes of the LSTM's output: `[b, f, c]`, or with `mask` `[b, f, 2c]`, to `[b, f, latent]`."""
        if not self.config.mask:
            return self.last(self.snake(x))
        x, made = jnp.split(x, 2, axis=-1)
        return self.last(self.snake(x + self.told(made))) * jax.nn.sigmoid(self.mask(made))

    def __call__(self, wave: Array) -> Array:
        x = self.front(wave)
        return self.back(self.lstm(x) if self.config.lstm_layers else x)
