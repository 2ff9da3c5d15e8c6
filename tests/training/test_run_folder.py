import pytest

from decodec_jax.config import Config
from decodec_jax.errors import UserError
from decodec_jax.training.run_folder import open_run_folder


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
