"""STFT, inverse STFT by overlap-add, and mel filters, for waveforms that may come in pieces.

Transforms are products with fixed matrices, because every runtime that models are exported to supports those. In a
stream, the stream keeps what came before a piece. It begins with zeros, which are also the padding of a whole signal,
so the pieces together give the same result as the whole.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Stream, padded

PARTS = 4  # hops per window of the inverse transform


class STFT(nn.Module):
    """Spectra `[b, n hop] -> [b, n, 2, hop + 1]` (real, imaginary); frame i covers samples (i - 1) to (i + 1) hop.

    The window is a Hann window of two hops.
    """

    def __init__(self, hop: int):
        super().__init__()
        self.hop = hop
        self.register_buffer("analysis", analysis_matrix(2 * hop), persistent=False)

    def forward(self, wave: Tensor, stream: Stream | None = None) -> Tensor:
        blocks = padded(wave[:, None], (self.hop, 0), stream)[:, 0].unflatten(-1, (-1, self.hop))
        frames = torch.cat([blocks[:, :-1], blocks[:, 1:]], dim=-1)
        return product(frames, self.analysis).unflatten(-1, (2, -1))


class InverseSTFT(nn.Module):
    """Overlap-add of windowed inverse transforms: `[b, n, 2, w / 2 + 1] -> [b, n w / 4]`, frame j from j w / 4 on.

    The sum is divided by the sum of the squared windows of the frames present, so that a signal does not fade in.
    """

    def __init__(self, window: int):
        super().__init__()
        self.register_buffer("synthesis", synthesis_matrix(window), persistent=False)
        self.register_buffer("squares", (hann(window) ** 2).float().unflatten(0, (PARTS, -1)), persistent=False)

    def forward(self, spectra: Tensor, stream: Stream | None = None) -> Tensor:
        frames = product(spectra.flatten(-2), self.synthesis)
        frames = F.pad(frames, (0, 1), value=1.0)  # the extra 1 marks that a frame is present
        sizes = [self.squares.shape[1]] * PARTS + [1]
        *parts, present = padded(frames.transpose(1, 2), (PARTS - 1, 0), stream).transpose(1, 2).split(sizes, dim=-1)
        total, weight = 0.0, 0.0
        for i, (samples, squares) in enumerate(zip(parts, self.squares, strict=True)):
            here = slice(PARTS - 1 - i, PARTS - 1 - i + frames.shape[1])
            total = total + samples[:, here]
            weight = weight + present[:, here] * squares
        # the first samples lie under the edge of a single window, and dividing by so small a value would amplify noise
        return (total / weight.clamp(min=0.03)).flatten(1)


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """`[..., c] x [c, d] -> [..., d]` in the matrix's own precision, regardless of `torch.autocast`."""
    return (x.to(matrix.dtype) @ matrix).to(matrix.dtype)


def compressed(spectra: Tensor, power: float = 0.3, floor: float = 1e-5) -> Tensor:
    """Spectra `[..., 2, bins]` whose magnitudes are raised to `power`; `floor` is added to squared magnitudes."""
    return spectra * ((spectra**2).sum(-2, keepdim=True) + floor) ** ((power - 1) / 2)


def hann(window: int) -> Tensor:
    """The periodic Hann window, float64."""
    return torch.hann_window(window, dtype=torch.float64)


def waves(window: int) -> Tensor:
    """Cosines and negative sines of the frequencies of a real FFT: `[2, window / 2 + 1, window]`, float64."""
    turns = torch.outer(torch.arange(window // 2 + 1), torch.arange(window)) % window
    phase = 2 * math.pi / window * turns.double()
    return torch.stack([phase.cos(), -phase.sin()])


def analysis_matrix(window: int) -> Tensor:
    """The real FFT under a Hann window as a matrix, `[window, 2 (window / 2 + 1)]`: real parts, then imaginary."""
    return (waves(window) * hann(window)).flatten(0, 1).T.float().contiguous()


def synthesis_matrix(window: int) -> Tensor:
    """The inverse real FFT followed by a Hann window, as a matrix `[2 (window / 2 + 1), window]`."""
    share = torch.full((window // 2 + 1, 1), 2.0 / window, dtype=torch.float64)
    share[[0, -1]] /= 2  # the lowest and the highest frequency have no mirror image
    return (waves(window) * share * hann(window)).flatten(0, 1).float()


def mel_filters(sample_rate: int, hop: int, bands: int) -> Tensor:
    """Slaney's triangles, all of equal height, over the bins of a window of two hops: `[hop + 1, bands]`.

    No side of a triangle is narrower than a bin. If `bands` would need that, there are fewer bands.
    """

    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)

    top = sample_rate / 2
    bands = max(1, min(bands, int(mel(top) / mel(top / hop)) - 1))
    edges = torch.linspace(0, mel(top), bands + 2, dtype=torch.float64)
    edges = torch.where(edges < 15, edges * 200 / 3, 1000 * 6.4 ** ((edges - 15) / 27))
    bins, widths = torch.linspace(0, top, hop + 1, dtype=torch.float64)[:, None], edges.diff()
    rising, falling = (bins - edges[:-2]) / widths[:-1], (edges[2:] - bins) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0).float()
