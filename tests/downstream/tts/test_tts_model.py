"""The networks: the cache and the batch change nothing, and padding is not seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.downstream.tts import ar, nar
from decodec_jax.downstream.tts.config import Model
from decodec_jax.downstream.tts.sampling import Sampling, generate

SMALL = Model(width=16, layers=2, heads=2, expansion=2, levels=3)
LEVELS = {"ar": 1, "nar": 3}


def made(stage, batch, **changes):
    """A network at random, its parameters and the codec's vectors."""
    config = Model(**(vars(SMALL) | {"stage": stage} | changes))
    network = {"ar": ar, "nar": nar}[stage].Network(config, 9, 16)
    vectors = {"speech": np.random.default_rng(1).standard_normal((LEVELS[stage], 16, 4)).astype(np.float32)}
    return network, testing.random_variables(network, batch, vectors)["params"], vectors


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_an_utterance_alone_is_as_in_a_padded_batch(batch_of, stage):
    batch = batch_of(3, LEVELS[stage])
    network, params, frozen = made(stage, batch)
    together = network.apply({"params": params}, batch, frozen)
    for i in range(3):
        symbols, frames = batch["symbols"][i], batch["frames"][i]
        one = {name: array[i : i + 1] for name, array in batch.items()}
        one |= {name: one[name][:, :symbols] for name in ("text", "places")}
        one["codes"] = one["codes"][..., :frames]
        alone = network.apply({"params": params}, one, frozen)[0]
        np.testing.assert_allclose(alone, together[i, : len(alone)], atol=1e-5)


def test_nothing_behind_a_frame_is_heard(batch_of):
    batch = batch_of(1, 1)
    network, params, frozen = made("ar", batch)
    before = network.apply({"params": params}, batch, frozen)
    batch["codes"] = batch["codes"].copy()
    batch["codes"][0, 0, 5] += 1
    after = network.apply({"params": params}, batch, frozen)
    np.testing.assert_array_equal(before[0, :6], after[0, :6])
    assert np.all(np.any(before[0, 6:] != after[0, 6:], axis=-1))


def test_levels_not_yet_made_are_not_heard(batch_of):
    """Only of the prompt's frames."""
    batch = batch_of(1, 3) | {"level": np.array([1]), "prompt": np.array([4])}
    network, params, frozen = made("nar", batch)
    before = network.apply({"params": params}, batch, frozen)
    other = batch["codes"].copy()
    other[:, 1:, 4:] = (other[:, 1:, 4:] + 1) % 16
    np.testing.assert_array_equal(before, network.apply({"params": params}, batch | {"codes": other}, frozen))
    other[:, 2, 0] = (other[:, 2, 0] + 1) % 16
    assert np.any(before != network.apply({"params": params}, batch | {"codes": other}, frozen))


def test_hidden_text_is_not_heard(batch_of):
    batch = batch_of(2, 3) | {"symbols": np.zeros(2, np.int32)}
    network, params, frozen = made("nar", batch)
    one, other = (network.apply({"params": params}, batch | {"text": batch["text"] + more}, frozen) for more in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_the_cache_gives_what_the_whole_gives(batch_of):
    batch = batch_of(2, 1) | {"frames": np.array([12, 12], np.int32)}
    network, params, frozen = made("ar", batch)
    whole = network.apply({"params": params}, batch, frozen)
    begun = batch | {"codes": batch["codes"][..., :4]}
    scores, cache = network.apply({"params": params}, begun, frozen, 12, method="begin")
    np.testing.assert_allclose(scores, whole[:, :5], atol=1e-5)
    follow = jax.jit(lambda code, frame, cache: network.apply({"params": params}, code, frame, batch, cache, frozen,
                                                              method="follow"))  # fmt: skip
    for frame in range(4, 12):
        scores, cache = follow(batch["codes"][:, 0, frame], frame, cache)
        np.testing.assert_allclose(scores, whole[:, frame + 1], atol=1e-5)


def test_at_temperature_0_every_code_is_the_likeliest_of_the_whole(batch_of):
    batch = batch_of(1, 1) | {"frames": np.array([3], np.int32)}
    network, params, frozen = made("ar", batch)
    drawn = generate(network, 20, params, frozen, batch, (15, 20), jax.random.key(0), Sampling(temperature=0.0))
    count = int(drawn.count)
    np.testing.assert_array_equal(drawn.codes[:3], batch["codes"][0, 0, :3])
    assert 15 <= count <= 20
    scores = network.apply({"params": params}, batch | {"codes": drawn.codes[None, None]}, frozen)[0]
    scores = jnp.where((jnp.arange(17) == 16) & (jnp.arange(21)[:, None] < 15), -jnp.inf, scores)
    likeliest = np.argmax(scores, axis=-1)
    np.testing.assert_array_equal(likeliest[3:count], drawn.codes[3:count])
    assert count == 20 or likeliest[count] == 16


def test_losses_count_what_they_should(batch_of):
    """With scores of zero everywhere each code costs log n, whatever the padding."""
    batch = batch_of(3, 1)
    network, params, frozen = made("ar", batch)
    silent = {"params": params | {"head": jax.tree.map(np.zeros_like, params["head"])}}["params"]
    loss, _ = ar.scores(network, silent, frozen, batch, None)
    np.testing.assert_allclose(loss, np.log(17), rtol=1e-5)
    batch = batch_of(3, 3)
    network, params, frozen = made("nar", batch, vectors="learned", learned=4)
    assert params["frames"]["vectors"].shape == (3, 16, 4)
    loss, right = nar.scores(network, params | {"heads": np.zeros_like(params["heads"])}, {}, batch, None)
    np.testing.assert_allclose(loss, np.log(16), rtol=1e-5)
    other = batch | {"codes": np.where(np.arange(12) < batch["prompt"][:, None, None], 1, batch["codes"])}
    assert np.array_equal(right, nar.scores(network, params | {"heads": 0 * params["heads"]}, {}, other, None)[1])


def test_the_other_levels_are_made_one_after_the_other(batch_of):
    batch = batch_of(2, 3)
    network, params, frozen = made("nar", batch)
    run = jax.jit(network.apply)
    made_codes = nar.completed(run, params, frozen, batch, 3)
    np.testing.assert_array_equal(made_codes[:, 0], batch["codes"][:, 0])
    for level in (1, 2):
        numbered = batch | {"codes": made_codes, "level": np.full(2, level)}
        likeliest = np.argmax(run({"params": params}, numbered, frozen), axis=-1)
        prompt = np.arange(12) < batch["prompt"][:, None]
        np.testing.assert_array_equal(made_codes[:, level], np.where(prompt, batch["codes"][:, level], likeliest))
