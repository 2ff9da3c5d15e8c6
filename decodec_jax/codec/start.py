"""The start of training: encoder and decoder begin as the two ends of a transform codec, each the other's inverse.

From random filters waveforms are found slowly: a sample has to pass some twenty layers before the first of it comes out
right. So a few channels of every layer begin as a block transform. After each downsampling they hold the samples that a
frame stands for, resampled to as many as there are channels; each half of the embedding begins as the lowest DCT
coefficients of its frame; and the decoder begins as the transpose of all this, half the sound from either half. The
other channels, most of the network, begin at random and have to make the outcome better, not to make it.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.fft import dct

from decodec_jax.codec.layers import weight_norm
from decodec_jax.config import Model

_LEAK = 0.02  # of the random kernels, that which reaches the channels of the transform: 0.1 costs 2 dB at the start
_ALPHA = 0.1  # of the Snakes between the transform's layers, which begin nearly linear; 1 leaves nothing of waveforms


def transform_start(params: dict, config: Model) -> dict:
    """Freshly initialised `params` of the network, made to begin as a transform codec."""
    encoder, decoder = _nearly_linear(params["encoder"]), _nearly_linear(params["decoder"])
    blocks = len(config.strides)
    patches, *transforms = _transforms(config)
    present = config.kernel - 1 if config.causal else (config.kernel - 1) // 2
    encoder["first"] = _with_transform(encoder["first"], present, patches.T[None], 2)
    decoder["last"] = _with_transform(decoder["last"], present, patches[None], 2)
    for i, (stride, rows) in enumerate(zip(config.strides, transforms, strict=True)):
        kernel = rows.reshape(len(rows), stride, -1).transpose(1, 2, 0)
        down, up = encoder[f"block{i}"], decoder[f"block{blocks - 1 - i}"]
        before = math.ceil(stride / 2)  # samples that a downsampling filter reaches into the frame before
        down["down"] = _with_transform(down["down"], stride if config.causal else before, kernel, 2)
        up["up"] = _with_transform(up["up"], 0 if config.causal else before, kernel.transpose(0, 2, 1), 1)
    embedding = _embedding(config, len(transforms[-1]))[None]
    encoder["last"] = _with_transform(encoder["last"], 2 if config.causal else 1, embedding, 2)
    decoder["first"] = _with_transform(decoder["first"], present, embedding.transpose(0, 2, 1) / 2, 2)
    return params | {"encoder": encoder, "decoder": decoder}


def _transforms(config: Model) -> list[np.ndarray]:
    """Orthonormal rows `[a', s a]` that make one frame of s frames of a channels: for the patch, then each block."""
    transforms, basis = [], np.eye(1)  # what the channels make of a frame's samples, [a, samples]
    for i, stride in enumerate((config.patch, *config.strides)):
        side_by_side = np.kron(np.eye(stride), basis)
        samples = side_by_side.shape[1]
        kept = min(samples, config.channels * 2**i, config.decoder_channels // 2 ** (len(config.strides) - i))
        resample = _dct(kept).T @ _dct(samples)[:kept]
        left, _, right = np.linalg.svd(resample @ side_by_side.T, full_matrices=False)
        transforms.append(left @ right)
        basis = transforms[-1] @ side_by_side
    return transforms


def _embedding(config: Model, channels: int) -> np.ndarray:
    """Channels to embedding, `[c, d]`: the lowest DCT coefficients, in each of the two subspaces as many as fit."""
    halves = 1 if config.projection == "none" else 2
    width = config.latent // halves
    coefficients = np.zeros((channels, config.latent))
    for half in range(halves):
        coefficients[:, half * width : half * width + min(channels, width)] = _dct(channels)[:width].T
    return coefficients


def _dct(size: int) -> np.ndarray:
    return dct(np.eye(size), norm="ortho", axis=0)


def _nearly_linear(network: dict) -> dict:
    """A copy of a network's parameters whose Snakes outside residual units have small alphas."""
    if "alpha" in network:
        return {"alpha": _ALPHA * network["alpha"]}
    blocks = {name: _nearly_linear(part) for name, part in network.items() if name.startswith(("block", "snake"))}
    return network | blocks


def _with_transform(layer: dict, tap: int, transform: np.ndarray, kept_axis: int) -> dict:
    """A weight-normalised layer with `transform` `[taps, i, o]` in its kernel `[k, c, d]`, from `tap` on."""
    taps, taken, given = transform.shape
    kernel = weight_norm(layer["direction"], layer["gain"], kept_axis)
    kernel = kernel.at[:, :, :given].multiply(_LEAK).at[tap : tap + taps, :taken, :given].add(transform)
    axes = tuple(axis for axis in range(3) if axis != kept_axis)
    gain = _norm(kernel, axes)
    # directions keep their length, which is their learning rate
    direction = kernel * (_norm(layer["direction"], axes) / gain)
    return layer | {"direction": direction, "gain": gain.reshape(-1)}


def _norm(x: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.sum(x**2, axes, keepdims=True))
