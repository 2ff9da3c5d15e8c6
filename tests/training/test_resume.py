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


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def three_and_three(config, folder):
    config.train.steps = 3
    train(config, folder)
    config.train.steps = 6
    return train(config, folder)


def test_six_steps_equal_three_and_three(tmp_path, tiny_config, whole):
    """The codebooks started before the interruption."""
    assert_equal(three_and_three(tiny_config, tmp_path), whole.state)
    assert rows(tmp_path) == rows(whole.folder)


def test_codebooks_that_start_at_the_interruption_are_those_of_a_whole_run(tmp_path):
    quantizer = testing.tiny_quantizer(kind="factorised", dim=4)
    config = testing.tiny_config(family="spectral", speech=quantizer, background=quantizer)
    config.train.continuous_steps = 3
    uninterrupted = train(config, tmp_path / "whole")
    assert_equal(three_and_three(config, tmp_path / "parts"), uninterrupted)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_rows_of_a_lost_step_are_made_again(tmp_path, tiny_config, whole):
    """Metrics written after the last checkpoint belong to steps that resuming repeats."""
    folder = whole.copied_to(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 1.0}\n{"step": 8, "lo')  # killed while writing
    tiny_config.train.steps = 7
    train(tiny_config, folder)
    after = rows(folder)
    assert [row["step"] for row in after] == [1, 2, 3, 4, 5, 6, 7]
    assert after[:6] == rows(whole.folder)
    assert after[6]["loss"] != 1.0


def test_a_finished_run_stays_as_it_is(tmp_path, tiny_config, whole):
    assert_equal(train(tiny_config, whole.copied_to(tmp_path / "run")), whole.state)


def test_another_model_is_refused_by_name(tmp_path, tiny_config, whole):
    tiny_config.model.waveform.channels = 6
    with pytest.raises(UserError, match=r"model.waveform.channels is 6 \(was 4\)"):
        train(tiny_config, whole.copied_to(tmp_path / "run"))


def test_every_row_has_step_and_loss(whole):
    for row in rows(whole.folder):
        assert row["step"] > 0
        assert np.isfinite(row["loss"])
    judged = [row["step"] for row in rows(whole.folder) if "valid/si_sdr_gain/speech" in row]
    assert judged == [3, 6]
    assert {path.suffix for path in (whole.folder / "samples" / "step_0000006").iterdir()} == {".wav", ".png"}
    assert any((whole.folder / "tensorboard").iterdir())
