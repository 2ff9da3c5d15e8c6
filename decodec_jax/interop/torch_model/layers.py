"""Convolutions, Snake, the residual unit, channels first: `[b, c, n]`; and streams.

Layers are torch's own. Where their padding cannot say what the network needs, the layer pads or trims itself: strides
may be odd, and the causal network pads on one side only.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

State = tuple[Tensor, ...]  # what layers keep between two pieces of a stream, in the order in which they run


class Stream:
    """A state on its way through a causal network: each layer takes from `before` what it left there a piece ago.

    Where nothing is left a stream begins, with zeros, the padding of a whole signal: so pieces give what the whole
    gives.
    """

    def __init__(self, state: State):
        self.before, self.after = iter(state), []

    def prepend(self, x: Tensor, steps: int) -> Tensor:
        """x with the `steps` before it, `[b, c, n] -> [b, c, steps + n]`."""
        if not steps:
            return x
        past = next(self.before, None)
        x = torch.cat([x.new_zeros(*x.shape[:2], steps) if past is None else past, x], dim=-1)
        self.after.append(x[..., -steps:])
        return x


def margins(reach: int, causal: bool) -> tuple[int, int]:
    """Zeros on the left and on the right with which a convolution keeps the length; its kernel spans `reach` + 1."""
    right = 0 if causal else reach // 2
    return reach - right, right


def padded(x: Tensor, zeros: tuple[int, int], stream: Stream | None) -> Tensor:
    """x `[b, c, n]` between its margins of zeros or, in a stream, after the steps before it."""
    return stream.prepend(x, zeros[0]) if stream else F.pad(x, zeros)


class Chain(nn.Sequential):
    """Layers one after the other; each is told of the stream, if there is one."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in self:
            x = layer(x, stream)
        return x


class Conv(nn.Conv1d):
    """Weight-normalised Conv1d with margins of (left, right) zeros; torch's own padding puts as many on either side."""

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
    """`[b, c, n stride] -> [b, d, n]` for odd strides too."""
    left = stride if causal else (stride + 1) // 2
    return Conv(inputs, outputs, 2 * stride, (left, stride - left), stride)


class Up(nn.ConvTranspose1d):
    """Weight-normalised ConvTranspose1d, `[b, c, n] -> [b, d, n stride]` for odd strides too.

    torch's `padding` trims both sides alike; of the n + 1 strides it makes without, one is trimmed off here. In a
    stream the step before x overlaps x's first stride.
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
    """x + sin(alpha x)^2 / alpha, with one alpha a channel."""

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
