"""Predictions against hand calculations, and the tables."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from decodec_jax import testing
from decodec_jax.evaluation.speed import cost, scaling
from decodec_jax.evaluation.speed.cost import Compiled
from decodec_jax.evaluation.speed.scaling import CHIPS, Assumed, Chip, Costs, Line

ROOT = Path(__file__).parents[3]
CHIP = Chip("a chip", flops=1e12, memory=10e9, memory_rate=1e12, links=100.0, network=10.0, domain=4, host=4)


def compiled_costs() -> tuple[Compiled, ...]:
    """Temporary memory is 0.5 GB plus 1 GB per pair, the state takes 2 GB, and there is no teacher."""
    common = {"flops": 1e9, "bytes": 1e9, "reduced_in_loops": 0.0, "reductions": 2}
    return (
        Compiled(8, "data", 1, arguments=2e9, temporary=1.5e9, reduced=400.0, gathered=0.0, **common),
        Compiled(8, "fsdp", 1, arguments=0.25e9, temporary=1.6e9, reduced=400.0, gathered=400.0, **common),
        Compiled(1, "data", 2, arguments=2e9, temporary=2.5e9, reduced=0.0, gathered=0.0, **common),
    )


PARTS = {"params": 100, "codebook": 60, "discriminators": 40, "optimizer": 2 * 10**9 - 200}
COSTS = Costs(Line(0.0, 4e11), Line(0.0, 8e10), PARTS, seconds=2.0, compiled=compiled_costs())


def test_a_ring_all_reduce_sends_almost_twice_the_data():
    assert scaling.ring_seconds(100.0, 1, 10.0) == 0
    assert scaling.ring_seconds(100.0, 2, 10.0) == 10
    assert scaling.ring_seconds(100.0, 4, 10.0) == 15


def test_across_domains_each_chip_reduces_only_its_piece():
    assert scaling.all_reduce_seconds(400.0, 4, CHIP) == 2 * 3 / 4 * 400 / 100
    assert scaling.all_reduce_seconds(400.0, 8, CHIP) == 6 + 2 * 1 / 2 * (400 / 4) / 10
    assert scaling.all_reduce_seconds(400.0, 8, CHIP, share=0.5) == 2 * scaling.all_reduce_seconds(400.0, 8, CHIP)
    loose = dataclasses.replace(CHIP, loose_below=4)
    assert scaling.all_reduce_seconds(400.0, 2, loose) == 2 * scaling.all_reduce_seconds(400.0, 2, CHIP)


def test_a_prediction_equals_the_hand_calculation():
    assumed = Assumed(products=0.5, memory_rate=0.5, links=1.0, memory=1.0)
    p = scaling.predict(COSTS, CHIP, 8, 4, assumed)
    assert (p.computing, p.moving) == pytest.approx((4 * 4e11 / 5e11, 4 * 8e10 / 5e11))
    assert (p.reducing, p.as_compiled) == (8.0, 16.0)  # each gradient once is 200 bytes; the compiled step reduces 400
    assert p.step == pytest.approx(3.2 + 8)
    assert p.efficiency == pytest.approx((3.2 / 11.2, 3.2 / 19.2))
    assert p.per_host == pytest.approx(2 * 4 * 2.0 * 4 / 11.2)  # four chips a host, both clips of four pairs
    assert (p.micro_batches, p.memory) == (1, pytest.approx(2e9 + 0.5e9 + 4e9))


def test_a_batch_that_does_not_fit_is_split_into_micro_batches():
    assumed = Assumed(memory=1.0)  # 7.5 of 10 GB are left for pairs
    assert scaling.predict(COSTS, CHIP, 1, 8, assumed).micro_batches == 2
    assert scaling.predict(COSTS, CHIP, 1, 64, assumed).micro_batches == 16
    assert [scaling.largest(COSTS, CHIP, chips, assumed) for chips in (1, 8)] == [7, 9]
    assert COSTS.memory(1, 8) == pytest.approx(0.25e9 + 1.6e9)


def test_tables_show_costs_and_predictions():
    assert "| products, GFLOP | 0.00 | 400.00 |" in scaling.cost_table(COSTS)
    assert "| 8 x fsdp, 1 on each | 0.25 | 0.25 | 1.60 |" in scaling.compiled_table(COSTS)
    assert len(scaling.prediction_table(COSTS, 1, 64).splitlines()) == 2 + len(CHIPS) * len(scaling.COUNTS)
    assert "cores a host" in scaling.prediction_table(COSTS, 1, 64, per_core=300.0)


def test_products_are_counted_in_bfloat16_and_the_rest_compiled_in_float32(monkeypatch):
    seen, config = {}, testing.tiny_config()

    def counted(config, pairs):
        seen["counted"] = config.train.precision
        return pairs, pairs

    def compiled(config, *layout):
        seen["compiled"] = config.train.precision
        return COSTS.compiled[0]

    monkeypatch.setattr(scaling, "products_of", counted)
    monkeypatch.setattr(scaling, "compiled", compiled)
    scaling.costs(config, report=lambda line: None)
    assert seen == {"counted": "bfloat16", "compiled": "float32"} and config.train.precision == "float32"


def test_bfloat16_moves_less_for_as_many_products():
    """Equal except for the gradient of the first layer's input, which is traced but unused and so never computed."""
    one, other = (
        cost.products_of(scaling.in_precision(testing.tiny_config(), precision), 1)
        for precision in ("float32", "bfloat16")
    )
    assert 1 <= other.flops / one.flops < 1.03 and 0.6 < other.bytes / one.bytes < 0.9


def test_compiled_costs_are_kept_and_read(tmp_path):
    """If the file has all costs, launch/scaling.py compiles nothing."""
    file = tmp_path / "costs.json"
    rows = [dataclasses.asdict(row) for row in COSTS.compiled]
    file.write_text(json.dumps({"traced": [[4e11, 8e10], [8e11, 16e10]], "compiled": rows}))
    command = [sys.executable, "launch/scaling.py", "--config", "configs/decodec.py:tiny", "--costs", str(file)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "compiling" not in printed
    assert "| products, GFLOP | 0.00 | 400.00 |" in printed
    assert "| H200 SXM | 1024 |" in printed


def test_a_measured_step_is_shown_next_to_its_prediction(monkeypatch):
    monkeypatch.setattr(scaling, "matmul_rate", lambda precision: 1e11)
    config = testing.tiny_config(dilations=(1,), strides=(5,), lstm_layers=0)
    config.loss.mel = 0.0
    printed = scaling.measured(config, 1)
    assert "| testing | predicted | measured |" in printed
    state = sum(cost.state_bytes(config).values()) / 1e6
    assert f"compiled with batch and teacher | {state:.1f} | " in printed
