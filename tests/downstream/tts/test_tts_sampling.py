"""Draws beside cases done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax.downstream.tts.sampling import Sampling, check, draw, nucleus
from decodec_jax.errors import UserError

CHANCES = np.array([0.1, 0.4, 0.05, 0.3, 0.15])


@pytest.mark.parametrize(("share", "kept"), [(0.3, [1]), (0.5, [1, 3]), (0.8, [1, 3, 4]), (0.9, [0, 1, 3, 4]),
                                             (1.0, [0, 1, 2, 3, 4])])  # fmt: skip
def test_the_nucleus_is_the_smallest_set_that_reaches_the_share(share, kept):
    """By hand: the likeliest first, 0.4 + 0.3 + 0.15 + 0.1 + 0.05."""
    found = nucleus(jnp.log(CHANCES), share)
    assert list(np.flatnonzero(np.isfinite(found))) == kept
    np.testing.assert_allclose(found[jnp.array(kept)], np.log(CHANCES)[kept], rtol=1e-6)


def drawn(sampling, seen=None, count=2000):
    seen = np.zeros(5) if seen is None else seen
    keys = jax.random.split(jax.random.key(0), count)
    codes = jax.vmap(lambda key: draw(jnp.log(CHANCES), jnp.asarray(seen), key, sampling))(keys)
    return np.bincount(codes, minlength=5) / count


def test_draws_come_as_often_as_their_chances():
    np.testing.assert_allclose(drawn(Sampling(1.0, 0.8)), np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85, atol=0.04)
    np.testing.assert_allclose(drawn(Sampling(0.5, 1.0)), CHANCES**2 / np.sum(CHANCES**2), atol=0.04)
    assert drawn(Sampling(0.0, 0.8), count=10)[1] == 1


@pytest.mark.parametrize("sampling", [Sampling(-1.0), Sampling(float("nan")), Sampling(1.0, 0.0), Sampling(1.0, 1.1)])
def test_what_nothing_can_be_drawn_with_is_refused(sampling):
    with pytest.raises(UserError, match=r"the temperature is|top-p is"):
        check(sampling)


def test_a_code_that_repeats_too_often_is_drawn_anew_from_all():
    """By hand: the nucleus is code 1 alone. Where it stood too often, all codes keep their chances."""
    sampling = Sampling(1.0, 0.3, window=10, repeats=3)
    assert drawn(sampling, [0, 3, 0, 0, 0], 10)[1] == 1
    np.testing.assert_allclose(drawn(sampling, [0, 4, 0, 0, 0]), CHANCES, atol=0.04)
    assert drawn(sampling._replace(temperature=0.0), [0, 4, 0, 0, 0], 10)[1] == 1
