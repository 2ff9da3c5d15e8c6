"""Whatever is measured, as one thing: a model of ours, somebody else's codec or denoiser, a floor, a ceiling."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from decodec_jax.inference.codec import DeCodec, Levels
from decodec_jax.inference.tokens import bitrate

TASKS = ("reconstruct", "enhance", "background", "semantic")


class Item(NamedTuple):
    """One recording of a test set and what is known of it. Waveforms are `[t]`; None where nobody knows the truth."""

    name: str
    rate: int  # Hz
    mixture: np.ndarray
    speech: np.ndarray | None = None
    background: np.ndarray | None = None
    snr: float | None = None  # dB
    speaker: str = ""
    transcript: str = ""


class Output(NamedTuple):
    """What a system makes of an item."""

    wave: np.ndarray  # [t], as long as the item
    bits: float | None = None  # that it was coded in; None: not coded


Task = Callable[[Item], Output]


class System(NamedTuple):
    """Something with a name and those of `TASKS` that it can do. All but oracles hear the mixture alone."""

    name: str
    tasks: Mapping[str, Task]


def decodec(name: str, model: DeCodec, levels: Levels = None) -> System:
    """A model of ours, with so many levels of speech and background (None: all). A part costs its own stream's bits."""
    speech, background = levels or (model.config.speech.levels, model.config.background.levels)
    spent = dict(zip(TASKS, ((speech, background), (speech, 0), (0, background), (1, 0)), strict=True))

    def task(kind: str) -> Task:
        def run(item: Item) -> Output:
            options = {} if kind == "semantic" or levels is None else {"levels": levels}
            wave = getattr(model, kind)(item.mixture, item.rate, **options)
            return Output(wave, bits(model, len(wave) / item.rate, spent[kind]) if model.quantized else None)

        return run

    return System(name, {kind: task(kind) for kind in TASKS if model.quantized or kind != "semantic"})


def bits(model: DeCodec, seconds: float, levels: tuple[int, int]) -> float:
    """What so many levels of speech and background take for so long."""
    config = model.config
    frames = -(-round(seconds * config.sample_rate) // config.hop)
    return bitrate(levels, (config.speech.entries, config.background.entries), frames)


def untouched() -> System:
    """The mixture as it is, taken for whatever is asked for: what doing nothing scores."""
    return System("mixture", dict.fromkeys(("reconstruct", "enhance", "background"), lambda item: Output(item.mixture)))


def silence() -> System:
    """Silence, taken for whatever is asked for."""
    nothing = dict.fromkeys(TASKS[:3], lambda item: Output(np.zeros_like(item.mixture)))
    return System("silence", nothing)


def oracle() -> System:
    """The truth."""
    return System("oracle", {
        "reconstruct": lambda item: Output(item.mixture),
        "enhance": lambda item: Output(item.speech),
        "background": lambda item: Output(item.background),
    })  # fmt: skip
