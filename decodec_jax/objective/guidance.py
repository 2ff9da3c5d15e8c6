"""Semantic guidance: how far the projected first level W Zc is from the teacher's targets H.

Every form takes `projected` and `target`, `[b, f, w]`, and returns one value per item, `[b]`. A target of zeros
(silence) has cosine 0 and no gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

_EPS = 1e-6  # added to squared norms, to keep the gradient finite without signal
TEMPERATURE = 0.1  # of the softmax over similarities in `relations`


def cosine(projected: Array, target: Array, axis: int) -> Array:
    """Cosine similarity along `axis`: 1 (time) gives `[b, w]`, 2 (features) gives `[b, f]`."""
    dot, projected_square, target_square = (
        jnp.sum(product, axis) for product in (projected * target, projected**2, target**2)
    )
    return dot * lax.rsqrt((projected_square + _EPS) * (target_square + _EPS))


def mean_cosine(projected: Array, target: Array) -> Array:
    """Cosine over time, averaged over dimensions: `[b]`. The figure to log: a loss of 0.60 is a cosine of only 0.19."""
    return jnp.mean(cosine(projected, target, axis=1), axis=-1)


def over_time(projected: Array, target: Array) -> Array:
    """L_SG, equation (7): -log sigmoid of the cosine over time of each dimension, averaged over dimensions.

    0.313 at cosine 1, 0.693 at 0, 1.313 at -1. As in SpeechTokenizer, the mean stands for the L1 norm, so that the
    weight does not depend on the teacher's width.
    """
    return jnp.mean(-jax.nn.log_sigmoid(cosine(projected, target, axis=1)), axis=-1)


def over_features(projected: Array, target: Array) -> Array:
    """-log sigmoid of the cosine over features of each frame, averaged over frames: SpeechTokenizer's T-axis form."""
    return jnp.mean(-jax.nn.log_sigmoid(cosine(projected, target, axis=2)), axis=-1)


def cosine_distance(projected: Array, target: Array) -> Array:
    """1 - cosine over features of each frame, averaged over frames: Mimi's form."""
    return 1 - jnp.mean(cosine(projected, target, axis=2), axis=-1)


def relations(projected: Array, target: Array) -> Array:
    """KL divergence of each frame's similarities to the frames of the clip, averaged over frames; 0 at best.

    Similarities are a softmax over the clip of the cosine over features with each frame of the target. The teacher's
    own frames say how similar they should be. This rewards telling sounds apart, and not matching every dimension.
    """
    frames = _unit(target)
    wanted = jax.nn.log_softmax(_similarities(frames, frames))
    reached = jax.nn.log_softmax(_similarities(_unit(projected), frames))
    return jnp.mean(jnp.sum(jnp.exp(wanted) * (wanted - reached), axis=-1), axis=-1)


def _unit(x: Array) -> Array:
    """Each frame with length 1; zeros stay zeros."""
    return x * lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + _EPS)


def _similarities(x: Array, frames: Array) -> Array:
    return jnp.einsum("bfw,bgw->bfg", x, frames) / TEMPERATURE


FORMS: dict[str, Callable[[Array, Array], Array]] = {
    "time": over_time,
    "features": over_features,
    "cosine": cosine_distance,
    "relations": relations,
}
