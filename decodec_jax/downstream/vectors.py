"""The codebook vectors that a codec's codes stand for."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.codec.quantize import ResidualQuantizer
from decodec_jax.downstream.corpus import Corpus
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec


def tables(codec: DeCodec) -> Halves[np.ndarray]:
    """The vectors of all codes of both streams, at the latent's width: `[levels, entries, d]` each."""

    def of(network: DeCodecNetwork) -> Halves[Array]:
        return Halves(*map(_levels, network.quantizers))

    variables = {"params": codec.params, "codebook": codec.codebook}
    return Halves(*map(np.asarray, DeCodecNetwork(codec.config).apply(variables, method=of)))


def _levels(quantizer: ResidualQuantizer) -> Array:
    """The vectors that each level adds to the sum of the levels before it, `[k, n, d]`, for any kind of quantizer."""
    found = []
    for level in range(quantizer.config.levels):
        every = jnp.arange(quantizer.config.entries)
        codes = jnp.zeros((1, level + 1, len(every)), jnp.int32).at[0, level].set(every)
        before = quantizer.vectors(codes[:, :level]) if level else 0.0
        found.append((quantizer.vectors(codes) - before)[0])
    return jnp.stack(found)


def summed(codes: Array, vectors: Array, kept: Array | None = None) -> Array:
    """The sum over levels of the codes' vectors: `[b, k, f] x [k, n, d] -> [b, f, d]`. kept: `[b, k, f]`, 0 or 1."""
    each = [jnp.take(vectors[level], codes[:, level], axis=0) for level in range(codes.shape[1])]
    return sum(each if kept is None else (kept[:, level, :, None] * one for level, one in enumerate(each)))


def codec_of(name: str, corpus: Corpus) -> DeCodec:
    """The codec that wrote the tokens. Raises UserError if it is another one."""
    codec = DeCodec.load(name)
    if codec.fingerprint != corpus.fingerprint:
        raise UserError(f"the tokens are of the codec {corpus.fingerprint}, and data.codec={name} is "
                        f"{codec.fingerprint}; name the codec that wrote them")  # fmt: skip
    return codec
