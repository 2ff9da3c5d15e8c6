"""`Speaker`: text to tokens in the voice of a prompt, by both models."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from decodec_jax.downstream import corpus
from decodec_jax.downstream.batches import rounded_up
from decodec_jax.downstream.tts.completion import FRAMES, SYMBOLS, Completion
from decodec_jax.downstream.tts.prompts import Prompt, tiled
from decodec_jax.downstream.tts.sampling import Sampling, check, generate
from decodec_jax.downstream.tts.task import places, said
from decodec_jax.downstream.tts.trained import Trained, load
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.tokens import Tokens

BACKGROUNDS = ("drop", "keep")
LONGEST = 30.0  # s of speech at once


class Speaker:
    """An AR and a NAR model, and the codec of both."""

    def __init__(self, ar: Trained, nar: Trained):
        if ar.card["codec"] != nar.card["codec"]:
            raise UserError(f"the AR model was trained on tokens of the codec {ar.card['codec']}, and the NAR model on "
                            f"those of {nar.card['codec']}; train both on the same tokens")  # fmt: skip
        self.codec, self._ar, self._nar = ar.codec, ar, nar
        self._generate = jax.jit(partial(generate, ar.network), static_argnums=0)
        self._completed = Completion(nar)

    @classmethod
    def load(cls, ar: str | Path, nar: str | Path, codec: DeCodec | None = None) -> "Speaker":
        """Both models from their run folders. codec: None for the one that the AR model's config names."""
        first = load(ar, "ar", codec)
        return cls(first, load(nar, "nar", first.codec))

    def speak(
        self, text: str, prompt: Prompt, background: str = "drop", sampling: Sampling | None = None, seed: int = 0
    ) -> Tokens:
        """The tokens of a text, said in the voice of the prompt and as loud.

        If the prompt's text is known, its first level is continued; otherwise the first level is that of the speakers
        the AR model knows. background: "keep" repeats the prompt's background, "drop" takes the codes of silence.
        Raises UserError for text that cannot be spelled or takes longer than LONGEST, a prompt of another codec, and
        values of `sampling` that nothing can be drawn with.
        """
        if background not in BACKGROUNDS:
            raise UserError(f"background is {background!r}; it must be {' or '.join(BACKGROUNDS)}")
        if prompt.tokens.fingerprint != self.codec.fingerprint:
            raise UserError(f"the prompt has tokens of the codec {prompt.tokens.fingerprint}; these models speak "
                            f"those of {self.codec.fingerprint}")  # fmt: skip
        sampling = Sampling() if sampling is None else sampling
        check(sampling)
        first = self.first_level(text, prompt, sampling, seed)
        speech = self._completed(first, prompt.voice, self._nar.spell(text))
        length = len(first) * prompt.tokens.hop
        if background == "keep":
            around = tiled(prompt.tokens.background, len(first))
        else:
            around = self.codec.blank(length).background
        return replace(prompt.tokens, speech=speech, background=around, length=length)

    def first_level(self, text: str, prompt: Prompt, sampling: Sampling, seed: int) -> np.ndarray:
        """The codes of the first speech level of a text: `[f]`."""
        symbols, begun = self._ar.spell(text), self._begun(prompt)
        expected, before, p = begun.pace * len(symbols), len(begun.symbols), len(begun.codes)
        seconds = expected * self.codec.config.hop / self.codec.config.sample_rate
        if seconds > LONGEST:
            raise UserError(f"the text takes about {seconds:.0f} s to say; give {LONGEST:g} s or less at once")
        least, most = p + round(0.5 * expected) + 1, p + round(1.5 * expected) + 25
        size = rounded_up(before + len(symbols), SYMBOLS)
        place = [places(before, p, before), places(len(symbols), expected, size - before, p)]
        batch = said([begun.symbols + symbols], size) | {
            "places": np.concatenate(place)[None],
            "codes": corpus.padded([begun.codes[None]], 1, rounded_up(p, FRAMES)),
            "frames": np.array([p], np.int32),
        }
        drawn = self._generate(rounded_up(most, FRAMES), self._ar.params, self._ar.frozen, batch, (least, most),
                               jax.random.key(seed), sampling)  # fmt: skip
        return np.asarray(drawn.codes)[p : int(drawn.count)]

    def _begun(self, prompt: Prompt) -> "Begun":
        usual = self._ar.card["pace"]
        if not prompt.text:
            return Begun([], np.zeros(0, np.int32), usual)
        between = " " if self._ar.config.model.text == "characters" else ""
        symbols, codes = self._ar.spell(prompt.text) + self._ar.vocabulary.encode(between), prompt.tokens.speech[0]
        return Begun(symbols, codes, float(np.clip(len(codes) / len(symbols), 0.75 * usual, 1.33 * usual)))


class Begun(NamedTuple):
    """What the AR model continues."""

    symbols: list[int]
    codes: np.ndarray  # [p], of the first level
    pace: float  # frames a symbol
