"""SOP: splits an embedding into a speech half and a background half, and joins them again."""

import torch
from torch import Tensor, nn

from .config import Model


class Projection(nn.Module):
    """Splits an embedding `[b, f, latent]` into speech and background, `[b, f, half]` each; `joined` reverses it."""

    def __init__(self, config: Model):
        super().__init__()
        self.form = config.projection
        if self.form == "learned":
            self.speech, self.background = (nn.Linear(config.latent, config.latent, bias=False) for _ in range(2))

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == "none":
            return embedding, embedding
        if self.form == "learned":
            return self.speech(embedding), self.background(embedding)
        return embedding.chunk(2, dim=-1)

    def joined(self, speech: Tensor, background: Tensor) -> Tensor:
        """Join both parts to the decoder's input `[b, f, latent]`."""
        return torch.cat([speech, background], dim=-1) if self.form == "exact" else speech + background
