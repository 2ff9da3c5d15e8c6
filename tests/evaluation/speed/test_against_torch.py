"""The comparison with PyTorch uses the same network and loss on both sides.

On Python 3.11 the `test` extra installs torch and transformers, so these tests are never skipped there.
"""

import sys

import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import initialise
from decodec_jax.config import Config, Loss, Model
from decodec_jax.objective import losses

if sys.version_info >= (3, 12):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")

import torch

from decodec_jax.evaluation.speed import against_torch


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # the sizes here are tiny, and other tests run at the same time


def tiny_dac() -> Config:
    """A config with DAC's shape but smaller widths."""
    return testing.tiny_config(
        channels=4, strides=(5,), kernel=7, dilations=(1, 3, 9), latent=8, decoder_channels=8, decoder_lstm=True
    )


def tiny_spectral(**changes) -> Config:
    return testing.tiny_config(family="spectral", causal=True, lstm_layers=0, **changes)


CONFIGS = {"DacModel": tiny_dac(), "waveform": testing.tiny_config(), "spectral": tiny_spectral()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_both_sides_have_the_same_weights(config):
    model = against_torch.comparable(config).model
    params, _ = jax.eval_shape(lambda: initialise(model, jax.random.key(0)))
    stacks = {side: params[side] for side in ("encoder", "decoder")}
    entries = {jax.tree_util.keystr(path, simple=True): leaf.size for path, leaf in jax.tree.leaves_with_path(stacks)}
    if against_torch.is_dac(config.model):  # DacModel has no weight normalisation, so no gains
        entries = {path: size for path, size in entries.items() if not path.endswith("gain")}
    theirs = sum(p.numel() for p in against_torch.stacks(model).parameters if p.requires_grad)
    assert sum(entries.values()) == theirs


def test_the_published_network_is_compared_with_dac():
    assert against_torch.is_dac(Config().model)
    causal = Config()
    causal.model.causal = True
    assert not against_torch.is_dac(causal.model) and not against_torch.is_dac(testing.tiny_model())
    assert not against_torch.is_dac(Model(family="spectral"))


def test_no_teacher_is_needed_for_a_comparison():
    config = testing.full_config()
    config.loss.perceptual = 0.1
    loss = against_torch.comparable(config).loss
    assert loss.guidance == loss.perceptual == loss.adversarial == loss.feature == 0


@pytest.mark.parametrize("changes", [{}, {"magnitude": 5.0, "magnitude_windows": (128, 64)}, {"mel": 0.0}])
def test_both_sides_have_the_same_loss(rng, changes):
    waves = (0.1 * rng.standard_normal((2, 2, 1000))).astype(np.float32)
    waves[0, 0, 300:] = 0  # the floor
    loss = Loss(mel_windows=(64, 256), mel_bands=(10, 40), mel_floor=-60.0, **changes)
    ours = losses.weighted_sum(losses.reconstruction_terms(*waves, loss, 16_000), loss)
    theirs = against_torch.reconstruction(loss, 16_000)(*torch.from_numpy(waves))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


def test_training_is_compared_in_both_precisions():
    config = tiny_spectral(encoder_blocks=0, decoder_blocks=1)  # compiles quickly
    rows = {row.name: row.value for row in against_torch.training(config, 2)}
    for kind in ("float32", "bfloat16", "fastest"):
        ratio = rows[f"train/testing/{kind}/torch"] / rows[f"train/testing/{kind}/jax"]
        assert rows[f"train/testing/{kind}/ratio"] == pytest.approx(ratio)
    for side in ("jax", "torch"):
        fastest = min(rows[f"train/testing/{precision}/{side}"] for precision in ("float32", "bfloat16"))
        assert rows[f"train/testing/fastest/{side}"] == fastest


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [tiny_dac(), tiny_spectral()], ids=["DacModel", "spectral"])
def test_the_pytorch_step_reduces_the_loss(config, precision):
    torch.manual_seed(0)
    step = against_torch.training_step(against_torch.comparable(config))
    first, *_, last = (float(step(precision)) for _ in range(20))
    assert last < first


@pytest.mark.parametrize("config", [tiny_dac(), tiny_spectral()], ids=["DacModel", "spectral"])
def test_inference_is_compared(config):
    rows = against_torch.inference(config, 0.1, 1)
    assert {f"inference/{what}/ratio" for what in ("encode", "decode", "encode+decode")} < {row.name for row in rows}
    assert all(row.value > 0 for row in rows)


def test_each_task_takes_its_turn_to_be_first():
    order = []
    taken = against_torch.median_times({name: lambda name=name: order.append(name) for name in "abc"}, 3)
    assert "".join(order[3:]) == "abcbcacab"
    assert set(taken) == set("abc") and min(taken.values()) >= 0
