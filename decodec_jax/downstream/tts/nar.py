"""The non-autoregressive model: the other speech levels from the first, one level of all frames at a time.

The first frames of an utterance are its prompt, whose codes are known at all levels; they say whose voice it is. The
text may stand before them. It may be empty: conversion does not know what is said.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from decodec_jax.downstream.tts.transformer import Frames, TextNetwork, Transformer

Batch = dict[str, Array]


class Network(TextNetwork):
    """Scores of the codes of one level."""

    def setup(self):
        super().setup()
        width, levels = self.config.width, self.config.levels
        normal, heads = nn.initializers.normal(1.0), nn.initializers.lecun_normal(batch_axis=0)
        self.prompt_vector = self.param("prompt_vector", normal, (width,))
        self.frames = Frames(self.config, levels, self.entries, self.precision)
        self.transformer = Transformer(self.config, levels, self.precision)
        self.heads = self.param("heads", heads, (levels - 1, width, self.entries))

    def __call__(self, batch: Batch, frozen: dict[str, Array]) -> Array:
        """Scores `[b, f, entries]` of the codes of level "level" `[b]`, from 1, the second, up.

        batch: "text" `[b, l]`, of which "symbols" `[b]` count, 0 or more; their "places" `[b, l]` in frames; "codes"
        `[b, k, f]`, of which "frames" `[b]` count. The network sees all levels of the first "prompt" `[b]` frames, and
        the levels before "level" of the others.
        """
        text, codes, level = batch["text"], batch["codes"], batch["level"]
        b, k, f = codes.shape
        first = text.shape[1]  # place of the first frame
        frame, place = jnp.arange(f), jnp.arange(first + f)
        prompt = frame < batch["prompt"][:, None]  # [b, f]
        seen = (jnp.arange(k)[:, None] < level[:, None, None]) | prompt[:, None]
        x = self.frames(codes, frozen, seen) + prompt[..., None] * self.prompt_vector
        x = jnp.concatenate([jnp.take(self.text_vectors, text, axis=0), x], axis=1)
        positions = jnp.concatenate([batch["places"], jnp.broadcast_to(frame + 0.5, (b, f))], axis=1)
        there = place < jnp.where(place < first, batch["symbols"][:, None], first + batch["frames"][:, None])
        x, _ = self.transformer(x, positions, there[:, None, None], level)
        return jnp.einsum("bfw,bwn->bfn", x[:, first:], self.heads[level - 1])


def scores(
    network: Network, params: dict, frozen: dict[str, Array], batch: Batch, key: Array | None
) -> tuple[Array, Array]:
    """The loss of each utterance, nats a code of one level, and the share of codes that are likeliest: `[b]` each.

    batch: as for the network, without "level"; a prompt may have up to "prompt" frames. key: for dropout, the level,
    the length of the prompt and hidden text; None: no dropout, the text, the longest prompt, and the levels in turn.
    """
    b, levels, rngs = len(batch["frames"]), network.config.levels, {}
    level, prompt, symbols = 1 + jnp.arange(b) % (levels - 1), batch["prompt"], batch["symbols"]
    if key is not None:
        for_dropout, for_level, for_prompt, for_text = jax.random.split(key, 4)
        rngs = {"dropout": for_dropout}
        level = jax.random.randint(for_level, (b,), 1, levels)
        prompt = jax.random.randint(for_prompt, (b,), 0, prompt + 1)
        symbols = jnp.where(jax.random.bernoulli(for_text, network.config.hidden, (b,)), 0, symbols)
    shown = batch | {"level": level, "prompt": prompt, "symbols": symbols}
    logits = network.apply({"params": params}, shown, frozen, rngs=rngs)
    target = jnp.take_along_axis(batch["codes"], level[:, None, None], axis=1)[:, 0]
    frame = jnp.arange(target.shape[1])
    counted = (frame >= prompt[:, None]) & (frame < batch["frames"][:, None])
    counted = counted / jnp.sum(counted, axis=1, keepdims=True)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    right = jnp.argmax(logits, axis=-1) == target
    return jnp.sum(loss * counted, axis=1), jnp.sum(right * counted, axis=1)


def completed(run, params: dict, frozen: dict[str, Array], batch: Batch, levels: int) -> Array:
    """The codes `[b, k, f]` with all levels behind the prompt filled in, each by its likeliest codes.

    run: the network's `apply`. batch: as for it, without "level".
    """
    codes = jnp.asarray(batch["codes"])
    prompt = jnp.arange(codes.shape[2]) < batch["prompt"][:, None]
    for level in range(1, levels):
        numbered = batch | {"codes": codes, "level": jnp.full(len(codes), level, jnp.int32)}
        likeliest = jnp.argmax(run({"params": params}, numbered, frozen), axis=-1).astype(codes.dtype)
        codes = codes.at[:, level].set(jnp.where(prompt, codes[:, level], likeliest))
    return codes
