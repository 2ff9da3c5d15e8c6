"""Systems with known scores get exactly those scores, and a random model runs through every suite."""

import csv
import json
import math

import numpy as np
import pytest

from decodec_jax.errors import UserError
from decodec_jax.evaluation.metrics import judges
from decodec_jax.evaluation.reports import paper, tables
from decodec_jax.evaluation.suites import scoring, suite
from decodec_jax.evaluation.suites.scoring import Tools
from decodec_jax.evaluation.suites.suite import Loaded
from decodec_jax.evaluation.systems.base import Output, System, decodec, oracle, silence, untouched
from decodec_jax.inference.codec import DeCodec
from decodec_jax.testing import full_config, random_bundle

TOOLS = Tools(  # stand-ins: 1 unless silent, the mean power, and one over the number of words
    {"estoi": lambda estimate, reference, rate: float("nan") if not estimate.any() else 1.0},
    lambda wave, rate, transcript=None: {"dnsmos/ovrl": float(np.mean(wave**2))},
    lambda wave, rate, transcript=None: {"wer": 1 / len(transcript.split())},
    missing=["PESQ (pesq is not installed; pip install it)"],
)


@pytest.fixture(scope="module")
def mixtures():
    return suite.load("", "enhancement", 1, seconds=0.5)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = random_bundle(tmp_path_factory.mktemp("models") / "tiny", full_config().model)
    return Loaded("tiny", path, DeCodec.load(path))


def saved(folder):
    """The saved scores of all rows, by column and item."""
    rows = json.loads((folder / "tables.json").read_text())["scores"]
    return {(row["column"], row["item"]): row["scores"] for row in rows}


# --- known scores -----------------------------------------------------------------------------------------------------


def test_mixture_silence_and_oracle_have_their_known_scores(mixtures, tmp_path):
    made = suite.run("enhancement", [untouched(), silence(), oracle()], mixtures, tmp_path, tools=TOOLS)
    scores = saved(tmp_path)
    *mixed, clean = mixtures
    for item in mixed:
        same, nothing, truth = (scores[name, item.name] for name in ("mixture", "silence", "oracle"))
        assert same["si_sdr_gain/speech"] == same["sdr_gain/background"] == 0 and same["sdr/mixture"] > tables.EXACT
        assert same["sdr/speech"] == pytest.approx(item.snr, abs=0.01)
        assert same["sdr/background"] == pytest.approx(-item.snr, abs=0.01)
        for key in ("sdr/speech", "bss_sdr/speech", "sdr/background", "bss_sdr/background", "sdr/mixture"):
            plain = key.startswith("sdr")  # metrics that allow scaling or filtering are undefined for silence
            assert (nothing[key] == pytest.approx(0, abs=1e-3) if plain else nothing[key] is None)
            assert truth[key] > tables.EXACT
        assert nothing["si_sdr_gain/speech"] is None and nothing["estoi"] is None
        assert truth["dnsmos/ovrl"] == float(np.mean(item.speech**2))
        assert truth["si_sdr_gain/speech"] > tables.EXACT - item.snr and truth["mel/mixture"] == 0
        assert truth["log_mel/speech"] == truth["log_mel/background"] == 0 < same["log_mel/speech"]
    alone = scores["mixture", clean.name]  # clean speech needs no separation
    assert alone["log_mel/speech"] == 0 and "si_sdr_gain/speech" not in alone and "sdr/background" not in alone
    headings = ["all SNRs", *(f"{item.snr:.0f} dB" for item in mixed), "clean"]
    assert list(made) == [f"enhancement, {heading}" for heading in headings]
    assert "| SDR-S, dB |" in made["enhancement, all SNRs"] and "DeCodec 3.39" in made["enhancement, all SNRs"]
    assert "Not measured: PESQ (pesq is not installed; pip install it)." in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "si_sdr_speech_per_snr.png").is_file()


def test_reconstruction_scores_of_known_systems(mixtures, tmp_path):
    codec = System("half", {"reconstruct": lambda item: Output(item.mixture / 2, bits=len(item.mixture))})
    items = suite.load("", "reconstruction", 1, seconds=0.5)
    items = [item._replace(mixture=item.mixture[:8000], speech=item.speech[:8000], transcript="") for item in items]
    deaf = System("enhancer", {"enhance": lambda item: Output(item.speech)})
    suite.run("reconstruction", [untouched(), silence(), codec, deaf], items, tmp_path, tools=TOOLS)
    scores = saved(tmp_path)
    assert {column for column, _ in scores} == {"mixture", "silence", "half"}
    for item in items:
        same, nothing, half = (scores[name, item.name] for name in ("mixture", "silence", "half"))
        assert same["bss_sdr/mixture"] > tables.EXACT and same["mel/mixture"] == same["log_mel/mixture"] == 0
        assert nothing["sdr/mixture"] == pytest.approx(0, abs=1e-3) and "kbps" not in same
        assert half["sdr/mixture"] == pytest.approx(20 * np.log10(2), abs=1e-3) and half["kbps"] == 16
        assert half["si_sdr/mixture"] > tables.EXACT and half["bss_sdr/mixture"] > tables.EXACT
    assert (tmp_path / "noisy_dnsmos_ovrl_per_kbps.png").is_file()  # drawn because no score is exact
    assert not (tmp_path / "noisy_bss_sdr_mixture_per_kbps.png").is_file()
    rows = list(csv.DictReader((tmp_path / "tables.csv").open()))
    assert {row["group"] for row in rows} == {"clean", "noisy"}
    theirs = [row for row in rows if row["column"] == f"{tables.PAPER}: DeCodec" and row["group"] == "noisy"]
    assert {row["figure"]: row["mean"] for row in theirs}["bss_sdr/mixture"] == "5.21"


def test_absence_scores_of_known_systems(tmp_path):
    items = suite.load("", "absence", 1)
    assert [len(item.mixture) / item.rate for item in items[:2]] == [30.0, 30.0] and len(items) == 3
    assert not items[0].mixture.any() and not items[1].speech.any() and items[1].background.any()
    suite.run("absence", [untouched(), silence(), oracle()], items, tmp_path, tools=TOOLS)
    scores = saved(tmp_path)
    for item in items:
        same, nothing = scores["mixture", item.name], scores["silence", item.name]
        quiet = not item.mixture.any()
        assert same["level/speech"] == pytest.approx(-120 if quiet else 0, abs=1e-3)
        assert nothing["level/speech"] <= -60 and nothing["level/background"] == nothing["level/speech"]
    assert scores["mixture", items[2].name]["si_sdr_kept"] == 0


def test_words_are_judged_only_with_a_transcript(mixtures):
    item = mixtures[0]._replace(transcript="four words of it")
    scores = scoring.separation(oracle(), item, TOOLS)
    assert scores["wer"] == scores["wer/original"] == 0.25
    assert "wer" not in scoring.separation(oracle(), mixtures[0], TOOLS)


def test_missing_tools_are_named(monkeypatch):
    def package(name):
        if name == "pesq":
            raise UserError(f"{name} is not installed; pip install {name}")
        return name

    def missing():
        raise UserError("that is not installed; pip install that")

    monkeypatch.setattr("decodec_jax.evaluation.extras.package", package)
    monkeypatch.setattr(judges, "whisper", missing)
    monkeypatch.setattr(judges, "speaker", missing)
    tools = scoring.tools()
    assert tools.quality.keys() == {"estoi"} and tools.opinion is not None
    assert tools.words is None and tools.similarity is None
    assert tools.missing == [
        "PESQ (pesq is not installed; pip install pesq)",
        "word error rate (that is not installed; pip install that)",
        "speaker similarity (that is not installed; pip install that)",
    ]


def test_the_papers_numbers_belong_to_existing_suites_and_figures():
    assert paper.TABLES.keys() <= suite.SUITES.keys()
    assert {key for groups in paper.TABLES.values() for rows in groups.values() for key in rows} <= tables.LABELS.keys()
    assert paper.TABLES["ablation"]["all SNRs"]["bss_sdr/speech"]["DeCodec"] == 6.73
    assert paper.TABLES["enhancement"]["paired"]["dnsmos/bak"]["SELM"] == 3.44


# --- a model ----------------------------------------------------------------------------------------------------------


def short(items):
    """Half a second of each item, so that all suites share compiled code."""
    parts = ("mixture", "speech", "background")
    return [
        item._replace(**{part: None if getattr(item, part) is None else getattr(item, part)[:8000] for part in parts})
        for item in items
    ]


@pytest.mark.parametrize(("name", "groups", "columns"), [
    ("reconstruction", {"clean", "noisy"}, {"tiny"}),
    ("enhancement", {"all SNRs", "0 dB", "20 dB"}, {"tiny"}),
    ("absence", {"silence", "background alone", "speech alone"}, {"tiny"}),
    ("conversion", {"converted"}, {"source", "tiny, unconverted", "tiny, content", "tiny, tile"}),
    ("ablation", {"all SNRs", "first level, clean speech"}, {"mixture", "oracle", "tiny", "other", "other − tiny"}),
    ("leakage", {"outputs", "frames", "subspaces", "left out", "bitrates"},
     {"true background", "tiny, background codes", "tiny, weights", "tiny, blank", "tiny, 0.4 kbit/s"}),
])  # fmt: skip
def test_a_random_model_runs_through_every_suite(name, groups, columns, loaded, monkeypatch, tmp_path):
    if name != "leakage":  # drawing takes time, so do it once
        monkeypatch.setattr(suite.charts, "draw", lambda found, out: None)
    items = short(suite.load("", name, 1, seconds=0.5))
    models = [loaded, loaded._replace(name="other")] if name == "ablation" else [loaded]
    systems = [decodec(each.name, each.model) for each in models]
    if name == "ablation":  # the built-in speech has no transcripts
        items = [item for item in items if item.background is not None]
        groups = {"all SNRs"}
    made = suite.run(name, systems, items, tmp_path, models, TOOLS)
    found = json.loads((tmp_path / "tables.json").read_text())
    assert {f"{name}, {group}" for group in groups} <= made.keys()
    assert made.keys() == {f"{name}, {group}" for group in found["figures"]}
    assert columns <= {column for group in found["figures"].values() for column in group}
    for figure in (f for group in found["figures"].values() for column in group.values() for f in column.values()):
        assert figure["low"] <= figure["mean"] <= figure["high"] and figure["count"] >= 1
        assert math.isfinite(figure["mean"])
    assert found["models"]["tiny"] == {"path": str(loaded.path), "step": 7}
    assert len(list((tmp_path / "items").glob("*.wav"))) >= len(items)
    assert f"# {name}\n" in (tmp_path / "tables.md").read_text()
    if name == "ablation":
        assert found["figures"]["all SNRs"]["other − tiny"]["bss_sdr/speech"]["mean"] == 0
        assert {"bits/speech/2", "used/background"} <= found["figures"]["all SNRs"]["tiny"].keys()
        assert "probe of the first level" in found["notes"][-1]


def test_models_that_cannot_convert_are_refused(loaded, tmp_path):
    continuous = loaded._replace(model=DeCodec(loaded.model.config, {}, {}, quantized=False))
    items = short(suite.load("", "conversion", 1))
    with pytest.raises(UserError, match="have not started yet"):
        suite.run("conversion", [], items, tmp_path, [continuous], TOOLS)


@pytest.mark.parametrize(("arguments", "message"), [
    (("nowhere",), "'nowhere'; choose from reconstruction, enhancement"), (("leakage", 0), "limit is 0"),
    (("leakage", 1, 0, -1.0), "last -1 s; both must be above 0"),
])  # fmt: skip
def test_unknown_suites_and_impossible_limits_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        suite.load("", *arguments)
