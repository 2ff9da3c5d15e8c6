"""Processing many files in one call: finds the inputs, names the outputs, skips existing files, and collects errors."""

import contextlib
import glob
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.inference import container
from decodec_jax.inference.pipes import PIPE

RECORDINGS = audio.SUFFIXES  # the files to look for in folders
TOKENS = (".dcc",)
EMBEDDINGS = (".npz",)


@dataclass(frozen=True)
class Job:
    """One input file and its output file; `-` is standard input or output."""

    source: str
    target: str
    into_folder: bool = False  # True: folders are created as needed, and existing files are skipped


@dataclass(frozen=True)
class Outcome:
    """How a job ended. status: "written", "skipped" or "failed"; if it failed, `error` has the reason."""

    source: str
    target: str
    status: str
    seconds: float | None = None  # duration of the recording
    error: str | None = None
    more: dict | None = None  # further facts for the report


# does a job, tells the given function how many more seconds are done, and returns further facts for the report
Work = Callable[[Job, Callable[[float], None]], dict | None]


def plan(inputs: Sequence[str], output: str, sought: tuple[str, ...], written: tuple[str, ...]) -> list[Job]:
    """The jobs for files, folders and patterns.

    One file is written to `output`, unless that is a folder. Several files, a folder (all files whose names end in one
    of `sought`, with their subfolders) or a pattern ("talks/**/*.wav") go into the folder `output`. Files keep their
    names; those that do not end in one of `written` get its first ending. Raises UserError if nothing is found, or if
    two files would have the same output.
    """
    if PIPE in (*inputs, output):
        if len(inputs) > 1 or (output == PIPE and os.path.isdir(inputs[0])):
            raise UserError("standard input and output (-) take one recording at a time")
        return [Job(inputs[0], output)]
    single = len(inputs) == 1 and not os.path.isdir(inputs[0]) and not _is_pattern(inputs[0])
    if single and not (os.path.isdir(output) or output.endswith(("/", os.sep))):
        return [Job(inputs[0], output)]
    jobs, taken = [], {}
    for path, relative in (pair for each in inputs for pair in _input_files(each, Path(output), sought)):
        target = Path(output) / (relative if relative.suffix.lower() in written else relative.with_suffix(written[0]))
        if taken.setdefault(target, path) != path:
            raise UserError(f"{taken[target]} and {path} would both be written to {target}; process them separately")
        if target.resolve() == path.resolve():
            raise UserError(f"{path} would be overwritten by its own output; choose another output folder")
        jobs.append(Job(str(path), str(target), into_folder=True))
    return jobs


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.exists(name)


def _input_files(name: str, output: Path, sought: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """The files that `name` stands for, each with its path relative to the output folder."""
    if os.path.isdir(name):
        base = Path(name)
        files = (path for path in base.rglob("*") if path.suffix.lower() in sought)
    elif _is_pattern(name):
        steps = Path(name).parts
        fixed = next(i for i, step in enumerate(steps) if glob.has_magic(step))
        base = Path(*steps[:fixed])
        files = map(Path, glob.iglob(name, recursive=True))
    else:
        return [(Path(name), Path(Path(name).name))]
    made = output.resolve()
    inside = base.resolve() in made.parents  # if so, earlier outputs would be found as inputs
    files = sorted(p for p in files if p.is_file() and not (inside and made in p.resolve().parents))
    if not files:
        raise UserError(f"there is no {' or '.join(sought)} file in {name}" if base == Path(name) else
                        f"no file matches {name}")  # fmt: skip
    return [(path, path.relative_to(base)) for path in files]


def check(job: Job, suffixes: tuple[str, ...]) -> float | None:
    """Check a job before the work begins, and return the source's duration (s) from its header; None for a pipe.

    suffixes: the target must have one of them. Raises UserError if the source cannot be read or the target cannot be
    written.
    """
    target = Path(job.target)
    if job.target != PIPE and target.suffix.lower() not in suffixes:
        raise UserError(f"{target} is not written: its name must end in {' or '.join(suffixes)}")
    if job.target != PIPE and not job.into_folder and not target.parent.is_dir():
        raise UserError(f"{target} cannot be written: there is no folder {target.parent}")
    if job.source == PIPE:
        return None
    return container.info(job.source).seconds if job.source.lower().endswith(TOKENS) else audio.info(job.source).seconds


def run(
    jobs: Sequence[Job], check: Callable[[Job], float | None], prepare: Callable[[], Work], overwrite: bool = False
) -> tuple[list[Outcome], float]:
    """Run all jobs, with a progress bar if standard error is a terminal. A failure does not stop the others.

    check:     returns a recording's duration (s), or raises UserError; called for all jobs before the first begins.
    prepare:   returns the function that does a job; called once, unless nothing is left to do.
    overwrite: replace files that exist in folders.

    Returns the outcomes, and the seconds of work.
    """
    outcomes: dict[Job, Outcome] = {}
    lengths: dict[Job, float | None] = {}
    for job in jobs:
        if job.into_folder and not overwrite and os.path.exists(job.target):
            outcomes[job] = Outcome(job.source, job.target, "skipped")
            continue
        try:
            lengths[job] = check(job)
        except UserError as error:
            outcomes[job] = _failed(job, error)
    work = prepare() if lengths else None
    began = time.perf_counter()
    with _progress(lengths.values()) as (advance, finish):
        for job, seconds in lengths.items():
            try:
                if job.into_folder:
                    _make_folder(Path(job.target).parent)
                more = work(job, advance)
                outcomes[job] = Outcome(job.source, job.target, "written", seconds, more=more)
            except UserError as error:
                outcomes[job] = _failed(job, error)
            finish()
    return [outcomes[job] for job in jobs], time.perf_counter() - began


def summary(outcomes: Sequence[Outcome], elapsed: float) -> dict:
    """The outcomes in numbers: files by status, seconds of audio and of work, and the real-time factor."""
    counts = {status: sum(o.status == status for o in outcomes) for status in ("written", "skipped", "failed")}
    sound = sum(o.seconds or 0.0 for o in outcomes if o.status == "written")
    ratio = {"real_time_factor": elapsed / sound} if sound else {}
    return {**counts, "audio_seconds": sound, "elapsed_seconds": elapsed, **ratio}


def _failed(job: Job, error: UserError) -> Outcome:
    message = str(error)
    known = job.source == PIPE or job.source in message or job.target in message
    return Outcome(job.source, job.target, "failed", error=message if known else f"{job.source}: {message}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {path} cannot be made ({error.strerror})") from None


class _Speed(ProgressColumn):
    """Seconds of audio per second of work, and the inverse, the real-time factor."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}x real time (RTF {1 / task.speed:.3f})" if task.speed else "")


@contextlib.contextmanager
def _progress(lengths: Collection[float | None]) -> Iterator[tuple[Callable[[float], None], Callable[[], None]]]:
    """A progress bar on standard error, in seconds of audio.

    Yields two functions: the first adds finished seconds, the second counts a finished file.
    """
    total = None if None in lengths else sum(lengths)
    count = TextColumn("{task.fields[done]}/{task.fields[files]} files")
    columns = count, BarColumn(), _Speed(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("", total=total, done=0, files=len(lengths))
        done = 0

        def finish() -> None:
            nonlocal done
            done += 1
            bar.update(task, done=done)

        yield lambda seconds: bar.advance(task, seconds), finish
