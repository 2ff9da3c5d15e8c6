"""Costs of a step, against hand counts where possible."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from decodec_jax import testing
from decodec_jax.codec.model import FAMILIES
from decodec_jax.config import Mesh
from decodec_jax.evaluation.speed import cost
from decodec_jax.objective.teacher import CepstraTeacher
from decodec_jax.training import sharding

X = jax.ShapeDtypeStruct((3, 5, 4), jnp.float32)
W = jax.ShapeDtypeStruct((4, 7), jnp.float32)


def products(function, *arguments) -> cost.Work:
    return cost.products(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_dense_layer():
    assert products(jnp.matmul, X, W) == (2 * 3 * 5 * 4 * 7, 4 * (3 * 5 * 4 + 4 * 7 + 3 * 5 * 7))


def test_bfloat16_moves_half_the_bytes():
    def in_bfloat16(x, w):
        return x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)

    assert products(in_bfloat16, X, W).bytes == products(jnp.matmul, X, W).bytes / 2


@pytest.mark.parametrize(("stride", "groups", "frames"), [(1, 1, 18), (2, 1, 9), (1, 2, 18)])
def test_a_convolution(stride, groups, frames):
    """20 samples of 4 channels, convolved with 6 filters of 3 taps."""
    def conv(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride,), "VALID", dimension_numbers=("NTC", "TIO", "NTC"), feature_group_count=groups
        )  # fmt: skip

    x, kernel = jnp.zeros((2, 20, 4)), jnp.zeros((3, 4 // groups, 6))
    assert products(conv, x, kernel).flops == 2 * (2 * frames * 6) * 3 * 4 / groups


def test_a_strided_convolutions_gradient_counts_no_zeros():
    """Its input is the gradient with zeros in between. Except at edges, it costs as much as the forward convolution."""
    def conv(x):
        return lax.conv_general_dilated(x, jnp.ones((4, 3, 5)), (4,), "VALID", dimension_numbers=("NTC", "TIO", "NTC"))

    x = jnp.zeros((1, 400, 3))
    forward, both = products(conv, x).flops, products(jax.grad(lambda x: jnp.sum(conv(x) ** 2)), x).flops
    assert both / forward == pytest.approx(2, rel=0.03)


def test_loops_count_every_turn_and_branches_count_the_most_expensive():
    def loop(x):
        return lax.scan(lambda carry, _: (jax.checkpoint(jnp.matmul)(carry, x), None), x, length=5)[0]

    def branches(use, x):
        return lax.cond(use, jax.jit(lambda x: x @ x), loop, x)

    square = jnp.ones((4, 4))
    assert products(loop, square).flops == 5 * 2 * 4**3
    assert products(branches, True, square).flops == 5 * 2 * 4**3


def on_eight_devices(function, *arguments) -> dict[str, cost.Collective]:
    mesh = sharding.make_mesh(Mesh(8), 8)
    whole, split = sharding.replicated(mesh), NamedSharding(mesh, sharding.BATCH)
    jitted = jax.jit(function, in_shardings=(split, whole), out_shardings=whole)
    return cost.collectives(jitted.lower(*arguments).compile().as_text())


def test_a_gradient_is_reduced_once():
    def gradient(x, w):
        return jax.grad(lambda w: jnp.sum((x @ w) ** 2))(w)

    moved = on_eight_devices(gradient, jnp.zeros((8, 4)), jnp.zeros((4, 7)))
    assert moved == {"all-reduce": cost.Collective(1, 4 * 4 * 7, 0)}


def test_what_a_loop_reduces_counts_as_often_as_it_runs():
    mesh = sharding.make_mesh(Mesh(8), 8)

    @partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec())
    def loop(x):
        total = lax.psum(x, "data")
        return lax.scan(lambda carry, _: (lax.psum(jnp.sin(carry * x), "data"), None), total, length=5)[0]

    moved = cost.collectives(jax.jit(loop).lower(jnp.zeros((8, 3))).compile().as_text())
    assert moved == {"all-reduce": cost.Collective(6, 6 * 12, 5 * 12)}


def test_asynchronous_collectives_count_once():
    hlo = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %begun = (bf16[2,4]{1,0}, f32[4]{0}) all-reduce-start(%p, %p), to_apply=%add
  %ended = (bf16[2,4]{1,0}, f32[4]{0}) all-reduce-done(%begun)
  ROOT %whole = f32[8]{0} all-gather(%p), dimensions={0}
}
"""
    assert cost.collectives(hlo) == {
        "all-reduce": cost.Collective(1, 32, 0), "all-gather": cost.Collective(1, 32, 0),
    }  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_on_eight_devices_reduces_each_gradient_once(family):
    """Within loops it reduces codebook statistics. Outside loops it reduces gradients and a few metrics."""
    config = testing.tiny_config(family=family, dilations=(1,), strides=(5, 2), decoder_blocks=1)
    config.loss.mel = 0.0
    step = cost.compiled(config, 8, "data", 1)
    parts = cost.state_bytes(config)
    outside = step.reduced - step.reduced_in_loops
    # a gradient that was reduced frame by frame would add many times this tolerance
    assert outside == pytest.approx(parts["params"], rel=0.05)
    if family == "spectral":  # it has few depthwise kernels, and none of them is reduced tap by tap in a loop
        assert outside >= parts["params"]
    assert step.reduced_in_loops > parts["codebook"] / 2
    assert step.gathered == 0
    assert step.temporary > 0 < step.flops
    batch = 2 * 2 * 1600 * 4  # bytes of a pair's mixtures and swapped mixtures; without guidance its parts are unused
    assert step.arguments == pytest.approx(sum(parts.values()) + batch, abs=1000)


def test_the_abstract_teacher_is_the_one_that_the_config_names():
    config = testing.full_config()
    mesh = sharding.make_mesh(Mesh(1), 1)
    assert isinstance(cost.abstract_teacher(config, mesh), CepstraTeacher)
    config.teacher.kind, config.teacher.layer = "hubert", 1
    one = cost.abstract_teacher(config, mesh)
    config.teacher.layer = 3
    three = cost.abstract_teacher(config, mesh)
    assert (cost.nbytes(three) - cost.nbytes(one)) / 2 == 4 * (12 * 768**2 + 13 * 768)  # a layer of HuBERT base
    config.loss.guidance = 0.0
    assert cost.abstract_teacher(config, mesh) is None
