"""The LSTM: a scan over frames with a custom gradient, and a module that can stream."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from decodec_jax.codec.layers import streaming
from decodec_jax.codec.product import product

Carry = tuple[Array, Array]  # output and cell of an LSTM layer after a step, [b, h] each


def lstm(
    x: Array, kernel: Array, recurrent: Array, bias: Array, reverse: bool = False, carry: Carry | None = None,
    precision: str = "float32",
) -> tuple[Carry, Array]:  # fmt: skip
    """One LSTM layer over time: `[b, f, c]` to the last carry and the outputs `[b, f, h]`.

    kernel `[c, 4h]`, recurrent `[h, 4h]`, bias `[4h]`, with gates in torch's order (input, forget, cell, output). The
    carry starts at zeros if not given. One product outside the scan multiplies the inputs of all frames.
    """
    hidden = recurrent.shape[0]
    driven = product(x, kernel, precision) + bias
    if carry is None:
        zeros = jnp.zeros((x.shape[0], hidden), x.dtype)
        carry = zeros, zeros
    carry, outputs = _recurrence(driven.swapaxes(0, 1), recurrent, carry, reverse, precision)
    return carry, outputs.swapaxes(0, 1)


def _steps(driven: Array, recurrent: Array, carry: Carry, reverse: bool, precision: str) -> tuple[Carry, Array]:
    """The scan of an LSTM layer; `driven` `[f, b, 4h]` is its input times the kernel, plus the bias."""

    def step(carry, gates):
        output, cell = carry
        i, f, g, o = jnp.split(gates + product(output, recurrent, precision), 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        output = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (output, cell), output

    return lax.scan(step, carry, driven, reverse=reverse)


# The gradient of `recurrent` is one product over all frames, after the scan. Autodiff would add it up frame by frame,
# and sum it over the devices that share a batch in every frame: a hundred times a step.
_recurrence = jax.custom_vjp(_steps, nondiff_argnums=(3, 4))


def _recurrence_forward(driven: Array, recurrent: Array, carry: Carry, reverse: bool, precision: str):
    outcome, pull = jax.vjp(lambda driven, carry: _steps(driven, recurrent, carry, reverse, precision), driven, carry)
    return outcome, (pull, outcome[1], carry[0])


def _recurrence_backward(reverse: bool, precision: str, kept, gradient):
    pull, outputs, first = kept
    for_driven, for_carry = pull(gradient)
    before = jnp.concatenate([outputs[1:], first[None]] if reverse else [first[None], outputs[:-1]])
    for_recurrent = jnp.einsum("fbh,fbg->hg", before, for_driven)
    return for_driven, for_recurrent, for_carry


_recurrence.defvjp(_recurrence_forward, _recurrence_backward)


class LSTM(nn.Module):
    """A stack of LSTM layers with a skip around it: `[b, f, c] -> [b, f, c]`.

    A bidirectional stack gives each direction half the width, so that the skip needs no projection.
    """

    layers: int
    bidirectional: bool
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        for layer in range(self.layers):
            if self.bidirectional:
                ahead, behind = self._layer(y, f"forward{layer}", False), self._layer(y, f"backward{layer}", True)
                y = jnp.concatenate([ahead, behind], axis=-1)
            else:
                y = self._layer(y, f"forward{layer}", False)
        return x + y

    def _layer(self, x: Array, name: str, reverse: bool) -> Array:
        hidden = x.shape[-1] // (2 if self.bidirectional else 1)
        uniform = nn.initializers.uniform(2 / math.sqrt(hidden))

        def centred(key, shape):
            return uniform(key, shape) - 1 / math.sqrt(hidden)

        kernel = self.param(f"{name}_kernel", centred, (x.shape[-1], 4 * hidden))
        recurrent = self.param(f"{name}_recurrent", centred, (hidden, 4 * hidden))
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (4 * hidden,))
        if not streaming(self):
            return lstm(x, kernel, recurrent, bias, reverse, precision=self.precision)[1]
        kept = self.variable("stream", name, lambda: None)
        kept.value, outputs = lstm(x, kernel, recurrent, bias, reverse, kept.value, self.precision)
        return outputs
