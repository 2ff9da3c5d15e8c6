"""Waveform to embedding: DAC's strided convolution stack, the paper's LSTM, one last convolution."""

from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import LSTM, Conv, Down, ResidualUnit, Snake, fold
from decodec_jax.config import Model

# Of full scale, roughly: inside, the network has signals of power one. The factor is fixed, as a gain this small would be
# learned badly: each of Adam's steps, of one size for all parameters, would be a large part of it.
SPEECH_RMS = 0.05


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
        x = fold((wave[..., None] / SPEECH_RMS).astype(config.dtype), config.patch)
        x = Conv(config.channels, config.kernel, config.causal, name="first")(x)
        for i, stride in enumerate(config.strides):
            x = EncoderBlock(config, stride, name=f"block{i}")(x)
        if config.lstm_layers:
            x = LSTM(config.lstm_layers, bidirectional=not config.causal, name="lstm")(x)
        return Conv(config.latent, 3, config.causal, name="last")(Snake(name="snake")(x))
