"""Teachers, which guide the first speech level: features of clean speech from HuBERT or Whisper, or cepstra.

A teacher is a pytree whose leaves are its weights. Pass it to the jitted step as an argument. If a jitted function
closes over weights, they become constants of the program, and every compilation copies HuBERT's 94 million.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from decodec_jax.data.targets import clip_features
from decodec_jax.errors import UserError
from decodec_jax.objective import cepstra
from decodec_jax.objective.cepstra import HOP, SAMPLE_RATE, STEP
from decodec_jax.objective.hubert import Hubert, HubertSizes
from decodec_jax.objective.whisper import Whisper, WhisperSizes, log_mel

SECOND = SAMPLE_RATE // HOP  # frames
HUBERT_LAYER = 9  # the paper's target
MEAN = -1  # instead of a layer: the mean of all hidden states, SpeechTokenizer's target


class Teacher:
    """Frozen features of speech, with the same frames as the codec."""

    width: int  # features per frame
    fingerprint: str  # of kind, weights and layer; cached targets store their teacher's
    window: int = SECOND  # frames; for cached targets, clips are padded with silence to a multiple of it

    def targets(self, wave: Array) -> Array:
        """Waveform `[b, t]` at 16 kHz to `[b, ceil(t / 320), width]`."""
        return self.finished(self.features(wave))

    def features(self, wave: Array) -> Array:
        """Features before `finished`."""
        return self.states(wave)[-1]

    def states(self, wave: Array) -> Array:
        """Features of every layer, `[layers, b, f, width]`; the last are usually those of `features`."""
        raise NotImplementedError

    def finished(self, features: np.ndarray) -> np.ndarray:
        """Targets of the features of a whole clip, `[b, f, width]`, in numpy or JAX."""
        return features


def require_frames(sample_rate: int, hop: int) -> None:
    """Raise UserError unless the codec has the teachers' frames: 320 samples at 16 kHz."""
    if (sample_rate, hop) != (SAMPLE_RATE, HOP):
        raise UserError(f"the model has {hop} samples a frame at {sample_rate} Hz; semantic guidance needs {HOP} at "
                        f"{SAMPLE_RATE}: change the model's strides or hop, or set loss.guidance=0")


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
class CepstraTeacher(Teacher):
    """The stand-in that needs no weights (objective/cepstra.py)."""

    width = cepstra.WIDTH

    @property
    def fingerprint(self) -> str:
        constants = {name: value for name, value in vars(cepstra).items() if name.isupper()}
        return fingerprint_of("cepstra", sorted(constants.items()))

    def states(self, wave: Array) -> Array:
        return cepstra.in_context(wave)[None]

    def finished(self, features: np.ndarray) -> np.ndarray:
        return cepstra.normalised(features)


# --- HuBERT ---------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HubertTeacher(Teacher):
    """One layer of HuBERT, or the mean of all hidden states. The paper's target is layer 9 of HuBERT base.

    Made by interop/hubert.py from the published weights; `sizes.layers` counts only the layers that are needed.
    """

    params: dict
    sizes: HubertSizes = field(metadata={"static": True})
    layer: int = field(metadata={"static": True})  # 1 is the first layer's output; or MEAN
    fingerprint: str = field(metadata={"static": True})
    precision: str = field(default="float32", metadata={"static": True})  # of its layers' products

    @property
    def width(self) -> int:
        return self.sizes.width

    def features(self, wave: Array) -> Array:
        last, states = Hubert(self.sizes, self.precision).apply({"params": self.params}, wave)
        return jnp.mean(states, axis=0) if self.layer == MEAN else last

    def states(self, wave: Array) -> Array:
        return Hubert(self.sizes, self.precision).apply({"params": self.params}, wave)[1]


# --- Whisper --------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WhisperTeacher(Teacher):
    """The output of the last layer in `sizes` of Whisper's encoder, zero mean and unit variance over the clip.

    Made by interop/whisper.py. Whisper expects 30 s and knows where in them a frame is. So cached targets are computed
    from whole clips, padded with silence to 30 s. In a training step it hears only the crops of the batch.
    docs/teacher.md compares the two.
    """

    params: dict
    sizes: WhisperSizes = field(metadata={"static": True})
    fingerprint: str = field(metadata={"static": True})
    precision: str = field(default="float32", metadata={"static": True})  # of its layers' products

    @property
    def width(self) -> int:
        return self.sizes.width

    @property
    def window(self) -> int:
        return self.sizes.positions

    def targets(self, wave: Array) -> Array:
        audible = jnp.any(wave != 0, axis=-1)[:, None, None]  # Whisper's features of silence are not zero
        return jnp.where(audible, self.finished(self.features(wave)), 0)

    def states(self, wave: Array) -> Array:
        return Whisper(self.sizes, self.precision).apply({"params": self.params}, self.spectra(wave))

    def spectra(self, wave: Array) -> Array:
        """Log mel spectra, two per frame: `[b, 2 ceil(t / 320), bands]`, starting 10 ms into the clip.

        Whisper centres a frame on the first of its 320 samples; 160 samples later is the middle of the codec's frame.
        """
        t = wave.shape[-1]
        if t > self.sizes.positions * HOP:
            raise UserError(f"Whisper hears {self.sizes.positions * HOP / SAMPLE_RATE:g} s, not the "
                            f"{t / SAMPLE_RATE:.1f} s of this recording; pass crops of it")  # fmt: skip
        return log_mel(jnp.pad(wave[:, STEP:], ((0, 0), (0, min(t, STEP) + -t % HOP))), self.sizes.bands)

    def finished(self, features: np.ndarray) -> np.ndarray:
        return cepstra.normalised(features)


def of_whole_clips(teacher: Teacher) -> Callable[[np.ndarray], np.ndarray]:
    """A function that computes the targets of a clip `[t]` at 16 kHz, `[ceil(t / 320), width]`, of any length.

    It compiles for few lengths only, see `data.targets.clip_features`.
    """
    compute = partial(jax.jit(lambda teacher, wave: teacher.features(wave)), jax.device_put(teacher))
    return lambda wave: np.asarray(teacher.finished(clip_features(wave, HOP, teacher.window, compute)[None])[0])
