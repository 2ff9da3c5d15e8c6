"""Measures the delays of a causal model that processes a pipe."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from decodec_jax import audio
from decodec_jax.config import Model
from decodec_jax.inference.codec import DeCodec, Levels
from decodec_jax.inference.pipes import Form
from decodec_jax.inference.streaming import latency

REMEMBERED = 180_000  # delays, those of an hour of frames: a stream may last for days


@dataclass
class Stopwatch:
    """Measures the time from the arrival of a piece until its output is written."""

    model: Model
    rate: int  # of the pipe, Hz
    times: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # s
    pieces: int = 0
    _began: float = 0.0

    def started(self, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the same pieces, starting the clock when each arrives. Ctrl-C while waiting for a piece ends them."""
        with contextlib.suppress(KeyboardInterrupt):
            for piece in pieces:
                self._began = time.perf_counter()
                yield piece
        self._began = time.perf_counter()  # for the last output, which a model with lookahead holds back until now

    def stop(self) -> None:
        """Record the time since the last piece arrived."""
        self.times.append(time.perf_counter() - self._began)
        self.pieces += 1

    @property
    def algorithmic(self) -> float:
        """The algorithmic latency (s): waiting for the frames that a sample needs, and the delay of the resamplers."""
        own = self.model.sample_rate
        waiting = latency(self.model) / own
        return waiting + (0 if self.rate == own else audio.delay(self.rate, own) + audio.delay(own, self.rate))

    def summary(self) -> dict[str, float]:
        """The number of pieces and the delays in ms; without computing times if nothing was written."""
        delays = {"algorithmic_ms": 1000 * self.algorithmic, "pieces": self.pieces}
        if self.times:
            delays |= zip(("compute_p50_ms", "compute_p99_ms"), 1000 * np.percentile(self.times, [50, 99]), strict=True)
        return delays

    def __str__(self) -> str:
        delays = self.summary()
        line = f"latency: {delays['algorithmic_ms']:.1f} ms algorithmic"
        if self.times:
            line += f"; computing {delays['compute_p50_ms']:.1f} ms (p50), {delays['compute_p99_ms']:.1f} ms (p99)"
        return line


def warm(codec: DeCodec, form: Form, keep: str, levels: Levels, frames: int) -> None:
    """Compile everything for a stream in pieces of up to `frames`, before its first piece arrives."""
    # more than twice as many frames, because a model with lookahead returns less than the first piece
    silence = np.zeros((form.channels, (2 * frames + 1) * codec.config.hop), np.float32)
    for _ in codec.stream([silence], codec.config.sample_rate, keep, levels):
        pass
