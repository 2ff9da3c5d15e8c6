"""How far one step moves the codebooks."""

import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import STREAMS, Halves
from decodec_jax.codec.quantize import Averages, Tally
from decodec_jax.config import Optim
from decodec_jax.training.codebooks import memory, move_codebooks

OPTIM = Optim(lr=3e-4, warmup=10, decay_from=100, decay_steps=200, final=0.05)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.98), (5, 0.98), (100, 0.98), (150, 0.9895), (200, 0.999), (900, 0.999)]
)
def test_the_averages_remember_longer_as_the_learning_rate_falls_but_not_while_it_rises(step, expected):
    assert float(memory(OPTIM, 0.98, jnp.asarray(step))) == pytest.approx(expected, abs=1e-6)


def test_a_late_step_moves_entries_a_twentieth_as_far(rng):
    config = testing.tiny_config()
    config.optim = OPTIM
    entries, vectors = (jnp.float32(rng.standard_normal((2, 4, 3))) for _ in range(2))
    counts = jnp.full((2, 4), 5.0)
    codebook = {name: {"levels": Averages(entries, counts, 5 * entries)} for name in STREAMS}
    tally = {"levels": Tally(counts, 5 * vectors, vectors)}  # every entry is chosen as often as before
    early, late = (
        move_codebooks(config, codebook, Halves(tally, tally), jnp.asarray(step))[0]["speech_quantizer"]["levels"]
        for step in (100, 200)
    )
    expected = (1 - config.model.speech.decay) * (vectors - entries)
    np.testing.assert_allclose(early.entries - entries, expected, rtol=1e-4)
    np.testing.assert_allclose(late.entries - entries, (early.entries - entries) / 20, rtol=1e-3)
