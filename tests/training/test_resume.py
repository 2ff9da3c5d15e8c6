"""A run that was interrupted is, bit for bit, the run that was not."""

import json

import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.errors import UserError
from decodec_jax.training.loop import train


def rows(workdir) -> list[dict]:
    """The metrics of a run, without what the clock says."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k} for row in lines]


@pytest.mark.parametrize(("kind", "continuous_steps"), [("ema", 2), ("factorised", 3)])
def test_six_steps_equal_three_and_three(tmp_path, kind, continuous_steps):
    """Codebooks started before the interruption, and exactly at it."""
    quantizer = testing.tiny_quantizer(kind=kind, dim=4)
    config = testing.tiny_config(speech=quantizer, background=quantizer)
    config.train.continuous_steps = continuous_steps
    whole = train(config, tmp_path / "whole")
    config.train.steps = 3
    train(config, tmp_path / "parts")
    config.train.steps = 6
    parts = train(config, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_rows_of_a_lost_step_are_made_again(tmp_path, tiny_config):
    """Metrics written after the last checkpoint belong to steps that resuming repeats."""
    train(tiny_config, tmp_path)
    before = rows(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 1.0}\n{"step": 8, "lo')  # killed while writing
    tiny_config.train.steps = 7
    train(tiny_config, tmp_path)
    after = rows(tmp_path)
    assert [row["step"] for row in after] == [1, 2, 3, 4, 5, 6, 7]
    assert after[:6] == before
    assert after[6]["loss"] != 1.0


def test_a_finished_run_stays_as_it_is(tmp_path, tiny_config):
    first = train(tiny_config, tmp_path)
    again = train(tiny_config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(first), jax.device_get(again))


def test_another_model_is_refused_by_name(tmp_path, tiny_config):
    train(tiny_config, tmp_path)
    tiny_config.model.channels = 6
    with pytest.raises(UserError, match=r"model.channels is 6 \(was 4\)"):
        train(tiny_config, tmp_path)


def test_every_row_has_step_and_loss(tmp_path, tiny_config):
    train(tiny_config, tmp_path)
    for row in rows(tmp_path):
        assert row["step"] > 0
        assert np.isfinite(row["loss"])
    judged = [row["step"] for row in rows(tmp_path) if "valid/si_sdr_gain/speech" in row]
    assert judged == [3, 6]
    assert {path.suffix for path in (tmp_path / "samples" / "step_0000006").iterdir()} == {".wav", ".png"}
    assert any((tmp_path / "tensorboard").iterdir())
