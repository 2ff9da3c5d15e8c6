"""The table of docs/results.md: models whose scores are known get exactly those."""

from types import SimpleNamespace

import numpy as np
import pytest

from decodec_jax.config import Data, Model
from decodec_jax.data.sources import open_source
from decodec_jax.evaluation import separation


@pytest.fixture(scope="module")
def mixtures():
    return separation.make_mixtures(open_source(Data(), 16_000, "test"), count=2, seconds=0.5)


def model(task):
    return SimpleNamespace(config=Model(), reconstruct=task, enhance=task, background=task)


def test_mixtures_have_the_snr_they_say_and_are_the_same_every_time(mixtures):
    again = separation.make_mixtures(open_source(Data(), 16_000, "test"), count=2, seconds=0.5)
    assert [m.snr for m in mixtures] == [*separation.SNRS, *separation.SNRS]
    for one, other in zip(mixtures, again, strict=True):
        np.testing.assert_array_equal(one.mixture, other.mixture)
        np.testing.assert_array_equal(one.mixture, one.speech + one.background)
        snr = 10 * np.log10(np.sum(one.speech**2) / np.sum(one.background**2))
        assert snr == pytest.approx(one.snr, abs=0.01)


def test_a_model_that_returns_its_input_gains_nothing(mixtures):
    for row in separation.evaluate(model(lambda wave, rate: wave), mixtures):
        assert row["si_sdr_gain/speech"] == pytest.approx(0, abs=1e-4)
        assert row["sdr/background"] == pytest.approx(-row["snr"], abs=0.01)


def test_a_model_that_returns_silence_scores_zero(mixtures):
    rows = separation.evaluate(model(lambda wave, rate: np.zeros_like(wave)), mixtures)
    assert all(row["sdr/background"] == pytest.approx(0, abs=1e-4) for row in rows)


def test_the_table_has_a_line_for_each_snr_and_one_for_all(mixtures):
    lines = separation.table(separation.evaluate(model(lambda wave, rate: wave), mixtures)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["-5", "0", "5", "10", "15", "20", "all"]
    assert len({line.count("|") for line in lines}) == 1
