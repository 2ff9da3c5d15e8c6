"""What launch/benchmark.py measures of which model."""

import runpy
from pathlib import Path

import pytest

from decodec_jax.evaluation import speed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("variant", "parts"), [("small", 2), ("small_causal", 3)])
def test_what_fits_the_model_is_measured(variant, parts, monkeypatch, capsys):
    program = runpy.run_path(str(ROOT / "launch/benchmark.py"))
    monkeypatch.setattr(speed, "random_codec", lambda config: None)
    for part in program["PARTS"]:
        monkeypatch.setattr(speed, part, lambda *_, part=part: [speed.Row(f"{part}/x", 1.0, "ms")])
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--config", f"{ROOT}/configs/decodec.py:{variant}"])
    program["main"]()
    assert capsys.readouterr().out.count("/x | 1 ms |") == parts
