"""Pieces of words as the symbols of a text: SentencePiece's unigram model (Kudo 2018), trained on transcripts of a run.

A piece that begins a word begins with a space, so pieces put together are the text again.
"""

import base64
import io
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from decodec_jax.downstream.loop import CARD, read_card
from decodec_jax.downstream.text import CHARACTERS
from decodec_jax.errors import UserError
from decodec_jax.evaluation.extras import package

_SPACE = "▁"  # stands for a space in SentencePiece


def trained(texts: Sequence[str], count: int) -> bytes:
    """A model of `count` pieces as SentencePiece stores it. The same texts give the same bytes.

    texts: words of CHARACTERS with a space between them. Every character is a piece too, so any text can be spelled.
    Raises UserError if sentencepiece is missing, and if so many pieces cannot be made of these texts.
    """
    written = io.BytesIO()
    trainer = package("sentencepiece").SentencePieceTrainer
    try:
        trainer.train(
            sentence_iterator=iter(texts), model_writer=written, model_type="unigram", vocab_size=count + 1,
            character_coverage=1.0, required_chars="".join(CHARACTERS).strip(), unk_id=0, bos_id=-1, eos_id=-1,
            normalization_rule_name="identity", minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        most = re.search(r"set it to a value <= (\d+)", str(error))
        limit = f"they have {int(most[1]) - 1} at most; set that, or tokenize more speech" if most else "too few texts"
        raise UserError(f"model.pieces is {count}, too many for {len(texts)} transcripts: {limit}") from None
    return written.getvalue()


def on_card(model: bytes) -> dict[str, str]:
    """A model as an entry of a run's card, so that the run goes on with the same pieces; nothing for b""."""
    return {"pieces": base64.b64encode(model).decode()} if model else {}


def of_run(run: Path | None) -> bytes:
    """The model on the card of a run folder; b"" if there is none. Raises UserError for a damaged one."""
    if run is None or not (run / CARD).exists():
        return b""
    try:
        model = base64.b64decode(read_card(run).get("pieces", ""), validate=True)
        if model:
            _processor(model)
    except (ValueError, RuntimeError):
        raise UserError(f"{run / CARD} has damaged pieces; give another --workdir") from None
    return model


def symbols(model: bytes) -> tuple[str, ...]:
    """The pieces of a model, with spaces."""
    processor = _processor(model)
    return tuple(processor.id_to_piece(n).replace(_SPACE, " ") for n in range(1, processor.get_piece_size()))


def split(model: bytes, text: Sequence[str]) -> list[str]:
    """The likeliest pieces of a text, which is a sequence of characters."""
    return [piece.replace(_SPACE, " ") for piece in _processor(model).encode("".join(text), out_type=str)]


@cache
def _processor(model: bytes):
    return package("sentencepiece").SentencePieceProcessor(model_proto=model)
