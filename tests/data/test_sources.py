import pickle
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tfds_folder

from decodec_jax import audio
from decodec_jax.config import Data
from decodec_jax.data import sources, synthetic
from decodec_jax.data.packing import pack
from decodec_jax.errors import UserError

RATE = 8000


def open_at(root, split="train", rate=RATE, **settings):
    return sources.open_source(Data(root=str(root), **settings), rate, split)


def names(source, kind):
    return {clip.name for clip in source.clips if clip.kind == kind}


def speakers(source):
    return {clip.speaker for clip in source.clips if clip.kind == "speech"}


@pytest.mark.parametrize("cache_mb", [0, 512])
def test_a_folder_is_read_by_crops(corpus, cache_mb):
    source = open_at(corpus, cache_mb=cache_mb)
    clip = source.clips[0]
    assert (clip.kind, clip.seconds, clip.transcript) == ("speech", 1.5, "a word")
    whole = audio.read(corpus / clip.name)[0][0]
    crop = source.read(0, 0.5, 0.25)
    assert crop.dtype == np.float32
    np.testing.assert_array_equal(crop, whole[4000:6000])
    np.testing.assert_array_equal(source.read(0, 1.4, 0.5), whole[11200:])


def test_validation_has_other_speakers_and_backgrounds_than_training(corpus):
    train, valid, test = (open_at(corpus, split, holdout=0.3) for split in ("train", "valid", "test"))
    assert speakers(train) and speakers(valid) and not speakers(train) & speakers(valid)
    assert speakers(train) | speakers(valid) == {"s0", "s1", "s2", "s3"}
    assert names(valid, "background") and not names(train, "background") & names(valid, "background")
    assert {clip.name for clip in test.clips} == {"t/s.flac", "t/n.flac"}
    assert open_at(corpus, "valid", holdout=0.3).clips == valid.clips


def test_at_least_one_of_each_is_held_out_and_one_left(corpus):
    assert len(speakers(open_at(corpus, "valid", holdout=1e-9))) == 1
    assert len(speakers(open_at(corpus, "train", holdout=1.0))) == 1


def test_without_holdout_validation_shares_the_training_clips(corpus, caplog):
    assert open_at(corpus, "valid", holdout=0.0).clips == open_at(corpus, "train", holdout=0.0).clips
    assert "no speech is held out" in caplog.text


def test_valid_rows_are_used_where_there_are_any(corpus, add_row):
    shutil.copy(corpus / "t/s.flac", corpus / "v.flac")
    add_row(corpus, "v.flac", "speech_valid", "speech", "v", "", "1.5")
    assert names(open_at(corpus, "valid"), "speech") == {"v.flac"}
    assert speakers(open_at(corpus)) == {"s0", "s1", "s2", "s3"}
    assert len(names(open_at(corpus, "valid"), "background")) >= 1


def test_rooms_of_any_split_serve_training_alone(corpus, add_row):
    for split in ("speech_train", "rirs"):
        shutil.copy(corpus / "t/s.flac", corpus / f"{split}.flac")
        add_row(corpus, f"{split}.flac", split, "room", "", "", "1.5")
    assert names(open_at(corpus), "room") == {"speech_train.flac", "rirs.flac"}
    assert not names(open_at(corpus, "valid"), "room") and not names(open_at(corpus, "test"), "room")


def test_folders_without_a_manifest(corpus):
    (corpus / "manifest.csv").unlink()
    (corpus / "speech" / "ann").mkdir()
    shutil.move(corpus / "speech/s0_0.flac", corpus / "speech/ann/1.flac")
    source = open_at(corpus, holdout=0.0)
    assert len(source.clips) == 18 and all(clip.seconds == 1.5 for clip in source.clips)
    assert speakers(source) == {"ann", ""}


def test_missing_files_are_counted_and_named(corpus, caplog):
    for name in ("speech/s0_0.flac", "speech/s1_1.flac"):
        (corpus / name).unlink()
    assert len(open_at(corpus, holdout=0.0).clips) == 16
    assert "2 of 18 clips are left out" in caplog.text and "s0_0.flac does not exist" in caplog.text


def test_the_header_is_read_only_where_the_duration_is_missing(corpus, add_row, caplog):
    (corpus / "bad.wav").write_text("hello")
    audio.write(corpus / "low.wav", np.ones(400), 4000)
    audio.write(corpus / "good.wav", np.ones(4000), 16000)
    for name in ("bad.wav", "low.wav", "good.wav"):
        add_row(corpus, name, "train", "speech", "x", "", "")
    source = open_at(corpus, holdout=0.0)
    assert [clip.seconds for clip in source.clips if clip.speaker == "x"] == [0.25]
    assert "bad.wav is not an audio file" in caplog.text and "low.wav is at 4000 Hz" in caplog.text


def test_a_higher_rate_is_resampled_and_a_lower_one_refused(corpus, add_row):
    audio.write(corpus / "high.wav", np.stack([np.ones(44100), np.zeros(44100)]) / 2, 44100)
    add_row(corpus, "high.wav", "train", "speech", "x", "", "1.0")
    source = open_at(corpus, holdout=0.0, cache_mb=0)
    i = next(i for i, clip in enumerate(source.clips) if clip.speaker == "x")
    crop = source.read(i, 0.25, 0.5)
    assert crop.shape == (4000,)
    np.testing.assert_allclose(crop, 0.25, atol=1e-3)
    with pytest.raises(UserError, match=r"at 8000 Hz, below the model's 16000 Hz"):
        open_at(corpus, rate=16000).read(0, 0.0, 0.5)


def test_a_file_shorter_than_its_manifest_says_is_truncated(corpus, add_row):
    soundfile.write(corpus / "short.ogg", np.ones(8000) / 3, RATE)
    add_row(corpus, "short.ogg", "train", "speech", "x", "", "9.0")
    source = open_at(corpus, holdout=0.0, cache_mb=0)
    i = next(i for i, clip in enumerate(source.clips) if clip.speaker == "x")
    with pytest.raises(UserError, match=r"short\.ogg is truncated: 1\.00 s of the 9\.00 s"):
        source.read(i, 0.0, 0.5)


def test_unusable_folders_are_one_line(tmp_path, corpus):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/manifest.csv").write_text("file,split,kind\n")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/manifest.csv").write_text("path,split,kind\n")
    for root, settings, words in [
        ("missing", {}, "is not a folder"),
        ("empty", {}, "manifest.csv"),
        ("other", {}, "lacks the column 'path'"),
        ("rows", {}, "no usable speech"),
        ("corpus", {"train_split": "nothing"}, "no usable speech"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            open_at(tmp_path / root, **settings)
        assert "\n" not in str(caught.value) and root in str(caught.value)
    shutil.rmtree(corpus / "noise")
    with pytest.raises(UserError, match="no usable background"):
        open_at(corpus)


def test_opening_does_not_decode(tmp_path):
    root = tmp_path / "many"
    (root / "x").mkdir(parents=True)
    rows = []
    for k in range(2000):
        (root / f"x/{k}.wav").touch()
        rows.append(f"x/{k}.wav,train,{'speech' if k % 2 else 'noise'},s{k % 7},,3.0\n")
    (root / "manifest.csv").write_text("path,split,kind,speaker,transcript,duration\n" + "".join(rows))
    begin = time.process_time()
    assert len(open_at(root, holdout=0.0).clips) == 2000  # they are empty: reading a header would drop them
    assert time.process_time() - begin < 0.5


def test_memory_returns_what_the_file_holds_even_beyond_full_scale(corpus, add_row):
    wave = np.linspace(-3, 3, 8000).astype(np.float32)
    soundfile.write(corpus / "loud.wav", wave, RATE, subtype="FLOAT")
    add_row(corpus, "loud.wav", "train", "speech", "x", "", "1.0")
    source = open_at(corpus, holdout=0.0)
    assert isinstance(source, sources.Cached)
    i = next(i for i, clip in enumerate(source.clips) if clip.speaker == "x")
    np.testing.assert_allclose(source.read(i, 0.1, 0.5), wave[800:4800], atol=2e-4)
    assert pickle.loads(pickle.dumps(source)).kept == {}


# ArrayRecord ----------------------------------------------------------------------------------------------------------


def test_packing_keeps_every_sample_and_everything_known(corpus, tmp_path, caplog):
    (corpus / "noise/n5.flac").write_bytes((corpus / "noise/n5.flac").read_bytes()[:3000])
    assert pack(corpus, tmp_path / "packed", clips_per_file=5) == 19
    assert "1 of 20 clips are left out" in caplog.text and "n5.flac" in caplog.text
    assert len(list((tmp_path / "packed").glob("speech_train-speech-*.array_record"))) == 3
    packed, files = (open_at(root, holdout=0.0, cache_mb=0) for root in (tmp_path / "packed", corpus))
    assert [clip.speaker for clip in packed.clips] == [clip.speaker for clip in files.clips][:17]
    assert {clip.seconds for clip in packed.clips} == {1.5}
    for i in range(17):
        np.testing.assert_array_equal(packed.read(i, 0.5, 0.3), files.read(i, 0.5, 0.3))
    again = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(again.read(3), files.read(3))


def test_a_missing_record_is_a_one_line_error(corpus, tmp_path):
    pack(corpus, tmp_path / "packed")
    source = open_at(tmp_path / "packed", holdout=0.0, cache_mb=0)
    bad = sources.replace(source.clips[0], name="speech_train-speech-00000.array_record#99")
    with pytest.raises(UserError, match=r"array_record#99 cannot be read") as caught:
        sources.replace(source, clips=[bad]).read(0)
    assert "\n" not in str(caught.value)


# TFDS -----------------------------------------------------------------------------------------------------------------


def tfds_features(dtype):
    import tensorflow_datasets as tfds

    texts = {name: tfds.features.Text() for name in ("kind", "speaker", "transcript")}
    return {"audio": tfds.features.Tensor(shape=(None,), dtype=dtype), "sample_rate": np.int32, **texts}


def tfds_example(kind, speaker, wave, rate=RATE):
    return {"audio": wave, "sample_rate": rate, "kind": kind, "speaker": speaker, "transcript": ""}


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_tfds_needs_no_tensorflow(tmp_path, dtype, caplog):
    root = tmp_path / "clips" / "1.0.0"
    waves = [(np.random.default_rng(k).uniform(-9000, 9000, 4000 + k)).astype(np.int16) for k in range(6)]
    stored = waves if dtype == np.int16 else [wave.astype(np.float32) / 32768 for wave in waves]
    train = [tfds_example("speech", f"s{k}", stored[k]) for k in range(3)]
    train += [tfds_example("noise", "", stored[3]), tfds_example("speech", "low", stored[3], 4000)]
    valid = [tfds_example("speech", "v", stored[4]), tfds_example("background", "", stored[5], 16000)]
    tfds_folder.write(root, tfds_features(dtype), {"train": train, "validation": valid})

    source = open_at(root, cache_mb=0)
    assert speakers(source) == {"s0", "s1", "s2"} and "train#4 is at 4000 Hz" in caplog.text
    assert source.clips[1].seconds == 4001 / RATE
    np.testing.assert_allclose(source.read(1, 0.25, 0.125), waves[1][2000:3000] / 32768, atol=1e-7)
    held = open_at(root, "valid", cache_mb=0)
    assert speakers(held) == {"v"} and held.read(1).shape == (2003,)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(0), source.read(0))
    assert "tensorflow" not in sys.modules


def test_tfds_may_hold_encoded_files_and_name_the_kind_by_split(corpus, tmp_path):
    import tensorflow_datasets as tfds

    files = [(corpus / name).read_bytes() for name in ("speech/s0_0.flac", "noise/n0.flac")]
    splits = {"speech_train": [{"audio": files[0]}], "noise_train": [{"audio": files[1]}, {"audio": b"broken"}]}
    tfds_folder.write(tmp_path / "clips" / "1.0.0", {"audio": tfds.features.Text()}, splits)
    source = open_at(tmp_path / "clips" / "1.0.0")
    assert [(clip.kind, clip.seconds) for clip in source.clips] == [("speech", 1.5), ("background", 1.5)]
    np.testing.assert_array_equal(source.read(1, 0.5, 0.5), audio.read(corpus / "noise/n0.flac")[0][0, 4000:8000])


def test_tfds_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'decodec_jax\[tfds\]'"):
        open_at(tmp_path)


def test_a_broken_tfds_folder_is_one_line(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read as a TFDS dataset") as caught:
        open_at(tmp_path)
    assert "\n" not in str(caught.value)


# Synthetic ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_synthetic_clips_are_pure_functions(rate):
    source, again = (open_at("", rate=rate) for _ in range(2))
    spoken = [i for i, clip in enumerate(source.clips) if clip.kind == "speech"][:3]
    noises = [i for i, clip in enumerate(source.clips) if clip.kind == "background"][:8]
    for i in spoken + noises:
        wave = source.source.read(i)
        assert wave.shape == (4 * rate,) and wave.dtype == np.float32
        assert np.isfinite(wave).all() and np.abs(wave).max() <= 0.91 and wave.std() > 0.005
        np.testing.assert_array_equal(wave, again.source.read(i))
        np.testing.assert_allclose(source.read(i, 1.0, 0.5), wave[rate : rate + rate // 2], atol=2e-5)


def test_synthetic_splits_share_nothing():
    splits = [{clip.speaker or clip.name for clip in synthetic.clips(split)} for split in ("train", "valid", "test")]
    assert not splits[0] & splits[1] and not splits[1] & splits[2] and not splits[0] & splits[2]


def test_a_synthetic_speaker_keeps_to_a_pitch():
    """The strongest period of a voice, by autocorrelation, varies less within a speaker than between speakers."""

    def pitch(wave):
        power = np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2
        lags = np.fft.irfft(power)[40:200]
        return 16000 / (40 + lags.argmax())

    pitches = np.array([[pitch(synthetic.speech(s, 10 * s + k, 16000)) for k in range(4)] for s in range(6)])
    assert np.median(pitches.std(axis=1)) < 0.5 * np.median(pitches, axis=1).std()
    assert 70 < pitches.min() and pitches.max() < 400


def test_synthetic_clips_are_fast():
    begin = time.process_time()
    for k in range(5):
        synthetic.speech(k, k, 16000)
        synthetic.background(k, 16000)
    assert 40 / (time.process_time() - begin) > 50  # times real time: some 300 measured


def test_data_does_not_import_jax():
    for path in Path(sources.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) (jax|flax)", path.read_text(), re.MULTILINE), path
