"""Residual vector quantization of `[b, f, c]`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import Quantizer


class ResidualQuantizer(nn.Module):
    """The codebooks of one half, as in the bundle: levels of the same width are stacked on the first axis."""

    def __init__(self, config: Quantizer, width: int):
        super().__init__()
        self.by_angle = config.kind == "factorised"
        if not config.first_dim or config.first_dim == config.dim:
            self.runs = {"levels": (config.levels, config.dim)}
        else:
            self.runs = {"first": (1, config.first_dim), "rest": (config.levels - 1, config.dim)}
        for run, (levels, dim) in self.runs.items():
            shapes = {"entries": (config.entries, dim or width)}
            if dim:
                shapes |= {"into_kernel": (width, dim), "into_bias": (dim,)}
                shapes |= {"out_kernel": (dim, width), "out_bias": (width,)}
            for name, shape in shapes.items() if levels else ():
                self.register_parameter(f"{run}_{name}", nn.Parameter(torch.randn(levels, *shape)))

    def levels(self) -> list[dict[str, Tensor]]:
        """The tensors of each level, coarse levels first."""
        tensors = dict(self.named_parameters())
        return [
            {name.removeprefix(f"{run}_"): tensor[k] for name, tensor in tensors.items() if name.startswith(run)}
            for run, (count, _) in self.runs.items()
            for k in range(count)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Quantize a latent `[b, f, c]` to codes `[b, k, f]`."""
        residual, codes = x, []
        for level in self.levels():
            z = residual @ level["into_kernel"] + level["into_bias"] if "into_kernel" in level else residual
            codes.append(nearest(z, level["entries"], self.by_angle))
            residual = residual - lookup(codes[-1], level)
        return torch.stack(codes, dim=1)

    def vectors(self, codes: Tensor) -> Tensor:
        """The vectors of codes, summed over levels: `[b, k, f] -> [b, f, c]`, for any k from 1 to all levels."""
        levels = self.levels()
        if not 1 <= codes.shape[1] <= len(levels):
            raise ValueError(f"codes of {codes.shape[1]} levels; this quantizer has 1 to {len(levels)}")
        return sum(lookup(codes[:, k], levels[k]) for k in range(codes.shape[1]))


def nearest(x: Tensor, entries: Tensor, by_angle: bool) -> Tensor:
    """Index of the nearest entry, `[..., d] x [n, d] -> [...]`."""
    if by_angle:
        return torch.argmax(x @ F.normalize(entries, eps=1e-6).T, dim=-1)
    return torch.argmax(x @ entries.T - 0.5 * (entries**2).sum(-1), dim=-1)


def lookup(codes: Tensor, level: dict[str, Tensor]) -> Tensor:
    """The vectors of one level's codes, in the width of the latent: `[...] -> [..., c]`."""
    vectors = F.embedding(codes, level["entries"])
    return vectors @ level["out_kernel"] + level["out_bias"] if "out_kernel" in level else vectors
