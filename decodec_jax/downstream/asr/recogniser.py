"""`Recogniser`: a trained recogniser and its weights, for tokens, or for waveforms if it hears something else."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax import audio
from decodec_jax import config as settings
from decodec_jax.downstream import corpus
from decodec_jax.downstream.asr.alignment import best_path, durations
from decodec_jax.downstream.asr.config import CODES, Config
from decodec_jax.downstream.asr.decoding import beam, greedy
from decodec_jax.downstream.asr.model import STREAMS
from decodec_jax.downstream.asr.task import network, parameters, vectors, vocabulary
from decodec_jax.downstream.loop import read_card
from decodec_jax.downstream.mel import log_mel
from decodec_jax.downstream.step import create
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.tokens import Tokens
from decodec_jax.training import checkpoint

STEP = 128  # frames that lengths are padded to multiples of, so that few are compiled


class Recogniser:
    """A trained recogniser. `codec` must be the codec whose tokens it was trained on."""

    def __init__(self, config: Config, card: dict, params: dict, codec: DeCodec, step: int):
        if codec.fingerprint != card["codec"]:
            raise UserError(f"the recogniser was trained on tokens of the codec {card['codec']}, and this one is "
                            f"{codec.fingerprint}; give it its own codec")  # fmt: skip
        self.config, self.card, self.codec, self.step = config, card, codec, step
        self.vocabulary = vocabulary(config.model, card["symbols"])
        self._params, self._frozen = params, vectors(config.model, codec)
        self._network = network(config, len(card["symbols"]), tuple(card["entries"]))
        self._run = jax.jit(partial(_log_probabilities, self._network))

    @classmethod
    def load(cls, run: str | Path, codec: DeCodec | None = None) -> "Recogniser":
        """The newest checkpoint of a run folder, averaged weights.

        codec: None for the one that its config names. Raises UserError if there is no recogniser there, or if it was
        trained on tokens of another codec.
        """
        run = Path(run)
        card = read_card(run)
        if card.get("task") != "asr":
            raise UserError(f"{run} is a run of the task {card.get('task')!r}; it must be one of configs/asr.py")
        config = settings.load(run / "config.json", Config)
        codec = DeCodec.load(config.data.codec) if codec is None else codec
        build = partial(parameters, network(config, len(card["symbols"]), tuple(card["entries"])),
                        vectors(config.model, codec), card.get("width", 0))  # fmt: skip
        shape = jax.eval_shape(lambda: create(config, build))
        state = checkpoint.read(shape, run / "checkpoints", ("step", "averaged")).state
        return cls(config, card, state.averaged, codec, int(state.step))

    @property
    def hears_waves(self) -> bool:
        """Whether it was trained on log mel spectra."""
        return self.config.model.features.kind == "mel"

    def recognise(self, tokens: Tokens, beams: int = 0) -> str:
        """The text of tokens. beams: width of the prefix beam search; 0: greedy.

        Raises UserError if they don't fit, or if it hears something else than codes.
        """
        kind = self.config.model.features.kind
        if kind not in CODES:
            raise UserError(f"this recogniser hears {kind}, not codes; give the recording to recognise_wave")
        if tokens.fingerprint != self.card["codec"]:
            raise UserError(f"the tokens are of the codec {tokens.fingerprint}; this recogniser hears those of "
                            f"{self.card['codec']}")  # fmt: skip
        return self._text(self._logs(self._features(tokens.speech, tokens.background), tokens.frames), beams)

    def align(self, speech: np.ndarray, background: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """How many frames each symbol of a known text lasts, `[l]`; speech and background: codes `[k, f]`.

        Raises UserError for symbols that the recogniser does not write, and more of them than fit into the frames.
        """
        frames = speech.shape[1]
        logs = self._logs(self._features(speech, background), frames)
        try:
            path = best_path(logs, self.vocabulary.encode(symbols))
        except ValueError as error:
            raise UserError(str(error)) from None
        return durations(path, self.config.model.stack, frames)

    def recognise_wave(self, wave: np.ndarray, rate: int, beams: int = 0) -> str:
        """The text of a waveform `[t]` at `rate` Hz, of its spectra, latents or tokens. Otherwise as `recognise`."""
        kind = self.config.model.features.kind
        if kind in CODES:
            return self.recognise(self.codec.encode(wave, rate), beams)
        found = self.codec.embed(wave, rate).speech if kind == "latents" else self._mel(wave, rate)
        features = {kind: corpus.stacked([found], len(found) + -len(found) % STEP)}
        return self._text(self._logs(features, len(found)), beams)

    def _features(self, *streams: np.ndarray) -> dict[str, np.ndarray]:
        """The codes that it hears, of those of both streams `[k, f]`, as a batch of one."""
        made = {}
        for stream, codes in zip(STREAMS, streams, strict=True):
            levels, (there, frames) = getattr(self.config.model.features, stream), codes.shape
            if levels > there:
                raise UserError(f"the tokens have {there} levels of {stream}; this recogniser hears {levels}")
            if levels:
                made[stream] = corpus.padded([codes], levels, frames + -frames % STEP)
        return made

    def _mel(self, wave: np.ndarray, rate: int) -> np.ndarray:
        own = self.card["sample_rate"]
        return log_mel(audio.resample(wave, rate, own), own, self.card["hop"], self.config.model.features.bands)

    def _logs(self, features: dict[str, np.ndarray], frames: int) -> np.ndarray:
        """Log probabilities `[g, n]` of a batch of one that has so many frames."""
        logs, count = self._run(self._params, features | {"frames": np.array([frames], np.int32)}, self._frozen)
        return np.asarray(logs[0])[: int(count[0])]

    def _text(self, logs: np.ndarray, beams: int) -> str:
        return self.vocabulary.decode(beam(logs, beams) if beams else greedy(logs))


def _log_probabilities(network, params: dict, batch: dict, frozen: dict) -> tuple[jax.Array, jax.Array]:
    """Log probabilities `[b, g, n]`, and how many frames of them count."""
    heard = network.apply({"params": params}, batch, frozen)
    return jax.nn.log_softmax(heard.logits.astype(jnp.float32)), heard.frames
