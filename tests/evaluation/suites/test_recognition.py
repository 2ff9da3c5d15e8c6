"""Recognisers that hear what is known get exactly the error rates that they must."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from decodec_jax.downstream.asr.config import Config
from decodec_jax.downstream.text import CHARACTERS, Vocabulary
from decodec_jax.errors import UserError
from decodec_jax.evaluation.suites import recognition, suite
from decodec_jax.evaluation.suites.recognition import Named
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.evaluation.systems.base import Item

WAVE = np.ones(800, np.float32)
ITEMS = [
    Item("noisy", 16_000, WAVE, WAVE / 2, WAVE / 2, 0.0, "s", "The CAT sat."),
    Item("clean", 16_000, WAVE, WAVE, None, None, "s", "a dog"),
    Item("number", 16_000, WAVE, WAVE, None, None, "s", "in 1815"),
]


def recogniser(hear, waves=False):
    """`hear` makes a text of a waveform; the codec halves it."""
    codec = SimpleNamespace(enhance=lambda wave, rate: wave / 2)
    card = {"codec": "feed", "data": {"minutes": 3.5}}
    return SimpleNamespace(config=Config(), vocabulary=Vocabulary(CHARACTERS), hears_waves=waves, codec=codec, step=9,
                           card=card, recognise_wave=lambda wave, rate: hear(wave))  # fmt: skip


def test_rates_are_those_of_the_words_and_characters(tmp_path):
    deaf = Named("deaf", recogniser(lambda wave: ""))
    close = Named("close", recogniser(lambda wave: "the bat sat"))
    mel = Named("mel", recogniser(lambda wave: "the cat sat" if wave[0] < 1 else "the cat", waves=True))
    made = suite.run("recognition", [], ITEMS, tmp_path, tools=Tools(missing=["no PESQ"]),
                     recognisers=[deaf, close, mel])  # fmt: skip
    rows = json.loads((tmp_path / "tables.json").read_text())["scores"]
    found = {(row["column"], row["item"]): row["scores"] for row in rows}
    assert {item for _, item in found} == {"noisy", "clean"}  # a number has no one spelling
    assert found["deaf", "noisy"] == {"wer": 1.0, "cer": 1.0}
    assert found["close", "noisy"] == {"wer": pytest.approx(1 / 3), "cer": pytest.approx(1 / 11)}
    assert found["mel, untouched", "noisy"]["wer"] == pytest.approx(1 / 3)
    assert found["mel, denoised", "noisy"] == {"wer": 0.0, "cer": 0.0}
    assert list(made) == ["recognition, all SNRs", "recognition, 0 dB", "recognition, clean"]
    text = (tmp_path / "tables.md").read_text()
    assert "character error rate" in text and "PESQ" not in text
    assert "deaf: step 9, trained on 3.5 min of tokens of the codec feed." in text


def test_without_recognisers_or_transcripts_one_line_says_so(tmp_path):
    with pytest.raises(UserError, match="give some: --recogniser NAME=RUN"):
        suite.run("recognition", [], ITEMS, tmp_path, tools=Tools())
    silent = [item._replace(transcript="") for item in ITEMS]
    with pytest.raises(UserError, match="no test clip has a transcript"):
        suite.run("recognition", [], silent, tmp_path, tools=Tools(),
                  recognisers=[Named("deaf", recogniser(lambda wave: ""))])  # fmt: skip


def test_what_is_no_recogniser_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run on tokens: card.json cannot be read"):
        recognition.load([f"one={tmp_path}"])
    (tmp_path / "card.json").write_text('{"task": "tts"}')
    with pytest.raises(UserError, match="a run of the task 'tts'"):
        recognition.load([str(tmp_path)])
