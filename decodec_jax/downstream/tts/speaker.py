"""`Speaker`: text to tokens in the voice of a prompt, by two models."""

from dataclasses import replace
from pathlib import Path

from decodec_jax.downstream.tts.completion import Completion
from decodec_jax.downstream.tts.config import FIRST
from decodec_jax.downstream.tts.first_level import writer
from decodec_jax.downstream.tts.prompts import Prompt, tiled
from decodec_jax.downstream.tts.sampling import Sampling, check
from decodec_jax.downstream.tts.trained import Trained, load
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.tokens import Tokens

BACKGROUNDS = ("drop", "keep")


class Speaker:
    """A model of the first level, AR or parallel, a NAR model, and the codec of both.

    `first_level` is the first one's function, see first_level.py.
    """

    def __init__(self, first: Trained, nar: Trained):
        if first.card["codec"] != nar.card["codec"]:
            raise UserError(f"the model of the first level was trained on tokens of the codec {first.card['codec']}, "
                            f"and the NAR model on those of {nar.card['codec']}; train both on the same tokens")
        self.codec, self._nar = first.codec, nar
        self.first_level, self._completed = writer(first), Completion(nar)

    @classmethod
    def load(cls, first: str | Path, nar: str | Path, codec: DeCodec | None = None) -> "Speaker":
        """Both models from their run folders. codec: None for the one that the first model's config names."""
        one = load(first, FIRST, codec)
        return cls(one, load(nar, ("nar",), one.codec))

    def speak(
        self, text: str, prompt: Prompt, background: str = "drop", sampling: Sampling | None = None, seed: int = 0
    ) -> Tokens:
        """The tokens of a text, said in the voice of the prompt and as loud.

        If the prompt's text is known, an AR model continues its first level; otherwise the first level is that of the
        speakers the model knows. background: "keep" repeats the prompt's background, "drop" takes the codes of silence.
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
