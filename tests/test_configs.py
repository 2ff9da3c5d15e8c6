"""Every variant builds, shards and steps at its real size, by shape alone."""

import importlib.util
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax import config as settings
from decodec_jax import testing
from decodec_jax.codec.model import DeCodecNetwork, initialise
from decodec_jax.errors import UserError
from decodec_jax.objective.losses import OUTPUT_TERMS
from decodec_jax.objective.teacher import CepstraTeacher
from decodec_jax.training import sharding, state
from decodec_jax.training.step import make_train_step
from decodec_jax.training.validation import make_take_apart

TERMS = (*OUTPUT_TERMS, "perp", "commitment", "codebook", "guidance")

_SPEC = importlib.util.spec_from_file_location("decodec", Path(__file__).parents[1] / "configs" / "decodec.py")
decodec = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(decodec)


@jax.tree_util.register_dataclass
@dataclass
class AnyTeacher:
    """Targets of the right shape, as the weights of the real one are not at hand."""

    width: int = field(metadata={"static": True})

    def targets(self, wave):
        return jnp.zeros((wave.shape[0], -(-wave.shape[1] // 320), self.width))

    def states(self, wave):
        return self.targets(wave)[None] + wave[:, :1, None]


# A recipe changes the same settings at every size: those of the paper's size are stepped through, and some small ones.
# Four recipes change only the number of levels: one is stepped through at that size, the others at one sooner traced.
LEVELS = ("kbps4", "kbps6", "speech3_noise1")
STEPPED = [v for v in decodec.VARIANTS if not v.startswith(("small_", "tiny_")) and v not in LEVELS]
STEPPED += ["small_full", "tiny_full_causal", *(f"tiny_{recipe}" for recipe in LEVELS)]
WHOLE = ("paper", "light", "small_full", "tiny_full_causal")  # with all that their steps have and all their layers


@pytest.mark.parametrize("variant", STEPPED)
def test_variant_steps(variant):
    config = decodec.get_config(variant)
    settings.check(config)
    config.mesh.data = 1
    config.train.accumulate = 2 if variant == "small_full" else 1  # with all that a step may have
    if variant not in WHOLE:  # no other recipe changes these, and they take long
        config.loss.adversarial = config.loss.feature = 0.0
        config.model.waveform.dilations = (1,)
    mesh = sharding.make_mesh(config.mesh, config.data.batch)
    before = jax.eval_shape(lambda: state.create(config))
    t = round(config.data.seconds * config.model.sample_rate)
    array = jax.ShapeDtypeStruct((config.data.batch, 2, t), jnp.float32)
    batch = dict.fromkeys(("speech", "background", "mixture", "swapped"), array)
    teacher = AnyTeacher(config.model.semantic) if config.loss.guidance else None
    train_step = make_train_step(config, mesh)
    after, metrics = jax.eval_shape(lambda state, batch: train_step(state, batch, teacher), before, batch)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), before) == jax.tree.map(lambda a: (a.shape, a.dtype), after)
    assert metrics["loss"].shape == ()
    outcome = jax.eval_shape(make_take_apart(config, mesh), before, jax.ShapeDtypeStruct((2, t + 1), jnp.float32))
    assert outcome.speech.shape == (2, t + 1)
    assert config.model.hop == 320  # 50 frames a second, in every variant
    causal = variant.startswith(("light", "tiny")) or "causal" in variant or "ablation" in variant
    assert config.model.causal == causal
    terms = {name.removeprefix("loss/") for name in metrics if name.startswith("loss/")}
    used = {name for name in TERMS if getattr(config.loss, name)}
    # no variant has codebooks that are learned by gradient
    assert terms == (used - {"codebook"}) | ({"discriminator"} if config.loss.adversarial else set())


@pytest.mark.parametrize("variant", sorted(set(decodec.VARIANTS) - set(WHOLE)))
def test_every_variant_can_be_used_and_builds_at_its_real_size(variant):
    config = decodec.get_config(variant)
    settings.check(config)
    params, codebook = jax.eval_shape(lambda key: initialise(config.model, key), jax.random.key(0))
    wave = jax.ShapeDtypeStruct((1, 1000), jnp.float32)
    variables = {"params": params, "codebook": codebook}
    assert jax.eval_shape(DeCodecNetwork(config.model).apply, variables, wave).shape == (1, 1000)


@pytest.mark.parametrize(
    ("recipe", "family"), [("ablation2", "spectral"), ("exact_orthogonal", "waveform"), ("full_causal", "spectral")]
)
def test_recipes_that_change_the_network_train_a_tiny_one(recipe, family):
    config = testing.full_config(family=family, dilations=(), decoder_blocks=1)
    config.discriminator = testing.tiny_discriminator(rates=(), windows=(), stft_windows=(), frame_windows=())
    config.loss.guidance = config.loss.adversarial = config.loss.feature = 0.0
    config.train.continuous_steps = 0
    decodec.RECIPES[recipe](config)
    mesh = sharding.make_mesh(config.mesh, config.data.batch)
    teacher = CepstraTeacher() if config.loss.guidance else None
    batch = sharding.place(testing.training_batch(config), mesh)
    after, metrics = make_train_step(config, mesh)(state.fresh(config), batch, teacher)
    assert metrics["not_finite"] == 0
    assert after.step == 1


def test_saved_and_read_back_a_config_is_the_same(tmp_path):
    config = decodec.get_config("small")
    assert settings.from_dict(settings.Config, settings.to_dict(config)) == config


def test_an_unknown_setting_in_a_saved_config_is_named():
    values = settings.to_dict(settings.Config())
    values["optim"]["patience"] = 0.9
    with pytest.raises(UserError, match="patience"):
        settings.from_dict(settings.Config, values)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [("model", "projection", "orthogonal"), ("model", "family", "wavelet"), ("model", "latent", 0),
     ("data", "seconds", -1.0), ("data", "snr", (5, -5)), ("data", "silent", 0.95), ("loss", "game", "chess"),
     ("loss", "guidance_form", "axis"), ("loss", "mel_bands", (10,)), ("loss", "own", 0.5), ("loss", "swap", -1.0),
     ("model.waveform", "decoder_channels", 100), ("model.spectral", "hop", 321), ("model.spectral", "width", 0),
     ("discriminator", "windows", ("",)), ("optim", "kind", "sgd"), ("train", "keep", 0), ("train", "valid_clips", 1),
     ("train", "kmeans_batches", -1), ("data", "level", (10,)), ("data.augment", "speed", 1.1), ("loss", "overlap", 3),
     ("model.speech", "dim", 1025), ("train", "continuous_steps", -1)],
)  # fmt: skip
def test_a_value_no_run_can_use_is_refused(section, name, value):
    config = decodec.get_config("paper")
    setattr(reduce(getattr, section.split("."), config), name, value)
    with pytest.raises(UserError, match=name):
        settings.check(config)


@pytest.mark.parametrize(
    ("section", "name", "value", "reason"),
    [("model", "latent", 193, "model.latent is 193; .* it must be even"),
     ("loss", "perp", 10.0, "loss.perp is 10, but the parts of the exact projection are always orthogonal")],
)  # fmt: skip
def test_what_does_not_go_with_the_exact_projection_is_refused(section, name, value, reason):
    config = decodec.get_config("light")
    setattr(getattr(config, section), name, value)
    with pytest.raises(UserError, match=reason):
        settings.check(config)


@pytest.mark.parametrize(
    ("variant", "section", "expected"),
    [
        ("ablation1", "loss", {"own": 1.0, "swap": 0.0, "guidance": 0.0, "perp": 10.0}),
        ("ablation2", "model", {"projection": "none", "causal": True}),
        ("ablation3", "loss", {"guidance": 0.0, "perp": 10.0, "swap": 1.0}),
        ("paper", "loss", {"guidance": 150.0, "wave": 500.0, "own": 1.0, "swap": 1.0, "adversarial": 1.0}),
        ("paper", "loss", {"speech": 0.0, "background": 0.0, "magnitude": 0.0}),
        ("exact_orthogonal", "loss", {"perp": 0.0}),
        ("light", "model", {"family": "spectral", "causal": True, "projection": "exact", "semantic": 384}),
        ("light", "teacher", {"kind": "whisper"}),
        ("light", "loss", {"guidance": 1.5, "perceptual": 0.15}),
        ("light_no_guidance", "model", {"semantic": 0}),
        ("light_no_guidance", "loss", {"guidance": 0.0, "perceptual": 0.0}),
        ("small", "model", {"family": "spectral", "causal": False}),
        ("small", "loss", {"guidance": 0.0, "adversarial": 0.0, "feature": 0.0}),
        ("small_ablation1", "loss", {"own": 1.0, "swap": 0.0, "speech": 0.0, "background": 0.0}),
        ("small_full", "teacher", {"kind": "cepstra"}),
    ],
)
def test_a_recipe_changes_what_its_name_says(variant, section, expected):
    values = settings.to_dict(decodec.get_config(variant))[section]
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize(("variant", "kbps"), [("paper", 8), ("kbps4", 4), ("kbps6", 6), ("speech6_noise2", 8)])
def test_bitrates(variant, kbps):
    model = decodec.get_config(variant).model
    bits = sum(q.levels * np.log2(q.entries) for q in (model.speech, model.background))
    assert bits * model.sample_rate / model.hop == pytest.approx(1000 * kbps)
