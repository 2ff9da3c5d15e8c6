"""The adversarial terms: functions of the output of `Discriminators` for real and generated waves.

The paper has an adversarial and a feature-matching term but gives no formula for either. DAC and SpeechTokenizer use
least squares ("lsgan"), EnCodec uses "hinge". D_k is the k-th of K discriminators. All values are per item, `[n]`,
and means over the K discriminators, so that a weight means the same for any set of them. DAC sums over its 8 instead.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from decodec_jax.objective.discriminators import Judged


class Game(NamedTuple):
    """The loss of each side for a logit."""

    real: Callable[[Array], Array]  # the discriminator, for one of a real waveform
    fake: Callable[[Array], Array]  # the discriminator, for one of a generated waveform
    generator: Callable[[Array], Array]


KINDS = {
    "lsgan": Game(lambda x: (1 - x) ** 2, lambda x: x**2, lambda x: (1 - x) ** 2),
    "hinge": Game(lambda x: jax.nn.relu(1 - x), lambda x: jax.nn.relu(1 + x), lambda x: -x),
}


def discriminator_loss(real: list[Judged], fake: list[Judged], kind: str) -> Array:
    """The discriminators' loss, `[n]`.

    lsgan: 1/K sum_k mean (1 - D_k(y))^2 + mean D_k(yhat)^2
    hinge: 1/K sum_k mean max(0, 1 - D_k(y)) + mean max(0, 1 + D_k(yhat))
    """
    game = KINDS[kind]
    pairs = zip(real, fake, strict=True)
    return _mean([_per_item(game.real(r.logits)) + _per_item(game.fake(f.logits)) for r, f in pairs])


def adversarial_loss(fake: list[Judged], kind: str) -> Array:
    """The generator's adversarial loss, `[n]`.

    lsgan: 1/K sum_k mean (1 - D_k(yhat))^2
    hinge: 1/K sum_k mean -D_k(yhat)
    """
    return _mean([_per_item(KINDS[kind].generator(judged.logits)) for judged in fake])


_FAINT = 1e-2  # least mean magnitude that relative errors are divided by; features of silence may all be zero


def feature_loss(real: list[Judged], fake: list[Judged], relative: bool = False) -> Array:
    """Feature matching: distance between features D_k^l of generated and of real waveforms, `[n]`.

    1/K sum_k sum_l mean |D_k^l(y) - D_k^l(yhat)|, summed over layers as in DAC. With `relative`, as in EnCodec, the
    mean over layers, each divided by the batch's mean |D_k^l(y)|. Real features get no gradient.
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


def _per_item(x: Array) -> Array:
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))


def _mean(values: list[Array]) -> Array:
    return sum(values) / len(values)
