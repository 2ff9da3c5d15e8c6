"""Batches of utterances of similar length, in an order that depends only on the seed and the position."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

MULTIPLE = 32  # padded lengths are multiples of so many frames, and of half as many symbols

Batch = dict[str, np.ndarray]


class Bucket(NamedTuple):
    """Utterances whose batches have one shape, so that a step is compiled once for them."""

    members: np.ndarray  # [n] indices of utterances
    frames: int  # padded length
    symbols: int  # padded length


Make = Callable[[Sequence[int], Bucket], Batch]  # a batch of these utterances, padded to the bucket's shape


def buckets(frames: Sequence[int], symbols: Sequence[int], count: int) -> list[Bucket]:
    """Sort utterances by length into at most `count` buckets with equally many members."""
    order = np.argsort(frames, kind="stable")
    found = []
    for members in np.array_split(order, min(count, len(order))):
        longest = max(frames[i] for i in members), max(symbols[i] for i in members)
        found.append(Bucket(members, rounded_up(longest[0], MULTIPLE), rounded_up(longest[1], MULTIPLE // 2)))
    return found


def rounded_up(number: int, multiple: int) -> int:
    """The next multiple, of one at least."""
    return max(1, -(-number // multiple)) * multiple


class Batches:
    """Endless iterator over batches. Every epoch shuffles each bucket anew and fills up its last batch by repetition.

    `position` counts the utterances consumed by all hosts. Host h of n gets the utterances h, h + n, ... of a batch.
    """

    def __init__(
        self, found: Sequence[Bucket], make: Make, batch: int, seed: int, position: int = 0, host: int = 0,
        hosts: int = 1,
    ):  # fmt: skip
        self.position = position
        self._buckets, self._make, self._batch, self._seed = found, make, batch, seed
        self._host, self._hosts = host, hosts
        self._epoch: tuple[int, list] = (-1, [])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        count = sum(-(-len(bucket.members) // self._batch) for bucket in self._buckets)
        epoch, number = divmod(self.position // self._batch, count)
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._drawn(epoch)
        members, bucket = self._epoch[1][number]
        self.position += self._batch
        return self._make(members[self._host :: self._hosts], bucket)

    def close(self) -> None:
        """Nothing runs in the background."""

    def _drawn(self, epoch: int) -> list[tuple[np.ndarray, Bucket]]:
        rng = np.random.default_rng([self._seed, epoch])
        drawn = []
        for bucket in self._buckets:
            order = rng.permutation(bucket.members)
            full = np.resize(order, -(-len(order) // self._batch) * self._batch)
            drawn += [(members, bucket) for members in full.reshape(-1, self._batch)]
        return [drawn[i] for i in rng.permutation(len(drawn))]


def in_order(found: Sequence[Bucket], batch: int) -> Iterator[tuple[np.ndarray, int, Bucket]]:
    """Every utterance once, in batches: members, filled up by repetition, how many of them count, and their bucket."""
    for bucket in found:
        for first in range(0, len(bucket.members), batch):
            members = bucket.members[first : first + batch]
            yield np.resize(members, batch), len(members), bucket
