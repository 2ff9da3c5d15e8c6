"""The loss terms, named like their weights in `config.Loss`, and their weighted sum."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from decodec_jax.codec.model import Halves
from decodec_jax.codec.projection import orthogonality
from decodec_jax.codec.quantize import Quantized
from decodec_jax.config import Loss
from decodec_jax.objective import guidance
from decodec_jax.objective.spectral import magnitude_distance, mel_distance

Terms = dict[str, Array]


class Semantic(NamedTuple):
    """The projected first level W Zc and the teacher's targets, `[b, f, w]` each."""

    projected: Array
    target: Array


OUTPUT_TERMS = ("wave", "mel", "magnitude", "perceptual", "adversarial", "feature")  # those of the waveform


def output_names(weights: Loss) -> list[str]:
    """The names in `OUTPUT_TERMS` with a weight above 0."""
    return [name for name in OUTPUT_TERMS if getattr(weights, name)]


def is_adversarial(weights: Loss) -> bool:
    """Whether training needs discriminators."""
    return bool(weights.adversarial or weights.feature)


def waveform_distance(output: Array, target: Array) -> Array:
    """Mean absolute difference, `[n, t]` twice `-> [n]`; for swapped clips this is L_RST, equation (12)."""
    return jnp.mean(jnp.abs(output - target), axis=-1)


def reconstruction_terms(
    output: Array, target: Array, weights: Loss, sample_rate: int,
    per_device: Callable[[Callable], Callable] = lambda f: f, phases_known: Array | float = 1.0,
) -> Terms:  # fmt: skip
    """Waveform, mel and magnitude terms of waveforms `[n, t]`, means over n.

    per_device: wraps the distances of spectra so that each device takes the FFT of its own items only.
    phases_known: `[n]`, 0 for items that the waveform term leaves out.
    """

    def mel(output, target):
        return mel_distance(output, target, sample_rate, weights.mel_windows, weights.mel_bands, weights.mel_floor,
                            weights.overlap)  # fmt: skip

    def magnitude(output, target):
        return magnitude_distance(output, target, weights.magnitude_windows, weights.overlap)

    def wave(output, target):
        return phases_known * waveform_distance(output, target)

    distances = {"wave": wave, "mel": per_device(mel), "magnitude": per_device(magnitude)}
    return {name: jnp.mean(distance(output, target)) for name, distance in distances.items() if getattr(weights, name)}


def latent_terms(
    halves: Halves[Array], quantized: Halves[Quantized], weights: Loss, semantic: Semantic | None = None
) -> Terms:
    """L_perp of the continuous halves, commitment and codebook terms of both quantizers, L_SG of the first level."""
    terms = {}
    if weights.perp:
        terms["perp"] = jnp.mean(orthogonality(*halves))
    if weights.commitment:
        terms["commitment"] = sum(jnp.mean(q.commitment) for q in quantized)
    learned = [q.codebook for q in quantized if q.codebook is not None]
    if weights.codebook and learned:
        terms["codebook"] = sum(jnp.mean(distance) for distance in learned)
    if semantic is not None:
        terms["guidance"] = jnp.mean(guidance.FORMS[weights.guidance_form](*semantic))
    return terms


def weighted_sum(terms: Terms, weights: Loss) -> Array:
    """The loss: the weighted sum of the terms."""
    return sum(getattr(weights, name) * value for name, value in terms.items())
