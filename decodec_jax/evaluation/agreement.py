"""A bundle in PyTorch beside JAX, on recordings: are the codes the same, and the samples of the same codes?

JAX takes recordings in pieces, as it always does, PyTorch as a whole, and with a causal model frame by frame too. Codes
may differ where two entries are equally near to within float rounding, and then so may the finer codes of their frame.
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

SECONDS = 60.0  # of a recording, from its start: PyTorch holds them all at once
MOST_DIFFERENT = 0.01  # of the codes
FARTHEST = 1e-4  # between samples, of full scale


@dataclass(frozen=True)
class Agreement:
    """Of PyTorch with JAX. What a stream gives is None where the model is not causal."""

    codes: int  # that were compared
    different: int
    distance: float  # the most by which samples differ that either makes of JAX's codes
    different_streamed: int | None = None
    distance_streamed: float | None = None

    @property
    def good(self) -> bool:
        different = max(self.different, self.different_streamed or 0)
        return different <= MOST_DIFFERENT * self.codes and max(self.distance, self.distance_streamed or 0) <= FARTHEST

    def __str__(self) -> str:
        line = f"{self.different} of {self.codes} codes differ, samples by {self.distance:.1e} at the most"
        if self.different_streamed is None:
            return line
        return f"{line}; in a stream {self.different_streamed}, and by {self.distance_streamed:.1e}"


def compare(codec: DeCodec, model: torch_model.DeCodec, wave: np.ndarray, sample_rate: int) -> Agreement:
    """Agreement on a recording, `[t]` or `[channels, t]` mixed down to one.

    Samples are compared at the level at which the model codes. Raises UserError for what is no recording.
    """
    wave = audio.mono(wave)
    tokens = codec.encode(wave, sample_rate)
    heard = audio.resample(wave * amplitude(tokens.gain), sample_rate, tokens.sample_rate)
    heard = torch.from_numpy(np.pad(heard, (0, -len(heard) % tokens.hop)))[None]
    tokens = replace(tokens, gain=0.0, length=heard.shape[1])
    ours = [torch.from_numpy(codes).long()[None] for codes in (tokens.speech, tokens.background)]
    sound = torch.from_numpy(codec.decode(tokens))[None]

    def differences(codes: Sequence[Tensor], samples: Tensor) -> tuple[int, float]:
        different = sum(int(torch.count_nonzero(a != b)) for a, b in zip(codes, ours, strict=True))
        return different, float(torch.max(torch.abs(samples - sound)))

    with torch.inference_mode(), torch.nn.utils.parametrize.cached():
        outcome = differences(model.encode(heard), model.decode(*ours, tokens.length))
        if codec.config.causal:
            outcome += differences(_streamed_codes(model, heard), _streamed_samples(model, ours))
    return Agreement(sum(codes.numel() for codes in ours), *outcome)


def _streamed_codes(model: torch_model.DeCodec, wave: Tensor) -> list[Tensor]:
    """Frame by frame, those left out that belong to no frame: codes come late, and silence brings the last."""
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
    """`compare` for the first minute of each recording. Raises UserError, naming it, for one that cannot be read."""
    codec, model = DeCodec.load(bundle), torch_model.DeCodec.from_pretrained(bundle)
    return {path: compare(codec, model, *audio.read(path, seconds=SECONDS)) for path in paths}
