"""Which file becomes which, and that one bad file stops no other."""

import io

import numpy as np
import pytest

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.inference import batch
from decodec_jax.inference.batch import Job

AUDIO = tuple(audio.FORMATS)


@pytest.fixture
def tree(tmp_path):
    """Recordings a.wav, deep/b.mp3 and deep/c.FLAC (silence under every name), and a text."""
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("a.wav", "deep/c.FLAC"):
        audio.write(tmp_path / "in" / name, np.zeros(8000), 8000)
    (tmp_path / "in/deep/b.mp3").write_bytes((tmp_path / "in/a.wav").read_bytes())
    (tmp_path / "in/notes.txt").write_text("not audio")
    return tmp_path


def plan(folder, *inputs, output="out", written=AUDIO):
    inputs = [each if each == "-" else str(folder / each) for each in inputs]
    jobs = batch.plan(inputs, output if output == "-" else f"{folder}/{output}", batch.RECORDINGS, written)
    return {job.source.removeprefix(f"{folder}/"): job.target.removeprefix(f"{folder}/") for job in jobs}


def test_a_file_becomes_the_file_named_or_goes_into_the_folder(tree):
    assert plan(tree, "in/a.wav", output="b.flac") == {"in/a.wav": "b.flac"}
    assert plan(tree, "in/a.wav", output="new/") == {"in/a.wav": "new/a.wav"}
    (tree / "out").mkdir()
    assert plan(tree, "in/a.wav") == {"in/a.wav": "out/a.wav"}
    assert plan(tree, "-", output="-") == {"-": "-"}
    assert plan(tree, "-", output="b.wav") == {"-": "b.wav"}


def test_folders_keep_their_tree_and_files_their_names(tree):
    want = {"in/a.wav": "out/a.wav", "in/deep/b.mp3": "out/deep/b.wav", "in/deep/c.FLAC": "out/deep/c.FLAC"}
    assert plan(tree, "in") == want
    assert plan(tree, "in", written=(".dcc",))["in/deep/c.FLAC"] == "out/deep/c.dcc"
    assert plan(tree, "in/**/*.*a*") == {"in/a.wav": "out/a.wav"}
    assert plan(tree, "in", output=".")["in/a.wav"] == "a.wav"
    assert plan(tree, "in/*/*") == {key: value for key, value in want.items() if "deep" in key}
    assert plan(tree, "in/a.wav", "in/deep") == {"in/a.wav": "out/a.wav", "in/deep/b.mp3": "out/b.wav",
                                                "in/deep/c.FLAC": "out/c.FLAC"}  # fmt: skip


def test_what_was_made_is_not_taken_for_what_is_to_be_done(tree):
    first = plan(tree, "in", output="in/out")
    for target in first.values():
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        (tree / target).write_bytes(b"made")
    assert plan(tree, "in", output="in/out") == first


@pytest.mark.parametrize(
    ("inputs", "output", "words"),
    [
        (["in/a.wav", "-"], "out", "one recording at a time"), (["in"], "-", "one recording at a time"),
        (["in/a.wav", "in/deep/../a.wav"], "out", "would both be written"), (["in"], "in", "would be overwritten"),
        (["in/*.aiff"], "out", "no file matches .*aiff"), (["empty"], "out", "no .wav or .flac or"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned(tree, inputs, output, words):
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        plan(tree, *inputs, output=output)


def test_one_that_fails_stops_no_other_and_what_is_there_is_skipped(tree):
    (tree / "in/bad.wav").write_text("not audio")
    jobs = batch.plan([str(tree / "in")], str(tree / "out"), batch.RECORDINGS, AUDIO)
    prepared = []

    def prepare():
        prepared.append(True)

        def work(job, advance):
            advance(1.0)
            if "b.mp3" in job.source:
                raise UserError("it will not do")
            audio.write(job.target, np.zeros(8), 8000)
            return {"note": 5}

        return work

    def run(**options):
        return batch.run(jobs, lambda job: batch.check(job, AUDIO), prepare, **options)

    outcomes, elapsed = run()
    assert [o.status for o in outcomes] == ["written", "failed", "failed", "written"]
    assert outcomes[1].error == f"{tree}/in/bad.wav is not an audio file that can be read (Format not recognised)"
    assert outcomes[2].error == f"{tree}/in/deep/b.mp3: it will not do"
    assert outcomes[0].more == {"note": 5}
    told = batch.summary(outcomes, elapsed)
    assert (told["written"], told["failed"], told["audio_seconds"]) == (2, 2, 2.0)
    assert told["real_time_factor"] == elapsed / 2
    assert [o.status for o in run()[0]] == ["skipped", "failed", "failed", "skipped"]
    assert [o.status for o in run(overwrite=True)[0]] == ["written", "failed", "failed", "written"]
    (tree / "in/deep/b.mp3").unlink()
    run()
    assert len(prepared) == 3  # not for the last, which has nothing left to do


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [("a.wav", "b.mp9", "its name must end in .wav or .flac or .ogg"), ("a.wav", "none/b.wav", "there is no folder"),
     ("none.wav", "b.wav", "does not exist"), ("notes.txt", "b.wav", "not an audio file")],
)  # fmt: skip
def test_what_is_found_out_before_work_begins(tree, source, target, words):
    with pytest.raises(UserError, match=words):
        batch.check(Job(f"{tree}/in/{source}", f"{tree}/{target}"), AUDIO)
    assert batch.check(Job("-", "-"), AUDIO) is None
    assert batch.check(Job(f"{tree}/in/a.wav", f"{tree}/b.wav"), AUDIO) == 1.0


def test_a_terminal_shows_files_and_the_real_time_factor(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "TTY_COMPATIBLE": "1", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with batch._progress([2.0, 2.0]) as (advance, finish):
        advance(1.0)
        advance(1.0)
        finish()
    assert "1/2 files" in terminal.getvalue() and "x real time (RTF " in terminal.getvalue()
