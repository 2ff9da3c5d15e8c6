"""Test that training survives kills: `python launch/endurance.py --out FOLDER --config configs/decodec.py:VARIANT`.

Trains twice, each time in a separate process. The first run is undisturbed. The second is killed again and again with
SIGKILL, data workers included, and restarted each time. The kills come at random moments while it starts, trains and,
above all, saves. The last checkpoints of both runs must then be equal bit for bit. So must the rows of metrics.jsonl,
one per step, except for timings. The exit code is 1 if anything differs, or if less than a third of the kills hit a
save.

All other flags go to launch/train.py, but this program sets the number of steps and the intervals. FOLDER must be new.
The output of each start goes to a file there.
"""

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from decodec_jax import config as settings
from decodec_jax.errors import UserError
from decodec_jax.launching import one_line
from decodec_jax.training import checkpoint

TRAIN = Path(__file__).with_name("train.py")
STARTING = 0.2  # share of the kills that come before the first step


class Kill(NamedTuple):
    """How one start of the run went until it was killed."""

    resumed: int | None  # step that it resumed from; None: killed before it printed that
    step: int  # last step with a row in metrics.jsonl
    saving: bool  # whether it left a half-written checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the two runs and their output")
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default 20)")
    parser.add_argument("--steps", type=int, default=60, help="training steps (default 60)")
    parser.add_argument("--save-every", type=int, default=3, help="steps between saves (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default 0)")
    arguments, flags = parser.parse_known_args()
    out, kills, steps = arguments.out, arguments.kills, arguments.steps
    if out.exists():
        raise UserError(f"--out {out} exists; give a new folder")
    last = steps - 2 * arguments.save_every  # after this step, the run could finish before a kill
    if last < 1:
        raise UserError(f"--steps {steps} is too few to save every {arguments.save_every} steps; give more")
    out.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # like Ctrl-C, this also ends the run
    third = math.ceil(steps / 3)  # so that kills also hit validation and the start of the codebooks
    flags += [f"--config.train.continuous_steps={third}", f"--config.train.valid_every={third}"]

    ready = finish(command(out / "undisturbed", flags, steps, arguments.save_every), out / "undisturbed.log")
    pace = float(np.median([row["seconds/step"] for row in rows(out / "undisturbed")]))
    print(f"undisturbed: {steps} steps of {pace:.2f} s after {ready:.0f} s of starting", flush=True)

    run, rng = out / "killed", np.random.default_rng(arguments.seed)
    again = command(run, flags, steps, arguments.save_every)
    inside = 0
    for number, step in enumerate(sorted(rng.integers(1, last + 1, kills)), 1):
        log, starting = out / f"killed-{number:02}.log", rng.random() < STARTING
        if starting:
            kill = kill_at(again, run, log, 0, rng.random() * ready)
        else:
            delay = rng.random() * pace * arguments.save_every
            kill = kill_at(again, run, log, step, delay, saving=2 * inside < number)
        inside += kill.saving
        resumed = "killed before it resumed" if kill.resumed is None else f"resumed from step {kill.resumed}, killed"
        print(f"{number:2}: {resumed} at step {kill.step}{', in a save' * kill.saving}", flush=True)
    finish(again, out / "killed-last.log")

    wrong = differences(out / "undisturbed", run)
    if 3 * inside < kills:
        wrong.append(f"only {inside} of {kills} kills were in a save: save more often, or give another --seed")
    print("\n".join(wrong) or f"{kills} kills, {inside} of them in a save: state, position and {steps} rows are equal")
    sys.exit(1 if wrong else 0)


def command(run: Path, flags: list[str], steps: int, save_every: int) -> list[str]:
    """The command that starts or resumes a run."""
    own = {"steps": steps, "save_every": save_every, "log_every": 1}
    own_flags = [f"--config.train.{name}={value}" for name, value in own.items()]
    return [sys.executable, str(TRAIN), "--workdir", str(run), *flags, *own_flags]


def finish(command: list[str], log: Path) -> float:
    """Let a run finish, and return the seconds until it was ready for its first step.

    If the run fails, raises the error that `failure` returns.
    """
    begun = time.monotonic()
    with started(command, log) as process:
        while process.poll() is None and not is_ready(log):
            time.sleep(0.01)
        ready = time.monotonic() - begun
        process.wait()
    if process.returncode:
        raise failure(process.returncode, log)
    return ready


def kill_at(command: list[str], run: Path, log: Path, step: int, delay: float, saving: bool = False) -> Kill:
    """Start a run and kill it `delay` seconds after `step`. With `saving`, also wait until it is writing a checkpoint.

    Step 0 is the start of the process. Raises UserError if the run finishes first, and the error that `failure` returns
    if it fails.
    """

    def until(condition) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.002)

    def is_caught_saving() -> bool:
        """Pause the run and check. A paused run cannot finish its save before the kill."""
        os.killpg(process.pid, signal.SIGSTOP)
        caught = is_half_written(run)
        if not caught:
            os.killpg(process.pid, signal.SIGCONT)
        return caught

    with started(command, log) as process:
        until(lambda: not step or (is_ready(log) and last_step(run) >= step))
        time.sleep(delay)
        until(lambda: not saving or (is_half_written(run) and is_caught_saving()))
    if process.returncode == 0:
        raise UserError(f"the run finished before it could be killed after step {step}; give more --steps")
    if process.returncode != -signal.SIGKILL:
        raise failure(process.returncode, log)
    # until a run is ready, a half-written checkpoint is a leftover of the previous start
    return Kill(resumed_from(log), last_step(run), is_ready(log) and is_half_written(run))


@contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process that prints to `log`. It and its children are killed at the end of the block.

    For quick starts, it keeps compiled code in a folder next to the log. No other program uses that folder, because a
    kill may leave a half-written entry in it.
    """
    own = {
        "JAX_COMPILATION_CACHE_DIR": str(log.parent.absolute() / "compiled"),
        "JAX_COMPILATION_CACHE_MAX_SIZE": "-1",  # with a size limit, a half-written entry stops all writing
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    with log.open("w") as printed:
        process = subprocess.Popen(
            command, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | own
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def failure(code: int, log: Path) -> Exception:
    """The error for a run that failed. For a user's mistake, this is a UserError with the line that the run printed."""
    last = (log.read_text().splitlines() or [""])[-1]
    return UserError(last) if code == 2 else RuntimeError(f"training ended with exit code {code}, see {log}: {last}")


def is_ready(log: Path) -> bool:
    """Whether the run has read its checkpoint and removed the rows of metrics.jsonl that it will write again."""
    return "; run folder " in log.read_text()


def resumed_from(log: Path) -> int | None:
    """The step that a run resumed from, as printed in its log: 0 for a new run, None if it has not printed that yet."""
    said = re.search(r"resuming from step (\d+)", log.read_text())
    return int(said[1]) if said else 0 if is_ready(log) else None


def is_half_written(run: Path) -> bool:
    """Whether a checkpoint is being written, or was being written when the run died."""
    folder = run / "checkpoints"
    return folder.exists() and any("tmp" in name for name in os.listdir(folder))


def last_step(run: Path) -> int:
    """The number of complete rows in metrics.jsonl, one per step."""
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def rows(run: Path) -> list[dict]:
    """The metrics of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def differences(one: Path, other: Path) -> list[str]:
    """Descriptions of all differences between two runs: last checkpoints bit for bit, and metrics except timings."""
    found = [f"{name} differs" for name, (a, b) in paired(last_state(one), last_state(other)) if a != b]
    steps = settings.load(one / "config.json").train.steps
    for run in (one, other):
        made = [row["step"] for row in rows(run)]
        if made != list(range(1, steps + 1)):
            found.append(f"{run}/metrics.jsonl has the steps {made}")
    for a, b in zip(rows(one), rows(other), strict=False):
        found += [
            f"{name} of step {a['step']} is {y} (undisturbed {x})"
            for name, (x, y) in paired(a, b) if x != y and "second" not in name
        ]  # fmt: skip
    return found


def last_state(run: Path) -> dict[str, bytes]:
    """Everything in the newest checkpoint of a run, including its position in the data, by name."""
    restored = checkpoint.load(settings.load(run / "config.json"), run / "checkpoints")
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree.leaves_with_path(restored)
    }


def paired(one: dict, other: dict) -> Iterator[tuple[str, tuple]]:
    """Each name in either dictionary with both values; None for a missing one."""
    for name in sorted(one.keys() | other.keys()):
        yield name, (one.get(name), other.get(name))


if __name__ == "__main__":
    with one_line("endurance.py"):
        main()
