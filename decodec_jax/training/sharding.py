"""Devices as a mesh. Batches are split along it, the training state is the same everywhere.

pmap-style large-batch training is the one-dimensional `data` mesh: every device holds the whole model and a share of
the batch, and gradients, codebook statistics and losses are summed by the compiler.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from decodec_jax import config as settings
from decodec_jax.errors import UserError

BATCH = PartitionSpec("data")


def make_mesh(config: settings.Mesh, batch: int) -> Mesh:
    """The mesh the config names. Raises UserError when the batch cannot be split evenly along it."""
    devices = len(jax.devices()) if config.data == -1 else config.data
    if devices > len(jax.devices()):
        raise UserError(f"mesh.data asks for {devices} devices; there are {len(jax.devices())}")
    if batch % devices:
        raise UserError(f"data.batch is {batch}; it must be a multiple of the {devices} devices along mesh.data")
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's share of a batch onto its devices, as part of the global batch split along the first axis."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def per_device(mesh: Mesh) -> Callable[[Callable], Callable]:
    """Make a function of batch-split arrays run on each device's own items, with no communication."""
    return lambda function: jax.shard_map(function, mesh=mesh, in_specs=BATCH, out_specs=BATCH)
