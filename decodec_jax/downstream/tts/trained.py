"""Trained models of speech synthesis, read from their run folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from decodec_jax import config as settings
from decodec_jax.downstream.loop import read_card
from decodec_jax.downstream.step import create
from decodec_jax.downstream.text import Vocabulary, spelled
from decodec_jax.downstream.tts.config import Config
from decodec_jax.downstream.tts.task import network, parameters, vectors
from decodec_jax.errors import UserError
from decodec_jax.inference.codec import DeCodec
from decodec_jax.training import checkpoint


@dataclass(frozen=True)
class Trained:
    """One of the two models, its weights, and the codec whose tokens it was trained on."""

    config: Config
    card: dict[str, Any]
    params: dict
    frozen: dict[str, np.ndarray]
    codec: DeCodec
    step: int

    @property
    def network(self):
        return network(self.config.model, len(self.card["symbols"]), self.card["entries"])

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.card["symbols"], "" if self.config.model.text == "characters" else " ")

    def spell(self, text: str) -> list[int]:
        """The symbols of a text, from 1 up. Raises UserError for what the model cannot read, such as digits."""
        (symbols,) = spelled([text], self.config.model.text, self.config.model.language)
        if isinstance(symbols, UserError):
            raise symbols
        return self.vocabulary.encode(symbols)


def load(run: str | Path, stages: Sequence[str], codec: DeCodec | None = None) -> Trained:
    """The newest checkpoint of a run folder of configs/tts.py, averaged weights.

    stages: those it may be of. codec: None for the one that its config names. Raises UserError if there is no such
    model, or if it was trained on tokens of another codec.
    """
    run = Path(run)
    card = read_card(run)
    if card.get("task") not in [f"tts_{stage}" for stage in stages]:
        raise UserError(f"{run} is a run of the task {card.get('task')!r}; name a run of configs/tts.py:..._"
                        + " or ..._".join(stages))  # fmt: skip
    config = settings.load(run / "config.json", Config)
    codec = DeCodec.load(config.data.codec) if codec is None else codec
    if codec.fingerprint != card["codec"]:
        raise UserError(f"{run} was trained on tokens of the codec {card['codec']}, and this one is "
                        f"{codec.fingerprint}; give it its own codec, or train it again on tokens of this one")
    frozen = vectors(config.model, codec)
    build = partial(parameters, network(config.model, len(card["symbols"]), card["entries"]), frozen)
    shape = jax.eval_shape(lambda: create(config, build))
    state = checkpoint.read(shape, run / "checkpoints", ("step", "averaged")).state
    return Trained(config, card, state.averaged, frozen, codec, int(state.step))
