"""The codec: encode, project, quantize, decode; what of a mixture is speech and what background; streams."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import spectral, waveform
from .config import Model
from .layers import State, Stream
from .projection import Projection
from .quantize import ResidualQuantizer

FAMILIES = {"waveform": waveform, "spectral": spectral}  # each has an Encoder, a Decoder and LOOKAHEAD


class TakenApart(NamedTuple):
    """Waveforms `[b, t]` and codes `[b, k, f]` of a mixture."""

    mixture: Tensor  # reconstruction
    speech: Tensor
    background: Tensor
    codes: tuple[Tensor, Tensor]  # of speech and background


class DeCodec(nn.Module):
    """The codec. Waveforms are `[b, t]` in [-1, 1] of any t >= 1; codes int64 `[b, k, f]`, f = ceil(t / hop) frames."""

    def __init__(self, config: Model, step: int = 0):
        super().__init__()
        family = FAMILIES[config.family]
        self.config = config
        self.step = step  # training steps behind the weights
        self.lookahead: int = family.LOOKAHEAD  # frames by which the codes of `encode_step` come late
        self.encoder = family.Encoder(config)
        self.projection = Projection(config)
        self.speech_quantizer = ResidualQuantizer(config.speech, config.half)
        self.background_quantizer = ResidualQuantizer(config.background, config.half)
        self.decoder = family.Decoder(config)
        if config.semantic:
            self.semantic_projection = nn.Linear(config.half, config.semantic)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> "DeCodec":
        """The model in a local folder that `decodec export` or `save_pretrained` wrote, in eval mode on `device`.

        Nothing is downloaded. Raises FileNotFoundError if the folder is not a bundle, and ValueError, naming the
        tensors, if any is missing, unknown, of another shape or changed.
        """
        from .bundle import load  # which imports this file

        return load(cls, folder).to(device).eval()

    def save_pretrained(self, folder: str | Path) -> str:
        """Write a bundle that JAX and `from_pretrained` load; returns its fingerprint.

        Raises ValueError, naming the tensors, if a bundle of this config lacks any or has no place for it.
        """
        from .bundle import save

        return save(self, folder)

    def embed(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """The speech and background halves of the embedding, before quantizing: `[b, t] -> [b, f, half]` twice."""
        silence = -wave.shape[-1] % self.config.hop + self.lookahead * self.config.hop
        return self.projection(self.encoder(F.pad(wave, (0, silence)))[:, self.lookahead :])

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Speech and background codes."""
        return self.quantize(*self.embed(wave))

    def decode(self, speech: Tensor, background: Tensor, length: int) -> Tensor:
        """The first `length` samples of what the codes stand for; either half may have fewer levels than all."""
        return self.decoder(self.vectors(speech, background))[:, :length]

    def quantize(self, speech: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of both halves of the embedding: `[b, f, half] -> [b, k, f]` twice."""
        return self.speech_quantizer(speech), self.background_quantizer(background)

    def vectors(self, speech: Tensor, background: Tensor) -> Tensor:
        """The decoder's input: what the codes of both halves stand for, joined, `[b, f, latent]`."""
        halves = self.speech_quantizer.vectors(speech), self.background_quantizer.vectors(background)
        return self.projection.joined(*halves)

    def encode_step(self, state: State, wave: Tensor) -> tuple[State, tuple[Tensor, Tensor]]:
        """A stream's state after its next frames, `[b, n hop]`, and their speech and background codes, `[b, k, n]`.

        The codes are those of frames `lookahead` earlier: so many at a stream's start belong to no frame, and as many
        frames of silence after its end bring the last.

        state: what the step before returned; () begins a stream, and so do zeros of a state's shapes. Raises
        ValueError for a part of a frame, or if the model is not causal.
        """
        if wave.shape[-1] % self.config.hop:
            raise ValueError(f"{wave.shape[-1]} samples are not a whole number of frames of {self.config.hop}")
        stream = self._stream(state)
        codes = self.quantize(*self.projection(self.encoder(wave, stream)))
        return tuple(stream.after), codes

    def decode_step(self, state: State, speech: Tensor, background: Tensor) -> tuple[State, Tensor]:
        """A stream's state after the next frames' codes, `[b, k, n]` twice, and their samples `[b, n hop]`.

        state and errors: as of `encode_step`, whose states are others.
        """
        stream = self._stream(state)
        wave = self.decoder(self.vectors(speech, background), stream)
        return tuple(stream.after), wave

    def _stream(self, state: State) -> Stream:
        if not self.config.causal:
            raise ValueError("this model is not causal: it codes no frame before it has heard the whole recording")
        return Stream(state)

    def semantic(self, speech: Tensor) -> Tensor:
        """The teacher's features as the first speech level has them, `[b, k, f] -> [b, f, config.semantic]`."""
        return self.semantic_projection(self.speech_quantizer.vectors(speech[:, :1]))

    def forward(self, wave: Tensor) -> Tensor:
        """The recording through the codec."""
        return self.decode(*self.encode(wave), wave.shape[-1])

    def enhance(self, wave: Tensor) -> Tensor:
        """The speech alone: the background's codes are those of silence as long."""
        (speech, _), (_, blank) = self._encode_beside_silence(wave)
        return self.decode(speech, blank, wave.shape[-1])

    def background(self, wave: Tensor) -> Tensor:
        """The background alone: the speech's codes are those of silence as long."""
        (_, background), (blank, _) = self._encode_beside_silence(wave)
        return self.decode(blank, background, wave.shape[-1])

    def take_apart(self, wave: Tensor) -> TakenApart:
        """A mixture and its parts, each through the quantizers."""
        codes, blank = self._encode_beside_silence(wave)
        pairs = codes, (codes[0], blank[1]), (blank[0], codes[1])
        return TakenApart(*(self.decode(*pair, wave.shape[-1]) for pair in pairs), codes)

    def _encode_beside_silence(self, wave: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        both = self.encode(torch.cat([wave, torch.zeros_like(wave[:1])]))
        return tuple(codes[:-1] for codes in both), tuple(codes[-1:].expand_as(codes[:-1]) for codes in both)
