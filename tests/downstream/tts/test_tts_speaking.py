"""Tiny models learn a language of ten letters; the command speaks it; every mistake is one line."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import token_folders

from decodec_jax import audio, cli, testing
from decodec_jax.corpora import shards
from decodec_jax.downstream import loop
from decodec_jax.downstream.tts import prompts
from decodec_jax.downstream.tts.completion import Completion
from decodec_jax.downstream.tts.config import STAGES
from decodec_jax.downstream.tts.converter import Converter
from decodec_jax.downstream.tts.sampling import Sampling
from decodec_jax.downstream.tts.speaker import Speaker
from decodec_jax.downstream.tts.trained import load
from decodec_jax.errors import UserError
from decodec_jax.evaluation.suites import conversion
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.inference.codec import DeCodec

RATE = token_folders.RATE
LIKELIEST = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def runs(config_of, tmp_path_factory):
    """The folders of whole runs of all models."""
    folders = {stage: tmp_path_factory.mktemp("runs") / stage for stage in STAGES}
    for stage, folder in folders.items():
        loop.train(config_of(stage), folder)
    return folders


@pytest.fixture(scope="module")
def speaker(runs, codec):
    return Speaker.load(runs["ar"], runs["nar"], codec)


@pytest.fixture
def voice(tmp_path):
    """voice.wav, 1.2 s of something like speech in something like noise."""
    wave = testing.speech_clips(1, 1200)[0] + testing.background_clips(1, 1200)[0]
    audio.write(tmp_path / "voice.wav", wave, RATE)
    return tmp_path / "voice.wav"


def last_row(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def codes_of(text):
    return token_folders.row("x", text)["speech"][0]


def test_the_models_learn(runs, codec):
    assert last_row(runs["ar"])["valid/right"] > 0.9 and last_row(runs["nar"])["valid/right"] > 0.5
    card = json.loads((runs["nar"] / "card.json").read_text())
    assert card["codec"] == codec.fingerprint and card["task"] == "tts_nar" and card["pace"] == 5.0


def test_the_first_level_spells_the_text(speaker, codec, voice):
    unknown = prompts.read(codec, str(voice))
    found = speaker.first_level("cab jig", unknown, LIKELIEST, 0)
    assert np.mean(found[: len(codes_of("cab jig"))] == codes_of("cab jig")[: len(found)]) > 0.9
    known = dataclasses.replace(unknown, text="bad", tokens=_with_first(unknown.tokens, codes_of("bad ")))
    found = speaker.first_level("cab jig", known, LIKELIEST, 0)
    assert np.mean(found[: len(codes_of("cab jig"))] == codes_of("cab jig")[: len(found)]) > 0.8


def test_the_parallel_model_spells_it_too_and_as_long_as_it_should_be(runs, codec, voice):
    speaker, prompt = Speaker.load(runs["parallel"], runs["nar"], codec), prompts.read(codec, str(voice))
    found = speaker.first_level("cab jig", prompt, LIKELIEST, 0)
    assert len(found) == pytest.approx(len(codes_of("cab jig")), abs=3)
    runs_of_codes = found[np.flatnonzero(np.diff(found, prepend=-1))]
    assert "".join(token_folders.LETTERS[code] for code in runs_of_codes if code != token_folders.PAUSE) == "cab jig"
    tokens = speaker.speak("cab jig", prompt, "keep")
    assert tokens.levels == (2, 2) and tokens.frames == len(found)
    with pytest.raises(UserError, match="at once"):
        speaker.speak("abcdefghij " * 40, prompt)


def _with_first(tokens, first):
    tokens = tokens.cut(0, len(first))
    return dataclasses.replace(tokens, speech=np.concatenate([first[None], tokens.speech[1:]]))


def test_the_prompt_says_whose_voice_it_is(runs, codec, spoken):
    complete, right = Completion(load(runs["nar"], ("nar",), codec)), []
    rows = [row for row, _ in shards.read(spoken) if row["split"] == "valid"]
    for row in rows[:8]:
        speech, half = row["speech"].astype(np.int32), row["speech"].shape[1] // 2
        made = complete(speech[0, half:], speech[:, :half], [])
        np.testing.assert_array_equal(made[0], speech[0, half:])
        right.append(np.mean(made[1] == speech[1, half:]))
    assert np.mean(right) > 0.5  # 1/4 without the prompt


def test_backgrounds_are_kept_or_dropped_and_a_seed_is_a_reading(speaker, codec, voice):
    prompt = prompts.read(codec, str(voice))
    lively = Sampling(temperature=3.0, nucleus=1.0)  # these models are very sure
    kept, again, other = (speaker.speak("a big cab", prompt, "keep", lively, seed) for seed in (0, 0, 1))
    assert kept == again and kept != other
    f, p = kept.frames, prompt.tokens.frames
    np.testing.assert_array_equal(kept.background, np.tile(prompt.tokens.background, f // p + 1)[:, :f])
    dropped = speaker.speak("a big cab", prompt, "drop", lively)
    np.testing.assert_array_equal(dropped.background, codec.blank(f * codec.config.hop).background)
    np.testing.assert_array_equal(dropped.speech, kept.speech)
    assert kept.gain == prompt.tokens.gain and codec.decode(kept).shape == (f * codec.config.hop,)


def test_the_loudest_part_of_a_prompt_is_the_voice():
    wave = np.zeros(1000)
    wave[420:600] = 1
    assert prompts.loudest(wave, 50, 9) == (21, 30) and prompts.loudest(wave, 50, 80) == (0, 50)


@pytest.fixture
def decodec(codec, codec_folder, monkeypatch, capsys):
    """Runs a command with the codec of these tests; returns its exit code and its lines of errors."""
    monkeypatch.setattr(DeCodec, "load", lambda path="built-in": codec)

    def run(*arguments):
        return cli.main([*map(str, arguments)]), capsys.readouterr().err.splitlines()

    return run


def test_the_command_speaks(decodec, runs, voice, tmp_path):
    models = "--model-first", runs["ar"], "--model-nar", runs["nar"]
    out = tmp_path / "out.wav"
    assert decodec("speak", "A cab!", out, "--voice", voice, *models, "--background", "keep") == (0, [])
    first, rate = audio.read(out)
    assert rate == RATE and 0.3 < first.shape[1] / RATE < 1.4
    voice.with_suffix(".txt").write_text("bad\n")
    assert decodec("speak", "A cab!", out, "--voice", voice, *models) == (0, [])
    continued, _ = audio.read(out)
    assert decodec("speak", "A cab!", out, "--voice", voice, *models, "--prompt-text", "bad") == (0, [])
    np.testing.assert_array_equal(audio.read(out)[0], continued)


def test_the_command_converts(decodec, runs, codec, voice, tmp_path):
    source = np.stack([testing.speech_clips(1, 900, seed)[0] for seed in (1, 2)])
    audio.write(tmp_path / "in.wav", source, RATE)
    model = "--model-nar", runs["nar"]
    assert decodec("convert", tmp_path / "in.wav", tmp_path / "out.wav", "--reference", voice, *model) == (0, [])
    made, reference = audio.read(tmp_path / "out.wav")[0], audio.read(voice)[0]
    expected = Converter.load(runs["nar"], codec).convert(audio.read(tmp_path / "in.wav")[0], reference, RATE)
    np.testing.assert_allclose(made, expected, atol=1e-4)
    assert np.any(np.abs(made - codec.convert(source, reference, RATE)) > 1e-3)


def test_the_conversion_suite_has_a_row_for_the_model(runs, codec, monkeypatch):
    monkeypatch.setattr(conversion, "scores", lambda source, reference, wave, rate: {"samples": float(len(wave))})
    items = [Item(name, RATE, testing.speech_clips(1, 800, seed)[0]) for seed, name in enumerate("ab")]
    converter = conversion.load(str(runs["nar"]), [codec])
    rows = {row.column: row.scores for row in conversion.measure("m", codec, *items, Tools(), converter)}
    assert list(rows) == ["m, unconverted", "m, content", "m, tile", "m, NAR"] and rows["m, NAR"] == {"samples": 800.0}


@pytest.mark.parametrize(("text", "reason"), [
    ("", "the text '' has no words"), ("?!", "has no words"), ("дом", "the character 'д'"),
    ("in 1815", "the number 1815; write numbers out in words"), ("abc " * 400, "takes about 160 s to say"),
])  # fmt: skip
def test_text_that_cannot_be_said_is_refused(decodec, runs, voice, tmp_path, text, reason):
    code, errors = decodec("speak", text, tmp_path / "out.wav", "--voice", voice, "--model-first", runs["ar"],
                           "--model-nar", runs["nar"])  # fmt: skip
    assert code == 2 and len(errors) == 1 and reason in errors[0]
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(("wave", "text", "reason"), [
    (np.zeros(1200), "", "is silent; record 3 s"), (np.ones(400) / 4, "", "lasts 0.40 s; a prompt needs 0.5 s"),
    (np.ones(16_000) / 4, "a", "lasts 16.0 s; cut the prompt to 15 s or less"),
])  # fmt: skip
def test_a_prompt_of_no_use_is_refused(codec, wave, text, reason):
    with pytest.raises(UserError, match=reason):
        prompts.heard(codec, wave, RATE, text)


def test_models_that_do_not_fit_are_refused(runs, codec, speaker, voice, tmp_path):
    other = SimpleNamespace(fingerprint="f" * 16)
    with pytest.raises(UserError, match="and this one is ffffffffffffffff; give it its own codec"):
        load(runs["ar"], ("ar",), other)
    with pytest.raises(UserError, match=r"a run of the task 'tts_ar'; name a run of configs/tts.py:..._nar"):
        load(runs["ar"], ("nar",), codec)
    with pytest.raises(UserError, match=r"is not a run on tokens: card.json cannot be read"):
        load(tmp_path, ("ar",), codec)
    ar, nar = load(runs["ar"], ("ar",), codec), load(runs["nar"], ("nar",), codec)
    with pytest.raises(UserError, match="train both on the same tokens"):
        Speaker(ar, dataclasses.replace(nar, card=nar.card | {"codec": "f" * 16}))
    prompt = prompts.read(codec, str(voice))
    strange = dataclasses.replace(prompt, tokens=dataclasses.replace(prompt.tokens, fingerprint="f" * 16))
    with pytest.raises(UserError, match="the prompt has tokens of the codec ffffffffffffffff"):
        speaker.speak("a", strange)
    with pytest.raises(UserError, match="the prompt has 1 levels of speech; this model completes 2"):
        speaker.speak("a", dataclasses.replace(prompt, voice=prompt.voice[:1]))


def test_shards_of_two_codecs_and_damaged_ones_are_refused(config_of, codec, tmp_path):
    config = config_of("ar")
    for name, fingerprint in (("a", codec.fingerprint), ("b", "f" * 16)):
        token_folders.write(tmp_path / name, token_folders.utterances(20), fingerprint)
    config.data.tokens = f"{tmp_path / 'a'},{tmp_path / 'b'}"
    with pytest.raises(UserError, match="hold tokens of different codecs"):
        config.task()
    shard = tmp_path / "a/tokens-000000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    config.data.tokens = str(tmp_path / "a")
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        config.task()
