"""ONNX graphs in onnxruntime give what the PyTorch twin and JAX give, of any size, whole and in pieces."""

import json
import sys

import numpy as np
import onnx
import pytest

from decodec_jax import cli, testing
from decodec_jax.inference.codec import DeCodec

if sys.version_info >= (3, 12):
    pytest.importorskip("torch")

import torch

from decodec_jax.evaluation import onnx_agreement
from decodec_jax.interop import onnx_model, torch_model
from decodec_jax.interop.onnx_model import files

torch.set_num_threads(1)  # the sizes here are tiny, and other tests run at the same time

MODELS = {
    "waveform": {"causal": True, "strides": (5, 4), "lstm_layers": 2},
    "spectral": {"family": "spectral", "encoder_blocks": 0, "lstm_layers": 2},
    "spectral_causal": {
        "family": "spectral", "causal": True, "projection": "exact", "width": 48, "lstm_layers": 1,
        "speech": testing.tiny_quantizer(first_dim=2, levels=4, beam=3),
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory):
    """A twin and its graphs."""
    folder = testing.random_bundle(tmp_path_factory.mktemp(request.param), testing.tiny_model(**MODELS[request.param]))
    model = torch_model.DeCodec.from_pretrained(folder)
    onnx_model.write(model, folder, "0123456789abcdef", "not stated")
    return model, onnx_model.Runtime(folder), folder


def mixture(b: int, t: int) -> torch.Tensor:
    return torch.from_numpy(testing.speech_clips(b, t) + testing.background_clips(b, t))


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("b", "t"), [(1, 333), (3, 1000), (2, 20), (1, 1)])
def test_whole_recordings_of_any_size(both, b, t):
    model, runtime, _ = both
    wave = mixture(b, t)
    with torch.inference_mode():
        expected = model.take_apart(wave)
    codes = runtime.encode(wave)
    assert all(map(torch.equal, codes, expected.codes))
    assert_close(runtime.decode(*codes, t), expected.mixture)
    for part, wanted in zip(runtime.parts(wave), expected[1:3], strict=True):
        assert_close(part, wanted)


def test_levels_may_be_left_out(both):
    model, runtime, _ = both
    wave = mixture(2, 500)
    speech, background = runtime.encode(wave)
    fewer = torch.cat([speech[:, :1], torch.full_like(speech[:, 1:], -1)], dim=1)
    with torch.inference_mode():
        expected = model.decode(speech[:, :1], background, 500)
    assert_close(runtime.decode(fewer, background, 500), expected)


@pytest.mark.parametrize("frames", [1, 4])
def test_a_stream_gives_what_the_whole_gives(both, frames):
    model, runtime, _ = both
    if not model.config.causal:
        return
    hop, late = model.config.hop, model.lookahead
    wave, heard, said, made, sound = mixture(2, 12 * hop), (), (), [], []
    for piece in torch.nn.functional.pad(wave, (0, late * hop)).split(frames * hop, dim=1):
        heard, codes = runtime.encode_step(heard, piece)
        made.append(codes)
    made = [torch.cat(codes, dim=2)[..., late:] for codes in zip(*made, strict=True)]
    for codes in zip(*(half.split(frames, dim=2) for half in made), strict=True):
        said, samples = runtime.decode_step(said, *codes)
        sound.append(samples)
    whole = runtime.encode(wave)
    assert all(map(torch.equal, made, whole))
    assert_close(torch.cat(sound, dim=1), runtime.decode(*whole, wave.shape[1]))


def test_files_say_what_they_hold(both):
    model, runtime, folder = both
    for name, each in runtime.description["files"].items():
        assert (folder / name).stat().st_size == each["bytes"]
    inside = {p.key: p.value for p in onnx.load(folder / "encode.onnx", load_external_data=False).metadata_props}
    assert inside["fingerprint"] == "0123456789abcdef"
    assert json.loads(inside["hop"]) == model.config.hop
    assert ("zero_state" in inside) == model.config.causal
    for path in folder.glob("*.onnx"):
        onnx.checker.check_model(str(path))
        graph = onnx.load(path, load_external_data=False)
        assert {opset.domain for opset in graph.opset_import} == {""}, "operators that not every runtime has"


def test_steps_are_within_half_of_the_weights():
    weights = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    weights[3] = 0
    steps, scale = files.in_steps(weights)
    assert steps.dtype == np.int8 and abs(steps).max() == 127
    assert (abs(steps * scale - weights) <= 0.501 * scale).all()


def test_the_command_writes_compares_and_says_what_it_found(tmp_path, capsys):
    model = testing.tiny_model(family="spectral", causal=True, width=48, lstm_layers=0, decoder_blocks=1)
    bundle = testing.random_bundle(tmp_path / "model", model)
    assert cli.main(["export", str(bundle), str(tmp_path / "out"), "--half", "--int8", "--json"]) == 0
    written = capsys.readouterr()
    facts = json.loads(written.out)
    (found,) = facts["onnx"]["agreement"].values()
    assert found["different"] <= 0.01 * found["codes"] and found["distance"] < 1e-4 > found["distance_streamed"]
    assert set(facts["onnx"]["real_time_factors"]) == {"encode", "decode", "enhance", "encode_step", "decode_step"}
    assert "MB: decode.onnx" in written.err and "through eight bits" in written.err
    described = json.loads((tmp_path / "out/model.json").read_text())
    assert described["fingerprint"] == DeCodec.load(tmp_path / "out").fingerprint
    assert described["weights"] == "int8"


def test_what_does_not_agree_is_an_error(tmp_path, monkeypatch, capsys):
    bundle = testing.random_bundle(tmp_path / "model", testing.tiny_model(family="spectral", decoder_blocks=1))
    bad = onnx_agreement.Agreement(codes=100, different=90, distance=0.5)
    monkeypatch.setattr(onnx_agreement, "compare", lambda *_: bad)
    assert cli.main(["export", str(bundle), str(tmp_path / "out"), "--onnx"]) == 2
    assert "the ONNX graphs do not give what JAX gives: 90 of 100 codes differ" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "decodec_jax.evaluation.onnx_agreement", None)
    monkeypatch.delattr("decodec_jax.evaluation.onnx_agreement", raising=False)
    assert cli.main(["export", "built-in", str(tmp_path), "--onnx"]) == 2
    assert "pip install 'decodec_jax[onnx]'" in capsys.readouterr().err
