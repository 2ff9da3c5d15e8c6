"""The balancer: weights are shares of a gradient of set size, whatever the scale of the terms."""

import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.objective.balancer import balance, fresh


def test_weights_are_shares_whatever_the_scale_of_a_term():
    output = jnp.ones((3, 4))
    directions = {"large": jnp.array([1.0, 0, 0, 0]), "small": jnp.array([0, 1.0, 0, 0])}

    def terms(wave):
        return {"large": 1e4 * jnp.sum(wave @ directions["large"]), "small": 1e-4 * jnp.sum(wave @ directions["small"])}

    norms = fresh(["large", "small"])
    for _ in range(3):  # from the first step on
        values, gradient, norms = balance(terms, output, {"large": 3.0, "small": 1.0}, norms, total=8.0)
        np.testing.assert_allclose(gradient, np.broadcast_to([6.0, 2.0, 0, 0], (3, 4)), rtol=1e-5)
    assert values["large"] == pytest.approx(3e4)


def test_norms_are_averages_over_steps_and_items():
    scale = 1.0

    def terms(wave):
        return {"only": scale * jnp.sum(wave * jnp.array([[1.0], [3.0]]))}

    norms = fresh(["only"])
    _, _, norms = balance(terms, jnp.ones((2, 1)), {"only": 1.0}, norms, 1.0)
    scale = 2.0
    _, gradient, norms = balance(terms, jnp.ones((2, 1)), {"only": 1.0}, norms, 1.0)
    average = (0.999 * 2 + 4) / 1.999  # means over items of 2, then 4, the later one weighing more
    assert norms["only"][0] / norms["only"][1] == pytest.approx(average, rel=1e-5)
    np.testing.assert_allclose(gradient[:, 0], np.array([2.0, 6.0]) / average, rtol=1e-5)


def test_a_term_without_gradient_is_no_division_by_zero():
    def terms(wave):
        return {"none": 0 * jnp.sum(wave)}

    _, gradient, _ = balance(terms, jnp.ones((2, 3)), {"none": 1.0}, fresh(["none"]), 1.0)
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))
