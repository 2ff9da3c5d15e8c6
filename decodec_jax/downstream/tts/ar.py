"""The autoregressive model: text to the codes of the first speech level, one frame after the other.

The sequence is the text, a start, and the frames. Symbols attend to all symbols; a frame attends to all symbols and to
the frames before it. Positions count frames. A symbol stands where it would be said if all symbols took equally long,
so attention starts out near the right place, and an hour of speech is enough to learn the rest. In training the length
of an utterance is known; `speaking` estimates it.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import Dense
from decodec_jax.downstream.tts.transformer import Cache, Frames, TextNetwork, Transformer, empty_cache

Batch = dict[str, Array]


class Network(TextNetwork):
    """Scores of the next code; the code `entries` is the end."""

    def setup(self):
        super().setup()
        self.start = self.param("start", nn.initializers.normal(1.0), (1, 1, self.config.width))
        self.frames = Frames(self.config, 1, self.entries, self.precision)
        self.transformer = Transformer(self.config, 0, self.precision)
        self.head = Dense(self.entries + 1, self.precision)

    def __call__(self, batch: Batch, frozen: dict[str, Array]) -> Array:
        """Scores `[b, f + 1, entries + 1]` of each frame's code given those before it, and of what follows the last.

        batch: "text" `[b, l]`, of which "symbols" `[b]` count; their "places" `[b, l]` in frames; "codes" `[b, 1, f]`.
        """
        x, positions, mask = self._sequence(batch, frozen)
        x, _ = self.transformer(x, positions, mask)
        return self.head(x[:, batch["text"].shape[1] :])

    def begin(self, batch: Batch, frozen: dict[str, Array], room: int) -> tuple[Array, Cache]:
        """As above, and a cache with room for so many frames; `follow` continues it."""
        x, positions, mask = self._sequence(batch, frozen)
        b, n, _ = x.shape
        places = batch["text"].shape[1] + 1 + room
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, places - n)))
        x, cache = self.transformer(x, positions, mask, None, empty_cache(self.config, b, places))
        return self.head(x[:, batch["text"].shape[1] :]), cache

    def follow(
        self, code: Array, frame: Array, batch: Batch, cache: Cache, frozen: dict[str, Array]
    ) -> tuple[Array, Cache]:
        """Scores `[b, entries + 1]` of what follows one frame, whose number and code `[b]` are given; and the cache."""
        start = batch["text"].shape[1]
        here, place = start + 1 + frame, jnp.arange(cache.keys.shape[2])
        seen = jnp.where(place < start, place < batch["symbols"][:, None], place <= here)
        x = self.frames(code[:, None, None], frozen)
        positions = jnp.full((1, 1), frame + 1.0)
        x, cache = self.transformer(x, positions, seen[:, None, None], None, cache, here)
        return self.head(x[:, 0]), cache

    def _sequence(self, batch: Batch, frozen: dict[str, Array]) -> tuple[Array, Array, Array]:
        """The transformer's inputs `[b, l + 1 + f, w]`, their positions, and what each may attend to."""
        text, codes = batch["text"], batch["codes"]
        (b, start), f = text.shape, codes.shape[2]
        begin = jnp.broadcast_to(self.start, (b, 1, self.config.width))
        x = jnp.concatenate([jnp.take(self.text_vectors, text, axis=0), begin, self.frames(codes, frozen)], axis=1)
        frames = jnp.broadcast_to(jnp.arange(f + 1.0), (b, f + 1))
        place = jnp.arange(start + 1 + f)
        there = (place >= start) | (place < batch["symbols"][:, None])
        before = (place < start) | ((place[:, None] >= start) & (place <= place[:, None]))
        return x, jnp.concatenate([batch["places"], frames], axis=1), (there[:, None] & before)[:, None]


def scores(
    network: Network, params: dict, frozen: dict[str, Array], batch: Batch, key: Array | None
) -> tuple[Array, Array]:
    """The loss of each utterance, nats a code, and the share of codes that are likeliest: `[b]` each.

    key: for dropout and corrupted codes; None: without.
    """
    codes, f = batch["codes"], batch["codes"].shape[2]
    rngs = {}
    if key is not None:
        for_dropout, for_places, for_codes = jax.random.split(key, 3)
        rngs = {"dropout": for_dropout}
        replaced = jax.random.bernoulli(for_places, network.config.corrupted, codes.shape)
        codes = jnp.where(replaced, jax.random.randint(for_codes, codes.shape, 0, network.entries), codes)
    logits = network.apply({"params": params}, batch | {"codes": codes}, frozen, rngs=rngs)
    frames = batch["frames"][:, None]
    target = jnp.pad(batch["codes"][:, 0], ((0, 0), (0, 1)))
    target = jnp.where(jnp.arange(f + 1) == frames, network.entries, target)
    counted = (jnp.arange(f + 1) <= frames) / (frames + 1)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    right = jnp.argmax(logits, axis=-1) == target
    return jnp.sum(loss * counted, axis=1), jnp.sum(right * counted, axis=1)
