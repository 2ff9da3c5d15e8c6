"""The recogniser's network: a conformer (Gulati et al. 2020) over frames, and a linear layer that CTC reads.

It differs from the published conformer where that makes it plainer: positions are rotations of queries and keys
(RoPE), and layer normalisation replaces batch normalisation, so that an utterance does not depend on its batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from decodec_jax.codec.layers import Dense
from decodec_jax.codec.spectral import LayerNorm, depthwise, taps
from decodec_jax.downstream.asr.config import FRAMES, Masks, Model
from decodec_jax.downstream.rotation import rotated
from decodec_jax.downstream.vectors import summed

STREAMS = ("speech", "background")


class Heard(NamedTuple):
    """What the network makes of a batch."""

    logits: Array  # [b, g, symbols + 1], symbol 0 is CTC's blank
    frames: Array  # [b] joined frames that are not padding, of g


def joined(frames, stack: int):
    """How many joined frames so many frames make."""
    return -(-frames // stack)


class Network(nn.Module):
    """Features of frames to symbols. Dropout and masks apply where a key "dropout" or "masks" is given."""

    config: Model
    symbols: int
    entries: tuple[int, int]  # of the codebooks of speech and background
    masks: Masks
    precision: str = "float32"

    @nn.compact
    def __call__(self, batch: dict[str, Array], frozen: dict[str, Array]) -> Heard:
        """batch: "frames" `[b]`, and "mel" or "latents" `[b, f, d]` or codes `[b, k, f]` of the streams in use."""
        config, frames = self.config, batch["frames"]
        x = normalised(self._features(batch, frozen), frames)
        if self.has_rng("masks"):
            x = x * masks(self.make_rng("masks"), x.shape, self.masks)
        b, f, d = x.shape
        x = jnp.pad(x, ((0, 0), (0, -f % config.stack), (0, 0))).reshape(b, -1, config.stack * d)
        frames = joined(frames, config.stack)
        inside = jnp.arange(x.shape[1]) < frames[:, None]  # [b, g]
        x = LayerNorm(name="norm_in")(Dense(config.width, self.precision, name="dense_in")(x))
        blocks = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, in_axes=nn.broadcast,
            length=config.blocks,
        )  # fmt: skip
        x, _ = blocks(config, self.precision, name="blocks")(x, inside)
        return Heard(Dense(self.symbols + 1, self.precision, name="head")(x), frames)

    def _features(self, batch: dict[str, Array], frozen: dict[str, Array]) -> Array:
        """`[b, f, d]`: spectra or latents as they are, or what each stream's codes stand for, side by side."""
        features = self.config.features
        if features.kind in FRAMES:
            return batch[features.kind]
        found = []
        for stream, entries in zip(STREAMS, self.entries, strict=True):
            levels = getattr(features, stream)
            if not levels:
                continue
            if features.kind == "learned":
                start = nn.initializers.normal(levels**-0.5)
                vectors = self.param(f"{stream}_vectors", start, (levels, entries, features.width))
            else:
                vectors = frozen[stream]
            found.append(summed(batch[stream], vectors))
        return jnp.concatenate(found, axis=-1)


def normalised(x: Array, frames: Array) -> Array:
    """Features `[b, f, d]` with mean 0 and variance 1 over each utterance's frames, and zeros where it has ended."""
    inside = (jnp.arange(x.shape[1]) < frames[:, None])[..., None]
    count = jnp.maximum(frames, 1)[:, None, None]
    centred = jnp.where(inside, x - jnp.sum(x * inside, axis=1, keepdims=True) / count, 0.0)
    variance = jnp.sum(centred**2, axis=1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + 1e-4)


def masks(key: Array, shape: tuple[int, int, int], config: Masks) -> Array:
    """SpecAugment (Park et al. 2019): zeros in stretches of frames and ranges of channels, `[b, f, d]`, else ones."""
    b, f, d = shape
    in_time, in_channel = jax.random.split(key)
    over_time = _stretches(in_time, b, f, config.times, min(config.time, f))
    over_channels = _stretches(in_channel, b, d, config.channels, max(1, round(config.channel * d)))
    return (over_time[:, :, None] & over_channels[:, None, :]).astype(jnp.float32)


def _stretches(key: Array, b: int, size: int, count: int, longest: int) -> Array:
    """False in `count` stretches of up to `longest`, each drawn at random: `[b, size]`."""
    for_length, for_start = jax.random.split(key)
    length = jax.random.randint(for_length, (b, count, 1), 0, longest + 1)
    start = jax.random.randint(for_start, (b, count, 1), 0, size) % jnp.maximum(size - length, 1)
    at = jnp.arange(size)
    return ~jnp.any((at >= start) & (at < start + length), axis=1)


class Block(nn.Module):
    """Half a feed-forward layer, attention, convolution, the other half: `[b, g, w] -> [b, g, w]`, for `nn.scan`."""

    config: Model
    precision: str

    @nn.compact
    def __call__(self, x: Array, inside: Array) -> tuple[Array, None]:
        def dropped(y: Array) -> Array:
            return nn.Dropout(self.config.dropout, deterministic=not self.has_rng("dropout"))(y)

        x = x + 0.5 * dropped(self._feed(x, "feed1"))
        x = x + dropped(self._attend(x, inside))
        x = x + dropped(self._convolve(x, inside))
        x = x + 0.5 * dropped(self._feed(x, "feed2"))
        return LayerNorm(name="norm")(x), None

    def _dense(self, features: int, name: str) -> Dense:
        return Dense(features, self.precision, name=name)

    def _feed(self, x: Array, name: str) -> Array:
        y = LayerNorm(name=f"{name}_norm")(x)
        y = jax.nn.silu(self._dense(self.config.expansion * x.shape[-1], f"{name}_up")(y))
        return self._dense(x.shape[-1], f"{name}_down")(y)

    def _attend(self, x: Array, inside: Array) -> Array:
        b, g, w = x.shape
        heads = self.config.heads
        y = self._dense(3 * w, "attention_in")(LayerNorm(name="attention_norm")(x))
        query, key, value = jnp.moveaxis(y.reshape(b, g, heads, 3, w // heads), 3, 0)
        mask = inside[:, None, None, :]
        query, key = (rotated(each, jnp.arange(g)) for each in (query, key))
        y = jax.nn.dot_product_attention(query, key, value, mask=mask).reshape(b, g, w)
        return self._dense(w, "attention_out")(y)

    def _convolve(self, x: Array, inside: Array) -> Array:
        width, size = x.shape[-1], self.config.kernel
        y, gate = jnp.split(self._dense(2 * width, "convolution_in")(LayerNorm(name="convolution_norm")(x)), 2, -1)
        y = y * jax.nn.sigmoid(gate) * inside[..., None]
        kernel = self.param("kernel", nn.initializers.normal(size**-0.5), (size, width))
        y = depthwise(taps(y, size, causal=False, past=None), kernel)
        return self._dense(width, "convolution_out")(jax.nn.silu(LayerNorm(name="depthwise_norm")(y)))
