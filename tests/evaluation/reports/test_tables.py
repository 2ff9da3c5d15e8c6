"""Bootstrap intervals against the textbook formula, and tables cell by cell."""

import csv
import json

import numpy as np
import pytest

from decodec_jax.evaluation.reports import tables
from decodec_jax.evaluation.reports.tables import Row


def rows(group, column, **scores):
    """One row for each position in the lists of scores."""
    count = len(next(iter(scores.values())))
    named = {key.replace("__", "/"): values for key, values in scores.items()}
    return [Row(group, column, str(n), {key: values[n] for key, values in named.items()}) for n in range(count)]


def test_bootstrap_gives_the_mean_and_an_interval_that_shrinks_with_the_count(rng):
    values = rng.standard_normal(400)
    few, many = tables.bootstrap(values[:25]), tables.bootstrap(values)
    assert many == tables.bootstrap(values) and many.count == 400 and many.mean == values.mean()
    half = 1.96 * values.std() / np.sqrt(400)
    assert (many.low, many.high) == pytest.approx((many.mean - half, many.mean + half), abs=0.02)
    assert few.high - few.low > 2.5 * (many.high - many.low)
    assert tables.bootstrap(np.array([3.0])) == (3.0, 3.0, 3.0, 1)


def test_differences_are_taken_between_scores_of_the_same_item(rng):
    plain = rng.standard_normal(10)
    found = tables.summarised([
        *rows("all", "mixture", sdr__speech=plain), *rows("all", "a", sdr__speech=plain, cosine=np.zeros(10)),
        *rows("all", "b", sdr__speech=(plain + 2)[:7]),
    ], ["a", "b"])["all"]  # fmt: skip
    assert list(found) == ["mixture", "a", "b", "b − a"] and list(found["b − a"]) == ["sdr/speech"]
    assert found["b − a"]["sdr/speech"] == pytest.approx((2, 2, 2, 7))


def test_nan_scores_are_not_counted():
    found = tables.summarised(rows("all", "a", pesq=[1.0, float("nan"), 2.0], wer=[float("nan")] * 3))
    assert found["all"]["a"].keys() == {"pesq"} and found["all"]["a"]["pesq"].count == 2


def test_means_of_fewer_items_say_so():
    nan = float("nan")
    found = tables.summarised([*rows("all", "a", pesq=[1.0, 2.0, 3.0]), *rows("all", "b", pesq=[4.0, nan, nan])])
    assert tables.markdown(found["all"]).splitlines()[-1].endswith("| 2.00 [1.00, 3.00] | 4.00 (1 only) | 3 |")


def test_the_table_marks_exact_and_missing_figures():
    found = tables.summarised([
        *rows("all", "a", bss_sdr__speech=[1.0, 3.0], bits__speech__12=[1.0, 1.0]),
        *rows("all", "oracle", bss_sdr__speech=[90.0, 99.0]), Row("all", "b", "0", {}),
    ])["all"]  # fmt: skip
    lines = tables.markdown(found, {"bss_sdr/speech": {"DeCodec": 6.73}, "wer": {"DeCodec": 0.5}}).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[0] == "|  | a | oracle | b | count | paper (its own test set) |"
    assert lines[2] == "| SDR-S (BSS-eval), dB | 2.00 [1.00, 3.00] | exact | n/a | 2 | DeCodec 6.73 |"
    assert lines[3].startswith("| entropy of speech level 12, bits | 1.00") and len(lines) == 4
    assert "paper" not in tables.markdown(found)


def test_files_hold_every_figure_and_every_score(tmp_path):
    measured = rows("5 dB", "a", wer=[0.0, float("nan"), 1.0])
    found = tables.summarised(measured)
    theirs = {"5 dB": {"wer": {"DeCodec": 0.5}}}
    made = tables.write(tmp_path / "x", "noise", found, measured, theirs, {"k": 1}, ["No."])
    text = (tmp_path / "x/tables.md").read_text()
    assert list(made) == ["noise, 5 dB"] and made["noise, 5 dB"] in text and text.endswith("\n\nNo.\n")
    ours, paper = csv.DictReader((tmp_path / "x/tables.csv").open())
    assert (ours["mean"], ours["count"], paper["column"]) == ("0.5", "2", "paper (its own test set): DeCodec")
    saved = json.loads((tmp_path / "x/tables.json").read_text())
    assert saved["k"] == 1 and saved["figures"]["5 dB"]["a"]["wer"]["count"] == 2
    assert [row["scores"]["wer"] for row in saved["scores"]] == [0.0, None, 1.0]
