"""Devices as a mesh of three axes, along which the batch and the training state are split.

data    splits the batch. pmap-style large-batch training is this axis alone, the default: every device holds the whole
        model and a share of the batch, and gradients, codebook statistics and losses are summed by the compiler.
fsdp    splits the batch as well, and every large array of the state: parameters, their averages, the optimizers'
        moments, discriminators and codebooks lie in pieces between steps, and what a step computes with is put together
        when it begins.
model   splits the channels within residual units: the first convolution of a unit makes a share of them on each device,
        the second sums over the shares, so that a unit costs one sum over the devices and no gathering. All else is
        repeated along it.
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
    """The mesh the config names. Raises UserError when there are no such devices, or the batch cannot be shared evenly.

    accumulate: micro-batches that each device takes its share of the batch in.
    """
    sizes, there = {axis: getattr(config, axis) for axis in AXES}, len(jax.devices())
    asked = " x ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
    if any(size < 1 and size != -1 for size in sizes.values()) or list(sizes.values()).count(-1) > 1:
        raise UserError(f"{asked}: each must be above 0, but for one that may be -1 and takes all that are left")
    named, all_of_them = math.prod(size for size in sizes.values() if size != -1), -1 in sizes.values()
    sizes = {axis: there // named if size == -1 else size for axis, size in sizes.items()}
    total = math.prod(sizes.values())
    if not 0 < total <= there or (all_of_them and total < there):
        raise UserError(f"{asked} does not fit the devices, of which there are {there}")
    if jax.process_count() > 1 and total < there:
        raise UserError(f"{asked} are {total} devices; several hosts train with all they have, {there}")
    shares = sizes["data"] * sizes["fsdp"]
    if batch % (shares * accumulate):
        parts = f", each taking train.accumulate={accumulate} micro-batches" if accumulate > 1 else ""
        raise UserError(f"data.batch is {batch}; it must be a multiple of {shares * accumulate}: {shares} devices "
                        f"along mesh.data and mesh.fsdp{parts}")
    mesh = jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.devices()[:total]
    )
    groups = mesh.devices.reshape(-1, sizes["model"])
    if any(len({device.process_index for device in group}) > 1 for group in groups):  # each would need the same batch
        raise UserError(f"mesh.model is {config.model}; its devices must be of one host")
    return mesh


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


# Within a residual unit: a parameter and the axis of it that is the channels between the two convolutions.
_BETWEEN = ((r"unit\d+/dilated/\w+$", -1), (r"unit\d+/snake2/\w+$", -1), (r"unit\d+/pointwise/direction$", 1))


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
    """How each array of a state, or of a part of one, lies on the devices: a NamedSharding in its place.

    Arrays of `fsdp_from` entries and more are split along fsdp, in the largest dimension that it divides; none, unless
    it is given.
    """
    def of(path, array) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, _split(name, array.shape, mesh, fsdp_from))

    return jax.tree.map_with_path(of, tree)


def in_pieces(tree: T, mesh: Mesh, config: settings.Mesh) -> T:
    """Within a compiled function: arrays as the state has them between steps."""
    return jax.lax.with_sharding_constraint(tree, layout(tree, mesh, config.fsdp_from))


def put_together(tree: T, mesh: Mesh) -> T:
    """Within a compiled function: arrays as they are computed with, those split along fsdp whole again.

    Left to itself the compiler may split activations the way the pieces of parameters are split, and move them.
    """
    return jax.lax.with_sharding_constraint(tree, layout(tree, mesh))


def spread(tree: T, shardings: T) -> T:
    """Arrays that every host has whole, onto the devices; hosts are trusted to have the same, and ask no other."""
    def onto_devices(array, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(onto_devices, tree, shardings)


def place(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's share of a batch onto its devices, as part of the global batch split along the first axis."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def micro_batches(batch: T, count: int, mesh: Mesh) -> T:
    """A batch `[b, ...]` as `[count, b / count, ...]`, for which no item changes its device."""
    def share(array: jax.Array) -> jax.Array:
        parts = array.reshape(-1, count, *array.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(parts, NamedSharding(mesh, PartitionSpec(None, *BATCH)))

    return jax.tree.map(share, batch)


def per_device(mesh: Mesh) -> Callable[[Callable], Callable]:
    """Make a function of batch-split arrays run on each device's own items, with no communication."""
    return lambda function: jax.shard_map(function, mesh=mesh, in_specs=BATCH, out_specs=BATCH)
