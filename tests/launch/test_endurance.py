"""launch/endurance.py on a run of eight steps, with two kills, one of them in a save, and a damaged checkpoint."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from decodec_jax import config as settings
from decodec_jax import testing
from decodec_jax.errors import UserError

ROOT = Path(__file__).parents[2]
endurance = SimpleNamespace(**runpy.run_path(str(ROOT / "launch/endurance.py")))


@pytest.fixture
def flags(tmp_path) -> list[str]:
    """Flags of a training run that compiles quickly."""
    one_level = {half: testing.tiny_quantizer(levels=1) for half in ("speech", "background")}
    config = testing.tiny_config(dilations=(3,), strides=(5,), lstm_layers=0, **one_level)
    config.loss.mel_windows, config.loss.mel_bands, config.loss.mel_swap = (64,), (10,), 0.0
    config.train.continuous_steps, config.train.valid_every, config.train.sample_clips = 8, 8, 0
    (tmp_path / "config.json").write_text(json.dumps(settings.to_dict(config)))
    file = tmp_path / "config.py"
    file.write_text("from pathlib import Path\nfrom decodec_jax import config\n"
                    "get_config = lambda: config.load(Path(__file__).with_suffix('.json'))\n")
    return ["--config", str(file)]


def newest_checkpoint(run: Path) -> int:
    return max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())


def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path, flags):
    whole, run = tmp_path / "whole", tmp_path / "run"
    endurance.finish(endurance.command(whole, flags, steps=8, save_every=1), tmp_path / "whole.log")
    again = endurance.command(run, flags, steps=8, save_every=1)

    first = endurance.kill_at(again, run, tmp_path / "first.log", step=4, delay=0)
    assert first.resumed == 0 and first.step >= 4
    newest = newest_checkpoint(run)
    for path in (run / "checkpoints" / str(newest)).rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    second = endurance.kill_at(again, run, tmp_path / "second.log", step=newest + 2, delay=0, saving=True)
    assert second.resumed == newest - 1 and second.step >= newest + 2 and second.saving
    said = (tmp_path / "second.log").read_text()
    assert f"{run / 'checkpoints' / str(newest)} is unreadable" in said and "trying the one before" in said

    newest = newest_checkpoint(run)
    endurance.finish(again, tmp_path / "last.log")
    assert endurance.resumed_from(tmp_path / "last.log") == newest
    assert endurance.differences(whole, run) == []

    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 0.0}\n')
    assert endurance.differences(whole, run) == [f"{run}/metrics.jsonl has the steps {[*range(1, 9), 8]}"]


def test_a_users_mistake_is_reported_with_the_line_that_training_printed(tmp_path):
    log = tmp_path / "run.log"
    log.write_text("some warning\ntrain.py: data.batch is 0; it must be above 0\n")
    error = endurance.failure(2, log)
    assert isinstance(error, UserError) and str(error) == "train.py: data.batch is 0; it must be above 0"
    assert "exit code -11" in str(endurance.failure(-11, log))


@pytest.mark.parametrize(
    ("succeeds", "wrong", "code", "told"),
    [
        (True, [], 0, "8 kills, 4 of them in a save: state, position and 20 rows are equal"),
        (True, ["state/step differs"], 1, "state/step differs"),
        (False, [], 1, "only 0 of 8 kills were in a save"),
    ],
)
def test_the_verdict(tmp_path, monkeypatch, capsys, succeeds, wrong, code, told):
    """With stand-ins for training: when the kills come, what is printed, and the exit code."""
    steps = []

    def kill_at(command, run, log, step, delay, saving=False):
        steps.append(step)
        return endurance.Kill(0, int(step), saving and succeeds)

    for name, stand_in in {
        "finish": lambda command, log: 3.0, "rows": lambda run: [{"seconds/step": 0.5}], "kill_at": kill_at,
        "differences": lambda one, other: wrong,
    }.items():  # fmt: skip
        monkeypatch.setitem(endurance.main.__globals__, name, stand_in)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", [
        "endurance.py", "--out", str(tmp_path / "out"), "--kills", "8", "--steps", "20", "--config", "x.py",
    ])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        endurance.main()
    assert ended.value.code == code
    printed = capsys.readouterr().out
    assert told in printed and len(printed.splitlines()) == 10
    made = [step for step in steps if step]
    assert made == sorted(made) and max(made) <= 14 and len(steps) == 8
