"""Kill `decodec prepare` or `decodec tokenize` again and again, and compare what it makes.

    python launch/interruptions.py --out FOLDER -- decodec tokenize RECORDINGS OUT

Runs the command twice, with a folder of its own in place of the word OUT. The first run is undisturbed. The second is
killed with SIGKILL, worker processes included, at random moments, and started again each time. If it ends before all
kills are done, another one begins. All of them must then hold the bytes of the first; the exit code is 1 if not.
FOLDER must be new. The output of each start goes to a file there.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.launching import one_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="new folder for what the runs make and print")
    parser.add_argument("--kills", type=int, default=10, help="number of kills (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default 0)")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --, with the word OUT for its folder")
    arguments = parser.parse_args(argv)
    if "OUT" not in arguments.command:
        raise UserError("the command lacks the word OUT, which stands for the folder that it writes")
    if arguments.out.exists():
        raise UserError(f"--out {arguments.out} exists; give a new folder")
    arguments.out.mkdir(parents=True)

    def killed(run: Path, log: str, after: float | None) -> bool:
        return started(arguments.command, run, arguments.out / log, after)

    begun = time.monotonic()
    killed(arguments.out / "undisturbed", "undisturbed.log", None)
    seconds = time.monotonic() - begun
    print(f"undisturbed: {seconds:.1f} s", flush=True)

    moments, runs = np.random.default_rng(arguments.seed).uniform(0, seconds, arguments.kills), 1
    for number, moment in enumerate(moments, 1):
        while not killed(arguments.out / f"killed-{runs}", f"{number}.log", moment):
            print(f"killed-{runs} ended before kill {number}", flush=True)
            runs += 1
        print(f"{number:2}: killed after {moment:.1f} s", flush=True)
    killed(arguments.out / f"killed-{runs}", "last.log", None)

    wrong = [f"killed-{run}/{name}" for run in range(1, runs + 1)
             for name in differences(arguments.out / "undisturbed", arguments.out / f"killed-{run}")]  # fmt: skip
    print("\n".join(f"{name} differs" for name in wrong) or f"{arguments.kills} kills, {runs} runs: the same bytes")
    sys.exit(1 if wrong else 0)


def started(command: Sequence[str], run: Path, log: Path, after: float | None) -> bool:
    """Run a command, and kill it `after` seconds unless it has ended by then; returns whether it was killed.

    Raises UserError, with the last line that it printed, if it fails.
    """
    with log.open("w") as printed:
        process = subprocess.Popen(
            [str(run) if word == "OUT" else word for word in command],
            stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        return True
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode and not (run / "report.json").exists():  # 2 with a report: recordings were left out
        raise UserError((log.read_text().splitlines() or [f"exit code {process.returncode}"])[-1])
    return False


def differences(one: Path, other: Path) -> list[str]:
    """Names of files that are not the same in two folders."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()}
    return sorted(name for name in names if _bytes(one / name) != _bytes(other / name))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    with one_line("interruptions.py"):
        main()
