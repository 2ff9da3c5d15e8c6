"""What the steps of any run do, on a run that does nothing."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from decodec_jax.errors import UserError
from decodec_jax.training import steps

SETTINGS = SimpleNamespace(steps=30, log_every=10, valid_every=100, save_every=5)


def run(finite):
    """Train on batches that are numbers, whose loss is finite or not. Returns the steps that were saved."""

    class Batches:
        position = 0

        def __next__(self):
            self.position += 1
            return self.position

        close = MagicMock()

    work = SimpleNamespace(
        seconds=1.0, prepare=lambda now, state: state, facts=dict, judge=lambda now, state: ({}, ""),
        update=lambda state, batch: (state, {"loss": 0.0, "not_finite": int(not finite(batch))}),
    )  # fmt: skip
    checkpoints = MagicMock()
    try:
        steps.run(SETTINGS, 0, None, Batches(), checkpoints, MagicMock(), work)
    finally:
        checkpoints.close.assert_called_once()
        saved = [call.args[1] for call in checkpoints.save.call_args_list]
    return saved


def test_some_steps_that_are_not_finite_do_not_end_a_run():
    assert run(lambda batch: batch % 10) == [5, 10, 15, 20, 25, 30]


def test_a_run_that_learns_nothing_ends():
    with pytest.raises(UserError, match="no step from 10 to 20 had a finite loss"):
        run(lambda batch: batch <= 10)
