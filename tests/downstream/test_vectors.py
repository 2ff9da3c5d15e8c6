"""The vectors of single levels add up to what the codec makes of codes."""

import numpy as np
import pytest

from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.downstream import vectors
from decodec_jax.downstream.corpus import Corpus
from decodec_jax.errors import UserError


def test_sums_are_the_codecs_own(codec, rng):
    codes = Halves(*(rng.integers(0, 16, (3, 2, 7)).astype(np.int32) for _ in range(2)))
    variables = {"params": codec.params, "codebook": codec.codebook}
    expected = DeCodecNetwork(codec.config).apply(variables, codes, method="vectors")
    tables = vectors.tables(codec)
    for half in Halves._fields:
        table = getattr(tables, half)
        assert table.shape == (2, 16, codec.config.half)
        np.testing.assert_allclose(vectors.summed(getattr(codes, half), table), getattr(expected, half), atol=1e-5)


def test_codes_that_do_not_count_add_nothing(rng):
    table = rng.standard_normal((2, 16, 3)).astype(np.float32)
    codes, kept = rng.integers(0, 16, (1, 2, 4)), np.array([[[1, 1, 1, 0], [1, 0, 1, 0]]])
    found = vectors.summed(codes, table, kept)
    first, both = table[0, codes[0, 0]], table[0, codes[0, 0]] + table[1, codes[0, 1]]
    np.testing.assert_allclose(found[0], [both[0], first[1], both[2], np.zeros(3)], rtol=1e-6)


def test_another_codec_is_refused(codec_folder):
    corpus = Corpus([], "f" * 16, 1000, 20, (16, 16), (2, 2))
    with pytest.raises(UserError, match=r"the tokens are of the codec ffffffffffffffff, and data.codec="):
        vectors.codec_of(str(codec_folder), corpus)
