"""Pretrained models that judge what no formula can: how good a recording sounds, which words it says, and who speaks.

The weights of DNSMOS, Whisper tiny.en, Resemblyzer and pocketsphinx come with their packages; other Whispers and
speaker embedders are read from a folder on this machine. Nothing is downloaded. All of them take speech at 16 kHz;
other rates are resampled.
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
from decodec_jax.interop import whisper as interop

RATE = 16_000  # Hz
DNSMOS_SAMPLES = 144_160  # 9.01 s, the input length of DNSMOS
FRAMES = 100  # a second, of the aligner
FILLERS = "<[+"  # first characters of its names for silence and noise
WHISPER_SAMPLES = 30 * RATE  # the input length of Whisper
SPEAKER_SAMPLES = RATE  # shorter recordings are repeated: an embedder needs several frames
VOICE_BANDS = 40  # of Resemblyzer's mel spectrum
VOICE_LEVEL = 10 ** (-30 / 20)  # RMS to which quieter recordings are raised for Resemblyzer
ABBREVIATIONS = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint", "ok": "okay"}  # recognisers abbreviate

Similarity = Callable[[np.ndarray, np.ndarray, int], float]  # two waveforms `[t]`, rate in Hz -> -1 to 1
Recogniser = Callable[[np.ndarray], str]  # waveform `[t]` at RATE -> text
Embedding = Callable[[np.ndarray], np.ndarray]  # waveform `[t]` at RATE -> `[d]`


class Judge(Protocol):
    """Scores a waveform `[t]`: a dictionary by name. Judges of words need the transcript.

    Raises UserError if `wave` is not a waveform, or if the transcript or a package is missing.
    """

    def __call__(self, wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]: ...


class Phone(NamedTuple):
    """A phone with its start and end in seconds."""

    name: str  # one of the 39 of ARPABET, without stress, or SIL
    start: float
    end: float


def dnsmos(wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]:
    """DNSMOS P.835 from `speechmos`: scores from 1 to 5 of the speech (sig), the background (bak) and overall (ovrl).

    A recording shorter than 9.01 s is repeated to that length and scored once. The package itself would score shifted
    versions of it, which takes several times as long.
    """
    opinions_of = package("speechmos.dnsmos").run
    wave = np.clip(_resampled(wave, rate), -1, 1)  # the package refuses louder samples
    wave = np.resize(wave, max(len(wave), DNSMOS_SAMPLES))
    opinions = opinions_of(wave, RATE)
    return {f"dnsmos/{name}": float(opinions[f"{name}_mos"]) for name in ("sig", "bak", "ovrl")}


def whisper(path: str | Path = "") -> Judge:
    """Load a Whisper as a judge of words. Its score "wer" is the word error rate, from 0 up.

    path: as for `recogniser`, which says what it raises. Texts are cached, so no recording is recognised twice.
    """
    recognise, jiwer = recogniser(path), package("jiwer")
    texts: dict[bytes, str] = {}

    def judge(wave: np.ndarray, rate: int, transcript: str | None = None) -> dict[str, float]:
        reference, wave = _words_of_transcript(transcript), np.float32(_resampled(wave, rate))
        key = hashlib.blake2b(wave.tobytes()).digest()
        if key not in texts:
            texts[key] = recognise(wave)
        return {"wer": jiwer.wer(" ".join(reference), " ".join(_normalised_words(texts[key])))}

    return judge


def recogniser(path: str | Path = "") -> Recogniser:
    """Load a Whisper to recognise English speech.

    path: a folder for CTranslate2 or transformers; "": the Whisper that comes with a package. Multilingual models are
    also set to English. Recordings over 30 s are recognised in pieces, and digital silence has no words. Raises
    UserError if a package, the folder or any of its weights is missing.
    """
    folder = interop.located(path)
    recognise = _by_ctranslate2(folder) if (folder / interop.BINARY).exists() else _by_transformers(folder)
    return lambda wave: recognise(wave) if wave.any() else ""


def _by_ctranslate2(folder: Path) -> Recogniser:
    """Recognise with `faster-whisper`: the most likely of five hypotheses, the same at every call.

    Tokens with digits and symbols are suppressed, so that numbers are spelled out as in transcripts. Without timestamps
    it makes fewer errors, but recordings over 30 s need them to continue after each piece.
    """
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


def _by_transformers(folder: Path) -> Recogniser:
    model, processor = pretrained("WhisperForConditionalGeneration", folder), preprocessor("WhisperProcessor", folder)
    english = {"language": "en", "task": "transcribe"}  # English-only models refuse these
    options = english if getattr(model.generation_config, "is_multilingual", False) else {}

    def recognised(wave: np.ndarray) -> str:
        pieces = [wave[begin : begin + WHISPER_SAMPLES] for begin in range(0, len(wave), WHISPER_SAMPLES)]
        features = processor(pieces, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        tokens = model.generate(features.input_features, attention_mask=features.attention_mask, **options)
        return " ".join(processor.batch_decode(tokens, skip_special_tokens=True))

    return recognised


def speaker(path: str | Path = "") -> Similarity:
    """Load a measure of how similar two voices are: the cosine of their speaker embeddings.

    path: a folder that transformers reads, with a model for speaker verification such as microsoft/wavlm-base-plus-sv
    (WavLMForXVector); "": Resemblyzer (Wan et al. 2018), which gives about 0.85 for two recordings of one speaker and
    about 0.6 for two speakers. Raises UserError if a package, the folder or any of its weights is missing; the measure
    raises it for silence, which has no voice.
    """
    embedding = _wavlm(path) if path else _resemblyzer()

    def voice(wave: np.ndarray, rate: int) -> np.ndarray:
        wave = _resampled(wave, rate)
        if not wave.any():
            raise UserError("a recording is silent; it has no voice to compare")
        return embedding(np.resize(wave, max(len(wave), SPEAKER_SAMPLES)))

    def similarity(estimate: np.ndarray, reference: np.ndarray, rate: int) -> float:
        one, other = voice(estimate, rate), voice(reference, rate)
        return float(np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other)))

    return similarity


def _wavlm(path: str | Path) -> Embedding:
    torch = package("torch")
    model, extractor = pretrained("AutoModelForAudioXVector", path), preprocessor("AutoFeatureExtractor", path)

    def embedding(wave: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(**extractor(wave, sampling_rate=RATE, return_tensors="pt")).embeddings[0].numpy()

    return embedding


def _resemblyzer() -> Embedding:
    """Resemblyzer's network and weights, on a window of 1.6 s every 0.8 s.

    The package is not imported, because that would need webrtcvad, which has to be compiled. The package uses it to cut
    out pauses; here they stay in.
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
    """Align the transcript with a waveform `[t]` by `pocketsphinx`: its phones, from the start and without gaps.

    Raises UserError if the aligner's dictionary lacks a word, or if the transcript does not fit the recording.
    """
    words, decoder = _words_of_transcript(transcript), _aligner()
    for word in words:
        if decoder.lookup_word(word) is None:
            raise UserError(f"the aligner's dictionary lacks the word {word!r}")
    wave = _resampled(wave, rate)
    try:
        decoder.set_align_text(" ".join(words))
        _run_decoder(decoder, wave)
        decoder.set_alignment()  # the second pass aligns the phones of the words found
        _run_decoder(decoder, wave)
        aligned = [(word.name, list(word)) for word in decoder.get_alignment() or ()]
    except RuntimeError as error:
        raise UserError(f"the transcript {transcript!r} cannot be aligned: {error}") from None
    found = [name.partition("(")[0] for name, _ in aligned if name[0] not in FILLERS]  # "the(2)" is a variant
    if found != words:  # after a failure, all the rest is silence
        raise UserError(f"the transcript {transcript!r} cannot be aligned: {len(found)} of {len(words)} words fit")
    return [
        Phone(each.name if each.name.isalpha() else "SIL", each.start / FRAMES, (each.start + each.duration) / FRAMES)
        for _, within in aligned
        for each in within
    ]


@cache
def _aligner():
    return package("pocketsphinx").Decoder(loglevel="FATAL", lm=None)


def _run_decoder(decoder, wave: np.ndarray) -> None:
    """Run the decoder on a waveform. The result does not depend on earlier waveforms."""
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(np.int16(np.clip(np.round(wave * 32768), -32768, 32767)).tobytes(), full_utt=True)
    decoder.end_utt()


def _resampled(wave: np.ndarray, rate: int) -> np.ndarray:
    wave = arrays.waveform(wave)
    if wave.ndim != 1:
        raise UserError(f"judges take one channel, [t]; this recording has shape {wave.shape}")
    return audio.resample(wave, rate, RATE)


def _words_of_transcript(transcript: str | None) -> list[str]:
    words = _normalised_words(transcript or "")
    if not words:
        raise UserError(f"the transcript is {transcript!r}; it must contain words")
    return words


def _normalised_words(text: str) -> list[str]:
    words = re.findall("[a-z']+", text.lower().replace("’", "'"))
    return [ABBREVIATIONS.get(word, word) for word in words]
