"""Waveform to embedding: DAC's strided convolution stack, the paper's LSTM, one last convolution."""

from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import LSTM, Conv, Down, ResidualUnit, Snake, fold
from decodec_jax.config import Model

# Waveforms are divided by this on their way in and multiplied by it on their way out. Speech, of an RMS of 0.05 or so,
# has one of 0.1 inside, where Snake is nearly linear: a network that begins so finds waveforms sooner than one in which
# Snakes make noise of larger signals. The factor is fixed, as a gain far below one is learned badly: each of Adam's
# steps, of one size for all parameters, is a large part of it.
SCALE = 0.5


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
    """`[b, f hop]` waveform to `[b, f, latent]` embedding (paper section 1, "Encoder / decoder")."""

    config: Model

    @nn.compact
    def __call__(self, wave: Array) -> Array:
        config = self.config
        x = fold((wave[..., None] / SCALE).astype(config.dtype), config.patch)
        x = Conv(config.channels, config.kernel, config.causal, name="first")(x)
        for i, stride in enumerate(config.strides):
            x = EncoderBlock(config, stride, name=f"block{i}")(x)
        if config.lstm_layers:
            x = LSTM(config.lstm_layers, bidirectional=not config.causal, name="lstm")(x)
        return Conv(config.latent, 3, config.causal, name="last")(Snake(name="snake")(x))
