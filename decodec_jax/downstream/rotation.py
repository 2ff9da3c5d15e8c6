"""Rotary positions."""

import jax.numpy as jnp
from jax import Array

FAR = 10_000.0  # positions, the slowest rotation


def rotated(x: Array, positions: Array) -> Array:
    """RoPE (Su et al. 2021): pairs of channels turned by angles that grow with the position.

    x: `[b, n, heads, d]`; positions: `[n]` or `[b, n]`, not necessarily whole.
    """
    half = x.shape[-1] // 2
    angles = positions[..., None, None] * FAR ** (-jnp.arange(half) / half)
    one, other = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([one * cos - other * sin, one * sin + other * cos], axis=-1)
