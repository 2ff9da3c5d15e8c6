"""Turns the scores of single items into tables of means, intervals and counts, as markdown, csv and json."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

EXACT = 60.0  # dB; an SDR above this reflects only rounding
PAPER = "paper (its own test set)"

LABELS = {
    "bss_sdr/mixture": "SDR-O (BSS-eval), dB",
    "sdr/mixture": "SDR-O, dB",
    "si_sdr/mixture": "SI-SDR of the whole, dB",
    "mel/mixture": "mel distance of the whole",
    "log_mel/mixture": "log mel distance of the whole",
    "log_mel/speech": "log mel distance of the speech",
    "log_mel/background": "log mel distance of the background",
    "bss_sdr/speech": "SDR-S (BSS-eval), dB",
    "sdr/speech": "SDR-S, dB",
    "si_sdr/speech": "SI-SDR of the speech, dB",
    "si_sdr_gain/speech": "SI-SDR gain over the mixture, dB",
    "bss_sdr/background": "SDR-B (BSS-eval), dB",
    "sdr/background": "SDR-B, dB",
    "sdr_gain/background": "SDR-B gain over the mixture, dB",
    "level/mixture": "the whole: level relative to the input (or to full scale, if silent), dB",
    "level/speech": "the speech: level relative to the input (or to full scale, if silent), dB",
    "level/background": "the background: level relative to the input (or to full scale, if silent), dB",
    "si_sdr_kept": "SI-SDR of the speech over that of the whole, dB",
    "pesq": "PESQ, wideband",
    "estoi": "ESTOI",
    "dnsmos/sig": "DNSMOS SIG",
    "dnsmos/bak": "DNSMOS BAK",
    "dnsmos/ovrl": "DNSMOS OVRL",
    "wer": "word error rate",
    "wer/original": "word error rate of the original",
    "cer": "character error rate",
    "per": "phone error rate",
    "similarity": "speaker similarity to the reference",
    "similarity/source": "speaker similarity to the source",
    "length": "length relative to the recording",
    "words": "words: correlation with the source's cepstra",
    "voice": "voice: from the source's, -1, to the reference's, 1",
    "kbps": "kbit/s",
    "kbps/speech": "kbit/s of the speech",
    "cosine": "cosine with the teacher",
    # from suites/leakage.py
    "frames/speech": "speech found in frames: balanced accuracy (0.5: by chance)",
    "frames/background": "loud background found in frames: balanced accuracy (0.5: by chance)",
    "angle/smallest": "smallest principal angle, degrees",
    "angle/mean": "mean principal angle, degrees",
    "angle/frames": "cosine of the halves of a frame, RMS",
    # from suites/pauses.py
    "pauses/level": "level in pauses, dB of full scale",
    "pauses/relative": "level in pauses relative to the prompt's pauses, dB",
    "pauses/log_mel": "log mel distance of pauses from the prompt's pauses",
    # from suites/probe.py
    "phones/codes": "phones from level 1, best guess for each code: accuracy",
    "phones/vectors": "phones from level 1, linear in its vectors: accuracy",
    "phones/chance": "phones from nothing: accuracy",
}


class Row(NamedTuple):
    """The scores of one item in one column of one table, by figure. A score that could not be computed is NaN."""

    group: str
    column: str
    item: str
    scores: Mapping[str, float]


class Figure(NamedTuple):
    """A mean with its 95 % bootstrap interval and the number of values."""

    mean: float
    low: float
    high: float
    count: int


Found = dict[str, dict[str, dict[str, Figure]]]  # by group, column and figure
Theirs = Mapping[str, Mapping[str, Mapping[str, float]]]  # the paper's numbers: by group, figure and name


def bootstrap(values: np.ndarray, seed: int = 0) -> Figure:
    """Mean and 95 % bootstrap interval of values `[n]`. Deterministic for a given seed."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), (2.5, 97.5))
    return Figure(float(values.mean()), float(low), float(high), len(values))


def summarised(rows: Iterable[Row], compared: Sequence[str] = ()) -> Found:
    """Summarise each score of each column of each group; everything keeps the order of first appearance.

    compared: columns to compare with the first of them. Each of the others gets an extra column with its item-by-item
    differences from the first.
    """
    scores: dict[str, dict[str, dict[str, dict[str, float]]]] = {}  # group, column, figure, item
    for row in rows:
        figures = scores.setdefault(row.group, {}).setdefault(row.column, {})
        for key, value in row.scores.items():
            if not math.isnan(value):
                figures.setdefault(key, {})[row.item] = value
    for columns in scores.values():
        first, *others = [column for column in compared if column in columns] or [""]
        for other in others:
            columns[f"{other} − {first}"] = _differences(columns[other], columns[first])
    return {
        group: {
            column: {key: bootstrap(np.array(list(values.values()), np.float64)) for key, values in figures.items()}
            for column, figures in columns.items()
        }
        for group, columns in scores.items()
    }


def _differences(ours: Mapping, theirs: Mapping) -> dict[str, dict[str, float]]:
    """`ours` minus `theirs`, by figure and item, for the items that both have scores for."""
    both = {key: [item for item in ours[key] if item in theirs[key]] for key in ours if key in theirs}
    return {key: {item: ours[key][item] - theirs[key][item] for item in items} for key, items in both.items() if items}


def markdown(columns: Mapping[str, Mapping[str, Figure]], theirs: Mapping[str, Mapping[str, float]] = {}) -> str:
    """The table of one group, with a line per figure: mean [95 % interval], or n/a if a column lacks the figure.

    theirs: the paper's numbers for these figures, by figure and name.
    """
    there = dict.fromkeys(key for column in columns.values() for key in column)
    keys = [key for key in LABELS if key in there] + [key for key in there if key not in LABELS]
    paper = any(key in there for key in theirs)
    lines = ["| " + " | ".join(["", *columns, "count", *([PAPER] if paper else [])]) + " |"]
    lines.append("|---" * (len(columns) + 2 + paper) + "|")
    for key in keys:
        found = [column[key] for column in columns.values() if key in column]
        count = max(each.count for each in found)
        cells = [label(key), *(_cell(key, column.get(key), count) for column in columns.values()), str(count)]
        if paper:
            cells.append(", ".join(f"{name} {value:.2f}" for name, value in theirs.get(key, {}).items()))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_csv(found: Found, theirs: Theirs) -> str:
    """One line for each figure of each column of each group. The paper's figures have no interval and no count."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "column", "figure", *Figure._fields])
    for group, columns in found.items():
        writer.writerows([group, column, key, *each] for column, row in columns.items() for key, each in row.items())
        there = {key for column in columns.values() for key in column}
        for key, numbers in theirs.get(group, {}).items():
            writer.writerows([group, f"{PAPER}: {name}", key, value, "", "", ""] for name, value in numbers.items()
                             if key in there)  # fmt: skip
    return text.getvalue()


def as_json(found: Found, rows: Iterable[Row], about: Mapping[str, object]) -> str:
    """The entries of `about`, all figures, and the scores of every item (null for NaN)."""
    figures = {
        group: {column: {key: each._asdict() for key, each in row.items()} for column, row in columns.items()}
        for group, columns in found.items()
    }
    scores = [
        row._asdict() | {"scores": {k: None if math.isnan(v) else float(v) for k, v in row.scores.items()}}
        for row in rows
    ]
    return json.dumps({**about, "figures": figures, "scores": scores}, indent=1) + "\n"


def write(folder: Path, title: str, found: Found, rows: Sequence[Row], theirs: Theirs, about: Mapping[str, object],
          notes: Sequence[str] = ()) -> dict[str, str]:  # fmt: skip
    """Write tables.md, .csv and .json to the folder, and return the markdown of each group by heading."""
    made = {f"{title}, {group}": markdown(columns, theirs.get(group, {})) for group, columns in found.items()}
    page = [f"# {title}", *(f"## {heading}\n\n{table}" for heading, table in made.items()), *notes]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tables.md").write_text("\n\n".join(page) + "\n")
    (folder / "tables.csv").write_text(as_csv(found, theirs))
    (folder / "tables.json").write_text(as_json(found, rows, about))
    return made


def label(key: str) -> str:
    """A figure's name in words."""
    match key.split("/"):
        case "bits", stream, level:
            return f"entropy of {stream} level {level}, bits"
        case "used", stream:
            return f"share of the {stream} entries used, mean of levels"
    return LABELS.get(key, key)


def exact(key: str, each: Figure) -> bool:
    """Whether a figure is that of a perfect estimate: an SDR whose whole interval is above `EXACT`."""
    return "sdr" in key and "gain" not in key and each.low > EXACT


def _cell(key: str, each: Figure | None, count: int) -> str:
    """The figure in words; with its own count if that is below `count`, the line's: its mean is of fewer items."""
    if each is None:
        return "n/a"
    fewer = f" ({each.count} only)" if each.count < count else ""
    if exact(key, each):
        return f"exact{fewer}"
    mean, low, high = (f"{value:z.2f}" for value in each[:3])
    return mean + fewer if each.count == 1 else f"{mean} [{low}, {high}]{fewer}"
