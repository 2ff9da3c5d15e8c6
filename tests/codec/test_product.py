from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from decodec_jax.codec import product as products
from decodec_jax.codec.product import convolution, product, resolve
from decodec_jax.config import Config, check
from decodec_jax.errors import UserError

SHAPES = [(5,), (7, 5), (2, 3, 5), (2, 1, 4, 5)]  # of the left operand; the right one is [5, 6]


def drawn(rng, *shapes):
    return [jnp.float32(rng.standard_normal(shape)) for shape in shapes]


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


@partial(jax.jit, static_argnums=3)
def there_and_back(x, kernel, pull, precision):
    output, backward = jax.vjp(lambda x, kernel: product(x, kernel, precision), x, kernel)
    return output, *backward(pull)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_in_bfloat16_is_the_float32_one_of_rounded_operands_and_so_are_its_gradients(rng, shape):
    x, kernel, pull = drawn(rng, shape, (5, 6), (*shape[:-1], 6))
    ours = there_and_back(x, kernel, pull, "bfloat16")
    # gradients are products, too: of the rounded operand and the rounded gradient of the result
    expected = (
        there_and_back(rounded(x), rounded(kernel), pull, "float32")[0],
        *there_and_back(rounded(x), rounded(kernel), rounded(pull), "float32")[1:],
    )
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == jnp.float32 and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(ours[0], x @ kernel)


def test_in_float32_it_is_the_plain_product(rng):
    x, kernel, pull = drawn(rng, (2, 3, 5), (5, 6), (2, 3, 6))
    output, for_x, for_kernel = there_and_back(x, kernel, pull, "float32")
    np.testing.assert_allclose(output, x @ kernel, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(for_x, pull @ kernel.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(for_kernel, jnp.einsum("bfc,bfd->cd", x, pull), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", products.PRECISIONS)
def test_a_bias_is_added_and_its_gradient_is_the_sum_of_the_result_s(rng, precision):
    x, kernel, bias, pull = drawn(rng, (2, 3, 5), (5, 6), (6,), (2, 3, 6))
    output, backward = jax.vjp(lambda *given: product(*given[:2], precision, given[2]), x, kernel, bias)
    plain = there_and_back(x, kernel, pull, precision)
    np.testing.assert_allclose(output, plain[0] + bias, rtol=1e-6, atol=1e-6)
    for_bias = (pull if precision == "float32" else rounded(pull)).sum((0, 1))
    for ours, theirs in zip(backward(pull), (*plain[1:], for_bias), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", [(0, 0), (2, 1)])
@pytest.mark.parametrize("operand", ["x", "kernel", "pull"])
def test_what_is_not_a_number_stays_so(rng, operand, place):
    """A step that is not finite is noticed: no branch of a gradient may hide it, nor turn up where all is finite."""
    given = dict(zip(("x", "kernel", "pull"), drawn(rng, (4, 5), (5, 6), (4, 6)), strict=True))
    given[operand] = given[operand].at[place].set(jnp.nan)
    exact = there_and_back(*given.values(), "float32")
    for one, other in zip(there_and_back(*given.values(), "bfloat16"), exact, strict=True):
        assert np.all(np.isnan(one)[np.isnan(other)])
        assert np.any(np.isnan(one)) == np.any(np.isnan(other))


@pytest.mark.parametrize("precision", products.PRECISIONS)
def test_a_batch_by_vmap_is_its_products_one_by_one(rng, precision):
    x, kernels = drawn(rng, (3, 4, 5), (3, 5, 6))
    gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sum(product(x, kernel, precision) ** 2), argnums=(0, 1)))
    together = jax.vmap(gradient)(x, kernels)
    apart = [gradient(*pair) for pair in zip(x, kernels, strict=True)]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, jnp.stack(b), rtol=1e-5, atol=1e-5), together, *apart)


@pytest.mark.parametrize("precision", products.PRECISIONS)
def test_convolutions_give_float32_and_are_the_library_s_on_cpus(rng, precision):
    x, kernel = drawn(rng, (2, 9, 3), (3, 3, 4))
    options = {"window_strides": (1,), "padding": "VALID", "dimension_numbers": ("NWC", "WIO", "NWC")}
    output = convolution(x, kernel, precision, **options)
    assert output.dtype == jnp.float32
    expected = lax.conv_general_dilated(x, kernel, **options)
    np.testing.assert_allclose(output, expected, rtol=1e-5 if jax.default_backend() == "cpu" else 0.1, atol=1e-5)


# --- which it is to be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", products.PRECISIONS)
def test_a_precision_that_is_named_is_taken_unmeasured(monkeypatch, precision):
    monkeypatch.setattr(products, "measured", None)
    assert resolve(precision) == precision


@pytest.mark.parametrize(
    ("backend", "seconds", "resolved"),
    [("cpu", (1.0, 0.3), "bfloat16"), ("cpu", (1.0, 0.9), "float32"), ("cpu", (1.0, 40.0), "float32"),
     ("gpu", None, "bfloat16"), ("tpu", None, "bfloat16")],
)  # fmt: skip
def test_auto_is_what_the_machine_is_clearly_faster_in(monkeypatch, backend, seconds, resolved):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(products, "measured", lambda: dict(zip(products.PRECISIONS, seconds, strict=True)))
    assert resolve("auto") == resolved


def test_the_probe_measures_both():
    seconds = products.measured(rows=8, width=8, calls=1)
    assert set(seconds) == set(products.PRECISIONS)
    assert all(0 < value < 10 for value in seconds.values())


def test_another_precision_is_refused_by_name():
    config = Config()
    config.model.semantic, config.train.precision = 768, "float16"
    with pytest.raises(UserError, match=r"train.precision is 'float16'; it must be one of auto, float32, bfloat16"):
        check(config)
