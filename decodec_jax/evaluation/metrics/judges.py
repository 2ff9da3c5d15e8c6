"""Models of other people's that judge sound as no formula could: how it is heard, which words it says, who says them.

DNSMOS, Whisper tiny.en, Resemblyzer and pocketsphinx bring their weights with packages; other Whispers and speaker
embedders are read from a folder on this machine. Nothing is downloaded. All know speech at 16 kHz; other rates are
resampled.
"""

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from decodec_jax import arrays, audio
from decodec_jax.errors import UserError
from decodec_jax.evaluation.extras import INSTALL, loading, package, preprocessor, pretrained
from decodec_jax.evaluation.metrics import word_errors
from decodec_jax.interop import whisper as interop

RATE = 16_000  # Hz
DNSMOS_SAMPLES = 144_160  # 9.01 s, what DNSMOS hears at a time
FRAMES = 100  # a second, the aligner's
FILLERS = "<[+"  # what its names of silence and noise begin with
WHISPER_SAMPLES = 30 * RATE  # what Whisper hears at a time
SPEAKER_SAMPLES = RATE  # less is repeated: an embedder needs some frames
VOICE_BANDS = 40  # of the mel spectrum, Resemblyzer's
VOICE_LEVEL = 10 ** (-30 / 20)  # RMS that quieter recordings are raised to for Resemblyzer
SHORT = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint", "ok": "okay"}  # as recognisers write

Similarity = Callable[[np.ndarray, np.ndarray, int], float]  # of two waveforms `[t]` at a rate in Hz, from -1 to 1
Recogniser = Callable[[np.ndarray], str]  # of a waveform `[t]` at RATE
Embedding = Callable[[np.ndarray], np.ndarray]  # likewise, `[d]`


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


def whisper(path: str | Path = "") -> Judge:
    """Word error rate, from 0 up, of the Whisper in a folder for CTranslate2 or transformers: "" for the package's.

    It hears English, also where it knows other languages, recordings over 30 s in pieces, and in digital silence
    nothing. What it has heard before is not recognised again. Raises UserError where a package, the folder or any of
    its weights is missing.
    """
    folder = interop.located(path)
    recogniser = _of_ctranslate2(folder) if (folder / interop.BINARY).exists() else _of_transformers(folder)
    texts: dict[bytes, str] = {}

    def judge(wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]:
        said, wave = _words(transcript), np.float32(_heard(wave, rate))
        key = hashlib.blake2b(wave.tobytes()).digest()
        if key not in texts:
            texts[key] = recogniser(wave) if wave.any() else ""
        return {"wer": word_errors(said, _words_of(texts[key])) / len(said)}

    return judge


def _of_ctranslate2(folder: Path) -> Recogniser:
    """By `faster-whisper`: the likeliest of five texts, the same at every call. Digits and signs are kept from it, so
    that it spells numbers as transcripts do. Without timestamps it makes fewer errors, but needs them to go on from
    where 30 s end."""
    faster_whisper = package("faster_whisper")
    if not (folder / "tokenizer.json").exists():  # faster-whisper would download one
        raise UserError(f"{folder} lacks tokenizer.json; put that of the same Whisper there")
    with loading(folder):
        model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32",
                                            cpu_threads=os.cpu_count() or 1)  # fmt: skip
    spelled = re.compile(r"[0-9%$£€&]")
    vocabulary = model.hf_tokenizer.get_vocab()
    never = [-1, *(n for token, n in vocabulary.items() if not token.startswith("<|") and spelled.search(token))]

    def recognised(wave: np.ndarray) -> str:
        segments, _ = model.transcribe(
            wave, language="en", temperature=0.0, condition_on_previous_text=False, suppress_tokens=never,
            without_timestamps=len(wave) <= WHISPER_SAMPLES,
        )  # fmt: skip
        return " ".join(segment.text for segment in segments)

    return recognised


def _of_transformers(folder: Path) -> Recogniser:
    model, processor = pretrained("WhisperForConditionalGeneration", folder), preprocessor("WhisperProcessor", folder)
    english = {"language": "en", "task": "transcribe"}  # models of English alone refuse to be told
    options = english if getattr(model.generation_config, "is_multilingual", False) else {}

    def recognised(wave: np.ndarray) -> str:
        pieces = [wave[begin : begin + WHISPER_SAMPLES] for begin in range(0, len(wave), WHISPER_SAMPLES)]
        features = processor(pieces, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        tokens = model.generate(features.input_features, attention_mask=features.attention_mask, **options)
        return " ".join(processor.batch_decode(tokens, skip_special_tokens=True))

    return recognised


def speaker(path: str | Path = "") -> Similarity:
    """How alike two voices are, cosine of their embeddings: by Resemblyzer, or by the model in a folder.

    Resemblyzer (Wan et al. 2018) gives two recordings of one speaker about 0.85 and of two speakers about 0.6. A folder
    is one that transformers reads, of a model for speaker verification such as microsoft/wavlm-base-plus-sv
    (WavLMForXVector). Raises UserError where a package, the folder or any of its weights is missing, and for silence,
    which has no voice.
    """
    embedding = _of_wavlm(path) if path else _of_resemblyzer()

    def voice(wave: np.ndarray, rate: int) -> np.ndarray:
        wave = _heard(wave, rate)
        if not wave.any():
            raise UserError("a recording is silent; it has no voice to compare")
        return embedding(np.resize(wave, max(len(wave), SPEAKER_SAMPLES)))

    def similarity(estimate: np.ndarray, reference: np.ndarray, rate: int) -> float:
        one, other = voice(estimate, rate), voice(reference, rate)
        return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))

    return similarity


def _of_wavlm(path: str | Path) -> Embedding:
    torch = package("torch")
    model, extractor = pretrained("AutoModelForAudioXVector", path), preprocessor("AutoFeatureExtractor", path)

    def embedding(wave: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(**extractor(wave, sampling_rate=RATE, return_tensors="pt")).embeddings[0].numpy()

    return embedding


def _of_resemblyzer() -> Embedding:
    """Resemblyzer's weights in its network, a window of 1.6 s every 0.8 s.

    The package is not imported: that would need webrtcvad, a compiler's work, which cuts pauses out. They stay in here.
    """
    found = importlib.util.find_spec("resemblyzer")
    if found is None:
        raise UserError(f"Resemblyzer is not installed; {INSTALL['resemblyzer']}")
    torch, file = package("torch"), Path(found.submodule_search_locations[0]) / "pretrained.pt"
    with loading(file):
        weights = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
        lstm, linear = torch.nn.LSTM(VOICE_BANDS, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
        for name, module in (("lstm", lstm), ("linear", linear)):
            module.load_state_dict({key.removeprefix(f"{name}."): value for key, value in weights.items()
                                    if key.startswith(f"{name}.")})  # fmt: skip

    def embedding(wave: np.ndarray) -> np.ndarray:
        import librosa

        wave = wave * max(1, VOICE_LEVEL / np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
        wave = np.pad(wave, (0, max(0, RATE * 16 // 10 - len(wave))))
        mel = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=400, hop_length=160, n_mels=VOICE_BANDS).T
        windows = np.stack([mel[begin : begin + 160] for begin in range(0, len(mel) - 159, 80)])
        with torch.inference_mode():
            _, (hidden, _) = lstm(torch.from_numpy(np.float32(windows)))
            voices = torch.relu(linear(hidden[-1]))
            return torch.nn.functional.normalize(voices, dim=1).mean(0).numpy()

    return embedding


def phones(wave: np.ndarray, rate: int, transcript: str) -> list[Phone]:
    """When each phone of the transcript is said in `[t]`, by `pocketsphinx`: from the start, without gaps.

    Raises UserError for a word that its dictionary lacks, and where the transcript does not fit.
    """
    words, decoder = _words(transcript), _aligner()
    for word in words:
        if decoder.lookup_word(word) is None:
            raise UserError(f"the aligner's dictionary lacks the word {word!r}")
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
def _aligner():
    return package("pocketsphinx").Decoder(loglevel="FATAL", lm=None)


def _hear(decoder, wave: np.ndarray) -> None:
    """What a decoder hears does not depend on what it heard before."""
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(np.int16(np.clip(np.round(wave * 32768), -32768, 32767)).tobytes(), full_utt=True)
    decoder.end_utt()


def _heard(wave: np.ndarray, rate: int) -> np.ndarray:
    wave = arrays.waveform(wave)
    if wave.ndim != 1:
        raise UserError(f"judges hear one channel, [t]; this recording has shape {wave.shape}")
    return audio.resample(wave, rate, RATE)


def _words(transcript: str | None) -> list[str]:
    words = _words_of(transcript or "")
    if not words:
        raise UserError(f"the transcript is {transcript!r}; words are judged by what was said")
    return words


def _words_of(text: str) -> list[str]:
    words = re.findall("[a-z']+", text.lower().replace("’", "'"))
    return [SHORT.get(word, word) for word in words]
