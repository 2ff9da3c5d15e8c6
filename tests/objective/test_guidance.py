import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from decodec_jax.objective import guidance
from decodec_jax.objective.guidance import FORMS

LOSS_AT = {1: 0.31326, 0: 0.69315, -1: 1.31326}  # -log sigmoid


@pytest.fixture
def pair(rng):
    """projected and target, [2, 30, 5]."""
    return tuple(jnp.float32(rng.standard_normal((2, 2, 30, 5))))


COSINES = [form for form in FORMS if form != "relations"]


@pytest.mark.parametrize("form", COSINES)
def test_forms_equal_numpy_s_item_by_item(pair, form):
    axis = 0 if form == "time" else 1  # of [f, w]
    expected = []
    for a, b in zip(*(np.float64(x) for x in pair), strict=True):
        cosine = np.sum(a * b, axis) / (np.linalg.norm(a, axis=axis) * np.linalg.norm(b, axis=axis))
        expected.append(np.mean(1 - cosine if form == "cosine" else np.log1p(np.exp(-cosine))))
    np.testing.assert_allclose(jax.jit(FORMS[form])(*pair), expected, rtol=1e-5)


@pytest.mark.parametrize(("sign", "loss"), LOSS_AT.items())
def test_equation_7_at_cosines_1_0_and_minus_1(sign, loss):
    target = jnp.array([[[1.0, 2], [1, 0], [0, 0], [0, -1]]])
    other = jnp.array([[[0.0, 0], [0, 3], [2, 0], [0, 0]]])  # at right angles over time, in each of the two dimensions
    projected = 3 * sign * target if sign else other
    np.testing.assert_allclose(guidance.over_time(projected, target), [loss], rtol=1e-4)
    np.testing.assert_allclose(guidance.mean_cosine(projected, target), [sign], atol=1e-5)


def test_over_time_each_dimension_has_its_own_scale_and_over_features_each_frame(pair):
    projected, target = pair
    per_dimension, per_frame = jnp.array([1.0, 10, 0.1, 3, 5]), jnp.linspace(0.5, 2, 30)[:, None]
    for form in (guidance.over_time, guidance.mean_cosine):
        np.testing.assert_allclose(form(projected * per_dimension, target), form(projected, target), rtol=1e-4)
        assert not np.allclose(form(projected * per_frame, target), form(projected, target), rtol=1e-3)
    for form in (guidance.over_features, guidance.cosine_distance):
        np.testing.assert_allclose(form(projected * per_frame, target), form(projected, target), rtol=1e-4)
        assert not np.allclose(form(projected * per_dimension, target), form(projected, target), rtol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_step_brings_the_projection_nearer(pair, form):
    projected, target = pair
    loss = jax.jit(lambda x: jnp.sum(FORMS[form](x, target)))
    assert loss(projected - 0.5 * jax.grad(loss)(projected)) < loss(projected)


@pytest.mark.parametrize("form", COSINES)
def test_zeros_have_cosine_0_and_a_finite_gradient(pair, form):
    projected, target = (jnp.concatenate([x[:1]] * 3) for x in pair)
    projected, target = projected.at[0].set(0).at[2].set(0), target.at[1].set(0).at[2].set(0)
    values, backward = jax.vjp(FORMS[form], projected, target)
    np.testing.assert_allclose(values, [1 if form == "cosine" else LOSS_AT[0]] * 3, rtol=1e-4)
    gradient, _ = backward(jnp.ones(3))
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[1:], 0)  # nothing to learn from silence


def test_relations_equal_scipy_s_divergence_of_softmaxes(pair):
    expected = []
    for a, b in zip(*(np.float64(x) for x in pair), strict=True):
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        wanted, reached = (special.softmax(x @ b.T / guidance.TEMPERATURE, axis=1) for x in (b, a))
        expected.append(np.mean(np.sum(special.rel_entr(wanted, reached), axis=1)))
    np.testing.assert_allclose(jax.jit(guidance.relations)(*pair), expected, rtol=1e-4)


def test_relations_are_0_at_the_target_whatever_the_length_of_the_frames(pair):
    target = pair[1]
    np.testing.assert_allclose(guidance.relations(3 * target, target), 0, atol=1e-5)


def test_relations_learn_nothing_from_silence(pair):
    projected, target = pair[0], jnp.zeros_like(pair[1])
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(guidance.relations(x, target)))(projected)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_array_equal(gradient, 0)
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(guidance.relations(x, pair[1])))(0 * projected)))
