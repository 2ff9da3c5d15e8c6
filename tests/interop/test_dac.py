"""The golden arrays come of transformers' DacModel and descript-audio-codec, see tests/golden/make_dac.py."""

import functools
import json
import math
import operator
import re
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from decodec_jax.codec.lstm import LSTM
from decodec_jax.codec.model import DeCodecNetwork, Halves, initialise
from decodec_jax.codec.quantize import ResidualQuantizer
from decodec_jax.config import Config, Model, Quantizer, Waveform
from decodec_jax.errors import UserError
from decodec_jax.interop.dac import from_tensors, graft, load
from decodec_jax.testing import random_variables

GOLDEN = Path(__file__).parents[1] / "golden" / "dac.npz"
FRAMES = {1: (1, 312, 320), 5: (1281, 1595, 1600)}  # and the clips, in samples, that have so many
LAYOUTS = ("descript", "transformers", "transformers_split", "transformers_old_split")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def listed(golden):
    """`listed["full"]`: [descript-audio-codec's name, transformers' name with weight norm, shape] of each tensor."""
    return json.loads(str(golden["tensors"]))


def drawn(name, shape):
    """As in make_dac.py."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith(("alpha", "weight_g")):
        return rng.uniform(0.4, 1.0, shape).astype(np.float32)
    return ((0.03 if name.endswith("bias") else 1.0) * rng.standard_normal(shape)).astype(np.float32)


def clip(t):
    return (0.3 * np.random.default_rng(t).standard_normal(t)).astype(np.float32)


@pytest.fixture(scope="module")
def states(listed):
    """The small model's state dict in every layout."""
    arrays = [drawn(name, shape) for name, _, shape in listed["small"]]
    descript = {name: array for (name, _, _), array in zip(listed["small"], arrays, strict=True)}
    split = {name: array for (_, name, _), array in zip(listed["small"], arrays, strict=True)}
    gain, direction = ".parametrizations.weight.original0", ".parametrizations.weight.original1"
    old = {name.replace(gain, ".weight_g").replace(direction, ".weight_v"): array for name, array in split.items()}
    whole = {name: array for name, array in old.items() if "weight_" not in name}
    for name, v in old.items():
        if name.endswith("_v"):
            whole[name.removesuffix("_v")] = old[name[:-1] + "g"] * v / np.sqrt((v**2).sum((1, 2), keepdims=True))
    return dict(zip(LAYOUTS, (descript, whole, split, old), strict=True))


FACTORISED = Quantizer(kind="factorised", levels=3, entries=16, dim=4)


def small_model(speech=FACTORISED, background=FACTORISED, projection="none"):
    return Model(
        waveform=Waveform(channels=4, decoder_channels=32), latent=64, projection=projection, speech=speech,
        background=background,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fresh():
    """Parameters of `small_model` at random."""
    model = small_model()
    return random_variables(DeCodecNetwork(model), jnp.zeros((1, model.hop)))["params"]


@pytest.fixture(scope="module")
def grafted(states, fresh):
    return graft(fresh, {}, from_tensors(states["descript"]), small_model())[0]


# --- against both public implementations ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes(grafted):
    """`{t: (embedding, codes, audio)}` of each clip by the grafted network."""
    model = small_model()
    network = DeCodecNetwork(model)

    @jax.jit
    def run(params, waves):
        embedding, _ = network.apply({"params": params}, waves, method="embed")  # both halves are the whole of it
        quantizer = ResidualQuantizer(model.speech, model.latent)
        quantized = quantizer.apply({"params": params["speech_quantizer"]}, embedding)
        decoded = Halves(quantized.vectors, jnp.zeros_like(quantized.vectors))
        return embedding, quantized.codes, network.apply({"params": params}, decoded, waves.shape[1], method="decode")

    found = {}
    for frames, lengths in FRAMES.items():
        waves = np.stack([np.pad(clip(t), (0, 320 * frames - t)) for t in lengths])
        found |= dict(zip(lengths, zip(*run(grafted, waves), strict=True), strict=True))
    return found


@pytest.mark.parametrize("t", [t for lengths in FRAMES.values() for t in lengths])
def test_encoder_codes_and_decoder_are_those_of_dac(golden, outcomes, t):
    embedding, codes, audio = outcomes[t]
    np.testing.assert_allclose(embedding, golden[f"{t}/embedding"].T, atol=1e-4)
    np.testing.assert_array_equal(codes, golden[f"{t}/codes"])
    np.testing.assert_allclose(audio, golden[f"{t}/whole"], atol=1e-4)  # DAC with what its odd stride loses put back


@pytest.mark.parametrize("t", FRAMES[5])
def test_released_dac_is_8_samples_short_and_its_last_437_are_others(golden, outcomes, t):
    ours, theirs = np.asarray(outcomes[t][2]), golden[f"{t}/audio"]
    assert len(ours) == 1600 and len(theirs) == 1592
    np.testing.assert_allclose(ours[: 1592 - 437], theirs[:-437], atol=1e-4)
    assert np.max(np.abs(ours[1592 - 437 : 1592] - theirs[-437:])) > 0.01


@pytest.mark.parametrize("t", [1, 1595])
def test_dac_returns_what_it_has_and_we_return_t(golden, grafted, t):
    model, frames = small_model(), math.ceil(t / 320)
    assert golden[f"{t}/length"] == min(t, 320 * frames - 8)
    latent = jax.ShapeDtypeStruct((1, frames, model.latent), jnp.float32)

    def decode(halves):
        return DeCodecNetwork(model).apply({"params": grafted}, halves, t, method="decode")

    assert jax.eval_shape(decode, Halves(latent, latent)).shape == (1, t)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_is_the_same_network(states, layout):
    def plain(dac):
        """Kernels in place of directions, which have any length."""

        def kernel(path, array):
            if path[-1].key != "direction":
                return array
            axes = (0, 2) if path[-2].key == "up" else (0, 1)
            return array / np.sqrt((array**2).sum(axes, keepdims=True))

        return [jax.tree.map_with_path(kernel, half) for half in (dac.encoder, dac.decoder)], dac.levels

    one, other = from_tensors(states["descript"]), from_tensors(states[layout])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain(one), plain(other))
    assert one.sizes == other.sizes


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_directions_become_as_long_as_fresh_ones_and_turn_as_fast(states, fresh, layout):
    params, _ = graft(fresh, {}, from_tensors(states[layout]), small_model())
    for path in (("encoder", "first"), ("encoder", "block2", "down"), ("decoder", "block0", "up")):
        before, after = (functools.reduce(dict.get, path, tree)["direction"] for tree in (fresh, params))
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), rel=1e-5)
        assert not np.allclose(after, before)


# --- the released model's size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [0, 1])
def test_every_tensor_of_the_released_16_khz_model_has_its_place_and_none_of_ours_is_without(listed, column):
    tensors = {row[column]: np.broadcast_to(np.float32(1), row[2]) for row in listed["full"]}  # takes no memory
    dac = from_tensors(tensors, 16_000)
    paper = Config().model
    assert {name: operator.attrgetter(name)(paper) for name in dac.sizes} == dac.sizes
    fresh, _ = jax.eval_shape(lambda: initialise(paper, jax.random.key(0)))
    for side in ("encoder", "decoder"):
        ours = {name: layer for name, layer in fresh[side].items() if name != "lstm"}
        assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, getattr(dac, side))
    count = sum(a.size for a in jax.tree.leaves((dac.encoder, dac.decoder)))
    assert count == sum(a.size for name, a in tensors.items() if not name.startswith("quantizer"))
    assert dac.levels.entries.shape == (12, 1024, 8)
    assert dac.levels.into.kernel.shape == (12, 1024, 8) and dac.levels.out.kernel.shape == (12, 8, 1024)


# --- what is grafted --------------------------------------------------------------------------------------------------


def test_lstm_adds_nothing_at_first_and_every_layer_of_it_learns(rng, grafted):
    stack = LSTM(2, bidirectional=True)
    x, pull = (rng.standard_normal((1, 3, 64)).astype(np.float32) for _ in range(2))

    @jax.jit
    def run(lstm):
        y, backward = jax.vjp(lambda lstm: stack.apply({"params": lstm}, x), lstm)
        return y, backward(pull)[0]

    def learn(lstm):
        return jax.tree.map(lambda p, g: p - 0.01 * g, lstm, run(lstm)[1])

    lstm = grafted["encoder"]["lstm"]
    np.testing.assert_array_equal(run(lstm)[0], x)
    assert all(np.any(gradient != 0) for gradient in jax.tree.leaves(run(learn(lstm))[1]))
    zeros = jax.tree.map(jnp.zeros_like, lstm)  # silent as well, but the first layer would remain so
    np.testing.assert_array_equal(run(zeros)[0], x)
    assert not np.any(run(learn(zeros))[1]["forward0_kernel"])


def test_what_dac_lacks_keeps_its_start(states, fresh, grafted):
    codebook = {"background_quantizer": object()}
    fresh = fresh | {"projection": object()}
    params, same = graft(fresh, codebook, from_tensors(states["transformers"]), small_model())
    assert same is codebook and params["projection"] is fresh["projection"]
    assert jax.tree.structure(params) == jax.tree.structure(fresh)
    for side in ("encoder", "decoder"):
        before, after = fresh[side]["lstm"], grafted[side]["lstm"]
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        assert changed == {"forward1_kernel", "forward1_bias", "backward1_kernel", "backward1_bias"}


def random_quantizer(quantizer, width=64):
    return random_variables(ResidualQuantizer(quantizer, width), jnp.zeros((1, 1, width)))["params"]


def test_levels_go_to_levels_of_both_streams_and_what_is_left_out_is_said(states, fresh, caplog):
    dac = from_tensors(states["descript"])
    longer = Quantizer(kind="factorised", levels=5, entries=16, dim=4)
    wide_first = Quantizer(kind="factorised", levels=2, entries=16, dim=4, first_dim=6)
    before = {"speech_quantizer": random_quantizer(longer), "background_quantizer": random_quantizer(wide_first)}
    params, _ = graft(fresh | before, {}, dac, small_model(longer, wide_first))

    speech, background = params["speech_quantizer"], params["background_quantizer"]
    np.testing.assert_array_equal(speech["levels_entries"][:3], dac.levels.entries)
    np.testing.assert_array_equal(speech["levels_out_kernel"][3:], before["speech_quantizer"]["levels_out_kernel"][3:])
    np.testing.assert_array_equal(background["rest_into_bias"], dac.levels.into.bias[1:2])
    assert background["first_entries"] is before["background_quantizer"]["first_entries"]
    assert [record.message for record in caplog.records] == [
        "speech: levels beyond DAC's 3 keep their initial values",
        "background: levels 1 to 1, of 16 x 6, keep their initial values; DAC's are of 16 x 4",
        "background: DAC's levels from 3 on are left out",
    ]


def test_halves_of_the_exact_projection_take_what_levels_make_of_their_dimensions(rng, states, fresh):
    levels = from_tensors(states["descript"]).levels
    exact = small_model(projection="exact")
    narrow = {f"{half}_quantizer": random_quantizer(exact.speech, exact.half) for half in Halves._fields}
    params, _ = graft(fresh | narrow, {}, from_tensors(states["descript"]), exact)
    parts = np.split(rng.standard_normal((3, exact.latent)).astype(np.float32), 2, axis=1)
    alone = [np.pad(parts[0], ((0, 0), (0, 32))), np.pad(parts[1], ((0, 0), (32, 0)))]
    for part, whole, half, ours in zip(parts, alone, Halves._fields, (np.s_[:32], np.s_[32:]), strict=True):
        into, out = ({name: params[f"{half}_quantizer"][f"levels_{side}_{name}"][1] for name in ("kernel", "bias")}
                     for side in ("into", "out"))  # fmt: skip
        z = part @ into["kernel"] + into["bias"]
        np.testing.assert_allclose(z, whole @ levels.into.kernel[1] + levels.into.bias[1], rtol=1e-4, atol=1e-4)
        theirs = (z @ levels.out.kernel[1] + levels.out.bias[1])[:, ours]
        np.testing.assert_allclose(z @ out["kernel"] + out["bias"], theirs, rtol=1e-4, atol=1e-4)


def test_moving_average_codebooks_are_left_as_they_were(states, fresh, caplog):
    params, _ = graft(fresh, {}, from_tensors(states["descript"]), small_model(background=Quantizer()))
    assert params["background_quantizer"] is fresh["background_quantizer"]
    assert [record.message.split(":")[0] for record in caplog.records] == ["background"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_transformers_folder_is_read_with_its_sample_rate(tmp_path, states):
    save_file(states["transformers"], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dac", "sampling_rate": 24_000}))
    dac = load(tmp_path)
    last = states["transformers"]["quantizer.quantizers.2.codebook.weight"]
    np.testing.assert_array_equal(dac.levels.entries[2], last)
    assert dac.sizes == {
        "family": "waveform", "waveform.channels": 4, "waveform.strides": (2, 4, 5, 8),
        "waveform.dilations": (1, 3, 9), "waveform.kernel": 7, "waveform.decoder_channels": 32, "latent": 64,
        "causal": False, "sample_rate": 24_000,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"model.sample_rate is 16000, DAC's 24000"):
        graft({}, {}, dac, small_model())


class FakeTensor(SimpleNamespace):
    def float(self):
        return self

    def numpy(self):
        return self.array


def fake_torch(content):
    def read(file, map_location, weights_only):
        assert map_location == "cpu" and weights_only
        if isinstance(content, Exception):
            raise content
        return content

    return SimpleNamespace(load=read)


def test_descripts_checkpoint_is_read_by_torch(tmp_path, states, monkeypatch):
    file = tmp_path / "weights_16khz.pth"
    file.touch()
    state = {name: FakeTensor(array=array) for name, array in states["descript"].items()}
    content = {"state_dict": state, "metadata": {"kwargs": {"sample_rate": 16_000, "encoder_dim": 4}}}
    monkeypatch.setitem(sys.modules, "torch", fake_torch(content))
    dac = load(file)
    assert dac.sizes["sample_rate"] == 16_000
    expected = states["descript"]["encoder.block.0.weight_v"].transpose(2, 1, 0)
    np.testing.assert_array_equal(dac.encoder["first"]["direction"], expected)


@pytest.mark.parametrize("content", [RuntimeError("not a zip"), {"state": {}}, {"state_dict": {}, "metadata": None}])
def test_other_pth_files_are_an_error(tmp_path, monkeypatch, content):
    file = tmp_path / "weights.pth"
    file.touch()
    monkeypatch.setitem(sys.modules, "torch", fake_torch(content))
    with pytest.raises(UserError, match=r"weights\.pth does not hold descript-audio-codec's weights"):
        load(file)


def test_without_torch_the_error_says_how_to_convert(tmp_path, monkeypatch):
    file = tmp_path / "weights_16khz.pth"
    file.touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"torch.*save_file\(torch.load\(.*'weights_16khz.safetensors'\)"):
        load(file)


def test_absent_and_damaged_files_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth does not exist"):
        load(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match=r"model\.safetensors does not exist"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path)


# --- what does not fit ------------------------------------------------------------------------------------------------


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize("name", [
    "encoder.block.0.weight_g", "encoder.block.2.block.1.block.0.alpha", "decoder.model.3.block.1.weight_v",
    "quantizer.quantizers.1.in_proj.bias", "decoder.model.6.bias",
])  # fmt: skip
def test_a_missing_tensor_is_named(states, name):
    with pytest.raises(UserError, match=f"missing: {re.escape(name)}$"):
        from_tensors(without(states["descript"], name))


@pytest.mark.parametrize("layout", LAYOUTS[1:3])
def test_tensors_too_many_or_few_are_named_as_the_file_has_them(states, layout):
    kernel = next(name for name in states[layout] if name.startswith("decoder.conv2.") and "weight" in name)
    state = without(states[layout], kernel) | {"encoder.norm.weight": np.ones(3, np.float32)}
    with pytest.raises(UserError, match=f"missing: {re.escape(kernel)}; unknown: encoder.norm.weight"):
        from_tensors(state)


def test_a_model_of_another_kind_is_an_error(states):
    with pytest.raises(UserError, match="is not a DAC"):
        from_tensors({"layer.weight": np.ones(3)})
    bare = {name: a for name, a in states["descript"].items() if not name.startswith("quantizer")}
    with pytest.raises(UserError, match=r"missing: quantizer\.quantizers\.0\.codebook\.weight"):
        from_tensors(bare)
    few = {name: a for name, a in bare.items() if name.startswith("encoder")}
    with pytest.raises(UserError, match=r"missing: decoder\.model\.0\.bias, (\S+ ){4}and \d+ more$"):
        from_tensors(few)


def test_codebooks_of_several_shapes_are_an_error(states):
    name = "quantizer.quantizers.1.codebook.weight"
    with pytest.raises(UserError, match=r"several shapes, \[\(8, 4\), \(16, 4\)\]"):
        from_tensors(states["descript"] | {name: states["descript"][name][:8]})


def test_all_settings_that_differ_are_named_with_both_values(states):
    dac = from_tensors(states["descript"])
    model = small_model()
    model.waveform.channels, model.waveform.strides, model.causal, model.family = 48, (2, 4, 8, 5), True, "spectral"
    with pytest.raises(UserError) as error:
        graft({}, {}, dac, model)
    for part in ("model.family is spectral, DAC's waveform", "model.waveform.channels is 48, DAC's 4",
                 "model.waveform.strides is (2, 4, 8, 5), DAC's (2, 4, 5, 8)", "model.causal is True, DAC's False"):
        assert part in str(error.value)
    assert "latent" not in str(error.value)


def test_a_decoder_that_does_not_mirror_the_encoder_is_an_error(states, fresh):
    kernel = np.ones((8, 4, 10), np.float32)
    dac = from_tensors(states["descript"] | {"decoder.model.3.block.1.weight_v": kernel})
    with pytest.raises(UserError, match=r"decoder\.block2\.up\.direction is \(10, 8, 4\) .* \(8, 8, 4\) here"):
        graft(fresh, {}, dac, small_model())
