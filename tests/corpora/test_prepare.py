"""Shards for training hold what the folders hold, less what is broken, whatever happens on the way."""

import csv
import importlib.util
import json
import resource
import shutil
from dataclasses import replace
from functools import partial

import fsspec
import numpy as np
import pytest
import soundfile
import tfds_folder
from made import clip, tarred

from decodec_jax import audio, cli
from decodec_jax.corpora import beam, items, parts, prepare, screen, storage
from decodec_jax.errors import UserError

RATE = 16_000
SMALL = prepare.Settings(shard_mb=0.02, limits=screen.Limits(shortest=0.05))
BEAM = importlib.util.find_spec("apache_beam")


def here(work, todo):
    """What runs the parts, without Beam."""
    for part in todo:
        work(part)


def run(sources, out, settings=SMALL, **options):
    return prepare.prepare([str(source) for source in sources], str(out), settings, options.pop("run", here), **options)


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bytes_of(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_shards_hold_what_the_folder_holds(folder, tmp_path):
    lines = []
    report = run([folder], tmp_path / "out", say=lines.append)
    rows = table(tmp_path / "out/manifest.csv")
    assert [row["id"] for row in rows] == [
        f"corpus/{name}" for name in
        ("background/n.flac", "speech/s0/a.flac", "speech/s0/b.wav", "speech/s1/a.flac", "speech/s1/b.flac")
    ]  # fmt: skip
    assert len({row["path"].split("#")[0] for row in rows}) > 1
    for row, item in zip(rows, items.listed(str(tmp_path / "out")), strict=True):
        wave, rate = audio.read(items.located(item))
        assert (rate, len(wave), wave.shape[1] / rate) == (RATE, 1, pytest.approx(float(row["duration"])))
        source, _ = audio.read(folder / row["id"].removeprefix("corpus/"), RATE)
        np.testing.assert_allclose(wave[0], audio.mono(source), atol=1 / 32768)
    assert report["clips"] == 5 and report["kinds"]["speech, train"]["speakers"] == 2 and not report["dropped"]
    assert lines[0] == "corpus: 5 recordings; licences: not given (5)"
    assert json.loads((tmp_path / "out/report.json").read_text()) == report


def bad_files(root):
    """Ten recordings that are of no use: name -> the reason."""
    root.mkdir(parents=True)
    whole = clip(8000, 99)
    audio.write(root / "whole.wav", whole, RATE)
    audio.write(root / "whole.flac", whole, RATE)
    data = {suffix: (root / f"whole.{suffix}").read_bytes() for suffix in ("wav", "flac")}
    (root / "text.wav").write_text("not audio")
    (root / "empty.flac").write_bytes(b"")
    (root / "header.wav").write_bytes(data["wav"][:30])
    (root / "cut.wav").write_bytes(data["wav"][:9000])
    (root / "cut.flac").write_bytes(data["flac"][: len(data["flac"]) // 2])
    soundfile.write(root / "nan.wav", np.full(8000, np.nan), RATE, subtype="FLOAT")
    audio.write(root / "slow.wav", whole, 8000)
    audio.write(root / "short.wav", whole[:100], RATE)
    audio.write(root / "silent.wav", 0 * whole, RATE)
    audio.write(root / "loud.wav", np.clip(20 * whole, -1, 1), RATE)
    (root / "whole.wav").unlink()  # the same as whole.flac
    return {
        "text.wav": "broken", "empty.flac": "broken", "header.wav": "broken", "cut.wav": "broken", "cut.flac": "broken",
        "nan.wav": "broken", "slow.wav": "below the rate", "short.wav": "too short", "silent.wav": "too quiet",
        "loud.wav": "clipped",
    }  # fmt: skip


def test_ten_of_a_thousand_are_broken_in_ten_ways(tmp_path):
    wanted = bad_files(tmp_path / "corpus/bad")
    for seed in range(989):
        audio.write(tmp_path / f"corpus/{seed:03d}.flac", clip(1000, seed), RATE)
    report = run([tmp_path / "corpus"], tmp_path / "out", replace(SMALL, shard_mb=0.5))
    assert report["clips"] == 990  # whole.flac among them
    dropped = table(tmp_path / "out/dropped.csv")
    assert [(row["id"], row["reason"]) for row in dropped] == [
        (f"corpus/bad/{name}", reason) for name, reason in sorted(wanted.items())
    ]
    assert "truncated" in next(row["detail"] for row in dropped if "cut.wav" in row["id"])
    assert report["dropped"]["broken"]["recordings"] == 6
    assert "| broken | 6 |" in (tmp_path / "out/README.md").read_text()


def test_copies_and_ids_that_are_taken_are_left_out(folder, tmp_path, manifest):
    shutil.copy(folder / "speech/s0/a.flac", folder / "speech/s1/copy.flac")
    report = run([folder], tmp_path / "out")
    (row,) = table(tmp_path / "out/dropped.csv")
    assert (row["id"], row["reason"]) == ("corpus/speech/s1/copy.flac", "duplicate")
    assert row["detail"] == "of corpus/speech/s0/a.flac" and report["clips"] == 5
    manifest(("speech/s0/a.flac", "speech", "", "", "", ""), ("speech/s0/a.flac", "speech", "", "", "", ""),
             ("speech/s0/b.wav", "babble", "", "", "", ""), ("none.wav", "speech", "", "", "", ""))  # fmt: skip
    report = run([folder], tmp_path / "twice")
    assert {reason: each["recordings"] for reason, each in report["dropped"].items()} == {
        "broken": 1, "id taken": 1, "other kind": 1,
    }  # fmt: skip


def test_long_recordings_are_split_and_transcripts_stay_with_whole_ones(folder, tmp_path, manifest):
    manifest(*[(f"speech/s0/{name}", "speech", "ann", "a word", "", "") for name in ("a.flac", "b.wav")])
    run([folder], tmp_path / "out", prepare.Settings(limits=screen.Limits(longest=0.12, shortest=0.01)))
    rows = table(tmp_path / "out/manifest.csv")
    assert [(row["id"].split("/")[-1], row["transcript"]) for row in rows] == [
        ("a.flac", "a word"), ("b.wav:0", ""), ("b.wav:1", ""),
    ]  # fmt: skip


def test_it_goes_on_where_it_was_with_the_same_bytes(folder, tmp_path):
    run([folder], tmp_path / "whole")

    def stopped(work, todo, after):
        here(work, todo[:after])
        raise KeyboardInterrupt

    done = 0
    for _ in range(10):
        try:
            run([folder], tmp_path / "out", run=partial(stopped, after=1))
        except KeyboardInterrupt:
            done += 1
            (tmp_path / "out/.corpus-000001.array_record.host-7.part").write_bytes(b"half")
            assert not (tmp_path / "out/manifest.csv").exists()
        else:
            break
    assert done == len(list((tmp_path / "whole").glob("*.array_record"))) > 1
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
    with pytest.raises(UserError, match=r"begun with shard_mb 0\.02, not 1;"):
        run([folder], tmp_path / "out", prepare.Settings(shard_mb=1, limits=SMALL.limits))
    shutil.rmtree(folder / "background")
    with pytest.raises(UserError, match="begun with other recordings of corpus;"):
        run([folder], tmp_path / "out")


def test_sources_of_all_kinds_together_and_one_that_cannot_be_reached(folder, tmp_path):
    packed = tarred(tmp_path / "more.tar.gz", {"speech/x/1.flac": (folder / "speech/s0/a.flac").read_bytes()[:-300]})
    lines = []
    sources = [folder, packed, "zz://bucket/none", "memory://not/there"]
    report = run(sources, tmp_path / "out", say=lines.append)
    assert report["clips"] == 5 and [source for source, _ in report["unreadable"]] == sources[2:]
    assert report["dropped"] == {"broken": {"recordings": 1, "hours": 0.0}}
    assert any("zz://bucket/none cannot be opened" in line for line in lines)
    with pytest.raises(UserError, match="none of the sources can be read: zz://"):
        run(["zz://bucket/none"], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    # a source that can be reached later is added to what is done
    audio.write(folder / "new.wav", clip(4000, 50), RATE)
    report = run([*sources[:2], folder / "new.wav"], tmp_path / "out2")
    assert report["clips"] == 6


def test_buckets_hold_sources_and_shards(folder, bucket, tmp_path):
    """An object that vanishes after it was listed is a row of the report."""
    packed = tarred(folder / "more.tar", {"speech/x/1.flac": audio.encode(clip(3000, 40), RATE, ".flac")})
    source = bucket(folder)
    out = f"{source}-shards"

    def interrupted(work, todo):
        here(work, todo[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([source], out, run=interrupted)
    run([source], out)
    run([folder], tmp_path / "local")
    assert {name: storage.read(f"{out}/{name}") for name in storage.names(out)} == bytes_of(tmp_path / "local")

    def vanishing(work, todo):
        fsspec.filesystem("memory").rm(f"{source}/speech/s0/a.flac")
        here(work, todo)

    report = run([source, packed], f"{out}-2", run=vanishing)
    assert {reason: each["recordings"] for reason, each in report["dropped"].items()} == {"broken": 1, "duplicate": 1}
    assert "speech/s0/a.flac cannot be read" in storage.read(f"{out}-2/dropped.csv").decode()


def test_a_tfds_dataset_is_a_source(folder, tmp_path):
    """Examples that are of no use are rows of the report."""
    import tensorflow_datasets as tfds

    texts = {name: tfds.features.Text() for name in ("kind", "speaker", "transcript")}
    told = [("speech", "ann", "a word"), ("noise", "", ""), ("babble", "", ""), ("", "", ""), ("speech", "bob", "")]
    files = [(folder / name).read_bytes() for name in ("speech/s0/a.flac", "background/n.flac", "speech/s1/a.flac",
                                                       "speech/s1/b.flac")]  # fmt: skip
    examples = [dict(zip(texts, each, strict=True)) | {"audio": data}
                for each, data in zip(told, [*files, b"not audio"], strict=True)]  # fmt: skip
    tfds_folder.write(tmp_path / "files", {"audio": tfds.features.Text(), **texts}, {"train": examples})
    wave = audio.sixteen_bits(clip(3000, 60))
    numbers = {"audio": tfds.features.Tensor(shape=(None,), dtype=np.int16), "sample_rate": np.int32}
    tfds_folder.write(tmp_path / "numbers", numbers, {"noise_test": [{"audio": wave, "sample_rate": RATE}]})
    run([tmp_path / "files", tmp_path / "numbers"], tmp_path / "out")
    rows = table(tmp_path / "out/manifest.csv")
    assert [(row["id"], row["kind"], row["speaker"], row["transcript"], row["split"]) for row in rows] == [
        ("files/train#0", "speech", "ann", "a word", "train"), ("files/train#1", "background", "", "", "train"),
        ("files/train#3", "speech", "", "", "train"), ("numbers/noise_test#0", "background", "", "", "noise_test"),
    ]  # fmt: skip
    last = items.located(items.listed(str(tmp_path / "out"))[-1])
    np.testing.assert_array_equal(audio.sixteen_bits(audio.read(last)[0][0]), wave)
    assert [(row["id"], row["reason"]) for row in table(tmp_path / "out/dropped.csv")] == [
        ("files/train#2", "other kind"), ("files/train#4", "broken"),
    ]  # fmt: skip


def test_what_forbids_commercial_use_is_said_before_anything_is_written(folder, tmp_path):
    (folder / "audio").mkdir()
    shutil.copy(folder / "background/n.flac", folder / "audio/1-100032-A-0.flac")
    lines, written = [], []

    def say(line):
        lines.append(line)
        written.append((tmp_path / "out").exists())

    run([f"esc50={folder}"], tmp_path / "out", say=say)
    assert lines[:2] == [
        "corpus: 1 recordings; licences: CC BY-NC 3.0 (1)", "corpus: NO COMMERCIAL USE under CC BY-NC 3.0",
    ] and written[:2] == [False, False]  # fmt: skip
    assert "| CC BY-NC 3.0 | 0.00 | **forbidden** |" in (tmp_path / "out/README.md").read_text()


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(folder, tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, old[1]))
    try:
        with pytest.raises(UserError, match=r"array_record cannot be written") as caught:
            run([folder], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [parts.SETTINGS]
    run([folder], tmp_path / "out")
    run([folder], tmp_path / "whole")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_the_command_runs_on_beam_or_says_how_to_install_it(folder, tmp_path, capsys):
    arguments = ["prepare", str(folder), str(tmp_path / "out"), "--json", "--workers", "1"]
    if not BEAM:
        assert cli.main(arguments) == 2
        assert "pip install 'decodec_jax[beam]'" in capsys.readouterr().err
        return
    (folder / "speech/s0/bad.wav").write_text("not audio")
    assert cli.main([*arguments, "--wrokers=2"]) == 2
    assert "--wrokers is not an option of this command or of Beam" in capsys.readouterr().err
    of_beam = ["--worker_machine_type=n1-standard-4", "--no_use_public_ips", "--experiment=one", "--extra_package=a"]
    assert callable(beam.runner(str(tmp_path / "out"), 1, of_beam, print))  # names that Beam changes
    assert cli.main([*arguments, "--runner=DirectRunner", "--job_name=test"]) == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["dropped"]["broken"]["recordings"] == 1
    assert "left out, broken: 1 recordings" in written.err
    settings = prepare.Settings(shard_mb=200)
    run([folder], tmp_path / "plain", settings)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "plain")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, old[1]))
    try:
        assert cli.main(["prepare", str(folder), str(tmp_path / "full"), "--workers", "1"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "array_record cannot be written (" in line and line.endswith("; run the same command again to go on")


@pytest.mark.parametrize(
    "arguments", [["info", "--nonsense"], ["prepare", "a", "b", "--workers", "1", "out"]], ids=["info", "prepare"]
)
def test_arguments_that_nobody_knows_are_an_error(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert f"unrecognized arguments: {arguments[-1]}" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "ten"])
def test_clips_have_a_length(seconds, capsys):
    with pytest.raises(SystemExit):
        cli.main(["prepare", "a", "b", f"--longest={seconds}"])
    assert f"'{seconds}' is not a number of seconds from 1 up" in capsys.readouterr().err


def test_a_folder_of_recordings_is_never_written_to(folder, tmp_path):
    before = bytes_of(folder / "speech/s0")
    with pytest.raises(UserError, match="holds other files; choose a new folder"):
        run([folder], folder / "speech/s0")
    assert bytes_of(folder / "speech/s0") == before
