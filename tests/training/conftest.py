"""A run that several tests go on with, and a step that is compiled once for all runs that take the same."""

import dataclasses
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from decodec_jax import testing
from decodec_jax.training import step
from decodec_jax.training.loop import train
from decodec_jax.training.state import State


class Run(NamedTuple):
    """A run of `testing.tiny_config()` that nothing interrupted."""

    folder: Path  # to be left as it is
    state: State  # its last, in numpy

    def copied_to(self, folder: Path) -> Path:
        """A copy of its folder, to be changed at will."""
        return Path(shutil.copytree(self.folder, folder))


_NOT_IN_THE_STEP = ("steps", "save_every", "valid_every", "log_every", "keep", "init_from", "carry_on")


@pytest.fixture(scope="session", autouse=True)
def compiled_once():
    """Most of a short run is the tracing and compilation of its step."""
    compiled, compile_train_step = {}, step.compile_train_step

    def once(config, mesh, state, teacher=None, adversarial=True):
        settings = dataclasses.replace(config.train, **{name: None for name in _NOT_IN_THE_STEP})
        leaves, tree = jax.tree.flatten((state, teacher))
        key = (repr(dataclasses.replace(config, train=settings)), mesh, tree, adversarial,
               *((array.shape, array.dtype, array.sharding) for array in leaves))  # fmt: skip
        if key not in compiled:
            compiled[key] = compile_train_step(config, mesh, state, teacher, adversarial)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "compile_train_step", once)
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return Run(folder, jax.device_get(train(testing.tiny_config(), folder)))
