"""Perceptual loss: how far a teacher's features of decoded waveforms are from those of the reference."""

import jax.numpy as jnp
from jax import Array, lax

from decodec_jax.objective.teacher import Teacher

_EPS = 1e-3  # added to the spread of a feature


def perceptual_distance(output: Array, target: Array, teacher: Teacher) -> Array:
    """Mean absolute difference of the teacher's hidden states, `[n, t]` twice `-> [n]`.

    The difference of each feature is divided by its standard deviation over the batch's frames, because a few features
    of a transformer are far larger than all others. All layers count the same.
    """
    heard, wanted = teacher.states(output), lax.stop_gradient(teacher.states(target))
    spread = jnp.std(wanted, axis=(1, 2), keepdims=True)
    return jnp.mean(jnp.abs(heard - wanted) / (spread + _EPS), axis=(0, 2, 3))
