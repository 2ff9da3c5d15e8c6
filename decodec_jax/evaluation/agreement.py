"""Compares a bundle in PyTorch with JAX: are the codes of recordings the same, and the samples decoded from them?

JAX processes recordings in pieces, as always; PyTorch processes them as a whole and, with a causal model, also frame by
frame. Codes may differ if two entries are equally near to within float rounding; then the finer codes of that frame may
differ too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decodec_jax import audio
from decodec_jax.inference.codec import DeCodec
from decodec_jax.inference.loudness import amplitude
from decodec_jax.interop import torch_model

SECONDS = 60.0  # of each recording, from its start, as PyTorch holds a whole recording in memory
MOST_DIFFERENT = 0.01  # share of the codes
FARTHEST = 1e-4  # difference of samples, of full scale


@dataclass(frozen=True)
class Agreement:
    """How well PyTorch agrees with JAX. The results of streaming are None if the model is not causal."""

    codes: int  # number compared
    different: int  # number that differ
    distance: float  # largest difference of the samples that both decode from JAX's codes
    different_streamed: int | None = None
    distance_streamed: float | None = None

    @property
    def good(self) -> bool:
        different = max(self.different, self.different_streamed or 0)
        return different <= MOST_DIFFERENT * self.codes and max(self.distance, self.distance_streamed or 0) <= FARTHEST

    def __str__(self) -> str:
        line = f"{self.different} of {self.codes} codes differ, samples by up to {self.distance:.1e}"
        if self.different_streamed is None:
            return line
        return f"{line}; when streaming, {self.different_streamed}, and by up to {self.distance_streamed:.1e}"


def compare(codec: DeCodec, model: torch_model.DeCodec, wave: np.ndarray, sample_rate: int) -> Agreement:
    """Compare both on a recording, `[t]`, or `[channels, t]` mixed down to one channel.

    Samples are compared at the level at which the model codes. Raises UserError if `wave` is not a recording.
    """
    wave = audio.mono(wave)
    tokens = codec.encode(wave, sample_rate)
    wave = audio.resample(wave * amplitude(tokens.gain), sample_rate, tokens.sample_rate)
    padded = torch.from_numpy(np.pad(wave, (0, -len(wave) % tokens.hop)))[None]
    tokens = replace(tokens, gain=0.0, length=padded.shape[1])
    ours = [torch.from_numpy(codes).long()[None] for codes in (tokens.speech, tokens.background)]
    sound = torch.from_numpy(codec.decode(tokens))[None]

    def differences(codes: Sequence[Tensor], samples: Tensor) -> tuple[int, float]:
        different = sum(int(torch.count_nonzero(a != b)) for a, b in zip(codes, ours, strict=True))
        return different, float(torch.max(torch.abs(samples - sound)))

    with torch.inference_mode(), torch.nn.utils.parametrize.cached():
        outcome = differences(model.encode(padded), model.decode(*ours, tokens.length))
        if codec.config.causal:
            outcome += differences(_streamed_codes(model, padded), _streamed_samples(model, ours))
    return Agreement(sum(codes.numel() for codes in ours), *outcome)


def _streamed_codes(model: torch_model.DeCodec, wave: Tensor) -> list[Tensor]:
    """Encode frame by frame.

    Codes come late: the first ones belong to no frame and are dropped, and silence flushes out the last ones.
    """
    hop, late = model.config.hop, model.lookahead
    state, made = (), []
    for frame in torch.nn.functional.pad(wave, (0, late * hop)).split(hop, dim=-1):
        state, codes = model.encode_step(state, frame)
        made.append(codes)
    return [torch.cat(codes[late:], dim=-1) for codes in zip(*made, strict=True)]


def _streamed_samples(model: torch_model.DeCodec, codes: Sequence[Tensor]) -> Tensor:
    state, made = (), []
    for frame in zip(*(half.split(1, dim=-1) for half in codes), strict=True):
        state, samples = model.decode_step(state, *frame)
        made.append(samples)
    return torch.cat(made, dim=-1)


def compare_files(bundle: str | Path, paths: Sequence[str]) -> dict[str, Agreement]:
    """`compare` for the first minute of each recording. Raises UserError with the name of one that cannot be read."""
    codec, model = DeCodec.load(bundle), torch_model.DeCodec.from_pretrained(bundle)
    return {path: compare(codec, model, *audio.read(path, seconds=SECONDS)) for path in paths}
