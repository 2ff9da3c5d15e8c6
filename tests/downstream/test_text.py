"""How transcripts become symbols."""

import pytest

from decodec_jax.downstream import text
from decodec_jax.downstream.text import CHARACTERS, Vocabulary, characters, spelled
from decodec_jax.errors import UserError


@pytest.mark.parametrize(("given", "expected"), [
    ("HE DIDN'T", "he didn't"), ("Well-known café, isn’t it?", "well known cafe isn't it"), ("a — b", "a b"),
    ("\"Naïve\"  (she said)", "naive she said"),
])  # fmt: skip
def test_characters(given, expected):
    assert "".join(characters(given)) == expected


@pytest.mark.parametrize(("given", "reason"), [
    ("", "no words"), (" ... ", "no words"), ("in 1815", "the number 1815; write numbers out"), ("дом", "'д'"),
    ("five % more", "'%'"),
])  # fmt: skip
def test_what_cannot_be_spelled_says_why(given, reason):
    with pytest.raises(UserError, match=reason):
        characters(given)
    (found,) = spelled([given], "characters", "en-us")
    assert isinstance(found, UserError)


def test_a_vocabulary_writes_what_it_reads():
    vocabulary = Vocabulary(CHARACTERS)
    numbers = vocabulary.encode(characters("The cat's"))
    assert min(numbers) == 1 and vocabulary.decode(numbers) == "the cat's"
    phones = Vocabulary(("h", "ə", "l", "oʊ"), " ")
    assert phones.decode(phones.encode(["h", "ə", "l", "oʊ"])) == "h ə l oʊ"
    with pytest.raises(UserError, match="'x'"):
        phones.encode(["x"])


def test_phones_without_phonemizer_say_what_to_install(monkeypatch):
    def package(name):
        raise UserError(f"{name} is not installed")

    monkeypatch.setattr(text, "package", package)
    with pytest.raises(UserError, match="phonemizer is not installed"):
        spelled(["a word"], "phones", "en-us")


def test_phones_by_espeak_ng(caplog):
    found = text.phones(["two cats", "I don't go to New-York, 2 chairs."])
    assert found[0] == ["t", "uː", "k", "æ", "t", "s"]
    assert found[1][:5] == ["aɪ", "d", "oʊ", "n", "t"] and "tʃ" in found[1]
    assert not caplog.text
    _, dots, nothing = text.spelled(["two cats", "...", " "], "phones", "en-us")
    assert "'...' has no words" in str(dots) and isinstance(nothing, UserError)
