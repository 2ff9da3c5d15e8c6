"""Writes layers.npz beside this file: what PyTorch's own layers give, values and gradients, for the tests to match.

Run once, in an environment of its own, as no test needs torch:

    python3.11 -m venv venv && venv/bin/pip install torch==2.13.0 numpy && venv/bin/python tests/golden/make.py

Every array keeps torch's name and layout. Of each case: the parameters; `x`; `output`; `pull`, a random cotangent; and
`grad/NAME`, the gradient of sum(output * pull) with respect to x and to each parameter.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

DILATIONS = (1, 3, 9)
STRIDES = (2, 3, 4, 5, 8)


class Snake(nn.Module):
    """As in descript-audio-codec: x + sin(alpha x)^2 / (alpha + 1e-9), `[b, c, t]`."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(0.5 + torch.rand(1, channels, 1))

    def forward(self, x):
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)


class ResidualUnit(nn.Module):
    """As in descript-audio-codec."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.snake1, self.snake2 = Snake(channels), Snake(channels)
        self.dilated = weight_norm(nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation))
        self.pointwise = weight_norm(nn.Conv1d(channels, channels, 1))

    def forward(self, x):
        return x + self.pointwise(self.snake2(self.dilated(self.snake1(x))))


class SkipLSTM(nn.LSTM):
    """As in encodec: the output of all layers plus the input; here `[b, f, c]`."""

    def forward(self, x):
        return super().forward(x)[0] + x


def cases():
    """(name, module, shape of its input)."""
    for d in DILATIONS:
        conv = nn.Conv1d(3, 4, 7, dilation=d, padding=3 * d)
        yield f"conv_dilation{d}", weight_norm(conv), (2, 3, 33)
    for s in STRIDES:
        half = math.ceil(s / 2)
        yield f"down{s}", weight_norm(nn.Conv1d(3, 4, 2 * s, stride=s, padding=half)), (2, 3, 5 * s)
        up = nn.ConvTranspose1d(3, 4, 2 * s, stride=s, padding=half, output_padding=s % 2)
        yield f"up{s}", weight_norm(up), (2, 3, 5)
    yield "residual_unit", ResidualUnit(4, dilation=3), (2, 4, 30)
    yield "lstm", SkipLSTM(6, 6, num_layers=2, batch_first=True), (2, 7, 6)
    yield "bilstm", SkipLSTM(6, 3, num_layers=2, batch_first=True, bidirectional=True), (2, 7, 6)


def main() -> None:
    torch.manual_seed(0)
    arrays = {}
    for name, module, shape in cases():
        for parameter in module.parameters():  # weight norm starts with gains equal to the norms: move them apart
            parameter.data += 0.1 * torch.randn_like(parameter)
        x = torch.randn(shape, requires_grad=True)
        output = module(x)
        pull = torch.randn_like(output)
        (output * pull).sum().backward()
        case = {"x": x, "output": output, "pull": pull, "grad/x": x.grad}
        for key, parameter in module.named_parameters():
            case |= {key: parameter, f"grad/{key}": parameter.grad}
        arrays |= {f"{name}/{key}": value.detach().numpy() for key, value in case.items()}
    np.savez_compressed(Path(__file__).parent / "layers.npz", **arrays)


if __name__ == "__main__":
    main()
