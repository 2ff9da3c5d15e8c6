"""DeCodec in PyTorch, in one file that may be copied anywhere: it needs torch and safetensors, not JAX or this package.

    model = DeCodec.from_bundle("bundle").eval()       # config.json and model.safetensors, float32 or 16
    with torch.inference_mode():
        speech, background = model.encode(wave)        # [b, t] at model.config.sample_rate -> [b, levels, frames] twice
        coded = model.decode(speech, background, wave.shape[-1])
        clean = model.enhance(wave)
    to_bundle(model, "fine_tuned")                     # weights back, for JAX
    to_torchscript(model, "player.pt")                 # the decoder alone, for C++

Waveforms are coded as loud as they are; models do best at -26 dB of full scale, to which the JAX package brings them.

A causal model takes a stream as it comes, a frame or more at a time; what it needs of the past is handed in and out:

    heard = said = ()
    with torch.inference_mode(), torch.nn.utils.parametrize.cached():  # the weights are the same for all frames
        for frame in microphone:                       # [1, hop]
            heard, codes = model.encode_step(heard, frame)
            said, sound = model.decode_step(said, *codes)

To enhance it, let a batch of frame and silence be heard, and the frame's speech said with the silence's background.

Layers are torch's own. Where their padding cannot say what the network needs, the layer pads or trims itself: strides
may be odd, and the causal network pads on one side only. On a GPU set `torch.backends.cudnn.allow_tf32 = False`, or
convolutions keep 10 bits of their operands and some codes change. torch.export takes everything for any number of
frames but LSTMs, which it unrolls: with one, an exported model is for one number of frames. For a step of a stream
that is no loss.

What is missing beside JAX: training (quantizing passes no gradient), and arithmetic in bfloat16.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

# --- settings -------------------------------------------------------------------------------------------------------


@dataclass
class Quantizer:
    """One residual vector quantizer. What training alone uses is kept because the fingerprint covers it."""

    kind: str  # "ema": nearest by distance; "factorised": by angle
    levels: int
    entries: int
    dim: int  # width of a codebook vector; 0: the latent's own width, without projections
    first_dim: int  # width of the first level's vectors, where it differs; 0: as `dim`
    gains: int  # groups of channels whose gain and shape are quantized side by side; 0: the latent as it is
    decay: float  # training
    revive: float  # training
    dropout: float  # training
    bypass: float  # training


@dataclass
class Model:
    """The network, as `config.json` has it under "model"."""

    sample_rate: int
    patch: int  # samples folded into channels before the first convolution, and unfolded after the last
    channels: int  # after the first convolution; doubled by every block
    strides: list[int]
    dilations: list[int]  # of the residual units in a block
    kernel: int
    latent: int
    decoder_channels: int  # after the decoder's first convolution; halved by every block
    lstm_layers: int
    decoder_lstm: bool
    mask: bool  # the embedding is multiplied by one of 0..1
    causal: bool
    projection: str  # "learned", "exact" or "none"
    speech: Quantizer
    background: Quantizer
    semantic: int  # width of the teacher's features, which the first speech level is projected to; 0 without
    dtype: str  # of JAX's arithmetic; here all is float32

    @property
    def hop(self) -> int:
        """Samples per frame."""
        hop = self.patch
        for stride in self.strides:
            hop *= stride
        return hop


# --- layers, channels first: [b, c, n] ------------------------------------------------------------------------------

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


class Chain(nn.Sequential):
    """Layers one after the other; each is told of the stream, if there is one."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for layer in self:
            x = layer(x, stream)
        return x


class Conv(nn.Conv1d):
    """Weight-normalised Conv1d with margins of (left, right) zeros; torch's own padding puts as many on either side."""

    def __init__(self, inputs: int, outputs: int, kernel: int, margins: tuple[int, int], stride=1, dilation=1):
        super().__init__(inputs, outputs, kernel, stride, dilation=dilation)
        self.margins = margins
        weight_norm(self)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return super().forward(stream.prepend(x, self.margins[0]) if stream else F.pad(x, self.margins))


def same(inputs: int, outputs: int, kernel: int, causal: bool, dilation: int = 1) -> Conv:
    """A convolution that keeps the length."""
    reach = (kernel - 1) * dilation
    right = 0 if causal else reach // 2
    return Conv(inputs, outputs, kernel, (reach - right, right), dilation=dilation)


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

    def __init__(self, channels: int, dilation: int, config: Model):
        super().__init__(OrderedDict(
            snake1=Snake(channels),
            dilated=same(channels, channels, config.kernel, config.causal, dilation),
            snake2=Snake(channels),
            pointwise=same(channels, channels, 1, config.causal),
        ))  # fmt: skip

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        return x + super().forward(x, stream)


def units(channels: int, config: Model) -> OrderedDict:
    return OrderedDict((f"unit{i}", ResidualUnit(channels, d, config)) for i, d in enumerate(config.dilations))


class LSTM(nn.LSTM):
    """A stack with a skip around it; each direction of a bidirectional one has half the width."""

    def __init__(self, channels: int, config: Model):
        hidden = channels if config.causal else channels // 2
        super().__init__(channels, hidden, config.lstm_layers, batch_first=True, bidirectional=not config.causal)
        for name, parameter in self.named_parameters():
            if name.startswith("bias_hh"):  # torch adds up two biases where a bundle has one: the other stays zero
                nn.init.zeros_(parameter).requires_grad_(False)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        carry = next(stream.before, None) if stream else None
        y, carry = super().forward(x.mT, None if carry is None else tuple(carry))
        if stream:
            stream.after.append(torch.stack(carry))
        return x + y.mT


def fourier(hop: int) -> Tensor:
    """Cosines and sines under a Hann window of unit norm, as filters of two hops: `[2 (hop + 1), 1, 2 hop]`."""
    window = torch.hann_window(2 * hop, dtype=torch.float64)
    phase = math.pi / hop * torch.outer(torch.arange(hop + 1), torch.arange(2 * hop)).double()
    return (torch.cat([phase.cos(), phase.sin()]) * (window / window.norm())).float()[:, None]


def mel_filters(sample_rate: int, hop: int) -> Tensor:
    """Slaney's triangles over the powers of `fourier`, `[bands, 2 (hop + 1)]`: 64, or as many as it resolves."""

    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)

    top = sample_rate / 2
    bands = max(1, min(64, int(mel(top) / mel(top / hop)) - 1))
    edges = torch.linspace(0, mel(top), bands + 2, dtype=torch.float64)
    edges = torch.where(edges < 15, edges * 200 / 3, 1000 * 6.4 ** ((edges - 15) / 27))[:, None]
    bins, widths = torch.linspace(0, top, hop + 1, dtype=torch.float64), edges.diff(dim=0)
    rising, falling = (bins - edges[:-2]) / widths[:-1], (edges[2:] - bins) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0).float().repeat(1, 2)


class Loudness(Conv):
    """A mixture of the log mel powers of a waveform, `[b, 1, f hop] -> [b, c, f]`."""

    def __init__(self, channels: int, config: Model):
        filters = mel_filters(config.sample_rate, config.hop)
        super().__init__(len(filters), channels, 1, (0, 0))
        self.hop = config.hop
        self.register_buffer("fourier", fourier(config.hop), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave: Tensor, stream: Stream | None = None) -> Tensor:
        wave = stream.prepend(wave, self.hop) if stream else F.pad(wave, (self.hop, 0))
        power = self.filters @ F.conv1d(wave, self.fourier, stride=self.hop) ** 2
        return super().forward(0.25 * torch.log(power + 1e-3), stream)


SCALE = 0.05  # waveforms are divided by this on their way in, multiplied by it on their way out


class Encoder(Chain):
    """`[b, f hop]` waveform to `[b, f, latent]` embedding."""

    def __init__(self, config: Model):
        channels, causal = config.channels, config.causal
        layers = OrderedDict(first=same(config.patch, channels, config.kernel, causal))
        for i, stride in enumerate(config.strides):
            block = units(channels, config)
            block |= {"snake": Snake(channels), "down": down(channels, 2 * channels, stride, causal)}
            layers[f"block{i}"] = Chain(block)
            channels *= 2
        if config.mask:
            layers["loudness"] = Loudness(channels, config)
        if config.lstm_layers:
            layers["lstm"] = LSTM(channels, config)
        if config.mask:
            layers["told"] = same(channels, channels, 1, causal)
        layers |= {"snake": Snake(channels), "last": same(channels, config.latent, 3, causal)}
        if config.mask:
            layers["mask"] = same(channels, config.latent, 1, causal)
        super().__init__(layers)
        self.patch = config.patch

    def forward(self, wave: Tensor, stream: Stream | None = None) -> Tensor:
        wave = (wave / SCALE)[:, None]
        x = wave[:, 0].unflatten(-1, (-1, self.patch)).mT
        made = None  # of how loud things are, for the mask
        for name, layer in self.named_children():
            if name == "loudness":
                made = layer(wave, stream)
            elif name == "lstm" and made is not None:
                made = layer(made, stream)
            elif name == "told":
                x = x + layer(made, stream)
            elif name == "mask":
                x = x * torch.sigmoid(layer(made, stream))
            else:
                x = layer(x, stream)
        return x.mT


class Decoder(Chain):
    """`[b, f, latent]` embedding to `[b, f hop]` waveform in [-1, 1]."""

    def __init__(self, config: Model):
        channels, causal = config.decoder_channels, config.causal
        layers = OrderedDict(first=same(config.latent, channels, config.kernel, causal))
        if config.lstm_layers and config.decoder_lstm:
            layers["lstm"] = LSTM(channels, config)
        for i, stride in enumerate(reversed(config.strides)):
            block = OrderedDict(snake=Snake(channels), up=Up(channels, channels // 2, stride, causal))
            channels //= 2
            layers[f"block{i}"] = Chain(block | units(channels, config))
        layers |= {"snake": Snake(channels), "last": same(channels, config.patch, config.kernel, causal)}
        super().__init__(layers)

    def forward(self, embedding: Tensor, stream: Stream | None = None) -> Tensor:
        return torch.tanh(SCALE * super().forward(embedding.mT, stream).mT.flatten(-2))


# --- between them: [b, f, d] ----------------------------------------------------------------------------------------


class Projection(nn.Module):
    """An embedding to its speech and background parts (SOP)."""

    def __init__(self, config: Model):
        super().__init__()
        self.form = config.projection
        if self.form == "learned":
            self.speech, self.background = (nn.Linear(config.latent, config.latent, bias=False) for _ in range(2))

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == "none":
            return embedding, embedding
        if self.form == "learned":
            return self.speech(embedding), self.background(embedding)
        width = embedding.shape[-1]
        first = torch.arange(width, device=embedding.device) < width // 2
        return torch.where(first, embedding, 0.0), torch.where(first, 0.0, embedding)


def to_gain_shape(x: Tensor, groups: int) -> Tensor:
    """`[..., c]` to the logarithms of its groups' gains and c of its shape, `[..., groups + c]`."""
    grouped = x.unflatten(-1, (groups, -1))
    gain = torch.sqrt((grouped**2).mean(-1, keepdim=True) + 1e-12) + 0.01
    return torch.cat([2.0 * torch.log(gain[..., 0] / 0.01), (grouped * gain**-0.3).flatten(-2)], dim=-1)


def from_gain_shape(y: Tensor, groups: int) -> Tensor:
    """The inverse of `to_gain_shape`: `[..., groups + c]` to `[..., c]`."""
    floored = 0.01 * torch.exp(y[..., :groups, None] / 2.0)
    shape = y[..., groups:].unflatten(-1, (groups, -1))
    level = torch.sqrt((shape**2).mean(-1, keepdim=True) + 1e-6)
    return (shape * torch.sqrt(F.relu(floored - 0.01) / level * floored**0.3)).flatten(-2)


class ResidualQuantizer(nn.Module):
    """One half's codebooks, as in the bundle: the levels of one width are stacked on the first axis."""

    def __init__(self, config: Quantizer, width: int):
        super().__init__()
        self.gains = config.gains
        width += config.gains
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
        """Each level's own tensors, coarse levels first."""
        tensors = dict(self.named_parameters())
        return [
            {name.removeprefix(f"{run}_"): tensor[k] for name, tensor in tensors.items() if name.startswith(run)}
            for run, (count, _) in self.runs.items()
            for k in range(count)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Codes `[b, k, f]` of a latent `[b, f, c]`."""
        residual, codes = to_gain_shape(x, self.gains) if self.gains else x, []
        for level in self.levels():
            z = residual @ level["into_kernel"] + level["into_bias"] if "into_kernel" in level else residual
            codes.append(_nearest(z, level["entries"], self.by_angle))
            residual = residual - _lookup(codes[-1], level)
        return torch.stack(codes, dim=1)

    def vectors(self, codes: Tensor) -> Tensor:
        """`[b, k, f] -> [b, f, c]`, for any k from 1 to all levels."""
        levels = self.levels()
        if not 1 <= codes.shape[1] <= len(levels):
            raise ValueError(f"codes of {codes.shape[1]} levels; this quantizer has 1 to {len(levels)}")
        summed = sum(_lookup(codes[:, k], levels[k]) for k in range(codes.shape[1]))
        return from_gain_shape(summed, self.gains) if self.gains else summed


def _nearest(x: Tensor, entries: Tensor, by_angle: bool) -> Tensor:
    if by_angle:
        return torch.argmax(x @ F.normalize(entries, eps=1e-6).T, dim=-1)
    return torch.argmax(x @ entries.T - 0.5 * (entries**2).sum(-1), dim=-1)


def _lookup(codes: Tensor, level: dict[str, Tensor]) -> Tensor:
    vectors = F.embedding(codes, level["entries"])
    return vectors @ level["out_kernel"] + level["out_bias"] if "out_kernel" in level else vectors


# --- the model ------------------------------------------------------------------------------------------------------


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
        self.config = config
        self.step = step  # training steps behind the weights
        self.encoder = Encoder(config)
        self.projection = Projection(config)
        self.speech_quantizer = ResidualQuantizer(config.speech, config.latent)
        self.background_quantizer = ResidualQuantizer(config.background, config.latent)
        self.decoder = Decoder(config)
        if config.semantic:
            self.semantic_projection = nn.Linear(config.latent, config.semantic)

    @classmethod
    def from_bundle(cls, folder: str | Path) -> "DeCodec":
        """The model in a bundle. Raises ValueError naming what is missing, left over, of another shape or changed."""
        described = json.loads((Path(folder) / "config.json").read_text())
        if described.get("version") != VERSION or "model" not in described:
            raise ValueError(f"{folder} is a bundle of version {described.get('version')}; this file reads {VERSION}")
        config = _settings(described["model"])
        tensors = load_file(Path(folder) / "model.safetensors")
        found = fingerprint_of(described["model"], tensors)
        if found != described["fingerprint"]:
            raise ValueError(f"the bundle {folder} is not as it was written: its fingerprint is {found}, "
                             f"not {described['fingerprint']}")  # fmt: skip
        _check(tensors, config, f"{folder}/model.safetensors")
        model = cls(config, described["step"])
        for name, view in _as_in_bundle(model.state_dict()).items():
            view.copy_(tensors[name])
        return model

    def embed(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """The speech and background halves of the embedding, before quantizing: `[b, t] -> [b, f, d]` twice."""
        return self.projection(self.encoder(F.pad(wave, (0, -wave.shape[-1] % self.config.hop))))

    def encode(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Speech and background codes."""
        return self.quantize(*self.embed(wave))

    def decode(self, speech: Tensor, background: Tensor, length: int) -> Tensor:
        """The first `length` samples of what the codes stand for; either half may have fewer levels than all."""
        return self.decoder(self.vectors(speech, background))[:, :length]

    def quantize(self, speech: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of both halves of the embedding: `[b, f, d] -> [b, k, f]` twice."""
        return self.speech_quantizer(speech), self.background_quantizer(background)

    def vectors(self, speech: Tensor, background: Tensor) -> Tensor:
        """The decoder's input: the sum of what the codes of both halves stand for, `[b, f, d]`."""
        return self.speech_quantizer.vectors(speech) + self.background_quantizer.vectors(background)

    def encode_step(self, state: State, wave: Tensor) -> tuple[State, tuple[Tensor, Tensor]]:
        """A stream's state after its next frames, `[b, n hop]`, and their speech and background codes, `[b, k, n]`.

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


class Player(nn.Module):
    """Codes `[b, k, f]` twice to samples `[b, f hop]`: the half of the codec that a player needs."""

    def __init__(self, model: DeCodec):
        super().__init__()
        self.model = model

    def forward(self, speech: Tensor, background: Tensor) -> Tensor:
        return self.model.decode(speech, background, speech.shape[-1] * self.model.config.hop)


def to_torchscript(model: DeCodec, path: str | Path) -> None:
    """Write the decoder as TorchScript, for codes of any number of frames.

    Raises ValueError, leaving no file, if what is written does not give the model's samples within 1e-4.
    """
    player, halves = Player(model).eval(), (model.config.speech, model.config.background)
    short, long = ([torch.randint(half.entries, (1, half.levels, frames)) for half in halves] for frames in (10, 25))
    with torch.no_grad():
        torch.jit.trace(player, tuple(short), check_trace=False).save(str(path))
        if not torch.allclose(torch.jit.load(str(path))(*long), player(*long), rtol=0, atol=1e-4):
            Path(path).unlink()
            raise ValueError(f"{path} is not written: the traced decoder does not give the model's samples")


# --- bundles --------------------------------------------------------------------------------------------------------

VERSION = 1

# What a bundle calls a tensor of the state dict (nothing else is renamed), and how it sees it: features last, gains
# flat. Views share memory, so one table serves both ways.
_NAMES: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    (r"(.*\.up)\.parametrizations\.weight\.original1", r"\1.direction", lambda w: w.permute(2, 0, 1)),
    (r"(.*)\.parametrizations\.weight\.original1", r"\1.direction", lambda w: w.permute(2, 1, 0)),
    (r"(.*)\.parametrizations\.weight\.original0", r"\1.gain", torch.flatten),
    (r"(.*)\.weight_ih_l(\d+)", r"\1.forward\2_kernel", torch.t),
    (r"(.*)\.weight_hh_l(\d+)", r"\1.forward\2_recurrent", torch.t),
    (r"(.*)\.bias_ih_l(\d+)", r"\1.forward\2_bias", torch.flatten),
    (r"(.*)\.weight_ih_l(\d+)_reverse", r"\1.backward\2_kernel", torch.t),
    (r"(.*)\.weight_hh_l(\d+)_reverse", r"\1.backward\2_recurrent", torch.t),
    (r"(.*)\.bias_ih_l(\d+)_reverse", r"\1.backward\2_bias", torch.flatten),
    (r"projection\.(speech|background)\.weight", r"projection.\1", torch.t),
    (r"semantic_projection\.weight", r"semantic_projection.kernel", torch.t),
)
_ALWAYS_ZERO = r".*\.lstm\.bias_hh_l\d+(_reverse)?"


def to_bundle(model: DeCodec, folder: str | Path) -> str:
    """Write a bundle that JAX and `from_bundle` load; returns its fingerprint.

    Raises ValueError naming the tensors that a bundle of this config lacks, or has no place for.
    """
    state = model.state_dict()
    second = [name for name, tensor in state.items() if re.fullmatch(_ALWAYS_ZERO, name) and tensor.any()]
    if second:
        raise ValueError(f"a bundle has one LSTM bias; add {', '.join(second)} to bias_ih and set it to zero")
    views = _as_in_bundle(state)
    _check(views, model.config, "the model")
    tensors = {name: view.to("cpu", torch.float32).contiguous() for name, view in views.items()}
    settings = dataclasses.asdict(model.config)
    fingerprint = fingerprint_of(settings, tensors)
    described = {
        "format": "decodec_jax bundle", "version": VERSION, "fingerprint": fingerprint, "step": model.step,
        "model": settings,
    }  # fmt: skip
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    return fingerprint


def fingerprint_of(settings: dict, tensors: dict[str, Tensor]) -> str:
    """Sixteen hex digits that change with any setting of the model and any value of its tensors."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8)
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].float().contiguous().numpy())
    return digest.hexdigest()


def _as_in_bundle(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict under their names in a bundle and laid out as there, sharing its memory."""
    views = {}
    for name, tensor in state.items():
        if re.fullmatch(_ALWAYS_ZERO, name):
            continue
        for pattern, renamed, view in _NAMES:
            if match := re.fullmatch(pattern, name):
                name, tensor = match.expand(renamed), view(tensor)
                break
        views[name] = tensor
    return views


def _check(tensors: dict[str, Tensor], config: Model, source: str) -> None:
    with torch.device("meta"):  # shapes alone
        expected = _as_in_bundle(DeCodec(config).state_dict())
    problems = {
        "missing": set(expected) - set(tensors),
        "unknown": set(tensors) - set(expected),
        "of another shape": {n for n in set(expected) & set(tensors) if expected[n].shape != tensors[n].shape},
    }
    if any(problems.values()):
        named = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in problems.items() if names)
        raise ValueError(f"{source} does not fit its config; {named}")


def _settings(values: dict) -> Model:
    def read(cls, values):
        differing = {field.name for field in dataclasses.fields(cls)} ^ set(values)
        if differing:
            raise ValueError(f"unknown or missing settings: {', '.join(sorted(differing))}; "
                             "the bundle was written by another version of decodec_jax")  # fmt: skip
        return cls(**values)

    streams = {name: read(Quantizer, values[name]) for name in ("speech", "background") if name in values}
    return read(Model, values | streams)
