"""launch/sentinel.py: each measurement appends a row to the table and redraws the plot."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.testing import random_bundle, tiny_config

SCRIPT = Path(__file__).parents[2] / "launch/sentinel.py"


@pytest.fixture
def sentinel():
    spec = importlib.util.spec_from_file_location("sentinel", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_measurement_appends_a_row_and_redraws_the_plot(sentinel, tmp_path, monkeypatch, capsys):
    model = random_bundle(tmp_path / "model", tiny_config(family="spectral", causal=True).model)
    heard = []

    def measured(codec, items):
        heard.append([item.name for item in items])
        return {name: 0.5 + len(heard) for name in sentinel.FIGURES}

    monkeypatch.setattr(sentinel, "measured", measured)
    monkeypatch.setattr(sentinel, "word_errors", lambda *_: dict.fromkeys(sentinel.WORDS, 0.25))
    monkeypatch.setattr(sentinel.judges, "whisper", lambda: None)
    monkeypatch.setattr(sentinel.judges, "recogniser", lambda: None)
    table = tmp_path / "curve.csv"
    for seen in ("1000", "2000"):
        flags = [str(model), "--data", "", "--table", str(table), "--seen", seen]
        monkeypatch.setattr(sys, "argv", ["sentinel.py", *flags])
        sentinel.main()
    assert heard[:2] == heard[2:] and len(heard[0]) == sentinel.CLEAN  # the same clips every time
    first, second = sentinel.read(table)
    assert (first["mixture-seconds"], second["mixture-seconds"]) == ("1000", "2000")
    assert (first["run"], first["WER of level 1"]) == ("model", "0.25")
    assert (first["clean PESQ"], second["mixtures OVRL"], first["step"]) == ("1.5", "4.5", "7")
    assert table.with_suffix(".png").stat().st_size > 1000
    assert "mixture-seconds 2000" in capsys.readouterr().out


def test_two_models_are_compared_clip_by_clip(sentinel, tmp_path, monkeypatch, capsys):
    model = random_bundle(tmp_path / "model", tiny_config(family="spectral", causal=True).model)

    def clip_by_clip(codec, items):
        """Metrics of n, n + 1, ... for clips; those of the other model are less by 1, 2, 1, 2, ..."""
        found = np.arange(len(items), dtype=float)[:, None] + np.arange(4.0)
        if "weights" in str(codec.path):
            found -= np.where(np.arange(len(items)) % 2, 2.0, 1.0)[:, None]
            found[0, 0] = np.nan  # a clip too short for PESQ, say
        return found

    loaded = {str(model): SimpleNamespace(path=model), "built-in": SimpleNamespace(path="weights")}
    for codec in loaded.values():
        codec.quantized, codec.config = True, SimpleNamespace(sample_rate=16_000)
    monkeypatch.setattr(sentinel.DeCodec, "load", lambda name: loaded[str(name)])
    monkeypatch.setattr(sentinel, "clip_by_clip", clip_by_clip)
    monkeypatch.setattr(sys, "argv", ["sentinel.py", str(model), "--data", "", "--against", "built-in"])
    sentinel.main()
    clean, mixtures = capsys.readouterr().out.splitlines()
    assert "ESTOI +1.500" in clean and "PESQ nan" not in clean
    assert "ESTOI +1.500 (0." in mixtures


def test_a_bundle_needs_the_amount_of_training_as_a_flag(sentinel, tmp_path):
    with pytest.raises(UserError, match="give --seen"):
        sentinel.seconds_seen(tmp_path, 7)


def test_word_errors_are_of_clips_with_words(sentinel):
    codec = SimpleNamespace(enhance=lambda wave, rate: wave, semantic=lambda wave, rate: 0 * wave)
    clips = [Item(str(n), 16_000, np.full(100, n, np.float32)) for n in range(3)]
    heard = {0: " ...", 1: "one two", 2: "three"}

    def judge(wave, rate, transcript):
        return {"wer": 0.0 if wave.any() else 1.5}

    found = sentinel.word_errors(codec, clips, lambda wave: heard[int(wave[0])], judge)
    assert found == {"WER": 0.0, "WER of level 1": 1.0}
    assert np.isnan(sentinel.word_errors(codec, clips[:1], lambda wave: "...", judge)["WER"])
