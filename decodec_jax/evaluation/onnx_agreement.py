"""ONNX graphs beside JAX: are codes and samples the same, and how fast does onnxruntime run them?"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from decodec_jax import audio
from decodec_jax.data import synthetic
from decodec_jax.evaluation.agreement import SECONDS, Agreement, compare
from decodec_jax.inference.codec import DeCodec
from decodec_jax.interop import onnx_model, torch_model

TIMED = 10.0  # s of audio
ROUNDS = 3
BUILT_IN_CLIP = "a built-in clip"


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares."""

    bytes: dict[str, int]  # of each file
    agreement: dict[str, Agreement]  # with JAX in the same weights, by recording
    rounding: dict[str, Agreement]  # of eight bits: with JAX in the weights before; empty without
    real_time_factors: dict[str, float]  # of each graph, on one thread

    @property
    def lines(self) -> list[str]:
        """The findings, for people."""
        total = sum(self.bytes.values()) / 1e6
        sizes = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in sorted(self.bytes.items()))
        factors = ", ".join(f"{name} {factor:.4f}" for name, factor in self.real_time_factors.items())
        return [
            f"{total:.2f} MB: {sizes}",
            *(f"{name}: of ONNX and JAX, {each}" for name, each in self.agreement.items()),
            *(f"{name}: through eight bits, {each}" for name, each in self.rounding.items()),
            f"real-time factors of onnxruntime on one thread: {factors}",
        ]

    def summary(self) -> dict:
        """The findings, for programs."""
        compared = {name: {clip: vars(each) for clip, each in getattr(self, name).items()}
                    for name in ("agreement", "rounding")}  # fmt: skip
        return {"bytes": self.bytes, **compared, "real_time_factors": self.real_time_factors}


def export(bundle: Path, recordings: Sequence[str], licence: str, int8: bool = False) -> Exported:
    """Write the graphs of a bundle into its folder and compare them with JAX, on recordings or a built-in clip.

    With int8, codes and samples are to equal those of JAX in the same rounded weights; `rounding` says how far those of
    the bundle are. Raises UserError, naming it, for a recording that cannot be read.
    """
    codec, model = DeCodec.load(bundle), torch_model.DeCodec.from_pretrained(bundle)
    clips = {path: audio.read(path, seconds=SECONDS) for path in recordings} or {BUILT_IN_CLIP: _clip(codec)}
    rounded = codec
    if int8:
        model = onnx_model.rounded(model)
        rounded = _in_jax(model)
    described = onnx_model.write(model, bundle, codec.fingerprint, licence, int8)
    runtime = onnx_model.Runtime(bundle)
    sizes = {name: each["bytes"] for name, each in described["files"].items()}
    agreement = {name: compare(rounded, runtime, *clip) for name, clip in clips.items()}
    rounding = {name: compare(codec, runtime, *clip) for name, clip in clips.items()} if int8 else {}
    return Exported(sizes, agreement, rounding, real_time_factors(runtime))


def real_time_factors(runtime: onnx_model.Runtime | torch_model.DeCodec, rounds: int = ROUNDS) -> dict[str, float]:
    """Processing time over duration of each graph, or of the twin's method: the least of some rounds.

    Those of a stream are taken frame by frame, as a live one goes.
    """
    rate, hop = runtime.config.sample_rate, runtime.config.hop
    frames = round(TIMED * rate / hop)
    wave = torch.from_numpy(np.random.default_rng(0).normal(0, 0.05, (1, frames * hop)).astype(np.float32))
    codes = runtime.encode(wave)
    tasks: dict[str, Callable] = {
        "encode": lambda: runtime.encode(wave),
        "decode": lambda: runtime.decode(*codes, wave.shape[1]),
    }
    if isinstance(runtime, onnx_model.Runtime):  # the twin has no method that decodes just these two
        tasks["enhance"] = lambda: runtime.parts(wave)
    if runtime.config.causal:
        tasks |= {
            "encode_step": lambda: _through(runtime.encode_step, [[frame] for frame in wave.split(hop, dim=1)]),
            "decode_step": lambda: _through(runtime.decode_step, zip(*(c.split(1, dim=2) for c in codes), strict=True)),
        }
    seconds = wave.shape[1] / rate
    return {name: min(processor_seconds(task) for _ in range(rounds)) / seconds for name, task in tasks.items()}


def _through(step: Callable, frames) -> None:
    state = ()
    for frame in frames:
        state, _ = step(state, *frame)


def processor_seconds(task: Callable) -> float:
    """What a task on one thread takes while no other program keeps it waiting."""
    begun = time.process_time()
    task()
    return time.process_time() - begun


def _clip(codec: DeCodec) -> tuple[np.ndarray, int]:
    rate = codec.config.sample_rate
    return synthetic.speech(0, 0, rate) + synthetic.background(0, rate), rate


def _in_jax(model: torch_model.DeCodec) -> DeCodec:
    """The weights of the twin in JAX."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return DeCodec.load(folder)
