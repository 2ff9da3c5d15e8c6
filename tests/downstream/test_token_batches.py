"""The order of batches is a function of seed and position."""

import numpy as np

from decodec_jax.downstream.batches import Batches, buckets, in_order

FRAMES = [30, 100, 64, 31, 500, 70, 33, 90, 65, 10, 480]
SYMBOLS = [3, 9, 5, 3, 40, 6, 3, 8, 5, 1, 33]


def make(members, bucket):
    return {"members": np.array(members), "shape": np.array([bucket.frames, bucket.symbols])}


def made(position=0, count=12, **options):
    batches = Batches(buckets(FRAMES, SYMBOLS, 3), make, 4, 7, position, **options)
    return [next(batches) for _ in range(count)], batches


def test_buckets_hold_everything_once_and_are_long_enough():
    found = buckets(FRAMES, SYMBOLS, 3)
    assert sorted(i for bucket in found for i in bucket.members) == list(range(11))
    for bucket in found:
        assert all(FRAMES[i] <= bucket.frames and SYMBOLS[i] <= bucket.symbols for i in bucket.members)
    assert [(bucket.frames, bucket.symbols) for bucket in found] == [(64, 16), (96, 16), (512, 48)]


def test_an_epoch_has_every_utterance_and_the_next_another_order():
    batches, _ = made(count=6)  # of three buckets with four, four and three utterances
    one, two = (np.concatenate([batch["members"] for batch in batches[i : i + 3]]) for i in (0, 3))
    assert set(one) == set(two) == set(range(11)) and list(one) != list(two)


def test_a_resumed_order_is_the_uninterrupted_one():
    whole, _ = made()
    _, stopped = made(count=5)
    resumed, _ = made(stopped.position, count=7)
    for one, other in zip(whole[5:], resumed, strict=True):
        np.testing.assert_equal(one, other)


def test_hosts_share_each_batch():
    whole, _ = made()
    hosts = [made(host=host, hosts=2)[0] for host in range(2)]
    for batch, *shares in zip(whole, *hosts, strict=True):
        np.testing.assert_array_equal(batch["members"], np.stack([s["members"] for s in shares], 1).ravel())


def test_in_order_everything_comes_once():
    found = buckets(FRAMES, SYMBOLS, 3)
    seen = [i for members, count, _ in in_order(found, 3) for i in members[:count]]
    assert sorted(seen) == list(range(11))
    assert all(len(members) == 3 for members, _, _ in in_order(found, 3))
