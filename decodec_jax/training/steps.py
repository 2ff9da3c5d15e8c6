"""The steps of any run, whatever it trains: the codec, or a model on its tokens."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.training.checkpoint import Checkpoints
from decodec_jax.training.monitor import Monitor
from decodec_jax.training.preemption import stop_requests

HOPELESS = 10  # steps in a row that are not finite end a run: it would go on without learning

S = TypeVar("S")
Row = dict[str, float]  # metrics by name


class Intervals(Protocol):
    """The settings that this file reads."""

    steps: int
    log_every: int
    valid_every: int
    save_every: int


class Batches(Protocol):
    """An endless iterator over batches that can go on from any position, in examples consumed by all hosts."""

    position: int

    def __next__(self) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...


class Work(Protocol[S]):
    """What distinguishes one kind of run from another: its updates and validation, of a state of its own."""

    seconds: float  # of audio that a batch holds

    def prepare(self, now: int, state: S) -> S:
        """Called before step `now` draws its batch; returns the state, changed if this step requires it."""
        ...

    def update(self, state: S, batch: dict[str, np.ndarray]) -> tuple[S, dict[str, Any]]:
        """One update. The metrics, "loss" among them, may stay on the device."""
        ...

    def judge(self, now: int, state: S) -> tuple[Row, str]:
        """Validation: scores for the row of metrics, and a line to print."""
        ...

    def facts(self) -> Row:
        """Additional metrics of each row."""
        ...


def run(
    settings: Intervals, first: int, state: S, batches: Batches, checkpoints: Checkpoints, monitor: Monitor,
    work: Work[S],
) -> S:  # fmt: skip
    """Train from step `first` until `settings.steps` or SIGTERM. Closes the batches, the checkpoints and the monitor.

    A resumed run has the same data order, random numbers and bits as one that was never interrupted. This depends on
    the order within a step: first validate and save the current state, then draw a batch and update.
    """
    pace, recent = Pace(first), []
    try:
        with stop_requests() as asked:
            for now in range(first, settings.steps + 1):
                last, moved = now == settings.steps, now > first
                stopping = asked(now)
                judged = moved and (last or now % settings.valid_every == 0)
                if moved and (judged or now % settings.log_every == 0):
                    row = {name: np.mean(values) for name, values in transposed(jax.device_get(recent)).items()}
                    if len(recent) >= HOPELESS and row.get("not_finite") == 1:
                        raise UserError(f"no step from {now - len(recent)} to {now} had a finite loss, so none changed "
                                        "the model; lower optim.lr, or look at the data")
                    row |= pace.report(now, work.seconds) | work.facts()
                    if judged:
                        scores, line = work.judge(now, state)
                        row |= scores
                    monitor.record(now, {name: float(value) for name, value in row.items()})
                    if judged:
                        monitor.say(f"step {now}: {line}")
                    pace, recent = Pace(now), []
                if moved and (last or stopping or now % settings.save_every == 0):
                    monitor.publish()
                    checkpoints.save(state, now, batches.position)
                if stopping and moved and not last:
                    monitor.say(f"asked to stop: saved at step {now}; run the same command again to resume")
                if last or stopping:
                    break
                state = work.prepare(now, state)
                with pace.waiting():
                    batch = next(batches)
                state, metrics = work.update(state, batch)
                recent.append(metrics)  # left on the device, so that no step waits for its metrics
    finally:
        batches.close()
        checkpoints.close()
        monitor.close()
    return state


def transposed(rows: list[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """A list of dicts as a dict of lists."""
    return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass
class Pace:
    """Speed of the steps since `step`, and the time spent waiting for data."""

    step: int
    begun: float = field(default_factory=time.perf_counter)
    waited: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        since = time.perf_counter()
        yield
        self.waited += time.perf_counter() - since

    def report(self, now: int, audio_seconds: float) -> Row:
        """Means over the steps up to `now`, each of which consumes `audio_seconds` of audio."""
        elapsed, steps = time.perf_counter() - self.begun, now - self.step
        return {
            "seconds/step": elapsed / steps,
            "seconds/waiting_for_data": self.waited / steps,
            "audio_seconds_per_second": audio_seconds * steps / elapsed,
        }
