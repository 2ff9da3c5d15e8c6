"""From nothing to clean speech, as a user goes: the commands themselves, in processes of their own."""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from decodec_jax import testing

ROOT = Path(__file__).parents[1]


def train(workdir, *flags, config="tiny"):
    small = [  # soon compiled
        "--config.data.batch=2", "--config.data.seconds=0.2", "--config.mesh.data=1", "--config.train.valid_clips=2",
        "--config.train.kmeans_batches=2", "--config.model.spectral.encoder_blocks=1",
        "--config.model.spectral.decoder_blocks=1", "--config.loss.mel_windows=512", "--config.loss.mel_bands=40",
        "--config.loss.magnitude_windows=512",
    ]  # fmt: skip
    command = [sys.executable, "launch/train.py", "--config", f"configs/decodec.py:{config}", "--workdir", str(workdir)]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return subprocess.run([*command, *small, *flags], cwd=ROOT, capture_output=True, text=True, env=environment)


def decodec(*arguments):
    command = [sys.executable, "-m", "decodec_jax.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 6 steps with its codebooks started, resumed to 8."""
    workdir, before = tmp_path_factory.mktemp("runs") / "first", None
    for steps in (6, 8):
        outcome = train(workdir, f"--config.train.steps={steps}", "--config.train.continuous_steps=4")
        assert outcome.returncode == 0, outcome.stderr
        compiled = {path.name for path in (workdir / "compiled").iterdir() if "train_step" in path.name}
        assert compiled and before in (None, compiled)  # nothing is compiled twice
        before = compiled
    assert "resuming from step 6" in outcome.stdout
    assert "samples" in outcome.stdout  # where the sound is
    return workdir


def test_a_run_leaves_what_a_run_leaves(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6, 8]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert json.loads((run / "config.json").read_text())["train"]["steps"] == 8


@pytest.mark.parametrize(
    ("command", "suffix", "rate", "channels", "t"),
    [
        ("enhance", ".wav", 16_000, 1, 8001),
        ("background", ".flac", 44_100, 2, 10_007),
        ("reconstruct", ".ogg", 8000, 1, 1),
    ],
)
def test_a_recording_comes_back_as_long_as_it_was(run, tmp_path, command, suffix, rate, channels, t):
    noisy = testing.speech_clips(channels, t, sample_rate=rate) + testing.background_clips(channels, t)
    source, target = tmp_path / "noisy.wav", tmp_path / f"out{suffix}"
    soundfile.write(source, noisy.T, rate)
    outcome = decodec(command, source, target, "--model", run)
    assert outcome.returncode == 0, outcome.stderr
    info = soundfile.info(target)
    assert (info.frames, info.samplerate, info.channels) == (t, rate, channels)


def bad_inputs(folder):
    (folder / "text.wav").write_text("this is not audio")
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(folder / "good.wav", np.zeros(100), 16_000)
    return [
        ("enhance", folder / "missing.wav", folder / "out.wav"),
        ("enhance", folder / "text.wav", folder / "out.wav"),
        ("enhance", folder / "empty.wav", folder / "out.wav"),
        ("enhance", folder / "nan.wav", folder / "out.wav"),
        ("enhance", folder / "good.wav", folder / "out.mp9"),
        ("enhance", folder / "good.wav", folder / "no_such_folder" / "out.wav"),
    ]


def test_bad_recordings_are_one_line_each(run, tmp_path):
    from decodec_jax.cli import main

    for command, source, target in bad_inputs(tmp_path):
        assert main([command, str(source), str(target), "--model", str(run)]) == 2
        assert not target.exists()
    assert main(["enhance", str(tmp_path / "good.wav"), str(tmp_path / "out.wav"), "--model", str(tmp_path)]) == 2


def test_a_run_becomes_a_bundle(run, tmp_path):
    from decodec_jax.cli import main
    from decodec_jax.inference.codec import DeCodec

    assert main(["export", str(run), str(tmp_path / "model")]) == 0
    assert DeCodec.load(tmp_path / "model").fingerprint == DeCodec.load(run).fingerprint
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| training steps | 8 |" in card


def test_mistakes_in_training_are_one_line_each(run, tmp_path):
    (tmp_path / "empty").mkdir()
    mistakes = {
        "--config.optim.learning_rate=1": "learning_rate",
        f"--config.data.root={tmp_path / 'missing'}": "missing",
        f"--config.data.root={tmp_path / 'empty'}": "empty",
        "--config.data.seconds=-1": "data.seconds",
        "--config.mesh.data=3": "mesh.data",
    }
    for flag, named in mistakes.items():
        outcome = train(tmp_path / "run", flag)
        assert outcome.returncode == 2, outcome.stderr
        assert named in outcome.stderr.splitlines()[-1]
        assert "Traceback" not in outcome.stderr
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    outcome = train(run, "--config.model.spectral.width=64")
    assert outcome.returncode == 2
    assert "model.spectral.width is 64 (was 192)" in outcome.stderr
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before


@pytest.fixture
def follow(run, tmp_path, monkeypatch):
    """Paste every block of a page's section in order: shell commands, and code in Python."""
    from decodec_jax.cli import main
    from decodec_jax.inference.codec import DeCodec

    (tmp_path / "runs").mkdir()
    for name in ("tiny", "mine"):
        (tmp_path / "runs" / name).symlink_to(run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DeCodec, "load", functools.cache(DeCodec.load))  # each command would compile anew

    def follow(page, heading, *changes):
        section = (ROOT / page).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
        blocks = re.findall(r"```(python)?\n(.*?)```", section, re.DOTALL)
        assert blocks, heading
        for language, block in blocks:
            if language:
                exec(block, {})
                continue
            for change in changes:
                block = block.replace(*change)
            for line in block.splitlines():
                program, *arguments = shlex.split(line, comments=True)
                assert (shutil.copy(*arguments) if program == "cp" else main(arguments) == 0), line

    return follow


STEP = ("step_0001000", "step_0000008")


def test_the_readme_can_be_followed(follow):
    follow("README.md", "Use it", STEP)
    for name in ("speech", "background", "coded", "elsewhere", "converted"):
        wave, rate = soundfile.read(f"{name}.wav")
        assert (len(wave), rate) == (soundfile.info("noisy.wav").frames, 16_000) and np.abs(wave).max() > 0
    follow("docs/index.md", "First sound")  # of the same noisy.wav
    assert soundfile.info("again.wav").frames == soundfile.info("noisy.wav").frames


def test_a_model_can_be_measured_as_the_readme_says(follow, monkeypatch):
    from decodec_jax.evaluation.suites import items, scoring

    monkeypatch.setattr(items, "SNRS", (0.0,))
    # Whisper, DNSMOS and the others have their own tests, and would take minutes here
    monkeypatch.setattr(scoring, "tools", lambda whisper, speaker: scoring.Tools())
    follow("README.md", "Measure", ("--data FOLDER", '--data "" --limit 1 --seconds 0.5'))
    assert {"enhancement", "reconstruction"} <= {path.name for path in Path("results").iterdir()}
    assert Path("page/index.html").is_file()
