"""The paper's family: DAC's strided convolution stacks with the paper's LSTM, from samples to frames and back."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import BothPasses, Conv, Down, Passes, ResidualUnit, Snake, Up
from decodec_jax.codec.lstm import LSTM
from decodec_jax.config import Model

LOOKAHEAD = 0  # frames: a causal network of this family sees nothing of the next frame

# The encoder divides waveforms by this and the decoder multiplies by it, so that speech, with an RMS of about 0.05, has
# an RMS of about 1 inside the network. The factor is fixed, because Adam learns a gain far below one badly: its steps
# have the same size for all parameters, which is a large part of such a gain.
SCALE = 0.05


def _units(config: Model, precision: str) -> list[ResidualUnit]:
    """The residual units of a block, one for each dilation."""
    stack = config.waveform
    return [
        ResidualUnit(stack.kernel, dilation, config.causal, precision, name=f"unit{i}")
        for i, dilation in enumerate(stack.dilations)
    ]


class EncoderBlock(nn.Module):
    """Residual units, then downsampling by `stride` to twice the channels: `[b, t, c] -> [b, t / stride, 2c]`."""

    config: Model
    stride: int
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for unit in _units(self.config, self.precision):
            x = unit(x)
        down = Down(2 * x.shape[-1], self.stride, self.config.causal, self.precision, name="down")
        return down(Snake(name="snake")(x))


class DecoderBlock(nn.Module):
    """Upsampling by `stride` to half the channels, then residual units: `[b, n, c] -> [b, n stride, c / 2]`."""

    config: Model
    stride: int
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        up = Up(x.shape[-1] // 2, self.stride, self.config.causal, self.precision, name="up")
        x = up(Snake(name="snake")(x))
        for unit in _units(self.config, self.precision):
            x = unit(x)
        return x


class Encoder(nn.Module):
    """`[b, f hop]` waveform to `[b, f, latent]` embedding (paper section 1, "Encoder / decoder").

    In three stages, since a bidirectional LSTM over a long recording needs passes of its own: `front`, `lstm`, `back`.
    """

    config: Model
    remat: bool = False  # recompute the activations of blocks in the backward pass instead of storing them
    precision: str = "float32"

    def setup(self):
        stack, causal, precision = self.config.waveform, self.config.causal, self.precision
        block = nn.remat(EncoderBlock) if self.remat else EncoderBlock
        self.first = Conv(stack.channels, stack.kernel, causal, precision=precision)
        self.blocks = [block(self.config, s, precision, name=f"block{i}") for i, s in enumerate(stack.strides)]
        if stack.lstm_layers:
            self.lstm = LSTM(stack.lstm_layers, not causal, precision)
        self.snake = Snake()
        self.last = Conv(self.config.latent, 3, causal, precision=precision)

    def front(self, wave: Array) -> Array:
        """Up to the LSTM: `[b, f hop]` waveform to `[b, f, c]`."""
        x = self.first(wave[..., None] / SCALE)
        for block in self.blocks:
            x = block(x)
        return x

    def back(self, x: Array) -> Array:
        """After the LSTM: `[b, f, c]` to `[b, f, latent]`."""
        return self.last(self.snake(x))

    def __call__(self, wave: Array) -> Array:
        x = self.front(wave)
        return self.back(self.lstm(x) if self.config.waveform.lstm_layers else x)


class Decoder(nn.Module):
    """`[b, f, latent]` to a float32 waveform `[b, f hop]` in [-1, 1]: the mirror of the encoder, in stages."""

    config: Model
    remat: bool = False
    precision: str = "float32"

    def setup(self):
        stack, causal, precision = self.config.waveform, self.config.causal, self.precision
        block = nn.remat(DecoderBlock) if self.remat else DecoderBlock
        self.first = Conv(stack.decoder_channels, stack.kernel, causal, precision=precision)
        if stack.lstm_layers and stack.decoder_lstm:
            self.lstm = LSTM(stack.lstm_layers, not causal, precision)
        strides = enumerate(reversed(stack.strides))
        self.blocks = [block(self.config, s, precision, name=f"block{i}") for i, s in strides]
        self.snake = Snake()
        self.last = Conv(1, stack.kernel, causal, precision=precision)

    def front(self, latent: Array) -> Array:
        """Up to the LSTM: `[b, f, latent] -> [b, f, c]`."""
        return self.first(latent)

    def back(self, x: Array) -> Array:
        """After the LSTM: `[b, f, c]` to a waveform `[b, f hop]`."""
        for block in self.blocks:
            x = block(x)
        return jnp.tanh(SCALE * self.last(self.snake(x))[..., 0])

    def __call__(self, latent: Array) -> Array:
        x = self.front(latent)
        stack = self.config.waveform
        return self.back(self.lstm(x) if stack.lstm_layers and stack.decoder_lstm else x)


def passes(config: Model) -> BothPasses:
    """The receptive fields of the stages of a non-causal network, in frames.

    From the finest rate to the coarsest: the outermost convolution, then in each block the residual units and the
    change of rate.
    """
    stack = config.waveform

    def reach(dilation: int) -> int:
        return math.ceil((stack.kernel - 1) * dilation / 2)

    heard, step = reach(1), 1  # samples
    for stride in stack.strides:
        heard += step * (sum(map(reach, stack.dilations)) + math.ceil(stride / 2))
        step *= stride
    frames = math.ceil(heard / step)
    decoder_layers = stack.lstm_layers if stack.decoder_lstm else 0
    return BothPasses(Passes(frames, stack.lstm_layers, 1), Passes(reach(1), decoder_layers, frames))
