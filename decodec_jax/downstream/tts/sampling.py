"""Drawing codes one after the other: temperature, nucleus, and a guard against repetition."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from decodec_jax.downstream.tts.ar import Batch, Network
from decodec_jax.errors import UserError


class Sampling(NamedTuple):
    """How codes are drawn."""

    temperature: float = 1.0  # 0: always the likeliest code
    nucleus: float = 0.9  # draw from the likeliest codes, whose probabilities add up to this
    window: int = 10  # frames that the guard looks back
    repeats: int = 3  # a code that stands there more often is drawn anew, from all codes


def check(sampling: Sampling) -> None:
    """Raise UserError for values that nothing can be drawn with."""
    if not sampling.temperature >= 0:
        raise UserError(f"the temperature is {sampling.temperature:g}; it must be 0 or above")
    if not 0 < sampling.nucleus <= 1:
        raise UserError(f"top-p is {sampling.nucleus:g}; it must be above 0 and at most 1")


class Drawn(NamedTuple):
    """Codes `[room]`, of which the first `count` are the prompt's and the new ones."""

    codes: Array
    count: Array


def nucleus(logits: Array, share: Array | float) -> Array:
    """-inf for all but the smallest set of likeliest codes whose probabilities reach `share`: `[n]` (Holtzman 2020)."""
    order = jnp.argsort(-logits)
    chances = jax.nn.softmax(logits)[order]
    kept = jnp.cumsum(chances) - chances < share
    return jnp.where(jnp.zeros(logits.shape, bool).at[order].set(kept), logits, -jnp.inf)


def draw(logits: Array, seen: Array, key: Array, sampling: Sampling) -> Array:
    """A code from scores `[n]`. seen: `[n]`, how often each code stands in the window before.

    A code that was there too often is drawn again from all codes, as in VALL-E 2 (Chen et al. 2024).
    """
    for_first, for_again = jax.random.split(key)
    scaled = logits / jnp.maximum(sampling.temperature, 1e-6)
    first = jax.random.categorical(for_first, nucleus(scaled, sampling.nucleus))
    again = jax.random.categorical(for_again, scaled)
    code = jnp.where(seen[first] > sampling.repeats, again, first)
    return jnp.where(sampling.temperature > 0, code, jnp.argmax(logits)).astype(jnp.int32)


def generate(
    network: Network, room: int, params: dict, frozen: dict[str, Array], batch: Batch, bounds: tuple[Array, Array],
    key: Array, sampling: Sampling,
) -> Drawn:  # fmt: skip
    """Draw the codes of one utterance until the end.

    batch: as for the network, of one utterance; the first "frames" of "codes" `[1, 1, f]` are the prompt's. bounds: the
    least and the greatest number of frames, with the prompt's; at most `room`, which is at least f.
    """
    least, most = bounds
    variables, end = {"params": params}, network.entries
    scores, cache = network.apply(variables, batch, frozen, room, method="begin")
    count = batch["frames"][0]
    codes = jnp.zeros(room, jnp.int32).at[: batch["codes"].shape[2]].set(batch["codes"][0, 0])

    def goes_on(state) -> Array:
        _, count, _, _, ended = state
        return ~ended & (count < most)

    def drawn(state):
        codes, count, scores, cache, _ = state
        frame = jnp.arange(room)
        recent = (frame < count) & (frame >= count - sampling.window)
        seen = jnp.zeros(end + 1).at[codes].add(recent)
        scores = scores.at[end].add(jnp.where(count < least, -jnp.inf, 0.0))
        code = draw(scores, seen, jax.random.fold_in(key, count), sampling)
        ended = code == end
        codes = jnp.where((frame == count) & ~ended, code, codes)
        following, cache = network.apply(variables, code[None], count, batch, cache, frozen, method="follow")
        return codes, count + 1 - ended, following[0], cache, ended

    state = codes, count, scores[0, count], cache, jnp.array(False)
    codes, count, *_ = lax.while_loop(goes_on, drawn, state)
    return Drawn(codes, count)
