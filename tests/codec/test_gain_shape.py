import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodec_jax.codec.gain_shape import from_gain_shape, to_gain_shape
from decodec_jax.codec.quantize import ResidualQuantizer
from decodec_jax.config import Config, Quantizer, check
from decodec_jax.errors import UserError
from decodec_jax.testing import random_variables

GROUPS, WIDTH = 3, 12


def latents(rng, decibels=0.0):
    return jnp.float32(10 ** (decibels / 20) * rng.standard_normal((2, 5, WIDTH)))


@given(decibels=st.floats(-30, 40), seed=st.integers(0, 99))
def test_there_and_back_is_where_it_was(decibels, seed):
    x = latents(np.random.default_rng(seed), decibels)
    y = to_gain_shape(x, GROUPS)
    assert y.shape == (2, 5, GROUPS + WIDTH)
    np.testing.assert_allclose(from_gain_shape(y, GROUPS), x, rtol=2e-3, atol=1e-3 * float(jnp.abs(x).max()))


def test_gains_are_logarithms_and_shapes_keep_the_lesser_part_of_a_level(rng):
    x = latents(rng)
    one, louder = to_gain_shape(x, GROUPS), to_gain_shape(100 * x, GROUPS)
    np.testing.assert_allclose((louder - one)[..., :GROUPS], 2 * np.log(100), rtol=0.02)
    np.testing.assert_allclose(louder[..., GROUPS:] / one[..., GROUPS:], 100**0.7, rtol=0.02)


@pytest.mark.parametrize("left", [1.0, 0.25])
def test_what_is_decoded_is_half_way_between_the_levels_of_shape_and_gain(rng, left):
    x = latents(rng)
    coarse = to_gain_shape(x, GROUPS).at[..., GROUPS:].multiply(left)
    np.testing.assert_allclose(from_gain_shape(coarse, GROUPS), np.sqrt(left) * x, rtol=0.02)


def test_silence_stays_silent_and_its_gradient_finite():
    silence = jnp.zeros((1, 2, WIDTH))
    np.testing.assert_allclose(to_gain_shape(silence, GROUPS), 0, atol=1e-3)
    assert not np.any(from_gain_shape(to_gain_shape(silence, GROUPS), GROUPS))
    gradient = jax.grad(lambda x: jnp.sum(to_gain_shape(x, GROUPS)))(silence)
    assert np.all(np.isfinite(gradient))


def test_the_quantizer_passes_the_gradient_straight_through_and_codes_give_what_it_gave(rng):
    module = ResidualQuantizer(Quantizer(levels=2, entries=8, gains=GROUPS, dim=4), WIDTH)
    x = latents(rng)
    variables = random_variables(module, x)
    quantized, pull = jax.vjp(lambda x: module.apply(variables, x).vectors, x)
    weights = latents(rng)
    np.testing.assert_array_equal(pull(weights)[0], weights)
    codes = module.apply(variables, x).codes
    np.testing.assert_allclose(module.apply(variables, codes, method="vectors"), quantized, atol=1e-5)
    first = module.apply(variables, codes[:, :1], method="vectors")
    np.testing.assert_allclose(module.apply(variables, x).first, first, atol=1e-5)


def test_items_without_a_level_pass_as_they_are(rng):
    module = ResidualQuantizer(Quantizer(levels=2, entries=8, gains=GROUPS), WIDTH)
    x = latents(rng)
    quantized = module.apply(random_variables(module, x), x, jnp.array([0, 2]))
    np.testing.assert_array_equal(quantized.vectors[0], x[0])
    assert not np.allclose(quantized.vectors[1], x[1])


@pytest.mark.parametrize("change", [{"gains": 7}, {"gains": -8}, {"gains": 8, "kind": "factorised"}])
def test_gains_that_cannot_be_are_named(change):
    config = Config()
    config.model.semantic, config.model.background = 768, Quantizer(**change)
    with pytest.raises(UserError, match=r"model.background.gains"):
        check(config)
