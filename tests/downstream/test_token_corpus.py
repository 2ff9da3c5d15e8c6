"""Which utterances a run learns from, and what is refused."""

import json

import numpy as np
import pytest
import token_folders

from decodec_jax.downstream import corpus
from decodec_jax.downstream.config import Data
from decodec_jax.errors import UserError

ONE, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize("form", ["parquet", "array_record"])
def test_utterances_are_those_of_the_shards_and_backgrounds_are_left_out(tmp_path, form):
    rows = [token_folders.row("a", "abc"), token_folders.row("n", "abc") | {"kind": "background"},
            token_folders.row("b", "jj i")]  # fmt: skip
    found = corpus.read(str(token_folders.write(tmp_path / "t", rows, ONE, form, shard=2)))
    assert [each.id for each in found.utterances] == ["a", "b"] and found.fingerprint == ONE
    assert (found.sample_rate, found.hop, found.levels) == (1000, 20, (2, 2))
    for each, row in zip(found.utterances, [rows[0], rows[2]], strict=True):
        np.testing.assert_array_equal(each.speech, row["speech"])
        assert each.transcript == row["transcript"] and each.frames == row["speech"].shape[1]


def test_speakers_are_held_out_unless_the_manifest_names_a_validation_split(tmp_path):
    rows = [token_folders.row(f"{n}", "abc", speaker=f"s{n % 5}", split="speech_train") for n in range(20)]
    found = corpus.read(str(token_folders.write(tmp_path / "t", rows, ONE)))
    train, valid = (found.split(Data(holdout=0.05), split) for split in ("train", "valid"))
    assert len(train) + len(valid) == 20 and valid
    assert not {each.speaker for each in train} & {each.speaker for each in valid}
    rows += [token_folders.row("v", "abc", split="valid"), token_folders.row("more", "abc", split="train_more")]
    found = corpus.read(str(token_folders.write(tmp_path / "u", rows, ONE)))
    assert [each.id for each in found.split(Data(), "valid")] == ["v"]
    assert len(found.split(Data(), "train")) == 20
    assert len(found.split(Data(train_splits=("train", "train_more")), "train")) == 21


def test_of_a_single_speaker_utterances_are_held_out(tmp_path):
    rows = [token_folders.row(f"{n}", "abc", speaker=f"s{n % 2}") for n in range(80)]
    found = corpus.read(str(token_folders.write(tmp_path / "t", rows, ONE)))
    train, valid = (found.split(Data(holdout=0.1, speakers=("s1",)), split) for split in ("train", "valid"))
    assert {each.id for each in train} | {each.id for each in valid} == {f"{n}" for n in range(1, 80, 2)}
    assert 0 < len(valid) < len(train) and len(train) + len(valid) == 40


def test_several_folders_of_one_codec_are_one_corpus(tmp_path):
    for name in ("a", "b"):
        token_folders.write(tmp_path / name, [token_folders.row("same", "abc")], ONE)
    found = corpus.read(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    assert len({each.id for each in found.utterances}) == 2


def test_tokens_of_two_codecs_are_refused(tmp_path):
    token_folders.write(tmp_path / "a", [token_folders.row("a", "abc")], ONE)
    token_folders.write(tmp_path / "b", [token_folders.row("b", "abc")], OTHER)
    with pytest.raises(UserError, match=f"different codecs: fingerprint is {ONE} and {OTHER}"):
        corpus.read(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    (tmp_path / "b/tokens-000000.parquet").rename(tmp_path / "a/tokens-000001.parquet")
    with pytest.raises(UserError, match="tokens-000001.parquet holds tokens of the codec " + OTHER):
        corpus.read(str(tmp_path / "a"))


@pytest.mark.parametrize("form", ["parquet", "array_record"])
def test_a_damaged_shard_is_refused_by_name(tmp_path, form):
    folder = token_folders.write(tmp_path / "t", token_folders.utterances(20), ONE, form)
    (path,) = (each for each in folder.iterdir() if each.suffix != ".json")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{path.name}.* damaged"):
        corpus.read(str(folder))


def test_a_folder_that_lacks_tokens_is_told(tmp_path, caplog):
    folder = token_folders.write(tmp_path / "t", token_folders.utterances(20), ONE)
    whole = corpus.read(str(folder))
    assert not caplog.messages
    (folder / "report.json").unlink()  # as after an interruption
    assert len(corpus.read(str(folder)).utterances) == len(whole.utterances)
    assert caplog.messages == [f"{folder} is not finished, and lacks some of its tokens; run `decodec tokenize` again"]


def test_what_is_no_folder_of_tokens_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no tokens; name a folder that `decodec tokenize` wrote"):
        corpus.read(str(tmp_path))
    (tmp_path / "settings.json").write_text(json.dumps({"settings": {"format": "parquet"}}))
    with pytest.raises(UserError, match="holds no tokens"):
        corpus.read(str(tmp_path))
