"""What one system makes of one item, in figures: how the whole comes through, and how well it is taken apart."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.evaluation import extras, metrics
from decodec_jax.evaluation.metrics import judges
from decodec_jax.evaluation.systems.base import Item, Output, System

Measure = Callable[[np.ndarray, np.ndarray, int], float]  # of an estimate and a reference `[t]` at a rate in Hz
Scores = dict[str, float]  # by figure, see tables.LABELS

T = TypeVar("T")


class Tools(NamedTuple):
    """Who can be asked beside the waveforms themselves; who cannot, and why, is in `missing`."""

    quality: Mapping[str, Measure] = {}  # by figure
    opinion: judges.Judge | None = None
    words: judges.Judge | None = None
    similarity: judges.Similarity | None = None
    missing: Sequence[str] = ()


def tools(whisper: str = "", embedder: str = "") -> Tools:
    """All whose packages are installed; Whisper and a speaker embedder of these folders, or else of packages.

    Raises UserError for a folder without usable weights.
    """
    missing = []

    def attempt(figure: str, load: Callable[[], T]) -> T | None:
        try:
            return load()
        except UserError as error:
            missing.append(f"no {figure}: {error}")
            return None

    def at_hand(figure: str, package: str) -> bool:
        return attempt(figure, lambda: extras.package(package)) is not None

    quality: dict[str, Measure] = {}
    if at_hand("PESQ", "pesq"):
        quality["pesq"] = metrics.pesq
    if at_hand("ESTOI", "pystoi"):
        quality["estoi"] = metrics.estoi
    opinion = judges.dnsmos if at_hand("DNSMOS", "speechmos.dnsmos") else None
    words = judges.whisper(whisper) if whisper else attempt("word error rate", judges.whisper)
    similarity = judges.speaker(embedder) if embedder else attempt("speaker similarity", judges.speaker)
    return Tools(quality, opinion, words, similarity, missing)


def reconstruction(system: System, item: Item, tools: Tools) -> Scores:
    """The whole item through the system, against itself."""
    made = system.tasks["reconstruct"](item)
    return {
        **compared(made.wave, item.mixture, "mixture"),
        "mel/mixture": float(metrics.mel_distance(made.wave, item.mixture, item.rate)),
        "log_mel/mixture": float(metrics.log_mel_distance(made.wave, item.mixture, item.rate)),
        **asked(made.wave, item.mixture, item, tools),
        **spent(made, item, "kbps"),
    }


def separation(system: System, item: Item, tools: Tools) -> Scores:
    """The parts that the system can tell apart, against the truth, and what they gain over the mixture itself.

    Of clean speech, the speech alone: there is nothing to gain.
    """
    scores, tasks, mixed = {}, system.tasks, item.background is not None
    if "enhance" in tasks:
        made = tasks["enhance"](item)
        scores |= compared(made.wave, item.speech, "speech")
        scores["log_mel/speech"] = float(metrics.log_mel_distance(made.wave, item.speech, item.rate))
        if mixed:
            doing_nothing = float(metrics.si_sdr(item.mixture, item.speech))
            scores["si_sdr_gain/speech"] = scores["si_sdr/speech"] - doing_nothing
        scores |= asked(made.wave, item.speech, item, tools) | spent(made, item, "kbps/speech")
    if mixed and "background" in tasks:
        wave = tasks["background"](item).wave
        scores |= compared(wave, item.background, "background", ("bss_sdr", "sdr"))
        scores["log_mel/background"] = float(metrics.log_mel_distance(wave, item.background, item.rate))
        doing_nothing = float(metrics.sdr(item.mixture, item.background))
        scores["sdr_gain/background"] = scores["sdr/background"] - doing_nothing
    if mixed and "reconstruct" in tasks:
        wave = tasks["reconstruct"](item).wave
        scores |= compared(wave, item.mixture, "mixture", ("bss_sdr", "sdr"))
        scores["mel/mixture"] = float(metrics.mel_distance(wave, item.mixture, item.rate))
    return scores


def compared(estimate: np.ndarray, reference: np.ndarray, part: str,
             kinds: Sequence[str] = ("bss_sdr", "sdr", "si_sdr")) -> Scores:  # fmt: skip
    """Signal-to-distortion ratios of waveforms `[t]`, dB; NaN of silence where a scale or a filter is allowed for."""
    silent = not np.any(estimate)
    return {
        f"{kind}/{part}": math.nan if silent and kind != "sdr" else float(getattr(metrics, kind)(estimate, reference))
        for kind in kinds
    }


def asked(estimate: np.ndarray, reference: np.ndarray, item: Item, tools: Tools) -> Scores:
    """What the tools say of a waveform `[t]` that should be the reference `[t]`, its words those of the item."""
    scores = {name: float(measure(estimate, reference, item.rate)) for name, measure in tools.quality.items()}
    return scores | heard(estimate, item, tools)


def heard(wave: np.ndarray, item: Item, tools: Tools) -> Scores:
    """How a waveform `[t]` is heard where no reference is: opinions of it, and which of the item's words it says."""
    scores = {}
    if tools.opinion is not None:
        scores |= tools.opinion(wave, item.rate)
    return scores | words(wave, item, tools)


def words(wave: np.ndarray, item: Item, tools: Tools) -> Scores:
    """The errors in the words of a waveform `[t]`, and those in the item's own clean speech, which are the judge's."""
    if tools.words is None or not item.transcript:
        return {}
    original = item.mixture if item.speech is None else item.speech
    scores = tools.words(wave, item.rate, item.transcript)
    return scores | {f"{name}/original": of for name, of in tools.words(original, item.rate, item.transcript).items()}


def spent(made: Output, item: Item, name: str) -> Scores:
    """The bitrate, kbit/s, of what was coded."""
    return {} if made.bits is None else {name: metrics.bitrate(made.bits, len(item.mixture) / item.rate)}
