"""One update: what it leaves alone, what it does on any number of devices, and that it learns."""

import re
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import FAMILIES, DeCodecNetwork, Halves, swap
from decodec_jax.config import Loss, Mesh
from decodec_jax.errors import UserError
from decodec_jax.objective.perceptual import perceptual_distance
from decodec_jax.objective.teacher import CepstraTeacher
from decodec_jax.training import sharding, state
from decodec_jax.training.codebooks import start_codebooks
from decodec_jax.training.generator import KINDS, bypassing, drawn_kinds, generate, levels_in_use, reference
from decodec_jax.training.step import cost, judge_output, make_train_step


def prepared(config):
    """Mesh, state and placed batch, codebooks in use from the first step."""
    config.train.continuous_steps = 0
    mesh = sharding.make_mesh(config.mesh, config.data.batch, config.train.accumulate)
    fresh = state.fresh(config)
    placed = jax.device_put(fresh, sharding.layout(fresh, mesh, config.mesh.fsdp_from))
    return mesh, placed, sharding.place(testing.training_batch(config), mesh)


def teacher_of(config):
    return CepstraTeacher() if config.loss.guidance else None


def two_steps(family, mesh_config, remat=False):
    """The whole objective with both kinds of codebook: what two steps leave and say, and the compiled step.

    What is less is sooner compiled: the families share between them what there is of objectives.
    """
    config = testing.full_config(
        family=family, speech=testing.tiny_quantizer(kind="ema", levels=3, first_dim=6, beam=2),
        background=testing.tiny_quantizer(kind="factorised", dim=4),
        dilations=(1,), decoder_lstm=False, decoder_blocks=1,
    )  # fmt: skip
    loss = config.loss
    if family == "spectral":
        config.model.spectral.lstm_layers = 0
        config.discriminator = testing.tiny_discriminator(periods=(), rates=(), windows=(), stft_windows=())
        loss.magnitude_windows, loss.magnitude = (64,), 1.0
        loss.own = loss.swap = loss.speech = loss.background = 0.5
        loss.perceptual = 0.1
        config.optim.kind = "muon"
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
    return cache(lambda family: jax.device_get(two_steps(family, Mesh(data=1))[:2]))


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
    ("family", "config", "splitting", "remat"),
    [
        ("waveform", Mesh(data=8), set(), False),
        ("waveform", Mesh(2, fsdp=2, model=2, fsdp_from=64), {"fsdp", "model"}, True),
        ("spectral", Mesh(data=8), set(), True),
    ],
    ids=["waveform", "waveform, mixed and remat", "spectral and remat"],
)
def test_eight_devices_do_what_one_does_and_gather_no_activations(family, config, splitting, remat, on_one_device):
    """The batch stays where it is: jaxlib < 0.12 would gather it for the FFT."""
    current, metrics, step = two_steps(family, config, remat)
    moments = {"optimizer": (), "discriminator_optimizer": ()}
    (alone, alone_metrics), (split, split_metrics) = on_one_device(family), (current, metrics)
    assert_but_for_rounding((alone.replace(**moments), alone_metrics), (split.replace(**moments), split_metrics))
    for name in moments:  # gradients pass the logarithms of mel bands, which magnify rounding
        summed = family == "spectral" and name == "optimizer"  # Muon's momentum is five times AdamW's average by now
        assert_but_for_rounding(getattr(alone, name), getattr(split, name), to=1e-4 if summed else 3e-5)
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
    assert "does not report it" in cost(SimpleNamespace(memory_analysis=lambda: None, cost_analysis=lambda: None))


@pytest.mark.parametrize(("family", "blocks"), [("waveform", 3 + 3), ("spectral", 1 + 2)])
def test_remat_is_of_every_block(family, blocks):
    model = testing.tiny_model(family=family)
    wave = jnp.zeros((1, model.hop))
    variables = jax.eval_shape(DeCodecNetwork(model).init, jax.random.key(0), wave)
    forward = (str(jax.make_jaxpr(DeCodecNetwork(model, remat).apply)(variables, wave)) for remat in (False, True))
    activations, with_blocks = (len(re.findall(r"= (?:remat2?|checkpoint)\[", jaxpr)) for jaxpr in forward)
    assert with_blocks == activations + blocks


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


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_batch_with_nan_changes_nothing_but_the_count(adversarial):
    config = judged_by_periods() if adversarial else testing.tiny_config(lstm_layers=0)
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
    """`testing.full_config()` with one discriminator, few layers and no LSTM: most of its compilation is theirs."""
    config = testing.full_config(dilations=(), lstm_layers=0)
    config.discriminator = testing.tiny_discriminator(rates=(), windows=(), stft_windows=(), frame_windows=())
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
    config = judged_by_periods()
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
    assert names == {"wave", "mel", "adversarial", "feature"}
    current, metrics = make_train_step(config, mesh)(current, batch, teacher_of(config))
    assert metrics["not_finite"] == 0
    assert all(norm[0] > 0 for norm in jax.device_get(current.gradient_norms).values())


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_one_batch_by_heart(family):
    tiny_config = testing.tiny_config(family=family, lstm_layers=0)
    tiny_config.train.continuous_steps = 10**6
    tiny_config.optim.lr = 3e-3
    mesh = sharding.make_mesh(tiny_config.mesh, tiny_config.data.batch)
    current = state.fresh(tiny_config)
    batch = sharding.place(testing.training_batch(tiny_config), mesh)
    step = make_train_step(tiny_config, mesh)
    losses = []
    for _ in range(40):
        current, metrics = step(current, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


@pytest.mark.parametrize("weight", ["wave", "mel", "perp", "commitment"])
def test_a_weight_of_zero_removes_its_term(tiny_config, weight):
    setattr(tiny_config.loss, weight, 0.0)
    mesh, current, batch = prepared(tiny_config)
    _, metrics = jax.eval_shape(make_train_step(tiny_config, mesh), current, batch)
    assert f"loss/{weight}" not in metrics
    assert len([name for name in metrics if name.startswith("loss/")]) == 3


def test_without_swapping_nothing_swapped_is_decoded(tiny_config):
    """Ablation-1: half the decoder's work disappears, not only its weight."""
    def flops(config):
        mesh, current, batch = prepared(config)
        return make_train_step(config, mesh).lower(current, batch).cost_analysis()["flops"]

    both = flops(tiny_config)
    tiny_config.loss.swap = 0.0
    assert flops(tiny_config) < 0.8 * both


def test_swapped_targets_are_what_swapping_the_parts_makes(tiny_config):
    batch = testing.training_batch(tiny_config)
    flat = {name: array.reshape(-1, array.shape[-1]) for name, array in batch.items()}
    np.testing.assert_array_equal(flat["swapped"], flat["speech"] + np.asarray(swap(jnp.asarray(flat["background"]))))


# --- kinds ------------------------------------------------------------------------------------------------------------

ALL = {"own": 0.4, "swap": 0.6, "speech": 0.75, "background": 0.25}


@pytest.mark.parametrize("shares", [
    ALL, {"own": 0.1, "swap": 0.2, "speech": 0.7, "background": 0.0}, {"own": 0.0, "swap": 0.0, "speech": 1.0},
    {"own": 2.0, "swap": 0.5, "speech": 0.5}, {"own": 0.0, "swap": 1.3, "background": 1.7},
], ids=str)  # fmt: skip
def test_each_kind_is_decoded_as_often_as_its_share_says(shares):
    kinds = np.asarray(drawn_kinds(Loss(**shares), 4000, jax.random.key(0)))
    assert kinds.shape == (4000, round(sum(shares.values())))
    for number, kind in enumerate(KINDS):
        counts = np.sum(kinds == number, axis=1)
        share = shares.get(kind, 0.0)
        assert np.mean(counts) == pytest.approx(share, abs=0.03)
        assert set(counts) <= {np.floor(share), np.ceil(share), np.ceil(share) + 1}
        if share in (0, 1, 2):
            assert set(counts) == {share}


def test_the_paper_decodes_each_mixture_both_ways():
    for key in range(3):
        kinds = drawn_kinds(Loss(), 5, jax.random.key(key))
        np.testing.assert_array_equal(kinds, np.broadcast_to([0, 1], (5, 2)))


def test_targets_are_of_the_kinds_and_both_clips_of_a_pair_are_of_one(tiny_config):
    tiny_config.data.batch = 5
    batch = testing.training_batch(tiny_config)
    kinds = np.random.default_rng(0).integers(0, 4, (5, 3))
    target = reference(batch, Loss(**ALL), kinds)
    named = ("mixture", "swapped", "speech", "background")
    expected = np.stack([np.stack([batch[named[kind]][pair] for kind in row]) for pair, row in enumerate(kinds)])
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("projection", ["learned", "exact"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_decoded_is_of_the_kinds_and_a_part_alone_has_the_other_of_silence(family, projection):
    config = testing.tiny_config(family=family, projection=projection, lstm_layers=0)
    config.loss = Loss(**ALL, mel=0.0)
    network = DeCodecNetwork(config.model)
    variables = testing.random_variables(network, jnp.zeros((1, config.model.hop)))
    batch = testing.training_batch(config)
    kinds = jnp.array([[0, 1, 2, 3], [3, 2, 1, 0]])

    @jax.jit
    def run(variables, batch):
        arguments = batch, kinds, jax.random.key(0), jnp.array(False), None
        (decoded, _), _ = generate(config, variables["params"], variables["codebook"], *arguments)
        return decoded

    @jax.jit
    def by_hand(variables, pair):
        """One pair's mixtures `[2, t]`, decoded as each of the kinds."""
        halves, blank = (network.apply(variables, wave, method="embed") for wave in (pair, 0 * pair))
        as_kinds = [
            halves, halves._replace(background=halves.background[::-1]),
            halves._replace(background=blank.background), halves._replace(speech=blank.speech),
        ]  # fmt: skip
        return [network.apply(variables, parts, pair.shape[-1], method="decode") for parts in as_kinds]

    decoded = run(variables, batch)
    assert decoded.shape == (2, 4, 2, batch["mixture"].shape[-1])
    for pair in range(2):
        expected = by_hand(variables, batch["mixture"][pair])
        for place, kind in enumerate(kinds[pair]):
            np.testing.assert_allclose(decoded[pair, place], expected[kind], atol=2e-5)


def test_quantized_a_part_alone_has_the_code_of_silence_beside_it():
    config = testing.tiny_config(lstm_layers=0)
    for quantizer in (config.model.speech, config.model.background):
        quantizer.dropout = quantizer.bypass = 0.0
    config.loss = Loss(own=0.0, swap=0.0, speech=1.0, mel=0.0)
    network = DeCodecNetwork(config.model)
    variables = testing.random_variables(network, jnp.zeros((1, config.model.hop)))
    batch = testing.training_batch(config)
    wave = batch["mixture"].reshape(4, -1)

    @jax.jit
    def run(variables, batch):
        arguments = batch, jnp.full((2, 1), KINDS.index("speech")), jax.random.key(0), jnp.array(True), None
        (decoded, _), _ = generate(config, variables["params"], variables["codebook"], *arguments)
        return decoded

    taken = jax.jit(lambda variables, wave: network.apply(variables, wave, method="take_apart"))(variables, wave)
    np.testing.assert_allclose(run(variables, batch).reshape(wave.shape), taken.speech, atol=2e-5)


def test_terms_of_reconstruction_are_sums_over_what_is_decoded_of_a_mixture(tiny_config, rng):
    tiny_config.loss.mel = 0.0
    mesh, batch = sharding.make_mesh(tiny_config.mesh, 2), testing.training_batch(tiny_config)
    decoded = jnp.float32(0.1 * rng.standard_normal((2, 2, *batch["mixture"].shape[1:])))
    kinds = drawn_kinds(tiny_config.loss, 2, jax.random.key(0))
    terms, gradient, _, _ = judge_output(tiny_config, mesh, False, decoded, kinds, {}, {}, batch)
    each = [np.mean(np.abs(decoded[:, i] - batch[name])) for i, name in enumerate(("mixture", "swapped"))]
    np.testing.assert_allclose(terms["wave"], sum(each), rtol=1e-5)
    sign = np.sign(decoded - np.stack([batch["mixture"], batch["swapped"]], axis=1))
    np.testing.assert_allclose(gradient, 500 * sign / batch["mixture"].size, rtol=1e-5)


def test_the_waveform_term_leaves_out_waveforms_that_cannot_be_known(tiny_config, rng):
    tiny_config.loss.mel = 0.0
    mesh, batch = sharding.make_mesh(tiny_config.mesh, 2), testing.training_batch(tiny_config)
    decoded = jnp.float32(0.1 * rng.standard_normal((2, 2, *batch["mixture"].shape[1:])))
    known = jnp.array([[1.0, 0], [1, 1]])
    kinds = drawn_kinds(tiny_config.loss, 2, jax.random.key(0))
    _, every, _, _ = judge_output(tiny_config, mesh, False, decoded, kinds, {}, {}, batch)
    _, gradient, _, _ = judge_output(tiny_config, mesh, False, decoded, kinds, {}, {}, batch, known)
    np.testing.assert_allclose(gradient, every * known[:, None, :, None], rtol=1e-5)


def test_a_model_without_guidance_may_have_the_perceptual_term():
    config = testing.tiny_config(strides=(32, 10), hop=320)
    config.loss.perceptual = 0.1
    mesh, state, batch = prepared(config)
    _, metrics = jax.eval_shape(make_train_step(config, mesh), state, batch, CepstraTeacher())
    assert "loss/perceptual" in metrics and "cosine" not in metrics


def test_the_perceptual_term_hears_one_clip_of_each_pair_in_its_last_decoding(rng):
    config = testing.tiny_config(strides=(32, 10), hop=320)
    config.loss = Loss(wave=0.0, mel=0.0, perceptual=2.0)
    config.data.seconds = 0.2
    mesh, batch = sharding.make_mesh(config.mesh, 2), testing.training_batch(config)
    decoded = jnp.float32(0.1 * rng.standard_normal((2, 2, *batch["mixture"].shape[1:])))
    kinds, teacher = drawn_kinds(config.loss, 2, jax.random.key(0)), CepstraTeacher()
    terms, gradient, _, _ = judge_output(config, mesh, False, decoded, kinds, {}, {}, batch, teacher=teacher)
    expected = perceptual_distance(decoded[:, 1, 0], batch["swapped"][:, 0], teacher)
    np.testing.assert_allclose(terms["perceptual"], np.mean(expected), rtol=1e-4)
    heard = np.any(np.asarray(gradient), axis=-1)
    np.testing.assert_array_equal(heard, np.broadcast_to([[False, False], [True, False]], heard.shape))


def test_a_semantic_first_level_alone_has_no_known_waveform():
    config = testing.tiny_config(family="spectral", projection="exact", lstm_layers=0)
    config.model.speech = testing.tiny_quantizer(levels=1, first_dim=2, dropout=0.0, bypass=0.0)
    config.data.batch = 2
    variables = testing.random_variables(DeCodecNetwork(config.model), jnp.zeros((1, config.model.hop)))
    kinds = drawn_kinds(config.loss, 2, jax.random.key(0))

    def known(started):
        arguments = testing.training_batch(config), kinds, jax.random.key(0), jnp.array(started), None
        return generate(config, variables["params"], variables["codebook"], *arguments)[1][3]

    np.testing.assert_array_equal(known(True), np.zeros((2, 2)))
    np.testing.assert_array_equal(known(False), np.ones((2, 2)))


def test_the_decoder_can_learn_alone():
    config = testing.tiny_config(family="spectral", lstm_layers=0, decoder_blocks=1)
    config.loss.mel_windows, config.loss.mel_bands = (64,), (10,)
    config.optim.kind, config.optim.warmup, config.train.decoder_only = "muon", 0, True
    mesh, current, batch = prepared(config)
    before = jax.device_get(current)
    after, metrics = make_train_step(config, mesh)(current, batch)
    assert_same(after.codebook, before.codebook)
    for now, then in ((after.params, before.params), (after.averaged, before.averaged)):
        for name in now:
            same = jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(now[name]), then[name]))
            assert not any(same) if name == "decoder" else all(same), name
    assert metrics["loss/commitment"] > 0 and "replaced/speech1" not in metrics


def test_micro_batches_give_the_gradient_of_the_batch():
    """Unquantized and all of it decoded both ways, nothing about a batch is random. (See test_devices.py, too.)"""
    def after_a_step(accumulate):
        config = testing.tiny_config(family="spectral", lstm_layers=0, decoder_blocks=1)
        config.loss.mel_windows, config.loss.mel_bands = (64,), (10,)
        config.data.batch, config.train.accumulate = 4, accumulate
        mesh, current, batch = prepared(config)
        config.train.continuous_steps = 10
        current, metrics = make_train_step(config, mesh)(current, batch)
        return current.optimizer, metrics["loss"], metrics["gradient_norm"]

    assert_but_for_rounding(after_a_step(1), after_a_step(2))


# --- quantizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_codebooks_start_where_the_latents_are(family):
    config = testing.tiny_config(family=family, lstm_layers=0, projection="exact")
    mesh, current, batch = prepared(config)
    mixtures = [batch["mixture"], 0.5 * batch["mixture"][:, ::-1]]
    started = start_codebooks(config, mesh, current, mixtures)
    network = DeCodecNetwork(config.model)

    @jax.jit
    def left(state):
        """Share of the latents' power that quantizing leaves."""
        variables = {"params": state.params, "codebook": state.codebook}
        halves = network.apply(variables, batch["mixture"].reshape(4, -1), method="embed")
        quantized = network.apply(variables, halves, method="quantize")
        return [jnp.sum((h - q.vectors) ** 2) / jnp.sum(h**2) for h, q in zip(halves, quantized, strict=True)]

    for before, after in zip(left(current), left(started), strict=True):
        assert after < 0.5 * before
    frames = sum(mixture.size // config.model.hop for mixture in mixtures)
    for half in started.codebook.values():
        np.testing.assert_allclose(half["levels"].counts.sum(axis=-1), frames / len(mixtures))  # as of one batch


def test_quantizer_dropout_and_bypass():
    quantizer = testing.tiny_quantizer(levels=8, dropout=0.5)
    bypassed = jnp.arange(4000) < 1000
    levels = np.asarray(levels_in_use(quantizer, bypassed, jax.random.key(0)))
    assert (levels[:1000] == 0).all()
    assert set(levels[1000:]) == set(range(1, 9))
    assert np.mean(levels[1000:] == 8) == pytest.approx(0.5 + 0.5 / 8, abs=0.03)


def test_half_of_the_dropped_items_use_a_first_level_with_its_own_dimensions_alone():
    quantizer = testing.tiny_quantizer(levels=8, dropout=0.5, first_dim=4)
    levels = np.asarray(levels_in_use(quantizer, jnp.zeros(4000, bool), jax.random.key(0)))
    assert np.mean(levels == 1) == pytest.approx(0.25 + 0.25 / 8, abs=0.03)
    assert np.mean(levels == 8) == pytest.approx(0.5 + 0.25 / 8, abs=0.03)


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
