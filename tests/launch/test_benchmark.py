"""Which parts launch/benchmark.py measures for which model."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation.speed import data_speed, inference_speed, train_speed
from decodec_jax.evaluation.speed.timing import Row

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """The program as a function of its arguments, with stand-ins for all measurements."""
    program = runpy.run_path(str(ROOT / "launch/benchmark.py"))
    monkeypatch.setitem(program["main"].__globals__, "keep_freed_memory", lambda: None)  # spares the tests' process
    monkeypatch.setattr(inference_speed, "random_codec", lambda config: None)
    monkeypatch.setattr(train_speed.SyntheticRun, "__init__", lambda *_: None)
    measures = [(inference_speed, name) for name in ("inference", "streaming", "memory")]
    measures += [(train_speed, "train"), (data_speed, "throughput"), (data_speed, "waiting")]
    for module, name in measures:
        monkeypatch.setattr(module, name, lambda *_, name=name: [Row(f"{name}/x", 1.0, "ms")])

    def run(variant, *arguments):
        named = ["benchmark.py", "--config", f"{ROOT}/configs/decodec.py:{variant}", *arguments]
        monkeypatch.setattr(sys, "argv", named)
        program["main"]()

    return run


@pytest.mark.parametrize(("variant", "rows"), [("small", 5), ("small_causal", 6)])
def test_all_parts_that_the_model_has_are_measured(variant, rows, benchmark, capsys):
    benchmark(variant)
    assert capsys.readouterr().out.count("/x | 1 ms |") == rows


def test_flags_choose_parts_and_sizes_and_save_the_figures(benchmark, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train_speed.SyntheticRun, "__init__", lambda self, config, step: seen.append((config, step)))
    saved = tmp_path / "figures.json"
    benchmark("paper", "--only", "train", "--batch", "1", "--clip", "0.5", "--plain", "--json", str(saved))
    ((config, step),) = seen
    assert (config.data.batch, config.data.seconds, step) == (1, 0.5, 1000)
    assert not (config.loss.adversarial or config.loss.feature or config.loss.guidance)
    assert json.loads(saved.read_text()) == {"train/x": 1.0}


def test_without_torch_the_error_says_what_to_install(benchmark, monkeypatch):
    monkeypatch.delitem(sys.modules, "decodec_jax.evaluation.speed.against_torch", raising=False)
    monkeypatch.delattr("decodec_jax.evaluation.speed.against_torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"torch.*pip install torch transformers"):
        benchmark("small", "--against", "torch")
