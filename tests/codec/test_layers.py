from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from decodec_jax.codec import layers, lstm, product, waveform
from decodec_jax.codec.layers import Conv, Dense, Down, ResidualUnit, Up
from decodec_jax.codec.lstm import LSTM
from decodec_jax.testing import random_variables, tiny_model

# --- against PyTorch ------------------------------------------------------------------------------------------------

WEIGHT = "parametrizations.weight.original"


def conv_params(case, prefix=""):
    """Parameters (or, under "grad/", their gradients) of a torch Conv1d as ours have them."""
    direction = case[f"{prefix}{WEIGHT}1"].transpose(2, 1, 0)  # [out, in, k] -> [k, in, out]
    return {"direction": direction, "gain": case[f"{prefix}{WEIGHT}0"].reshape(-1), "bias": case[f"{prefix}bias"]}


def transposed_params(case, prefix=""):
    direction = case[f"{prefix}{WEIGHT}1"].transpose(2, 0, 1)  # [in, out, k] -> [k, in, out]
    return {"direction": direction, "gain": case[f"{prefix}{WEIGHT}0"].reshape(-1), "bias": case[f"{prefix}bias"]}


def unit_params(case, prefix=""):
    snakes = {name: {"alpha": case[f"{prefix}{name}.alpha"].reshape(-1)} for name in ("snake1", "snake2")}
    return snakes | {name: conv_params(case, f"{prefix}{name}.") for name in ("dilated", "pointwise")}


def lstm_params(case, prefix=""):
    params = {}
    for torch_end, direction in (("", "forward"), ("_reverse", "backward")):
        for layer in range(2):
            if f"weight_ih_l{layer}{torch_end}" not in case:
                continue
            kernel, recurrent, b1, b2 = (
                case[f"{prefix}{name}_l{layer}{torch_end}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            bias = b1 if prefix else b1 + b2  # torch's two biases are one, and each has the whole gradient
            ours = {"kernel": kernel.T, "recurrent": recurrent.T, "bias": bias}
            params |= {f"{direction}{layer}_{name}": value for name, value in ours.items()}
    return params


TORCH_CASES = {
    **{f"conv_dilation{d}": (Conv(4, 7, False, d), conv_params) for d in (1, 3, 9)},
    **{f"down{s}": (Down(4, s, False), conv_params) for s in (2, 3, 4, 5, 8)},
    **{f"up{s}": (Up(4, s, False), transposed_params) for s in (2, 3, 4, 5, 8)},
    "residual_unit": (ResidualUnit(7, 3, False), unit_params),
    "lstm": (LSTM(2, bidirectional=False), lstm_params),
    "bilstm": (LSTM(2, bidirectional=True), lstm_params),
}


@pytest.mark.parametrize("name", TORCH_CASES)
def test_values_and_gradients_equal_those_of_torch(golden, name):
    module, convert = TORCH_CASES[name]
    case = golden(name)
    order = (0, 1, 2) if "lstm" in name else (0, 2, 1)  # torch's convolutions have channels first

    @jax.jit
    def run(params, x, pull):
        output, backward = jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x)
        return output, *backward(pull)

    arrays = (case[key].transpose(order) for key in ("x", "pull"))
    output, params_gradient, x_gradient = run(convert(case), *arrays)
    close = {"rtol": 1e-4, "atol": 2e-5}
    np.testing.assert_allclose(output, case["output"].transpose(order), **close)
    np.testing.assert_allclose(x_gradient, case["grad/x"].transpose(order), **close)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), params_gradient, convert(case, "grad/"))


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_for_the_recurrent_weights_is_that_of_the_steps(rng, reverse):
    driven, recurrent, output, cell = (
        jnp.float32(rng.standard_normal(shape)) for shape in ((6, 2, 12), (3, 12), (2, 3), (2, 3))
    )

    def gradient(recurrence):
        def total(*arguments):
            (last_output, last_cell), outputs = recurrence(*arguments, reverse, "float32")
            return jnp.sum(outputs**2) + jnp.sum(last_output * last_cell)

        return jax.grad(total, argnums=(0, 1, 2))(driven, recurrent, (output, cell))

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
                 gradient(lstm._recurrence), gradient(lstm._steps))  # fmt: skip


# --- against scipy --------------------------------------------------------------------------------------------------


def sum_over_inputs(one_channel, x, kernel):
    """The multichannel filter made of a filter of one channel: `[b, n, c], [k, c, d] -> [b, n, d]` in float64."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    return np.stack([
        np.stack([sum(one_channel(x[b, :, c], kernel[:, c, d]) for c in range(x.shape[2]))
                  for d in range(kernel.shape[2])], axis=-1)
        for b in range(x.shape[0])
    ])  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dilation", [1, 3, 9])
def test_conv_is_correlation_with_the_dilated_kernel(rng, dilation, causal):
    x, kernel = rng.standard_normal((2, 40, 3)), rng.standard_normal((7, 3, 2))

    def correlate(x, taps):
        spread = np.zeros(6 * dilation + 1)
        spread[::dilation] = taps
        reach = 6 * dilation
        left = reach if causal else reach // 2
        return signal.correlate(np.pad(x, (left, reach - left)), spread, mode="valid")

    expected = sum_over_inputs(correlate, x, kernel)
    np.testing.assert_allclose(layers.conv(jnp.float32(x), jnp.float32(kernel), dilation, causal), expected, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("stride", [2, 3, 4, 5, 8])
def test_conv_down_is_correlation_then_decimation(rng, stride, causal):
    x, kernel = rng.standard_normal((2, 4 * stride, 3)), rng.standard_normal((2 * stride, 3, 2))

    def decimate(x, taps):
        left = stride if causal else -(-stride // 2)
        return signal.correlate(np.pad(x, (left, stride - left)), taps, mode="valid")[::stride]

    expected = sum_over_inputs(decimate, x, kernel)
    np.testing.assert_allclose(layers.conv_down(jnp.float32(x), jnp.float32(kernel), causal), expected, atol=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("stride", [2, 3, 4, 5, 8])
def test_conv_up_is_zero_stuffing_then_filtering(rng, stride, causal):
    x, kernel = rng.standard_normal((2, 4, 3)), rng.standard_normal((2 * stride, 3, 2))

    def interpolate(x, taps):
        left = 0 if causal else -(-stride // 2)
        return signal.upfirdn(taps, x, up=stride)[left : left + len(x) * stride]

    expected = sum_over_inputs(interpolate, x, kernel)
    np.testing.assert_allclose(layers.conv_up(jnp.float32(x), jnp.float32(kernel), causal), expected, atol=1e-4)


# --- weight norm, Snake --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_axis", [0, 1, 2])
def test_weight_norm_gives_each_filter_its_gain_as_norm(rng, kept_axis):
    direction = rng.standard_normal((5, 3, 4)).astype(np.float32)
    gain = np.arange(1, direction.shape[kept_axis] + 1, dtype=np.float32)
    kernel = layers.weight_norm(direction, gain, kept_axis)
    others = tuple(a for a in range(3) if a != kept_axis)
    np.testing.assert_allclose(np.sqrt(np.sum(np.square(kernel), others)), gain, rtol=1e-6)
    scaled = layers.weight_norm(1000 * direction, gain, kept_axis)
    np.testing.assert_allclose(kernel, scaled, rtol=1e-5)


@pytest.mark.parametrize(("reach", "error"), [(1.0, 1e-6), (20.0, 3e-6), (1000.0, 2e-4)])
def test_sine_squared_and_its_gradient_equal_those_of_numpy(reach, error):
    x = np.linspace(-reach, reach, 20001).astype(np.float32)
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(layers.sine_squared)))(x)
    np.testing.assert_allclose(value, np.sin(x.astype(np.float64)) ** 2, atol=error)
    np.testing.assert_allclose(gradient, np.sin(2 * x.astype(np.float64)), atol=5 * error)


def test_gradient_of_snake_equals_that_of_its_formula(rng):
    x, pull = (jnp.float32(rng.standard_normal((2, 50, 3))) for _ in range(2))
    alpha = jnp.float32([0.3, 1.0, 4.0])

    def formula(x, alpha):
        return x + jnp.sin(alpha * x) ** 2 / alpha

    ours, theirs = (jax.vjp(function, x, alpha)[1](pull) for function in (layers.snake, formula))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), ours, theirs)


def test_snake_equals_its_formula_and_a_dead_alpha_is_the_identity(rng):
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    alpha = np.array([0.0, 0.5, 2.0], np.float32)
    expected = x.astype(np.float64)
    expected[..., 1:] += np.sin(alpha[1:] * expected[..., 1:]) ** 2 / alpha[1:]
    np.testing.assert_allclose(layers.snake(x, alpha), expected, atol=1e-5)


# --- what a later input may change ------------------------------------------------------------------------------------


def changed(module, x, at):
    """First and last changed step and length of the output when the input `[1, n, ...]` changes from `at` on."""
    variables = random_variables(module, x)
    run = jax.jit(lambda x: module.apply(variables, x))
    rng = np.random.default_rng(1)
    other = x.copy()
    other[:, at:] = rng.standard_normal(other[:, at:].shape)
    a, b = np.asarray(run(x)), np.asarray(run(other))
    moved = np.flatnonzero((a != b).reshape(a.shape[1], -1).any(axis=1))
    return moved[0], moved[-1], a.shape[1]


CAUSAL_LAYERS = {
    # name: (module, outputs per input)
    "conv": (lambda causal: Conv(4, 3, causal, 1), 1),
    "dilated conv": (lambda causal: Conv(4, 3, causal, 3), 1),
    "down 2": (lambda causal: Down(4, 2, causal), 1 / 2),
    "down 5": (lambda causal: Down(4, 5, causal), 1 / 5),
    "up 2": (lambda causal: Up(4, 2, causal), 2),
    "up 5": (lambda causal: Up(4, 5, causal), 5),
    "residual unit": (lambda causal: ResidualUnit(7, 3, causal), 1),
    "lstm": (lambda causal: LSTM(2, bidirectional=not causal), 1),
}


@pytest.mark.parametrize("name", CAUSAL_LAYERS)
def test_causal_layers_never_look_ahead_and_the_others_do(rng, name):
    make, ratio = CAUSAL_LAYERS[name]
    x = rng.standard_normal((1, 40, 4)).astype(np.float32)
    for causal in (True, False):
        first, last, length = changed(make(causal), x, at=20)
        assert length == 40 * ratio and last == length - 1
        assert first == 20 * ratio if causal else first < 20 * ratio


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_the_paper_s_encoder_and_decoder_look_ahead_only_where_not_causal(rng, side, causal):
    model = tiny_model(causal=causal, dilations=(1,))
    if side == "encoder":
        wave = rng.standard_normal((1, 6 * model.hop)).astype(np.float32)
        (first, *_), frame = changed(waveform.Encoder(model), wave, at=3 * model.hop), 3
    else:
        latent = rng.standard_normal((1, 6, model.latent)).astype(np.float32)
        (first, *_), frame = changed(waveform.Decoder(model), latent, at=3), 3 * model.hop
    assert first == frame if causal else first < frame


# --- precision --------------------------------------------------------------------------------------------------------

PRECISE = {
    "conv": lambda precision: Conv(4, 1, True, precision=precision),
    "down": lambda precision: Down(4, 2, True, precision),
    "up": lambda precision: Up(4, 2, True, precision),
    "residual unit": lambda precision: ResidualUnit(3, 1, True, precision),
    "dense": lambda precision: Dense(4, precision),
    "lstm": lambda precision: LSTM(1, False, precision),
}


@pytest.mark.parametrize("name", PRECISE)
def test_a_layer_of_bfloat16_operands_gives_float32_and_nearly_the_same_values_and_gradients(rng, name):
    x, pull = (jnp.float32(rng.standard_normal((2, 6, 4))) for _ in range(2))
    variables = random_variables(PRECISE[name]("float32"), x)

    @partial(jax.jit, static_argnums=0)
    def run(module, variables, x):
        output, backward = jax.vjp(module.apply, variables, x)
        return output, backward(jnp.resize(pull, output.shape))

    one, other = (jax.tree.leaves(run(PRECISE[name](precision), variables, x)) for precision in product.PRECISIONS)
    for exact, rounded in zip(one, other, strict=True):
        assert rounded.dtype == jnp.float32
        np.testing.assert_allclose(rounded, exact, rtol=0.05, atol=0.05 * np.abs(exact).max())
    assert not np.array_equal(one[0], other[0])
