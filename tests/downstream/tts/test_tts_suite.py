"""The suite "synthesis": what training left out is spoken, what is known gets its score, every mistake is one line."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import token_folders

from decodec_jax import audio, cli, testing
from decodec_jax.data.sources import list_clips
from decodec_jax.downstream import loop
from decodec_jax.downstream.tts.trained import load
from decodec_jax.errors import UserError
from decodec_jax.evaluation.reports import spoken as sounds
from decodec_jax.evaluation.suites import scoring, sentences, suite, synthesis
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.evaluation.suites.suite import Loaded
from decodec_jax.inference.codec import DeCodec

RATE = token_folders.RATE
TOOLS = Tools(
    opinion=lambda wave, rate, transcript=None: {"dnsmos/ovrl": 3.0},
    words=lambda wave, rate, transcript=None: {"wer": 1 / len(transcript.split())},
    similarity=lambda one, other, rate: 0.5,
)


@pytest.fixture(scope="module")
def runs(config_of, tmp_path_factory):
    """The folders of both models after two steps."""
    folders = {stage: tmp_path_factory.mktemp("runs") / stage for stage in ("ar", "nar")}
    for stage, folder in folders.items():
        config = config_of(stage)
        config.train.steps = config.train.save_every = config.train.valid_every = 2
        loop.train(config, folder)
    return folders


@pytest.fixture(scope="module")
def recorded(spoken, tmp_path_factory):
    """The recordings that the tokens could be of: of those held out by the models, and of a background and a source."""
    root = tmp_path_factory.mktemp("recorded")
    rows = [row | {"split": "valid" if number % 8 == 0 else "train"}
            for number, row in enumerate(token_folders.utterances(160))]  # fmt: skip
    with (root / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", "kind", "speaker", "transcript", "duration"])
        for number, row in enumerate(rows):
            seconds = max(0.6, row["length"] / RATE)
            table.writerow([row["id"], row["split"], "speech", row["speaker"], row["transcript"], seconds])
            if row["split"] == "valid":
                write(root / row["id"], testing.speech_clips(1, round(seconds * RATE), number, RATE)[0])
        table.writerow(["noise/a.flac", "test", "noise", "", "", 0.5])
        table.writerow(["other/b.flac", "test", "speech", "somebody", "a bad cab", 0.8])
    write(root / "noise/a.flac", testing.background_clips(1, 500)[0])
    write(root / "other/b.flac", testing.speech_clips(1, 800, 9, RATE)[0])
    return root


def write(path, wave):
    path.parent.mkdir(exist_ok=True)
    audio.write(path, wave, RATE)


@pytest.fixture(scope="module")
def models(runs, codec):
    return load(runs["ar"], ("ar",), codec), load(runs["nar"], ("nar",), codec)


@pytest.fixture
def evaluate(codec, codec_folder, recorded, monkeypatch, tmp_path, capsys):
    """Runs `decodec evaluate --suite synthesis`; returns its exit code and its lines of errors."""
    monkeypatch.setattr(DeCodec, "load", lambda path="built-in": codec)
    monkeypatch.setattr(scoring, "tools", lambda whisper, embedder: TOOLS)

    def run(*arguments, data=recorded):
        given = "--suite", "synthesis", "--model", f"mine={codec_folder}", "--data", data, "--out", tmp_path / "out"
        return cli.main(["evaluate", *map(str, (*given, *arguments))]), capsys.readouterr().err.splitlines()

    return run


def test_what_both_models_held_out_is_unseen(config_of, models, recorded):
    clips = list_clips(recorded)
    config = config_of("ar")
    held_out = {each.id for each in config.task().corpus.split(config.data, "valid")}
    assert {clip.name for clip in sentences.unseen(clips, *models)} == held_out | {"other/b.flac"}
    heard = [clip for clip in clips if clip.split == "train"]  # nothing here is marked as held out
    one, all_of_it = (trained_on(models[0], speakers=("s1",), holdout=share) for share in (0.2, 0.0))
    found = sentences.unseen(heard, one, one)
    assert 0 < len(found) < 20 and {clip.speaker for clip in found} == {"s1"}
    assert sentences.unseen(heard, one, all_of_it) == []


def trained_on(trained, **data):
    config = dataclasses.replace(trained.config, data=dataclasses.replace(trained.config.data, **data))
    return dataclasses.replace(trained, config=config)


def test_prompts_are_by_the_same_speaker_and_not_the_sentence(recorded, models):
    found = sentences.load(*models, str(recorded), 5)
    assert len(found.read) == 5 and len(found.sources) == 1 and found.sources[0].speaker == "somebody"
    for said, prompt in found.read:
        assert said.speaker == prompt.speaker and said.transcript and not prompt.transcript
        assert len(said.mixture) != len(prompt.speech) or np.any(said.mixture != prompt.speech)
        np.testing.assert_allclose(prompt.mixture, prompt.speech + prompt.background, atol=1e-6)
        power = np.mean(prompt.speech**2) / np.mean(prompt.background**2)
        assert 10 * np.log10(power) == pytest.approx(sentences.SNR, abs=0.01)
    clips = [SimpleNamespace(name=name, speaker=speaker, seconds=seconds)
             for name, speaker, seconds in (("a", "x", 1), ("b", "x", 4), ("c", "y", 9), ("d", "x", 5))]  # fmt: skip
    assert [(one.name, other.name) for one, other in sentences.prompted(clips)] == [("a", "b"), ("b", "d"), ("d", "b")]


def test_the_suite_has_its_tables_and_sounds(evaluate, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(suite.charts, "draw", lambda found, out: None)
    assert evaluate("--model-first", runs["ar"], "--model-nar", runs["nar"], "--limit", 2) == (0, [])
    out = tmp_path / "out/synthesis"
    found = json.loads((out / "tables.json").read_text())
    columns = found["figures"]["sentences"]
    assert list(columns) == ["recordings", "mine, reconstructed", "mine, spoken"]
    for name, column in columns.items():
        assert column["dnsmos/ovrl"]["mean"] == 3 and column["similarity"]["mean"] == 0.5
        assert column["wer"]["count"] == 2 and ("length" in column) == (name == "mine, spoken")
    assert 0.4 < columns["mine, spoken"]["length"]["mean"] < 3
    between = {row["column"] for row in found["scores"] if row["group"] == "pauses"}
    assert between == {"prompts without noise", "noisy prompts", "mine, reconstructed", "mine, background kept",
                       "mine, background dropped"}
    text = (out / "tables.md").read_text()
    assert "The model tiny_ar: step 2, trained on" in text and "The noisy prompts have an SNR of 0 dB." in text
    first, second, converted = sounds.read(tmp_path / "out")
    assert [first.task, second.task, converted.task] == ["speak", "speak", "convert"]
    assert first.transcript and [each.note for each in first.made] == ["background kept", "background removed"]
    assert len(first.made[0].wave) == len(first.made[1].wave) and np.any(first.made[0].wave != first.made[1].wave)
    assert len(converted.made[0].wave) == len(converted.known[0].wave) == 800


def test_one_voice_reads_all_and_a_background_may_be_missing(models, recorded, codec, tmp_path):
    wave = testing.speech_clips(1, 900, 5, RATE)[0]
    audio.write(tmp_path / "me.wav", wave, RATE)
    lines = (recorded / "manifest.csv").read_text().splitlines()
    (tmp_path / "manifest.csv").write_text("\n".join(line for line in lines if ",test," not in line))
    for folder in ("s0", "s1", "s2", "s3"):
        (tmp_path / folder).symlink_to(recorded / folder)
    found = sentences.load(*models, str(tmp_path), 1, str(tmp_path / "me.wav"))
    assert found.sources == [] and found.read[0].prompt.speaker == "me" and found.read[0].prompt.background is None
    voice = synthesis.Voice(*models, synthesis.Speaker(*models), found)
    suite.run("synthesis", [], found.items, tmp_path / "out", [Loaded("mine", tmp_path, codec)], Tools(), voice=voice)
    about = json.loads((tmp_path / "out/tables.json").read_text())
    assert list(about["figures"]) == ["sentences"] and "Not measured: the background" in about["notes"][-1]


@pytest.mark.parametrize(("changes", "reason"), [
    ({"--model-first": ""}, "measures two runs of configs/tts.py; give --model-first and --model-nar"),
    ({"--model-nar": ""}, "measures two runs of configs/tts.py; give --model-first and --model-nar"),
    ({"--model-first": "nowhere"}, "nowhere is not a run on tokens"),
    ({"--limit": "0"}, "the limit is 0; it must be above 0"),
    ({"--data": ""}, "synthetic clips have no transcripts; give --data the folder that you tokenized"),
    ({"--data": "nowhere"}, "nowhere has no manifest.csv"), ({"--voice": "nobody.wav"}, "nobody.wav"),
])  # fmt: skip
def test_each_mistake_is_one_line(evaluate, runs, recorded, tmp_path, changes, reason):
    given = {"--model-first": runs["ar"], "--model-nar": runs["nar"], "--data": recorded} | changes
    data = given.pop("--data")
    code, errors = evaluate(*(word for pair in given.items() for word in pair), data=data)
    assert (code, len(errors)) == (2, 1) and reason in errors[0] and not (tmp_path / "out").exists()


def test_models_of_another_codec_and_folders_without_transcripts_are_refused(runs, recorded, codec, models, tmp_path):
    ar, nar = map(str, (runs["ar"], runs["nar"]))
    other = SimpleNamespace(fingerprint="f" * 16)
    with pytest.raises(UserError, match="and this one is ffffffffffffffff; give it its own codec"):
        synthesis.load(ar, nar, [other], str(recorded), 1)
    with pytest.raises(UserError, match=r"a run of the task 'tts_nar'; name a run of configs/tts.py:..._ar"):
        synthesis.load(nar, nar, [codec], str(recorded), 1)
    with pytest.raises(UserError, match="give --model-first and --model-nar"):
        suite.run("synthesis", [], [], tmp_path, [Loaded("mine", tmp_path, codec)], TOOLS)
    lines = (recorded / "manifest.csv").read_text().splitlines()
    told = [line.replace("a bad cab", "") for line in lines if ",valid," not in line]
    (tmp_path / "manifest.csv").write_text("\n".join(told))
    (tmp_path / "other").symlink_to(recorded / "other")
    with pytest.raises(UserError, match="has no transcript that the models can say"):
        sentences.load(*models, str(tmp_path), 1)
    (tmp_path / "manifest.csv").write_text("\n".join(line for line in lines if ",valid," not in line))
    with pytest.raises(UserError, match="no second recording of a speaker, to be the prompt; give one: --voice FILE"):
        sentences.load(*models, str(tmp_path), 1)
