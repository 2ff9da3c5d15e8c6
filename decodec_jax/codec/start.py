"""The start of training: encoder and decoder begin as the two ends of a transform codec, each the other's inverse.

From random filters waveforms are found slowly: a sample has to pass some twenty layers before the first of it comes out
right. So some channels of every layer, but never all, begin as a block transform. After each downsampling they hold the
samples that a frame stands for, resampled to as many as there are channels, and after the last its lowest DCT
coefficients. Either half of the embedding begins as a copy of these, and the decoder as the inverse of all this, with
half the sound from either half. All other channels begin at random and have to make the outcome better, not to make it.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.fft import dct

from decodec_jax.codec.layers import weight_norm
from decodec_jax.config import Model

_LEAK = 0.02  # of the random kernels, that which reaches the channels of the transform: more spoils the start
_SHARE = 5 / 6  # of the channels that the transform may take
_ALPHA = 0.01  # of the Snakes that the transform passes, which begin nearly linear: 1 leaves nothing of waveforms


def transform_start(params: dict, config: Model) -> dict:
    """Freshly initialised `params` of the network, made to begin as a transform codec."""
    encoder, decoder = dict(params["encoder"]), dict(params["decoder"])
    blocks = len(config.strides)
    present = config.kernel - 1 if config.causal else (config.kernel - 1) // 2
    patches, *transforms = _transforms(config)
    encoder["first"] = _with_transform(encoder["first"], present, patches.T[None], 2)
    decoder["last"] = _with_transform(decoder["last"], present, patches[None], 2)
    decoder["snake"] = _nearly_linear(decoder["snake"], len(patches))
    channels = len(patches)
    for i, (stride, rows) in enumerate(zip(config.strides, transforms, strict=True)):
        kernel = rows.reshape(len(rows), stride, -1).transpose(1, 2, 0)
        reach = math.ceil(stride / 2)  # samples of the frame before that a downsampling filter hears
        down, up = encoder[f"block{i}"], decoder[f"block{blocks - 1 - i}"]
        encoder[f"block{i}"] = down | {
            "snake": _nearly_linear(down["snake"], channels),
            "down": _with_transform(down["down"], stride if config.causal else reach, kernel, 2),
        }
        decoder[f"block{blocks - 1 - i}"] = up | {
            "snake": _nearly_linear(up["snake"], len(rows)),
            "up": _with_transform(up["up"], 0 if config.causal else reach, kernel.transpose(0, 2, 1), 1),
        }
        channels = len(rows)
    copies = np.tile(np.eye(channels, config.latent // _halves(config)), _halves(config))[None]
    if config.mask:
        encoder["told"] = _with_transform(encoder["told"], 0, np.zeros((1, 1, channels)), 2)
    encoder["snake"] = _nearly_linear(encoder["snake"], channels)
    encoder["last"] = _with_transform(encoder["last"], 2 if config.causal else 1, copies, 2)
    heard = 1 if config.mask else 0.5  # masks begin at one half
    decoder["first"] = _with_transform(decoder["first"], present, heard * copies.transpose(0, 2, 1), 2)
    return params | {"encoder": encoder, "decoder": decoder}


def _halves(config: Model) -> int:
    return 1 if config.projection == "none" else 2


def _transforms(config: Model) -> list[np.ndarray]:
    """Orthonormal rows `[a', s a]` that make one frame of s frames of a channels: for the patch, then each block.

    They take `_SHARE` of the channels at most, and after the last block no more than half the embedding can hold.
    """
    transforms, basis = [], np.eye(1)  # what the channels make of a frame's samples, [a, samples]
    blocks = len(config.strides)
    for i, stride in enumerate((config.patch, *config.strides)):
        side_by_side = np.kron(np.eye(stride), basis)
        samples = side_by_side.shape[1]
        room = min(config.channels * 2**i, config.decoder_channels // 2 ** (blocks - i))
        kept = max(1, min(samples, int(_SHARE * room)))
        if i == blocks:
            kept = min(kept, config.latent // _halves(config))
            wanted = _dct(samples)[:kept]
        else:
            wanted = _dct(kept).T @ _dct(samples)[:kept]
        left, _, right = np.linalg.svd(wanted @ side_by_side.T, full_matrices=False)
        transforms.append(left @ right)
        basis = transforms[-1] @ side_by_side
    return transforms


def _dct(size: int) -> np.ndarray:
    return dct(np.eye(size), norm="ortho", axis=0)


def _nearly_linear(snake: dict, channels: int) -> dict:
    """A Snake whose first `channels`, those of the transform, have small alphas."""
    return {"alpha": snake["alpha"].at[:channels].multiply(_ALPHA)}


def _with_transform(layer: dict, tap: int, transform: np.ndarray, kept_axis: int) -> dict:
    """A weight-normalised layer with `transform` `[taps, i, o]` in its kernel `[k, c, d]`, from `tap` on."""
    taps, taken, given = transform.shape
    kernel = weight_norm(layer["direction"], layer["gain"], kept_axis)
    kernel = kernel.at[:, :, :given].multiply(_LEAK).at[tap : tap + taps, :taken, :given].add(transform)
    return _with_kernel(layer, kernel, kept_axis)


def _with_kernel(layer: dict, kernel: Array, kept_axis: int) -> dict:
    """A weight-normalised layer with this kernel."""
    axes = tuple(axis for axis in range(3) if axis != kept_axis)
    gain = _norm(kernel, axes)
    # directions keep their length, which is their learning rate
    direction = kernel * (_norm(layer["direction"], axes) / gain)
    return layer | {"direction": direction, "gain": gain.reshape(-1)}


def _norm(x: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.sum(x**2, axes, keepdims=True))
