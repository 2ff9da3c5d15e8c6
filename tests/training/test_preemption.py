import os
import signal
import threading

import jax
import numpy as np

from decodec_jax.training import loop
from decodec_jax.training.preemption import stop_requests


def test_a_run_that_is_asked_to_stop_saves_and_is_finished_by_the_next_as_if_never_stopped(
    tmp_path, tiny_config, whole, monkeypatch
):
    record = loop.Monitor.record

    def terminated_at_step_4(monitor, step, metrics):
        record(monitor, step, metrics)
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Monitor, "record", terminated_at_step_4)
        assert int(loop.train(tiny_config, tmp_path).step) in (4, 5)  # it is asked between steps
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(loop.train(tiny_config, tmp_path)), whole.state)


def test_the_signal_is_handled_only_meanwhile():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as asked:
        assert not asked(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked(1)
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_are_never_asked():
    def run():
        with stop_requests() as asked:
            answers.append(asked(0))

    answers = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert answers == [False]
