import jax
import numpy as np
import pytest

from decodec_jax.config import Config
from decodec_jax.evaluation.speed import train_speed
from decodec_jax.testing import full_config, training_batch


def test_a_training_step_is_run_and_measured(tiny_config, monkeypatch):
    monkeypatch.setattr(train_speed, "matmul_rate", lambda precision: 1e12)
    run = train_speed.SyntheticRun(tiny_config, tiny_config.train.continuous_steps)
    rows = train_speed.train(run, 2)
    figures = {row.name: row.value for row in rows}
    assert all(value > 0 for value in figures.values()) and all(name.startswith("train/testing/") for name in figures)
    assert next(row.unit for row in rows if row.name.endswith("/matmul_rate")) == "GFLOP/s in float32"
    of_machine = figures["train/testing/work"] * 1e9 / figures["train/testing/step_time"] / 1e12
    assert figures["train/testing/of_matmul_rate"] == pytest.approx(100 * of_machine)
    audio = 2 * tiny_config.data.batch * tiny_config.data.seconds
    seconds = figures["train/testing/step_time"]
    assert figures["train/testing/audio_seconds_per_second"] == pytest.approx(audio / seconds)

    before = jax.device_get(run.step())  # one untimed, two timed, and this one
    other = jax.device_get(run.step(training_batch(tiny_config) | {"skipped": np.zeros(2)}))
    assert before["loss"] != other["loss"] and before["not_finite"] == other["not_finite"] == 0


def test_a_teacher_without_weights_is_left_out(capsys):
    published = train_speed.trainable(Config())
    assert (published.loss.guidance, published.loss.adversarial) == (0, 1)
    assert "without the teacher, as its weights are not at hand" in capsys.readouterr().err
    assert train_speed.trainable(full_config()).loss == full_config().loss
    config = full_config()
    config.loss.perceptual = 0.1
    plain = train_speed.trainable(config, plain=True).loss
    assert plain.guidance == plain.perceptual == plain.adversarial == plain.feature == 0
