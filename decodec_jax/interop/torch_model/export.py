"""Export of the decoder alone, for players that only decode."""

from pathlib import Path

import torch
from torch import Tensor, nn

from .model import DeCodec


class Player(nn.Module):
    """The decoder of a model: codes `[b, k, f]` twice to samples `[b, f hop]`."""

    def __init__(self, model: DeCodec):
        super().__init__()
        self.model = model

    def forward(self, speech: Tensor, background: Tensor) -> Tensor:
        return self.model.decode(speech, background, speech.shape[-1] * self.model.config.hop)


def to_torchscript(model: DeCodec, path: str | Path) -> None:
    """Write the decoder as TorchScript, for codes of any number of frames.

    Raises ValueError and removes the file if the traced decoder does not give the model's samples within 1e-4.
    """
    player, halves = Player(model).eval(), (model.config.speech, model.config.background)
    short, long = ([torch.randint(half.entries, (1, half.levels, frames)) for half in halves] for frames in (10, 25))
    with torch.no_grad():
        torch.jit.trace(player, tuple(short), check_trace=False).save(str(path))
        if not torch.allclose(torch.jit.load(str(path))(*long), player(*long), rtol=0, atol=1e-4):
            Path(path).unlink()
            raise ValueError(f"{path} is not written: the traced decoder does not give the model's samples")
