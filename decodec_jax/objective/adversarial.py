"""The adversarial terms: functions of what `Discriminators` makes of real and of generated waves, D_k the k-th of K.

The paper trains with an adversarial and a feature-matching term and prints neither. Least squares ("lsgan") is what DAC
and SpeechTokenizer use, "hinge" what EnCodec uses. All values are per item, `[n]`, and means over the K discriminators,
so that a weight means the same for any set of them; DAC sums over its 8 instead.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from decodec_jax.objective.discriminators import Judged


class Game(NamedTuple):
    """What each side pays for a logit."""

    real: Callable[[Array], Array]  # the discriminator, for one of a real waveform
    fake: Callable[[Array], Array]  # the discriminator, for one of a generated waveform
    generator: Callable[[Array], Array]


KINDS = {
    "lsgan": Game(lambda x: (1 - x) ** 2, lambda x: x**2, lambda x: (1 - x) ** 2),
    "hinge": Game(lambda x: jax.nn.relu(1 - x), lambda x: jax.nn.relu(1 + x), lambda x: -x),
}


def discriminator_loss(real: list[Judged], fake: list[Judged], kind: str) -> Array:
    """What the discriminators minimise, `[n]`.

    lsgan: 1/K sum_k mean (1 - D_k(y))^2 + mean D_k(yhat)^2
    hinge: 1/K sum_k mean max(0, 1 - D_k(y)) + mean max(0, 1 + D_k(yhat))
    """
    game = KINDS[kind]
    pairs = zip(real, fake, strict=True)
    return _mean([_per_item(game.real(r.logits)) + _per_item(game.fake(f.logits)) for r, f in pairs])


def adversarial_loss(fake: list[Judged], kind: str) -> Array:
    """How far generated waveforms are from passing for real ones, `[n]`.

    lsgan: 1/K sum_k mean (1 - D_k(yhat))^2
    hinge: 1/K sum_k mean -D_k(yhat)
    """
    return _mean([_per_item(KINDS[kind].generator(judged.logits)) for judged in fake])


_FAINT = 1e-2  # mean magnitude of a feature below which relative errors stop growing: those of silence may all be zero


def feature_loss(real: list[Judged], fake: list[Judged], relative: bool = False) -> Array:
    """Feature matching: how far features D_k^l of generated waveforms are from those of the real ones, `[n]`.

    1/K sum_k sum_l mean |D_k^l(y) - D_k^l(yhat)|, over layers a sum as in DAC; or, relative as in EnCodec, over layers
    the mean of the same, each divided by the batch's mean |D_k^l(y)|. Real features are constants to the gradient.
    """
    terms = []
    for r, f in zip(real, fake, strict=True):
        layers = []
        for wanted, given in zip(r.features, f.features, strict=True):
            wanted = lax.stop_gradient(wanted.astype(jnp.float32))
            distance = _per_item(jnp.abs(wanted - given))
            layers.append(distance / jnp.maximum(jnp.mean(jnp.abs(wanted)), _FAINT) if relative else distance)
        terms.append(_mean(layers) if relative else sum(layers))
    return _mean(terms)


def generator_losses(
    real: list[Judged], fake: list[Judged], kind: str, relative: bool = False
) -> tuple[Array, Array]:
    """`adversarial_loss` and `feature_loss`, `[n]` each."""
    return adversarial_loss(fake, kind), feature_loss(real, fake, relative)


@partial(jax.custom_vjp, nondiff_argnums=(0, 4, 5))
def losses_of_both_sides(
    judge: Callable[[dict, Array], list[Judged]], params: dict, real: Array, fake: Array, kind: str,
    relative: bool = False,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Discriminator, adversarial and feature loss of waveforms `[n, t]`, each moving only those it is meant to move.

    The first has a gradient with respect to `params`, which `judge` judges with, the others with respect to `fake`. So
    one gradient of a weighted sum of all three, taken with respect to the parameters of both networks, updates both;
    and each waveform is judged once, where a `stop_gradient` on either side would have `fake` judged twice.
    """
    r, f = judge(params, real), judge(params, fake)
    return discriminator_loss(r, f, kind), *generator_losses(r, f, kind, relative)


def _forward(judge, params, real, fake, kind, relative):
    r, judged_real = jax.vjp(lambda params: judge(params, real), params)
    f, judged_fake = jax.vjp(judge, params, fake)
    loss, told_apart = jax.vjp(lambda r, f: discriminator_loss(r, f, kind), r, f)
    terms, passed_off = jax.vjp(lambda f: generator_losses(r, f, kind, relative), f)
    return (loss, *terms), (judged_real, judged_fake, told_apart, passed_off, real)


def _backward(judge, kind, relative, kept, cotangents):
    judged_real, judged_fake, told_apart, passed_off, real = kept
    of_loss, *of_terms = cotangents
    to_real, to_fake = told_apart(of_loss)
    (from_real,), (from_fake, _) = judged_real(to_real), judged_fake(to_fake)
    _, to_wave = judged_fake(*passed_off(tuple(of_terms)))
    return jax.tree.map(jnp.add, from_real, from_fake), jnp.zeros_like(real), to_wave


losses_of_both_sides.defvjp(_forward, _backward)


def _per_item(x: Array) -> Array:
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))


def _mean(values: list[Array]) -> Array:
    return sum(values) / len(values)
