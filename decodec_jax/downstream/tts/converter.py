"""`Converter`: one-shot voice conversion by the NAR model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from decodec_jax import arrays, audio
from decodec_jax.downstream.tts import prompts
from decodec_jax.downstream.tts.completion import Completion
from decodec_jax.downstream.tts.trained import Trained, load
from decodec_jax.inference.codec import DeCodec

PIECE = 500  # frames that are converted at once; attention costs their square


class Converter:
    """A trained NAR model and its codec."""

    def __init__(self, trained: Trained):
        self.codec, self._completed = trained.codec, Completion(trained)

    @classmethod
    def load(cls, run: str | Path, codec: DeCodec | None = None) -> "Converter":
        """A run folder of a NAR model. codec: None for the one that its config names."""
        return cls(load(run, ("nar",), codec))

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
