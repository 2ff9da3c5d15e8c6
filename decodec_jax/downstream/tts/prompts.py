"""Prompts: a few seconds of somebody's speech, and what was said."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decodec_jax import audio
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import level_of_pieces
from decodec_jax.inference.tokens import Tokens

SHORTEST, LONGEST = 0.5, 15.0  # s
VOICE = 3.0  # s, the loudest so many of a prompt show the voice to the NAR model


@dataclass(frozen=True)
class Prompt:
    """A recording as tokens."""

    tokens: Tokens
    voice: np.ndarray  # int32 [k, p], the speech codes of its loudest VOICE seconds
    text: str = ""  # what was said; "": unknown


def read(codec: DeCodec, path: str, text: str | None = None) -> Prompt:
    """The prompt in a recording. text: None for the one in the file beside it, such as voice.txt, if there is one.

    Raises UserError for silence, for less than SHORTEST seconds, and for more than LONGEST if there is a text; without
    one, the recording is cut.
    """
    wave, rate = audio.read(path)
    return heard(codec, audio.mono(wave), rate, beside(path) if text is None else text, path)


def heard(codec: DeCodec, wave: np.ndarray, rate: int, text: str = "", name: str = "the prompt") -> Prompt:
    """The prompt in a waveform `[t]` at `rate` Hz; otherwise as `read`. name: for errors."""
    seconds = len(wave) / rate
    if seconds < SHORTEST:
        raise UserError(f"{name} lasts {seconds:.2f} s; a prompt needs {SHORTEST:g} s of speech or more, 3 s are good")
    if seconds > LONGEST and text:
        raise UserError(f"{name} lasts {seconds:.1f} s; cut the prompt to {LONGEST:g} s or less, and its text with it")
    wave = wave[: round(LONGEST * rate)]
    if not np.isfinite(level_of_pieces([wave[None]], rate)):
        raise UserError(f"{name} is silent; record 3 s of speech as the prompt")
    tokens = codec.encode(wave, rate)
    first, last = loudest(wave, tokens.frames, round(VOICE * tokens.sample_rate / tokens.hop))
    return Prompt(tokens, tokens.speech[:, first:last], text)


def beside(path: str) -> str:
    """The text in the file of the same name that ends in .txt; "" if there is none."""
    transcript = Path(path).with_suffix(".txt")
    try:
        return transcript.read_text(encoding="utf-8").strip() if transcript.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{transcript} cannot be read as text ({error}); give --prompt-text") from None


def loudest(wave: np.ndarray, frames: int, most: int) -> tuple[int, int]:
    """First frame, and end, of the `most` frames in a row with the greatest energy, of a waveform with `frames`."""
    length = min(most, frames)
    edges = np.linspace(0, len(wave), frames + 1).round().astype(int)
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])[edges]
    first = int(np.argmax(energy[length:] - energy[: frames + 1 - length]))
    return first, first + length


def tiled(codes: np.ndarray, frames: int) -> np.ndarray:
    """Codes `[k, p]` repeated from their start, or cut: `[k, frames]`."""
    return codes[:, np.arange(frames) % codes.shape[1]]
