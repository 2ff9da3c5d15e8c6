"""Each term of the objective under the name its weight has in `config.Loss`, and their weighted sum."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from decodec_jax.codec.model import Halves
from decodec_jax.codec.projection import orthogonality
from decodec_jax.codec.quantize import Quantized
from decodec_jax.config import Loss
from decodec_jax.objective.spectral import mel_distance

Terms = dict[str, Array]


def waveform_distance(output: Array, target: Array) -> Array:
    """Mean absolute difference, `[n, t]` twice `-> [n]`; for swapped clips L_RST, equation (12)."""
    return jnp.mean(jnp.abs(output - target), axis=-1)


def reconstruction_terms(
    outputs: dict[str, Array], targets: dict[str, Array], weights: Loss, sample_rate: int,
    per_device: Callable[[Callable], Callable] = lambda f: f,
) -> Terms:  # fmt: skip
    """Waveform and mel terms of the "own" and "swap" waveforms `[n, t]` present in `outputs`.

    per_device: wraps the mel distance so that each device takes the FFT of its own items only.
    """
    def mel(output, target):
        return mel_distance(output, target, sample_rate, weights.mel_windows, weights.mel_bands)

    terms = {}
    for kind, output in outputs.items():
        if getattr(weights, f"wave_{kind}"):
            terms[f"wave_{kind}"] = jnp.mean(waveform_distance(output, targets[kind]))
        if getattr(weights, f"mel_{kind}"):
            terms[f"mel_{kind}"] = jnp.mean(per_device(mel)(output, targets[kind]))
    return terms


def latent_terms(halves: Halves[Array], quantized: Halves[Quantized], weights: Loss) -> Terms:
    """L_perp of the continuous halves, commitment and codebook terms of both quantizers."""
    terms = {}
    if weights.perp:
        terms["perp"] = jnp.mean(orthogonality(*halves))
    if weights.commitment:
        terms["commitment"] = sum(jnp.mean(q.commitment) for q in quantized)
    learned = [q.codebook for q in quantized if q.codebook is not None]
    if weights.codebook and learned:
        terms["codebook"] = sum(jnp.mean(distance) for distance in learned)
    return terms


def weighted_sum(terms: Terms, weights: Loss) -> Array:
    """The objective."""
    return sum(getattr(weights, name) * value for name, value in terms.items())
