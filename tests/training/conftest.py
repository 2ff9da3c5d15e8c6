"""A run that several tests go on with."""

import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from decodec_jax import testing
from decodec_jax.training.loop import train
from decodec_jax.training.state import State


class Run(NamedTuple):
    """A run of `testing.tiny_config()` that nothing interrupted."""

    folder: Path  # to be left as it is
    state: State  # its last, in numpy

    def copied_to(self, folder: Path) -> Path:
        """A copy of its folder, to be changed at will."""
        return Path(shutil.copytree(self.folder, folder))


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return Run(folder, jax.device_get(train(testing.tiny_config(), folder)))
