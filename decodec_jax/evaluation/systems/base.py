"""One interface for all that is measured: our models, other people's codecs and denoisers, lower and upper bounds."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from decodec_jax.inference.codec import DeCodec, Levels
from decodec_jax.inference.tokens import bitrate

TASKS = ("reconstruct", "enhance", "background", "semantic")


class Item(NamedTuple):
    """One recording of a test set and what is known about it. Waveforms are `[t]`, or None if the truth is unknown."""

    name: str
    rate: int  # Hz
    mixture: np.ndarray
    speech: np.ndarray | None = None
    background: np.ndarray | None = None
    snr: float | None = None  # dB
    speaker: str = ""
    transcript: str = ""


class Output(NamedTuple):
    """The output of a system for an item."""

    wave: np.ndarray  # [t], as long as the item
    bits: float | None = None  # size of its codes; None: not coded


Task = Callable[[Item], Output]


class System(NamedTuple):
    """A name and those of `TASKS` that the system can do. All systems but oracles use only the mixture."""

    name: str
    tasks: Mapping[str, Task]


def decodec(name: str, model: DeCodec, levels: Levels = None) -> System:
    """One of our models as a system, with `levels` of speech and background (None: all).

    A task counts only the bits of the streams that it uses.
    """
    speech, background = levels or (model.config.speech.levels, model.config.background.levels)
    used = dict(zip(TASKS, ((speech, background), (speech, 0), (0, background), (1, 0)), strict=True))

    def task(kind: str) -> Task:
        def run(item: Item) -> Output:
            options = {} if kind == "semantic" or levels is None else {"levels": levels}
            wave = getattr(model, kind)(item.mixture, item.rate, **options)
            return Output(wave, bits(model, len(wave) / item.rate, used[kind]) if model.quantized else None)

        return run

    return System(name, {kind: task(kind) for kind in TASKS if model.quantized or kind != "semantic"})


def bits(model: DeCodec, seconds: float, levels: tuple[int, int]) -> float:
    """Bits that `levels` of speech and background take for so many seconds."""
    config = model.config
    frames = -(-round(seconds * config.sample_rate) // config.hop)
    return bitrate(levels, (config.speech.entries, config.background.entries), frames)


def untouched() -> System:
    """Returns the mixture unchanged in each task: the scores of doing nothing."""
    return System("mixture", dict.fromkeys(("reconstruct", "enhance", "background"), lambda item: Output(item.mixture)))


def silence() -> System:
    """Returns silence in each task."""
    nothing = dict.fromkeys(TASKS[:3], lambda item: Output(np.zeros_like(item.mixture)))
    return System("silence", nothing)


def oracle() -> System:
    """Returns the ground truth."""
    return System("oracle", {
        "reconstruct": lambda item: Output(item.mixture),
        "enhance": lambda item: Output(item.speech),
        "background": lambda item: Output(item.background),
    })  # fmt: skip
