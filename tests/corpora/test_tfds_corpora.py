"""Corpora of TFDS's catalogue, as its own builders write them with TensorFlow, and mistakes in such folders."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tfds_folder

from decodec_jax import audio
from decodec_jax.corpora import items, prepare, recipes
from decodec_jax.data import tfds_source
from decodec_jax.errors import UserError

RATE = 16_000


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "tfds.npz") as file:
        return dict(file)


@pytest.fixture
def unpack(golden, tmp_path):
    """Writes a corpus of golden data into a folder, and returns it with its examples and their samples."""

    def write(corpus):
        root = tmp_path / corpus / "1.0.0"
        root.mkdir(parents=True)
        for key in golden:
            if key.startswith(f"{corpus}/files/"):
                (root / key.split("/")[-1]).write_bytes(golden[key].tobytes())
        examples = json.loads(golden[f"{corpus}/examples"].item())
        return root, examples, [golden[f"{corpus}/{number}"] for number in range(len(examples))]

    return write


@pytest.mark.parametrize("corpus", ["librispeech", "lazy", "libritts", "vctk"])
def test_a_corpus_of_the_catalogue_is_what_tensorflow_reads(unpack, corpus):
    root, examples, waves = unpack(corpus)
    recipe = corpus.replace("lazy", "librispeech")
    found = recipes.listed(f"{recipe}={root}")
    splits = {"dev_clean": "valid", "test_other": "test", "train_clean100": "train", "train": "train"}
    assert [(item.kind, item.speaker, item.split, item.transcript, item.licence) for item in found] == [
        ("speech", each["speaker"], splits[each["split"]], each["transcript"].strip(), recipes.RECIPES[recipe].licence)
        for each in examples
    ]
    assert [item.id.split("#")[0] for item in found] == [each["split"] for each in examples]
    for (item, file), example, wave in zip(items.contents(found), examples, waves, strict=True):
        read, rate = audio.read(file)
        assert rate == example["rate"] and item.seconds == len(wave) / rate
        np.testing.assert_array_equal(read[0] * 32768, wave)
    assert "tensorflow" not in sys.modules


def test_clips_for_training_have_our_splits(unpack):
    root, _, waves = unpack("librispeech")
    source = tfds_source.open_tfds(root, RATE, lambda split: split == "valid")
    ((clip),) = source.clips
    assert (clip.name, clip.kind, clip.speaker, clip.split) == ("dev_clean#0", "speech", "19", "valid")
    np.testing.assert_array_equal(source.read(0) * 32768, waves[0])


def test_a_recipe_takes_only_its_own_corpus(unpack):
    root, _, _ = unpack("vctk")
    with pytest.raises(UserError, match=r"1\.0\.0 is a TFDS dataset, but not of librispeech"):
        recipes.listed(f"librispeech={root}")
    with pytest.raises(UserError, match="holds no recording where wsj has them"):
        recipes.listed(f"wsj={root}")
    assert [(item.kind, item.speaker, item.licence) for item in items.listed(str(root), "background")] == [
        ("speech", "p225", ""), ("speech", "s5", ""),
    ]  # fmt: skip
    assert prepare._name(f"vctk={root}", {}) == "vctk" and prepare._name(str(root), {}) == "1.0.0"


def test_a_damaged_shard_is_a_line_of_each_of_its_examples(unpack, caplog):
    root, _, waves = unpack("librispeech")
    shard = root / "librispeech-test_other.array_record-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:1000])
    (root / "librispeech-train_clean100.array_record-00000-of-00001").unlink()
    found = recipes.listed(f"librispeech={root}")
    assert [(item.split, item.speaker) for item in found] == [("valid", "19"), ("test", ""), ("train", "")]
    assert "2 of 3 clips are left out" in caplog.text
    good, cut, missing = (file for _, file in items.contents(found))
    assert audio.info(good).frames == len(waves[0])
    for error, name in ((cut, "test_other"), (missing, "train_clean100")):
        assert isinstance(error, UserError) and "\n" not in str(error)
        assert f"librispeech-{name}.array_record-00000-of-00001#0 cannot be read (" in str(error)


def test_a_dataset_may_be_converted_in_its_folder(unpack):
    root, _, _ = unpack("vctk")
    info = json.loads((root / "dataset_info.json").read_text()) | {"fileFormat": "tfrecord"}
    (root / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="holds tfrecord files; convert them with tfds convert_format"):
        recipes.listed(f"vctk={root}")
    (root / "dataset_info.json").write_text(json.dumps(info | {"alternativeFileFormats": ["array_record"]}))
    assert len(recipes.listed(f"vctk={root}")) == 2


def test_samples_that_cannot_be_used_are_a_line_of_their_example(tmp_path):
    import tensorflow_datasets as tfds

    features = {"speech": tfds.features.Tensor(shape=(None,), dtype=np.int64), "sample_rate": np.int32}
    waves = [[0, -32768, 32767], [0, 32768], [-40000, 5], []]
    examples = [{"speech": np.array(wave, np.int64), "sample_rate": RATE} for wave in waves]
    tfds_folder.write(tmp_path / "whole", features, {"train": examples}, "librispeech")
    good, *bad = (file for _, file in items.contents(recipes.listed(f"librispeech={tmp_path / 'whole'}")))
    np.testing.assert_array_equal(audio.read(good)[0][0] * 32768, waves[0])
    assert [str(error) for error in bad[:2]] == [
        "train#1 has samples from 0 to 32768, which 16 bits cannot hold",
        "train#2 has samples from -40000 to 5, which 16 bits cannot hold",
    ]
    floats = {"audio": tfds.features.Tensor(shape=(None,), dtype=np.float32)}
    nan = [{"audio": np.array([0.5, np.nan], np.float32)}]
    tfds_folder.write(tmp_path / "rate", floats, {"noise_train": nan})
    tfds_folder.write(tmp_path / "nan", floats | {"sample_rate": np.int32}, {"train": [nan[0] | {"sample_rate": RATE}]})
    for name, words in (("rate", "lacks the feature 'sample_rate'"), ("nan", "not finite numbers")):
        with pytest.raises(UserError, match=words):
            raise items.located(items.listed(str(tmp_path / name))[0])


def test_features_that_cannot_be_read_are_one_line(tmp_path):
    import tensorflow_datasets as tfds

    tensor = tfds.features.Tensor
    for name, features, example, words in [
        ("voice", {"voice": tensor(shape=(None,), dtype=np.int16)}, {"voice": [1]},
         "voice: its examples lack the feature 'audio' or 'speech'"),
        ("axes", {"audio": tensor(shape=(None, 2), dtype=np.int16)}, {"audio": [[1, 2]]},
         "axes: 'audio' must have 1 axis and the encoding 'none', not 2 and 'none'"),
        ("packed", {"speech": tensor(shape=(None,), dtype=np.int16, encoding="zlib")}, {"speech": [1]},
         "packed: 'speech' must have 1 axis and the encoding 'none', not 1 and 'zlib'"),
    ]:  # fmt: skip
        arrays = {key: np.array(value, np.int16) for key, value in example.items()}
        tfds_folder.write(tmp_path / name, features, {"train": [arrays]})
        with pytest.raises(UserError) as caught:
            items.listed(str(tmp_path / name))
        assert str(caught.value) == str(tmp_path / words)
