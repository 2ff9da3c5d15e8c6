import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.codec.projection import Projection, orthogonality


@pytest.fixture
def projections(rng):
    def make(form, width=8):
        params = {name: 0.5 * rng.standard_normal((width, width)) for name in ("speech", "background")}
        variables = {"params": jax.tree.map(jnp.float32, params)} if form == "learned" else {}
        return lambda x: Projection(form).apply(variables, x)

    return make


def test_exact_projection_splits_the_identity_into_orthogonal_parts(projections):
    speech, background = projections("exact")(jnp.eye(8))
    np.testing.assert_array_equal(speech + background, np.eye(8))
    np.testing.assert_array_equal(speech.T @ background, np.zeros((8, 8)))  # P_S P_N^T, as the results are P^T
    np.testing.assert_array_equal(speech @ speech, speech)
    assert np.linalg.matrix_rank(speech) == np.linalg.matrix_rank(background) == 4


def test_exact_parts_of_any_embedding_sum_to_it_and_have_no_orthogonality_loss(projections, rng):
    x = rng.standard_normal((3, 5, 8)).astype(np.float32)
    speech, background = projections("exact")(x)
    np.testing.assert_array_equal(speech + background, x)
    assert np.all(orthogonality(speech, background) < 2e-4)  # the root's own 1e-8


def test_learned_projection_is_two_linear_maps_whose_matrices_the_identity_shows(projections, rng):
    project = projections("learned")
    x, y = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    for half, (part, matrix) in enumerate(zip(project(x), project(jnp.eye(8)), strict=True)):
        np.testing.assert_allclose(part, x @ matrix, atol=1e-5)
        np.testing.assert_allclose(project(2 * x - y)[half], 2 * part - project(y)[half], atol=1e-4)


def test_no_projection_gives_the_whole_embedding_twice(projections, rng):
    x = rng.standard_normal((1, 2, 8)).astype(np.float32)
    for part in projections("none")(x):
        np.testing.assert_array_equal(part, x)


def test_orthogonality_is_the_root_mean_square_cosine_over_frames(rng):
    speech, background = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    norms = np.linalg.norm(speech, axis=-1) * np.linalg.norm(background, axis=-1)
    cosine = np.sum(speech * background, axis=-1) / norms
    np.testing.assert_allclose(orthogonality(speech, background), np.sqrt(np.mean(cosine**2, axis=-1)), rtol=1e-5)


@pytest.mark.parametrize("scale", [-3.0, 1.0, 100.0])
def test_orthogonality_of_parallel_parts_is_one_at_any_scale(rng, scale):
    x = rng.standard_normal((2, 4, 8)).astype(np.float32)
    np.testing.assert_allclose(orthogonality(x, scale * x), 1, atol=1e-5)


def test_orthogonality_is_free_of_scale(rng):
    speech, background = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    np.testing.assert_allclose(orthogonality(7 * speech, -background), orthogonality(speech, background), rtol=1e-5)


def test_descending_orthogonality_makes_learned_parts_orthogonal(rng):
    x = rng.standard_normal((1, 64, 4)).astype(np.float32)
    matrices = jnp.float32(rng.standard_normal((2, 4, 4)))

    @jax.jit
    def descend(matrices):
        def loss(matrices):
            variables = {"params": {"speech": matrices[0], "background": matrices[1]}}
            return orthogonality(*Projection("learned").apply(variables, x)).mean()

        return jax.lax.fori_loop(0, 1000, lambda _, m: m - 0.3 * jax.grad(loss)(m), matrices), loss(matrices)

    matrices, before = descend(matrices)
    after = descend(matrices)[1]
    assert before > 0.3 and after < 0.05
    assert np.linalg.norm(matrices[0]) > 1 and np.linalg.norm(matrices[1]) > 1  # not by shrinking


@pytest.mark.parametrize("silent", ["both", "speech"])
def test_silence_has_a_finite_loss_and_gradient(rng, silent):
    parts = [jnp.zeros((2, 3, 8)), jnp.zeros((2, 3, 8))]
    if silent == "speech":
        parts[1] = jnp.float32(rng.standard_normal((2, 3, 8)))
    value, gradient = jax.value_and_grad(lambda parts: orthogonality(*parts).sum())(parts)
    assert np.isfinite(value) and value < 1e-3
    assert all(np.all(np.isfinite(g)) for g in gradient)


def test_learned_projections_begin_as_orthogonal_ones_that_complete_each_other():
    params = Projection("learned").init(jax.random.key(3), jnp.ones((1, 8)))["params"]
    np.testing.assert_allclose(params["speech"] + params["background"], np.eye(8), atol=1e-6)
    np.testing.assert_allclose(params["speech"] @ params["background"].T, np.zeros((8, 8)), atol=1e-6)
    assert np.linalg.matrix_rank(params["speech"]) == np.linalg.matrix_rank(params["background"]) == 4
