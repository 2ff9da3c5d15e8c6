"""Models of other people's that judge sound where no reference could: how it is heard, and which words it says.

Both bring their weights with their package, so nothing is downloaded. They know speech at 16 kHz; other rates are
resampled.
"""

import importlib
import re
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.evaluation.metrics import word_errors
from decodec_jax.inference.recordings import checked

RATE = 16_000  # Hz
DNSMOS_SAMPLES = 144_160  # 9.01 s, what DNSMOS hears at a time
FRAMES = 100  # a second, the recogniser's
FILLERS = "<[+"  # what its names of silence and noise begin with


class Judge(Protocol):
    """Scores of a waveform `[t]` by name; the transcript is for those who judge words.

    Raises UserError for what is no waveform, for a transcript that is missing, and for a package that is.
    """

    def __call__(self, wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]: ...


class Phone(NamedTuple):
    """When a phone was said, s."""

    name: str  # of the 39 of ARPABET, without stress, or SIL
    start: float
    end: float


def dnsmos(wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]:
    """DNSMOS P.835, opinions from 1 to 5 of the speech (sig), the background (bak) and both (ovrl), by `speechmos`.

    A recording under 9.01 s is repeated up to there and heard once; the package would hear shifts of it, which takes
    several times as long.
    """
    opinions_of = package("speechmos.dnsmos").run
    wave = np.clip(_heard(wave, rate), -1, 1)  # louder samples are refused
    wave = np.resize(wave, max(len(wave), DNSMOS_SAMPLES))
    opinions = opinions_of(wave, RATE)
    return {f"dnsmos/{name}": float(opinions[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")}


def recognised(wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]:
    """Word error rate of `pocketsphinx` with its built-in English model, from 0 up: a weak recogniser, also of clean
    speech, so compare it with the rate of the original."""
    said = _words(transcript)
    decoder = _decoder()
    _hear(decoder, _heard(wave, rate))
    hypothesis = decoder.hyp()
    heard = _words_of(hypothesis.hypstr) if hypothesis else []
    return {"wer": word_errors(said, heard) / len(said)}


def phones(wave: np.ndarray, rate: int, transcript: str) -> list[Phone]:
    """When each phone of the transcript is said in `[t]`, by `pocketsphinx`: from the start, without gaps.

    Raises UserError for a word that its dictionary lacks, and where the transcript does not fit.
    """
    words, decoder = _words(transcript), _aligner()
    for word in words:
        if decoder.lookup_word(word) is None:
            raise UserError(f"the recogniser's dictionary lacks the word {word!r}")
    wave = _heard(wave, rate)
    try:
        decoder.set_align_text(" ".join(words))
        _hear(decoder, wave)
        decoder.set_alignment()  # of the words that were found: in the second pass to their phones
        _hear(decoder, wave)
        aligned = [(word.name, list(word)) for word in decoder.get_alignment() or ()]
    except RuntimeError as error:
        raise UserError(f"the transcript {transcript!r} cannot be aligned: {error}") from None
    found = [name.partition("(")[0] for name, _ in aligned if name[0] not in FILLERS]  # "the(2)" is a variant
    if found != words:  # where it loses its way, all the rest is silence
        raise UserError(f"the transcript {transcript!r} cannot be aligned: {len(found)} of {len(words)} words fit")
    return [
        Phone(each.name if each.name.isalpha() else "SIL", each.start / FRAMES, (each.start + each.duration) / FRAMES)
        for _, within in aligned
        for each in within
    ]


def package(name: str):
    """A module of the extra `eval`. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{error.name or name} is not installed; pip install 'decodec_jax[eval]'") from None


@cache
def _decoder():
    """Half as dear as its defaults, which made as many errors on each of five clips."""
    return package("pocketsphinx").Decoder(loglevel="FATAL", maxhmmpf=3000, maxwpf=5)


@cache
def _aligner():
    return package("pocketsphinx").Decoder(loglevel="FATAL", lm=None)


def _hear(decoder, wave: np.ndarray) -> None:
    """What a decoder hears does not depend on what it heard before."""
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(np.int16(np.clip(np.round(wave * 32768), -32768, 32767)).tobytes(), full_utt=True)
    decoder.end_utt()


def _heard(wave: np.ndarray, rate: int) -> np.ndarray:
    wave = checked(wave)
    if wave.ndim != 1:
        raise UserError(f"judges hear one channel, [t]; this recording has shape {wave.shape}")
    return audio.resample(wave, rate, RATE)


def _words(transcript: str | None) -> list[str]:
    words = _words_of(transcript or "")
    if not words:
        raise UserError(f"the transcript is {transcript!r}; words are judged by what was said")
    return words


def _words_of(text: str) -> list[str]:
    return re.findall("[a-z']+", text.lower())
