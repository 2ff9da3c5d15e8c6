"""Gain and shape: the form in which quantizers may see a latent (gain-shape vector quantization).

The nearest entry is the one that is nearest in energy, so quantizers of waveforms' transforms spend all they have on
what is loud, and give too little energy to the rest. In this form neighbouring channels are groups, each with its gain,
in logarithms, and its shape, from which part of the gain is taken. What is decoded has a level half-way, in decibels,
between that which is left of the shape and that which the gain says: the whole of it would be noise, where little of
the shape was coded.
"""

import jax.numpy as jnp
from jax import Array

_POWER = 0.7  # of its gain that a shape keeps: what is loud may have more of the bits, though not all
_WEIGHT = 2.0  # of the gains' logarithms beside shapes
_FLOOR = 0.01  # added to gains: 40 dB below speech's; what is quieter counts less and less
_EPS = 1e-3  # of shapes: where nothing was coded of one, nothing is heard of its gain


def to_gain_shape(x: Array, groups: int) -> Array:
    """`[..., c]` to its `groups` gains and c of its shape, `[..., groups + c]`; silence to zeros."""
    grouped = _grouped(x, groups)
    gain = _rms(grouped, 1e-6) + _FLOOR
    shape = grouped * gain ** (_POWER - 1)
    return jnp.concatenate([_WEIGHT * jnp.log(gain[..., 0] / _FLOOR), shape.reshape(x.shape)], axis=-1)


def from_gain_shape(y: Array, groups: int) -> Array:
    """The inverse of `to_gain_shape`, of quantized gains and shapes, too: `[..., groups + c]` to `[..., c]`."""
    floored = _FLOOR * jnp.exp(y[..., :groups, None] / _WEIGHT)
    shape = _grouped(y[..., groups:], groups)
    gain = jnp.maximum(floored - _FLOOR, 0)
    scale = jnp.sqrt(gain / _rms(shape, _EPS) * floored ** (1 - _POWER))
    return (shape * scale).reshape(y[..., groups:].shape)


def _grouped(x: Array, groups: int) -> Array:
    return x.reshape(*x.shape[:-1], groups, -1)


def _rms(x: Array, eps: float) -> Array:
    return jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps**2)
