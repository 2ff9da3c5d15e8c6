"""The transformer layers of the teachers' networks, HuBERT and Whisper."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from decodec_jax.codec.product import product

gelu = partial(jax.nn.gelu, approximate=False)
norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)

LONG = 512  # frames; longer clips attend with one head at a time


class Layer(nn.Module):
    """Attention and two dense layers: `[b, f, w] -> [b, f, w]`, twice, as `nn.scan` requires."""

    heads: int
    feed_forward: int
    norm_first: bool  # normalise before each branch; else normalise the sum after it
    precision: str  # of products, see codec/product.py

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, Array]:
        multiply = dot_general(self.precision)
        dense = partial(nn.Dense, dot_general=multiply)

        def feed(x: Array) -> Array:
            return dense(x.shape[-1], name="contract")(gelu(dense(self.feed_forward, name="expand")(x)))

        attend = nn.MultiHeadDotProductAttention(
            self.heads, qkv_dot_general=multiply, out_dot_general=multiply, attention_fn=attention, name="attention"
        )
        for branch, normalise in ((attend, norm(name="attention_norm")), (feed, norm(name="feed_forward_norm"))):
            x = x + branch(normalise(x)) if self.norm_first else normalise(x + branch(x))
        return x, x


def attention(query: Array, key: Array, value: Array, **_) -> Array:
    """Attention without a mask, as Flax's layer calls it: `[b, f, heads, w]` three times `-> [b, f, heads, w]`.

    Over 30 s, one head at a time takes a third of the time on a CPU, because its scores are one large product.
    """
    if query.shape[1] <= LONG:
        return nn.dot_product_attention(query, key, value)

    def of_head(head: tuple[Array, Array, Array]) -> Array:
        query, key, value = head
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        return jax.nn.softmax(scores) @ value

    heads = tuple(jnp.moveaxis(x, 2, 0) for x in (query, key, value))
    return jnp.moveaxis(lax.map(of_head, heads), 0, 2)


def dot_general(precision: str) -> Callable[..., Array]:
    """`codec.product.product` as Flax's dense layers call `lax.dot_general`: over the kernel's first axes."""
    def multiply(x: Array, kernel: Array, dimensions: tuple, **_) -> Array:
        count = len(dimensions[0][0])
        rows = x.reshape(*x.shape[:-count], -1)
        features = kernel.shape[count:]
        return product(rows, kernel.reshape(-1, math.prod(features)), precision).reshape(*rows.shape[:-1], *features)

    return multiply


def layers(
    count: int, heads: int, feed_forward: int, norm_first: bool = False, precision: str = "float32"
) -> nn.Module:  # fmt: skip
    """A stack of `count` layers, parameters stacked as "layers"; returns the last layer's output and every layer's."""
    stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=count)
    return stack(heads, feed_forward, norm_first, precision, name="layers")
