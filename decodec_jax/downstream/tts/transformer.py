"""The transformer that both models are: blocks before whose layers stands a norm, rotary positions, a cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from decodec_jax.codec.layers import Dense
from decodec_jax.codec.spectral import LayerNorm
from decodec_jax.downstream.rotation import rotated
from decodec_jax.downstream.tts.config import Model
from decodec_jax.downstream.vectors import summed


class Cache(NamedTuple):
    """Keys and values of the places so far; a block has one layer of them, without the first axis."""

    keys: Array  # [layers, b, places, heads, d]
    values: Array


def empty_cache(config: Model, b: int, places: int) -> Cache:
    shape = config.layers, b, places, config.heads, config.width // config.heads
    return Cache(jnp.zeros(shape), jnp.zeros(shape))


class TextNetwork(nn.Module):
    """What the networks of all stages begin with: vectors of the text's symbols. Symbol 0 pads the text."""

    config: Model
    symbols: int
    entries: int  # of a level's codebook
    precision: str = "float32"

    def setup(self):
        self.text_vectors = self.param("text_vectors", nn.initializers.normal(1.0),
                                       (self.symbols + 1, self.config.width))  # fmt: skip


class Transformer(nn.Module):
    """`config.layers` blocks and a norm. Dropout applies where a key "dropout" is given."""

    config: Model
    conditions: int = 0  # number of conditions that its norms adapt to; 0: none
    precision: str = "float32"

    @nn.compact
    def __call__(
        self, x: Array, positions: Array, mask: Array, condition: Array | None = None, cache: Cache | None = None,
        at: Array | int = 0,
    ) -> tuple[Array, Cache | None]:  # fmt: skip
        """`[b, n, w] -> [b, n, w]`.

        positions: `[b, n]`, see `rotated`. mask: bool `[b, 1, n, m]`, what each place may attend to: the n of x, or the
        m of a cache, in which x is entered from place `at` on. condition: `[b]`, below `conditions`.
        """
        blocks = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast), length=self.config.layers,
        )  # fmt: skip
        block = blocks(self.config, self.conditions, self.precision, name="blocks")
        x, cache = block(x, cache, positions, mask, condition, at)
        return LayerNorm(name="norm")(x), cache


class Block(nn.Module):
    """Attention and a feed-forward layer: `[b, n, w] -> [b, n, w]`, for `nn.scan`."""

    config: Model
    conditions: int
    precision: str

    @nn.compact
    def __call__(
        self, x: Array, cache: Cache | None, positions: Array, mask: Array, condition: Array | None, at: Array | int
    ) -> tuple[Array, Cache | None]:
        def dropped(y: Array) -> Array:
            return nn.Dropout(self.config.dropout, deterministic=not self.has_rng("dropout"))(y)

        width = x.shape[-1]
        y, cache = self._attend(self._norm(x, condition, "attention"), cache, positions, mask, at)
        x = x + dropped(y)
        y = jax.nn.silu(self._dense(self.config.expansion * width, "feed1_up")(self._norm(x, condition, "feed1")))
        return x + dropped(self._dense(width, "feed1_down")(y)), cache

    def _dense(self, features: int, name: str) -> Dense:
        return Dense(features, self.precision, name=name)

    def _norm(self, x: Array, condition: Array | None, name: str) -> Array:
        """Layer normalisation, with a scale and a shift for each condition (VALL-E's adaptive one)."""
        x = LayerNorm(name=f"{name}_norm")(x)
        if not self.conditions:
            return x
        table = self.param(f"{name}_adapted", nn.initializers.zeros, (self.conditions, 2, x.shape[-1]))
        scale, shift = jnp.moveaxis(table[condition][:, :, None], 1, 0)  # [b, 1, w] each
        return x * (1 + scale) + shift

    def _attend(
        self, x: Array, cache: Cache | None, positions: Array, mask: Array, at: Array | int
    ) -> tuple[Array, Cache | None]:
        b, n, width = x.shape
        heads = self.config.heads
        y = self._dense(3 * width, "attention_in")(x).reshape(b, n, heads, 3, width // heads)
        query, key, value = jnp.moveaxis(y, 3, 0)
        query, key = rotated(query, positions), rotated(key, positions)
        if cache is not None:
            entered = zip(cache, (key, value), strict=True)
            cache = Cache(*(lax.dynamic_update_slice_in_dim(old, new, at, 1) for old, new in entered))
            key, value = cache
        y = jax.nn.dot_product_attention(query, key, value, mask=mask).reshape(b, n, width)
        return self._dense(width, "attention_out")(y), cache


class Frames(nn.Module):
    """Codes of frames as inputs of the transformer: sums of their vectors, made as wide as it."""

    config: Model
    levels: int
    entries: int
    precision: str = "float32"

    @nn.compact
    def __call__(self, codes: Array, frozen: dict[str, Array], kept: Array | None = None) -> Array:
        """`[b, k, f] -> [b, f, w]`; kept: `[b, k, f]`, 0 for codes that do not count."""
        if self.config.vectors == "learned":
            start = nn.initializers.normal(self.levels**-0.5)
            vectors = self.param("vectors", start, (self.levels, self.entries, self.config.learned))
        else:
            vectors = frozen["speech"]
        dense = Dense(self.config.width, self.precision, name="dense")
        return LayerNorm(name="norm")(dense(summed(codes, vectors, kept)))
