"""Embedding to waveform: the encoder's mirror, transposed convolutions with the strides reversed."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from decodec_jax.codec.encoder import SCALE
from decodec_jax.codec.layers import LSTM, Conv, ResidualUnit, Snake, Up, unfold
from decodec_jax.config import Model


class DecoderBlock(nn.Module):
    """Upsampling by `stride` to half the channels, then residual units: `[b, n, c] -> [b, n stride, c / 2]`."""

    config: Model
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Up(x.shape[-1] // 2, self.stride, self.config.causal, name="up")(Snake(name="snake")(x))
        for i, dilation in enumerate(self.config.dilations):
            x = ResidualUnit(self.config.kernel, dilation, self.config.causal, name=f"unit{i}")(x)
        return x


class Decoder(nn.Module):
    """`[b, f, latent]` to a float32 waveform `[b, f hop]` in [-1, 1]."""

    config: Model

    @nn.compact
    def __call__(self, latent: Array) -> Array:
        config = self.config
        x = Conv(config.decoder_channels, config.kernel, config.causal, name="first")(latent.astype(config.dtype))
        if config.lstm_layers and config.decoder_lstm:
            x = LSTM(config.lstm_layers, bidirectional=not config.causal, name="lstm")(x)
        for i, stride in enumerate(reversed(config.strides)):
            x = DecoderBlock(config, stride, name=f"block{i}")(x)
        x = Conv(config.patch, config.kernel, config.causal, name="last")(Snake(name="snake")(x))
        return jnp.tanh(SCALE * unfold(x, config.patch)[..., 0].astype(jnp.float32))
