"""The codes of the first speech level from text, by an AR model or by a parallel one."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from decodec_jax.downstream import corpus
from decodec_jax.downstream.batches import rounded_up
from decodec_jax.downstream.tts import parallel
from decodec_jax.downstream.tts.completion import FRAMES, SYMBOLS
from decodec_jax.downstream.tts.prompts import Prompt
from decodec_jax.downstream.tts.sampling import Sampling, generate
from decodec_jax.downstream.tts.task import places, said
from decodec_jax.downstream.tts.trained import Trained
from decodec_jax.errors import UserError

LONGEST = 30.0  # s of speech at once
LONGEST_SYMBOL = 100  # frames


def writer(trained: Trained) -> "Autoregressive | Parallel":
    """A function from text, prompt, sampling and seed to codes `[f]`."""
    return Parallel(trained) if trained.config.model.stage == "parallel" else Autoregressive(trained)


def require_short(trained: Trained, frames: float) -> None:
    """Raise UserError if a text takes longer than LONGEST to say."""
    seconds = frames * trained.card["hop"] / trained.card["sample_rate"]
    if seconds > LONGEST:
        raise UserError(f"the text takes about {seconds:.0f} s to say; give {LONGEST:g} s or less at once")


class Autoregressive:
    """An AR model, compiled. Where the prompt's text is known, it goes on from the prompt."""

    def __init__(self, trained: Trained):
        self._trained = trained
        self._generate = jax.jit(partial(generate, trained.network), static_argnums=0)

    def __call__(self, text: str, prompt: Prompt, sampling: Sampling, seed: int) -> np.ndarray:
        symbols, begun = self._trained.spell(text), self._begun(prompt)
        expected, before, p = begun.pace * len(symbols), len(begun.symbols), len(begun.codes)
        require_short(self._trained, expected)
        least, most = p + round(0.5 * expected) + 1, p + round(1.5 * expected) + 25
        size = rounded_up(before + len(symbols), SYMBOLS)
        place = [places(before, p, before), places(len(symbols), expected, size - before, p)]
        batch = said([begun.symbols + symbols], size) | {
            "places": np.concatenate(place)[None],
            "codes": corpus.padded([begun.codes[None]], 1, rounded_up(p, FRAMES)),
            "frames": np.array([p], np.int32),
        }
        trained = self._trained
        drawn = self._generate(rounded_up(most, FRAMES), trained.params, trained.frozen, batch, (least, most),
                               jax.random.key(seed), sampling)  # fmt: skip
        return np.asarray(drawn.codes)[p : int(drawn.count)]

    def _begun(self, prompt: Prompt) -> "Begun":
        trained, usual = self._trained, self._trained.card["pace"]
        if not prompt.text:
            return Begun([], np.zeros(0, np.int32), usual)
        between = " " if trained.config.model.text == "characters" else ""
        symbols, codes = trained.spell(prompt.text) + trained.vocabulary.encode(between), prompt.tokens.speech[0]
        return Begun(symbols, codes, float(np.clip(len(codes) / len(symbols), 0.75 * usual, 1.33 * usual)))


class Begun(NamedTuple):
    """What the AR model continues."""

    symbols: list[int]
    codes: np.ndarray  # [p], of the first level
    pace: float  # frames a symbol


class Parallel:
    """A parallel model, compiled. It does not hear the prompt."""

    def __init__(self, trained: Trained):
        self._trained = trained
        self._read = jax.jit(partial(trained.network.apply, method="read"))
        self._fill_in = jax.jit(partial(parallel.fill_in, trained.network))

    def __call__(self, text: str, prompt: Prompt, sampling: Sampling, seed: int) -> np.ndarray:
        trained, symbols = self._trained, self._trained.spell(text)
        batch = said([symbols], rounded_up(len(symbols), SYMBOLS))
        lengths = np.asarray(self._read({"params": trained.params}, batch)[1][0, : len(symbols)])
        durations = np.clip(np.round(np.exp(lengths)), 1, LONGEST_SYMBOL).astype(int)
        f = int(durations.sum())
        require_short(trained, f)
        size = rounded_up(f, FRAMES)
        owners, within = parallel.spread_out(durations, size)
        batch |= {"owners": owners[None], "within": within[None], "frames": np.array([f], np.int32)}
        codes = self._fill_in(trained.params, trained.frozen, batch, jax.random.key(seed), sampling)
        return np.asarray(codes)[:f]
