"""Muon against optax's, and which arrays it moves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import initialise
from decodec_jax.config import Optim
from decodec_jax.training.muon import kinds, muon, orthogonalised
from decodec_jax.training.state import make_optimizer


def after(optimizer, params, gradients):
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_its_first_update_is_that_of_optax(rng):
    """Later ones differ a little, because optax corrects the momentum for its start from zero."""
    params = {"wide": jnp.asarray(rng.normal(size=(8, 24))), "tall": jnp.asarray(rng.normal(size=(24, 8)))}
    gradients = [jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), params)]
    reference = optax.contrib.muon(1e-2, beta=0.95, weight_decay=0.1, consistent_rms=0.2)
    ours, theirs = after(muon(lambda _: 1e-2, 0.95, 0.1), params, gradients), after(reference, params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)
    assert float(jnp.abs(ours["wide"] - params["wide"]).max()) > 1e-3


def test_momentum_looks_one_step_ahead(rng):
    first, second = (jnp.asarray(rng.normal(size=(8, 24))) for _ in range(2))
    moved = after(muon(lambda _: 1.0, 0.9), jnp.zeros((8, 24)), [first, second])
    directions = (1 + 0.9) * first, (1 + 0.9) * second + 0.9**2 * first
    expected = -sum(0.2 * 24**0.5 * orthogonalised(direction) for direction in directions)
    np.testing.assert_allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_singular_values_become_nearly_equal(precision, rng):
    matrix = jnp.asarray(rng.normal(size=(16, 40)) * np.geomspace(1, 100, 40), jnp.float32)
    values = np.linalg.svd(orthogonalised(matrix, precision), compute_uv=False)
    assert np.linalg.cond(matrix) > 3 and values.min() > 0.6 and values.max() < 1.3


def test_a_gradient_of_zeros_moves_nothing():
    assert np.all(orthogonalised(jnp.zeros((4, 8))) == 0)


@pytest.mark.parametrize("family", ["spectral", "waveform"])
def test_only_kernels_of_dense_layers_are_its_own(family):
    params, _ = jax.eval_shape(lambda: initialise(testing.tiny_model(family=family), jax.random.key(0)))
    chosen = jax.tree_util.tree_leaves_with_path(kinds(params))
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, kind in chosen if kind == "muon"}
    if family == "waveform":
        assert not names
    else:
        assert {"encoder/first/kernel", "decoder/block0/up/kernel", "decoder/head/kernel"} <= names
        assert "decoder/block0/kernel" not in names  # depthwise
        assert all(name.endswith("/kernel") for name in names)


def test_arrays_that_are_not_its_own_move_as_with_adamw(rng):
    params = {"head": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}}
    gradients = [jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), params) for _ in range(3)]
    settings = {"lr": 1e-2, "warmup": 0, "weight_decay": 0.1}
    with_muon, without = (
        after(make_optimizer(Optim(kind=kind, **settings), 1e-2, 1e9), params, gradients) for kind in ("muon", "adamw")
    )
    np.testing.assert_allclose(with_muon["head"]["bias"], without["head"]["bias"], atol=1e-7)
    assert float(jnp.abs(with_muon["head"]["kernel"] - without["head"]["kernel"]).max()) > 1e-4
