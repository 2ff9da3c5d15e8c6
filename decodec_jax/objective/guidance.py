"""Semantic guidance: how far the projected first level W Zc is from the teacher's targets H.

Every form takes `projected` and `target`, `[b, f, w]`, and returns one value per item, `[b]`. A target of zeros
(silence) has cosine 0 and no gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

_EPS = 1e-6  # added to squared norms, to keep the gradient finite without signal


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


FORMS: dict[str, Callable[[Array, Array], Array]] = {
    "time": over_time,
    "features": over_features,
    "cosine": cosine_distance,
}
