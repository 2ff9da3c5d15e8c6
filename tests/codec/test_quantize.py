import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.codec import quantize as q
from decodec_jax.codec.quantize import Affine, Averages, Levels, ResidualQuantizer, Tally
from decodec_jax.config import Quantizer
from decodec_jax.testing import random_variables

WIDTH, ENTRIES = 6, 8
_quantize = jax.jit(q.quantize, static_argnums=2)  # compiled once for all tests
start = jax.jit(q.start, static_argnums=2)
kmeans = jax.jit(q.kmeans, static_argnums=(1, 3))


def quantize(x, stack, normalised, active=(3, 3, 3), key=0):
    return _quantize(x, stack, normalised, jnp.array(active), jax.random.key(key))


def make_levels(rng, count, dim=0):
    """Levels at random: codebooks as wide as the latent, or of width `dim` behind projections."""
    entries = rng.standard_normal((count, ENTRIES, dim or WIDTH))
    if not dim:
        return Levels(jnp.float32(entries), None, None)
    into = Affine(rng.standard_normal((count, WIDTH, dim)), rng.standard_normal((count, dim)))
    out = Affine(0.3 * rng.standard_normal((count, dim, WIDTH)), 0.3 * rng.standard_normal((count, WIDTH)))
    return jax.tree.map(jnp.float32, Levels(entries, into, out))


STACKS = {
    "full width": lambda rng: {"levels": make_levels(rng, 3)},
    "projected": lambda rng: {"levels": make_levels(rng, 3, 2)},
    "wide first level": lambda rng: {"first": make_levels(rng, 1, 4), "rest": make_levels(rng, 2, 2)},
}


@pytest.fixture(params=STACKS)
def stack(request, rng):
    return STACKS[request.param](rng)


@pytest.fixture
def x(rng):
    return jnp.float32(rng.standard_normal((3, 5, WIDTH)))


def by_hand(x, stack, normalised, active):
    """Residual quantization spelled out, one vector at a time, in float64."""
    levels = [jax.tree.map(np.float64, level) for level in q.unstack(stack)]
    x = np.float64(x)
    vectors, codes, distance = np.zeros_like(x), np.zeros((x.shape[0], len(levels), x.shape[1]), int), np.zeros(len(x))
    for b, item in enumerate(x):
        for f, vector in enumerate(item):
            residual = vector.copy()
            for k, (entries, into, out) in enumerate(levels):
                z = residual if into is None else residual @ into.kernel + into.bias
                if normalised:
                    similarity = [z @ e / np.linalg.norm(e) for e in entries]
                    code = int(np.argmax(similarity))
                else:
                    code = int(np.argmin([np.sum((z - e) ** 2) for e in entries]))
                codes[b, k, f] = code
                if k < active[b]:
                    residual = residual - (entries[code] if out is None else entries[code] @ out.kernel + out.bias)
                    distance[b] += np.mean((z - entries[code]) ** 2) / item.shape[0]
            vectors[b, f] = vector - residual if active[b] else vector
    return vectors, codes, distance / np.maximum(active, 1)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("active", [(3, 3, 3), (3, 1, 0), (2, 2, 3)])
def test_quantize_equals_the_loop_written_by_hand(stack, x, normalised, active):
    vectors, codes, distance = by_hand(x, stack, normalised, active)
    outcome = quantize(x, stack, normalised, active)
    np.testing.assert_array_equal(outcome.codes, codes)
    assert outcome.codes.dtype == jnp.int32
    np.testing.assert_allclose(outcome.vectors, vectors, atol=1e-5)
    np.testing.assert_allclose(outcome.commitment, distance, rtol=1e-4)
    np.testing.assert_allclose(outcome.codebook, distance, rtol=1e-4)


def test_all_levels_are_in_use_unless_said_otherwise(x, rng):
    stack = {"levels": make_levels(rng, 3)}
    jax.tree.map(np.testing.assert_array_equal, q.quantize(x, stack, False).codes, quantize(x, stack, False).codes)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_dequantize_gives_the_vectors_of_any_number_of_levels(stack, x, count):
    outcome = quantize(x, stack, False, (count,) * 3)
    np.testing.assert_allclose(q.dequantize(outcome.codes[:, :count], stack), outcome.vectors, atol=1e-5)


@pytest.mark.parametrize("normalised", [False, True])
def test_nearest_equals_brute_force_also_for_close_entries(rng, normalised):
    x = jnp.float32(rng.standard_normal((2, 50, 16)))
    entries = jnp.float32(1 + 0.03 * rng.standard_normal((200, 16)))
    ours = q.nearest(x, entries, normalised)
    a, b = np.float64(x), np.float64(entries)
    if normalised:
        a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b, axis=-1, keepdims=True)
    np.testing.assert_array_equal(ours, np.argmin(np.sum((a[..., None, :] - b) ** 2, -1), -1))


@pytest.mark.parametrize(("n", "count"), [(256, 1), (256, 8), (256, 9), (100, 4)])
def test_largest_equals_top_k(rng, n, count):
    x = rng.permutation(7 * n).reshape(7, n).astype(np.float32)
    for ours, theirs in zip(q.largest(x, count), jax.lax.top_k(x, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_beam_that_keeps_every_sequence_finds_the_nearest_sum(x, rng):
    levels = make_levels(rng, 3)
    codes = q.search(x, levels.entries, ENTRIES**2, jnp.array([2, 2, 2]))
    grid = np.stack(np.meshgrid(*[np.arange(ENTRIES)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sums = sum(np.asarray(levels.entries)[k][grid[:, k]] for k in range(3))
    distances = np.sum((np.asarray(x)[:, :, None] - sums) ** 2, axis=-1)
    np.testing.assert_array_equal(np.moveaxis(codes, 0, -1), grid[np.argmin(distances, axis=-1)])


def test_a_wider_beam_comes_nearer(rng):
    levels = Levels(make_levels(rng, 4).entries * jnp.array([1, 0.7, 0.5, 0.35])[:, None, None], None, None)
    x = jnp.float32(rng.standard_normal((3, 200, WIDTH)))
    errors = [jnp.mean((q.quantize(x, {"levels": levels}, False, beam=b).vectors - x) ** 2) for b in (1, 2, 4)]
    assert errors[0] > 1.05 * errors[1] > 1.05**2 * errors[2]


def test_a_beam_ends_at_the_last_level_in_use(x, rng):
    stack = {"levels": make_levels(rng, 3)}
    outcome = q.quantize(x, stack, False, jnp.array([3, 2, 0]), beam=4)
    fewer = {"levels": jax.tree.map(lambda a: a[:2], stack["levels"])}
    np.testing.assert_array_equal(outcome.codes[1, :2], q.quantize(x, fewer, False, beam=4).codes[1])
    np.testing.assert_allclose(outcome.vectors[1], q.dequantize(outcome.codes[1:2, :2], fewer)[0], atol=1e-6)
    np.testing.assert_array_equal(outcome.vectors[2], x[2])


def test_a_beam_passes_the_gradient_exactly_once(x, rng):
    stack = {"levels": make_levels(rng, 3)}
    gradient = jax.grad(lambda x: jnp.sum(q.quantize(x, stack, False, beam=3).vectors))(x)
    np.testing.assert_allclose(gradient, 1.0, atol=1e-6)


def test_one_scan_of_three_levels_equals_three_runs_of_one_level(x, rng):
    together = {"levels": make_levels(rng, 3, 2)}
    apart = {f"run{i}": jax.tree.map(lambda a, i=i: a[i : i + 1], together["levels"]) for i in range(3)}
    one, three = (quantize(x, stack, True, (3, 2, 0), key=7) for stack in (together, apart))
    for name in ("vectors", "codes", "commitment", "codebook"):
        np.testing.assert_allclose(getattr(one, name), getattr(three, name), atol=1e-5)
    tallies = jax.tree.map(lambda *runs: jnp.concatenate(runs), *three.tallies.values())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.tallies["levels"], tallies)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", [(3, 3, 3), (1, 2, 3), (0, 0, 3)])
def test_full_width_stack_passes_the_gradient_exactly_once(x, rng, active):
    stack, pull = {"levels": make_levels(rng, 3)}, jnp.float32(rng.standard_normal(x.shape))
    gradient = jax.grad(lambda x: jnp.vdot(quantize(x, stack, False, active).vectors, pull))(x)
    np.testing.assert_allclose(gradient, pull, atol=1e-6)


def test_commitment_grows_with_the_scale_which_nothing_else_holds(x, rng):
    stack = {"levels": make_levels(rng, 3)}
    larger = {"levels": stack["levels"]._replace(entries=3 * stack["levels"].entries)}
    one, other = quantize(x, stack, False).commitment, quantize(3 * x, larger, False).commitment
    np.testing.assert_allclose(other, 9 * one, rtol=1e-5)


def test_every_level_commits_the_encoder(x, rng):
    # in encodec issue 25 the straight-through terms cancel, and levels from the second on pull at nothing
    stack = {"levels": make_levels(rng, 3)}
    gradient = jax.grad(lambda x: quantize(x, stack, False).commitment.sum())(x)
    codes = quantize(x, stack, False).codes
    left = [x - q.dequantize(codes[:, : k + 1], stack) for k in range(3)]  # what level k leaves over
    per_level = [2 * np.asarray(r) / (5 * WIDTH) / 3 for r in left]
    np.testing.assert_allclose(gradient, sum(per_level), atol=1e-5)
    assert np.abs(per_level[1]).max() > 1e-3 and np.abs(per_level[2]).max() > 1e-3


def test_reconstruction_trains_projections_and_only_the_codebook_loss_trains_entries(x, rng):
    stack = {"first": make_levels(rng, 1, 4), "rest": make_levels(rng, 2, 2)}

    def gradient_of(loss):
        return jax.grad(lambda stack: loss(quantize(x, stack, True)))(stack)

    reconstruction = gradient_of(lambda outcome: jnp.sum((outcome.vectors - x) ** 2))
    commitment = gradient_of(lambda outcome: outcome.commitment.sum())
    codebook = gradient_of(lambda outcome: outcome.codebook.sum())
    for run in stack:
        for affine in (reconstruction[run].into, reconstruction[run].out):
            assert np.all(np.abs(affine.kernel).max(axis=(1, 2)) > 0)
        assert np.all(np.abs(commitment[run].into.kernel).max(axis=(1, 2)) > 0)
        assert np.all(np.abs(codebook[run].entries).max(axis=(1, 2)) > 0)
        assert not np.any(reconstruction[run].entries) and not np.any(commitment[run].entries)
        assert not np.any(codebook[run].into.kernel)


@pytest.mark.parametrize(("kind", "trained"), [("ema", set()), ("factorised", {"levels_entries"})])
def test_moving_average_entries_are_no_parameters_and_factorised_ones_are(kind, trained):
    module = ResidualQuantizer(Quantizer(kind=kind, levels=3, entries=8), WIDTH)
    variables = random_variables(module, jnp.zeros((1, 2, WIDTH)))
    assert set(variables.get("params", {})) == trained
    assert set(variables.get("codebook", {})) == ({"levels"} if kind == "ema" else set())


@pytest.mark.parametrize(("dim", "kind"), [(0, "ema"), (0, "factorised"), (2, "factorised")])
def test_the_first_level_may_have_dimensions_to_itself(x, rng, dim, kind):
    module = ResidualQuantizer(Quantizer(kind=kind, levels=3, entries=8, dim=dim, first_dim=2), WIDTH)
    variables = random_variables(module, x)
    entries = {name: a.shape for name, a in variables.get("params", {}).items() if name.endswith("entries")}
    entries = entries or {f"{name}_entries": a.entries.shape for name, a in variables["codebook"].items()}
    assert entries == {"first_entries": (1, 8, 2), "rest_entries": (2, 8, dim or WIDTH - 2)}

    apply = jax.jit(lambda x, active: module.apply(variables, x, active))
    whole = apply(x, jnp.array([3, 3, 3]))
    assert whole.codes.shape == (3, 3, 5) and whole.first.shape == (3, 5, 2)
    noise = jnp.float32(rng.standard_normal(x.shape))
    same_first = apply(x.at[..., 2:].set(noise[..., 2:]), jnp.array([3, 3, 3]))
    same_rest = apply(x.at[..., :2].set(noise[..., :2]), jnp.array([3, 3, 3]))
    np.testing.assert_array_equal(same_first.codes[:, 0], whole.codes[:, 0])
    np.testing.assert_array_equal(same_rest.codes[:, 1:], whole.codes[:, 1:])
    np.testing.assert_array_equal(whole.vectors[..., :2], whole.first)
    vectors = module.apply(variables, whole.codes, method="vectors")
    np.testing.assert_allclose(vectors, whole.vectors, atol=1e-6)

    fewer = apply(x, jnp.array([0, 1, 2]))
    np.testing.assert_array_equal(fewer.vectors[0], x[0])
    assert not np.any(fewer.vectors[1, :, 2:]) and np.any(fewer.vectors[2, :, 2:])
    alone = module.apply(variables, whole.codes[:, :1], method="vectors")
    np.testing.assert_allclose(alone[1], fewer.vectors[1], atol=1e-6)


# --- levels left out ------------------------------------------------------------------------------------------------


def test_no_level_in_use_passes_the_item_and_leaves_the_statistics_alone(x, stack):
    outcome = quantize(x, stack, False, (0, 0, 0))
    np.testing.assert_array_equal(outcome.vectors, x)
    np.testing.assert_array_equal(outcome.commitment, np.zeros(3))
    for tally in outcome.tallies.values():
        assert not np.any(tally.counts) and not np.any(tally.sums)


def test_only_items_that_use_a_level_count_in_its_statistics(x, stack):
    outcome = quantize(x, stack, False, (1, 3, 0))
    counts = np.concatenate([tally.counts for tally in outcome.tallies.values()])
    np.testing.assert_array_equal(counts.sum(axis=1), [2 * 5, 5, 5])  # frames of the items that use each level
    codes = np.asarray(outcome.codes)
    for k, items in enumerate([(0, 1), (1,), (1,)]):
        np.testing.assert_array_equal(counts[k], np.bincount(codes[list(items), k].ravel(), minlength=ENTRIES))


def test_sums_are_of_the_vectors_that_chose_an_entry(x, rng):
    stack = {"levels": make_levels(rng, 1)}
    outcome = quantize(x, stack, False)
    for entry in range(ENTRIES):
        chosen = np.asarray(x)[np.asarray(outcome.codes[:, 0]) == entry]
        np.testing.assert_allclose(outcome.tallies["levels"].sums[0, entry], chosen.sum(axis=0), atol=1e-5)


# --- codebooks move ---------------------------------------------------------------------------------------------------


def make_averages(rng, counts):
    counts = jnp.float32(counts)
    entries = jnp.float32(rng.standard_normal((*counts.shape, WIDTH)))
    return Averages(entries, counts, entries * counts[..., None])


def test_move_is_the_moving_average_of_the_vectors_that_chose_an_entry(rng):
    averages = make_averages(rng, [[4, 5, 6, 5]])
    seen = [rng.standard_normal((n, WIDTH)) for n in (3, 9, 2, 6)]
    tally = Tally(
        jnp.float32([[len(s) for s in seen]]), jnp.float32([[s.sum(0) for s in seen]]), jnp.zeros((1, 4, WIDTH))
    )
    moved, replaced = q.move(averages, tally, decay=0.9, revive=0.1)
    assert replaced.tolist() == [0]
    for i, vectors in enumerate(seen):
        count = 0.9 * averages.counts[0, i] + 0.1 * len(vectors)
        total = 0.9 * averages.counts[0, i] * averages.entries[0, i] + 0.1 * vectors.sum(0)
        np.testing.assert_allclose(moved.counts[0, i], count, rtol=1e-6)
        np.testing.assert_allclose(moved.entries[0, i], total / count, atol=1e-6)


def test_repeated_moves_end_at_the_means_of_the_clusters(rng):
    averages, centres = make_averages(rng, [[1, 1]]), jnp.float32(rng.standard_normal((1, 2, WIDTH)))
    tally = Tally(jnp.float32([[7, 3]]), centres * jnp.float32([7, 3])[:, None], jnp.zeros((1, 2, WIDTH)))
    for _ in range(60):
        averages, _ = q.move(averages, tally, decay=0.8, revive=0.1)
    np.testing.assert_allclose(averages.entries, centres, atol=1e-4)
    np.testing.assert_allclose(averages.counts, [[7, 3]], atol=1e-4)


def test_dead_entries_become_vectors_of_the_batch_and_are_counted_per_level(rng):
    averages = make_averages(rng, [[10, 10, 0.1, 10], [5, 5, 5, 5]])
    candidates = jnp.float32(rng.standard_normal((2, 4, WIDTH)))
    counts = jnp.float32([[10, 10, 0, 10], [5, 5, 5, 5]])
    tally = Tally(counts, averages.entries * counts[..., None], candidates)
    moved, replaced = q.move(averages, tally, decay=0.9, revive=0.2)
    assert replaced.tolist() == [1, 0]
    np.testing.assert_allclose(moved.entries[0, 2], candidates[0, 2], atol=1e-6)
    np.testing.assert_allclose(moved.counts[0, 2], (30 + 0.09) / 4, rtol=1e-6)  # an even share, so that it may live
    rest = np.array([[True, True, False, True], [True] * 4])
    np.testing.assert_allclose(moved.entries[rest], averages.entries[rest], atol=1e-6)
    assert q.move(moved, tally, decay=0.9, revive=0.2)[1].tolist() == [0, 0]


def test_a_level_nobody_used_stays_as_it_is(rng):
    averages = make_averages(rng, [[3, 0.01, 2], [3, 1, 2]])
    counts = jnp.float32([[0, 0, 0], [1, 1, 1]])
    tally = Tally(counts, counts[..., None] * jnp.ones(WIDTH), jnp.ones((2, 3, WIDTH)))
    moved, replaced = q.move(averages, tally, decay=0.9, revive=0.1)
    assert replaced.tolist() == [0, 0]
    for before, after in zip(averages, moved, strict=True):
        np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
        assert not np.allclose(after[1], before[1])


# --- codebooks start --------------------------------------------------------------------------------------------------


def test_kmeans_finds_every_distinct_vector(rng):
    distinct = 3 * rng.standard_normal((6, WIDTH))
    x = jnp.float32(distinct[rng.integers(0, 6, 200)])
    centres, counts = kmeans(x, 6, jax.random.key(0), 50)
    order = np.argmin(np.sum((distinct[:, None] - np.asarray(centres)) ** 2, -1), -1)
    assert sorted(order) == list(range(6))
    np.testing.assert_allclose(centres[order], distinct, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(counts)[order], [np.sum(np.all(x == np.float32(d), -1)) for d in distinct])


def test_kmeans_recovers_well_separated_clusters(rng):
    means = 10 * np.eye(4, WIDTH)
    x = np.repeat(means, 50, axis=0) + 0.1 * rng.standard_normal((200, WIDTH))
    centres, counts = kmeans(jnp.float32(x), 12, jax.random.key(1))
    distance = np.linalg.norm(means[:, None] - np.asarray(centres), axis=-1)
    assert np.all(distance.min(axis=1) < 0.3) and np.all(distance.min(axis=0) < 0.5)
    assert counts.sum() == 200


def test_kmeans_takes_fewer_vectors_than_entries(rng):
    centres, counts = kmeans(jnp.float32(rng.standard_normal((3, WIDTH))), 8, jax.random.key(0))
    assert np.all(np.isfinite(centres)) and counts.sum() == 3


def power_left(x, stack, normalised, levels):
    left = x - quantize(x, stack, normalised, (levels,) * 3).vectors
    return float(jnp.mean(left**2) / jnp.mean(x**2))


def test_start_lowers_the_residual_level_by_level_and_beats_random_codebooks(rng, stack):
    normalised = "first" in stack
    x = jnp.float32(rng.standard_normal((3, 100, WIDTH)) * np.linspace(0.2, 2, WIDTH) + 1)
    started, _ = start(stack, x.reshape(-1, WIDTH), normalised, jax.random.key(0))
    left = [1.0] + [power_left(x, started, normalised, levels) for levels in (1, 2, 3)]
    assert left[0] > left[1] > left[2] > left[3]
    assert left[3] < 0.5 * power_left(x, stack, normalised, 3)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), started, stack)


@pytest.mark.parametrize("dim", [0, 2])
@pytest.mark.parametrize("kind", ["ema", "factorised"])
def test_started_gives_every_variable_of_the_quantizer_in_its_shape(rng, kind, dim):
    module = ResidualQuantizer(Quantizer(kind=kind, levels=2, entries=8, dim=dim, first_dim=dim), WIDTH)
    x = jnp.float32(rng.standard_normal((2, 30, WIDTH)))
    variables = random_variables(module, x)
    params, codebook = jax.jit(lambda x: module.apply(variables, x, jax.random.key(1), method="started"))(x)
    fresh = {name: tree for name, tree in (("params", params), ("codebook", codebook)) if tree}
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, variables)
    for averages in codebook.values():
        np.testing.assert_allclose(averages.counts.sum(axis=-1), 60)
        np.testing.assert_allclose(averages.sums, averages.entries * averages.counts[..., None], atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "factorised"])
def test_projections_learn_where_their_codebooks_learn_too(rng, kind):
    module = ResidualQuantizer(Quantizer(kind=kind, levels=2, entries=8, dim=2), WIDTH)
    x = jnp.float32(rng.standard_normal((2, 30, WIDTH)))
    variables = random_variables(module, x)

    def loss(params, x):
        quantized = module.apply(variables | {"params": params}, x)
        distances = [quantized.commitment] if kind == "ema" else [quantized.commitment, quantized.codebook]
        return jnp.sum(quantized.vectors**2) + sum(map(jnp.sum, distances))

    of_params, of_latent = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], x)
    assert np.any(of_latent)
    assert all(np.any(gradient) == (kind == "factorised") for gradient in jax.tree.leaves(of_params))


def test_start_from_silence_is_finite(stack):
    started = start(stack, jnp.zeros((300, WIDTH)), "first" in stack, jax.random.key(0))
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(started))


def test_tallies_of_micro_batches_add_up_and_candidates_are_of_all():
    parts = [Tally(jnp.full((2, 4), i + 1.0), jnp.full((2, 4, WIDTH), i + 1.0), jnp.full((2, 4, WIDTH), float(i)))
             for i in range(2)]  # fmt: skip
    joined = jax.tree.map(jnp.zeros_like, parts[0])
    for i, part in enumerate(parts):
        joined = q.joined(joined, part, i, len(parts))
    assert np.all(joined.counts == 3) and np.all(joined.sums == 3)
    np.testing.assert_array_equal(joined.candidates[1, :, 0], [0, 1, 0, 1])
