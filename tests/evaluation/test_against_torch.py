"""The comparison with PyTorch compares like with like.

The `test` extra brings torch and transformers for Python 3.11, where none of this is ever skipped.
"""

import sys

import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import initialise
from decodec_jax.config import Config
from decodec_jax.objective import spectral

if sys.version_info >= (3, 12):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")

import torch

from decodec_jax.evaluation import against_torch


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # the sizes here are tiny, and other tests run at the same time


def tiny_dac() -> Config:
    """A config of DAC's shape, but for its widths."""
    return testing.tiny_config(
        patch=1, strides=(5,), kernel=7, dilations=(1, 3, 9), latent=8, decoder_channels=8, decoder_lstm=True
    )


@pytest.mark.parametrize("config", [tiny_dac(), testing.tiny_config()], ids=["DacModel", "torch_model"])
def test_both_sides_have_the_same_weights(config):
    model = against_torch.comparable(config).model
    params, _ = jax.eval_shape(lambda: initialise(model, jax.random.key(0)))
    stacks = {side: params[side] for side in ("encoder", "decoder")}
    entries = {jax.tree_util.keystr(path, simple=True): leaf.size for path, leaf in jax.tree.leaves_with_path(stacks)}
    if against_torch.is_dac(config.model):  # it has whole kernels, no gains
        entries = {path: size for path, size in entries.items() if not path.endswith("gain")}
    theirs = sum(p.numel() for p in against_torch.stacks(model).parameters if p.requires_grad)
    assert sum(entries.values()) == theirs


def test_the_published_network_is_compared_with_dac():
    assert against_torch.is_dac(Config().model)
    causal = Config()
    causal.model.causal = True
    assert not against_torch.is_dac(causal.model) and not against_torch.is_dac(testing.tiny_model())


def test_both_sides_have_the_same_loss(rng):
    waves = (0.1 * rng.standard_normal((2, 2, 1000))).astype(np.float32)
    waves[0, 0, 300:] = 0  # the floor
    ours = spectral.mel_distance(*waves, 16_000, (64, 256), (10, 40)).mean()
    theirs = against_torch.mel_distance(16_000, (64, 256), (10, 40))(*torch.from_numpy(waves))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


def test_training_is_compared():
    config = testing.tiny_config(dilations=(), lstm_layers=0, mask=False)  # what is compiled quickly
    rows = {row.name: row.value for row in against_torch.training(config, 2)}
    ratio = rows["train/testing/torch"] / rows["train/testing/jax"]
    assert rows["train/testing/ratio"] == pytest.approx(ratio)


def test_dac_learns():
    torch.manual_seed(0)
    step = against_torch.training_step(against_torch.comparable(tiny_dac()))
    first, *_, last = (float(step()) for _ in range(20))
    assert last < first


def test_inference_is_compared():
    rows = against_torch.inference(tiny_dac(), 0.1, 1)
    assert {f"inference/{what}/ratio" for what in ("encode", "decode", "encode+decode")} < {row.name for row in rows}
    assert all(row.value > 0 for row in rows)


def test_each_is_first_in_every_other_round():
    order = []
    ours, theirs = against_torch.in_turn(lambda: order.append("ours"), lambda: order.append("theirs"), 2)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert ours >= 0 and theirs >= 0
