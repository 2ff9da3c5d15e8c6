"""HuBERT (Hsu et al. 2021): convolutions and transformer layers, 50 frames a second.

interop/hubert.py reads its weights, objective/teacher.py makes it a teacher.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from decodec_jax.objective.transformer import gelu, layers, norm


@dataclass(frozen=True)
class HubertSizes:
    """Of the network; the defaults are HuBERT base's."""

    convs: tuple[tuple[int, int, int], ...] = (
        (512, 10, 5), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 3, 2), (512, 2, 2), (512, 2, 2),
    )  # fmt: skip  # channels, kernel, stride
    width: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    normalise: bool = True  # each clip to zero mean and unit variance first

    @property
    def hop(self) -> int:
        """Samples per frame: 320."""
        return int(np.prod([stride for _, _, stride in self.convs]))

    @property
    def reach(self) -> int:
        """Samples that one frame covers: 400."""
        reach, hop = 1, 1
        for _, kernel, stride in self.convs:
            reach += (kernel - 1) * hop
            hop *= stride
        return reach


def frame_aligned(wave: Array, sizes: HubertSizes) -> Array:
    """Pad `[b, t]` with zeros so that HuBERT's convolutions, which pad nothing, give the codec's frames.

    A frame covers 400 samples, and the next one starts 320 later. 40 zeros in front put the middle of frame i at
    320 i + 160, the middle of the codec's frame. 40 zeros at the end, plus those that the last frame lacks, make
    ceil(t / 320) frames.
    """
    t = wave.shape[-1]
    around = sizes.reach - sizes.hop
    return jnp.pad(wave, ((0, 0), (around // 2, around - around // 2 + -t % sizes.hop)))


def grouped_conv(x: Array, kernel: Array, groups: int) -> Array:
    """Convolution within groups of channels that keeps the length: `[b, f, c] x [k, c / groups, c] -> [b, f, c]`.

    An even kernel sees one frame more on the left. Computed as a product of windows, group by group (all at once would
    store x k times), because the library's grouped convolution gathers a batch that is split over devices.
    """
    b, f, c = x.shape
    size, width = kernel.shape[0], c // groups
    padded = jnp.pad(x, ((0, 0), (size // 2, (size - 1) // 2), (0, 0)))
    inputs = padded.reshape(b, -1, groups, width).transpose(2, 0, 1, 3)
    kernels = kernel.reshape(size, width, groups, width).transpose(2, 0, 1, 3)
    taps = np.arange(f)[:, None] + np.arange(size)

    def one_group(pair: tuple[Array, Array]) -> Array:
        return pair[0][:, taps].reshape(b, f, size * width) @ pair[1].reshape(size * width, width)

    return lax.map(one_group, (inputs, kernels)).transpose(1, 2, 0, 3).reshape(b, f, c)


class Hubert(nn.Module):
    """The base architecture: `[b, t]` to the last hidden state `[b, f, w]`, and to all, stacked.

    The positional convolution's kernel has its weight norm applied. The layers' parameters are stacked.
    """

    sizes: HubertSizes
    precision: str = "float32"  # of the layers' products, see codec/product.py

    @nn.compact
    def __call__(self, wave: Array) -> tuple[Array, Array]:
        sizes = self.sizes
        if sizes.normalise:
            wave = wave - jnp.mean(wave, axis=-1, keepdims=True)
            wave = wave * lax.rsqrt(jnp.mean(wave**2, axis=-1, keepdims=True) + 1e-7)
        x = frame_aligned(wave, sizes)[..., None]
        for i, (channels, kernel, stride) in enumerate(sizes.convs):
            x = nn.Conv(channels, (kernel,), stride, "VALID", use_bias=False, name=f"conv{i}")(x)
            if i == 0:  # over time, each channel by itself: torch's group norm with as many groups as channels
                x = nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False, name="conv_norm")(x)
            x = gelu(x)
        x = nn.Dense(sizes.width, name="projection")(norm(name="feature_norm")(x))

        shape = (sizes.position_kernel, sizes.width // sizes.position_groups, sizes.width)
        kernel = self.param("position_kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("position_bias", nn.initializers.zeros, (sizes.width,))
        embedded = norm(name="input_norm")(x + gelu(grouped_conv(x, kernel, sizes.position_groups) + bias))

        last, each = layers(sizes.layers, sizes.heads, sizes.feed_forward, precision=self.precision)(embedded, None)
        return last, jnp.concatenate([embedded[None], each])
