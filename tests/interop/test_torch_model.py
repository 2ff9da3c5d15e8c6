"""The PyTorch model gives what JAX gives, of the same bundle; and what it writes, JAX reads.

The `test` extra brings torch for Python 3.11, where none of this is ever skipped.
"""

import ast
import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from decodec_jax import config, testing
from decodec_jax.codec import spectral, spectrum, waveform
from decodec_jax.codec.model import DeCodecNetwork, Halves, TakenApart
from decodec_jax.inference import bundle

if sys.version_info >= (3, 12):
    pytest.importorskip("torch")

import torch

from decodec_jax.interop import torch_model
from decodec_jax.interop.torch_model import DeCodec, Player, to_torchscript

torch.set_num_threads(1)  # the sizes here are tiny, and other tests run at the same time

# Between them, every value of every setting that changes the computation.
MODELS = {
    "plain": {},
    "causal": {
        "causal": True, "strides": (5, 4), "lstm_layers": 2, "projection": "exact", "semantic": 5,
        "speech": testing.tiny_quantizer(kind="factorised", dim=3, first_dim=2, levels=3),
        "background": testing.tiny_quantizer(dim=3),
    },
    "uneven": {  # an even kernel, a stride of 1
        "strides": (3, 1, 3), "kernel": 4, "projection": "none", "lstm_layers": 2, "decoder_lstm": False,
        "speech": testing.tiny_quantizer(first_dim=6),
        "background": testing.tiny_quantizer(kind="factorised", levels=2, first_dim=3),
    },
    "spectral": {"family": "spectral", "kernel": 4, "semantic": 5},
    "spectral_causal": {
        "family": "spectral", "causal": True, "lstm_layers": 0, "projection": "exact",
        "speech": testing.tiny_quantizer(kind="factorised", dim=3, levels=3),
    },
    "spectral_lstm": {  # more bands than there are, no blocks in the encoder
        "family": "spectral", "causal": True, "lstm_layers": 2, "projection": "none", "hop": 6, "bands": 80,
        "expansion": 1, "encoder_blocks": 0,
    },
    "spectral_beam": {
        "family": "spectral", "causal": True, "lstm_layers": 0, "projection": "exact", "semantic": 5,
        "speech": testing.tiny_quantizer(first_dim=2, levels=4, beam=3),
        "background": testing.tiny_quantizer(levels=3, beam=2),
    },
}  # fmt: skip
STREAMS = [name for name, settings in MODELS.items() if settings.get("causal")]


def mixture(b: int, t: int) -> np.ndarray:
    return testing.speech_clips(b, t) + testing.background_clips(b, t)


def take_apart(network: DeCodecNetwork, wave: jax.Array) -> TakenApart:
    """The network's own `take_apart`, its three decodings as one batch: so it compiles in half the time."""
    both = network.quantize(network.embed(jnp.concatenate([wave, jnp.zeros_like(wave[:1])])))
    (speech, silent_speech), (background, silence) = (
        (q.vectors[:-1], jnp.broadcast_to(q.vectors[-1:], q.vectors[:-1].shape)) for q in both
    )
    halves = Halves(
        jnp.concatenate([speech, speech, silent_speech]), jnp.concatenate([background, silence, background])
    )
    waves = jnp.split(network.decode(halves, wave.shape[-1]), 3)
    return TakenApart(*waves, codes=Halves(*(q.codes[:-1] for q in both)))


class Both(NamedTuple):
    """One model in JAX and in PyTorch."""

    network: DeCodecNetwork
    variables: dict
    take_apart: Callable  # of variables and a waveform, in JAX, compiled
    model: DeCodec
    folder: Path  # the bundle


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory) -> Both:
    network = DeCodecNetwork(testing.tiny_model(**MODELS[request.param]))
    variables = testing.random_variables(network, np.zeros((1, network.config.hop), np.float32))
    folder = tmp_path_factory.mktemp(request.param)
    bundle.save(folder, network.config, variables["params"], variables.get("codebook", {}), step=7)
    compiled = jax.jit(lambda variables, wave: network.apply(variables, wave, method=take_apart))
    return Both(network, variables, compiled, DeCodec.from_pretrained(folder), folder)


def assert_same(theirs: torch_model.TakenApart, ours: TakenApart):
    for codes, expected in zip(theirs.codes, ours.codes, strict=True):
        np.testing.assert_array_equal(codes, expected)
    for part in ("mixture", "speech", "background"):
        assert_close(getattr(theirs, part), getattr(ours, part))


def assert_close(theirs: torch.Tensor, ours: jax.Array, to: float = 1e-5):
    np.testing.assert_allclose(theirs.detach(), ours, rtol=0, atol=to)


def test_the_same_codes_and_samples(both):
    wave = mixture(2, 1234)
    theirs = both.model.take_apart(torch.from_numpy(wave))
    assert_same(theirs, both.take_apart(both.variables, wave))
    assert all(len(np.unique(codes)) > 3 for codes in theirs.codes), "too few codes in use to show anything"
    assert theirs.mixture.std() > 1e-2


@pytest.mark.parametrize("t", [1, 19, 20, 21])
def test_any_length_is_that_of_whole_frames_cut(both, t):
    wave, hop = torch.from_numpy(mixture(1, t)), both.model.config.hop
    whole = torch.nn.functional.pad(wave, (0, math.ceil(t / hop) * hop - t))
    codes, coded = both.model.encode(wave), both.model(wave)
    assert all(map(torch.equal, codes, both.model.encode(whole)))
    assert coded.shape == (1, t) and codes[0].shape[-1] == math.ceil(t / hop)
    torch.testing.assert_close(coded, both.model(whole)[:, :t])


def test_each_use_gives_its_part(both):
    model = both.model
    wave = torch.from_numpy(mixture(2, 333))
    parts = model.take_apart(wave)
    torch.testing.assert_close(model(wave), parts.mixture)
    torch.testing.assert_close(model.enhance(wave), parts.speech)
    torch.testing.assert_close(model.background(wave), parts.background)
    codes = model.encode(wave)
    assert all(map(torch.equal, codes, parts.codes))
    torch.testing.assert_close(model.decode(*codes, 300), parts.mixture[:, :300])


def test_fewer_levels_and_semantic_features(both):
    speech, background = (codes[:, :1] for codes in both.model.encode(torch.from_numpy(mixture(1, 100))))
    ours = both.network.apply(both.variables, (speech.numpy(), background.numpy()), method="vectors")
    theirs = both.model.speech_quantizer.vectors(speech), both.model.background_quantizer.vectors(background)
    for a, b in zip(theirs, ours, strict=True):
        assert_close(a, b)
    if both.model.config.semantic:
        first = ours[0][..., : both.model.config.speech.first_dim or None]
        assert_close(both.model.semantic(speech), both.network.apply(both.variables, first, method="semantic"))
    with pytest.raises(ValueError, match="9 levels"):
        both.model.speech_quantizer.vectors(speech.expand(-1, 9, -1))


# --- streams --------------------------------------------------------------------------------------------------------


def in_pieces(model: DeCodec, wave: torch.Tensor, frames: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Codes of a recording, `frames` at a time, without those that belong to no frame; and the samples of these."""
    heard, said, made, sound = (), (), [], []
    with torch.inference_mode(), torch.nn.utils.parametrize.cached():
        for piece in followed_by_silence(model, wave).split(frames * model.config.hop, dim=-1):
            heard, codes = model.encode_step(heard, piece)
            made.append(codes)
        made = [torch.cat(codes, dim=-1)[..., model.lookahead :] for codes in zip(*made, strict=True)]
        for codes in zip(*(half.split(frames, dim=-1) for half in made), strict=True):
            said, samples = model.decode_step(said, *codes)
            sound.append(samples)
    return made, torch.cat(sound, dim=-1)


def followed_by_silence(model: DeCodec, wave: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(wave, (0, model.lookahead * model.config.hop))


@pytest.mark.parametrize("both", STREAMS, indirect=True)
class TestStreams:
    def test_pieces_give_what_the_whole_gives(self, both):
        wave = torch.from_numpy(mixture(2, 13 * both.model.config.hop))
        codes = both.model.encode(wave)
        for frames in (1, 4, 13):
            coded, sound = in_pieces(both.model, wave, frames)
            assert all(map(torch.equal, coded, codes))
            assert_close(sound, both.model(wave).detach())

    def test_frames_give_what_they_give_in_jax(self, both):
        wave = mixture(2, 13 * both.model.config.hop)
        theirs, ours = in_pieces(both.model, torch.from_numpy(wave), 1), testing.in_frames(*both[:2], wave)
        for codes, expected in zip(theirs[0], ours[0], strict=True):
            np.testing.assert_array_equal(codes, expected)
        assert_close(theirs[1], ours[1])

    def test_a_stream_is_enhanced_beside_silence(self, both):
        wave, heard, said, sound = torch.from_numpy(mixture(1, 7 * both.model.config.hop)), (), (), []
        beside = followed_by_silence(both.model, torch.cat([wave, torch.zeros_like(wave)]))
        for i, frame in enumerate(beside.split(both.model.config.hop, dim=-1)):
            heard, (speech, background) = both.model.encode_step(heard, frame)
            if i >= both.model.lookahead:
                said, samples = both.model.decode_step(said, speech[:1], background[1:])
                sound.append(samples)
        assert_close(torch.cat(sound, dim=-1), both.model.enhance(wave).detach())

    def test_zeros_begin_a_stream_too(self, both):
        frame = torch.from_numpy(mixture(1, both.model.config.hop))
        state, codes = both.model.encode_step((), frame)
        _, same = both.model.encode_step(tuple(map(torch.zeros_like, state)), frame)
        assert all(map(torch.equal, codes, same))

    def test_a_part_of_a_frame_is_refused(self, both):
        hop = both.model.config.hop
        with pytest.raises(ValueError, match=f"{hop + 1} samples are not a whole number of frames of {hop}"):
            both.model.encode_step((), torch.zeros(1, hop + 1))


@pytest.mark.parametrize("both", ["plain", "spectral"], indirect=True)
def test_a_model_that_is_not_causal_has_no_stream(both):
    codes = both.model.encode(torch.zeros(1, 20))
    for step, piece in ((both.model.encode_step, [torch.zeros(1, 20)]), (both.model.decode_step, codes)):
        with pytest.raises(ValueError, match="not causal"):
            step((), *piece)


# --- there and back -------------------------------------------------------------------------------------------------


def test_a_bundle_comes_back_to_the_byte(both, tmp_path):
    assert both.model.save_pretrained(tmp_path) == bundle.load(both.folder).fingerprint
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (both.folder / name).read_bytes()


@pytest.mark.parametrize("both", ["plain"], indirect=True)
def test_a_bundle_of_version_1_loads(both, tmp_path):
    shutil.copytree(both.folder, tmp_path / "old")
    described = json.loads((both.folder / "config.json").read_text())
    described |= {"version": 1, "fingerprint": described.pop("checksum")}
    (tmp_path / "old/config.json").write_text(json.dumps(described))
    assert DeCodec.from_pretrained(tmp_path / "old").save_pretrained(tmp_path) == bundle.load(both.folder).fingerprint


@pytest.mark.parametrize("both", ["plain", "spectral"], indirect=True)
def test_weights_changed_in_torch_work_in_jax(both, tmp_path):
    changed = DeCodec(both.model.config)
    changed.load_state_dict(both.model.state_dict())
    with torch.no_grad():
        for parameter in changed.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1).add_(0.01)
    fingerprint = changed.save_pretrained(tmp_path)
    loaded = bundle.load(tmp_path)
    assert loaded.fingerprint == fingerprint
    variables = {"params": loaded.params} | ({"codebook": loaded.codebook} if loaded.codebook else {})
    wave = mixture(2, 1234)
    assert_same(changed.take_apart(torch.from_numpy(wave)), both.take_apart(variables, wave))
    assert not torch.allclose(changed(torch.from_numpy(wave)), both.model(torch.from_numpy(wave)), atol=1e-3)


@pytest.mark.parametrize("both", ["plain"], indirect=True)
def test_a_bundle_in_half_precision_is_the_same_model(both, tmp_path):
    network, variables = both.network, both.variables
    saved = bundle.save(tmp_path / "half", network.config, variables["params"], variables["codebook"], 7, half=True)
    model, wave = DeCodec.from_pretrained(tmp_path / "half"), mixture(2, 1234)
    ours = both.take_apart({"params": saved.params, "codebook": saved.codebook}, wave)
    assert_same(model.take_apart(torch.from_numpy(wave)), ours)
    assert model.save_pretrained(tmp_path / "full") == saved.fingerprint != bundle.load(both.folder).fingerprint


@pytest.mark.parametrize("both", ["plain"], indirect=True)
class TestErrors:
    """One line each, which names what is wrong."""

    @pytest.fixture
    def rewritten(self, both, tmp_path):
        """`rewritten(tensors=..., model=..., **top)`: the bundle with these changes, its checksum right."""

        def write(tensors=lambda t: None, **changes):
            described = json.loads((both.folder / "config.json").read_text())
            content = load_file(both.folder / "model.safetensors")
            tensors(content)
            described["model"] |= changes.pop("model", {})
            save_file(content, tmp_path / "model.safetensors")
            described["checksum"] = torch_model.checksum_of(
                described["model"], {n: torch.tensor(a) for n, a in content.items()}
            )
            (tmp_path / "config.json").write_text(json.dumps(described | changes))
            return tmp_path

        return write

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda t: t.pop("encoder.first.bias"), "missing: encoder.first.bias"),
            (lambda t: t.update(extra=np.zeros(1, np.float32)), "unknown: extra"),
            (lambda t: t.update({"decoder.lstm.forward0_bias": np.zeros(9, np.float32)}),
             "of another shape: decoder.lstm.forward0_bias"),
        ],
    )  # fmt: skip
    def test_tensors_that_do_not_fit(self, rewritten, damage, message):
        with pytest.raises(ValueError, match=message):
            DeCodec.from_pretrained(rewritten(damage))

    def test_other_versions(self, rewritten):
        with pytest.raises(ValueError, match="version 3"):
            DeCodec.from_pretrained(rewritten(version=3))
        with pytest.raises(ValueError, match="settings: attention"):
            DeCodec.from_pretrained(rewritten(model={"attention": True}))
        with pytest.raises(ValueError, match=r"settings: .*channels, .*kernel"):
            DeCodec.from_pretrained(rewritten(model={"waveform": {}}))

    def test_another_family(self, rewritten):
        named = r"missing: decoder\.block0\.bias, .*unknown: decoder\.block0\.snake\.alpha"
        with pytest.raises(ValueError, match=named):
            DeCodec.from_pretrained(rewritten(model={"family": "spectral"}))

    def test_a_changed_weight(self, rewritten):
        with pytest.raises(ValueError, match="has changed since it was written"):
            DeCodec.from_pretrained(rewritten(checksum="0" * 16))

    def test_what_a_bundle_has_no_place_for(self, both, tmp_path):
        model = DeCodec(both.model.config)
        model.encoder.adapter = torch.nn.Linear(1, 1)
        with pytest.raises(ValueError, match=r"unknown: encoder\.adapter\.bias, encoder\.adapter\.kernel"):
            model.save_pretrained(tmp_path)
        del model.encoder.adapter
        torch.nn.init.ones_(model.decoder.lstm.bias_hh_l0)
        with pytest.raises(ValueError, match=r"add decoder\.lstm\.bias_hh_l0 to bias_ih"):
            model.save_pretrained(tmp_path)
        assert not list(tmp_path.iterdir())


# --- the folder by itself -------------------------------------------------------------------------------------------

FOLDER = Path(torch_model.__file__).parent


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_it_needs_torch_and_safetensors_alone(file):
    imports = list(ast.walk(ast.parse(file.read_text())))
    modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in modules} - sys.stdlib_module_names <= {"torch", "safetensors"}
    assert {node.level for node in imports if isinstance(node, ast.ImportFrom)} <= {0, 1}, "it leaves the folder"


@pytest.mark.parametrize("both", ["spectral_causal"], indirect=True)
def test_a_copy_of_it_works_where_the_package_is_not(both, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "copied")
    script = f"""
import sys
sys.modules.update(dict.fromkeys(["decodec_jax", "jax", "flax"]))
import torch
from copied import DeCodec
model = DeCodec.from_pretrained({str(both.folder)!r})
assert model(torch.zeros(1, 33)).shape == (1, 33)
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


@pytest.mark.parametrize("cls", ["Model", "Quantizer", "Waveform", "Spectral"])
def test_its_settings_are_those_of_the_package(cls):
    here, there = (dataclasses.fields(getattr(module, cls)) for module in (torch_model, config))
    assert [field.name for field in here] == [field.name for field in there]


def test_its_constants_are_those_of_the_package():
    for here, there, names in (
        (torch_model.waveform, waveform, ("LOOKAHEAD", "SCALE")),
        (torch_model.spectral, spectral, ("LOOKAHEAD", "SCALE", "SPECTRUM_SCALE", "LOUDEST")),
        (torch_model.spectrum, spectrum, ("PARTS",)),
        (torch_model.bundle, bundle, ("VERSION", "DECODER_SETTINGS")),
    ):
        for name in names:
            assert getattr(here, name) == getattr(there, name)


@pytest.mark.parametrize(("sample_rate", "hop", "bands"), [(16_000, 320, 80), (44_100, 441, 64), (16_000, 20, 100)])
def test_its_matrices_are_those_of_the_package(sample_rate, hop, bands):
    for name, arguments in (
        ("mel_filters", (sample_rate, hop, bands)), ("analysis_matrix", (2 * hop,)), ("synthesis_matrix", (2 * hop,)),
    ):  # fmt: skip
        here, there = (getattr(module, name)(*arguments) for module in (torch_model.spectrum, spectrum))
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-6)


@pytest.mark.parametrize("both", ["uneven", "spectral_causal"], indirect=True)
def test_a_decoder_without_lstm_is_exported_for_any_number_of_frames(both, tmp_path):
    player = Player(both.model).eval()
    codes, longer = (both.model.encode(torch.from_numpy(mixture(b, t))) for b, t in ((2, 200), (3, 500)))
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("frames", min=2)}
    torch.export.save(torch.export.export(player, codes, dynamic_shapes=(sizes, sizes)), tmp_path / "player.pt2")
    exported = torch.export.load(tmp_path / "player.pt2").module()
    torch.testing.assert_close(exported(*longer), player(*longer), rtol=0, atol=1e-5)


# torch's, about its own LSTM and what tracing it would miss
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("both", ["plain", "spectral"], indirect=True)
def test_one_with_lstm_is_exported_for_one_number_or_as_torchscript(both, tmp_path):
    """torch.export unrolls an LSTM. TorchScript does not, but torch calls it deprecated."""
    player = Player(both.model).eval()
    codes, longer = (both.model.encode(torch.from_numpy(mixture(1, t))) for t in (200, 500))
    torch.testing.assert_close(torch.export.export(player, codes).module()(*codes), player(*codes), rtol=0, atol=1e-5)
    to_torchscript(both.model, tmp_path / "player.pt")
    traced = torch.jit.load(tmp_path / "player.pt")
    torch.testing.assert_close(traced(*longer), player(*longer), rtol=0, atol=1e-5)


class Step(torch.nn.Module):
    """A stream's next codes to sound."""

    def __init__(self, model: DeCodec):
        super().__init__()
        self.model = model

    def forward(self, state, speech: torch.Tensor, background: torch.Tensor):
        return self.model.decode_step(state, speech, background)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, about its own LSTM
@pytest.mark.parametrize("both", STREAMS, indirect=True)
def test_a_step_of_a_stream_is_exported_lstm_and_all(both):
    step, wave = Step(both.model).eval(), torch.from_numpy(mixture(1, 5 * both.model.config.hop))
    codes = both.model.encode(wave)
    frames = list(zip(*(c.split(1, dim=-1) for c in codes), strict=True))
    state, _ = step((), *frames[0])
    exported = torch.export.export(step, (state, *frames[0])).module()
    state, sound = tuple(map(torch.zeros_like, state)), []
    for frame in frames:
        state, samples = exported(state, *frame)
        sound.append(samples)
    assert_close(torch.cat(sound, dim=-1), both.model.decode(*codes, wave.shape[-1]).detach())


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a bundle: config\.json is missing; `decodec export"):
        DeCodec.from_pretrained(tmp_path)


def test_the_page_for_pytorch_can_be_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/pytorch.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), {})
    assert {path.name for path in tmp_path.iterdir()} == {"model", "fine_tuned", "player.pt"}
