"""Each term of the objective under the name its weight has in `config.Loss`, and their weighted sum."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from decodec_jax.codec.model import Halves
from decodec_jax.codec.projection import orthogonality
from decodec_jax.codec.quantize import Quantized
from decodec_jax.config import Loss
from decodec_jax.objective import guidance
from decodec_jax.objective.spectral import compressed_distance, mel_distance

Terms = dict[str, Array]


class Semantic(NamedTuple):
    """The projected first level W Zc and what it is guided towards, `[b, f, w]` each."""

    projected: Array
    target: Array


# those of the waveform
OUTPUT_TERMS = (
    *(f"{term}_{kind}" for term in ("wave", "mel", "spectrum") for kind in ("own", "swap")), "adversarial", "feature"
)  # fmt: skip


def output_names(weights: Loss) -> list[str]:
    """Those of `OUTPUT_TERMS` that are in use."""
    return [name for name in OUTPUT_TERMS if getattr(weights, name)]


def is_adversarial(weights: Loss) -> bool:
    """Whether discriminators take part."""
    return bool(weights.adversarial or weights.feature)


def waveform_distance(output: Array, target: Array) -> Array:
    """Mean absolute difference, `[n, t]` twice `-> [n]`; for swapped clips L_RST, equation (12)."""
    return jnp.mean(jnp.abs(output - target), axis=-1)


SPEECH_RMS = 0.05  # of full scale, roughly


def quietness(target: Array) -> Array:
    """By how much `[n, t]` is below the usual level of speech, as a factor `[n]`; at most 2.5, for silence too."""
    return SPEECH_RMS / jnp.sqrt(jnp.maximum(jnp.mean(target**2, axis=-1), 0.02**2))


def reconstruction_terms(
    outputs: dict[str, Array], targets: dict[str, Array], weights: Loss, sample_rate: int,
    per_device: Callable[[Callable], Callable] = lambda f: f,
) -> Terms:  # fmt: skip
    """Waveform, mel and spectrum terms of the "own" and "swap" waveforms `[n, t]` present in `outputs`.

    per_device: wraps the distances of spectra so that each device takes the FFT of its own items only.
    """
    def mel(output, target):
        return mel_distance(output, target, sample_rate, weights.mel_windows, weights.mel_bands)

    def spectrum(output, target):
        return compressed_distance(output, target, weights.spectrum_windows)

    terms = {}
    for kind, output in outputs.items():
        if getattr(weights, f"wave_{kind}"):
            distance = waveform_distance(output, targets[kind])
            terms[f"wave_{kind}"] = jnp.mean(distance * (quietness(targets[kind]) if weights.level_free else 1))
        if getattr(weights, f"mel_{kind}"):
            terms[f"mel_{kind}"] = jnp.mean(per_device(mel)(output, targets[kind]))
        if getattr(weights, f"spectrum_{kind}"):
            terms[f"spectrum_{kind}"] = jnp.mean(per_device(spectrum)(output, targets[kind]))
    return terms


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
    """The objective."""
    return sum(getattr(weights, name) * value for name, value in terms.items())
