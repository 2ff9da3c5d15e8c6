"""A bundle is the model, to the bit, or an error that says what is wrong with it."""

import json
import resource
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from decodec_jax import testing
from decodec_jax.codec.model import DeCodecNetwork, initialise
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle


@pytest.fixture(scope="module")
def model():
    config = testing.tiny_model(
        speech=testing.tiny_quantizer(first_dim=6),
        background=testing.tiny_quantizer(kind="factorised", dim=4),
        semantic=5,
    )
    return config, *jax.jit(lambda: initialise(config, jax.random.key(0)))()


@pytest.fixture
def folder(model, tmp_path):
    bundle.save(tmp_path / "b", *model, step=7)
    return tmp_path / "b"


def test_what_is_read_is_what_was_written(model, folder):
    config, params, codebook = model
    read = bundle.load(folder)
    assert (read.config, read.step) == (config, 7)
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    wave = testing.speech_clips(1, 100)
    outputs = [
        DeCodecNetwork(config).apply({"params": p, "codebook": c}, wave) for p, c in ((params, codebook), read[1:3])
    ]
    np.testing.assert_array_equal(*outputs)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_fingerprint_names_weights_and_settings(model, folder, tmp_path):
    config, params, codebook = model
    same = bundle.save(tmp_path / "same", config, params, codebook, step=8)
    changed = jax.tree.map(np.array, params)
    changed["encoder"]["first"]["bias"][0] += 1e-6
    other = bundle.save(tmp_path / "other", config, changed, codebook, step=7)
    assert same.fingerprint == bundle.load(folder).fingerprint != other.fingerprint


def test_using_one_needs_nothing_that_training_or_torch_needs(folder):
    program = """if True:
        import sys
        folder, *others = sys.argv[1:]
        sys.modules |= dict.fromkeys(others)  # importing them fails
        from decodec_jax.inference.codec import DeCodec
        print(DeCodec.load(folder).config.hop)
    """
    others = ["orbax", "orbax.checkpoint", "grain", "array_record", "tensorflow", "tensorflow_datasets", "torch"]
    outcome = subprocess.run([sys.executable, "-c", program, folder, *others], capture_output=True, text=True)
    assert outcome.stdout == "20\n", outcome.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("encoder.first.bias"), "missing: encoder.first.bias"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "unknown: extra"),
        (lambda t: t.update({"encoder.first.bias": np.zeros(9, np.float32)}), "of another shape: encoder.first.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_named(model, folder, damage, message):
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    described = json.loads((folder / "config.json").read_text())
    described["fingerprint"] = bundle.fingerprint_of(model[0], tensors)
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=message):
        bundle.load(folder)


def test_a_changed_weight_is_noticed(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.first.bias"] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="not as it was written"):
        bundle.load(folder)


def test_half_a_file_no_file_and_a_newer_version_are_one_line_each(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        bundle.load(folder)
    weights.write_bytes(content)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"version": 2}))
    with pytest.raises(UserError, match="version 2"):
        bundle.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        bundle.load(folder)


@pytest.mark.parametrize("content", [b"[]", b"\xff", b"{", b'{"version": 1, "model": {}}'])
def test_settings_that_are_none(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        bundle.load(folder)


def test_a_full_disk_leaves_no_half_of_a_bundle(model, tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(UserError, match="could not be written"):
            bundle.save(tmp_path / "b", *model, step=7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list((tmp_path / "b").iterdir())
