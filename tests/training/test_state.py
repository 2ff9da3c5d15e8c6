"""The optimizers' schedule."""

import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.config import Optim
from decodec_jax.training.state import learning_rate, make_optimizer, scheduled


def rates(config, steps):
    return [float(learning_rate(config, config.lr)(step)) for step in steps]


def test_warm_up_then_constant_then_a_cosine_to_the_end():
    config = Optim(lr=1.0, warmup=10, decay_from=100, decay_steps=200, final=0.1)
    quarter = 0.1 + 0.9 * (1 + np.cos(np.pi / 4)) / 2
    expected = {0: 0, 5: 0.5, 10: 1, 50: 1, 100: 1, 125: quarter, 150: 0.55, 200: 0.1, 1000: 0.1}
    np.testing.assert_allclose(rates(config, expected), list(expected.values()), rtol=1e-5, atol=1e-7)


def test_by_default_the_cosine_begins_where_the_warm_up_ends():
    config = Optim(lr=2.0, warmup=10, decay_steps=30, final=0.0)
    np.testing.assert_allclose(rates(config, (10, 20, 30)), [2, 1, 0], atol=1e-6)


@pytest.mark.parametrize("changes", [
    {"warmup": 0}, {"warmup": 50, "decay_steps": 20}, {"decay_from": 500, "decay_steps": 20}], ids=str
)  # fmt: skip
def test_no_schedule_divides_by_zero_or_exceeds_its_peak(changes):
    found = rates(Optim(**({"lr": 1.0, "warmup": 5, "decay_steps": 100} | changes)), range(0, 700, 7))
    assert np.all(np.isfinite(found)) and 0.9 < max(found) <= 1 and found[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_optimizer_that_begins_late_has_the_rate_of_its_step(kind):
    config = Optim(kind=kind, lr=0.01, warmup=10, decay_from=100, decay_steps=200, weight_decay=0.0)
    optimizer = make_optimizer(config, config.lr, clip=1.0)
    params = {"dense": {"kernel": jnp.eye(3), "bias": jnp.ones(3)}}
    fresh, moved = optimizer.init(params), {}
    for step in (0, 5, 50, 200):
        updates, after = optimizer.update(params, scheduled(fresh, jnp.asarray(step)), params)
        moved[step] = float(jnp.abs(updates["dense"]["bias"]).max())
        again, _ = optimizer.update(params, scheduled(after, jnp.asarray(step)), params)
        assert float(jnp.abs(again["dense"]["kernel"]).max()) <= config.lr * 1.5
    assert moved[0] == 0 and moved[5] == pytest.approx(moved[50] / 2) and moved[200] == pytest.approx(moved[50] / 20)
