"""The parallel model: text to the codes of the first speech level, all frames at once.

A first transformer reads the text and says how long each symbol lasts. Its output is repeated that often, and a second
transformer fills in the codes of the frames, those it is surest of first (mask-predict, as in MaskGIT and SoundStorm).
Training knows the durations: a recogniser aligns the text with the tokens. So nothing has to learn where in the text a
frame is, which is what an autoregressive model needs many hours of speech for.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import Dense
from decodec_jax.downstream.tts.sampling import Sampling, nucleus
from decodec_jax.downstream.tts.transformer import Frames, TextNetwork, Transformer

Batch = dict[str, Array]

ROUNDS = 12  # in which codes are filled in
LENGTHS = 0.1  # weight of the durations' squared error


class Network(TextNetwork):
    """Scores of the codes, and the logarithms of durations."""

    def setup(self):
        super().setup()
        config = self.config
        self.reader = Transformer(replace(config, layers=max(1, config.layers // 2)), 0, self.precision)
        self.duration = Dense(1, self.precision)
        self.place = Dense(config.width, self.precision)
        self.unknown = self.param("unknown", nn.initializers.normal(1.0), (config.width,))
        self.frames = Frames(config, 1, self.entries, self.precision)
        self.transformer = Transformer(config, 0, self.precision)
        self.head = Dense(self.entries, self.precision)

    def __call__(self, batch: Batch, frozen: dict[str, Array]) -> tuple[Array, Array]:
        """Scores `[b, f, entries]` of all frames' codes, and log durations `[b, l]`, in frames.

        batch: "text" `[b, l]`, of which "symbols" `[b]` count; "owners" `[b, f]`, the symbol that each frame belongs
        to, of which "frames" `[b]` count; "within" `[b, f]`, the part of the symbol that is over; "codes" `[b, 1, f]`,
        which the network sees where "known" `[b, f]` is true.
        """
        read, lengths = self.read(batch)
        x = jnp.take_along_axis(read, batch["owners"][..., None], axis=1)
        within = batch["within"][..., None]
        x = x + self.place(jnp.concatenate([within, within**2, jnp.cos(jnp.pi * within)], axis=-1))
        x = x + jnp.where(batch["known"][..., None], self.frames(batch["codes"], frozen), self.unknown)
        b, f, _ = x.shape
        there = jnp.arange(f) < batch["frames"][:, None]
        positions = jnp.broadcast_to(jnp.arange(f, dtype=jnp.float32), (b, f))
        x, _ = self.transformer(x, positions, there[:, None, None])
        return self.head(x), lengths

    def read(self, batch: Batch) -> tuple[Array, Array]:
        """The text as the first transformer reads it `[b, l, w]`, and log durations `[b, l]`."""
        b, symbols = batch["text"].shape
        there = jnp.arange(symbols) < batch["symbols"][:, None]
        positions = jnp.broadcast_to(jnp.arange(symbols, dtype=jnp.float32), (b, symbols))
        read, _ = self.reader(jnp.take(self.text_vectors, batch["text"], axis=0), positions, there[:, None, None])
        return read, self.duration(read)[..., 0]


def scores(
    network: Network, params: dict, frozen: dict[str, Array], batch: Batch, key: Array | None
) -> tuple[Array, Array]:
    """The loss of each utterance, nats a code and the durations' error, and the share of codes that are likeliest.

    batch: as for the network, without "known", and with "durations" `[b, l]`. key: for dropout and for the frames whose
    codes are known; None: no dropout, no frame is known.
    """
    b, _, f = batch["codes"].shape
    there, known, rngs = jnp.arange(f) < batch["frames"][:, None], jnp.zeros((b, f), bool), {}
    if key is not None:
        for_dropout, for_share, for_frames = jax.random.split(key, 3)
        rngs = {"dropout": for_dropout}
        unknown = jnp.cos(0.5 * jnp.pi * jax.random.uniform(for_share, (b, 1)))  # many more often than few
        known = jax.random.uniform(for_frames, (b, f)) > unknown
    logits, lengths = network.apply({"params": params}, batch | {"known": known}, frozen, rngs=rngs)
    counted = there & ~known
    counted = counted / jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1)
    target = batch["codes"][:, 0]
    loss = jnp.sum(counted * optax.softmax_cross_entropy_with_integer_labels(logits, target), axis=1)
    said = jnp.arange(lengths.shape[1]) < batch["symbols"][:, None]
    error = said * (lengths - jnp.log(jnp.maximum(batch["durations"], 1.0))) ** 2
    loss += LENGTHS * jnp.sum(error, axis=1) / jnp.maximum(batch["symbols"], 1)
    return loss, jnp.sum(counted * (jnp.argmax(logits, axis=-1) == target), axis=1)


def spread_out(durations: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """ "owners" and "within" of frames whose symbols last so long: `[size]` each, zeros behind the last symbol."""
    owners, within = np.zeros(size, np.int32), np.zeros(size, np.float32)
    f = int(durations.sum())
    owners[:f] = np.repeat(np.arange(len(durations)), durations)
    starts = np.cumsum(durations) - durations
    within[:f] = (np.arange(f) - starts[owners[:f]] + 0.5) / durations[owners[:f]]
    return owners, within


def fill_in(
    network: Network, params: dict, frozen: dict[str, Array], batch: Batch, key: Array, sampling: Sampling
) -> Array:  # fmt: skip
    """The codes `[f]` of the first utterance of a batch, drawn in `ROUNDS`; batch: as for the network."""
    f = batch["owners"].shape[1]
    frames, temperature = batch["frames"][0], sampling.temperature

    def one_round(number: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        codes, known = state
        shown = batch | {"codes": codes[None, None], "known": known[None]}
        logits, _ = network.apply({"params": params}, shown, frozen)
        scaled = jax.nn.log_softmax(logits[0] / jnp.maximum(temperature, 1e-6))
        for_codes, for_order = jax.random.split(jax.random.fold_in(key, number))
        kept = jax.vmap(partial(nucleus, share=sampling.nucleus))(scaled)
        drawn = jnp.where(temperature > 0, jax.random.categorical(for_codes, kept), jnp.argmax(scaled, axis=-1))
        codes = jnp.where(known, codes, drawn)
        sure = jnp.take_along_axis(jax.nn.log_softmax(logits[0]), codes[:, None], axis=1)[:, 0]
        left = 1 - (number + 1) / ROUNDS  # chance decides less and less
        sure = jnp.where(known, jnp.inf, sure + temperature * left * jax.random.gumbel(for_order, (f,)))
        sure = jnp.where(jnp.arange(f) < frames, sure, -jnp.inf)
        count = jnp.ceil(frames * (1 - jnp.cos(0.5 * jnp.pi * (number + 1) / ROUNDS)))
        return codes, jnp.argsort(jnp.argsort(-sure)) < count

    start = jnp.zeros(f, jnp.int32), jnp.zeros(f, bool)
    return jax.lax.fori_loop(0, ROUNDS, one_round, start)[0]
