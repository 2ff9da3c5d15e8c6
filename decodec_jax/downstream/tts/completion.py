"""The NAR model at work: all levels from the first, in the voice of a prompt."""

import jax
import numpy as np

from decodec_jax.downstream import corpus
from decodec_jax.downstream.batches import rounded_up
from decodec_jax.downstream.tts import nar
from decodec_jax.downstream.tts.task import places, said
from decodec_jax.downstream.tts.trained import Trained
from decodec_jax.errors import UserError

SYMBOLS, FRAMES = 32, 128  # sizes are multiples of these, so that few are compiled


class Completion:
    """A trained NAR model, compiled."""

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
        size = rounded_up(len(symbols), SYMBOLS)
        batch = said([symbols], size) | {
            "places": places(len(symbols), frames, size, prompt)[None], "prompt": np.array([prompt], np.int32),
            "codes": corpus.padded([codes], levels, rounded_up(prompt + frames, FRAMES)),
            "frames": np.array([prompt + frames], np.int32),
        }  # fmt: skip
        found = nar.completed(self._run, self._trained.params, self._trained.frozen, batch, levels)
        return np.asarray(found[0, :, prompt : prompt + frames])
