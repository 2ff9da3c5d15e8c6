"""Every variant builds, shards and steps at its real size, by shape alone."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from decodec_jax import config as settings
from decodec_jax.errors import UserError
from decodec_jax.training import sharding, state
from decodec_jax.training.step import make_take_apart, make_train_step

_SPEC = importlib.util.spec_from_file_location("decodec", Path(__file__).parents[1] / "configs" / "decodec.py")
decodec = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(decodec)


@pytest.mark.parametrize("variant", decodec.VARIANTS)
def test_variant_steps(variant):
    config = decodec.get_config(variant)
    settings.check(config)
    config.mesh.data = 1
    mesh = sharding.make_mesh(config.mesh, config.data.batch)
    before = jax.eval_shape(lambda: state.create(config))
    t = round(config.data.seconds * config.model.sample_rate)
    array = jax.ShapeDtypeStruct((config.data.batch, 2, t), jnp.float32)
    batch = dict.fromkeys(("speech", "background", "mixture", "swapped"), array)
    after, metrics = jax.eval_shape(make_train_step(config, mesh), before, batch)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), before) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
    assert metrics["loss"].shape == ()
    outcome = jax.eval_shape(make_take_apart(config), before, jax.ShapeDtypeStruct((2, t + 1), jnp.float32))
    assert outcome.speech.shape == (2, t + 1)
    assert config.model.hop == 320  # 50 frames a second, in every variant
    assert config.model.causal == variant.endswith("causal")


def test_saved_and_read_back_a_config_is_the_same(tmp_path):
    config = decodec.get_config("small")
    assert settings.from_dict(settings.Config, settings.to_dict(config)) == config


def test_an_unknown_setting_in_a_saved_config_is_named():
    values = settings.to_dict(settings.Config())
    values["optim"]["momentum"] = 0.9
    with pytest.raises(UserError, match="momentum"):
        settings.from_dict(settings.Config, values)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("model", "projection", "orthogonal"), ("model", "latent", 0), ("data", "seconds", -1.0), ("data", "snr", (5, -5)),
     ("data", "silent", 0.95), ("loss", "mel_bands", (10,)), ("model", "decoder_channels", 100)],
)  # fmt: skip
def test_a_value_no_run_can_use_is_refused(section, name, value):
    config = decodec.get_config("paper")
    setattr(getattr(config, section), name, value)
    with pytest.raises(UserError, match=name):
        settings.check(config)
