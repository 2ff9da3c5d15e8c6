"""The outputs of a run: metrics.jsonl, TensorBoard, the progress line, sample wavs and pictures."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decodec_jax import audio
from decodec_jax.evaluation import figures

# tensorboardX imports torch if it can, for a type that is not used here. That takes seconds, and on a GPU brings CUDA
# libraries of other versions than JAX's into the process. None makes the import fail, as if torch were not installed.
_hidden = sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
from tensorboardX import SummaryWriter  # noqa: E402

if _hidden is None:
    del sys.modules["torch"]

_QUIET_SECONDS = 20  # between progress lines without a terminal
_PUBLISH_SECONDS = 60  # between publishing rows; a bucket allows at most one change of a file per second


class Monitor:
    """Writes a run's records. Made on the first host only; `Monitor(None, ...)` elsewhere records nothing."""

    def __init__(self, workdir: Path | None, steps: int, start: int):
        self.workdir, self._last_line = workdir, time.monotonic()
        if workdir is None:
            return
        self.console = Console()
        self.progress = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task = self.progress.add_task("training", total=steps, completed=start, note="")
        self.progress.start()
        self._metrics_path = workdir / "metrics.jsonl"
        forget_after(self._metrics_path, start)
        self._open_metrics()
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def say(self, text: str) -> None:
        """Print one line."""
        if self.workdir is not None:
            self.console.print(text, highlight=False, soft_wrap=True)

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Write one row of metrics everywhere. Non-finite values become null in the file, to keep it valid JSON."""
        if self.workdir is None:
            return
        row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._metrics.write(json.dumps({"step": step, **row}) + "\n")
        self._metrics.flush()
        if time.monotonic() - self._published >= _PUBLISH_SECONDS:
            self.publish()
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, value, step)
        note = f"loss {metrics['loss']:.3f}  {1000 * metrics['seconds/step']:.0f} ms a step"
        self.progress.update(self._task, completed=step, note=note)
        if not self.console.is_terminal and time.monotonic() - self._last_line > _QUIET_SECONDS:
            self._last_line = time.monotonic()
            self.say(f"step {step}  {note}")

    def publish(self) -> None:
        """Close metrics.jsonl and open it again, because a bucket stores and shows rows only of closed files."""
        if self.workdir is not None:
            self._metrics.close()
            self._open_metrics()

    def samples(self, step: int, clips: list[dict[str, dict[str, np.ndarray]]], sample_rate: int) -> Path | None:
        """Write wavs and pictures of separated clips into `samples/`; `clips[i][row][part]` is a waveform `[t]`."""
        if self.workdir is None:
            return None
        folder = self.workdir / "samples" / f"step_{step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        for i, rows in enumerate(clips):
            for row, parts in rows.items():
                for part, wave in parts.items():
                    audio.write(folder / f"clip{i}_{part}_{row}.wav", wave, sample_rate)
            figures.taken_apart(folder / f"clip{i}.png", rows, sample_rate, f"step {step}")
        return folder

    def close(self) -> None:
        """Flush and stop the progress line."""
        if self.workdir is not None:
            self.progress.stop()
            self._metrics.close()
            self._tensorboard.close()

    def _open_metrics(self) -> None:
        self._metrics, self._published = self._metrics_path.open("a"), time.monotonic()


def forget_after(path: Path, step: int) -> None:
    """Drop the rows of metrics.jsonl past `step`, because a resumed run writes them again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    with audio.replacing(path) as part:
        part.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf  # a line that was cut off when the run died
