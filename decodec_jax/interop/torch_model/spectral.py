"""The spectral family: ConvNeXt blocks between an STFT and an inverse STFT, all at the frame rate.

Frames are `[b, n, c]`. The codes of a frame need the samples of the next one, so in a stream they come one frame late.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import Model
from .layers import Chain, Stream, margins
from .lstm import LSTM
from .spectrum import STFT, InverseSTFT, compressed, mel_filters, product

LOOKAHEAD = 1  # frames by which codes come late in a stream
SCALE = 0.05  # of waveforms; inside the network they have an RMS of about 1
SPECTRUM_SCALE = 0.1  # of spectra inside the network
LOUDEST = 5.0  # logarithm of the largest magnitude that the head can produce


class Features(nn.Module):
    """The encoder's input features of a waveform: `[b, n hop]` to `[b, n, features]`.

    Real and imaginary parts of the compressed spectrum, and half the log mel magnitudes.
    """

    def __init__(self, config: Model):
        super().__init__()
        self.stft = STFT(config.hop)
        filters = mel_filters(config.sample_rate, config.hop, config.spectral.bands)
        self.register_buffer("filters", filters, persistent=False)
        self.width = 2 * (config.hop + 1) + filters.shape[1]

    def forward(self, wave: Tensor, stream: Stream | None = None) -> Tensor:
        spectra = SPECTRUM_SCALE / SCALE * self.stft(wave, stream)
        magnitudes = torch.sqrt((spectra**2).sum(-2) + 1e-8)
        log_mel = torch.log(product(magnitudes, self.filters) + 0.01)
        return torch.cat([compressed(spectra).flatten(-2), 0.5 * log_mel], dim=-1)


class Depthwise(nn.Conv1d):
    """A convolution over time of each channel separately, `[b, n, c] -> [b, n, c]`.

    It runs as a Conv2d over images with a single row, whose channels may be last in memory. On CPUs, forward and
    backward passes take half to two thirds of the time of Conv1d.
    """

    def __init__(self, width: int, kernel: int, causal: bool):
        super().__init__(width, width, kernel, groups=width)
        self.zeros = margins(kernel - 1, causal)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        past, after = self.zeros
        x = stream.prepend(x.transpose(1, 2), past) if stream else F.pad(x, (0, 0, past, after)).transpose(1, 2)
        y = F.conv2d(x.unsqueeze(2), self.weight.unsqueeze(2), self.bias, groups=self.groups)
        return y.squeeze(2).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """x + scale * dense(gelu(dense(norm(depthwise(x))))): `[b, n, c] -> [b, n, c]`."""

    def __init__(self, config: Model):
        super().__init__()
        width, inside = config.spectral.width, config.spectral.expansion * config.spectral.width
        self.depthwise = Depthwise(width, config.spectral.kernel, config.causal)
        self.norm = norm(width)
        self.up, self.down = nn.Linear(width, inside), nn.Linear(inside, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.norm(self.depthwise(x, stream))
        return x + self.scale * self.down(F.gelu(self.up(y), approximate="tanh"))


def norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


def blocks(count: int, config: Model) -> Chain:
    return Chain(*(ConvNeXtBlock(config) for _ in range(count)))


def lstm(config: Model) -> LSTM | None:
    layers = config.spectral.lstm_layers
    return LSTM(config.spectral.width, layers, config.causal) if layers else None


class Encoder(nn.Module):
    """`[b, n hop]` waveform to `[b, n, latent]`; embedding i is that of frame i - `LOOKAHEAD`."""

    def __init__(self, config: Model):
        super().__init__()
        spectral = config.spectral
        self.features = Features(config)
        self.first, self.first_norm = nn.Linear(self.features.width, spectral.width), norm(spectral.width)
        self.blocks = blocks(spectral.encoder_blocks, config)
        self.lstm = lstm(config)
        self.last_norm, self.last = norm(spectral.width), nn.Linear(spectral.width, config.latent)

    def forward(self, wave: Tensor, stream: Stream | None = None) -> Tensor:
        x = self.first_norm(self.first(self.features(wave, stream)))
        x = self.blocks(x, stream)
        if self.lstm is not None:
            x = self.lstm(x.transpose(1, 2), stream).transpose(1, 2)
        return self.last(self.last_norm(x))


class Decoder(nn.Module):
    """`[b, f, latent]` embedding to `[b, f hop]` waveform in [-1, 1]."""

    def __init__(self, config: Model):
        super().__init__()
        spectral = config.spectral
        self.first, self.first_norm = nn.Linear(config.latent, spectral.width), norm(spectral.width)
        self.lstm = lstm(config)
        self.blocks = blocks(spectral.decoder_blocks, config)
        self.last_norm, self.head = norm(spectral.width), nn.Linear(spectral.width, 4 * (config.hop + 1))
        self.inverse = InverseSTFT(2 * config.hop)

    def forward(self, embedding: Tensor, stream: Stream | None = None) -> Tensor:
        x = self.first_norm(self.first(embedding))
        if self.lstm is not None:
            x = self.lstm(x.transpose(1, 2), stream).transpose(1, 2)
        x = self.blocks(x, stream)
        wave = SCALE / SPECTRUM_SCALE * self.inverse(polar(self.head(self.last_norm(x)).float()), stream)
        return wave.clamp(-1, 1)


def polar(x: Tensor) -> Tensor:
    """Spectra from log magnitudes and phases: `[b, f, 4 bins]` to two spectra per frame, `[b, 2 f, 2, bins]`."""
    magnitude, phase = x.unflatten(-1, (2, 2, -1)).flatten(1, 2).unbind(2)
    size = torch.exp((magnitude - 1).clamp(max=LOUDEST))
    return torch.stack([size * phase.cos(), size * phase.sin()], dim=2)
