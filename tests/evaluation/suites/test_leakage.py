"""Leakage measures in cases where the answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from decodec_jax.codec.model import Halves
from decodec_jax.errors import UserError
from decodec_jax.evaluation import metrics
from decodec_jax.evaluation.suites import items, leakage, suite
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.inference.codec import DeCodec
from decodec_jax.testing import full_config, random_bundle, tiny_model


def test_angles_are_principal_angles_between_row_spaces(rng):
    plane, line = np.eye(4)[:2], np.array([[1.0, 0, 1, 0]])
    np.testing.assert_allclose(leakage.angles(rng.standard_normal((50, 2)) @ plane, plane), [0, 0], atol=1e-5)
    np.testing.assert_allclose(leakage.angles(plane, np.eye(4)[2:]), [90, 90])
    np.testing.assert_allclose(leakage.angles(plane, line), [45])
    faint = np.concatenate([plane, 0.01 * np.eye(4)[2:]])  # directions with almost no energy
    np.testing.assert_allclose(leakage.angles(faint, np.eye(4)[2:]), [90, 90])


def test_the_exact_projection_has_orthogonal_halves(rng):
    config = tiny_model(projection="exact")
    halves = Halves(*rng.standard_normal((2, 9, config.half), np.float32))
    model = SimpleNamespace(config=config, params={}, embed=lambda wave, rate: halves)
    weights, own = leakage.subspaces("m", model, [items.Item("a", 16_000, np.ones(9))], Tools())
    assert weights.scores == pytest.approx({"angle/smallest": 90, "angle/mean": 90})
    assert own.scores == pytest.approx({"angle/smallest": 90, "angle/mean": 90, "angle/frames": 0}, abs=1e-3)


def test_the_classifier_finds_labels_that_are_present_and_only_those(rng):
    labels = [rng.random(200) < 0.2 for _ in range(4)]
    speakers = ["a", "a", "b", "c"]
    noise = [rng.standard_normal((200, 3)) for _ in labels]
    told = [np.column_stack([values, 2.0 * each + 0.1]) for values, each in zip(noise, labels, strict=True)]
    assert leakage.balanced_accuracies(told, labels, speakers) == [1.0] * 4
    assert np.mean(leakage.balanced_accuracies(noise, labels, speakers)) == pytest.approx(0.5, abs=0.1)
    codes = [leakage.one_hot(np.stack([each, rng.integers(3, size=200)]).astype(int), 3) for each in labels]
    assert codes[0].shape == (200, 6) and np.all(codes[0].sum(axis=1) == 2)
    assert leakage.balanced_accuracies(codes, labels, speakers) == [1.0] * 4
    assert leakage.balanced_accuracies(noise, [np.ones(200, bool)] * 4, speakers) == [1.0] * 4  # only one class


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return DeCodec.load(random_bundle(tmp_path_factory.mktemp("models") / "tiny", full_config().model))


@pytest.fixture(scope="module")
def mixtures():
    return suite.load("", "enhancement", 1, seconds=0.5)[:2]


def test_blank_codes_give_the_codecs_own_output(model, mixtures):
    rows = {(row.column, row.item): row.scores for row in leakage.blanks("m", model, mixtures, Tools())}
    for item in mixtures:
        expected = metrics.sdr(model.enhance(item.mixture, item.rate), item.speech)
        assert rows["m, blank", item.name]["sdr/speech"] == pytest.approx(expected, abs=0.01)
        expected = metrics.sdr(model.background(item.mixture, item.rate), item.background)
        assert rows["m, blank", item.name]["sdr/background"] == pytest.approx(expected, abs=0.01)
        assert rows["m, zero", item.name] != rows["m, blank", item.name]


def test_frame_labels_do_not_depend_on_the_level_of_the_recording(model, mixtures):
    loud = mixtures[0]
    quiet = loud._replace(mixture=loud.mixture / 8, speech=loud.speech / 8)
    found = leakage.levels(model, loud, "speech")
    assert len(found) == 25 == model.embed(loud.mixture, loud.rate).speech.shape[0]
    np.testing.assert_allclose(found, leakage.levels(model, quiet, "speech"), atol=1e-3)


def test_frames_need_two_speakers(model, mixtures):
    with pytest.raises(UserError, match="two speakers or more"):
        leakage.frames("m", model, [item._replace(speaker="a") for item in mixtures], Tools())
