"""Track quality during training: `python launch/sentinel.py RUN --data FOLDER --table docs/sentinel.csv`.

Measures a bundle, or the newest checkpoint of a run folder, on a small fixed set of held-out clips, both clean speech
and mixtures. The metrics are of the speech decoded from the speech tokens alone. Word error rates of clean speech
compare what Whisper hears in it with what Whisper hears in the original. Appends a row to the table and plots the table
in a png next to it. Run it every 100,000 mixture-seconds or so.

`python launch/sentinel.py RUN --data FOLDER --against OTHER` compares two models on the same clips, five times as many.
It prints the mean difference of each metric and its standard error. Small steps of training need this.
"""

import argparse
import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from decodec_jax import config as settings
from decodec_jax.config import Data
from decodec_jax.data import sources
from decodec_jax.errors import UserError
from decodec_jax.evaluation import metrics
from decodec_jax.evaluation.metrics import judges
from decodec_jax.evaluation.suites import items
from decodec_jax.evaluation.systems.base import Item
from decodec_jax.inference.codec import DeCodec
from decodec_jax.launching import one_line

CLEAN, MIXTURES = 12, 2  # numbers of clean clips, and of mixtures at each SNR
MORE_CLEAN, MORE_MIXTURES = 60, 8  # the same for comparisons
SECONDS = 8.0
FIGURES = ("PESQ", "ESTOI", "log mel", "OVRL")
WORDS = ("WER", "WER of level 1")  # decoded from all speech levels, and from the first alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("model", help="run folder or bundle")
    parser.add_argument("--data", required=True, help="folder of the training data")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", type=Path, help="csv file to append to; the plot goes next to it")
    what.add_argument("--against", help="print how much better the model is than this run, bundle or built-in")
    parser.add_argument("--run", help="name of the run in the table (default: the folder's name)")
    parser.add_argument("--seen", type=float, help="mixture-seconds of training (needed for a bundle)")
    arguments = parser.parse_args()
    codec = DeCodec.load(arguments.model)
    if not codec.quantized:
        raise UserError(f"{arguments.model} has no codes yet; measure it once its codebooks have started")
    source = sources.open_source(Data(root=arguments.data, cache_mb=0), codec.config.sample_rate, "valid")
    if arguments.against:
        compare(codec, DeCodec.load(arguments.against), source)
        return
    seen = arguments.seen if arguments.seen is not None else seconds_seen(Path(arguments.model), codec.step)
    row = {"run": arguments.run or Path(arguments.model).name, "mixture-seconds": round(seen)}
    row |= {"step": codec.step, "weights": codec.fingerprint}
    row |= {f"clean {name}": value for name, value in measured(codec, items.clean(source, CLEAN)).items()}
    row |= {f"mixtures {name}": value for name, value in measured(codec, items.mixtures(source, MIXTURES)).items()}
    row |= word_errors(codec, items.clean(source, CLEAN), judges.recogniser(), judges.whisper())
    append(arguments.table, row)
    draw(arguments.table.with_suffix(".png"), read(arguments.table))
    print(", ".join(f"{name} {value}" for name, value in row.items()))


def seconds_seen(run: Path, step: int) -> float:
    """Mixture-seconds that a run has trained on. Raises UserError if this is not a run folder."""
    if not (run / "checkpoints").is_dir():
        raise UserError(f"{run} is not a run folder, so its amount of training is unknown; give --seen")
    data = settings.load(run / "config.json").data
    return step * 2 * data.batch * data.seconds


def measured(codec: DeCodec, chosen: Sequence[Item]) -> dict[str, float]:
    """Mean metrics of the speech decoded from speech tokens, against the true speech."""
    means = np.nanmean(clip_by_clip(codec, chosen), axis=0)
    return {name: round(float(value), 3) for name, value in zip(FIGURES, means, strict=True)}


def clip_by_clip(codec: DeCodec, chosen: Sequence[Item]) -> np.ndarray:
    """The metrics of each clip, `[clips, metrics]`."""
    rows = []
    for item in chosen:
        t = round(SECONDS * item.rate)
        speech, heard = item.speech[:t], codec.enhance(item.mixture[:t], item.rate)
        rows.append((
            metrics.pesq(heard, speech, item.rate), metrics.estoi(heard, speech, item.rate),
            float(metrics.log_mel_distance(heard, speech, item.rate)), judges.dnsmos(heard, item.rate)["dnsmos/ovrl"],
        ))  # fmt: skip
    return np.array(rows)


def compare(codec: DeCodec, other: DeCodec, source: sources.ClipSource) -> None:
    """Print the mean difference of each metric, codec less other, and its standard error over the clips."""
    groups = {"clean": items.clean(source, MORE_CLEAN), "mixtures": items.mixtures(source, MORE_MIXTURES)}
    for group, chosen in groups.items():
        better = clip_by_clip(codec, chosen) - clip_by_clip(other, chosen)
        clips = np.sum(np.isfinite(better), axis=0)
        means, errors = np.nanmean(better, axis=0), np.nanstd(better, axis=0, ddof=1) / clips**0.5
        columns = (f"{name} {mean:+.3f} ({se:.3f})" for name, mean, se in zip(FIGURES, means, errors, strict=True))
        print(f"{group}, {len(chosen)} clips: {', '.join(columns)}")


def word_errors(
    codec: DeCodec, chosen: Sequence[Item], recognise: judges.Recogniser, judge: judges.Judge
) -> dict[str, float]:
    """Mean word error rates against what `recognise` hears in the originals; at most 1 for each clip."""
    rows = []
    for item in chosen:
        original = item.mixture[: round(SECONDS * item.rate)]
        said = recognise(original)
        if not re.search("[a-z]", said.lower()):
            continue  # synthetic clips have no words
        decoded = codec.enhance(original, item.rate), codec.semantic(original, item.rate)
        rows.append([min(judge(wave, item.rate, said)["wer"], 1.0) for wave in decoded])
    means = np.mean(rows, axis=0) if rows else (np.nan, np.nan)
    return {name: round(float(value), 3) for name, value in zip(WORDS, means, strict=True)}


def append(table: Path, row: dict) -> None:
    """Add a row to the table; a new table gets a header."""
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def read(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def draw(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Plot each metric against the mixture-seconds seen, for clean speech and mixtures of each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3), layout="constrained")
    panels = {name: {f"clean {name}": "-", f"mixtures {name}": "--"} for name in FIGURES}
    panels["WER, clean"] = {"WER": "-", "WER of level 1": ":"}
    for axis, (title, columns) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for number, run in enumerate(dict.fromkeys(row["run"] for row in rows)):
            for column, style in columns.items():
                known = [row for row in rows if row["run"] == run and row[column]]
                seen = [float(row["mixture-seconds"]) / 1000 for row in known]
                axis.plot(seen, [float(row[column]) for row in known], style, color=f"C{number}", marker="o",
                          markersize=3, label=f"{run}, {column.removesuffix(' ' + title)}")  # fmt: skip
        axis.set(title=title, xlabel="thousand mixture-seconds")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    with one_line("sentinel.py"):
        main()
