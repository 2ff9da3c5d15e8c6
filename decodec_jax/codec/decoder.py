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
    """`[b, f, latent]` to a float32 waveform `[b, f hop]` in [-1, 1], in stages as the encoder."""

    config: Model
    remat: bool = False

    def setup(self):
        config = self.config
        block = nn.remat(DecoderBlock) if self.remat else DecoderBlock
        self.first = Conv(config.decoder_channels, config.kernel, config.causal)
        if config.lstm_layers and config.decoder_lstm:
            self.lstm = LSTM(config.lstm_layers, bidirectional=not config.causal)
        self.blocks = [block(config, s, name=f"block{i}") for i, s in enumerate(reversed(config.strides))]
        self.snake = Snake()
        self.last = Conv(config.patch, config.kernel, config.causal)

    def front(self, latent: Array) -> Array:
        """What the LSTM hears: `[b, f, latent] -> [b, f, c]`."""
        return self.first(latent.astype(self.config.dtype))

    def back(self, x: Array) -> Array:
        """What becomes of the LSTM's output: `[b, f, c]` to a waveform `[b, f hop]`."""
        for block in self.blocks:
            x = block(x)
        x = unfold(self.last(self.snake(x)), self.config.patch)
        return jnp.tanh(SCALE * x[..., 0].astype(jnp.float32))

    def __call__(self, latent: Array) -> Array:
        x = self.front(latent)
        return self.back(self.lstm(x) if self.config.lstm_layers and self.config.decoder_lstm else x)
