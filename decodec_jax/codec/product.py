"""Dense products and their gradients, in the precision that is fastest on the machine.

"float32" multiplies the operands as they are. "bfloat16" rounds both operands to bfloat16 and accumulates in float32;
the result, the parameters and everything between products stay float32. Accelerators and many recent CPUs are several
times faster that way.
"""

import time
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax import Array, lax

PRECISIONS = ("float32", "bfloat16")


def product(x: Array, kernel: Array, precision: str = "float32", bias: Array | None = None) -> Array:
    """`[..., c] x [c, d] -> [..., d]`, float32, plus `bias` `[d]`."""
    if precision == "float32":
        return _added(jnp.matmul(x, kernel), bias)
    return _rounded_product(x, kernel, bias)


def _added(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias


def _contract(left: Array, right: Array, axes: tuple[int, int]) -> Array:
    left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return lax.dot_general(left, right, (((axes[0],), (axes[1],)), ((), ())), preferred_element_type=jnp.float32)


@jax.custom_vjp
def _rounded_product(x: Array, kernel: Array, bias: Array | None) -> Array:
    return _added(_contract(x, kernel, (x.ndim - 1, 0)), bias)


def _forward(x: Array, kernel: Array, bias: Array | None):
    # rounded, the arrays kept for the backward pass take half the memory
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _rounded_product(x, kernel, bias), (x, kernel, bias)


def _backward(kept: tuple[Array, Array, Array | None], gradient: Array):
    x, kernel, bias = kept
    gradient = gradient.astype(jnp.bfloat16)  # the bias's gradient uses it too, so that no float32 copy is stored
    rows, gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    for_x = _contract(gradient, kernel, (gradient.ndim - 1, 1))
    columns = lax.platform_dependent(rows, cpu=_copied_transpose, default=jnp.transpose)
    for_bias = None if bias is None else jnp.sum(gradients, axis=0, dtype=jnp.float32)
    return for_x, _contract(columns, gradients, (1, 0)), for_bias


_rounded_product.defvjp(_forward, _backward)


def _copied_transpose(x: Array) -> Array:
    """The transpose, as a copy in memory.

    XLA's fast CPU kernels contract only the last axis of the left operand. It folds a plain transpose into the product,
    which then takes the slow path. It does not look into a branch, even though this one is always taken.
    """
    ordered = x[0, 0] < jnp.inf
    return lax.cond(ordered, jnp.transpose, lambda x: jnp.full(x.shape[::-1], jnp.nan, x.dtype), x)


def convolution(x: Array, kernel: Array, precision: str = "float32", **options) -> Array:
    """`lax.conv_general_dilated` with float32 results. Stays in float32 on CPUs, where bfloat16 is slow."""
    convolve = partial(lax.conv_general_dilated, **options)
    if precision == "float32":
        return convolve(x, kernel)

    def rounded(x: Array, kernel: Array) -> Array:
        return convolve(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)).astype(jnp.float32)

    return lax.platform_dependent(x, kernel, cpu=convolve, default=rounded)


def resolve(precision: str, before: str | None = None) -> str:
    """ "float32" or "bfloat16" for "auto": bfloat16 on accelerators, and on CPUs that multiply it clearly faster.

    The probe on a CPU takes about half a second. before: the precision that a run has used so far; it is kept unless
    the other is far faster here, so that a busy machine does not change what a resumed run computes.
    """
    if precision != "auto":
        return precision
    if jax.default_backend() != "cpu":
        return "bfloat16"
    seconds = measured()
    if before:
        (other,) = set(PRECISIONS) - {before}
        return other if seconds[other] < 0.4 * seconds[before] else before
    return "bfloat16" if seconds["bfloat16"] < 0.8 * seconds["float32"] else "float32"


@lru_cache
def measured(rows: int = 1024, width: int = 384, calls: int = 4) -> dict[str, float]:
    """Seconds for the forward and backward pass of a dense layer in each precision; the fastest of `calls`."""
    x, kernel = jnp.ones((rows, width)), jnp.ones((width, 2 * width))

    def seconds(precision: str) -> float:
        step = jax.jit(jax.grad(lambda x, k: jnp.sum(product(x, k, precision) ** 2), argnums=(0, 1)))
        jax.block_until_ready(step(x, kernel))
        taken = []
        for _ in range(calls):
            begun = time.perf_counter()
            jax.block_until_ready(step(x, kernel))
            taken.append(time.perf_counter() - begun)
        return min(taken)

    return {precision: seconds(precision) for precision in PRECISIONS}
