"""The transformer layers of the teachers' networks, HuBERT and Whisper."""

from functools import partial

import jax
from flax import linen as nn
from jax import Array

gelu = partial(jax.nn.gelu, approximate=False)
norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


class Layer(nn.Module):
    """Attention and two dense layers: `[b, f, w] -> [b, f, w]`, twice, as `nn.scan` requires."""

    heads: int
    feed_forward: int
    norm_first: bool  # normalise before each branch; else normalise the sum after it

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, Array]:
        def feed(x: Array) -> Array:
            return nn.Dense(x.shape[-1], name="contract")(gelu(nn.Dense(self.feed_forward, name="expand")(x)))

        attend = nn.MultiHeadDotProductAttention(self.heads, name="attention")
        for branch, normalise in ((attend, norm(name="attention_norm")), (feed, norm(name="feed_forward_norm"))):
            x = x + branch(normalise(x)) if self.norm_first else normalise(x + branch(x))
        return x, x


def layers(count: int, heads: int, feed_forward: int, norm_first: bool = False) -> nn.Module:
    """A stack of `count` layers, parameters stacked as "layers"; returns the last layer's output and every layer's."""
    stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=count)
    return stack(heads, feed_forward, norm_first, name="layers")
