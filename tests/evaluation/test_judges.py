import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from decodec_jax.data.synthetic import speech
from decodec_jax.errors import UserError
from decodec_jax.evaluation import judges

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


def test_the_recogniser_counts_words_whatever_their_letters_and_signs(spoken, monkeypatch):
    heard = SimpleNamespace(hyp=lambda: SimpleNamespace(hypstr="it's the best test"))
    monkeypatch.setattr(judges, "_decoder", lambda: heard)
    monkeypatch.setattr(judges, "_hear", lambda decoder, wave: None)
    assert judges.recognised(spoken, RATE, "It's a  test!") == {"wer": 2 / 3}
    heard.hyp = lambda: None  # nothing heard
    assert judges.recognised(spoken, RATE, "It's a test") == {"wer": 1.0}


def test_the_recogniser_hears_nothing_of_a_sentence_in_silence():
    said = "he was in such a hurry that he forgot to take the letter"
    assert judges.recognised(np.zeros(RATE // 2, np.float32), RATE, said)["wer"] > 0.8


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


@pytest.mark.parametrize("judge", [judges.dnsmos, judges.recognised])
def test_judges_hear_one_channel_of_some_samples(judge):
    for wave in (np.zeros((2, 100), np.float32), np.zeros(0, np.float32), np.full(10, np.nan, np.float32)):
        with pytest.raises(UserError):
            judge(wave, RATE, "it is")


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", None)
    with pytest.raises(UserError, match=r"speechmos.* is not installed; pip install 'decodec_jax\[eval\]'"):
        judges.dnsmos(np.zeros(100, np.float32), RATE)
