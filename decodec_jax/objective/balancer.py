"""EnCodec's balancer: a weight is a term's share of the gradient at the waveform, whatever the scale of the term."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from decodec_jax.objective.losses import Terms

_DECAY = 0.999  # of the averaged norms, per step


def fresh(names: list[str]) -> dict[str, Array]:
    """Averaged norms of these terms before the first step: a decaying sum of norms and one of ones for each."""
    return {name: jnp.zeros(2) for name in names}


def balance(
    terms: Callable[[Array], Terms], output: Array, weights: dict[str, float], norms: dict[str, Array], total: float
) -> tuple[Terms, Array, dict[str, Array]]:
    """Values of the terms of `output` `[..., t]`, the balanced gradient for it, and the updated norms.

    The gradient is total * sum_i w_i / sum_j w_j * g_i / <|g_i|>, where g_i is that of term i, and <|g_i|> is its norm
    per waveform, averaged over items and past steps. Weights of 3 and 1 give three quarters and one quarter of it.
    """
    values, pull = jax.vjp(terms, output)
    share = total / sum(weights[name] for name in values)
    gradient, moved = jnp.zeros_like(output), dict(norms)
    for name in values:
        (own,) = pull({other: jnp.asarray(float(other == name)) for other in values})
        norm = jnp.mean(jnp.sqrt(jnp.sum(own**2, axis=-1)))
        moved[name] = _DECAY * norms[name] + (1 - _DECAY) * jnp.stack([norm, jnp.ones_like(norm)])
        average = moved[name][0] / moved[name][1]
        gradient += weights[name] * share * own / jnp.maximum(average, 1e-12)
    return values, gradient, moved
