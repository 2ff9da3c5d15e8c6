"""The generator's pass over a batch: how each mixture is decoded, and with how many levels it is coded."""

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
    """Number of levels that code each item, `[b]`: quantizer dropout, and 0 where `bypassed` `[b]`.

    If the first level has dimensions of its own, half of the dropped items use it alone, so that it is understood.
    """
    dropped_key, number_key, alone_key = jax.random.split(key, 3)
    dropped = jax.random.bernoulli(dropped_key, config.dropout, bypassed.shape)
    number = jax.random.randint(number_key, bypassed.shape, 1, config.levels + 1)
    if config.first_dim:
        number = jnp.where(jax.random.bernoulli(alone_key, 0.5, bypassed.shape), 1, number)
    return jnp.where(bypassed, 0, jnp.where(dropped, number, config.levels))


KINDS = ("own", "swap", "speech", "background")  # ways to decode a mixture


def drawn_kinds(loss: Loss, pairs: int, key: Array) -> Array:
    """Index into `KINDS` of each of the k decodings of each pair in a step: `[pairs, k]`.

    Each kind gets its share of the k places, and whole shares always: own = swap = 1 decodes everything both ways.
    """
    edges = np.cumsum([getattr(loss, kind) for kind in KINDS], dtype=np.float32)
    count = round(float(edges[-1]))
    place = np.arange(count) + jax.random.uniform(key, (pairs, count), maxval=1 - 1e-6)
    return jnp.sum(place[..., None] >= edges[:-1], axis=-1)


def in_use(loss: Loss) -> list[str]:
    """The kinds with a weight above 0."""
    return [kind for kind in KINDS if getattr(loss, kind)]


def chosen(kinds: Array, options: dict[str, Array]) -> Array:
    """Select from the options `[b, 2, ...]` by the drawn kinds `[b, k]`: `[b, k, 2, ...]`."""
    first = next(iter(options.values()))
    numbers, outcome = kinds.reshape(*kinds.shape, *[1] * (first.ndim - 1)), first[:, None]
    for kind, option in options.items():
        outcome = jnp.where(numbers == KINDS.index(kind), option[:, None], outcome)
    return outcome


def reference(batch: Batch, loss: Loss, kinds: Array) -> Array:
    """The waveforms that `generate` should decode, `[b, k, 2, t]`."""
    named = {"own": "mixture", "swap": "swapped", "speech": "speech", "background": "background"}
    return chosen(kinds, {kind: batch[named[kind]] for kind in in_use(loss)})


def bypassing(quantize: Callable[[Halves[Array]], Halves[Quantized]], halves: Halves[Array]) -> Halves[Quantized]:
    """The result of `quantize` if every item bypasses it, without running it."""
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(quantize, halves))

    def passed(quantized: Quantized, half: Array) -> Quantized:
        return quantized._replace(vectors=half, first=half[..., : quantized.first.shape[-1]])

    return Halves(*map(passed, nothing, halves))


def generate(
    config: Config, params: dict, codebook: dict, batch: Batch, kinds: Array, key: Array, started: Array,
    target: Array | None,
) -> tuple[tuple[Array, Array], tuple[Terms, Halves[Quantized], Semantic | None, Array]]:  # fmt: skip
    """The generator's pass: waveforms `[b, k, 2, t]`, decoded as `kinds` says, and the weighted loss of the latents.

    One encoder pass over the mixtures, one decoder pass over all their recombinations (RST, paper section 2). Clips of
    a pair stay neighbours on the batch axis, so that nothing crosses devices. Also returns each term of the latents,
    the quantizers' results, the guided level with `target`, the teacher's `[2b, f, w]`, and `[b, 2]` which waveforms
    can be known: not those of a semantic first level alone. It does not carry phases, so the waveform term would make
    it quiet.
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
    unknown = (active.speech == 1) & (config.model.speech.first_dim > 0)
    phases_known = 1.0 - unknown.reshape(pairs, 2)
    return (decoded, weighted_sum(terms, config.loss)), (terms, quantized, semantic, phases_known)


def _blank(network: DeCodecNetwork, variables: dict, active: Halves[Array], started: Array, t: int) -> Halves[Array]:
    """The code of t samples of silence, which replaces a part that is left out: `[2b, f, d]` twice.

    Quantized by all levels, except for items that bypass the quantizers.
    """
    silence = network.apply(variables, jnp.zeros((1, t)), method="embed")

    def coded(halves: Halves[Array]) -> Halves[Array]:
        return Halves(*(q.vectors for q in network.apply(variables, halves, method="quantize")))

    codes = jax.lax.cond(started, coded, lambda halves: halves, silence)
    return Halves(*(
        jnp.where((used > 0)[:, None, None], code, raw) for used, code, raw in zip(active, codes, silence, strict=True)
    ))  # fmt: skip
