"""The generator's pass over a batch: what each mixture is decoded as, and how many levels code it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from decodec_jax.codec.model import DeCodecNetwork, Halves, swap
from decodec_jax.codec.quantize import Quantized
from decodec_jax.config import Config, Loss, Quantizer
from decodec_jax.objective.losses import Semantic, Terms, latent_terms, weighted_sum

# speech, background, mixture, swapped: [b, 2, t], b pairs of clips; where they are cached, targets: [b, 2, f, w]
Batch = dict[str, Array]


def levels_in_use(config: Quantizer, bypassed: Array, key: Array) -> Array:
    """How many levels each item is coded with, `[b]`: quantizer dropout, and 0 where `bypassed` `[b]`."""
    dropped_key, number_key = jax.random.split(key)
    dropped = jax.random.bernoulli(dropped_key, config.dropout, bypassed.shape)
    number = jax.random.randint(number_key, bypassed.shape, 1, config.levels + 1)
    return jnp.where(bypassed, 0, jnp.where(dropped, number, config.levels))


KINDS = ("own", "swap", "speech", "background")  # what a mixture may be decoded as


def drawn_kinds(loss: Loss, pairs: int, key: Array) -> Array:
    """As which of `KINDS` the mixtures of each pair are decoded in a step, by number: `[pairs, k]`.

    Each kind takes its share of the k places, the whole ones always: own = swap = 1 decodes everything both ways.
    """
    edges = np.cumsum([getattr(loss, kind) for kind in KINDS], dtype=np.float32)
    count = round(float(edges[-1]))
    place = np.arange(count) + jax.random.uniform(key, (pairs, count), maxval=1 - 1e-6)
    return jnp.sum(place[..., None] >= edges[:-1], axis=-1)


def in_use(loss: Loss) -> list[str]:
    """Those of `KINDS` that a step may decode."""
    return [kind for kind in KINDS if getattr(loss, kind)]


def chosen(kinds: Array, options: dict[str, Array]) -> Array:
    """Of options `[b, 2, ...]`, those of the kinds `[b, k]` drawn: `[b, k, 2, ...]`."""
    first = next(iter(options.values()))
    numbers, outcome = kinds.reshape(*kinds.shape, *[1] * (first.ndim - 1)), first[:, None]
    for kind, option in options.items():
        outcome = jnp.where(numbers == KINDS.index(kind), option[:, None], outcome)
    return outcome


def reference(batch: Batch, loss: Loss, kinds: Array) -> Array:
    """What `generate` should decode, `[b, k, 2, t]`."""
    named = {"own": "mixture", "swap": "swapped", "speech": "speech", "background": "background"}
    return chosen(kinds, {kind: batch[named[kind]] for kind in in_use(loss)})


def bypassing(quantize: Callable[[Halves[Array]], Halves[Quantized]], halves: Halves[Array]) -> Halves[Quantized]:
    """What `quantize` gives where no item uses a level, without the time that it takes."""
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(quantize, halves))
    return Halves(*(q._replace(vectors=half, first=half) for q, half in zip(nothing, halves, strict=True)))


def generate(
    config: Config, params: dict, codebook: dict, batch: Batch, kinds: Array, key: Array, started: Array,
    target: Array | None,
) -> tuple[tuple[Array, Array], tuple[Terms, Halves[Quantized], Semantic | None]]:  # fmt: skip
    """The generator's one pass: waveforms `[b, k, 2, t]` decoded as the `kinds` say, and the latents' weighted terms.

    One encoder pass over the mixtures, one decoder pass over all their recombinations (RST, paper section 2). Clips of
    a pair stay neighbours on the batch axis, so that no step of it crosses devices. Gives the latents' terms one by
    one, too, what the quantizers saw, and the guided level beside `target`, the teacher's `[2b, f, w]`.
    """
    network = DeCodecNetwork(config.model, config.train.remat, config.train.precision)
    variables = {"params": params, "codebook": codebook}
    pairs, _, t = batch["mixture"].shape
    halves = network.apply(variables, batch["mixture"].reshape(2 * pairs, t), method="embed")

    bypass_key, speech_key, background_key, tally_key = jax.random.split(key, 4)
    chance = jax.random.uniform(bypass_key, (2 * pairs,))
    active = Halves(*(
        levels_in_use(quantizer, ~started | (chance < quantizer.bypass), k)
        for quantizer, k in ((config.model.speech, speech_key), (config.model.background, background_key))
    ))  # fmt: skip

    def quantize(halves: Halves[Array]) -> Halves[Quantized]:
        return network.apply(variables, halves, active, tally_key, method="quantize")

    quantized = jax.lax.cond(started, quantize, partial(bypassing, quantize), halves)
    semantic = None
    if target is not None:
        semantic = Semantic(network.apply(variables, quantized.speech.first, method="semantic"), target)
    terms = latent_terms(halves, quantized, config.loss, semantic)

    own = Halves(quantized.speech.vectors, quantized.background.vectors)
    parts = {"own": own, "swap": own._replace(background=swap(own.background))}
    if config.loss.speech or config.loss.background:
        blank = _blank(network, variables, active, started, t)
        parts |= {"speech": own._replace(background=blank.background), "background": own._replace(speech=blank.speech)}

    def stacked(*options: Array) -> Array:
        paired = dict(zip(in_use(config.loss), (o.reshape(pairs, 2, *o.shape[1:]) for o in options), strict=True))
        vectors = chosen(kinds, paired)
        return vectors.reshape(-1, *vectors.shape[3:])

    flat = Halves(*map(stacked, *(parts[kind] for kind in in_use(config.loss))))
    decoded = network.apply(variables, flat, t, method="decode").reshape(pairs, -1, 2, t)
    return (decoded, weighted_sum(terms, config.loss)), (terms, quantized, semantic)


def _blank(network: DeCodecNetwork, variables: dict, active: Halves[Array], started: Array, t: int) -> Halves[Array]:
    """What silence of t samples becomes, in place of a part that is left out: `[2b, f, d]` twice.

    Quantized by all levels, but for items that skip quantization.
    """
    silence = network.apply(variables, jnp.zeros((1, t)), method="embed")

    def coded(halves: Halves[Array]) -> Halves[Array]:
        return Halves(*(q.vectors for q in network.apply(variables, halves, method="quantize")))

    codes = jax.lax.cond(started, coded, lambda halves: halves, silence)
    return Halves(*(
        jnp.where((used > 0)[:, None, None], code, raw) for used, code, raw in zip(active, codes, silence, strict=True)
    ))  # fmt: skip
