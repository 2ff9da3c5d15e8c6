"""How well a model takes mixtures apart, at each signal-to-noise ratio: the table of docs/results.md."""

from dataclasses import dataclass

import numpy as np

from decodec_jax.data.mixing import example, fitted, scaled
from decodec_jax.data.sources import ClipSource
from decodec_jax.evaluation import metrics
from decodec_jax.inference.codec import DeCodec

SNRS = (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)  # dB
LEVEL = -26.0  # dB of full scale, RMS of the speech


@dataclass
class Mixture:
    """One test mixture and the truth about it, `[t]` each."""

    snr: float
    mixture: np.ndarray
    speech: np.ndarray
    background: np.ndarray


def make_mixtures(source: ClipSource, count: int, seconds: float, seed: int = 0) -> list[Mixture]:
    """`count` mixtures of `seconds` at each of `SNRS`, the same at every call: clips shuffled, each from its start."""
    rng = np.random.default_rng(seed)
    t = round(seconds * source.sample_rate)
    order = {
        kind: rng.permutation([i for i, clip in enumerate(source.clips) if clip.kind == kind])
        for kind in ("speech", "background")
    }
    made = []
    for n in range(count * len(SNRS)):
        snr = SNRS[n % len(SNRS)]
        sides = {}
        for kind, level in (("speech", LEVEL), ("background", LEVEL - snr)):
            wave = source.read(int(order[kind][n % len(order[kind])]), 0.0, seconds)
            sides[kind] = scaled(fitted(wave, t, kind, 0.0), level, kind)
        mixed = example(*(np.stack([side, side]) for side in sides.values()))
        made.append(Mixture(snr, mixed["mixture"][0], mixed["speech"][0], mixed["background"][0]))
    return made


def evaluate(model: DeCodec, mixtures: list[Mixture]) -> list[dict[str, float]]:
    """Scores of each mixture, in dB: the parts', their gain over the mixture, and the mixture's own reconstruction."""
    rows, rate = [], model.config.sample_rate
    for mixture in mixtures:
        estimates = {
            "mixture": model.reconstruct(mixture.mixture, rate),
            "speech": model.enhance(mixture.mixture, rate),
            "background": model.background(mixture.mixture, rate),
        }
        references = {part: getattr(mixture, part) for part in estimates}
        scores = metrics.separation(estimates, references)
        rows.append({"snr": mixture.snr, **{name: float(value) for name, value in scores.items()}})
    return rows


COLUMNS = {
    "speech: SI-SDR": "si_sdr/speech",
    "gain": "si_sdr_gain/speech",
    "background: SDR-B": "sdr/background",
    "gain ": "sdr_gain/background",
    "whole: SDR-O": "sdr/mixture",
}


def table(rows: list[dict[str, float]]) -> str:
    """Means per SNR, with standard errors, as markdown. A part of silence has an SDR of 0 dB."""
    lines = ["| SNR, dB | " + " | ".join(COLUMNS) + " | mixtures |", "|---" * (len(COLUMNS) + 2) + "|"]
    groups = {f"{snr:.0f}": [row for row in rows if row["snr"] == snr] for snr in sorted({row["snr"] for row in rows})}
    for label, group in (groups | {"all": rows}).items():
        cells = []
        for name in COLUMNS.values():
            values = np.array([row[name] for row in group])
            cells.append(f"{values.mean():+.1f} ± {values.std() / np.sqrt(len(values)):.1f}")
        lines.append(f"| {label} | " + " | ".join(cells) + f" | {len(group)} |")
    return "\n".join(lines)
