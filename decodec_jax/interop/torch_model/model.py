"""The codec: encoding, projection, quantization and decoding, separation of mixtures, and streaming."""

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
    """A decoded mixture and its parts, waveforms `[b, t]`, and the codes `[b, k, f]` of the mixture."""

    mixture: Tensor  # the reconstruction
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
            self.semantic_projection = nn.Linear(config.speech.first_dim or config.half, config.semantic)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> "DeCodec":
        """Load the model in a local folder written by `decodec export` or `save_pretrained`, in eval mode on `device`.

        Nothing is downloaded. Raises FileNotFoundError if the folder is not a bundle, and ValueError if tensors are
        missing, unknown, of another shape (it names them) or changed.
        """
        from .bundle import load  # not at the top, because it imports this file

        return load(cls, folder).to(device).eval()

    def save_pretrained(self, folder: str | Path) -> str:
        """Write a bundle that the JAX package and `from_pretrained` can load, and return its fingerprint.

        Raises ValueError, naming the tensors, if the model's tensors are not those of a bundle with this config.
        """
        from .bundle import save

        return save(self, folder)

    def embed(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """The speech and background halves of the embedding before quantization: `[b, t] -> [b, f, half]` twice."""
        silence = -wave.shape[-1] % self.config.hop + self.lookahead * self.config.hop
        return self.projection(self.encoder(F.pad(wave, (0, silence)))[:, self.lookahead :])

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """The speech and background codes of a waveform: `[b, t] -> [b, k, f]` twice."""
        return self.quantize(*self.embed(wave))

    def decode(self, speech: Tensor, background: Tensor, length: int) -> Tensor:
        """Decode codes `[b, k, f]` twice to the first `length` samples. Either stream may have less than all levels."""
        return self.decoder(self.vectors(speech, background))[:, :length]

    def quantize(self, speech: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize both halves of the embedding: `[b, f, half]` to codes `[b, k, f]`, twice."""
        return self.speech_quantizer(speech), self.background_quantizer(background)

    def vectors(self, speech: Tensor, background: Tensor) -> Tensor:
        """The decoder's input `[b, f, latent]`: the vectors of both streams' codes, joined."""
        halves = self.speech_quantizer.vectors(speech), self.background_quantizer.vectors(background)
        return self.projection.joined(*halves)

    def encode_step(self, state: State, wave: Tensor) -> tuple[State, tuple[Tensor, Tensor]]:
        """Encode a stream's next n frames, `[b, n hop]`: returns the new state, and codes `[b, k, n]` twice.

        The codes belong to the frames `lookahead` frames earlier. The first `lookahead` codes of a stream belong to no
        frame, and you need to send `lookahead` frames of silence after its end to get the last ones.

        state: the state that the previous step returned; () begins a stream, and so do zeros in a state's shapes.
        Raises ValueError for incomplete frames, or if the model is not causal.
        """
        if wave.shape[-1] % self.config.hop:
            raise ValueError(f"{wave.shape[-1]} samples are not a whole number of frames of {self.config.hop}")
        stream = self._stream(state)
        codes = self.quantize(*self.projection(self.encoder(wave, stream)))
        return tuple(stream.after), codes

    def decode_step(self, state: State, speech: Tensor, background: Tensor) -> tuple[State, Tensor]:
        """Decode the codes of a stream's next n frames, `[b, k, n]` twice: returns the new state and `[b, n hop]`.

        state: as in `encode_step`, but separate from it. Raises ValueError if the model is not causal.
        """
        stream = self._stream(state)
        wave = self.decoder(self.vectors(speech, background), stream)
        return tuple(stream.after), wave

    def _stream(self, state: State) -> Stream:
        if not self.config.causal:
            raise ValueError("this model is not causal: it codes no frame before it has heard the whole recording")
        return Stream(state)

    def semantic(self, speech: Tensor) -> Tensor:
        """The teacher's features as predicted from the first speech level: `[b, k, f] -> [b, f, config.semantic]`."""
        first = self.speech_quantizer.vectors(speech[:, :1])[..., : self.config.speech.first_dim or None]
        return self.semantic_projection(first)

    def forward(self, wave: Tensor) -> Tensor:
        """Encode and decode a waveform."""
        return self.decode(*self.encode(wave), wave.shape[-1])

    def enhance(self, wave: Tensor) -> Tensor:
        """The speech alone: decoded with the background codes of silence."""
        (speech, _), (_, blank) = self._encode_with_silence(wave)
        return self.decode(speech, blank, wave.shape[-1])

    def background(self, wave: Tensor) -> Tensor:
        """The background alone: decoded with the speech codes of silence."""
        (_, background), (blank, _) = self._encode_with_silence(wave)
        return self.decode(blank, background, wave.shape[-1])

    def take_apart(self, wave: Tensor) -> TakenApart:
        """Decode the whole mixture, its speech and its background from the quantized codes."""
        codes, blank = self._encode_with_silence(wave)
        pairs = codes, (codes[0], blank[1]), (blank[0], codes[1])
        return TakenApart(*(self.decode(*pair, wave.shape[-1]) for pair in pairs), codes)

    def _encode_with_silence(self, wave: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The codes of a waveform, and those of silence of the same length."""
        both = self.encode(torch.cat([wave, torch.zeros_like(wave[:1])]))
        return tuple(codes[:-1] for codes in both), tuple(codes[-1:].expand_as(codes[:-1]) for codes in both)
