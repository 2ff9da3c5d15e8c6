"""One update: what it leaves alone, what it does on any number of devices, and that it learns."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import DeCodecNetwork, Halves, swap
from decodec_jax.config import Mesh
from decodec_jax.errors import UserError
from decodec_jax.objective.teacher import CepstraTeacher
from decodec_jax.training import sharding, state
from decodec_jax.training.step import bypassing, cost, levels_in_use, make_train_step


def prepared(config):
    """Mesh, state and placed batch, codebooks in use from the first step."""
    config.train.continuous_steps = 0
    mesh = sharding.make_mesh(config.mesh, config.data.batch, config.train.accumulate)
    fresh = state.fresh(config)
    placed = jax.device_put(fresh, sharding.layout(fresh, mesh, config.mesh.fsdp_from))
    return mesh, placed, sharding.place(testing.training_batch(config), mesh)


def teacher_of(config):
    return CepstraTeacher() if config.loss.guidance else None


def two_steps(mesh_config, remat=False):
    """The whole objective with both kinds of codebook: what two steps leave and say, and the compiled step."""
    config = testing.full_config(
        speech=testing.tiny_quantizer(kind="ema", first_dim=6),
        background=testing.tiny_quantizer(kind="factorised", dim=4),
        dilations=(1,), decoder_lstm=False,
    )  # fmt: skip
    config.model.patch, config.model.strides = 32, (10,)  # what is less is sooner compiled
    config.loss.mel_windows, config.loss.mel_bands = (64,), (10,)
    config.data.batch = 8
    config.optim.lr = 3e-5  # Adam makes whole steps of gradients that are nothing but rounding
    config.mesh, config.train.remat = mesh_config, remat
    mesh, current, batch = prepared(config)
    layout = sharding.layout(current, mesh, mesh_config.fsdp_from)
    step = make_train_step(config, mesh).lower(current, batch, teacher_of(config)).compile()
    for _ in range(2):
        current, metrics = step(current, batch, teacher_of(config))
    same = jax.tree.map(lambda array, lay: array.sharding.is_equivalent_to(lay, array.ndim), current, layout)
    assert all(jax.tree.leaves(same))
    return current, metrics, step


@pytest.fixture(scope="module")
def on_one_device():
    return jax.device_get(two_steps(Mesh(data=1))[:2])


def assert_but_for_rounding(one, other, to=1e-5):
    def assert_close(a, b):
        # rounding is that of an array's largest entries, which the smaller ones were summed with
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=to * max(1, np.max(np.abs(a), initial=0)))

    jax.tree.map(assert_close, jax.device_get(one), jax.device_get(other))


def sizes(shape) -> tuple[int, ...]:
    """A shape in whatever order the compiler has its dimensions."""
    return tuple(sorted(size for size in shape if size > 1))


def gathered(hlo: str) -> set[tuple[int, ...]]:
    """What a compiled program gathers from several devices."""
    results = [line.split(" all-gather")[0] for line in hlo.splitlines() if re.search(r" all-gather(-start)?\(", line)]
    return {sizes(map(int, filter(None, dims.split(",")))) for r in results for dims in re.findall(r"\[([\d,]*)\]", r)}


@pytest.mark.parametrize(
    ("config", "splitting", "remat"),
    [
        (Mesh(data=8), set(), False),
        (Mesh(2, fsdp=2, model=2, fsdp_from=64), {"fsdp", "model"}, True),
    ],
    ids=["data", "mixed and remat"],
)
def test_eight_devices_do_what_one_does_and_gather_no_activations(config, splitting, remat, on_one_device):
    """The batch stays where it is: jaxlib < 0.12 would gather it for the FFT."""
    current, metrics, step = two_steps(config, remat)
    moments = {"optimizer": (), "discriminator_optimizer": ()}
    (alone, alone_metrics), (split, split_metrics) = on_one_device, (current, metrics)
    assert_but_for_rounding((alone.replace(**moments), alone_metrics), (split.replace(**moments), split_metrics))
    for name in moments:  # gradients pass the logarithms of masks and of mel bands, which magnify rounding
        assert_but_for_rounding(getattr(alone, name), getattr(split, name), to=3e-5)
    mesh = sharding.make_mesh(config, 8)
    at_rest, in_use = (sharding.layout(current, mesh, *least) for least in ((config.fsdp_from,), ()))
    assert {axis for lay in jax.tree.leaves(at_rest) for axis in lay.spec if axis} == splitting
    arrays = zip(jax.tree.leaves(current), jax.tree.leaves(in_use), strict=True)
    of_the_state = {sizes(lay.shard_shape(array.shape)) for array, lay in arrays}
    hlo = step.as_text()
    assert "all-reduce" in hlo
    assert "all-to-all" not in hlo
    assert gathered(hlo) <= (of_the_state if "fsdp" in splitting else set())
    assert re.search(r"\d+ MiB of memory, \d+ of them state and batch; at least [\d.]+ GFLOP", cost(step))


def test_a_backend_that_tells_no_cost_is_no_error():
    assert "does not tell" in cost(SimpleNamespace(memory_analysis=lambda: None, cost_analysis=lambda: None))


def test_remat_is_of_every_block(tiny_model, tiny_network):
    _, variables = tiny_network
    wave = jnp.zeros((1, tiny_model.hop))
    for remat in (False, True):
        forward = str(jax.make_jaxpr(DeCodecNetwork(tiny_model, remat).apply)(variables, wave))
        assert len(re.findall(r"= (?:remat2?|checkpoint)\[", forward)) == remat * 2 * len(tiny_model.strides)


@pytest.mark.parametrize(
    ("mesh", "batch", "accumulate", "named"),
    [
        (Mesh(data=3), 8, 1, "data.batch is 8; it must be a multiple of 3"),
        (Mesh(data=2, fsdp=2), 8, 4, "a multiple of 16: 4 devices .* train.accumulate=4"),
        (Mesh(data=-1, fsdp=-1), 8, 1, "mesh.fsdp=-1"),
        (Mesh(data=0), 8, 1, "mesh.data=0"),
        (Mesh(data=-1, fsdp=3), 8, 1, "does not fit the devices, of which there are 8"),
        (Mesh(data=4, fsdp=4), 16, 1, "does not fit the devices, of which there are 8"),
    ],
)
def test_a_mesh_that_cannot_be_is_named(mesh, batch, accumulate, named):
    with pytest.raises(UserError, match=named):
        sharding.make_mesh(mesh, batch, accumulate)


@pytest.mark.parametrize("make_config", [testing.tiny_config, testing.full_config])
def test_a_batch_with_nan_changes_nothing_but_the_count(make_config):
    config = make_config()
    mesh, current, batch = prepared(config)
    step, teacher = make_train_step(config, mesh), teacher_of(config)
    current, _ = step(current, batch, teacher)  # so that optimizers and averages hold something
    before = jax.device_get(current)
    broken = batch | {"mixture": batch["mixture"].at[0, 0, 0].set(jnp.nan)}
    current, metrics = step(current, broken, teacher)
    assert metrics["not_finite"] == 1
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(current.replace(step=before.step)), before)
    assert current.step == before.step + 1
    silent, metrics = step(current, jax.tree.map(jnp.zeros_like, batch), teacher)  # an ordinary batch
    assert metrics["not_finite"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(silent)))


def judged_by_periods():
    """`testing.full_config()` with one discriminator, as most of its compilation is theirs."""
    config = testing.full_config()
    config.discriminator = testing.tiny_discriminator(rates=(), windows=(), stft_windows=())
    return config


def test_discriminators_learn_from_their_start_on():
    config = judged_by_periods()
    config.optim.warmup = 0  # which begins at a rate of 0
    mesh, current, batch = prepared(config)
    before = jax.device_get(current)
    for adversarial in (False, True):
        step = make_train_step(config, mesh, adversarial)
        current, metrics = step(current, batch, teacher_of(config))
        unchanged = jax.tree.map(np.array_equal, before.discriminators, jax.device_get(current.discriminators))
        assert all(jax.tree.leaves(unchanged)) != adversarial
        assert ("loss/adversarial" in metrics) == ("loss/discriminator" in metrics) == adversarial


def test_each_side_learns_from_its_own_loss_alone():
    """What the generator is to do enters no discriminator's gradient, nor the other way round."""
    def after_a_step(change):
        config = judged_by_periods()
        config.optim.warmup = 0
        change(config)
        mesh, current, batch = prepared(config)
        current, _ = make_train_step(config, mesh)(current, batch, teacher_of(config))
        return jax.device_get(current)

    def more_matching(config):
        config.loss.feature, config.loss.adversarial = 20.0, 10.0

    def faster_discriminators(config):
        config.discriminator.lr = 1e-2

    matching, faster = after_a_step(more_matching), after_a_step(faster_discriminators)
    plain = after_a_step(lambda config: None)
    assert_same(plain.discriminators, matching.discriminators)
    assert_same(plain.params, faster.params)
    for one, other in ((plain.params, matching.params), (plain.discriminators, faster.discriminators)):
        with pytest.raises(AssertionError):
            assert_same(one, other)


def assert_same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_guidance_brings_the_first_level_towards_the_teacher():
    config = testing.full_config()
    config.loss.adversarial = config.loss.feature = 0.0
    config.loss.guidance = 500.0
    config.optim.lr = 1e-2
    mesh, current, batch = prepared(config)
    step, cosines = make_train_step(config, mesh), []
    for _ in range(40):
        current, metrics = step(current, batch, teacher_of(config))
        cosines.append(float(metrics["cosine"]))
    assert np.mean(cosines[-5:]) > np.mean(cosines[:5]) + 0.1


def test_the_balancer_keeps_the_norms_of_all_terms_of_the_waveform():
    config = judged_by_periods()
    config.loss.balance = 1.0
    mesh, current, batch = prepared(config)
    names = set(current.gradient_norms)
    assert names == {"wave_own", "wave_swap", "mel_own", "mel_swap", "adversarial", "feature"}
    current, metrics = make_train_step(config, mesh)(current, batch, teacher_of(config))
    assert metrics["not_finite"] == 0
    assert all(norm[0] > 0 for norm in jax.device_get(current.gradient_norms).values())


def test_it_learns_one_batch_by_heart(tiny_config):
    tiny_config.train.continuous_steps = 10**6
    tiny_config.optim.lr = 3e-3
    mesh = sharding.make_mesh(tiny_config.mesh, tiny_config.data.batch)
    current = state.fresh(tiny_config)
    batch = sharding.place(testing.training_batch(tiny_config), mesh)
    step = make_train_step(tiny_config, mesh)
    losses = []
    for _ in range(60):
        current, metrics = step(current, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


@pytest.mark.parametrize("weight", ["wave_own", "mel_own", "wave_swap", "mel_swap", "perp", "commitment"])
def test_a_weight_of_zero_removes_its_term(tiny_config, weight):
    setattr(tiny_config.loss, weight, 0.0)
    mesh, current, batch = prepared(tiny_config)
    _, metrics = jax.eval_shape(make_train_step(tiny_config, mesh), current, batch)
    assert f"loss/{weight}" not in metrics
    assert len([name for name in metrics if name.startswith("loss/")]) == 5


def test_without_swapping_nothing_swapped_is_decoded(tiny_config):
    """Ablation-1: half the decoder's work disappears, not only its weight."""
    def flops(config):
        mesh, current, batch = prepared(config)
        return make_train_step(config, mesh).lower(current, batch).cost_analysis()["flops"]

    both = flops(tiny_config)
    tiny_config.loss.wave_swap = tiny_config.loss.mel_swap = 0.0
    assert flops(tiny_config) < 0.75 * both


def test_swapped_targets_are_what_swapping_the_parts_makes(tiny_config):
    batch = testing.training_batch(tiny_config)
    flat = {name: array.reshape(-1, array.shape[-1]) for name, array in batch.items()}
    np.testing.assert_array_equal(flat["swapped"], flat["speech"] + np.asarray(swap(jnp.asarray(flat["background"]))))


def test_quantizer_dropout_and_bypass():
    quantizer = testing.tiny_quantizer(levels=8, dropout=0.5)
    bypassed = jnp.arange(4000) < 1000
    levels = np.asarray(levels_in_use(quantizer, bypassed, jax.random.key(0)))
    assert (levels[:1000] == 0).all()
    assert set(levels[1000:]) == set(range(1, 9))
    assert np.mean(levels[1000:] == 8) == pytest.approx(0.5 + 0.5 / 8, abs=0.03)


def test_bypassing_is_quantizing_by_no_level(tiny_network, rng):
    network, variables = tiny_network
    halves = Halves(*jnp.float32(rng.standard_normal((2, 3, 5, network.config.latent))))
    none = Halves(*(jnp.zeros(3, int) for _ in halves))

    def quantize(halves):
        return network.apply(variables, halves, none, jax.random.key(0), method="quantize")

    def of_interest(halves):
        """All but codes and candidates, which nobody uses."""
        return [
            (q.vectors, q.first, q.commitment, q.codebook, [tally[:2] for tally in q.tallies.values()]) for q in halves
        ]

    slow, quick = jax.jit(lambda h: (of_interest(quantize(h)), of_interest(bypassing(quantize, h))))(halves)
    jax.tree.map(np.testing.assert_array_equal, slow, quick)
