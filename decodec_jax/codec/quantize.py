"""Residual vector quantization: one codebook level, the residual stack as a scan, and how codebooks start and move.

A `Stack` is an ordered dict of runs of levels. The levels of a run have one codebook width, are stored as stacked
arrays, and are scanned over. A quantizer has one stack, {"levels": ...}, or two, {"first": ...} and {"rest": ...}, if
the first (semantic) level has some dimensions of the latent to itself.

Gradients. The quantized vector passes the reconstruction's gradient straight through, level by level. The residual is
*not* detached on that path, so the whole stack passes the gradient exactly once (as the identity, for codebooks as wide
as the latent). The commitment term of each level sees the residual *detached* from the levels before it. Otherwise the
straight-through terms would cancel, and only the first level would pull on the encoder.

The commitment is an absolute distance, not a ratio to the latent's power. The straight-through gradient makes the
latent grow without end: the latent is larger than its quantized value, so moving towards it always looks better to the
decoder. Only a distance that grows with the latent stops this.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from decodec_jax.config import Quantizer

GROUP = 32  # numbers of which `largest` first takes the maximum

# --- one level ------------------------------------------------------------------------------------------------------


class Affine(NamedTuple):
    """x @ kernel + bias."""

    kernel: Array  # [..., c, d]
    bias: Array  # [..., d]

    def __call__(self, x: Array) -> Array:
        return x @ self.kernel + self.bias


class Levels(NamedTuple):
    """k codebooks of one width, stacked on the first axis (inside a scan: one codebook, without that axis)."""

    entries: Array  # [k, n, d]
    into: Affine | None  # latent to codebook width; None if the codebook is as wide as the latent
    out: Affine | None


Stack = dict[str, Levels]


def nearest(x: Array, entries: Array, normalised: bool) -> Array:
    """Index of the nearest entry, `[..., d] x [n, d] -> [...]` int32; by angle only if `normalised` (DAC).

    In float32 at full precision, because bfloat16 distances change a few percent of the choices.
    """
    if normalised:
        entries = entries * lax.rsqrt(jnp.sum(entries**2, axis=-1, keepdims=True) + 1e-12)
        half_norms = 0.0  # all entries have length one, and the length of x does not matter
    else:
        half_norms = 0.5 * jnp.sum(entries**2, axis=-1)
    likeness = jnp.einsum("...d,nd->...n", x, entries, precision=lax.Precision.HIGHEST) - half_norms
    return _repeated_maxima(likeness, 1)[1][..., 0]


def largest(x: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest of `[..., n]` and their places, `[..., count]` each, as from `lax.top_k`.

    By repeated maxima, because `lax.top_k` gathers a batch that is split over devices. For speed, it first finds the
    groups with the largest maxima, and then looks only at these.
    """
    if x.shape[-1] % GROUP or x.shape[-1] < GROUP * count:
        return _repeated_maxima(x, count)
    groups = x.reshape(*x.shape[:-1], -1, GROUP)
    _, chosen = _repeated_maxima(jnp.max(groups, axis=-1), count)
    candidates = jnp.take_along_axis(groups, chosen[..., None], axis=-2)
    values, places = _repeated_maxima(candidates.reshape(*x.shape[:-1], -1), count)
    return values, jnp.take_along_axis(chosen, places // GROUP, axis=-1) * GROUP + places % GROUP


def _repeated_maxima(x: Array, count: int) -> tuple[Array, Array]:
    """As `largest`. The first maximum is that of `argmax`, which is several times slower on CPUs."""
    every, values, places = jnp.arange(x.shape[-1], dtype=jnp.int32), [], []
    for _ in range(count):
        values.append(jnp.max(x, axis=-1, keepdims=True))
        places.append(jnp.min(jnp.where(x == values[-1], every, len(every) - 1), axis=-1, keepdims=True))
        x = jnp.where(every == places[-1], -jnp.inf, x)
    return jnp.concatenate(values, axis=-1), jnp.concatenate(places, axis=-1)


def search(x: Array, entries: Array, beam: int, last: Array) -> Array:
    """Codes of `[b, f, d]` by all levels together, `[k, n, d]` entries `-> [k, b, f]` int32: a beam search.

    From level to level it keeps the `beam` sequences of codes whose sums are nearest to x. `last`, `[b]`: the number of
    the last level that counts. The nearest sequence up to there is final, and levels after it add to that alone.
    """
    best_alone = jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf)

    def extend(carry, inputs):
        residual, score = carry  # [b, f, beam, d]; [b, f, beam], half of the squared distance that a sequence removes
        level, index = inputs
        half_norms = 0.5 * jnp.sum(level**2, axis=-1)
        gain = jnp.einsum("...d,nd->...n", residual, level, precision=lax.Precision.HIGHEST) - half_norms
        extended = score[..., None] + gain
        score, chosen = largest(extended.reshape(*extended.shape[:2], -1), beam)
        before, code = chosen // len(level), chosen % len(level)
        residual = jnp.take_along_axis(residual, before[..., None], axis=2) - level[code]
        return (residual, score + jnp.where(index >= last[:, None, None], best_alone, 0.0)), (before, code)

    def trace_back(place, inputs):
        before, code = (jnp.take_along_axis(a, place[..., None], axis=-1)[..., 0] for a in inputs)
        return before, code

    residual = jnp.repeat(x[:, :, None], beam, axis=2)  # the same `beam` times, of which one counts
    score = jnp.broadcast_to(best_alone, residual.shape[:3])
    _, steps = lax.scan(extend, (residual, score), (entries, jnp.arange(len(entries))))
    return lax.scan(trace_back, jnp.zeros(x.shape[:2], jnp.int32), steps, reverse=True)[1].astype(jnp.int32)


def lookup(codes: Array, level: Levels) -> Array:
    """The vectors of one level's codes, at the latent's width: `[...] -> [..., c]`."""
    vectors = level.entries[codes]
    return vectors if level.out is None else level.out(vectors)


def unstack(stack: Stack) -> list[Levels]:
    """The stack's levels one by one, without the stacked axis."""
    return [jax.tree.map(lambda a, i=i: a[i], run) for run in stack.values() for i in range(run.entries.shape[0])]


# --- the stack ------------------------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """Statistics of one batch for k codebooks of one width, from which the moving averages are updated."""

    counts: Array  # [k, n] vectors that chose each entry
    sums: Array  # [k, n, d] sums of these vectors
    candidates: Array  # [k, n, d] random vectors of the batch, to replace dead entries


def joined(tally: Tally, other: Tally, part: Array, parts: int) -> Tally:
    """Add the tally of micro-batch number `part`. Each of the `parts` provides the candidates of some entries."""
    theirs = jnp.arange(tally.counts.shape[-1]) % parts == part
    candidates = jnp.where(theirs[:, None], other.candidates, tally.candidates)
    return Tally(tally.counts + other.counts, tally.sums + other.sums, candidates)


class Quantized(NamedTuple):
    """The result of quantizing `[b, f, c]` with k levels."""

    vectors: Array  # [b, f, c], straight-through
    first: Array  # [b, f, c or first_dim], the first level's vectors; the latent itself for items that use no level
    codes: Array  # [b, k, f] int32
    commitment: Array  # [b] squared distance that trains the encoder, mean over the levels in use
    codebook: Array | None  # [b] the same distance, to train the codebooks; None for moving averages
    tallies: dict[str, Tally]  # of each run of the stack


def quantize(
    x: Array, stack: Stack, normalised: bool, active: Array | None = None, key: Array | None = None, first: int = 0,
    beam: int = 1,
) -> Quantized:  # fmt: skip
    """Quantize `[b, f, c]` by every level of the stack in turn.

    active: `[b]` int, how many levels each item uses (0: none, the item passes unquantized); all when None.
    key: draws the `Tally.candidates`; required while training only.
    first: number of the stack's first level, above 0 if another stack has the levels before it.
    beam: above 1, `search` chooses the codes of each run, whose codebooks must be as wide as the latent.
    """
    b = x.shape[0]
    total = first + sum(run.entries.shape[0] for run in stack.values())
    active = jnp.full((b,), total) if active is None else active
    key = jax.random.key(0) if key is None else key

    def level_step(carry, inputs):
        residual, summed, of_first = carry
        level, index, codes = inputs
        used = (index < active).astype(x.dtype)  # [b]
        # `residual` and `detached` are equal; see the module's note on gradients
        detached = x - lax.stop_gradient(summed)
        z, committed = (residual, detached) if level.into is None else (level.into(residual), level.into(detached))
        if codes is None:
            codes = nearest(lax.stop_gradient(z), level.entries, normalised)
        entry = level.entries[codes]
        passed = lax.stop_gradient(entry) + (z - lax.stop_gradient(z))
        quantized = (passed if level.out is None else level.out(passed)) * used[:, None, None]

        commitment = jnp.mean((committed - lax.stop_gradient(entry)) ** 2, axis=(1, 2)) * used
        codebook = jnp.mean((lax.stop_gradient(z) - entry) ** 2, axis=(1, 2)) * used
        tally = _tally(lax.stop_gradient(z), codes, used, level.entries.shape[0], jax.random.fold_in(key, index))
        of_first = jnp.where(index == 0, quantized, of_first)
        return (residual - quantized, summed + quantized, of_first), (codes, commitment, codebook, tally)

    carry, collected = (x, jnp.zeros_like(x), jnp.zeros_like(x)), {}
    for name, run in stack.items():
        count, codes = run.entries.shape[0], None
        if beam > 1 and count > 1:
            codes = search(lax.stop_gradient(carry[0]), run.entries, beam, active - 1 - first)
        carry, collected[name] = lax.scan(level_step, carry, (run, first + jnp.arange(count), codes))
        first += count
    codes, commitment, codebook = (jnp.concatenate([run[i] for run in collected.values()]) for i in range(3))
    levels_used = jnp.maximum(active, 1).astype(x.dtype)
    quantized = (active > 0)[:, None, None]
    return Quantized(
        vectors=jnp.where(quantized, carry[1], x),
        first=jnp.where(quantized, carry[2], x),
        codes=codes.swapaxes(0, 1),
        commitment=commitment.sum(0) / levels_used,
        codebook=codebook.sum(0) / levels_used,
        tallies={name: run[3] for name, run in collected.items()},
    )


def _tally(z: Array, codes: Array, used: Array, entries: int, key: Array) -> Tally:
    """Counts, sums and random candidates of one level: z `[b, f, d]`, codes `[b, f]`, used `[b]`."""
    b, f, d = z.shape
    weight = jnp.broadcast_to(used[:, None], (b, f)).reshape(-1)
    flat, chosen = z.reshape(-1, d), codes.reshape(-1)
    counts = jax.ops.segment_sum(weight, chosen, entries)
    sums = jax.ops.segment_sum(flat * weight[:, None], chosen, entries)
    # The first of a few draws whose item uses this level. A weighted draw would gather the batch from all devices.
    draws = jax.random.randint(key, (entries, 8), 0, b * f)
    best = jnp.argmax(weight[draws], axis=-1)
    return Tally(counts, sums, flat[jnp.take_along_axis(draws, best[:, None], axis=-1)[:, 0]])


def dequantize(codes: Array, stack: Stack) -> Array:
    """Sum of the vectors of all levels' codes, `[b, k, f] -> [b, f, c]`, for any k up to the number of levels."""
    return sum(lookup(codes[:, i], level) for i, level in enumerate(unstack(stack)[: codes.shape[1]]))


# --- how codebooks move ---------------------------------------------------------------------------------------------


class Averages(NamedTuple):
    """Moving-average codebooks: k stacked codebooks. Each entry is the mean of the vectors that recently chose it."""

    entries: Array  # [k, n, d]
    counts: Array  # [k, n]
    sums: Array  # [k, n, d]


def move(averages: Averages, tally: Tally, decay: Array | float, revive: float) -> tuple[Averages, Array]:
    """One moving-average update, and the number of entries replaced, `[k]`.

    An entry whose count falls below `revive` times the mean count is dead. A vector of the batch replaces it, with the
    mean count. The rule does not depend on the size of the batch or codebook.
    """
    seen = jnp.sum(tally.counts, axis=-1, keepdims=True) > 0  # a level that no item used stays unchanged
    counts = jnp.where(seen, decay * averages.counts + (1 - decay) * tally.counts, averages.counts)
    sums = jnp.where(seen[..., None], decay * averages.sums + (1 - decay) * tally.sums, averages.sums)
    mean = jnp.mean(counts, axis=-1, keepdims=True)
    dead = seen & (counts < revive * mean)
    counts = jnp.where(dead, mean, counts)
    sums = jnp.where(dead[..., None], mean[..., None] * tally.candidates, sums)
    entries = jnp.where(counts[..., None] > 0, sums / jnp.maximum(counts, 1e-8)[..., None], averages.entries)
    return Averages(entries, counts, sums), jnp.sum(dead, axis=-1)


# --- how codebooks start --------------------------------------------------------------------------------------------


def kmeans(x: Array, entries: int, key: Array, iterations: int = 20) -> tuple[Array, Array]:
    """Lloyd's algorithm on `[m, d]`: centres `[entries, d]` and their counts `[entries]`.

    Centres start at random vectors. A centre without any vectors moves to another random one.
    """
    start_key, key = jax.random.split(key)

    def draw(key):
        return x[jax.random.randint(key, (entries,), 0, x.shape[0])]

    def assign(centres):
        codes = nearest(x, centres, normalised=False)
        counts = jax.ops.segment_sum(jnp.ones_like(codes, x.dtype), codes, entries)
        return counts, jax.ops.segment_sum(x, codes, entries)

    def lloyd(centres, key):
        counts, sums = assign(centres)
        means = sums / jnp.maximum(counts, 1)[:, None]
        return jnp.where(counts[:, None] > 0, means, draw(key)), None

    first = jax.random.choice(start_key, x, (entries,), replace=x.shape[0] < entries)
    centres, _ = lax.scan(lloyd, first, jax.random.split(key, iterations))
    return centres, assign(centres)[0]


def start(stack: Stack, x: Array, normalised: bool, key: Array) -> tuple[Stack, dict[str, Averages]]:
    """Set the codebooks from latents `[m, c]`, level by level, by k-means of each level's residual.

    If a level is narrower than the latent, its projections become the principal directions of the residual. Training
    from random codebooks instead is many times slower.
    """

    def start_level(residual: Array, inputs: tuple[Levels, Array]) -> tuple[Array, tuple[Levels, Averages]]:
        level, index = inputs
        if level.into is not None:
            level = level._replace(**_principal(residual, level.entries.shape[-1]))
        z = residual if level.into is None else level.into(residual)
        centres, counts = kmeans(z, level.entries.shape[0], jax.random.fold_in(key, index))
        level = level._replace(entries=centres)
        averages = Averages(centres, counts, centres * counts[:, None])
        return residual - lookup(nearest(z, centres, normalised), level), (level, averages)

    started, averages, first, residual = {}, {}, 0, x
    for name, run in stack.items():
        numbers = first + jnp.arange(run.entries.shape[0])
        residual, (started[name], averages[name]) = lax.scan(start_level, residual, (run, numbers))
        first += len(numbers)
    return started, averages


def _principal(x: Array, width: int) -> dict[str, Affine]:
    """Projections onto the first `width` principal directions of `[m, c]`, and back."""
    mean = jnp.mean(x, axis=0)
    _, directions = jnp.linalg.eigh(jnp.cov(x, rowvar=False))  # ascending
    basis = directions[:, -width:]
    return {"into": Affine(basis, -mean @ basis), "out": Affine(basis.T, mean)}


# --- the module -----------------------------------------------------------------------------------------------------


class ResidualQuantizer(nn.Module):
    """The stack of one stream. Moving-average entries are in the collection `codebook`, the rest in `params`."""

    config: Quantizer
    width: int  # of the latents

    def setup(self):
        levels, dim, first_dim = self.config.levels, self.config.dim, self.config.first_dim
        if first_dim:
            rest = self._run("rest", levels - 1, dim, self.width - first_dim)
            self.stacks = [{"first": self._run("first", 1, 0, first_dim)}, {"rest": rest}]
        else:
            self.stacks = [{"levels": self._run("levels", levels, dim, self.width)}]

    def _parts(self, x: Array) -> list[Array]:
        """The dimensions of latents `[..., c]` that each stack codes."""
        return jnp.split(x, [self.config.first_dim] if self.config.first_dim else [], axis=-1)

    def _run(self, name: str, levels: int, dim: int, width: int) -> Levels:
        shape = (levels, self.config.entries, dim or width)
        normal, zeros = nn.initializers.normal(1.0), nn.initializers.zeros
        linear = nn.initializers.lecun_normal(batch_axis=0)

        def averages():
            entries = normal(self.make_rng("params"), shape)
            return Averages(entries, jnp.ones(shape[:2]), jnp.copy(entries))

        if self.config.kind == "ema":
            entries = self.variable("codebook", name, averages).value.entries
        else:
            entries = self.param(f"{name}_entries", normal, shape)
        if not dim:
            return Levels(entries, None, None)

        def affine(side, width_in, width_out):
            return Affine(
                self.param(f"{name}_{side}_kernel", linear, (levels, width_in, width_out)),
                self.param(f"{name}_{side}_bias", zeros, (levels, width_out)),
            )

        levels = Levels(entries, affine("into", width, dim), affine("out", dim, width))
        # averages cannot keep up with trained projections: most of the k-means start is lost within 100 steps
        return lax.stop_gradient(levels) if self.config.kind == "ema" else levels

    def __call__(self, x: Array, active: Array | None = None, key: Array | None = None) -> Quantized:
        active = jnp.full(x.shape[:1], self.config.levels) if active is None else active
        parts = [
            quantize(part, stack, self.config.kind == "factorised", active, key, first, self.config.beam)
            for first, (part, stack) in enumerate(zip(self._parts(x), self.stacks, strict=True))
        ]
        return Quantized(
            vectors=jnp.concatenate([part.vectors for part in parts], axis=-1),
            first=parts[0].first,
            codes=jnp.concatenate([part.codes for part in parts], axis=1),
            commitment=sum(part.commitment for part in parts),
            codebook=None if self.config.kind == "ema" else sum(part.codebook for part in parts),
            tallies={name: tally for part in parts for name, tally in part.tallies.items()},
        )

    def vectors(self, codes: Array) -> Array:
        """The vectors of codes `[b, k, f]`, for any number k of levels: `[b, f, c]`."""
        if not self.config.first_dim:
            return dequantize(codes, self.stacks[0])
        first = dequantize(codes[:, :1], self.stacks[0])
        without_rest = jnp.zeros((*first.shape[:-1], self.width - self.config.first_dim))
        rest = dequantize(codes[:, 1:], self.stacks[1]) if codes.shape[1] > 1 else without_rest
        return jnp.concatenate([first, rest], axis=-1)

    def started(self, x: Array, key: Array) -> tuple[dict, dict]:
        """This stream's `params` and `codebook` after `start` on latents `[b, f, c]`."""
        params, averages = {}, {}
        for part, stack in zip(self._parts(x.reshape(-1, x.shape[-1])), self.stacks, strict=True):
            runs, moments = start(stack, part, self.config.kind == "factorised", key)
            averages |= moments
            for name, run in runs.items():
                if self.config.kind == "factorised":
                    params[f"{name}_entries"] = run.entries
                for side in ("into", "out"):
                    affine = getattr(run, side)
                    if affine is not None:
                        params[f"{name}_{side}_kernel"], params[f"{name}_{side}_bias"] = affine
        return params, averages if self.config.kind == "ema" else {}
