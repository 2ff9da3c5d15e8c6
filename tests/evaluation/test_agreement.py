"""The report on the agreement of PyTorch and JAX is correct, and good only if they agree."""

import json
import sys

import pytest

from decodec_jax import audio, cli, testing
from decodec_jax.inference.codec import DeCodec

if sys.version_info >= (3, 12):  # as in test_torch_model.py
    pytest.importorskip("torch")

import torch

from decodec_jax.evaluation import agreement
from decodec_jax.interop import torch_model

RATE = 16_000


MODELS = {
    "whole": {"strides": (20,), "dilations": ()},
    "causal": {"strides": (20,), "dilations": (), "causal": True},
    "spectral": {"family": "spectral", "causal": True, "lstm_layers": 0, "decoder_blocks": 1},
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    """A bundle with random weights."""
    config = testing.tiny_model(**MODELS[request.param])
    return testing.random_bundle(tmp_path_factory.mktemp("models") / "tiny", config)


@pytest.fixture(scope="module")
def pair(folder):
    return DeCodec.load(folder), torch_model.DeCodec.from_pretrained(folder)


def clips(t):
    return testing.speech_clips(2, t) + testing.background_clips(2, t)


@pytest.mark.parametrize(("shape", "rate"), [((333,), RATE), ((2, 917), 44_100)])
def test_jax_and_pytorch_agree(pair, shape, rate):
    found = agreement.compare(*pair, clips(shape[-1])[: len(shape)].reshape(shape), rate)
    assert found.good and (found.codes, found.different) == (17 * 4, 0) and found.distance < 1e-5
    if pair[0].config.causal:
        assert found.different_streamed == 0 and found.distance_streamed < 1e-5
    else:
        assert found.different_streamed is found.distance_streamed is None


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_changed_weight_is_detected(folder, pair, part):
    other = torch_model.DeCodec.from_pretrained(folder)
    with torch.no_grad():
        side = getattr(other, part)
        getattr(side, "head" if hasattr(side, "head") else "last").bias += 0.5
    found = agreement.compare(pair[0], other, clips(333)[0], RATE)
    assert not found.good
    assert (found.different > 0, found.distance > 1e-4) == (part == "encoder", part == "decoder")
    if pair[0].config.causal:
        assert found.different_streamed == found.different
        assert found.distance_streamed == pytest.approx(found.distance, abs=1e-6)


def test_export_checks_the_bundle_it_wrote(folder, tmp_path, capsys, monkeypatch):
    name = str(tmp_path / "a.wav")
    audio.write(name, clips(333), RATE)
    command = ["export", str(folder), str(tmp_path / "out"), "--json", "--check", name]
    assert cli.main(command) == 0
    written = capsys.readouterr()
    assert f"decodec: {name}: of PyTorch and JAX, 0 of 68 codes differ, samples by " in written.err
    assert json.loads(written.out)["check"][name]["codes"] == 68
    monkeypatch.setattr(agreement, "FARTHEST", -1.0)
    assert cli.main(command) == 2


def test_without_torch_nothing_is_written(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "decodec_jax.evaluation.agreement")
    monkeypatch.delattr("decodec_jax.evaluation.agreement")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["export", str(folder), str(tmp_path / "out"), "--check", "a.wav"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "decodec: --check needs PyTorch, which is not installed: pip install 'decodec_jax[torch]'"
    assert not list(tmp_path.iterdir())
