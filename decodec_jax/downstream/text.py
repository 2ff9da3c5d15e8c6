"""Text as numbers: characters, or phones by espeak-ng. Characters can be joined to pieces of words (pieces.py).

Characters are a to z, the apostrophe and the space. Capitals become lower-case, accents are dropped ("é" becomes "e"),
dashes become spaces, and punctuation is dropped. Digits are refused, because nobody knows how they were read out:
"1815" may be "eighteen fifteen" or "one eight one five". Other scripts are refused too.
"""

import importlib.util
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decodec_jax.errors import UserError
from decodec_jax.evaluation.extras import package

CHARACTERS = tuple(" 'abcdefghijklmnopqrstuvwxyz")
_SILENT = re.compile(r"[.,;:!?\"()\[\]“”„«»…*]")
_DASHES = re.compile(r"[-‐-―/&]")  # all kinds of hyphens and dashes, and other separators of words


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a text, numbered from 1; 0 is left to CTC's blank or to padding."""

    symbols: Sequence[str]
    joint: str = ""  # separator of symbols in written text: " " for phones, else ""

    def encode(self, symbols: Iterable[str]) -> list[int]:
        """Raises UserError for a symbol that is not there."""
        numbers = {symbol: number for number, symbol in enumerate(self.symbols, 1)}
        try:
            return [numbers[symbol] for symbol in symbols]
        except KeyError as error:
            raise UserError(f"the symbol {error.args[0]!r} is not in the vocabulary") from None

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of symbols, from 1 up."""
        return self.joint.join(self.symbols[number - 1] for number in numbers).strip()


def characters(text: str) -> list[str]:
    """The characters that a text is written in. Raises UserError for empty text, digits and other scripts."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    plain = "".join(each for each in plain if not unicodedata.combining(each))
    words = _DASHES.sub(" ", _SILENT.sub("", plain)).split()
    if not words:
        raise UserError(f"the text {text!r} has no words")
    spelled = " ".join(words)
    if digits := re.search(r"\d+", spelled):
        raise UserError(f"the text has the number {digits[0]}; write numbers out in words")
    if unknown := sorted(set(spelled) - set(CHARACTERS)):
        raise UserError(f"the text has the character {unknown[0]!r}; it may have letters from a to z and apostrophes")
    return list(spelled)


def phones(texts: Sequence[str], language: str = "en-us") -> list[list[str]]:
    """The phones of each text, without stress, as espeak-ng says them; it reads numbers out.

    Raises UserError for empty text, and where phonemizer or espeak-ng is missing.
    """
    for text in texts:
        if not text.strip():
            raise UserError(f"the text {text!r} has no words")
    phonemizer = package("phonemizer")
    separator = package("phonemizer.separator").Separator(phone=" ", word="|", syllable="")
    quiet = logging.getLogger("decodec_jax.phonemizer")
    quiet.setLevel(logging.ERROR)  # it warns of contractions, where words and written words differ in number
    _find_espeak()
    try:
        spoken = phonemizer.phonemize(list(texts), language, "espeak", separator, strip=True, logger=quiet)
    except RuntimeError as error:  # espeak-ng is not there, or does not know the language
        raise UserError(f"phones need espeak-ng ({str(error).splitlines()[0]}); pip install "
                        "espeakng-loader, or install the package espeak-ng of your system") from None
    return [each.replace("|", " ").split() for each in spoken]


def _find_espeak() -> None:
    """Use the espeak-ng that the package espeakng-loader brings, unless the environment names another."""
    if importlib.util.find_spec("espeakng_loader") and "PHONEMIZER_ESPEAK_LIBRARY" not in os.environ:
        loader, wrapper = package("espeakng_loader"), package("phonemizer.backend.espeak.wrapper").EspeakWrapper
        wrapper.set_library(loader.get_library_path())
        wrapper.set_data_path(loader.get_data_path())


def spelled(texts: Sequence[str], kind: str, language: str) -> list[list[str] | UserError]:
    """The phones of each text, for the kind "phones", or else its characters; or why there are none."""
    if kind == "phones":
        spoken = iter(phones([text for text in texts if text.strip()], language))
        every = [next(spoken) if text.strip() else [] for text in texts]
        return [own or UserError(f"the text {text!r} has no words") for text, own in zip(texts, every, strict=True)]
    found: list[list[str] | UserError] = []
    for text in texts:
        try:
            found.append(characters(text))
        except UserError as error:
            found.append(error)
    return found
