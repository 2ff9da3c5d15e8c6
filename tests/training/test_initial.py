"""A new run from known weights: what is taken over, and what does not fit is named."""

import json

import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.codec.model import STREAMS
from decodec_jax.errors import UserError
from decodec_jax.inference import bundle
from decodec_jax.training import initial
from decodec_jax.training.loop import train


def full_config(**changes):
    """`testing.full_config()` with one discriminator, as most of its compilation is theirs."""
    config = testing.full_config(**changes)
    config.discriminator = testing.tiny_discriminator(rates=(), windows=(), stft_windows=(), frame_windows=())
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of the whole objective."""
    folder = tmp_path_factory.mktemp("run")
    config = full_config()
    config.train.steps = config.train.save_every = config.train.valid_every = 2
    config.train.continuous_steps = 1
    return config, folder, train(config, folder)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_from_a_run_with_optimizer_and_discriminators(run):
    config, folder, trained = run
    config = full_config()
    config.train.init_from = str(folder)
    state = initial.initial_state(config)
    assert state.step == 0
    assert_equal(state.params, trained.averaged)
    for part in ("averaged", "codebook", "optimizer", "discriminators", "discriminator_optimizer"):
        assert_equal(getattr(state, part), getattr(trained, part))


def test_a_run_may_carry_on_where_a_bundle_stands_that_is_all_that_is_left(tmp_path, capsys):
    config = testing.tiny_config(family="spectral", causal=True)
    model = testing.random_bundle(tmp_path / "model", config.model)  # of step 7
    config.train.init_from, config.train.carry_on = str(model), True
    config.train.steps = config.train.save_every = config.train.valid_every = 9
    config.optim.warmup, config.optim.decay_steps = 2, 100
    state = initial.initial_state(config)
    assert state.step == 7
    assert train(config, tmp_path / "run").step == 9
    said = capsys.readouterr().out
    assert "at step 7" in said and "set by k-means" not in said
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [8, 9] and rows[0]["lr"] > 0.99 * config.optim.lr


def test_what_a_plain_run_lacks_starts_as_ever_and_what_only_guidance_needs_is_left(run, tmp_path):
    config = testing.tiny_config(strides=(32, 10), hop=320)
    config.data.seconds = 0.2
    config.train.steps = config.train.save_every = config.train.valid_every = 1
    trained = train(config, tmp_path)
    full = full_config()
    fresh = initial.initial_state(full)
    full.train.init_from = str(tmp_path)
    state = initial.initial_state(full)
    assert_equal(state.params, trained.averaged | {initial.SEMANTIC: fresh.params[initial.SEMANTIC]})
    assert_equal(state.discriminators, fresh.discriminators)

    config.train.init_from = str(run[1])
    averaged = dict(run[2].averaged)
    del averaged[initial.SEMANTIC]
    assert_equal(initial.initial_state(config).params, averaged)


def test_a_bundle_is_a_start_and_its_codebooks_are_kept(run, tmp_path):
    config, _, trained = run
    bundle.save(tmp_path / "bundle", config.model, trained.averaged, trained.codebook, 2)
    started = full_config()
    started.train.init_from = str(tmp_path / "bundle")
    started.train.kmeans_batches = started.train.continuous_steps = 0
    started.train.steps = 1
    started.optim.lr = 0.0
    state = train(started, tmp_path / "run")
    assert_equal(state.params, trained.averaged)  # nothing was learned at a rate of 0, nothing was started anew


def test_quantizers_that_k_means_will_set_need_not_fit(run):
    _, folder, trained = run
    other = full_config(speech=testing.tiny_quantizer(levels=3, dim=4))
    other.train.init_from = str(folder)
    state, fresh = initial.initial_state(other), initial.fresh(other)
    assert_equal(state.params["encoder"], trained.averaged["encoder"])
    assert_equal(state.params[STREAMS[0]], fresh.params[STREAMS[0]])
    assert_equal(state.codebook, {STREAMS[0]: fresh.codebook[STREAMS[0]], STREAMS[1]: trained.codebook[STREAMS[1]]})
    other.train.carry_on, other.train.continuous_steps = True, 1  # the run was at step 2, past k-means
    with pytest.raises(UserError, match=r"does not fit the config: .*speech_quantizer"):
        initial.initial_state(other)
    other.train.carry_on, other.train.kmeans_batches = False, 0
    with pytest.raises(UserError, match=r"does not fit the config: .*speech_quantizer"):
        initial.initial_state(other)


def test_what_does_not_fit_is_named(run, tmp_path):
    _, folder, _ = run
    wider = full_config(latent=12)
    wider.train.init_from = str(folder)
    with pytest.raises(UserError, match=r"does not fit the config: .*\(1?\d arrays differ\)"):
        initial.initial_state(wider)
    wider.train.init_from = str(tmp_path / "nothing")
    with pytest.raises(UserError, match="does not exist"):
        initial.initial_state(wider)


def test_a_decoder_alone_goes_on_from_a_model(run):
    config = testing.tiny_config()
    config.train.decoder_only = True
    for source, carry_on in (("", False), ("", True), (str(run[1]), False)):
        config.train.init_from, config.train.carry_on = source, carry_on
        with pytest.raises(UserError, match=r"decoder_only needs train\.init_from"):
            initial.initial_state(config)
