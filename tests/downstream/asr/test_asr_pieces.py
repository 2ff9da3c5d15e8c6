"""Pieces of words: what SentencePiece makes of transcripts, and that a run keeps its own."""

import json
import sys

import numpy as np
import pytest
import token_folders

from decodec_jax.downstream import loop, pieces
from decodec_jax.downstream.text import CHARACTERS, Vocabulary
from decodec_jax.errors import UserError

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "it's the cat that the dog saw", "that mat is the dog's"]


def test_pieces_put_together_are_the_text():
    model = pieces.trained(TEXTS, 34)
    symbols = pieces.symbols(model)
    assert len(symbols) == len(set(symbols)) == 34 and set(CHARACTERS) < set(symbols) and " dog" in symbols
    vocabulary = Vocabulary(symbols)
    for text in [*TEXTS, "a quiz that nobody knew"]:
        split = pieces.split(model, list(text))
        assert "".join(split) == f" {text}" and vocabulary.decode(vocabulary.encode(split)) == text
    assert len(pieces.split(model, TEXTS[0])) < len(TEXTS[0])


def test_the_same_texts_give_the_same_pieces():
    assert pieces.trained(TEXTS, 34) == pieces.trained(TEXTS, 34)


@pytest.mark.parametrize("texts", [TEXTS, []])
def test_too_few_transcripts_say_how_many_pieces_they_give(texts):
    with pytest.raises(UserError, match=f"model.pieces is 500, too many for {len(texts)} transcripts: ") as caught:
        pieces.trained(texts, 500)
    assert "\n" not in str(caught.value)
    if texts:
        most = int(str(caught.value).split("they have ")[1].split()[0])
        assert len(pieces.symbols(pieces.trained(texts, most))) == most


def test_without_sentencepiece_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"sentencepiece is not installed; pip install 'decodec_jax\[downstream\]'"):
        pieces.trained(TEXTS, 34)


def test_fewer_pieces_than_characters_are_refused(config):
    config.model.text, config.model.pieces = "pieces", 27
    with pytest.raises(UserError, match=r"model.pieces is 27; it must be 28, the number of characters"):
        config.check()


@pytest.fixture
def spelling(config):
    config.model.text, config.model.pieces = "pieces", 60
    return config


def test_batches_hold_pieces_of_the_transcripts(spelling):
    task = spelling.task()
    batch = next(task.batches())
    said = {each.transcript for each in task.train}
    for text, count in zip(batch["text"], batch["symbols"], strict=True):
        assert task.vocabulary.decode(text[:count]) in said and np.all(text[:count] > 0) and not np.any(text[count:])
    assert task.network().symbols == 60
    assert sum(map(len, task._texts.values())) < sum(len(each.transcript) for each in [*task.train, *task.valid])


def test_pieces_come_from_training_texts_alone(spelling, tmp_path, codec):
    rows = token_folders.utterances(80)
    for row in rows:
        if row["split"] == "valid":
            row["transcript"] = "zyzzyva zyzzyva"
    spelling.data.tokens = str(token_folders.write(tmp_path / "t", rows, codec.fingerprint))
    task = spelling.task()
    assert not any("zy" in symbol for symbol in task.vocabulary.symbols)
    assert len(task._texts[task.valid[0].id]) > 2


def test_a_run_goes_on_with_its_own_pieces(spelling, tmp_path, codec):
    task = spelling.task(tmp_path / "run")
    (tmp_path / "run").mkdir()
    loop.keep_card(tmp_path / "run", task.card())
    more = token_folders.utterances(120, seed=1)
    spelling.data.tokens = str(token_folders.write(tmp_path / "t", more, codec.fingerprint))
    again = spelling.task(tmp_path / "run")
    assert again.pieces == task.pieces and again.vocabulary == task.vocabulary
    assert "tokens have changed" in loop.keep_card(tmp_path / "run", again.card())[0]
    assert spelling.task(tmp_path / "new").pieces != task.pieces


def test_damaged_pieces_on_the_card_are_one_line(spelling, tmp_path):
    for damaged in ("no base64!", "AAAA"):
        (tmp_path / "card.json").write_text(json.dumps({"task": "asr", "pieces": damaged}))
        with pytest.raises(UserError, match="has damaged pieces"):
            spelling.task(tmp_path)
