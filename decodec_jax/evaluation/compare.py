"""Several models side by side on the same test mixtures: the ablation table, with intervals and paired differences."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decodec_jax.codec.model import DeCodecNetwork, Halves
from decodec_jax.evaluation import judges, metrics
from decodec_jax.evaluation.separation import Mixture
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import amplitude, gain_of
from decodec_jax.objective import guidance
from decodec_jax.objective.teacher import Teacher

Scores = dict[str, np.ndarray]  # by figure: a value for each mixture (or clip) [n], or one of all of them [1]

FIGURES = {
    "sdr/mixture": "SDR-O, dB",
    "sdr/speech": "SDR-S, dB",
    "si_sdr/speech": "SI-SDR of the speech, dB",
    "sdr/background": "SDR-B, dB",
    "mel/mixture": "mel distance of the reconstruction",
    "dnsmos/sig": "DNSMOS of the speech: SIG",
    "dnsmos/bak": "DNSMOS of the speech: BAK",
    "dnsmos/ovrl": "DNSMOS of the speech: OVRL",
    "cosine": "cosine with the teacher",
    # of evaluation/probe.py
    "phones/codes": "phones from level 1, best guess for each code: accuracy",
    "phones/vectors": "phones from level 1, linear in its vectors: accuracy",
    "phones/chance": "phones from nothing: accuracy",
    "wer": "word error rate",
}

PAPER = {  # its ablation table: Ablation-1, -2, -3, DeCodec-c, DeCodec; BSS-eval, on mixtures of its own
    "sdr/mixture": (8.93, 6.70, 6.68, 4.62, 5.21),
    "sdr/speech": (-1.91, 3.03, 7.90, 5.70, 6.73),
    "sdr/background": (-13.15, -10.67, 0.49, -1.11, -0.36),
}


def measure(model: DeCodec, mixtures: Sequence[Mixture], teacher: Teacher | None = None) -> Scores:
    """Every figure that the model has: one without codes yet has no entropies, one without a teacher no cosine."""
    rate = model.config.sample_rate
    each = []
    for mixture in mixtures:
        whole, speech, background = (
            task(mixture.mixture, rate) for task in (model.reconstruct, model.enhance, model.background)
        )
        each.append({
            "sdr/mixture": metrics.sdr(whole, mixture.mixture),
            "sdr/speech": metrics.sdr(speech, mixture.speech),
            "si_sdr/speech": metrics.si_sdr(speech, mixture.speech),
            "sdr/background": metrics.sdr(background, mixture.background),
            "mel/mixture": metrics.mel_distance(whole, mixture.mixture, rate),
            **judges.dnsmos(speech, rate),
        })  # fmt: skip
    scores = collected(each)
    if teacher is not None:
        scores["cosine"] = cosines(model, mixtures, teacher)
    if model.quantized:
        scores |= codebooks(model, mixtures)
    return scores


def floors_and_ceilings(mixtures: Sequence[Mixture], rate: int) -> dict[str, Scores]:
    """What a model stands between: the mixture as it is, taken for either part, and the truth."""
    untouched = [
        {
            "sdr/speech": metrics.sdr(mixture.mixture, mixture.speech),
            "si_sdr/speech": metrics.si_sdr(mixture.mixture, mixture.speech),
            "sdr/background": metrics.sdr(mixture.mixture, mixture.background),
            **judges.dnsmos(mixture.mixture, rate),
        }
        for mixture in mixtures
    ]
    clean = [judges.dnsmos(mixture.speech, rate) for mixture in mixtures]
    return {"mixture": collected(untouched), "clean speech": collected(clean)}


def collected(each: Sequence[dict[str, float]]) -> Scores:
    """Scores one by one as arrays `[n]`."""
    return {name: np.array([scores[name] for scores in each], np.float64) for name in each[0]}


def codebooks(model: DeCodec, mixtures: Sequence[Mixture]) -> Scores:
    """Entropy in bits of each level of both streams, and the share of entries that these mixtures use.

    Both are too small where the frames are not many times the entries: compare them at one `count` alone.
    """
    tokens = model.encode_batch([mixture.mixture for mixture in mixtures], model.config.sample_rate)
    scores: Scores = {}
    for stream in Halves._fields:
        entries = getattr(model.config, stream).entries
        codes = np.stack([getattr(each, stream) for each in tokens])
        scores |= {f"bits/{stream}/{k + 1}": bits for k, bits in enumerate(metrics.surprise(codes, entries).T)}
        scores[f"used/{stream}"] = np.mean(metrics.usage(codes, entries), keepdims=True)
    return scores


def cosines(model: DeCodec, mixtures: Sequence[Mixture], teacher: Teacher) -> np.ndarray:
    """Mean cosine over time between the projected first level of each mixture and the teacher's of its speech: `[n]`.

    Training logs the same of its batches as `cosine`. Raises UserError unless the model is guided by such a teacher.
    """
    network = DeCodecNetwork(model.config)
    levels = Halves(model.config.speech.levels, model.config.background.levels) if model.quantized else Halves(0, 0)
    active = Halves(*(jnp.full(1, count) for count in levels))

    @jax.jit
    def cosine(variables, teacher, mixture, speech):
        halves = network.apply(variables, mixture, method="embed")
        first = network.apply(variables, halves, active, method="quantize").speech.first
        projected = network.apply(variables, first, method="semantic")
        return guidance.mean_cosine(projected, teacher.targets(speech))[0]

    variables = {"params": model.params, "codebook": model.codebook}
    return np.array([
        cosine(variables, teacher, _coded(mixture.mixture, model.config.sample_rate)[None], mixture.speech[None])
        for mixture in mixtures
    ], np.float64)  # fmt: skip


def _coded(wave: np.ndarray, rate: int) -> np.ndarray:
    """As loud as the codec hears it."""
    return wave * np.float32(amplitude(gain_of(wave, rate)))


# --- tables -----------------------------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """A mean, and the interval in which 95 % of the means of resampled values lie."""

    mean: float
    low: float
    high: float
    count: int


def figure(values: np.ndarray, seed: int = 0) -> Figure:
    """Of values `[n]`, by the bootstrap, the same at every call."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return Figure(float(values.mean()), float(low), float(high), len(values))


def figures(columns: Mapping[str, Scores], models: Sequence[str]) -> dict[str, dict[str, Figure]]:
    """Of each column each figure, and of each model after the first what it has more than the first.

    Models are measured on the same mixtures, so that the interval of a difference is far narrower than theirs.
    """
    result = {name: {key: figure(values) for key, values in scores.items()} for name, scores in columns.items()}
    for name in models[1:]:
        both = [key for key in columns[models[0]] if key in columns[name]]
        differences = {key: figure(columns[name][key] - columns[models[0]][key]) for key in both}
        result[f"{name} − {models[0]}"] = differences
    return result


def table(found: Mapping[str, Mapping[str, Figure]], paper: bool = False) -> str:
    """As markdown, a line for each figure: mean [95 % interval]; n/a where a column has no such figure.

    paper: with the paper's own ablation, which was measured on other mixtures.
    """
    there = dict.fromkeys(key for column in found.values() for key in column)
    keys = [key for key in FIGURES if key in there] + [key for key in there if key not in FIGURES]
    header = ["", *found, "count"]
    if paper:
        header.append("paper: Ablation-1, 2, 3, DeCodec-c, DeCodec (its own test set)")
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for key in keys:
        cells = [_cell(column.get(key)) for column in found.values()]
        count = max(column[key].count for column in found.values() if key in column)
        cells = [_label(key), *cells, str(count)]
        if paper:
            cells.append(", ".join(f"{value:.2f}" for value in PAPER.get(key, ())))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_csv(found: Mapping[str, Mapping[str, Figure]]) -> str:
    """A line for each figure of each column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["column", "figure", *Figure._fields])
    writer.writerows([column, key, *each] for column, row in found.items() for key, each in row.items())
    return text.getvalue()


def _cell(each: Figure | None) -> str:
    if each is None:
        return "n/a"
    return f"{each.mean:.2f}" if each.count == 1 else f"{each.mean:.2f} [{each.low:.2f}, {each.high:.2f}]"


def _label(key: str) -> str:
    match key.split("/"):
        case "bits", stream, level:
            return f"entropy of {stream} level {level}, bits"
        case "used", stream:
            return f"share of the {stream} entries used, mean of levels"
    return FIGURES.get(key, key)
