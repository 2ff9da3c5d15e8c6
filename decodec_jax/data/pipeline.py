"""Batches of training examples, in the same order for any number of workers and hosts.

An example is a pure function of (seed, index), and index runs over a practically endless range. There are no epochs.
The position is one integer: the number of examples that all hosts together have consumed. (We do not use Grain's own
iterator state, because it depends on the number of workers.)
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import parent_process

import grain
import numpy as np
from absl import flags

from decodec_jax.config import Data
from decodec_jax.data.mixing import Example, Mixer
from decodec_jax.data.sources import ClipSource
from decodec_jax.data.targets import TargetCache
from decodec_jax.errors import UserError

ENDLESS = 2**48  # examples
AHEAD = 2  # batches that each worker prepares ahead


class Batches:
    """Endless iterator over batches: examples as a Mixer makes them, with b in front. Close it to stop the workers.

    `position` counts the examples consumed so far by all hosts: `batches(..., start=position)` continues from there.
    """

    def __init__(self, dataset: grain.IterDataset, position: int, batch: int):
        self.position = position
        self._batch = batch
        self._iterator = iter(dataset)

    def __iter__(self) -> Iterator[Example]:
        return self

    def __next__(self) -> Example:
        made = next(self._iterator)
        self.position += self._batch
        return made

    def close(self) -> None:
        self._iterator.close()


def batches(
    source: ClipSource, data: Data, start: int = 0, host: int = 0, hosts: int = 1, cache: TargetCache | None = None
) -> Batches:
    """Training batches from position `start` on: this host's `data.batch / hosts` examples of each global batch.

    Host h has the examples h, h + hosts, ... of a global batch. With `data.workers` processes, guard your main module
    with `if __name__ == "__main__":`, because each of them imports it. With a `cache`, batches have `targets`.
    """
    if data.batch % hosts:
        raise UserError(f"data.batch is {data.batch}; it must be a multiple of the {hosts} hosts")
    examples = grain.MapDataset.range(ENDLESS).random_map(Mixer(source, data, cache), seed=data.seed)
    # Slice after the random map, which uses the index before it, so that hosts and position do not matter.
    ours = examples[start + host :: hosts].batch(data.batch // hosts, drop_remainder=True)
    # One thread reads ahead while the device computes; decoding and numpy release the GIL.
    dataset = ours.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD))
    if data.workers > 0:
        _let_grain_read_its_flags()
        options = grain.MultiprocessingOptions(data.workers, per_worker_buffer_size=AHEAD)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_begin_worker)
    return Batches(dataset, start, data.batch)


def validation(source: ClipSource, data: Data, pairs: int) -> list[Example]:
    """Validation batches, the same at every call: `pairs` examples, rounded up to whole batches.

    Each has `snr`, float32 [b, 2], in dB.
    """
    mixer = Mixer(source, data)
    examples = [mixer.valid(index) for index in range(pairs + -pairs % data.batch)]
    return [_stack(examples[first : first + data.batch]) for first in range(0, len(examples), data.batch)]


def _let_grain_read_its_flags() -> None:
    """Grain reads its own flags, which absl refuses if a program has not parsed any, as in a notebook or a test."""
    if not flags.FLAGS.is_parsed():
        for name in flags.FLAGS:
            if name.startswith("grain_"):
                flags.FLAGS[name].present = 1


def _begin_worker(worker: int, workers: int) -> None:
    """Set up a worker process. It must not take the accelerator or outlive the training process."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # JAX has read the environment already
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    # Ctrl-C reaches every process of the terminal, and a scheduler's SIGTERM every process of the job. The training
    # process stops its workers itself.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)

    def leave_with_parent():
        parent_process().join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _stack(examples: list[Example]) -> Example:
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
