"""The networks: the cache and the batch change nothing, and padding is not seen."""

from functools import partial

import jax
import numpy as np
import pytest

from decodec_jax import testing
from decodec_jax.downstream.tts import ar, nar, parallel
from decodec_jax.downstream.tts.config import Model
from decodec_jax.downstream.tts.sampling import Sampling, generate

SMALL = Model(width=16, layers=2, heads=2, expansion=2, levels=3)
LEVELS = {"ar": 1, "parallel": 1, "nar": 3}


class Made:
    """A network at random, its parameters and the codec's vectors; call it with a batch for its scores."""

    def __init__(self, stage, batch, **changes):
        config = Model(**(vars(SMALL) | {"stage": stage} | changes))
        self.network = {"ar": ar, "parallel": parallel, "nar": nar}[stage].Network(config, 9, 16)
        vectors = np.random.default_rng(1).standard_normal((LEVELS[stage], 16, 4)).astype(np.float32)
        self.frozen = {"speech": vectors}
        self.params = testing.random_variables(self.network, batch, self.frozen)["params"]
        self.run = jax.jit(self.network.apply)

    def __call__(self, batch):
        return self.run({"params": self.params}, batch, self.frozen)


def heard(found):
    """The scores of codes, without the durations of the parallel model."""
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("stage", LEVELS)
def test_an_utterance_alone_is_as_in_a_padded_batch(batch_of, stage):
    batch = batch_of(3, LEVELS[stage])
    scores = Made(stage, batch)
    together = heard(scores(batch))
    for i in range(2):
        symbols, frames = batch["symbols"][i], batch["frames"][i]
        one = {name: array[i : i + 1] for name, array in batch.items()}
        one |= {name: one[name][:, :symbols] for name in ("text", "places")}
        one |= {name: one[name][..., :frames] for name in ("codes", "owners", "within", "known")}
        alone = heard(scores(one))[0]
        np.testing.assert_allclose(alone, together[i, : len(alone)], atol=1e-5)


def test_nothing_behind_a_frame_is_heard(batch_of):
    batch = batch_of(1, 1)
    scores = Made("ar", batch)
    other = batch["codes"].copy()
    other[0, 0, 5] += 1
    before, after = scores(batch), scores(batch | {"codes": other})
    np.testing.assert_array_equal(before[0, :6], after[0, :6])
    assert np.all(np.any(before[0, 6:] != after[0, 6:], axis=-1))


def test_levels_not_yet_made_are_not_heard(batch_of):
    """Only of the prompt's frames."""
    batch = batch_of(1, 3) | {"level": np.array([1], np.int32), "prompt": np.array([4], np.int32)}
    scores = Made("nar", batch)
    before, other = scores(batch), batch["codes"].copy()
    other[:, 1:, 4:] = (other[:, 1:, 4:] + 1) % 16
    np.testing.assert_array_equal(before, scores(batch | {"codes": other}))
    other[:, 2, 0] = (other[:, 2, 0] + 1) % 16
    assert np.any(before != scores(batch | {"codes": other}))


def test_hidden_text_is_not_heard(batch_of):
    batch = batch_of(1, 3) | {"symbols": np.zeros(1, np.int32)}
    scores = Made("nar", batch)
    np.testing.assert_array_equal(scores(batch), scores(batch | {"text": batch["text"] + 1}))


def test_the_cache_gives_what_the_whole_gives(batch_of):
    batch = batch_of(1, 1) | {"frames": np.array([12], np.int32)}
    scores = Made("ar", batch)
    variables, whole = {"params": scores.params}, scores(batch)
    begun = batch | {"codes": batch["codes"][..., :4]}
    begin = jax.jit(partial(scores.network.apply, method="begin"), static_argnums=3)
    found, cache = begin(variables, begun, scores.frozen, 12)
    np.testing.assert_allclose(found, whole[:, :5], atol=1e-5)
    follow = jax.jit(partial(scores.network.apply, method="follow"))
    for frame in range(4, 12):
        found, cache = follow(variables, batch["codes"][:, 0, frame], frame, batch, cache, scores.frozen)
        np.testing.assert_allclose(found, whole[:, frame + 1], atol=1e-5)


def test_at_temperature_0_every_code_is_the_likeliest_of_the_whole(batch_of):
    batch = batch_of(1, 1) | {"frames": np.array([3], np.int32)}
    scores = Made("ar", batch)
    run = jax.jit(partial(generate, scores.network, 20))
    drawn = run(scores.params, scores.frozen, batch, (15, 20), jax.random.key(0), Sampling(temperature=0.0))
    count = int(drawn.count)
    np.testing.assert_array_equal(drawn.codes[:3], batch["codes"][0, 0, :3])
    assert 15 <= count <= 20
    found = np.array(scores(batch | {"codes": drawn.codes[None, None]})[0])
    found[:15, 16] = -np.inf  # the end may not come before
    likeliest = np.argmax(found, axis=-1)
    np.testing.assert_array_equal(likeliest[3:count], drawn.codes[3:count])
    assert count == 20 or likeliest[count] == 16


def test_codes_that_are_unknown_are_not_heard(batch_of):
    batch = batch_of(2, 1)
    scores = Made("parallel", batch)
    moved = (batch["codes"] + 1) % 16
    unknown = np.where(batch["known"][:, None], batch["codes"], moved)
    np.testing.assert_array_equal(scores(batch)[0], scores(batch | {"codes": unknown})[0])
    assert np.any(scores(batch)[0] != scores(batch | {"codes": moved})[0])


def test_at_temperature_0_the_surest_codes_are_filled_in_first(batch_of):
    batch = batch_of(1, 1) | {"known": np.zeros((1, 12), bool)}
    scores, frames = Made("parallel", batch), int(batch["frames"][0])

    run = jax.jit(partial(parallel.fill_in, scores.network))

    def filled(sampling, seed=0):
        return np.asarray(run(scores.params, scores.frozen, batch, jax.random.key(seed), sampling))[:frames]

    first = np.asarray(scores(batch)[0][0, :frames])
    surest = np.argmax(np.max(jax.nn.log_softmax(first), axis=-1))
    found = filled(Sampling(temperature=0.0))
    assert found[surest] == np.argmax(first[surest])
    # the last code to be filled in is the likeliest given all others
    each = []
    for frame in range(frames):
        known = (np.arange(12) != frame)[None]
        shown = batch | {"codes": np.pad(found, (0, 12 - frames))[None, None], "known": known}
        each.append(np.argmax(scores(shown)[0][0, frame]) == found[frame])
    assert any(each)
    np.testing.assert_array_equal(found, filled(Sampling(temperature=0.0), seed=1))
    drawn = np.stack([filled(Sampling(temperature=1.0, nucleus=1.0), seed) for seed in range(4)])
    assert np.any(drawn != drawn[0])


def test_losses_count_what_they_should(batch_of):
    """With scores of zero everywhere each code costs log n, whatever the padding."""
    batch = batch_of(3, 1)
    made = Made("ar", batch)
    silent = made.params | {"head": jax.tree.map(np.zeros_like, made.params["head"])}
    loss, _ = jax.jit(partial(ar.scores, made.network, key=None))(silent, made.frozen, batch)
    np.testing.assert_allclose(loss, np.log(17), rtol=1e-5)
    made = Made("parallel", batch)
    silent = made.params | {name: jax.tree.map(np.zeros_like, made.params[name]) for name in ("head", "duration")}
    batch["durations"] = np.where(np.arange(7) < batch["symbols"][:, None], 3, 0)
    loss, _ = jax.jit(partial(parallel.scores, made.network, key=None))(silent, made.frozen, batch)
    np.testing.assert_allclose(loss, np.log(16) + parallel.LENGTHS * np.log(3) ** 2, rtol=1e-5)
    batch = batch_of(3, 3)
    made = Made("nar", batch, vectors="learned", learned=4)
    assert made.params["frames"]["vectors"].shape == (3, 16, 4)
    silent = made.params | {"heads": np.zeros_like(made.params["heads"])}
    run = jax.jit(partial(nar.scores, made.network, key=None))
    loss, right = run(silent, {}, batch)
    np.testing.assert_allclose(loss, np.log(16), rtol=1e-5)
    other = batch | {"codes": np.where(np.arange(12) < batch["prompt"][:, None, None], 1, batch["codes"])}
    np.testing.assert_array_equal(right, run(silent, {}, other)[1])


def test_the_other_levels_are_made_one_after_the_other(batch_of):
    batch = batch_of(2, 3)
    scores = Made("nar", batch)
    codes = np.asarray(nar.completed(scores.run, scores.params, scores.frozen, batch, 3))
    np.testing.assert_array_equal(codes[:, 0], batch["codes"][:, 0])
    for level in (1, 2):
        likeliest = np.argmax(scores(batch | {"codes": codes, "level": np.full(2, level, np.int32)}), axis=-1)
        prompt = np.arange(12) < batch["prompt"][:, None]
        np.testing.assert_array_equal(codes[:, level], np.where(prompt, batch["codes"][:, level], likeliest))
