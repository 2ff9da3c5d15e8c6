"""Validation: every held-out utterance once, on all devices of all hosts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from decodec_jax.downstream.batches import Batch, Bucket, Make, in_order
from decodec_jax.training import sharding


def rows(
    found: Sequence[Bucket], make: Make, batch: int, mesh: Mesh, run: Callable[[Batch], tuple]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Each utterance's index, and its row of the arrays `[batch, ...]` that `run` returns on every device."""
    host, hosts = jax.process_index(), jax.process_count()
    for members, count, bucket in in_order(found, batch):
        arrays = jax.device_get(run(sharding.place(make(members[host::hosts], bucket), mesh)))
        # the global batch holds the first host's share, then the second's, and so on
        order = np.argsort(np.concatenate([np.arange(h, len(members), hosts) for h in range(hosts)]))[:count]
        for i, row in zip(members[:count], order, strict=True):
            yield int(i), tuple(array[row] for array in arrays)
