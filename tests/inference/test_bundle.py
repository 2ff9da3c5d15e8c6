"""A bundle is the model, to the bit, or an error that says what is wrong with it."""

import dataclasses
import json
import pickle
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from decodec_jax import testing, weights
from decodec_jax.codec.model import DeCodecNetwork, initialise
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle, export
from decodec_jax.inference.codec import DeCodec


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


def test_the_fingerprint_names_what_gives_tokens_their_meaning_and_the_checksum_everything(model, folder, tmp_path):
    config, params, codebook = model

    def written(name, part=None, **settings):
        changed = jax.tree.map(np.array, params)
        if part:
            changed[part]["first"]["bias"][0] += 1e-6
        bundle.save(tmp_path / name, dataclasses.replace(config, **settings), changed, codebook, step=8)
        described = json.loads((tmp_path / name / "config.json").read_text())
        assert bundle.load(tmp_path / name).fingerprint == described["fingerprint"]
        return described["fingerprint"], described["checksum"]

    fingerprint, checksum = written("same")
    assert fingerprint == bundle.load(folder).fingerprint
    for each in (written("encoder", "encoder"), written("rate", sample_rate=8000)):
        assert each[0] != fingerprint and each[1] != checksum
    again = written("decoder", "decoder")
    assert again[0] == fingerprint and again[1] != checksum
    assert written("beam", speech=dataclasses.replace(config.speech, beam=2)) == (fingerprint, checksum)
    wider = dataclasses.replace(config, waveform=dataclasses.replace(config.waveform, decoder_channels=32))
    assert bundle.fingerprint_of(wider, bundle.to_tensors(params, codebook)) == fingerprint


def test_a_bundle_of_version_1_keeps_its_fingerprint(folder):
    """It covered the decoder, too; tokens carry it."""
    described = json.loads((folder / "config.json").read_text())
    old = described | {"version": 1, "fingerprint": described["checksum"]}
    del old["checksum"]
    (folder / "config.json").write_text(json.dumps(old))
    codec = DeCodec.load(folder)
    assert codec.fingerprint == pickle.loads(pickle.dumps(codec)).continuous().fingerprint == described["checksum"]
    export.export(folder, folder / "exported")
    assert bundle.load(folder / "exported").fingerprint == described["checksum"]
    (folder / "config.json").write_text(json.dumps(old | {"fingerprint": described["fingerprint"]}))
    with pytest.raises(UserError, match="its fingerprint is"):
        bundle.load(folder)


def test_in_half_precision_it_is_the_rounded_model(model, folder, tmp_path):
    config, params, codebook = model
    saved = bundle.save(tmp_path / "half", config, params, codebook, step=7, half=True)
    read = bundle.load(tmp_path / "half")
    entries = {stream: {run: a.entries for run, a in runs.items()} for stream, runs in codebook.items()}
    for rounded in (saved, read):
        theirs = {stream: {run: a.entries for run, a in runs.items()} for stream, runs in rounded.codebook.items()}
        for a, b in zip(jax.tree.leaves((params, entries)), jax.tree.leaves((rounded.params, theirs)), strict=True):
            assert b.dtype == np.float32
            np.testing.assert_array_equal(b, np.asarray(a).astype(np.float16).astype(np.float32))
    values = sum(a.size for a in jax.tree.leaves((params, entries)))
    assert size(folder) - size(tmp_path / "half") == pytest.approx(2 * values, rel=0.01)
    again = bundle.save(tmp_path / "full", *read[:4])
    assert bundle.load(folder).fingerprint != saved.fingerprint == read.fingerprint == again.fingerprint
    bundle.save(tmp_path / "again", *again[:4], half=True)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "half" / name).read_bytes()


def size(folder):
    return (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize(("value", "told"), [(-1e5, "100000"), (np.nan, "nan")])
def test_what_half_precision_cannot_hold_is_named(model, tmp_path, value, told):
    config, params, codebook = model
    changed = jax.tree.map(np.array, params)
    changed["encoder"]["first"]["bias"][0] = value
    with pytest.raises(UserError) as refused:
        bundle.save(tmp_path / "b", config, changed, codebook, step=7, half=True)
    assert f"encoder.first.bias reaches {told}, and half precision holds 65504 at the most" in str(refused.value)
    assert not (tmp_path / "b").exists()


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
    described["checksum"] = bundle.checksum_of(model[0], tensors)
    (folder / "config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=message):
        bundle.load(folder)


def test_a_changed_weight_is_noticed(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.first.bias"] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="has changed since it was written"):
        bundle.load(folder)


def test_half_a_file_no_file_and_a_newer_version_are_one_line_each(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        bundle.load(folder)
    weights.write_bytes(content)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"version": 3}))
    with pytest.raises(UserError, match="version 3"):
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


def test_the_one_in_the_package_is_small_and_is_shipped():
    files = {path.name: path.stat().st_size for path in weights.FOLDER.iterdir() if path.is_file()}
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    shipped = project["tool"]["setuptools"]["package-data"]["decodec_jax.weights"]
    assert files.keys() - {"__init__.py"} == set(shipped) == {"README.md", bundle.SETTINGS, bundle.WEIGHTS}
    assert sum(files.values()) < 25e6
    dtypes = {array.dtype for array in load_file(weights.FOLDER / bundle.WEIGHTS).values()}
    assert dtypes == {np.dtype(np.float16)}


def test_a_full_disk_leaves_no_half_of_a_bundle(model, tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(UserError, match="could not be written"):
            bundle.save(tmp_path / "b", *model, step=7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list((tmp_path / "b").iterdir())
