"""Code entropies and teacher cosines, checked against the network's own codes and vectors."""

import json

import jax
import numpy as np
import pytest

from decodec_jax import config as settings
from decodec_jax.codec.model import DeCodecNetwork
from decodec_jax.config import Data
from decodec_jax.data.sources import open_source
from decodec_jax.evaluation import metrics
from decodec_jax.evaluation.suites import compare, items
from decodec_jax.inference.codec import DeCodec
from decodec_jax.objective.teacher import CepstraTeacher
from decodec_jax.testing import full_config, random_variables

RATE = 16_000


@pytest.fixture(scope="module")
def mixtures():
    return items.mixtures(open_source(Data(), RATE, "test"), 1, 0.5)


@pytest.fixture(scope="module")
def codec():
    """A codec with codebooks, a projection to the teacher's width, and random weights."""
    config = full_config().model
    variables = random_variables(DeCodecNetwork(config), np.zeros((1, config.hop), np.float32))
    return DeCodec(config, variables["params"], variables["codebook"])


def test_entropies_match_the_codes_of_the_model(codec, mixtures):
    scores = compare.codebooks(codec, mixtures)
    codes = np.stack([codec.encode(mixture.mixture, RATE).speech for mixture in mixtures])
    for level, effective in enumerate(metrics.perplexity(codes, 16)):
        bits = scores[f"bits/speech/{level + 1}"]
        assert bits.shape == (len(mixtures),) and bits.mean() == pytest.approx(np.log2(effective), abs=1e-6)
    assert scores["used/speech"] == pytest.approx([metrics.usage(codes, 16).mean()])
    assert 0 < scores["used/background"].item() <= 1


def test_cosines_are_between_the_teacher_and_the_projected_first_level(codec, mixtures):
    """Recomputed here in numpy, from the codec's codes and the vectors of its first codebook."""
    network, variables = DeCodecNetwork(codec.config), {"params": codec.params, "codebook": codec.codebook}
    kernel, bias = (np.asarray(codec.params["semantic_projection"][name]) for name in ("kernel", "bias"))
    entries = jax.tree.leaves(variables["codebook"]["speech_quantizer"])[0][0]
    found = compare.cosines(codec, mixtures, CepstraTeacher())
    assert network.config.speech.dim == 0 and found.shape == (len(mixtures),)
    for mixture, cosine in zip(mixtures[:2], found, strict=False):
        projected = np.asarray(entries)[codec.encode(mixture.mixture, RATE).speech[0]] @ kernel + bias
        target = np.asarray(CepstraTeacher().targets(mixture.speech[None])[0])
        expected = (projected * target).sum(0) / np.linalg.norm(projected, axis=0) / np.linalg.norm(target, axis=0)
        assert cosine == pytest.approx(expected.mean(), abs=1e-3)


def test_the_teacher_of_a_run_is_the_one_in_its_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(settings.to_dict(full_config())))
    assert isinstance(compare.teacher_of(tmp_path), CepstraTeacher)


def test_per_item_and_overall_values_become_rows():
    rows = compare.rows("all", "m", ["a", "b"], {"cosine": np.array([0.1, 0.2]), "used/speech": np.array([0.5])})
    assert [(row.item, row.scores) for row in rows] == [
        ("a", {"cosine": 0.1}), ("b", {"cosine": 0.2}), ("every item", {"used/speech": 0.5}),
    ]  # fmt: skip
