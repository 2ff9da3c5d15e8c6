from types import SimpleNamespace

import pytest

from decodec_jax.config import Data
from decodec_jax.data.sources import open_source
from decodec_jax.evaluation import conversion


def test_models_whose_scores_are_known():
    """One that leaves all as it was, and one that says what the reference says."""
    model = SimpleNamespace(
        convert=lambda source, voice, rate, alignment: source if alignment == "tile" else voice,
        enhance=lambda source, rate: source / 8,
    )
    means = conversion.evaluate(model, open_source(Data(), 16_000, "test"), 2, 0.5)
    for name in ("tile", "unconverted"):  # however loud
        assert means[name] == pytest.approx({"words": 1, "voice": -1}, abs=1e-3)
    assert means["content"]["voice"] == pytest.approx(1) and means["content"]["words"] < 0.9
    assert "| tile | +1.00 | -1.00 |" in conversion.table(means)
