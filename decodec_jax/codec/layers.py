"""Weight-normalised convolutions, block down- and upsampling, Snake, the residual unit, the dense layer.

The maths are plain functions of arrays. The linen modules below them only own names and initialisers. Activations are
channels-last `[b, t, c]` and float32, like the parameters. `precision` is the precision of products, see product.py.

Streaming. When the collection `stream` is mutable, a causal module treats its input as the next piece of a longer
signal. The collection holds the earlier inputs that the module still needs. A stream starts from zeros, which are also
the padding of a whole signal, so a signal gives the same output in pieces as in one. See inference/streaming.py.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from decodec_jax.codec.product import convolution, product

# --- functions ------------------------------------------------------------------------------------------------------


def weight_norm(direction: Array, gain: Array, kept_axis: int) -> Array:
    """Kernel `gain * direction / |direction|`. The norm is over all axes except `kept_axis` (torch's dim 0)."""
    axes = tuple(axis for axis in range(direction.ndim) if axis != kept_axis)
    shape = [1] * direction.ndim
    shape[kept_axis] = -1
    return direction * (gain.reshape(shape) * lax.rsqrt(jnp.sum(direction**2, axes, keepdims=True) + 1e-12))


def conv(
    x: Array, kernel: Array, dilation: int, causal: bool, past: Array | None = None, precision: str = "float32"
) -> Array:
    """Stride-1 convolution that keeps the length: `[b, t, c] x [k, c, d] -> [b, t, d]`.

    The input is padded with zeros, only on the left if causal.
    past: `[b, (k - 1) dilation, c]`, the steps before x, in place of a causal convolution's zeros.
    """
    reach = (kernel.shape[0] - 1) * dilation
    right = 0 if causal else reach // 2
    left = reach - right
    if past is not None:
        x, left = jnp.concatenate([past, x], axis=1), 0
    if kernel.shape[0] == 1:
        return product(x, kernel[0], precision)
    return convolution(
        x, kernel, precision, window_strides=(1,), padding=[(left, right)],
        rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC"),
    )  # fmt: skip


def conv_down(x: Array, kernel: Array, causal: bool, past: Array | None = None, precision: str = "float32") -> Array:
    """Convolution with stride s and kernel 2s: `[b, n s, c] x [2s, c, d] -> [b, n, d]`.

    Computed as two products of blocks of s samples, because the backward pass of the library's strided convolution is
    many times slower. Non-causal padding is torch's `padding=ceil(s / 2)`, but odd s lose no samples at the end.
    past: `[b, s, c]`, the steps before x, in place of a causal convolution's zeros.
    """
    b, t, c = x.shape
    size, _, d = kernel.shape
    stride = size // 2
    left = stride if causal else math.ceil(stride / 2)
    if past is None:
        x = jnp.pad(x, ((0, 0), (left, stride - left), (0, 0)))
    else:
        x = jnp.concatenate([past, x], axis=1)
    blocks = x.reshape(b, t // stride + 1, stride * c)
    early, late = kernel.reshape(2, stride * c, d)
    return product(blocks[:, :-1], early, precision) + product(blocks[:, 1:], late, precision)


def conv_up(x: Array, kernel: Array, causal: bool, past: Array | None = None, precision: str = "float32") -> Array:
    """Transposed convolution with stride s and kernel 2s: `[b, n, c] x [2s, c, d] -> [b, n s, d]`.

    A product and an overlap-add. Non-causal trimming is torch's `padding=ceil(s / 2), output_padding=s % 2`.
    past: `[b, 1, c]`, the step before x, whose second half overlaps x's first output.
    """
    b, n, c = x.shape
    size, _, d = kernel.shape
    stride = size // 2
    left = 0 if causal else math.ceil(stride / 2)
    if past is not None:
        x, left = jnp.concatenate([past, x], axis=1), stride
    spread = product(x, kernel.transpose(1, 0, 2).reshape(c, size * d), precision)
    early, late = jnp.split(spread, 2, axis=-1)
    summed = jnp.pad(early, ((0, 0), (0, 1), (0, 0))) + jnp.pad(late, ((0, 0), (1, 0), (0, 0)))
    return summed.reshape(b, -1, d)[:, left : left + n * stride]


def channel_sums(x: Array) -> Array:
    """Sum over all axes but the last, in float32. A product, because `jnp.sum` is many times slower on CPUs."""
    flat = x.reshape(-1, x.shape[-1])
    ones = jnp.ones((1, flat.shape[0]), x.dtype)
    return jnp.matmul(ones, flat, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)[0]


def _series(square: Array, coefficients: list[float]) -> Array:
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * square + coefficient
    return total


def _reduced(x: Array) -> Array:
    """x minus whole periods of sin(x)^2, within +-pi / 2. Above 1e7, only rounding error is left of x."""
    return jnp.clip(x - math.pi * jnp.round(x * (1 / math.pi)), -math.pi / 2, math.pi / 2)


_SINE_SQUARED = [(-1) ** (n + 1) * 2 ** (2 * n - 1) / math.factorial(2 * n) for n in range(1, 10)]
_SINE_OF_DOUBLE = [(-1) ** n * 2 ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(9)]


def sine_squared(x: Array) -> Array:
    """sin(x)^2 to within 2e-6 for |x| < 20: a Taylor series after reduction to half a period.

    The library's sine does not vectorise on CPUs, which made Snake as expensive as a convolution.
    """
    square = jnp.square(_reduced(x))
    return _series(square, _SINE_SQUARED) * square


def sine_of_double(x: Array) -> Array:
    """sin(2 x), the derivative of `sine_squared`, computed in the same way."""
    x = _reduced(x)
    return _series(jnp.square(x), _SINE_OF_DOUBLE) * x


@jax.custom_vjp
def snake(x: Array, alpha: Array) -> Array:
    """Snake activation, x + sin(alpha x)^2 / alpha, with one alpha per channel."""
    return x + sine_squared(alpha * x) / (alpha + 1e-9)


# The backward pass starts from x again. Autodiff would store every term of the series, and writing them to memory
# takes many times as long as computing the activation.
def _snake_forward(x: Array, alpha: Array):
    return snake(x, alpha), (x, alpha)


def _snake_backward(kept: tuple[Array, Array], gradient: Array):
    x, alpha = kept
    inverse = 1 / (alpha + 1e-9)
    slope = sine_of_double(alpha * x) * inverse
    for_alpha = channel_sums(gradient * (x * slope - sine_squared(alpha * x) * inverse**2))
    return gradient * (1 + alpha * slope), for_alpha


snake.defvjp(_snake_forward, _snake_backward)


class Passes(NamedTuple):
    """The receptive fields of a non-causal encoder or decoder, stage by stage, to process recordings in pieces."""

    front: int  # frames on either side of a frame that `front` sees
    lstm_layers: int  # between `front` and `back`; 0 without an LSTM
    back: int  # frames on either side that `back` sees


class BothPasses(NamedTuple):
    """The passes of a codec's two networks."""

    encoder: Passes
    decoder: Passes


# --- modules --------------------------------------------------------------------------------------------------------


def streaming(module: nn.Module) -> bool:
    """Whether the module is being applied to the next piece of a stream."""
    return module.is_mutable_collection("stream") and not module.is_initializing()


def stream_past(module: nn.Module, x: Array, steps: int) -> Array | None:
    """The `steps` inputs before x, if x is the next piece of a stream; None if it is a whole signal."""
    if not steps or not streaming(module):
        return None
    kept = module.variable("stream", "past", jnp.zeros, (x.shape[0], steps, x.shape[-1]), x.dtype)
    past = kept.value
    kept.value = jnp.concatenate([past, x], axis=1)[:, -steps:]
    return past


# The length of a filter's direction does not change the output, but it acts as a learning rate: Adam turns a direction
# that is twice as long half as fast. Entries of one size turn all filters equally fast, whatever their width, so a wide
# layer does not diverge at a rate that suits a narrow one. torch's default length of 1/sqrt(3) equals ours at 53
# channels.
_ENTRY = 0.03


def _direction(key: Array, shape: tuple[int, ...]) -> Array:
    return _ENTRY * jax.random.normal(key, shape)


def _kernel_and_bias(module: nn.Module, shape: tuple[int, ...], kept_axis: int, gain: float = 1.0):
    """The parameters of a weight-normalised layer `[k, c, d]`. With a gain of 1, it starts out preserving power."""
    direction = module.param("direction", _direction, shape)
    gain = module.param("gain", nn.initializers.constant(gain), (shape[kept_axis],))
    return weight_norm(direction, gain, kept_axis), module.param("bias", nn.initializers.zeros, shape[-1:])


_QUIET = 0.15  # initial gain of a residual unit's convolutions, so that units add little at first


class Conv(nn.Module):
    """Weight-normalised `conv` with a bias."""

    features: int
    kernel: int
    causal: bool
    dilation: int = 1
    gain: float = 1.0  # at the start
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, (self.kernel, x.shape[-1], self.features), 2, self.gain)
        past = stream_past(self, x, (self.kernel - 1) * self.dilation)
        return conv(x, kernel, self.dilation, self.causal, past, self.precision) + bias


class Down(nn.Module):
    """Weight-normalised `conv_down` with a bias."""

    features: int
    stride: int
    causal: bool
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, (2 * self.stride, x.shape[-1], self.features), 2)
        return conv_down(x, kernel, self.causal, stream_past(self, x, self.stride), self.precision) + bias


class Up(nn.Module):
    """Weight-normalised `conv_up` with a bias. As in torch, the gain belongs to the input channels."""

    features: int
    stride: int
    causal: bool
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _kernel_and_bias(self, (2 * self.stride, x.shape[-1], self.features), 1)
        return conv_up(x, kernel, self.causal, stream_past(self, x, 1), self.precision) + bias


class Snake(nn.Module):
    """`snake` with its alphas, which start at 1."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return snake(x, self.param("alpha", nn.initializers.ones, (x.shape[-1],)))


class ResidualUnit(nn.Module):
    """x + conv1(snake(conv_k(snake(x)))), where conv_k is dilated."""

    kernel: int
    dilation: int
    causal: bool
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, precision = x.shape[-1], self.precision
        dilated = Conv(channels, self.kernel, self.causal, self.dilation, _QUIET, precision, name="dilated")
        pointwise = Conv(channels, 1, self.causal, 1, _QUIET, precision, name="pointwise")
        return x + pointwise(Snake(name="snake2")(dilated(Snake(name="snake1")(x))))


class Dense(nn.Module):
    """`x @ kernel + bias`. It starts out preserving power."""

    features: int
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return product(x, kernel, self.precision, bias)
