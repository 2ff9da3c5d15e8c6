import numpy as np
import pytest
from flax import linen as nn

from decodec_jax.objective.transformer import LONG, attention


@pytest.mark.parametrize("frames", [LONG // 4, LONG + 1])
def test_attention_over_short_and_long_clips_is_that_of_flax(frames, rng):
    query, key, value = rng.standard_normal((3, 2, frames, 3, 8), np.float32)
    np.testing.assert_allclose(
        attention(query, key, value), nn.dot_product_attention(query, key, value), rtol=1e-5, atol=1e-6
    )
