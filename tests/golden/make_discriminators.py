"""Writes discriminators.npz beside this file: what discriminators written in PyTorch give, for the tests to match.

Run once, in an environment of its own, as no test needs torch:

    python3.11 -m venv venv && venv/bin/pip install torch==2.13.0 numpy scipy julius==0.2.8
    venv/bin/python tests/golden/make_discriminators.py

Names and layouts are decodec_jax's. Waves, parameters and cotangents are not stored: `draw` makes them of their names.
Of each case: `logitsK` and `featureK_L` of the K-th sub-discriminator; `grad/wave`, the gradient of the sum of all of
these, each times its cotangent `pull/...`; and `grad/PARAMETER` likewise.
"""

import math
import zlib
from itertools import pairwise
from pathlib import Path

import julius
import numpy as np
import torch
from scipy.signal import get_window
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def draw(name: str, *shape: int) -> np.ndarray:
    """Normal values seeded by the name, about 1 for gains and about 0 for all else."""
    values = 0.3 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return (values + name.endswith("gain")).astype(np.float32)


class Layers(nn.Module):
    """Weight-normalised convolutions by name; `kernel_axes` order torch's filters `[d, c, ...]` as `[..., c, d]`."""

    def __init__(self, prefix: str, kernel_axes: tuple[int, ...]):
        super().__init__()
        self.prefix, self.kernel_axes = prefix, kernel_axes
        self.convs = nn.ModuleDict()

    def add(self, name: str, conv: nn.Module) -> nn.Module:
        shape = np.transpose(conv.weight.detach().numpy(), self.kernel_axes).shape
        weight_norm(conv)
        raw = conv.parametrizations.weight
        path = f"{self.prefix}/{name}"
        direction = draw(f"{path}/direction", *shape).transpose(np.argsort(self.kernel_axes))
        raw.original1.data = torch.from_numpy(np.ascontiguousarray(direction))
        raw.original0.data = torch.from_numpy(draw(f"{path}/gain", shape[-1])).view_as(raw.original0)
        conv.bias.data = torch.from_numpy(draw(f"{path}/bias", shape[-1]))
        self.convs[name] = conv
        return conv

    def gradients(self) -> dict[str, np.ndarray]:
        found = {}
        for name, conv in self.convs.items():
            path, raw = f"grad/{self.prefix}/{name}", conv.parametrizations.weight
            found[f"{path}/direction"] = raw.original1.grad.numpy().transpose(self.kernel_axes)
            found[f"{path}/gain"] = raw.original0.grad.numpy().reshape(-1)
            found[f"{path}/bias"] = conv.bias.grad.numpy()
        return found


class Period(Layers):
    """As in descript-audio-codec: `[b, 1, t]` folded to `[b, 1, t / period, period]`."""

    def __init__(self, period: int, widths: tuple[int, ...]):
        super().__init__(f"period{period}", (3, 2, 1, 0))
        self.period = period
        for i, (c, d) in enumerate(pairwise((1, *widths))):
            stride = 3 if i < len(widths) - 1 else 1
            self.add(f"conv{i}", nn.Conv2d(c, d, (5, 1), (stride, 1), padding=(2, 0)))
        self.add("last", nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, x):
        x = F.pad(x, (0, self.period - x.shape[-1] % self.period), mode="reflect")
        x = x.reshape(x.shape[0], 1, -1, self.period)
        maps = []
        for name, conv in self.convs.items():
            x = conv(x) if name == "last" else F.leaky_relu(conv(x), 0.1)
            maps.append(x.permute(0, 3, 2, 1))
        return maps


class Scale(Layers):
    """As in descript-audio-codec: the resampled waveform through grouped convolutions."""

    def __init__(self, rate: int, widths: tuple[int, ...]):
        super().__init__(f"rate{rate}", (2, 1, 0))
        self.resample = julius.ResampleFrac(rate, 1)
        self.add("conv0", nn.Conv1d(1, widths[0], 15, padding=7))
        for i, (c, d) in enumerate(pairwise(widths[:-1]), start=1):
            self.add(f"conv{i}", nn.Conv1d(c, d, 41, 4, groups=c // 4, padding=20))
        self.add(f"conv{len(widths) - 1}", nn.Conv1d(widths[-2], widths[-1], 5, padding=2))
        self.add("last", nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, x):
        x = self.resample(x)
        maps = []
        for name, conv in self.convs.items():
            x = conv(x) if name == "last" else F.leaky_relu(conv(x), 0.1)
            maps.append(x.permute(0, 2, 1)[:, None])
        return maps

    def gradients(self):
        return {k: v[None] if k.endswith("direction") else v for k, v in super().gradients().items()}


class Bands(Layers):
    """As in descript-audio-codec: each band of a centred STFT whose first and last two frames are dropped."""

    def __init__(self, window: int, edges: tuple[float, ...], d: int):
        super().__init__(f"bands{window}", (2, 3, 1, 0))
        self.window = window
        self.edges = [int(edge * (window // 2 + 1)) for edge in edges]
        for i in range(len(edges) - 1):
            for j, (c, width, stride) in enumerate(((2, 9, 1), (d, 9, 2), (d, 9, 2), (d, 9, 2), (d, 3, 1))):
                conv = nn.Conv2d(c, d, (3, width), (1, stride), padding=(1, width // 2))
                self.add(f"band{i}_conv{j}", conv)
        self.add("last", nn.Conv2d(d, 1, 3, padding=1))

    def forward(self, x):
        w, hop, t = self.window, self.window // 4, x.shape[-1]
        missing = math.ceil(t / hop) * hop - t
        x = F.pad(x, ((w - hop) // 2, (w - hop) // 2 + missing), mode="reflect")
        hann = torch.from_numpy(get_window("hann", w)).float()
        spectrum = torch.stft(x[:, 0], w, hop, window=hann, center=True, return_complex=True)[..., 2:-2]
        spectrum = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
        maps, ends = [], []
        for i, (low, high) in enumerate(pairwise(self.edges)):
            band = spectrum[..., low:high]
            for j in range(5):
                band = F.leaky_relu(self.convs[f"band{i}_conv{j}"](band), 0.1)
                maps.append(band.permute(0, 2, 3, 1))
            ends.append(band)
        return [*maps, self.convs["last"](torch.cat(ends, -1)).permute(0, 2, 3, 1)]


class STFT(Layers):
    """As in encodec, but for weight norm in the first layer too: the whole STFT, dilated in time, no padding."""

    def __init__(self, window: int, d: int):
        super().__init__(f"stft{window}", (2, 3, 1, 0))
        self.window = window
        self.add("conv0", nn.Conv2d(2, d, (3, 9), padding=(1, 4)))
        for i, dilation in enumerate((1, 2, 4), start=1):
            conv = nn.Conv2d(d, d, (3, 9), (1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            self.add(f"conv{i}", conv)
        self.add("conv4", nn.Conv2d(d, d, 3, padding=1))
        self.add("last", nn.Conv2d(d, 1, 3, padding=1))

    def forward(self, x):
        hann = torch.hann_window(self.window)
        spectrum = torch.stft(
            x[:, 0], self.window, self.window // 4, window=hann, center=False, return_complex=True
        ) / hann.pow(2).sum().sqrt()  # fmt: skip
        x = torch.stack([spectrum.real, spectrum.imag], 1).transpose(2, 3)
        maps = []
        for name, conv in self.convs.items():
            x = conv(x) if name == "last" else F.leaky_relu(conv(x), 0.2)
            maps.append(x.permute(0, 2, 3, 1))
        return maps


def normalise(x):
    x = x - x.mean(-1, keepdim=True)
    return 0.8 * x / (x.abs().amax(-1, keepdim=True) + 1e-9)


def cases():
    """(name, samples, whether level and DC are taken out, sub-discriminators)."""
    yield "period odd", 301, True, [Period(3, (4, 6, 8, 8, 8))]
    yield "period even", 288, True, [Period(2, (4, 6)), Period(3, (4, 6))]
    yield "rate odd", 301, True, [Scale(2, (4, 8, 16, 12))]
    yield "bands odd", 301, True, [Bands(64, (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), 3)]
    yield "bands even", 288, True, [Bands(64, (0.0, 1.0), 3)]
    yield "stft odd", 301, False, [STFT(64, 3)]


def main() -> None:
    arrays = {}
    for name, samples, levelled, discriminators in cases():
        wave = torch.from_numpy(draw("wave", 2, samples)).requires_grad_()
        x = normalise(wave[:, None]) if levelled else wave[:, None]
        case, total = {}, 0.0
        for k, discriminator in enumerate(discriminators):
            *features, logits = discriminator(x)
            named = {f"logits{k}": logits[..., 0]} | {f"feature{k}_{i}": map for i, map in enumerate(features)}
            total += sum((torch.from_numpy(draw(f"pull/{key}", *map.shape)) * map).sum() for key, map in named.items())
            case |= named
        total.backward()
        case = {key: map.detach().numpy() for key, map in case.items()} | {"grad/wave": wave.grad.numpy()}
        for discriminator in discriminators:
            case |= discriminator.gradients()
        arrays |= {f"{name}/{key}": value for key, value in case.items()}
    np.savez_compressed(Path(__file__).parent / "discriminators.npz", **arrays)


if __name__ == "__main__":
    main()
