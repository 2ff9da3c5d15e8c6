"""Models whose scores are known get exactly those; codes and cosines against the network's own."""

import csv
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from decodec_jax import config as settings
from decodec_jax.codec.model import DeCodecNetwork
from decodec_jax.config import Data, Model
from decodec_jax.data.sources import open_source
from decodec_jax.errors import UserError
from decodec_jax.evaluation import compare, judges, metrics, separation
from decodec_jax.inference.codec import DeCodec
from decodec_jax.objective.teacher import CepstraTeacher
from decodec_jax.testing import full_config, random_variables

RATE = 16_000
PROGRAM = Path(__file__).parents[2] / "launch/compare.py"


@pytest.fixture(scope="module")
def mixtures():
    return separation.make_mixtures(open_source(Data(), RATE, "test"), count=1, seconds=0.5)


@pytest.fixture(scope="module")
def codec():
    """Of codes and with a projection to the teacher's width, its weights at random."""
    config = full_config().model
    variables = random_variables(DeCodecNetwork(config), np.zeros((1, config.hop), np.float32))
    return DeCodec(config, variables["params"], variables["codebook"])


@pytest.fixture
def opinion(monkeypatch):
    """In DNSMOS's place, how loud it is."""
    def loudness(wave, rate, transcript=None):
        return {"dnsmos/ovrl": float(np.mean(wave**2))}

    monkeypatch.setattr(judges, "dnsmos", loudness)
    return loudness


def stub(task, **more):
    return SimpleNamespace(
        config=Model(), quantized=False, step=7, reconstruct=task, enhance=task, background=task, **more
    )


def test_a_model_that_returns_its_input_is_the_untouched_mixture(mixtures, opinion):
    scores = compare.measure(stub(lambda wave, rate: wave), mixtures)
    floors = compare.floors_and_ceilings(mixtures, RATE)
    for name, values in floors["mixture"].items():
        np.testing.assert_array_equal(scores[name], values)
    assert np.all(scores["sdr/mixture"] > 60) and np.all(scores["mel/mixture"] == 0)
    np.testing.assert_allclose(scores["sdr/background"], [-mixture.snr for mixture in mixtures], atol=0.01)
    truth = [opinion(mixture.speech, RATE)["dnsmos/ovrl"] for mixture in mixtures]
    np.testing.assert_array_equal(floors["clean speech"]["dnsmos/ovrl"], truth)


def test_entropies_are_those_of_the_codes_that_the_model_gives(codec, mixtures):
    scores = compare.codebooks(codec, mixtures)
    codes = np.stack([codec.encode(mixture.mixture, RATE).speech for mixture in mixtures])
    for level, effective in enumerate(metrics.perplexity(codes, 16)):
        bits = scores[f"bits/speech/{level + 1}"]
        assert bits.shape == (len(mixtures),) and bits.mean() == pytest.approx(np.log2(effective), abs=1e-6)
    assert scores["used/speech"] == pytest.approx([metrics.usage(codes, 16).mean()])
    assert 0 < scores["used/background"].item() <= 1


def test_cosines_are_those_of_the_first_level_s_vectors(codec, mixtures):
    """Here from the codes that the codec gives, and by numpy's correlation of what has zero mean."""
    network, variables = DeCodecNetwork(codec.config), {"params": codec.params, "codebook": codec.codebook}
    kernel, bias = (np.asarray(codec.params["semantic_projection"][name]) for name in ("kernel", "bias"))
    entries = jax.tree.leaves(variables["codebook"]["speech_quantizer"])[0][0]
    found = compare.cosines(codec, mixtures, CepstraTeacher())
    assert network.config.speech.dim == 0 and found.shape == (len(mixtures),)
    for mixture, cosine in zip(mixtures[:2], found, strict=False):
        projected = np.asarray(entries)[codec.encode(mixture.mixture, RATE).speech[0]] @ kernel + bias
        target = np.asarray(CepstraTeacher().targets(mixture.speech[None])[0])
        expected = (projected * target).sum(0) / np.linalg.norm(projected, axis=0) / np.linalg.norm(target, axis=0)
        assert cosine == pytest.approx(expected.mean(), abs=1e-3)


def test_a_figure_is_the_mean_and_an_interval_that_shrinks_with_the_count(rng):
    values = rng.standard_normal(400)
    few, many = compare.figure(values[:25]), compare.figure(values)
    assert many == compare.figure(values) and many.count == 400 and many.mean == values.mean()
    half = 1.96 * values.std() / np.sqrt(400)
    assert (many.low, many.high) == pytest.approx((many.mean - half, many.mean + half), abs=0.02)
    assert few.high - few.low > 2.5 * (many.high - many.low)
    assert compare.figure(np.array([3.0])) == (3.0, 3.0, 3.0, 1)


def test_differences_are_of_the_same_mixtures(rng):
    plain = {"sdr/speech": rng.standard_normal(10), "cosine": np.zeros(10)}
    found = compare.figures({"a": plain, "b": {"sdr/speech": plain["sdr/speech"] + 2}}, ["a", "b"])
    assert list(found) == ["a", "b", "b − a"] and list(found["b − a"]) == ["sdr/speech"]
    assert found["b − a"]["sdr/speech"] == pytest.approx((2, 2, 2, 10))


def test_the_table_says_what_there_is_and_what_is_not():
    columns = {"a": {"sdr/speech": np.array([1.0, 3.0]), "bits/speech/12": np.ones(2)}, "b": {}}
    found = compare.figures(columns, ["a", "b"])
    lines = compare.table(found, paper=True).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| SDR-S, dB | 2.00 [1.00, 3.00] | n/a | n/a | 2 | -1.91, 3.03, 7.90, 5.70, 6.73 |"
    assert lines[3].startswith("| entropy of speech level 12, bits | 1.00") and lines[3].endswith("| 2 |  |")
    rows = list(csv.DictReader(compare.as_csv(found).splitlines()))
    assert rows[0] == {"column": "a", "figure": "sdr/speech", "mean": "2.0", "low": "1.0", "high": "3.0", "count": "2"}


# --- the program ------------------------------------------------------------------------------------------------------


def test_the_program_prints_and_saves_the_table(opinion, monkeypatch, tmp_path, capsys):
    models = {"silent": stub(lambda wave, rate: 0 * wave), "same": stub(lambda wave, rate: wave)}
    monkeypatch.setattr(DeCodec, "load", lambda path: models[path.name])
    for name in models:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(settings.to_dict(full_config())))
    program = runpy.run_path(str(PROGRAM))
    assert isinstance(program["teacher_of"](tmp_path / "same"), CepstraTeacher)
    monkeypatch.setitem(program["main"].__globals__, "teacher_of", lambda path: None)
    named = [f"{name}={tmp_path / name}" for name in models]
    monkeypatch.setattr("sys.argv", ["compare.py", "--models", *named, "--root", "", "--out", str(tmp_path / "out"),
                                     "--count", "1", "--seconds", "0.2"])  # fmt: skip
    program["main"]()
    text = (tmp_path / "out/compare.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert text.splitlines()[0].startswith("|  | mixture | clean speech | silent | same | same − silent | count |")
    saved = json.loads((tmp_path / "out/compare.json").read_text())
    assert saved["models"]["same"]["step"] == 7 and len(saved["scores"]["same"]["sdr/speech"]) == 6
    assert saved["figures"]["silent"]["sdr/speech"]["mean"] == pytest.approx(0, abs=1e-4)
    assert "same − silent,sdr/background" in (tmp_path / "out/compare.csv").read_text()


@pytest.mark.parametrize(("models", "message"), [
    (["runs/small"], "must be NAME=MODEL"), (["=runs/small"], "must be NAME=MODEL"), (["a=x", "a=y"], "two called 'a'"),
])  # fmt: skip
def test_models_have_names_of_their_own(models, message):
    with pytest.raises(UserError, match=message):
        runpy.run_path(str(PROGRAM))["named"](models)
