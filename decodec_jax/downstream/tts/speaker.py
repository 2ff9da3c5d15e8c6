"""`Speaker`: text to tokens in the voice of a prompt, by both models. `Converter`: another voice, by the NAR model."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from numpy.typing import ArrayLike

from decodec_jax import arrays, audio
from decodec_jax.downstream import corpus
from decodec_jax.downstream.tts import nar, prompts
from decodec_jax.downstream.tts.prompts import Prompt, tiled
from decodec_jax.downstream.tts.sampling import Sampling, generate
from decodec_jax.downstream.tts.task import places, said
from decodec_jax.downstream.tts.trained import Trained, load
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.tokens import Tokens

BACKGROUNDS = ("drop", "keep")
LONGEST = 30.0  # s of speech at once
PIECE = 500  # frames that are converted at once; attention costs their square
SYMBOLS, FRAMES = 32, 128  # sizes are multiples of these, so that few are compiled


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
        Raises UserError for text that cannot be spelled or takes longer than LONGEST, and a prompt of another codec.
        """
        if background not in BACKGROUNDS:
            raise UserError(f"background is {background!r}; it must be {' or '.join(BACKGROUNDS)}")
        if prompt.tokens.fingerprint != self.codec.fingerprint:
            raise UserError(f"the prompt has tokens of the codec {prompt.tokens.fingerprint}; these models speak "
                            f"those of {self.codec.fingerprint}")  # fmt: skip
        first = self.first_level(text, prompt, Sampling() if sampling is None else sampling, seed)
        speech = self._completed(first, prompt.voice, self._nar.spell(text))
        length = len(first) * prompt.tokens.hop
        if background == "keep":
            around = tiled(prompt.tokens.background, len(first))
        else:
            around = self.codec.blank(length).background
        return replace(prompt.tokens, speech=speech, background=around, length=length)

    def first_level(self, text: str, prompt: Prompt, sampling: Sampling, seed: int) -> np.ndarray:
        """The codes of the first speech level of a text: `[f]`."""
        symbols, before, pace = self._ar.spell(text), [], self._ar.card["pace"]
        known = prompt.tokens.speech[0] if prompt.text else np.zeros(0, np.int32)
        if prompt.text:
            between = self._ar.vocabulary.encode(" ") if self._ar.config.model.text == "characters" else []
            before = self._ar.spell(prompt.text) + between
            pace = float(np.clip(len(known) / len(before), 0.75 * pace, 1.33 * pace))
        expected = pace * len(symbols)
        seconds = expected * self.codec.config.hop / self.codec.config.sample_rate
        if seconds > LONGEST:
            raise UserError(f"the text takes about {seconds:.0f} s to say; give {LONGEST:g} s or less at once")
        least, most = (len(known) + round(share * expected + more) for share, more in ((0.5, 1), (1.5, 25)))
        size, room = -(-len(before + symbols) // SYMBOLS) * SYMBOLS, -(-most // FRAMES) * FRAMES
        batch = said([before + symbols], size)
        place = places(len(before), len(known), size)
        place[len(before) :] = places(len(symbols), expected, size - len(before), len(known))
        frames = max(1, -(-len(known) // FRAMES)) * FRAMES
        batch |= {"places": place[None], "codes": corpus.padded([known[None]], 1, frames),
                  "frames": np.array([len(known)], np.int32)}  # fmt: skip
        drawn = self._generate(room, self._ar.params, self._ar.frozen, batch, (least, most), jax.random.key(seed),
                               sampling)  # fmt: skip
        return np.asarray(drawn.codes)[len(known) : int(drawn.count)]


class Completion:
    """The NAR model at work."""

    def __init__(self, trained: Trained):
        self._trained, self._run = trained, jax.jit(trained.network.apply)

    def __call__(self, first: np.ndarray, voice: np.ndarray, symbols: list[int]) -> np.ndarray:
        """All levels `[k, f]` from the first, `[f]`, in the voice of codes `[k, p]`. symbols: of the text; may be [].

        Raises UserError if the voice has fewer levels than the model completes.
        """
        levels, frames, prompt = self._trained.config.model.levels, len(first), voice.shape[1]
        if len(voice) < levels:
            raise UserError(f"the prompt has {len(voice)} levels of speech; this model completes {levels}")
        codes = np.zeros((levels, prompt + frames), np.int32)
        codes[:, :prompt], codes[0, prompt:] = voice[:levels], first
        size = max(1, -(-len(symbols) // SYMBOLS)) * SYMBOLS
        batch = said([symbols], size) | {
            "places": places(len(symbols), frames, size, prompt)[None], "prompt": np.array([prompt], np.int32),
            "codes": corpus.padded([codes], levels, -(-codes.shape[1] // FRAMES) * FRAMES),
            "frames": np.array([codes.shape[1]], np.int32),
        }  # fmt: skip
        found = nar.completed(self._run, self._trained.params, self._trained.frozen, batch, levels)
        return np.asarray(found[0, :, prompt : codes.shape[1]])


class Converter:
    """One-shot voice conversion by the NAR model."""

    def __init__(self, trained: Trained):
        self.codec, self._completed = trained.codec, Completion(trained)

    @classmethod
    def load(cls, run: str | Path, codec: DeCodec | None = None) -> "Converter":
        """A run folder of a NAR model. codec: None for the one that its config names."""
        return cls(load(run, "nar", codec))

    def convert(
        self, source: ArrayLike, reference: ArrayLike, sample_rate: int, reference_rate: int | None = None,
        keep: str = "speech",
    ) -> np.ndarray:  # fmt: skip
        """As `DeCodec.convert`, but the levels above the first are the model's, for the voice of the reference."""
        wave, voice = arrays.waveform(source), audio.mono(arrays.waveform(reference))
        prompt = prompts.heard(self.codec, voice, reference_rate or sample_rate, name="the reference")
        tokens = self.codec.encode(np.atleast_2d(wave), sample_rate)
        converted = [replace(each, speech=self._converted(each.speech[0], prompt.voice)) for each in tokens]
        return self.codec.decode(converted, keep, sample_rate)[:, : wave.shape[-1]].reshape(wave.shape)

    def _converted(self, first: np.ndarray, voice: np.ndarray) -> np.ndarray:
        pieces = [self._completed(first[i : i + PIECE], voice, []) for i in range(0, len(first), PIECE)]
        return np.concatenate(pieces, axis=1)
