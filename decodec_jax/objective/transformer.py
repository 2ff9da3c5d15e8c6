"""The transformer layers of the teachers' networks, HuBERT and Whisper."""

from functools import partial

import jax
from flax import linen as nn
from jax import Array

gelu = partial(jax.nn.gelu, approximate=False)
norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


class Layer(nn.Module):
    """Attention and two dense layers: `[b, f, w] -> [b, f, w]`, twice, as a scan wants it."""

    heads: int
    feed_forward: int
    norm_first: bool  # each branch hears what is normalised; else what a branch is added to is normalised

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, Array]:
        def feed(x: Array) -> Array:
            return nn.Dense(x.shape[-1], name="contract")(gelu(nn.Dense(self.feed_forward, name="expand")(x)))

        attend = nn.MultiHeadDotProductAttention(self.heads, name="attention")
        for branch, normalise in ((attend, norm(name="attention_norm")), (feed, norm(name="feed_forward_norm"))):
            x = x + branch(normalise(x)) if self.norm_first else normalise(x + branch(x))
        return x, x


def layers(count: int, heads: int, feed_forward: int, norm_first: bool = False) -> nn.Module:
    """So many, their parameters stacked under the name "layers": gives what the last and what each of them gives."""
    stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=count)
    return stack(heads, feed_forward, norm_first, name="layers")
