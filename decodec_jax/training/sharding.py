"""Devices as a mesh of three axes, along which the batch and the training state are split.

data    splits the batch. With this axis alone, the default, training is pmap-style large-batch training: every device
        holds the whole model and a share of the batch, and the compiler sums gradients, codebook statistics and losses.
fsdp    splits the batch too, and every large array of the state. Parameters, their averages, the optimizers' moments,
        discriminators and codebooks are in pieces between steps. Each step first gathers the arrays that it computes
        with.
model   splits the channels within residual units, and within feed-forward layers of models on tokens. The first
        convolution of a unit computes a share of them on each device, and the second sums over the shares. A unit costs
        one sum over the devices and no gathering. All other work is repeated along this axis.
"""

import math
import re
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from decodec_jax import config as settings
from decodec_jax.errors import UserError

T = TypeVar("T")
AXES = ("data", "fsdp", "model")
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(config: settings.Mesh, batch: int, accumulate: int = 1) -> Mesh:
    """The mesh of the config. Raises UserError if it does not fit the devices, or they cannot share the batch evenly.

    accumulate: number of micro-batches into which each device splits its share of the batch.
    """
    sizes, there = {axis: getattr(config, axis) for axis in AXES}, len(jax.devices())
    asked = " x ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
    if any(size < 1 and size != -1 for size in sizes.values()) or list(sizes.values()).count(-1) > 1:
        raise UserError(f"{asked}: each must be above 0, except that one may be -1, to take all devices that are left")
    named, all_of_them = math.prod(size for size in sizes.values() if size != -1), -1 in sizes.values()
    sizes = {axis: there // named if size == -1 else size for axis, size in sizes.items()}
    total = math.prod(sizes.values())
    if not 0 < total <= there or (all_of_them and total < there):
        raise UserError(f"{asked} does not fit the devices, of which there are {there}")
    if jax.process_count() > 1 and total < there:
        raise UserError(f"{asked} makes {total} devices; training on several hosts must use all {there}")
    shares = sizes["data"] * sizes["fsdp"]
    if batch % (shares * accumulate):
        parts = f", times train.accumulate={accumulate} micro-batches" if accumulate > 1 else ""
        raise UserError(f"data.batch is {batch}; it must be a multiple of {shares * accumulate}: {shares} devices "
                        f"along mesh.data and mesh.fsdp{parts}")
    mesh = jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.devices()[:total]
    )
    groups = mesh.devices.reshape(-1, sizes["model"])
    if any(len({device.process_index for device in group}) > 1 for group in groups):  # they would need the same batch
        raise UserError(f"mesh.model is {config.model}; its devices must be on one host")
    return mesh


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


# Parameters of a residual unit and of a feed-forward layer, and their axis of channels between the two products.
_BETWEEN = (
    (r"unit\d+/dilated/\w+$", -1), (r"unit\d+/snake2/\w+$", -1), (r"unit\d+/pointwise/direction$", 1),
    (r"feed\d+_up/\w+$", -1), (r"feed\d+_down/kernel$", -2),
)  # fmt: skip


def _split(name: str, shape: tuple[int, ...], mesh: Mesh, fsdp_from: float) -> PartitionSpec:
    axes: list[str | None] = [None] * len(shape)
    for pattern, axis in _BETWEEN:
        if re.search(pattern, name) and mesh.shape["model"] > 1 and shape[axis] % mesh.shape["model"] == 0:
            axes[axis] = "model"
    if mesh.shape["fsdp"] > 1 and math.prod(shape) >= fsdp_from:
        fitting = [i for i, size in enumerate(shape) if axes[i] is None and size % mesh.shape["fsdp"] == 0]
        if fitting:
            axes[max(fitting, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*axes)


def layout(tree: T, mesh: Mesh, fsdp_from: float = math.inf) -> T:
    """The NamedSharding of each array of a state, or of a part of one.

    Arrays of at least `fsdp_from` entries are split along fsdp, in the largest dimension that it divides. By default
    none are.
    """
    def of(path, array) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, _split(name, array.shape, mesh, fsdp_from))

    return jax.tree.map_with_path(of, tree)


def in_pieces(tree: T, mesh: Mesh, config: settings.Mesh) -> T:
    """Within a compiled function: split arrays as the state has them between steps."""
    return jax.lax.with_sharding_constraint(tree, layout(tree, mesh, config.fsdp_from))


def put_together(tree: T, mesh: Mesh) -> T:
    """Within a compiled function: gather the arrays that are split along fsdp, to compute with them.

    Otherwise the compiler might split activations in the same way as parameters, and move them.
    """
    return jax.lax.with_sharding_constraint(tree, layout(tree, mesh))


def spread(tree: T, shardings: T) -> T:
    """Put arrays that every host holds whole onto the devices. Hosts must hold equal arrays; nothing checks this."""
    def onto_devices(array, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(onto_devices, tree, shardings)


def place(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this host's share of a batch onto its devices, as part of the global batch, split along the first axis."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def micro_batches(batch: T, count: int, mesh: Mesh) -> T:
    """A batch `[b, ...]` as `[count, b / count, ...]`. No item moves to another device."""
    def share(array: jax.Array) -> jax.Array:
        parts = array.reshape(-1, count, *array.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts, NamedSharding(mesh, PartitionSpec(None, *BATCH)))

    return jax.tree.map(share, batch)


def per_device(mesh: Mesh) -> Callable[[Callable], Callable]:
    """Make a function of batch-split arrays run on each device's own items, with no communication."""
    return lambda function: jax.shard_map(function, mesh=mesh, in_specs=BATCH, out_specs=BATCH)
