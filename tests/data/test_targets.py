"""Cached targets: what a cache refuses, that its frames lie where the audio lies, and that training takes them."""

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from decodec_jax import audio, testing
from decodec_jax.config import Data
from decodec_jax.data import pipeline
from decodec_jax.data.mixing import Mixer
from decodec_jax.data.sources import open_source
from decodec_jax.data.targets import (
    HEAD,
    PIECE,
    RECORDS,
    About,
    at_speed,
    clip_features,
    open_cache,
    packed,
    record_bytes,
    speech_targets,
    unpacked,
    write_cache,
)
from decodec_jax.errors import UserError
from decodec_jax.objective.teacher import CepstraTeacher
from decodec_jax.training import loop, sharding
from decodec_jax.training.step import guiding

ROOT = Path(__file__).parents[2]
RATE, HOP = 8000, 50
DIGITS = 10
ABOUT = About("0123456789ab", 1 + DIGITS, HOP, RATE)
AUDIBLE = {"clean": 0.0, "background_only": 0.0, "silent": 0.0}


def frames_of(t, hop=HOP):
    return -(-t // hop)


def numbered(source):
    """Targets that say which clip (from 1) and, in binary digits, which frame (from 1) they are."""
    for i, clip in enumerate(source.clips):
        if clip.kind == "speech":
            frames = frames_of(len(source.read(i)))
            digits = np.arange(1, frames + 1)[:, None] >> np.arange(DIGITS) & 1
            yield clip.name, np.hstack([np.full((frames, 1), i + 1.0), digits])


def frame_of(targets):
    """Which frames (from 1) targets [n, 1 + DIGITS] of `numbered` say that they are."""
    return targets[:, 1:].astype(int) @ (1 << np.arange(DIGITS))


@pytest.fixture
def opened(corpus, add_row, tmp_path):
    """Source, settings and cache: clips of 1.5 s, and two that are shorter than a crop and no whole frames."""
    for k in range(2):
        wave = np.random.default_rng(k).integers(-4000, 4000, 837 + 400 * k) / 32768
        audio.write(corpus / f"short{k}.wav", wave, RATE)
        add_row(corpus, f"short{k}.wav", "train", "speech", f"short{k}", "", f"{len(wave) / RATE:.4f}")
    data = Data(root=str(corpus), seconds=0.26, batch=4, holdout=0.0)  # 41.6 frames
    source = open_source(data, RATE)
    write_cache(tmp_path / "cache", ABOUT, numbered(source))
    return source, data, open_cache(tmp_path / "cache", RATE, HOP)


def check_alignment(example, source):
    """Each frame of speech is that of the clip that its target names. Returns frames of the silence around clips."""
    t, empty = example["speech"].shape[1], 0
    assert example["targets"].shape == (2, frames_of(t), 1 + DIGITS) and example["targets"].dtype == np.float32
    for speech, targets in zip(example["speech"], example["targets"], strict=True):
        spoken = np.flatnonzero(targets[:, 0])
        if len(spoken) == 0:
            assert not speech.any()
            continue
        np.testing.assert_array_equal(np.diff(spoken), 1)
        np.testing.assert_array_equal(np.diff(frame_of(targets[spoken])), 1)
        assert len(set(targets[spoken, 0])) == 1
        begin, end = spoken[0] * HOP, (spoken[-1] + 1) * HOP
        clip, first = targets[spoken[0], 0] - 1, frame_of(targets[spoken])[0] - 1
        wave = source.read(int(clip))[first * HOP :][: min(end, t) - begin]
        expected = np.zeros(t, np.float32)
        expected[begin : begin + len(wave)] = wave
        gain = speech @ expected / (expected @ expected)
        np.testing.assert_allclose(speech, gain * expected, atol=1e-6)
        assert gain > 0 and len(spoken) == frames_of(len(wave))
        empty += len(targets) - len(spoken)
    return empty


def test_targets_lie_where_the_audio_lies(opened):
    source, data, cache = opened
    mixer = Mixer(source, dataclasses.replace(data, background_only=0.2, silent=0.1), cache)
    examples = [mixer(index, np.random.default_rng(index)) for index in range(40)]
    examples += [mixer.valid(index) for index in range(20)]
    assert sum(check_alignment(example, source) for example in examples) > 0  # short clips were among them
    assert any(not example["targets"][0].any() for example in examples)  # and silence
    begins = {frame_of(example["targets"][0])[0] for example in examples}
    assert len(begins) > 15


def test_a_cache_changes_no_other_draw(opened):
    source, data, cache = opened
    quiet = dataclasses.replace(data, level=(-40.0, -40.0), snr=(0.0, 10.0))  # no peak is scaled down
    with_cache, without = Mixer(source, quiet, cache), Mixer(source, quiet)
    for index in range(12):
        aligned, plain = (mixer(index, np.random.default_rng(index)) for mixer in (with_cache, without))
        np.testing.assert_array_equal(aligned["background"], plain["background"])
        assert aligned.keys() - plain.keys() == {"targets"}
        for one, other in zip(aligned["speech"], plain["speech"], strict=True):
            if other.any():  # the same crop but for less than a frame
                agreement = np.correlate(one, other, "full")
                shift = int(np.argmax(agreement)) - (len(one) - 1)
                assert abs(shift) < HOP and agreement.max() > 0.9 * (other @ other)


def test_workers_hosts_and_position_change_no_target(opened):
    source, data, cache = opened

    def take(count, start=0, workers=0, **hosts):
        stream = pipeline.batches(source, dataclasses.replace(data, workers=workers), start, cache=cache, **hosts)
        try:
            return [next(stream)["targets"] for _ in range(count)]
        finally:
            stream.close()

    whole = take(5)
    assert whole[0].shape == (4, 2, 42, 1 + DIGITS)
    np.testing.assert_array_equal(take(4, start=4), whole[1:])
    np.testing.assert_array_equal(take(3, start=4, workers=2), whole[1:4])
    halves = np.stack([take(5, host=host, hosts=2) for host in range(2)], axis=2)
    np.testing.assert_array_equal(halves.reshape(5, *whole[0].shape), whole)


def damage_cut(folder):
    path = folder / RECORDS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_fewer(folder):
    """A file of another cache: fewer records than there are names."""
    head = json.loads((folder / HEAD).read_text())
    head["names"].append("more.wav")
    head["frames"].append(3)
    (folder / HEAD).write_text(json.dumps(head))


def damage_version(folder):
    (folder / HEAD).write_text((folder / HEAD).read_text().replace('"version": 2', '"version": 3'))


def damage_head(folder):
    path = folder / HEAD
    path.write_text(path.read_text()[:-40])


@pytest.mark.parametrize(
    ("damage", "rate", "hop", "words"),
    [
        (None, RATE, 40, r"made for 50 samples a frame at 8000 Hz; the model has 40 at 8000 Hz"),
        (None, 16_000, HOP, r"50 samples a frame at 8000 Hz; the model has 50 at 16000 Hz"),
        (damage_cut, RATE, HOP, r"targets\.array_record#1 cannot be read"),
        (damage_fewer, RATE, HOP, r"targets\.array_record#2 cannot be read"),
        (lambda folder: (folder / RECORDS).unlink(), RATE, HOP, r"targets\.array_record#1 cannot be read"),
        (lambda folder: (folder / HEAD).unlink(), RATE, HOP, r"is not a cache of targets .*cache_targets\.py"),
        (damage_head, RATE, HOP, r"targets\.json is damaged"),
        (lambda folder: (folder / HEAD).write_text("[]"), RATE, HOP, r"targets\.json is damaged"),
        (damage_version, RATE, HOP, r"is of version 3, and this decodec_jax reads version 2"),
    ],
)
def test_a_cache_that_does_not_fit_is_one_line(tmp_path, damage, rate, hop, words):
    width = ABOUT.width
    write_cache(tmp_path / "cache", ABOUT, [("a.wav", np.ones((30_000, width))), ("b.wav", np.ones((3, width)))])
    if damage:
        damage(tmp_path / "cache")
    with pytest.raises(UserError, match=words) as caught:
        open_cache(tmp_path / "cache", rate, hop)
    assert "\n" not in str(caught.value) and "cache" in str(caught.value)


def test_missing_clips_are_counted_and_named(opened, tmp_path):
    source, data, _ = opened
    write_cache(tmp_path / "fewer", ABOUT, list(numbered(source))[4:])
    words = r"no targets of 4 of 14 speech clips: s.*, s.*, s.* and 1 more; make the cache anew"
    with pytest.raises(UserError, match=words) as caught:
        pipeline.batches(source, data, cache=open_cache(tmp_path / "fewer", RATE, HOP))
    assert source.clips[0].name in str(caught.value)


def test_a_clip_that_has_grown_is_skipped_and_named(opened, tmp_path, caplog):
    source, data, _ = opened
    targets = dict(numbered(source))
    name = next(iter(targets))
    targets[name] = targets[name][:3]
    write_cache(tmp_path / "old", ABOUT, targets.items())
    mixer = Mixer(source, dataclasses.replace(data, **AUDIBLE), open_cache(tmp_path / "old", RATE, HOP))
    with caplog.at_level(logging.WARNING):
        skipped = sum(mixer(index, np.random.default_rng(index))["skipped"] for index in range(30))
    assert skipped > 0 and [f"{name} has changed" in line for line in caplog.messages] == [True]


def test_a_cache_is_there_when_complete_or_not_at_all(tmp_path):
    def stopped():
        yield "a.wav", np.ones((3, ABOUT.width))
        raise KeyboardInterrupt

    shape = (3, ABOUT.width)
    unfit = {"wide": np.ones((3, 4)), "overflow": np.full(shape, 1e5), "nan": np.full(shape, np.nan)}
    for name, features in unfit.items():
        with pytest.raises(UserError, match=rf"{name}: .* do not fit float16 \[frames, 11\]"):
            write_cache(tmp_path / "cache", ABOUT, [(name, features)])
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "cache", ABOUT, stopped())
    assert list(tmp_path.iterdir()) == []
    write_cache(tmp_path / "cache", ABOUT, [("a.wav", np.ones(shape))])
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    with pytest.raises(UserError, match="cache exists; remove it"):
        write_cache(tmp_path / "cache", ABOUT, [])


def test_clips_are_computed_whole_at_few_lengths(rng):
    seen = set()

    def means(wave):
        seen.add(wave.shape[1])
        return wave.reshape(1, -1, 4).mean(-1, keepdims=True)

    for frames in (0.25, 1, 50, 51, PIECE, PIECE + 1, 2.6 * PIECE):
        wave = rng.standard_normal(round(4 * frames)).astype(np.float32)
        padded = np.pad(wave, (0, -len(wave) % 4))
        for window in (50, PIECE):
            expected = padded.reshape(-1, 4).mean(-1, keepdims=True)
            np.testing.assert_array_equal(clip_features(wave, 4, window, means), expected)
    assert all(t % (4 * 50) == 0 and t <= 4 * PIECE for t in seen)


@pytest.mark.parametrize("width", [4, 5])
def test_a_record_holds_each_feature_to_a_15th_of_its_range(rng, width):
    features = rng.standard_normal((40, width)) * 10.0 ** np.arange(-2, width - 2)
    features[:, 0] = 3.0  # what does not vary is exact
    record = packed(features)
    assert len(record) == record_bytes(40, width) == 4 * width + 40 * 3 - 40 * (width == 4)
    read = unpacked(record, width, 0, 40)
    error = np.abs(read - features).max(0)
    assert read.dtype == np.float32 and error[0] == 0
    assert np.all(error[1:] < 0.51 / 15 * np.ptp(features[:, 1:], axis=0))
    np.testing.assert_array_equal(unpacked(record, width, 7, 5), read[7:12])
    assert packed(features[:0]) == b"" and record_bytes(0, width) == 0


def test_384_features_take_200_bytes_a_frame():
    assert record_bytes(200, 384) <= 200 * 200  # of a clip of 4 s


def test_played_faster_or_slower_features_lie_where_the_sound_lies():
    features = np.float32(np.stack([np.arange(100), np.full(100, 5)], axis=1))
    middles = (np.arange(60) + 0.5) * 1.25  # of the frames played, in frames of the clip
    np.testing.assert_allclose(at_speed(features, 1.25, 60)[:, 0], middles - 0.5, atol=1e-5)
    middles = (np.arange(125) + 0.5) * 0.8
    np.testing.assert_allclose(at_speed(features, 0.8, 125)[1:-1, 0], middles[1:-1] - 0.5, atol=1e-5)
    np.testing.assert_array_equal(at_speed(features, 1.25, 60)[:, 1], 5)
    np.testing.assert_array_equal(at_speed(features, 1.0, 100), features)


def test_targets_of_speech_at_another_speed_are_those_of_its_clicks(tmp_path):
    """A click in every tenth frame, and a feature that is there alone."""
    wave, loud = np.zeros(RATE * 2, np.float32), np.zeros((2 * RATE // HOP, 1))
    for frame in range(5, len(loud), 10):
        wave[frame * HOP + HOP // 2] = 0.5
        loud[frame] = 1
    for name in ("speech/a/0.wav", "noise/0.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        audio.write(tmp_path / name, wave, RATE)
    write_cache(tmp_path / "cache", About("0123456789ab", 1, HOP, RATE), [("speech/a/0.wav", loud)])
    data = Data(root=str(tmp_path), seconds=1.0, holdout=0.0, **AUDIBLE)
    data.augment.speed = (0.8, 1.2)
    mixer = Mixer(open_source(data, RATE), data, open_cache(tmp_path / "cache", RATE, HOP))
    speeds = set()
    for index in range(8):
        example = mixer(index, np.random.default_rng(index))
        for speech, targets in zip(example["speech"], example["targets"][..., 0], strict=True):
            clicks = np.flatnonzero(np.abs(speech) > 0.4 * np.abs(speech).max())
            lit = np.flatnonzero((targets[1:-1] > 0.3) & (targets[1:-1] >= np.maximum(targets[:-2], targets[2:]))) + 1
            distances = np.abs(lit[:, None] - (clicks / HOP - 0.5)).min(1)
            assert len(lit) >= 12 and distances.max() < 0.8
            speeds.add(len(lit))
    assert len(speeds) > 2


def test_what_cannot_be_read_has_no_frames_and_is_named(corpus, tmp_path, caplog):
    (corpus / "speech/s0_0.flac").write_bytes((corpus / "speech/s0_0.flac").read_bytes()[:4000])
    data = Data(root=str(corpus), seconds=0.25, holdout=0.0, cache_mb=0)
    sources = [open_source(data, RATE, split) for split in ("train", "valid")]  # the same clips: each is computed once
    computed = speech_targets(sources, ABOUT, lambda wave: np.zeros((frames_of(len(wave)), ABOUT.width)))
    write_cache(tmp_path / "cache", ABOUT, computed)
    cache = open_cache(tmp_path / "cache", RATE, HOP)
    assert sorted(count for _, count in cache.clips.values()) == [0] + 11 * [240]
    assert cache.clips["speech/s0_0.flac"][1] == 0 and "s0_0.flac is" in caplog.text
    cache.require(sources[0].clips)


# With a teacher -------------------------------------------------------------------------------------------------------

CLICKS = {"a/0.wav": (5, 60), "a/1.wav": (31, 95), "b/0.wav": (20,), "b/1.wav": (12, 77)}  # frames


def compute_cache(root, out):
    command = [sys.executable, "launch/cache_targets.py", "--config", "configs/decodec.py:tiny_full", "--out", str(out)]
    return subprocess.run([*command, f"--config.data.root={root}"], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """A folder of clips with clicks in the middle of known frames, and the cache of its cepstra."""
    folder = tmp_path_factory.mktemp("clicks")
    for name, frames in CLICKS.items():
        rng = np.random.default_rng(frames[0])
        wave = 1e-4 * rng.standard_normal(320 * 100 + 77 * frames[0])
        for frame in frames:
            wave[320 * frame + 155 : 320 * frame + 165] = 0.5
        path = folder / "corpus" / "speech" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, wave, 16_000)
    (folder / "corpus" / "noise").mkdir()
    for k in range(2):
        noise = testing.background_clips(1, 16_000, seed=k)[0]
        audio.write(folder / "corpus" / "noise" / f"{k}.wav", noise, 16_000)
    outcome = compute_cache(folder / "corpus", folder / "cache")
    assert outcome.returncode == 0, outcome.stderr
    assert "39 features per frame for 4 clips" in outcome.stdout
    return folder


def test_clicks_are_in_targets_and_audio_at_once(clicks):
    cache = open_cache(clicks / "cache", 16_000, 320)
    assert set(cache.clips) == {f"speech/{name}" for name in CLICKS}
    data = Data(root=str(clicks / "corpus"), seconds=0.61, **AUDIBLE)
    found = 0
    for split in ("train", "valid"):
        mixer = Mixer(open_source(data, 16_000, split), data, cache)
        for index in range(15):
            example = mixer(index, np.random.default_rng(index))
            for speech, targets in zip(example["speech"], example["targets"], strict=True):
                frame = int(np.argmax(np.abs(speech))) // 320
                if np.abs(speech).max() < 20 * np.std(speech) or not 6 <= frame < len(targets) - 6:
                    continue
                loud = np.flatnonzero(targets[:, 0] > 0.5 * targets[:, 0].max())
                assert loud.mean() == frame  # the mean of the first cepstrum over the 120 ms around
                found += 1
    assert found > 10


def test_the_script_s_mistakes_are_one_line(clicks):
    outcome = compute_cache(clicks / "corpus", clicks / "cache")
    assert outcome.returncode == 2
    assert outcome.stderr == f"cache_targets.py: {clicks / 'cache'} exists; remove it, or name another folder\n"


@pytest.fixture
def guided(clicks):
    """A config of two steps, guided by the cache and nothing else."""
    config = testing.full_config(dilations=(), lstm_layers=0)  # quick to compile
    config.data.root, config.data.targets = str(clicks / "corpus"), str(clicks / "cache")
    config.loss.adversarial = config.loss.feature = 0.0
    config.train.steps = config.train.continuous_steps = 2
    config.train.sample_clips = 0
    return config


def test_a_cache_of_another_teacher_is_refused(guided, clicks, tmp_path):
    head = json.loads((clicks / "cache" / HEAD).read_text())
    ours = CepstraTeacher().fingerprint
    assert loop.open_targets(guided).about.teacher == head["teacher"] == ours
    assert loop.open_teacher(guided, None) is None
    guided_and_heard = dataclasses.replace(guided, loss=dataclasses.replace(guided.loss, perceptual=0.1))
    assert isinstance(loop.open_teacher(guided_and_heard, sharding.make_mesh(guided.mesh, 2)), CepstraTeacher)
    (tmp_path / RECORDS).write_bytes((clicks / "cache" / RECORDS).read_bytes())
    (tmp_path / HEAD).write_text(json.dumps(head | {"teacher": "feedfeedfeed"}))
    guided.data.targets = str(tmp_path)
    with pytest.raises(UserError, match=f"made by the teacher feedfeedfeed; the config names {ours}"):
        loop.train(guided, tmp_path / "run")
    guided.teacher.kind = "hubert"  # without a path: no teacher is named, and none is needed
    assert loop.open_targets(guided).about.teacher == "feedfeedfeed"
    guided.model.semantic = 768
    with pytest.raises(UserError, match=r"model\.semantic is 768; .* has 39 features a frame"):
        loop.open_targets(guided)
    guided.loss.guidance = 0.0
    assert loop.open_targets(guided) is None


def test_two_steps_are_guided_by_the_cache(guided, tmp_path):
    loop.train(guided, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert np.isfinite(row["loss/guidance"]) and 0 < abs(row["cosine"]) <= 1 and row["not_finite"] == 0


def test_targets_of_the_batch_stand_in_for_the_teacher_s(guided):
    batch, teacher = testing.training_batch(guided), CepstraTeacher()
    said = np.stack([teacher.targets(pair) for pair in batch["speech"]])
    np.testing.assert_allclose(guiding(batch | {"targets": said}, None), guiding(batch, teacher), atol=1e-4)
    assert guiding(batch, None) is None
