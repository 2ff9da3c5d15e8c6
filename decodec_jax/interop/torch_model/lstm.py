"""The LSTM, channels first: `[b, c, n]`."""

import torch
from torch import Tensor, nn

from .layers import Stream


class LSTM(nn.LSTM):
    """An LSTM stack with a skip connection, `[b, c, n] -> [b, c, n]`.

    If it is not causal, it is bidirectional, with half the width in each direction.
    """

    def __init__(self, channels: int, layers: int, causal: bool):
        hidden = channels if causal else channels // 2
        super().__init__(channels, hidden, layers, batch_first=True, bidirectional=not causal)
        for name, parameter in self.named_parameters():
            if name.startswith("bias_hh"):  # torch adds two biases, a bundle has only one: keep the other at zero
                nn.init.zeros_(parameter).requires_grad_(False)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        carry = next(stream.before, None) if stream else None
        y, carry = super().forward(x.transpose(1, 2), None if carry is None else tuple(carry))
        if stream:
            stream.after.append(torch.stack(carry))
        return x + y.transpose(1, 2)
