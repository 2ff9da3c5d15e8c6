"""launch/interruptions.py on `prepare` without Beam, killed at ten moments, and on a command that does not resume."""

import runpy
import sys
from pathlib import Path

import pytest

from decodec_jax import audio, testing
from decodec_jax.errors import UserError

main = runpy.run_path(str(Path(__file__).parents[2] / "launch/interruptions.py"))["main"]

PREPARE = """
import sys, time
from decodec_jax.corpora import prepare, screen

def slowly(work, todo):
    for part in todo:
        work(part)
        time.sleep(0.1)

settings = prepare.Settings(shard_mb=0.01, limits=screen.Limits(shortest=0.05))
prepare.prepare([sys.argv[1]], sys.argv[2], settings, slowly)
"""
NEW_EACH_TIME = """
import os, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
out.mkdir(exist_ok=True)
(out / "file").write_text(str(os.getpid()))
time.sleep(0.3)
"""


def run(tmp_path, *command, kills):
    with pytest.raises(SystemExit) as done:
        main(["--out", str(tmp_path / "runs"), "--kills", str(kills), "--", sys.executable, "-c", *command])
    return done.value.code


def test_prepare_killed_at_ten_moments_gives_the_same_bytes(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    for seed, wave in enumerate(testing.background_clips(12, 4000)):
        audio.write(tmp_path / f"corpus/{seed:02}.flac", wave, 16_000)
    assert run(tmp_path, PREPARE, str(tmp_path / "corpus"), "OUT", kills=10) == 0, capsys.readouterr().out
    assert "10 kills, " in capsys.readouterr().out
    assert len(list((tmp_path / "runs/killed-1").glob("*.array_record"))) > 3


def test_other_bytes_and_failures_are_told(tmp_path, capsys):
    assert run(tmp_path, NEW_EACH_TIME, "OUT", kills=1) == 1
    assert "killed-1/file differs" in capsys.readouterr().out
    with pytest.raises(UserError, match="lacks the word OUT"):
        main(["--out", str(tmp_path / "new"), "--", "true"])
    with pytest.raises(UserError, match="ZeroDivisionError"):
        main(["--out", str(tmp_path / "new"), "--", sys.executable, "-c", "1 / 0", "OUT"])
