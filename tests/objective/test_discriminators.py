import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import signal

from configs.decodec import get_config
from decodec_jax.config import Discriminator
from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed import cost
from decodec_jax.objective import adversarial, discriminators
from decodec_jax.objective.discriminators import Discriminators
from decodec_jax.testing import random_variables, speech_clips


def only(**kinds):
    """Tiny discriminators of the kinds named and no others."""
    tiny = {
        "periods": (), "period_channels": (4, 6, 8, 8, 8), "rates": (), "rate_channels": (4, 8, 16, 12),
        "windows": (), "band_channels": 3, "stft_windows": (), "stft_channels": 3, "frame_windows": (),
        "frame_channels": 6,
    }  # fmt: skip
    return Discriminator(**(tiny | kinds))


# --- against PyTorch ------------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden" / "discriminators.npz"
TORCH_CASES = {
    "period odd": (301, only(periods=(3,))),
    "period even": (288, only(periods=(2, 3), period_channels=(4, 6))),
    "rate odd": (301, only(rates=(2,))),
    "bands odd": (301, only(windows=(64,))),
    "bands even": (288, only(windows=(64,), bands=(0.0, 1.0))),
    "stft odd": (301, only(stft_windows=(64,))),
}


def draw(name, shape):
    """As in golden/make_discriminators.py, which drew the same parameters, waves and cotangents."""
    values = 0.3 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return (values + name.endswith("gain")).astype(np.float32)


def named(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree.leaves_with_path(tree)}  # fmt: skip


@pytest.mark.parametrize("name", TORCH_CASES)
def test_values_and_gradients_equal_those_of_torch(name):
    t, config = TORCH_CASES[name]
    with np.load(GOLDEN) as file:
        golden = {key.removeprefix(f"{name}/"): file[key] for key in file if key.startswith(f"{name}/")}
    module, wave = Discriminators(config), draw("wave", (2, t))
    shapes = jax.eval_shape(module.init, jax.random.key(0), wave)["params"]
    params = jax.tree.map_with_path(
        lambda path, leaf: draw(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape), shapes
    )

    def maps(params, wave):
        judged = module.apply({"params": params}, wave)
        logits = {f"logits{k}": one.logits for k, one in enumerate(judged)}
        return logits | {f"feature{k}_{i}": f for k, one in enumerate(judged) for i, f in enumerate(one.features)}

    @jax.jit
    def run(params, wave):
        out, backward = jax.vjp(maps, params, wave)
        return out, *backward({key: draw(f"pull/{key}", value.shape) for key, value in out.items()})

    out, to_params, to_wave = run(params, wave)
    ours = {**out, "grad/wave": to_wave, **{f"grad/{key}": leaf for key, leaf in named(to_params).items()}}
    assert set(ours) == set(golden)
    for key, expected in golden.items():
        np.testing.assert_allclose(ours[key], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(), err_msg=key)


# --- convolutions, STFT, decimation, level --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "stride", "dilation"),
    [(1, 5, 3, 1), (1, 3, 1, 1), (1, 41, 4, 1), (3, 9, 1, 1), (3, 9, 2, 2), (3, 9, 2, 4), (3, 3, 4, 1)],
)
def test_conv_is_the_library_s(rng, height, width, stride, dilation):
    x, kernel = (jnp.float32(rng.standard_normal(shape)) for shape in ((2, 4, 13, 3), (height, width, 3, 5)))
    padding = [(height // 2 * dilation,) * 2, (width // 2,) * 2]
    expected = lax.conv_general_dilated(
        x, kernel, (1, stride), padding, rhs_dilation=(dilation, 1), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(discriminators.conv(x, kernel, stride, dilation), expected, atol=1e-4)


@pytest.mark.parametrize(("columns", "stride", "width"), [(13, 1, 3), (1, 4, 41), (8, 4, 41), (13, 4, 41)])
def test_grouped_conv_is_the_library_s(rng, columns, stride, width):
    x, kernel = (jnp.float32(rng.standard_normal(shape)) for shape in ((2, 1, columns, 8), (1, width, 4, 6)))
    expected = lax.conv_general_dilated(
        x, kernel, (1, stride), [(0, 0), (width // 2,) * 2],
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2,
    )  # fmt: skip
    np.testing.assert_allclose(discriminators.conv_grouped(x, kernel, stride), expected, atol=1e-4)


@pytest.mark.parametrize("t", [64, 79, 80, 301])
def test_spectrogram_equals_numpy_s(rng, t):
    wave = rng.standard_normal((2, t)).astype(np.float32)
    starts = range(0, t - 64 + 1, 16)
    expected = np.fft.rfft(np.stack([wave[:, i : i + 64] for i in starts], 1) * signal.get_window("hann", 64))
    ours = discriminators.spectrogram(wave, 64)
    np.testing.assert_allclose(ours, np.stack([expected.real, expected.imag], -1), atol=1e-4)


def test_spectrogram_of_the_longest_window_is_as_precise_as_an_fft(rng):
    wave = rng.standard_normal((1, 2048)).astype(np.float32)
    expected = np.fft.rfft(wave.astype(np.float64) * signal.get_window("hann", 2048))
    ours = discriminators.spectrogram(wave, 2048)[0, 0]
    np.testing.assert_allclose(ours, np.stack([expected.real, expected.imag], -1)[0], atol=2e-5 * abs(expected).max())


def test_decimation_keeps_what_lies_below_the_new_nyquist_frequency_and_nothing_above():
    time = np.arange(4000)
    low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (0.05, 0.2))
    kept, removed = np.asarray(discriminators.decimate(np.stack([low, high]), 3))
    assert kept.shape == (1333,)
    inside = slice(30, -30)  # a sine does not end in a constant
    np.testing.assert_allclose(kept[inside], low[::3][:1333][inside], atol=0.02)
    assert np.abs(removed[inside]).max() < 1e-2
    np.testing.assert_allclose(discriminators.decimate(np.ones((1, 100), np.float32), 3), np.ones((1, 33)), rtol=1e-5)


def test_normalise_takes_out_dc_and_level_but_not_of_silence():
    wave = speech_clips(1, 1000)
    normalise = jax.jit(discriminators.normalise)
    level = normalise(wave)
    np.testing.assert_allclose(level.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(level).max(), 0.8, rtol=1e-6)
    np.testing.assert_allclose(normalise(3 * wave + 0.1), level, atol=1e-5)
    whisper = 1e-6 * wave
    np.testing.assert_allclose(normalise(whisper), 80 * (whisper - whisper.mean()), rtol=1e-4, atol=1e-9)
    gradient = jax.jit(jax.grad(lambda x: discriminators.normalise(x)[0, 0]))(jnp.zeros((1, 1000)))
    np.testing.assert_allclose(np.abs(gradient).max(), 80, rtol=1e-2)


# --- what there is to choose, and what is refused ---------------------------------------------------------------------


def shapes(config, t=16_000, n=1):
    module, wave = Discriminators(config), jax.ShapeDtypeStruct((n, t), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), wave)
    return variables["params"], jax.eval_shape(module.apply, variables, wave)


def test_the_default_is_dac_s_set():
    params, judged = shapes(Discriminator())
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 5 * 8_221_154 + 3 * 471_330
    assert [len(one.features) for one in judged] == 5 * [5] + 3 * [25]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (only(periods=(2, 7)), ["period2", "period7"]),
        (only(rates=(1, 2)), ["rate1", "rate2"]),
        (only(windows=(64, 128)), ["bands64", "bands128"]),
        (only(stft_windows=(64,)), ["stft64"]),
        (only(frame_windows=(64, 32)), ["frames64", "frames32"]),
        (only(periods=(3,), stft_windows=(64,)), ["period3", "stft64"]),
    ],
)
def test_only_what_is_named_judges(config, names):
    params, judged = shapes(config, 500, 3)
    assert set(params) == set(names) and len(judged) == len(names)
    assert all(leaf.shape[0] == 3 and 0 not in leaf.shape for leaf in jax.tree.leaves(judged))


@pytest.mark.parametrize(
    ("kinds", "fewest"),
    [({"windows": (64, 32)}, 64), ({"stft_windows": (32, 128)}, 128), ({"frame_windows": (32, 128)}, 128),
     ({"periods": (2, 11)}, 12), ({"rates": (2,)}, 2)],
)  # fmt: skip
def test_the_shortest_wave_is_judged_and_a_shorter_one_refused(kinds, fewest):
    assert discriminators.shortest(only(**kinds)) == fewest
    _, judged = shapes(only(**kinds), fewest)
    assert all(0 not in leaf.shape for leaf in jax.tree.leaves(judged))
    with pytest.raises(UserError, match=f"{fewest - 1} samples"):
        shapes(only(**kinds), fewest - 1)


@pytest.mark.parametrize("t", [64, 65, 79, 80, 81, 96])
def test_every_length_from_the_window_on_has_a_frame_for_each_hop_begun(t):
    _, (judged,) = shapes(only(windows=(64,), bands=(0.0, 1.0)), t)
    assert judged.features[0].shape[1] == -(-t // 16)


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        ({"windows": (100,)}, "windows .*100"),
        ({"stft_windows": (60,)}, "stft_windows .*60"),
        ({"frame_windows": (60,)}, "frame_windows .*60"),
        ({"windows": (16,)}, "bands"),
        ({"windows": (64,), "bands": (0.0, 0.5, 0.5, 1.0)}, "bands"),
        ({"rates": (1,), "rate_channels": (6, 8, 8)}, "rate_channels"),
        ({"rates": (1,), "rate_channels": (12, 16, 8)}, "rate_channels"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(kinds, named):
    with pytest.raises(UserError, match=named):
        discriminators.check(only(**kinds), 16_000)


def test_filters_start_with_entries_of_the_size_that_sets_their_learning_rate():
    layer = jax.jit(discriminators.Conv(16, (3, 9)).init)(jax.random.key(0), jnp.zeros((1, 3, 9, 8)))["params"]
    np.testing.assert_allclose(np.std(layer["direction"]), 0.03, rtol=0.1)
    np.testing.assert_array_equal(layer["gain"], np.ones(16))
    np.testing.assert_array_equal(layer["bias"], np.zeros(16))


def test_bfloat16_products_judge_much_the_same_with_the_same_parameters(rng):
    wave = (0.1 * rng.standard_normal((2, 300))).astype(np.float32)
    config = only(periods=(3,), period_channels=(4, 6), frame_windows=(64,))
    variables = random_variables(Discriminators(config), wave)
    single, half = (jax.jit(Discriminators(config, p).apply)(variables, wave) for p in ("float32", "bfloat16"))
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(half), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)
    assert not np.array_equal(single[1].logits, half[1].logits)


# --- those of frames --------------------------------------------------------------------------------------------------


def test_those_of_frames_have_eight_logits_a_frame_and_the_features_of_four_layers():
    params, (judged,) = shapes(only(frame_windows=(64,)), 301, 3)
    frames = 1 + (301 - 64) // 16
    assert judged.logits.shape == (3, frames, 8)
    assert [feature.shape for feature in judged.features] == 4 * [(3, frames, 1, 6)]
    assert params["frames64"]["conv0"]["direction"].shape == (1, 1, 2 * 33, 6)


@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (5, 1), (5, 4)])
def test_a_convolution_over_frames_is_the_library_s(rng, taps, dilation):
    x, kernel = jnp.float32(rng.standard_normal((2, 9, 3))), jnp.float32(rng.standard_normal((taps, 3, 4)))
    reach = taps // 2 * dilation
    expected = lax.conv_general_dilated(
        x, kernel, (1,), [(reach, reach)], rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
    )
    given = discriminators.conv(x[:, :, None], kernel[:, None], 1, dilation)
    np.testing.assert_allclose(given[:, :, 0], expected, atol=1e-5)


def test_those_of_frames_hear_the_level_and_their_gradients_are_finite(rng):
    module, wave = Discriminators(only(frame_windows=(64,))), speech_clips(2, 301)
    variables = random_variables(module, wave)
    run = jax.jit(lambda wave: module.apply(variables, wave)[0].logits)
    assert np.abs(run(wave) - run(0.5 * wave)).max() > 1e-2
    gradient = jax.jit(jax.grad(lambda wave: jnp.sum(run(wave) ** 2)))
    for given in (wave, np.zeros_like(wave), 1e-6 * wave):
        assert np.all(np.isfinite(gradient(given))) and np.abs(gradient(given)).max() < 1e4


def test_those_of_light_cost_a_small_part_of_dac_s():
    light = get_config("light").discriminator

    def flops(config):
        """Of a second of audio, forward."""
        module, wave = Discriminators(config), jax.ShapeDtypeStruct((1, 16_000), jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), wave)
        return cost.products(jax.make_jaxpr(module.apply)(variables, wave).jaxpr).flops

    assert 0.1e9 < flops(light) < 0.7e9
    assert flops(light) < 0.03 * flops(Discriminator())


# --- all kinds in a game ----------------------------------------------------------------------------------------------

ALL = only(
    periods=(3,), period_channels=(4, 6), rates=(2,), rate_channels=(8, 8, 8), windows=(32,), bands=(0.0, 1.0),
    stft_windows=(32,), frame_windows=(32,),
)  # fmt: skip


def losses(params, real, fake):
    """Of discriminators, adversarial and feature matching, `[n]` each."""
    real, fake = (Discriminators(ALL).apply({"params": params}, wave) for wave in (real, fake))
    return every_loss(real, fake)


def every_loss(real, fake):
    """The same of what discriminators make of the waveforms."""
    return (
        adversarial.discriminator_loss(real, fake, "lsgan"), adversarial.adversarial_loss(fake, "lsgan"),
        adversarial.feature_loss(real, fake),
    )  # fmt: skip


def game(params, real, fake):
    """The losses, and the gradients of the sum of their means."""
    def total(params, fake):
        each = losses(params, real, fake)
        return sum(jnp.mean(loss) for loss in each), each

    (_, each), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(params, fake)
    return each, gradients


@pytest.fixture
def arguments(rng):
    real, fake = (0.1 * rng.standard_normal((2, 8, 101))).astype(np.float32)
    return random_variables(Discriminators(ALL), real)["params"], real, fake


@pytest.fixture(scope="module")
def program():
    """`game` compiled for a batch split over eight devices."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    wave = jax.ShapeDtypeStruct((8, 101), jnp.float32, sharding=split)
    params = jax.eval_shape(Discriminators(ALL).init, jax.random.key(0), wave)["params"]
    shardings = {"in_shardings": (everywhere, split, split), "out_shardings": (split, (everywhere, split))}
    return jax.jit(game, **shardings).lower(params, wave, wave).compile()


@pytest.fixture
def play(program):
    return lambda *arguments: program(*jax.device_put(arguments, program.input_shardings[0]))


def test_eight_devices_gather_nothing_and_judge_as_one_does(program, play, arguments):
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert collective not in program.as_text()
    assert "all-reduce" in program.as_text()
    for eight, one in zip(play(*arguments)[0], jax.jit(losses)(*arguments), strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-4)


@pytest.mark.parametrize("silent", ["real", "fake", "both"])
def test_silence_is_an_ordinary_wave(play, arguments, silent):
    params, real, fake = arguments
    given = play(params, real * (silent == "fake"), fake * (silent == "real"))
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() < 1e3 for leaf in jax.tree.leaves(given))


def test_items_of_a_batch_do_not_know_each_other(play, arguments):
    params, real, fake = arguments
    before, _ = play(params, real, fake)
    after, _ = play(params, np.concatenate([real[:1], 0 * real[1:]]), np.concatenate([fake[:1], 0.5 * fake[1:]]))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-5)
        assert not np.any(a[1:] == b[1:])


def test_discriminators_learn_to_tell_noise_from_speech(rng):
    speech, noise = speech_clips(8, 101), (0.1 * rng.standard_normal((8, 101))).astype(np.float32)
    module, optimizer = Discriminators(only(periods=(3,), period_channels=(4, 6))), optax.adam(0.03)
    params = random_variables(module, noise)["params"]

    def total(params):
        real, fake = (module.apply({"params": params}, wave) for wave in (speech, noise))
        terms = tuple(map(jnp.mean, every_loss(real, fake)))
        return terms[0], terms

    @jax.jit
    def step(params, state):
        gradient, losses = jax.grad(total, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, losses

    state, history = optimizer.init(params), []
    for _ in range(40):
        params, state, losses = step(params, state)
        history.append(losses)
    (begun, _, alike), (ended, caught, apart) = history[0], history[-1]
    assert ended < 0.5 * begun
    assert caught > 0.5 and apart > 2 * alike  # what the generator would then pay
