"""DeCodec itself: encode, project, quantize, decode; and recombination, which joins the parts of two clips."""

import math
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from decodec_jax.codec import spectral, waveform
from decodec_jax.codec.projection import Projection
from decodec_jax.codec.quantize import Quantized, ResidualQuantizer
from decodec_jax.config import Model

T = TypeVar("T")
FAMILIES = {"waveform": waveform, "spectral": spectral}  # each has an Encoder, a Decoder, LOOKAHEAD and `passes`
STREAMS = ("speech_quantizer", "background_quantizer")


class Halves(NamedTuple, Generic[T]):
    """A value for the speech half and one for the background half."""

    speech: T
    background: T


def lookahead(config: Model) -> int:
    """Frames by which embeddings are delayed; the end of a recording must be padded by as many frames."""
    return FAMILIES[config.family].LOOKAHEAD


def swap(background: Array) -> Array:
    """Exchange backgrounds within pairs: `[2b, f, d] -> [2b, f, d]`. The two clips of a pair are neighbours."""
    pairs = background.reshape(-1, 2, *background.shape[1:])
    return pairs[:, ::-1].reshape(background.shape)


class TakenApart(NamedTuple):
    """The result of `DeCodecNetwork.take_apart`. The compiler drops fields that the caller does not use."""

    mixture: Array  # [b, t] reconstruction
    speech: Array  # [b, t] enhanced speech
    background: Array  # [b, t]
    codes: Halves[Array]  # [b, k, f]


class DeCodecNetwork(nn.Module):
    """The network. A waveform of t >= 1 samples has f = ceil(t / hop) frames."""

    config: Model
    # not in `config`, which bundles store: these only say how to compute
    remat: bool = False
    precision: str = "float32"  # see codec/product.py

    def setup(self):
        family = FAMILIES[self.config.family]
        self.encoder = family.Encoder(self.config, self.remat, self.precision)
        self.decoder = family.Decoder(self.config, self.remat, self.precision)
        self.projection = Projection(self.config.projection)
        self.quantizers = Halves(
            ResidualQuantizer(self.config.speech, self.config.half, name=STREAMS[0]),
            ResidualQuantizer(self.config.background, self.config.half, name=STREAMS[1]),
        )
        if self.config.semantic:
            self.semantic_projection = nn.Dense(self.config.semantic)

    def embed(self, wave: Array) -> Halves[Array]:
        """S = P_S Enc(y) and N = P_N Enc(y), equation (8): `[b, t]` waveform to `[b, f, d]` twice.

        d is `config.half`, the width of a half.
        """
        hop, late = self.config.hop, lookahead(self.config)
        padding = (math.ceil(wave.shape[-1] / hop) + late) * hop - wave.shape[-1]
        return self.split(self.encoder(jnp.pad(wave, ((0, 0), (0, padding))))[:, late:])

    def split(self, embedding: Array) -> Halves[Array]:
        """Project the encoder's embedding `[b, f, latent]` onto the two subspaces, `[b, f, d]` each."""
        return Halves(*self.projection(embedding))

    def recombine(self, halves: Halves[Array]) -> Array:
        """The decoder's input, the sum Zs + Zn of a speech and a background part: `[b, f, d]` to `[b, f, latent]`.

        The parts may come from different clips. Training swaps them between the two clips of a pair (equations 8-11);
        enhancement takes Zn from blank audio, background extraction Zs.
        """
        return self.projection.joined(*halves)

    def quantize(
        self, halves: Halves[Array], active: Halves[Array] | None = None, key: Array | None = None
    ) -> Halves[Quantized]:
        """Quantize both halves. `active`: the number of levels that each item uses, `[b]` for each half."""
        active = active or Halves(None, None)
        keys = Halves(None, None) if key is None else Halves(*jax.random.split(key))
        return Halves(*(q(*arguments) for q, *arguments in zip(self.quantizers, halves, active, keys, strict=True)))

    def encode(self, wave: Array) -> Halves[Array]:
        """Codes of a waveform: `[b, t]` to int32 `[b, k, f]` twice, coarse levels first."""
        quantized = self.quantize(self.embed(wave))
        return Halves(quantized.speech.codes, quantized.background.codes)

    def vectors(self, codes: Halves[Array]) -> Halves[Array]:
        """Zs and Zn from codes `[b, k, f]`, for any number k of levels: `[b, f, d]` twice."""
        return Halves(*(q.vectors(c) for q, c in zip(self.quantizers, codes, strict=True)))

    def semantic(self, first: Array) -> Array:
        """W Zc of equation (7): the first speech level's vectors `[b, f, d]`, projected to the teacher's width w."""
        return self.semantic_projection(first)

    def decode(self, halves: Halves[Array], length: int) -> Array:
        """Dec(Zs + Zn): `[b, f, d]` twice to a waveform `[b, length]`, length <= f hop."""
        return self.decoder(self.recombine(halves))[:, :length]

    def take_apart(self, wave: Array, active: Halves[Array] | None = None) -> TakenApart:
        """A mixture `[b, t]` and its parts, each through the quantizers (paper section 3).

        The part left out is replaced by the code of blank audio: silence of the same length.
        """
        both = self.quantize(self.embed(jnp.concatenate([wave, jnp.zeros_like(wave[:1])])), active)
        halves = Halves(both.speech.vectors[:-1], both.background.vectors[:-1])
        blank = Halves(*(jnp.broadcast_to(q.vectors[-1:], h.shape) for q, h in zip(both, halves, strict=True)))
        length = wave.shape[-1]
        return TakenApart(
            mixture=self.decode(halves, length),
            speech=self.decode(halves._replace(background=blank.background), length),
            background=self.decode(halves._replace(speech=blank.speech), length),
            codes=Halves(both.speech.codes[:-1], both.background.codes[:-1]),
        )

    def started(self, halves: Halves[Array], key: Array) -> tuple[dict, dict]:
        """`params` and `codebook` of both quantizers, set by k-means from latents `[b, f, d]`."""
        started = (q.started(h, k) for q, h, k in zip(self.quantizers, halves, jax.random.split(key), strict=True))
        params, codebook = (dict(zip(STREAMS, side, strict=True)) for side in zip(*started, strict=True))
        return params, {name: stack for name, stack in codebook.items() if stack}

    def __call__(self, wave: Array) -> Array:
        """Reconstruct from all levels, `[b, t] -> [b, t]`. Also touches every parameter, to initialise them."""
        quantized = self.quantize(self.embed(wave))
        if self.config.semantic:
            self.semantic(quantized.speech.first)
        return self.decode(Halves(quantized.speech.vectors, quantized.background.vectors), wave.shape[-1])


def initialise(config: Model, key: Array) -> tuple[dict, dict]:
    """Fresh `params` and `codebook` (empty without moving-average codebooks)."""
    variables = DeCodecNetwork(config).init(key, jnp.zeros((1, config.hop)))
    return variables["params"], variables.get("codebook", {})
