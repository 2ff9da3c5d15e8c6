"""The scores of one system on one item: how well it reconstructs the whole, and how well it separates the parts."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from decodec_jax.errors import UserError
from decodec_jax.evaluation import extras, metrics
from decodec_jax.evaluation.metrics import judges
from decodec_jax.evaluation.systems.base import Item, Output, System

Measure = Callable[[np.ndarray, np.ndarray, int], float]  # estimate, reference `[t]`, rate in Hz -> score
Scores = dict[str, float]  # by metric, see tables.LABELS

T = TypeVar("T")


class Tools(NamedTuple):
    """Optional metrics and judges. `missing` lists those that are not available, and why."""

    quality: Mapping[str, Measure] = {}  # by name of the score
    opinion: judges.Judge | None = None
    words: judges.Judge | None = None
    similarity: judges.Similarity | None = None
    missing: Sequence[str] = ()


def tools(whisper: str = "", embedder: str = "") -> Tools:
    """All metrics and judges whose packages are installed.

    whisper, embedder: folders of a Whisper and of a speaker embedder; "": those of packages. Raises UserError for a
    folder without usable weights.
    """
    missing = []

    def attempt(figure: str, load: Callable[[], T]) -> T | None:
        try:
            return load()
        except UserError as error:
            missing.append(f"{figure} ({error})")
            return None

    def installed(figure: str, package: str) -> bool:
        return attempt(figure, lambda: extras.package(package)) is not None

    quality: dict[str, Measure] = {}
    if installed("PESQ", "pesq"):
        quality["pesq"] = metrics.pesq
    if installed("ESTOI", "pystoi"):
        quality["estoi"] = metrics.estoi
    opinion = judges.dnsmos if installed("DNSMOS", "speechmos.dnsmos") else None
    words = judges.whisper(whisper) if whisper else attempt("word error rate", judges.whisper)
    similarity = judges.speaker(embedder) if embedder else attempt("speaker similarity", judges.speaker)
    return Tools(quality, opinion, words, similarity, missing)


def reconstruction(system: System, item: Item, tools: Tools) -> Scores:
    """Scores of the system's reconstruction of the whole item, compared with the item itself."""
    made = system.tasks["reconstruct"](item)
    return {
        **sdr_scores(made.wave, item.mixture, "mixture"),
        "mel/mixture": float(metrics.mel_distance(made.wave, item.mixture, item.rate)),
        "log_mel/mixture": float(metrics.log_mel_distance(made.wave, item.mixture, item.rate)),
        **scores_with_reference(made.wave, item.mixture, item, tools),
        **bitrate(made, item, "kbps"),
    }


def separation(system: System, item: Item, tools: Tools) -> Scores:
    """Scores of the parts that the system can extract, compared with the truth, and their gains over the mixture.

    For clean speech, only the speech is scored, and without a gain.
    """
    scores, tasks, mixed = {}, system.tasks, item.background is not None
    if "enhance" in tasks:
        made = tasks["enhance"](item)
        scores |= sdr_scores(made.wave, item.speech, "speech")
        scores["log_mel/speech"] = float(metrics.log_mel_distance(made.wave, item.speech, item.rate))
        if mixed:
            unprocessed = float(metrics.si_sdr(item.mixture, item.speech))
            scores["si_sdr_gain/speech"] = scores["si_sdr/speech"] - unprocessed
        scores |= scores_with_reference(made.wave, item.speech, item, tools) | bitrate(made, item, "kbps/speech")
    if mixed and "background" in tasks:
        wave = tasks["background"](item).wave
        scores |= sdr_scores(wave, item.background, "background", ("bss_sdr", "sdr"))
        scores["log_mel/background"] = float(metrics.log_mel_distance(wave, item.background, item.rate))
        unprocessed = float(metrics.sdr(item.mixture, item.background))
        scores["sdr_gain/background"] = scores["sdr/background"] - unprocessed
    if mixed and "reconstruct" in tasks:
        wave = tasks["reconstruct"](item).wave
        scores |= sdr_scores(wave, item.mixture, "mixture", ("bss_sdr", "sdr"))
        scores["mel/mixture"] = float(metrics.mel_distance(wave, item.mixture, item.rate))
    return scores


def sdr_scores(estimate: np.ndarray, reference: np.ndarray, part: str,
               kinds: Sequence[str] = ("bss_sdr", "sdr", "si_sdr")) -> Scores:  # fmt: skip
    """Signal-to-distortion ratios of waveforms `[t]`, dB; NaN for silence if they allow for a scale or a filter."""
    silent = not np.any(estimate)
    return {
        f"{kind}/{part}": math.nan if silent and kind != "sdr" else float(getattr(metrics, kind)(estimate, reference))
        for kind in kinds
    }


def scores_with_reference(estimate: np.ndarray, reference: np.ndarray, item: Item, tools: Tools) -> Scores:
    """The tools' scores of a waveform `[t]` that should equal the reference `[t]` and contain the words of the item."""
    scores = {name: float(measure(estimate, reference, item.rate)) for name, measure in tools.quality.items()}
    return scores | scores_without_reference(estimate, item, tools)


def scores_without_reference(wave: np.ndarray, item: Item, tools: Tools) -> Scores:
    """Scores of a waveform `[t]` without a reference: opinion scores, and errors in the words of the item."""
    scores = {}
    if tools.opinion is not None:
        scores |= tools.opinion(wave, item.rate)
    return scores | word_scores(wave, item, tools)


def word_scores(wave: np.ndarray, item: Item, tools: Tools) -> Scores:
    """Errors in the words of a waveform `[t]`, and those in the item's own clean speech, which are the judge's own."""
    if tools.words is None or not item.transcript:
        return {}
    original = item.mixture if item.speech is None else item.speech
    scores = tools.words(wave, item.rate, item.transcript)
    return scores | {f"{name}/original": of for name, of in tools.words(original, item.rate, item.transcript).items()}


def bitrate(made: Output, item: Item, name: str) -> Scores:
    """The bitrate in kbit/s; empty if nothing was coded."""
    return {} if made.bits is None else {name: metrics.bitrate(made.bits, len(item.mixture) / item.rate)}
