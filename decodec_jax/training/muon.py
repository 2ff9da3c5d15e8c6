"""Muon (https://kellerjordan.github.io/posts/muon/): matrices move along their momentum, made orthogonal.

Every direction of a matrix then learns at the same speed, also those that its gradients seldom point to. Arrays that
are not matrices of products stay with AdamW. optax.contrib.muon does the same, but computes its products in batches,
which takes CPUs two to three times as long.
"""

import re

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

QUINTIC = (3.4445, -4.7750, 2.0315)  # of one iteration: a x + b x^3 + c x^5, acting on the singular values
UPDATE_RMS = 0.2  # about that of AdamW's updates, so that both take the same learning rate and weight decay


def _times(x: Array, y: Array, axis: int) -> Array:
    """`[m, k]` times `[k, n]`, or with axis=1 times the transpose of `[n, k]`. Sums in float32."""
    dimensions = ((1,), (axis,)), ((), ())
    return lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def orthogonalised(matrix: Array, precision: str = "float32", iterations: int = 5) -> Array:
    """The matrix `[m, n]` with its singular values moved to about 0.7 to 1.2, by Newton-Schulz iterations.

    precision: "bfloat16" rounds the operands of its products.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = (wide / (jnp.linalg.norm(wide) + 1e-8)).astype(precision)
    a, b, c = QUINTIC
    for _ in range(iterations):
        square = _times(wide, wide, 1).astype(precision)
        polynomial = (b * square + c * _times(square, square, 0)).astype(precision)
        wide = (a * wide + _times(polynomial, wide, 0)).astype(precision)
    return (wide if wide.shape == matrix.shape else wide.T).astype(matrix.dtype)


def muon(
    rate: optax.Schedule, momentum: float = 0.95, weight_decay: float = 0.0, precision: str = "float32"
) -> optax.GradientTransformation:
    """The update of a tree of matrices. Weight decay is decoupled, as in AdamW."""

    def step(matrix: Array, _) -> Array:
        return UPDATE_RMS * max(matrix.shape) ** 0.5 * orthogonalised(matrix, precision)

    return optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.stateless_with_tree_map(step),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )


def kinds(params: dict) -> dict:
    """"muon" for the kernels of dense layers, "adamw" for all other arrays."""

    def of(path, array: Array) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        dense = name.endswith("/kernel") and array.ndim == 2 and not re.search(r"block\d+/kernel$", name)
        return "muon" if dense else "adamw"

    return jax.tree.map_with_path(of, params)
