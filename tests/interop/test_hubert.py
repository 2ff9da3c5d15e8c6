import functools
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from decodec_jax.errors import UserError
from decodec_jax.interop import hubert
from decodec_jax.objective.hubert import Hubert, HubertSizes, frame_aligned
from decodec_jax.objective.teacher import MEAN
from decodec_jax.testing import speech_clips
from tests.golden import make_hubert


@functools.partial(jax.jit, static_argnums=2)
def hidden_states(params, wave, sizes):
    """The first layer's input, then what each layer gives."""
    return Hubert(sizes).apply({"params": params}, wave)[1]


targets = jax.jit(lambda teacher, wave: teacher.targets(wave))

GOLDEN_SIZES = {
    "base": HubertSizes(),
    "tiny": HubertSizes(
        convs=make_hubert.TINY_CONVS, width=12, layers=2, heads=3, feed_forward=16, position_kernel=5,
        position_groups=4, normalise=False,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "hubert.npz") as file:
        return dict(file)


# --- against transformers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN_SIZES)
def test_hidden_states_equal_those_of_transformers_at_every_layer(golden, case):
    sizes = GOLDEN_SIZES[case]
    lengths, left, channels, normalise = make_hubert.CASES[case]
    assert (sizes.normalise, (sizes.reach - sizes.hop) // 2) == (normalise, left)
    tensors = make_hubert.weights(golden[f"{case}/names"], golden[f"{case}/shapes"])
    teacher = hubert.make_teacher(tensors, sizes, MEAN)
    for t in lengths:
        states = np.asarray(hidden_states(teacher.params, make_hubert.waves(t), sizes))
        assert states.shape == (sizes.layers + 1, 2, -(-t // sizes.hop), sizes.width)
        np.testing.assert_allclose(states[..., channels], golden[f"{case}/states{t}"], atol=1e-4)


# --- files ----------------------------------------------------------------------------------------------------------

CONFIG = {  # HuBERT's kernels and strides, few channels
    "model_type": "hubert", "conv_dim": [4] * 7, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 6, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
SIZES = HubertSizes(
    convs=tuple((4, kernel, stride) for _, kernel, stride in HubertSizes().convs),
    width=8, layers=3, heads=2, feed_forward=6, position_kernel=4, position_groups=2,
)  # fmt: skip
NAMES = hubert.layout(SIZES)


@pytest.fixture
def tensors():
    return make_hubert.weights(NAMES, NAMES.values())


@pytest.fixture
def folder(tmp_path, tensors):
    """As it is published, but small."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "sampling_rate": 16000}))
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_and_a_file_in_it_are_the_same_teacher(folder):
    teacher = hubert.load(folder, layer=3)
    assert teacher.sizes == replace(SIZES, normalise=False) and teacher.width == 8
    assert teacher.fingerprint == hubert.load(folder / "model.safetensors", layer=3).fingerprint


def test_layers_above_the_chosen_one_are_left_out(folder):
    assert jax.tree.leaves(hubert.load(folder, layer=2).params["layers"])[0].shape[0] == 2
    wave = speech_clips(2, 700)
    whole, sizes = hubert.load(folder, MEAN), replace(SIZES, normalise=False)
    states = hidden_states(whole.params, wave, sizes)
    np.testing.assert_allclose(targets(hubert.load(folder, layer=2), wave), states[2], atol=1e-5)
    np.testing.assert_allclose(targets(whole, wave), np.mean(states, axis=0), atol=1e-5)


def renamed_weight_norm(tensors):
    """As PyTorch's newer weight norm names its tensors."""
    newer = "parametrizations.weight.original"
    for i, k in enumerate("gv"):
        tensors[f"{hubert.POSITION}.{newer}{i}"] = tensors.pop(f"{hubert.POSITION}.weight_{k}")
    return tensors


def of_a_task_model(tensors):
    head = {"lm_head.weight": np.zeros((2, 2), np.float32)}
    return {f"hubert.{name}": tensor for name, tensor in tensors.items()} | head


def with_mask(tensors):
    return tensors | {"masked_spec_embed": np.zeros(8, np.float32)}


@pytest.mark.parametrize("changed", [renamed_weight_norm, of_a_task_model, with_mask])
def test_every_published_naming_gives_the_same_teacher(folder, tensors, changed):
    expected = hubert.load(folder, 1).fingerprint
    save_file(changed(tensors), folder / "model.safetensors")
    assert hubert.load(folder, 1).fingerprint == expected


def test_the_fingerprint_changes_with_weights_layer_and_preprocessing(folder, tensors):
    prints = [hubert.load(folder, layer).fingerprint for layer in (1, 2, MEAN)]
    change(folder, "preprocessor_config.json", do_normalize=True)
    prints.append(hubert.load(folder, 1).fingerprint)
    tensors["encoder.layer_norm.bias"][0] += 1e-3
    save_file(tensors, folder / "model.safetensors")
    prints.append(hubert.load(folder, 1).fingerprint)
    assert len(set(prints)) == 5 and all(len(p) == 12 for p in prints)


def test_without_json_files_sizes_are_those_of_hubert_base_and_clips_are_normalised(tmp_path):
    assert hubert.read_sizes(tmp_path) == HubertSizes()
    assert frame_aligned(np.zeros((1, 1), np.float32), HubertSizes()).shape == (1, 400)


class FakeTensor:
    def __init__(self, array):
        self.numpy = lambda: array

    def float(self):
        return self


def test_a_file_saved_by_pytorch_is_read_by_pytorch(folder, tensors, monkeypatch):
    expected = hubert.load(folder, 1).fingerprint
    (folder / "model.safetensors").rename(folder / "elsewhere")
    (folder / "pytorch_model.bin").write_bytes(b"")

    def fake_load(path, map_location, weights_only):
        assert path == folder / "pytorch_model.bin" and map_location == "cpu" and weights_only
        return {name: FakeTensor(tensor) for name, tensor in tensors.items()}

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=fake_load))
    assert hubert.load(folder, 1).fingerprint == expected


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_a_file_saved_by_pytorch_needs_pytorch(folder, monkeypatch):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pytorch_model.bin can only be read with PyTorch.*use model.safetensors"):
        hubert.load(folder, 1)


def test_all_tensors_that_are_missing_unknown_or_of_another_shape_are_named(folder, tensors):
    del tensors["encoder.layers.1.attention.k_proj.bias"], tensors["encoder.layer_norm.bias"]
    tensors["encoder.layers.3.layer_norm.bias"] = np.zeros(8, np.float32)
    tensors["feature_projection.layer_norm.bias"] = np.zeros(5, np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError) as caught:
        hubert.load(folder, 1)
    assert str(caught.value).endswith(
        "model.safetensors does not hold a HuBERT of 3 layers of 8; missing: encoder.layer_norm.bias, "
        "encoder.layers.1.attention.k_proj.bias; "
        "unknown: encoder.layers.3.layer_norm.bias; of another shape: feature_projection.layer_norm.bias"
    )


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"do_stable_layer_norm": True}, "do_stable_layer_norm is True; only False"),
        ("config.json", {"model_type": "wav2vec2"}, "model_type is 'wav2vec2'; only 'hubert'"),
        ("config.json", {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "160 samples a frame"),
        ("config.json", {"num_conv_pos_embedding_groups": 3}, "num_conv_pos_embedding_groups"),
        ("config.json", {"conv_dim": [4] * 6}, "conv_dim"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "8000 Hz"),
    ],
)
def test_a_hubert_of_another_architecture_is_refused(folder, name, changes, message):
    change(folder, name, **changes)
    with pytest.raises(UserError, match=message):
        hubert.load(folder, 1)


@pytest.mark.parametrize("layer", [-2, 0, 4])
def test_only_layers_that_exist_can_be_chosen(folder, layer):
    with pytest.raises(UserError, match=f"layer is {layer}, but this HuBERT has 3 layers; give 1 to 3, or -1"):
        hubert.load(folder, layer)


def test_paths_and_files_that_cannot_be_read(tmp_path, folder):
    with pytest.raises(UserError, match="nowhere does not exist"):
        hubert.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"neither model.safetensors nor pytorch_model.bin"):
        (tmp_path / "empty").mkdir()
        hubert.load(tmp_path / "empty")
    with pytest.raises(UserError, match=r"model.safetensors is not a readable safetensors file"):
        (folder / "model.safetensors").write_bytes(b"no")
        hubert.load(folder, 1)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        (folder / "config.json").write_text("{")
        hubert.load(folder, 1)
