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


def test_exact_parts_are_coordinates_of_orthogonal_parts_of_the_identity(projections):
    speech, background = projections("exact")(jnp.eye(8))
    assert speech.shape == background.shape == (8, 4)
    joined = Projection("exact").joined
    whole_speech, whole_background = joined(speech, 0 * background), joined(0 * speech, background)
    np.testing.assert_array_equal(whole_speech + whole_background, np.eye(8))
    np.testing.assert_array_equal(whole_speech.T @ whole_background, np.zeros((8, 8)))  # P_S P_N^T
    np.testing.assert_array_equal(whole_speech @ whole_speech, whole_speech)
    assert np.linalg.matrix_rank(whole_speech) == np.linalg.matrix_rank(whole_background) == 4


def test_exact_parts_of_any_embedding_join_to_it(projections, rng):
    x = rng.standard_normal((3, 5, 8)).astype(np.float32)
    np.testing.assert_array_equal(Projection("exact").joined(*projections("exact")(x)), x)


@pytest.mark.parametrize("form", ["learned", "none"])
def test_other_parts_join_to_their_sum(rng, form):
    speech, background = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    np.testing.assert_array_equal(Projection(form).joined(speech, background), speech + background)


@pytest.mark.parametrize("form", ["exact", "learned", "none"])
def test_one_part_joins_every_item_of_a_batch(rng, form):
    speech, background = (rng.standard_normal((b, 5, 4)).astype(np.float32) for b in (3, 1))
    joined = Projection(form).joined(speech, background)
    np.testing.assert_array_equal(joined, Projection(form).joined(speech, np.repeat(background, 3, axis=0)))


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
