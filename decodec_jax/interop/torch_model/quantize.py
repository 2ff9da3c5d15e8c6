"""Residual vector quantization of `[b, f, c]`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import Quantizer


class ResidualQuantizer(nn.Module):
    """The codebooks of one half, as in the bundle: levels of the same width are stacked on the first axis.

    Each run of levels codes some dimensions of the latent: "levels" all of them, or "first" some and "rest" the others.
    """

    def __init__(self, config: Quantizer, width: int):
        super().__init__()
        self.by_angle, self.beam = config.kind == "factorised", config.beam
        self.width, own = width, config.first_dim
        if own:
            self.runs = {"first": (1, 0, own), "rest": (config.levels - 1, config.dim, width - own)}
        else:
            self.runs = {"levels": (config.levels, config.dim, width)}
        for run, (levels, dim, width) in self.runs.items():
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
            for run, (count, _, _) in self.runs.items()
            for k in range(count)
        ]

    def begins(self) -> list[int]:
        """The first of the dimensions that each level codes."""
        return [self._begin(run) for run, (count, _, _) in self.runs.items() for _ in range(count)]

    def _begin(self, run: str) -> int:
        return self.runs["first"][2] if run == "rest" else 0

    def forward(self, x: Tensor) -> Tensor:
        """Quantize a latent `[b, f, c]` to codes `[b, k, f]`."""
        if self.beam > 1:
            return torch.cat([self._searched(x, run) for run in self.runs], dim=1)
        residual, codes = x, []
        for k, (level, begin) in enumerate(zip(self.levels(), self.begins(), strict=True)):
            z = residual[..., begin : begin + self._coded(level)]
            z = z @ level["into_kernel"] + level["into_bias"] if "into_kernel" in level else z
            codes.append(nearest(z, level["entries"], self.by_angle))
            residual = residual - self.of_level(codes[-1], k)
        return torch.stack(codes, dim=1)

    def _searched(self, x: Tensor, run: str) -> Tensor:
        """The codes of one run of levels, `[b, k, f]`."""
        entries, begin = getattr(self, f"{run}_entries"), self._begin(run)
        return search(x[..., begin : begin + entries.shape[-1]], entries, self.beam)

    def of_level(self, codes: Tensor, k: int) -> Tensor:
        """The vectors of the codes of level k, zeros in the dimensions that it does not code: `[...] -> [..., c]`."""
        level, begin = self.levels()[k], self.begins()[k]
        return F.pad(lookup(codes, level), (begin, self.width - begin - self._coded(level)))

    def vectors(self, codes: Tensor) -> Tensor:
        """The vectors of codes, summed over levels: `[b, k, f] -> [b, f, c]`, for any k from 1 to all levels."""
        count = len(self.levels())
        if not 1 <= codes.shape[1] <= count:
            raise ValueError(f"codes of {codes.shape[1]} levels; this quantizer has 1 to {count}")
        return sum(self.of_level(codes[:, k], k) for k in range(codes.shape[1]))

    @staticmethod
    def _coded(level: dict[str, Tensor]) -> int:
        return level["into_kernel"].shape[0] if "into_kernel" in level else level["entries"].shape[1]


def nearest(x: Tensor, entries: Tensor, by_angle: bool) -> Tensor:
    """Index of the nearest entry, `[..., d] x [n, d] -> [...]`."""
    if by_angle:
        return torch.argmax(x @ F.normalize(entries, eps=1e-6).T, dim=-1)
    return torch.argmax(x @ entries.T - 0.5 * (entries**2).sum(-1), dim=-1)


def search(x: Tensor, entries: Tensor, beam: int) -> Tensor:
    """Codes of `[b, f, d]` by all levels together, `[k, n, d]` entries `-> [b, k, f]`: a beam search.

    From level to level it keeps the `beam` sequences of codes whose sums are nearest to x.
    """
    levels, count = len(entries), int(entries.shape[1])  # an int, because a traced shape is a tensor
    residual, score, codes = x.unsqueeze(2), torch.zeros(1, 1, 1, device=x.device), None

    def follow(a: Tensor, before: Tensor) -> Tensor:
        return torch.gather(a, 2, before.unsqueeze(-1).expand(-1, -1, -1, a.shape[-1]))

    for k in range(levels):
        gain = residual @ entries[k].T - 0.5 * (entries[k] ** 2).sum(-1)
        kept = 1 if k == levels - 1 else min(beam, count ** (k + 1))
        score, chosen = torch.topk((score.unsqueeze(-1) + gain).flatten(2), kept)
        before, code = torch.div(chosen, count, rounding_mode="floor"), chosen % count
        residual = follow(residual, before) - F.embedding(code, entries[k])
        code = code.unsqueeze(-1)
        codes = code if codes is None else torch.cat([follow(codes, before), code], dim=-1)
    return codes[:, :, 0].transpose(1, 2)


def lookup(codes: Tensor, level: dict[str, Tensor]) -> Tensor:
    """The vectors of one level's codes, in the dimensions that it codes: `[...] -> [..., d]`."""
    vectors = F.embedding(codes, level["entries"])
    return vectors @ level["out_kernel"] + level["out_bias"] if "out_kernel" in level else vectors
