"""Shards of tokens hold what `encode` gives, whoever makes them and in however many goes."""

import json
import resource
import shutil
import sys

import jax
import numpy as np
import pytest

from decodec_jax import audio, cli
from decodec_jax.corpora import shards, storage, tokenize
from decodec_jax.data.packing import pack
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec


def read(out):
    return {row["id"]: (row, tokens) for row, tokens in shards.read(out)}


def alone(codec, path):
    wave, rate = audio.read(path)
    return codec.encode(audio.mono(wave), rate)


def bytes_of(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.mark.parametrize(("form", "causal"), [("parquet", True), ("array_record", False)])
def test_rows_hold_what_encode_gives(load, folder, tmp_path, form, causal):
    codec, lines = load(causal), []
    report = tokenize.tokenize(codec, str(folder), str(tmp_path / "out"), form, shard_mb=0.02, say=lines.append)
    rows = read(tmp_path / "out")
    names = ["background/n.flac", "speech/s0/a.flac", "speech/s0/b.wav", "speech/s1/a.flac", "speech/s1/b.flac"]
    assert list(rows) == names and report["recordings"] == 5 and report["failed"] == []
    assert report["seconds"] == pytest.approx(sum(audio.info(folder / name).seconds for name in names), abs=1e-3)
    assert len(list((tmp_path / "out").glob("tokens-*" + shards.FORMS[form]))) > 1
    for name, (row, tokens) in rows.items():
        assert tokens == alone(codec, folder / name), name
        assert row["speech"].dtype == np.uint16 and row["speech"].shape == (2, tokens.frames)
        assert (row["kind"], row["speaker"]) == (("speech", name[7:9]) if "speech" in name else ("background", ""))
    codec.decode(rows[names[0]][1])
    assert "5 of 5 recordings" in lines[-1] and "audio-seconds per second; 0.00 h left" in lines[-1]


def test_levels_and_everything_that_a_manifest_tells(codec, folder, manifest, tmp_path):
    manifest(("speech/s0/a.flac", "speech", "ann", "a word", "loud"), ("background/n.flac", "music", "", "", ""))
    tokenize.tokenize(codec, str(folder), str(tmp_path / "out"), levels=(1, 0))
    (row, tokens), (other, _) = read(tmp_path / "out").values()
    assert tokens == alone(codec, folder / "speech/s0/a.flac").with_levels(1, 0)
    assert (row["speaker"], row["transcript"], json.loads(row["metadata"])) == ("ann", "a word", {"note": "loud"})
    assert other["kind"] == "music" and other["background"].shape == (0, other["speech"].shape[1])


def test_parquet_is_read_by_data_tools(codec, folder, tmp_path):
    from pyarrow import parquet

    tokenize.tokenize(codec, str(folder), str(tmp_path / "out"))
    (path,) = (tmp_path / "out").glob("*.parquet")
    table = parquet.read_table(path)
    assert str(table.schema.field("speech").type) == "list<element: list<element: uint16>>"
    about = json.loads(table.schema.metadata[b"decodec_jax"])
    assert about["fingerprint"] == codec.fingerprint and about["hop"] == codec.config.hop
    row = table.slice(1, 1).to_pylist()[0]
    assert shards.tokens_of(row, about) == alone(codec, folder / row["id"])


@pytest.mark.parametrize("causal", [True, False])
def test_long_recordings_are_read_in_pieces(load, folder, tmp_path, monkeypatch, causal):
    codec = load(causal)
    monkeypatch.setattr(tokenize, "LONG", 0.12)
    monkeypatch.setattr(tokenize, "WINDOW", 0.2)
    tokenize.tokenize(codec, str(folder), str(tmp_path / "out"))
    for name, (_, tokens) in read(tmp_path / "out").items():
        assert tokens == alone(codec, folder / name), name


def test_it_goes_on_where_it_was_with_the_same_bytes(codec, folder, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    tokenize.tokenize(codec, str(folder), str(whole), shard_mb=0.005)
    shutil.copytree(whole, again)
    for name in ("tokens-000001.json", "tokens-000002.parquet", "tokens-000002.json", "report.json"):
        (again / name).unlink()
    (again / ".tokens-000001.parquet.host-7.part").write_bytes(b"half")
    done = (again / "tokens-000000.parquet").stat().st_mtime_ns
    tokenize.tokenize(codec, str(folder), str(again), shard_mb=0.005)
    assert bytes_of(again) == bytes_of(whole)
    assert (again / "tokens-000000.parquet").stat().st_mtime_ns == done
    for change in ({"levels": (1, 1)}, {"form": "array_record"}):
        with pytest.raises(UserError, match="was begun with "):
            tokenize.tokenize(codec, str(folder), str(again), **{"shard_mb": 0.01} | change)
    (folder / "background/n.flac").unlink()
    with pytest.raises(UserError, match="was begun with other recordings"):
        tokenize.tokenize(codec, str(folder), str(again), shard_mb=0.005)


def test_devices_and_hosts_share_the_work(codec, folder, tmp_path, monkeypatch):
    assert jax.local_device_count() == 8
    tokenize.tokenize(codec, str(folder), str(tmp_path / "whole"), shard_mb=0.005)
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    for host in (1, 0):  # whoever comes last writes the report
        report = tokenize.tokenize(codec, str(folder), str(tmp_path / "shared"), shard_mb=0.005, share=(host, 2))
        assert bool(report["shards_left"]) == (host == 1)
    assert bytes_of(tmp_path / "shared") == bytes_of(tmp_path / "whole")


def test_what_cannot_be_read_is_named_and_the_rest_is_done(codec, folder, tmp_path, manifest):
    (folder / "speech/s0/bad.wav").write_text("not audio")
    data = (folder / "speech/s1/a.flac").read_bytes()
    (folder / "speech/s1/cut.flac").write_bytes(data[: len(data) // 2])
    report = tokenize.tokenize(codec, str(folder), str(tmp_path / "out"))
    assert report["recordings"] == 5
    assert [name for name, _ in report["failed"]] == ["speech/s0/bad.wav", "speech/s1/cut.flac"]
    manifest(("speech/s0/a.flac", "", "", "", ""), ("speech/s0/a.flac", "", "", "", ""), ("no.wav", "", "", "", ""))
    report = tokenize.tokenize(codec, str(folder), str(tmp_path / "twice"))
    assert report["recordings"] == 1
    first, second = report["failed"]
    assert first == ["speech/s0/a.flac", "another recording has this id"] and second[0] == "no.wav"


def test_shards_that_pack_wrote_and_one_cut_short(codec, folder, tmp_path, manifest):
    manifest(("speech/s0/a.flac", "speech", "ann", "a word", "", "train"),
             ("background/n.flac", "noise", "", "", "", "train"))
    pack(folder, tmp_path / "packed")
    tokenize.tokenize(codec, str(tmp_path / "packed"), str(tmp_path / "out"))
    rows = read(tmp_path / "out")
    assert rows["train-speech-00000.array_record#0"][1] == alone(codec, folder / "speech/s0/a.flac")
    shard = tmp_path / "packed/train-background-00000.array_record"
    shard.write_bytes(shard.read_bytes()[:100])
    report = tokenize.tokenize(codec, str(tmp_path / "packed"), str(tmp_path / "cut"))
    assert report["recordings"] == 1 and [name for name, _ in report["failed"]] == [f"{shard.name}#0"]


@pytest.mark.parametrize("form", shards.FORMS)
def test_tokens_that_are_cut_short_are_one_line(codec, folder, tmp_path, form):
    tokenize.tokenize(codec, str(folder), str(tmp_path / "out"), form)
    (path,) = (tmp_path / "out").glob(f"tokens-*{shards.FORMS[form]}")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=rf"{path.name} is damaged") as caught:
        read(tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(codec, folder, tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(UserError, match=r"tokens-000000\.parquet cannot be written") as caught:
            tokenize.tokenize(codec, str(folder), str(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]
    assert tokenize.tokenize(codec, str(folder), str(tmp_path / "out"))["recordings"] == 5


def test_a_bucket_is_a_folder_too(codec, folder, bucket, tmp_path):
    source = bucket(folder)
    tokenize.tokenize(codec, source, f"{source}-tokens", shard_mb=0.02)
    tokenize.tokenize(codec, str(folder), str(tmp_path / "local"), shard_mb=0.02)
    there = {name: storage.read(f"{source}-tokens/{name}") for name in storage.names(f"{source}-tokens")}
    assert there == bytes_of(tmp_path / "local")


def test_mistakes_are_one_line(codec, folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.parquet").write_text("x")
    for source, out, words in [
        ("missing", "out", "does not exist"), ("empty", "out", "holds no recordings"),
        ("corpus", "file/out", "cannot be written"), ("corpus", "other", "holds other files; choose a new folder"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=words) as caught:
            tokenize.tokenize(codec, str(tmp_path / source), str(tmp_path / out))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"zz://.* cannot be opened"):
        tokenize.tokenize(codec, "zz://bucket/a", str(tmp_path / "out"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'decodec_jax\[parquet\]'"):
        tokenize.tokenize(codec, str(folder), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_command(codec, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(DeCodec, "load", lambda path: codec)
    (folder / "speech/s0/bad.wav").write_text("not audio")
    arguments = ["tokenize", str(folder), str(tmp_path / "out"), "--levels", "1,1", "--batch", "2", "--json"]
    assert cli.main(arguments) == 2
    written = capsys.readouterr()
    assert json.loads(written.out)["recordings"] == 5
    assert "holds the tokens of 5 recordings" in written.err
    assert "speech/s0/bad.wav is not an audio file" in written.err.splitlines()[-1]
    for wrong in (["--batch", "3"], ["--share", "2/2"], ["--share", "1"]):
        with pytest.raises(SystemExit):
            cli.main([*arguments, *wrong])
