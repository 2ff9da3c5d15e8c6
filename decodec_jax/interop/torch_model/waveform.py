"""The paper's family: strided convolutions with an LSTM, from samples to frames and back."""

from collections import OrderedDict

import torch
from torch import Tensor

from .config import Model
from .layers import Chain, ResidualUnit, Snake, Stream, Up, down, same
from .lstm import LSTM

LOOKAHEAD = 0  # frames by which codes come late in a stream
SCALE = 0.05  # input waveforms are divided by this, output waveforms are multiplied by it


def units(channels: int, config: Model) -> OrderedDict:
    """The residual units of a block, by name."""
    kernel, dilations = config.waveform.kernel, config.waveform.dilations
    return OrderedDict((f"unit{i}", ResidualUnit(channels, kernel, d, config.causal)) for i, d in enumerate(dilations))


class Encoder(Chain):
    """`[b, f hop]` waveform to `[b, f, latent]` embedding."""

    def __init__(self, config: Model):
        stack, causal = config.waveform, config.causal
        channels = stack.channels
        layers = OrderedDict(first=same(1, channels, stack.kernel, causal))
        for i, stride in enumerate(stack.strides):
            block = units(channels, config)
            block |= {"snake": Snake(channels), "down": down(channels, 2 * channels, stride, causal)}
            layers[f"block{i}"] = Chain(block)
            channels *= 2
        if stack.lstm_layers:
            layers["lstm"] = LSTM(channels, stack.lstm_layers, causal)
        super().__init__(layers | {"snake": Snake(channels), "last": same(channels, config.latent, 3, causal)})

    def forward(self, wave: Tensor, stream: Stream | None = None) -> Tensor:
        return super().forward((wave / SCALE)[:, None], stream).transpose(1, 2)


class Decoder(Chain):
    """`[b, f, latent]` embedding to `[b, f hop]` waveform in [-1, 1]."""

    def __init__(self, config: Model):
        stack, causal = config.waveform, config.causal
        channels = stack.decoder_channels
        layers = OrderedDict(first=same(config.latent, channels, stack.kernel, causal))
        if stack.lstm_layers and stack.decoder_lstm:
            layers["lstm"] = LSTM(channels, stack.lstm_layers, causal)
        for i, stride in enumerate(reversed(stack.strides)):
            block = OrderedDict(snake=Snake(channels), up=Up(channels, channels // 2, stride, causal))
            channels //= 2
            layers[f"block{i}"] = Chain(block | units(channels, config))
        super().__init__(layers | {"snake": Snake(channels), "last": same(channels, 1, stack.kernel, causal)})

    def forward(self, embedding: Tensor, stream: Stream | None = None) -> Tensor:
        return torch.tanh(SCALE * super().forward(embedding.transpose(1, 2), stream)[:, 0])
