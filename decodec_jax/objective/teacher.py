"""What the first speech level is guided towards: features of the clean speech by HuBERT, by Whisper, or cepstra.

A teacher is a pytree whose leaves are its weights. Hand it to the jitted step as an argument: weights that a jitted
function closes over become constants of the program, and HuBERT's 94 million would be copied into each compilation.
"""

import hashlib
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from decodec_jax.errors import UserError
from decodec_jax.objective import cepstra
from decodec_jax.objective.cepstra import HOP, SAMPLE_RATE, STEP
from decodec_jax.objective.whisper import Whisper, WhisperSizes, log_mel

SECOND = SAMPLE_RATE // HOP  # frames
HUBERT_LAYER = 9  # the paper's target
MEAN = -1  # in place of a layer: the mean of all hidden states, SpeechTokenizer's target


class Teacher(Protocol):
    """Frozen features of speech, as many frames as the codec has of the same waveform."""

    @property
    def width(self) -> int:
        """Features per frame."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names kind, weights and layer: targets that were computed before are of this teacher if they bear it."""
        ...

    @property
    def window(self) -> int:
        """Frames: what is computed once is computed of a clip that silence fills up to a multiple of this."""
        ...

    def targets(self, wave: Array) -> Array:
        """Waveform `[b, t]` at 16 kHz to `[b, ceil(t / 320), width]`."""
        ...

    def features(self, wave: Array) -> Array:
        """The same before `finished`."""
        ...

    def finished(self, features: np.ndarray) -> np.ndarray:
        """Targets of the features of a whole clip, `[b, f, width]`, in numpy or JAX."""
        ...


def require_frames(sample_rate: int, hop: int) -> None:
    """Raise UserError unless the codec's frames are the teachers': 16 kHz, 320 samples."""
    if (sample_rate, hop) != (SAMPLE_RATE, HOP):
        raise UserError(
            f"the model has {hop} samples a frame at {sample_rate} Hz; semantic guidance needs {HOP} at {SAMPLE_RATE}: "
            "change the model's strides or hop, or leave guidance out"
        )


def fingerprint_of(kind: str, facts: object, params: dict | None = None) -> str:
    """Twelve hex digits that change with the kind of teacher, with `facts` (by their repr), and with any weight."""
    digest = hashlib.blake2b(f"{kind} {facts!r}".encode(), digest_size=6)
    for path, array in jax.tree.leaves_with_path(params or {}):
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array, np.float32))
    return digest.hexdigest()


# --- cepstra --------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CepstraTeacher:
    """The stand-in that needs no weights (objective/cepstra.py)."""

    @property
    def width(self) -> int:
        return cepstra.WIDTH

    @property
    def fingerprint(self) -> str:
        constants = {name: value for name, value in vars(cepstra).items() if name.isupper()}
        return fingerprint_of("cepstra", sorted(constants.items()))

    @property
    def window(self) -> int:
        return SECOND

    def targets(self, wave: Array) -> Array:
        return cepstra.cepstra(wave)

    def features(self, wave: Array) -> Array:
        return cepstra.in_context(wave)

    def finished(self, features: np.ndarray) -> np.ndarray:
        return cepstra.normalised(features)


# --- HuBERT ---------------------------------------------------------------------------------------------------------


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
        """Samples that one frame is made of: 400."""
        reach, hop = 1, 1
        for _, kernel, stride in self.convs:
            reach += (kernel - 1) * hop
            hop *= stride
        return reach


def frame_aligned(wave: Array, sizes: HubertSizes) -> Array:
    """Pad `[b, t]` with zeros so that HuBERT's convolutions, which pad nothing, give the codec's frames.

    A frame is made of 400 samples and the next one of those 320 later. 40 zeros in front put the middle of frame i on
    320 i + 160, the middle of the codec's frame; behind come 40 and what the last frame lacks, so that the frames are
    ceil(t / 320).
    """
    t = wave.shape[-1]
    around = sizes.reach - sizes.hop
    return jnp.pad(wave, ((0, 0), (around // 2, around - around // 2 + -t % sizes.hop)))


def grouped_conv(x: Array, kernel: Array, groups: int) -> Array:
    """Convolution within groups of channels that keeps the length: `[b, f, c] x [k, c / groups, c] -> [b, f, c]`.

    An even kernel sees one frame more on the left. Written as a product of windows, group by group (all at once would
    hold k times x): the library's grouped convolution gathers a batch that is split over devices.
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


_gelu = partial(jax.nn.gelu, approximate=False)
_norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


class _Layer(nn.Module):
    """A transformer layer that normalises after each residual: `[b, f, w] -> [b, f, w]`, twice, as a scan wants it."""

    sizes: HubertSizes

    @nn.compact
    def __call__(self, x: Array, _: None) -> tuple[Array, Array]:
        attended = nn.MultiHeadDotProductAttention(self.sizes.heads, name="attention")(x)
        x = _norm(name="attention_norm")(x + attended)
        expanded = _gelu(nn.Dense(self.sizes.feed_forward, name="expand")(x))
        x = _norm(name="feed_forward_norm")(x + nn.Dense(self.sizes.width, name="contract")(expanded))
        return x, x


class Hubert(nn.Module):
    """HuBERT (Hsu et al. 2021), base architecture: `[b, t]` to the last hidden state `[b, f, w]`, and to all, stacked.

    The positional convolution's kernel is what its weight norm gives, and the layers' parameters are stacked too.
    """

    sizes: HubertSizes

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
            x = _gelu(x)
        x = nn.Dense(sizes.width, name="projection")(_norm(name="feature_norm")(x))

        shape = (sizes.position_kernel, sizes.width // sizes.position_groups, sizes.width)
        kernel = self.param("position_kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("position_bias", nn.initializers.zeros, (sizes.width,))
        embedded = _norm(name="input_norm")(x + _gelu(grouped_conv(x, kernel, sizes.position_groups) + bias))

        stack = nn.scan(_Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=sizes.layers)
        last, each = stack(sizes, name="layers")(embedded, None)
        return last, jnp.concatenate([embedded[None], each])


def hidden_states(params: dict, wave: Array, sizes: HubertSizes) -> Array:
    """All hidden states of `[b, t]` at 16 kHz: `[layers + 1, b, ceil(t / 320), 768]`, the first layer's input first."""
    return Hubert(sizes).apply({"params": params}, wave)[1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HubertTeacher:
    """One layer of HuBERT, or the mean of all hidden states. The paper's target is layer 9 of HuBERT base.

    Made by interop/hubert.py from the published weights; `sizes.layers` are as many as are needed.
    """

    params: dict
    sizes: HubertSizes = field(metadata={"static": True})
    layer: int = field(metadata={"static": True})  # 1 is the first layer's output; or MEAN
    fingerprint: str = field(metadata={"static": True})

    @property
    def width(self) -> int:
        return self.sizes.width

    @property
    def window(self) -> int:
        return SECOND

    def targets(self, wave: Array) -> Array:
        last, states = Hubert(self.sizes).apply({"params": self.params}, wave)
        return jnp.mean(states, axis=0) if self.layer == MEAN else last

    def features(self, wave: Array) -> Array:
        return self.targets(wave)

    def finished(self, features: np.ndarray) -> np.ndarray:
        return features


# --- Whisper --------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WhisperTeacher:
    """The output of the last layer in `sizes` of Whisper's encoder, zero mean and unit variance over the clip.

    Made by interop/whisper.py. Whisper is made for 30 s and knows how far into them a frame is, so what is computed
    once is computed of whole clips followed by silence up to 30 s; of a batch it hears nothing but the crops.
    docs/teacher.md says how far apart these are.
    """

    params: dict
    sizes: WhisperSizes = field(metadata={"static": True})
    fingerprint: str = field(metadata={"static": True})

    @property
    def width(self) -> int:
        return self.sizes.width

    @property
    def window(self) -> int:
        return self.sizes.positions

    def targets(self, wave: Array) -> Array:
        audible = jnp.any(wave != 0, axis=-1)[:, None, None]  # it says something of silence, too
        return jnp.where(audible, self.finished(self.features(wave)), 0)

    def features(self, wave: Array) -> Array:
        return Whisper(self.sizes).apply({"params": self.params}, self.spectra(wave))[-1]

    def spectra(self, wave: Array) -> Array:
        """Log mel spectra, two a frame: `[b, 2 ceil(t / 320), bands]`, from 10 ms into the clip on.

        Whisper's frame is centred on the first of its 320 samples; 160 later is the middle of the codec's.
        """
        t = wave.shape[-1]
        if t > self.sizes.positions * HOP:
            raise UserError(f"Whisper hears {self.sizes.positions * HOP / SAMPLE_RATE:g} s, not the "
                            f"{t / SAMPLE_RATE:.1f} s of this recording; give crops of it")  # fmt: skip
        return log_mel(jnp.pad(wave[:, STEP:], ((0, 0), (0, min(t, STEP) + -t % HOP))), self.sizes.bands)

    def finished(self, features: np.ndarray) -> np.ndarray:
        return cepstra.normalised(features)
