"""Requests to stop: schedulers and clouds send SIGTERM some seconds before they take a machine away."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """A function of the step that says whether to save and stop there, the same on all hosts.

    On one host, SIGTERM decides, and only in the main thread, because Python handles signals nowhere else. On several,
    JAX's own service receives the signal and picks a step that no host has passed yet.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: asked.is_set()
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
