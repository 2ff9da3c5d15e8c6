import re
from dataclasses import replace

import pytest

from decodec_jax.codec import product
from decodec_jax.config import Config
from decodec_jax.errors import UserError
from decodec_jax.training.loop import check_objective
from decodec_jax.training.run_folder import open_run_folder, settled_precision

NONE = dict.fromkeys(("periods", "rates", "windows", "stft_windows", "frame_windows"), ())


def opened(folder, continuous_steps):
    config = Config()
    config.train.continuous_steps = continuous_steps
    return open_run_folder(config, folder)


def test_codebooks_can_be_asked_for_as_long_as_their_step_is_to_come(tmp_path):
    assert opened(tmp_path, 8000) == []
    (tmp_path / "checkpoints" / "7001").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train.continuous_steps is 7000, but .* is at step 7001"):
        opened(tmp_path, 7000)
    assert opened(tmp_path, 8000) == []  # nothing was written
    assert opened(tmp_path, 7001) == ["train.continuous_steps is 7001 (was 8000)"]


def test_codebooks_that_have_started_do_not_mind(tmp_path):
    opened(tmp_path, 100)
    (tmp_path / "checkpoints" / "7001").mkdir(parents=True)
    assert opened(tmp_path, 50) == ["train.continuous_steps is 50 (was 100)"]


@pytest.mark.parametrize(("section", "name", "value"), [("optim", "kind", "muon"), ("train", "decoder_only", True)])
def test_a_run_of_another_optimizer_is_left_alone(section, name, value, tmp_path):
    config, other = Config(), Config()
    was = getattr(getattr(config, section), name)
    setattr(getattr(other, section), name, value)
    change = f"{section}.{name} is {value} (was {was})"
    open_run_folder(config, tmp_path)
    assert open_run_folder(other, tmp_path) == [change]  # it has not begun
    open_run_folder(config, tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError, match=re.escape(f"a run of another optimizer: {change}; give another")):
        open_run_folder(other, tmp_path)
    assert opened(tmp_path, config.train.continuous_steps) == []  # nothing was written


def test_a_resumed_run_keeps_its_precision_unless_the_other_is_far_faster(tmp_path, monkeypatch):
    def on_a_machine(bfloat16):
        monkeypatch.setattr(product, "measured", lambda: {"float32": 1.0, "bfloat16": bfloat16})
        return settled_precision("auto", tmp_path)

    assert on_a_machine(bfloat16=0.5) == "bfloat16"
    assert on_a_machine(bfloat16=1.5) == "bfloat16"  # a busy moment
    assert on_a_machine(bfloat16=40.0) == "float32"  # another machine
    assert on_a_machine(bfloat16=0.5) == "float32"
    assert settled_precision("bfloat16", tmp_path) == "bfloat16"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: setattr(config.model, "sample_rate", 48_000), "loss.mel_bands has .* bands for windows of"),
        (lambda config: setattr(config.data, "seconds", 0.05), "clips of 800 samples are too short"),
        (lambda config: setattr(config, "discriminator", replace(config.discriminator, **NONE)), "has no periods"),
    ],
)  # fmt: skip
def test_an_objective_that_cannot_judge_the_clips_is_named(change, said):
    config = Config()
    check_objective(config)
    change(config)
    with pytest.raises(UserError, match=said):
        check_objective(config)
