import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.objective import adversarial
from decodec_jax.objective.discriminators import Judged


def judged(*pairs):
    """One `Judged` for every pair of logits and list of features; n is their first axis."""
    return [Judged(jnp.float32(logits), [jnp.float32(f) for f in features]) for logits, features in pairs]


@pytest.fixture
def real():
    """Two sub-discriminators of two items, unequal in size."""
    return judged(
        ([[[1.0, 0.0]], [[0.5, 0.5]]], [[[1.0, 3.0], [0.0, 0.0]], [[2.0], [2.0]]]),
        ([[[2.0]], [[1.0]]], [[[4.0], [4.0]]]),
    )


@pytest.fixture
def fake():
    return judged(
        ([[[0.0, 2.0]], [[1.0, 1.0]]], [[[1.0, 1.0], [1.0, 1.0]], [[2.0], [5.0]]]),
        ([[[-2.0]], [[0.0]]], [[[4.0], [0.0]]]),
    )


# --- values by hand -------------------------------------------------------------------------------------------------


def test_least_squares_by_hand(real, fake):
    # item 0: ((0 + 1) / 2 + (0 + 4) / 2 + 1 + 4) / 2;  item 1: (1 / 4 + 1 + 0 + 0) / 2
    np.testing.assert_allclose(adversarial.discriminator_loss(real, fake, "lsgan"), [7.5 / 2, 1.25 / 2])
    # item 0: ((1 + 1) / 2 + 9) / 2;  item 1: (0 + 1) / 2
    np.testing.assert_allclose(adversarial.adversarial_loss(fake, "lsgan"), [5, 0.5])


def test_hinge_by_hand(real, fake):
    # item 0: ((0 + 1) / 2 + (1 + 3) / 2 + 0 + 0) / 2;  item 1: (1 / 2 + 2 + 0 + 1) / 2
    np.testing.assert_allclose(adversarial.discriminator_loss(real, fake, "hinge"), [2.5 / 2, 3.5 / 2])
    np.testing.assert_allclose(adversarial.adversarial_loss(fake, "hinge"), [(-1 + 2) / 2, (-1 + 0) / 2])


def test_feature_matching_sums_over_layers_and_averages_over_discriminators(real, fake):
    # item 0: (2 / 2 + 0) and 0;  item 1: (1 + 3) and 4
    np.testing.assert_allclose(adversarial.feature_loss(real, fake), [1 / 2, (4 + 4) / 2])


def test_relative_feature_matching_divides_by_the_real_features_magnitude(real, fake):
    # magnitudes over the batch: 1 and 2; 4
    np.testing.assert_allclose(adversarial.feature_loss(real, fake, True), [(1 / 1 + 0) / 2 / 2, (2.5 / 2 + 4 / 4) / 2])


def test_relative_feature_matching_has_no_unit_and_the_other_has(rng):
    features = [rng.uniform(1, 2, (2, 3, 4)) for _ in range(2)]

    def loss(scale, relative):
        sides = (judged(([[[0]]] * 2, [scale * f])) for f in features)
        return adversarial.feature_loss(*sides, relative)

    np.testing.assert_allclose(loss(100.0, True), loss(1.0, True), rtol=1e-5)
    np.testing.assert_allclose(loss(100.0, False), 100 * loss(1.0, False), rtol=1e-5)


@pytest.mark.parametrize(("kind", "wrong"), [("lsgan", 0.0), ("hinge", -1.0)])
def test_perfect_discriminators_pay_nothing_and_the_generator_gains_by_passing_for_real(kind, wrong):
    passed, caught = judged(([[[1.0]]], [])), judged(([[[wrong]]], []))
    np.testing.assert_array_equal(adversarial.discriminator_loss(passed, caught, kind), [0])
    assert adversarial.discriminator_loss(passed, passed, kind).item() >= 1
    assert adversarial.adversarial_loss(passed, kind).item() <= adversarial.adversarial_loss(caught, kind).item() - 1


def test_equal_features_cost_nothing(real):
    for relative in (True, False):
        np.testing.assert_array_equal(adversarial.feature_loss(real, real, relative), [0, 0])


def test_half_precision_is_averaged_in_single():
    """A mean of 10^5 ones in bfloat16 would stop at 256."""
    many = [Judged(jnp.ones((1, 10**5), jnp.bfloat16), [jnp.ones((1, 10**5), jnp.bfloat16)])]
    none = jax.tree.map(jnp.zeros_like, many)
    loss = adversarial.discriminator_loss(none, many, "lsgan")
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [2])
    np.testing.assert_allclose(adversarial.feature_loss(many, none), [1])


def test_lists_of_different_discriminators_are_refused(real, fake):
    with pytest.raises(ValueError):
        adversarial.discriminator_loss(real, fake[:1], "lsgan")
    with pytest.raises(ValueError):
        adversarial.feature_loss(real[:1], fake)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_real_features_are_constants(real, fake, relative):
    gradient = jax.grad(lambda r, f: adversarial.feature_loss(r, f, relative).sum(), (0, 1))
    to_real, to_fake = jax.jit(gradient)(real, fake)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(to_real))
    assert all(np.any(leaf) for j in to_fake for leaf in j.features)


@pytest.mark.parametrize("relative", [False, True])
def test_silence_whose_features_are_all_zero_has_finite_losses_and_gradients(real, relative):
    silent = jax.tree.map(jnp.zeros_like, real)
    value, gradient = jax.value_and_grad(lambda f: adversarial.feature_loss(silent, f, relative).sum())(real)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert value < 1e3  # an error relative to nothing is not without bound
    np.testing.assert_array_equal(adversarial.feature_loss(silent, silent, relative), [0, 0])
