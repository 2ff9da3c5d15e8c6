"""What folders, archives, WebDataset shards and buckets hold, and that damage is one line of one recording."""

import json
import tarfile
from dataclasses import replace

import pytest
from made import tarred

from decodec_jax import audio
from decodec_jax.corpora import items
from decodec_jax.errors import UserError


@pytest.fixture
def members(folder):
    """The files of the folder, by their names in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_folders_tell_kind_and_speaker(folder):
    (folder / "notes.txt").write_text("not audio")
    found = items.listed(str(folder))
    assert [(item.id, item.kind, item.speaker) for item in found] == [
        ("background/n.flac", "background", ""), ("speech/s0/a.flac", "speech", "s0"),
        ("speech/s0/b.wav", "speech", "s0"), ("speech/s1/a.flac", "speech", "s1"), ("speech/s1/b.flac", "speech", "s1"),
    ]  # fmt: skip
    assert all(item.size == (folder / item.id).stat().st_size for item in found)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_an_archive_gives_its_recordings_in_its_order(tmp_path, members, name):
    order = dict(sorted(members.items(), reverse=True))
    path = tarred(tmp_path / name, order | {"readme.txt": b"hello"})
    found = items.listed(str(path))
    assert [item.member for item in found] == list(order)
    assert [item.kind for item in found] == ["speech"] * 4 + ["background"]
    for item, source in items.contents(found[1:4]):
        assert source.getvalue() == members[item.member]


def test_webdataset_shards_tell_transcripts_and_more(tmp_path, members):
    data = members["speech/s0/a.flac"]
    facts = {"speaker_id": 7, "text": "a word", "snr": 3.5}
    shard = {"000.flac": data, "000.json": json.dumps(facts).encode(), "001.txt": b"two words\n", "001.flac": data,
             "002.json": b"{", "002.flac": data, "003.flac": data,
             "003.json": b'{"kind": "noise", "speaker": null, "text": null, "split": ""}'}  # fmt: skip
    first, second, third, fourth = items.listed(str(tarred(tmp_path / "shard-000.tar", shard)))
    assert (first.speaker, first.transcript, first.more) == ("7", "a word", {"snr": 3.5})
    assert second.transcript == "two words" and third.transcript == ""
    assert (fourth.kind, fourth.speaker, fourth.transcript, fourth.split) == ("background", "", "", third.split)


def test_an_archive_cut_short_gives_what_is_whole(tmp_path, members):
    path = tarred(tmp_path / "a.tar", members)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    found = items.listed(str(path))
    read = dict(items.contents(found))
    good = [item for item, source in read.items() if not isinstance(source, UserError)]
    bad = [source for source in read.values() if isinstance(source, UserError)]
    assert good and bad and all("\n" not in str(error) for error in bad)
    (tmp_path / "b.tar.gz").write_bytes(b"not an archive")
    ((item, error),) = items.contents(items.listed(str(tmp_path / "b.tar.gz")))
    assert "damaged or cut short" in str(error) and item.id == "b.tar.gz/(the rest)"


def test_an_archive_that_holds_a_name_twice_gives_the_rest_too(tmp_path, folder):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("speech/s0/a.flac", "speech/s0/a.flac", "speech/s1/a.flac"):
            archive.add(folder / name, name)
    found = list(items.contents(items.listed(str(path))))
    assert [source.getvalue() for item, source in found] == [(folder / item.member).read_bytes() for item, _ in found]
    assert len(found) == 3


def test_a_bucket_is_listed_and_read_like_a_folder(bucket, folder, manifest):
    found = items.listed(bucket(folder))
    local = items.listed(str(folder))
    assert [replace(item, path="") for item in found] == [replace(item, path="") for item in local]
    for item in found:
        assert items.located(item).getvalue() == (folder / item.id).read_bytes()
    some = items.listed(f"{bucket(folder)}/speech/*/a.flac")
    assert [item.id for item in some] == ["s0/a.flac", "s1/a.flac"]
    manifest(("speech/s0/a.flac", "speech", "ann", "a word", "loud", "train"), ("missing.wav", "", "", "", "", ""))
    first, missing = items.listed(bucket(folder))
    assert (first.speaker, first.transcript, first.size) == ("ann", "a word", local[1].size)
    assert audio.info(items.located(first)).seconds > 0 and "missing.wav cannot be read" in str(items.located(missing))


def test_sources_that_hold_nothing_are_one_line(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (folder / "manifest.csv").write_text("file,kind\n")
    for source, words in [
        (tmp_path / "missing", "does not exist"), (tmp_path / "empty", "holds no recordings"), (folder, "'path'"),
        ("memory://nothing/here", "memory://nothing/here"), ("zz://bucket", "zz://bucket cannot be opened"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=words) as caught:
            items.listed(str(source))
        assert "\n" not in str(caught.value)
