"""Conversions with known scores get exactly those scores."""

from types import SimpleNamespace

import pytest

from decodec_jax.config import Data
from decodec_jax.data.sources import open_source
from decodec_jax.evaluation.suites import conversion, items
from decodec_jax.evaluation.suites.scoring import Tools


def test_known_conversions_get_their_known_scores():
    """With "tile" the stand-in model returns the source, with "content" it returns the reference."""
    model = SimpleNamespace(
        convert=lambda source, voice, rate, alignment: source if alignment == "tile" else voice,
        enhance=lambda source, rate: source / 8,
    )
    (source, reference), *_ = conversion.pairs(items.voices(open_source(Data(), 16_000, "test"), 2, 0.5))
    tools = Tools(
        words=lambda wave, rate, said: {"wer": float(len(said))},
        similarity=lambda one, other, rate: float(one is other),
    )
    source = source._replace(transcript="four")
    rows = {row.column: row.scores for row in conversion.measure("m", model, source, reference, tools)}
    rows["source"] = conversion.untouched(source, reference, tools).scores
    for name in ("m, tile", "m, unconverted", "source"):  # whatever the level
        expected = {"words": 1, "voice": -1, "wer": 4, "wer/original": 4, "similarity": 0}
        expected["similarity/source"] = float(name != "m, unconverted")
        assert rows[name] == pytest.approx(expected, abs=1e-3)
    converted = rows["m, content"]
    assert converted["voice"] == pytest.approx(1) and converted["words"] < 0.9 and converted["similarity"] == 1
