"""Models of other people's that judge sound as no formula could: how it is heard, which words it says, who says them.

DNSMOS and pocketsphinx bring their weights with their packages; Whisper and speaker embedders are read from a folder on
this machine. Nothing is downloaded. All know speech at 16 kHz; other rates are resampled.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.evaluation.extras import package, preprocessor, pretrained
from decodec_jax.evaluation.metrics import word_errors
from decodec_jax.inference.recordings import checked

RATE = 16_000  # Hz
DNSMOS_SAMPLES = 144_160  # 9.01 s, what DNSMOS hears at a time
FRAMES = 100  # a second, the recogniser's
FILLERS = "<[+"  # what its names of silence and noise begin with
WHISPER_SAMPLES = 30 * RATE  # what Whisper hears at a time
SPEAKER_SAMPLES = RATE  # less is repeated: an embedder needs some frames

Similarity = Callable[[np.ndarray, np.ndarray, int], float]  # of two waveforms `[t]` at a rate in Hz, from -1 to 1


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


def whisper(path: str | Path) -> Judge:
    """Word error rate of the Whisper in a folder that transformers reads, such as openai/whisper-small.

    Both texts are normalised as its authors do, but for British spellings. Recordings over 30 s are heard in pieces of
    30 s. Raises UserError where a package, the folder or any of its weights is missing.
    """
    model, processor = pretrained("WhisperForConditionalGeneration", path), preprocessor("WhisperProcessor", path)
    normalised = package("transformers.models.whisper.english_normalizer").EnglishTextNormalizer({})
    english = {"language": "en", "task": "transcribe"}  # models of English alone refuse to be told
    options = english if getattr(model.generation_config, "is_multilingual", False) else {}

    def judge(wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]:
        said, wave = _words(transcript, lambda text: normalised(text).split()), _heard(wave, rate)
        pieces = [wave[begin : begin + WHISPER_SAMPLES] for begin in range(0, len(wave), WHISPER_SAMPLES)]
        features = processor(pieces, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        tokens = model.generate(features.input_features, attention_mask=features.attention_mask, **options)
        heard = " ".join(processor.batch_decode(tokens, skip_special_tokens=True))
        return {"wer": word_errors(said, normalised(heard).split()) / len(said)}

    return judge


def speaker_similarity(path: str | Path) -> Similarity:
    """How alike two voices are, cosine of their embeddings, by the model in a folder that transformers reads.

    It is one for speaker verification, such as microsoft/wavlm-base-plus-sv (WavLMForXVector), which takes two
    recordings for one speaker's from 0.86 on. Raises UserError where a package, the folder or any weight is missing.
    """
    torch = package("torch")
    model, extractor = pretrained("AutoModelForAudioXVector", path), preprocessor("AutoFeatureExtractor", path)

    def embedding(wave: np.ndarray, rate: int) -> np.ndarray:
        wave = _heard(wave, rate)
        wave = np.resize(wave, max(len(wave), SPEAKER_SAMPLES))
        with torch.inference_mode():
            return model(**extractor(wave, sampling_rate=RATE, return_tensors="pt")).embeddings[0].numpy()

    def similarity(estimate: np.ndarray, reference: np.ndarray, rate: int) -> float:
        one, other = embedding(estimate, rate), embedding(reference, rate)
        return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))

    return similarity


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


def _words(transcript: str | None, split: Callable[[str], list[str]] | None = None) -> list[str]:
    words = (split or _words_of)(transcript or "")
    if not words:
        raise UserError(f"the transcript is {transcript!r}; words are judged by what was said")
    return words


def _words_of(text: str) -> list[str]:
    return re.findall("[a-z']+", text.lower())
