"""Convolutions, Snake and the residual unit, channels first, `[b, c, n]`, and the state of streams.

The layers are based on torch's own. Where torch's padding options are not enough, for odd strides and for the causal
network, which pads on one side only, the layer itself pads or trims.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

State = tuple[Tensor, ...]  # tensors that layers keep between pieces of a stream, in the order in which layers run


class Stream:
    """The state of a stream during one pass through a causal network.

    Each layer takes from `before` the tensor that it added to `after` for the previous piece. At the start of a stream
    there is none, and the layer uses zeros, which are also the padding of a whole signal. So pieces give the same
    result as the whole.
    """

    def __init__(self, state: State):
        self.before, self.after = iter(state), []

    def prepend(self, x: Tensor, steps: int) -> Tensor:
        """Prepend the `steps` steps before x: `[b, c, n] -> [b, c, steps + n]`."""
        if not steps:
            return x
        past = next(self.before, None)
        x = torch.cat([x.new_zeros(*x.shape[:2], steps) if past is None else past, x], dim=-1)
        self.after.append(x[..., -steps:])
        return x


def margins(reach: int, causal: bool) -> tuple[int, int]:
    """The numbers of zeros (left, right) with which a convolution keeps the length; its kernel spans `reach` + 1."""
    right = 0 if causal else reach // 2
    return reach - right, right


def padded(x: Tensor, zeros: tuple[int, int], stream: Stream | None) -> Tensor:
    """x `[b, c, n]`, padded with (left, right) zeros or, in a stream, preceded by the previous `left` steps."""
    return stream.prepend(x, zeros[0]) if stream else F.pad(x, zeros)


class Chain(nn.Sequential):
    """A sequence of layers, each called with the stream, if there is one."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in self:
            x = layer(x, stream)
        return x


class Conv(nn.Conv1d):
    """A weight-normalised Conv1d with (left, right) zeros of padding; torch's own padding is the same on both sides."""

    def __init__(self, inputs: int, outputs: int, kernel: int, zeros: tuple[int, int], stride=1, dilation=1):
        super().__init__(inputs, outputs, kernel, stride, dilation=dilation)
        self.zeros = zeros
        weight_norm(self)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return super().forward(padded(x, self.zeros, stream))


def same(inputs: int, outputs: int, kernel: int, causal: bool, dilation: int = 1) -> Conv:
    """A convolution that keeps the length."""
    return Conv(inputs, outputs, kernel, margins((kernel - 1) * dilation, causal), dilation=dilation)


def down(inputs: int, outputs: int, stride: int, causal: bool) -> Conv:
    """A downsampling convolution, `[b, c, n stride] -> [b, d, n]`, also for odd strides."""
    left = stride if causal else (stride + 1) // 2
    return Conv(inputs, outputs, 2 * stride, (left, stride - left), stride)


class Up(nn.ConvTranspose1d):
    """A weight-normalised ConvTranspose1d, `[b, c, n] -> [b, d, n stride]`, also for odd strides.

    torch's `padding` would trim both sides equally. Without it, the output has n + 1 strides, of which this layer trims
    one. In a stream, the step before x overlaps the first stride of x.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, causal: bool):
        super().__init__(inputs, outputs, 2 * stride, stride)
        self.left = 0 if causal else (stride + 1) // 2
        weight_norm(self)  # as in torch's default, gains belong to the input channels

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        stride, length = self.stride[0], x.shape[-1] * self.stride[0]
        if stream:
            return super().forward(stream.prepend(x, 1))[..., stride : stride + length]
        return super().forward(x)[..., self.left : self.left + length]


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, with one alpha per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, _: Stream | None = None) -> Tensor:
        alpha = self.alpha[:, None]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)


class ResidualUnit(Chain):
    """x + conv1(snake(conv_k(snake(x)))), the inner convolution dilated."""

    def __init__(self, channels: int, kernel: int, dilation: int, causal: bool):
        super().__init__(OrderedDict(
            snake1=Snake(channels),
            dilated=same(channels, channels, kernel, causal, dilation),
            snake2=Snake(channels),
            pointwise=same(channels, channels, 1, causal),
        ))  # fmt: skip

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return x + super().forward(x, stream)
