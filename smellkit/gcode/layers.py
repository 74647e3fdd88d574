"""What the networks share: position as waves, and a decoder layer whose keys and values can be kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WAVES = tuple(2.0**power for power in range(1, 9))  # mm: from 2 to 256, the width of the bed


def in_waves(position: Tensor, spread: Tensor) -> Tensor:
    """Sine and cosine of a scaled position (..., 3) at every wavelength, (..., 48); nothing at all where it is hidden.

    `spread` (3,) are the millimetres in one unit of it.
    """
    known = (position != 0).any(dim=-1, keepdim=True)
    lengths = torch.tensor(WAVES, dtype=position.dtype, device=position.device)
    phase = (position * spread)[..., None] * (2 * math.pi / lengths)
    return torch.cat([phase.sin().flatten(-2), phase.cos().flatten(-2)], dim=-1) * known


class Layer(nn.Module):
    """Masked self-attention, attention to the memory, feed-forward; each after a norm, each added back.

        x (batch, tokens, width), memory keys and values from `remember` ---> x

    With `past` (keys, values of earlier tokens) x is the next token alone, and the new keys and values come back too.
    """

    def __init__(self, width: int, *, heads: int, dropout: float = 0.1, inner: int = 4):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.own, self.own_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ask, self.ask_out = nn.Linear(width, width), nn.Linear(width, width)
        self.about = nn.Linear(width, 2 * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.feed = nn.Sequential(
            nn.Linear(width, inner * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, (batch, heads, steps, width / heads) each: once a window."""
        keys, values = self.about(memory).chunk(2, dim=-1)
        return self.apart(keys), self.apart(values)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        query, keys, values = map(self.apart, self.own(self.norms[0](x)).chunk(3, dim=-1))
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        rate = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, keys, values, is_causal=past is None, dropout_p=rate)
        x = x + self.drop(self.own_out(self.together(seen)))
        query = self.apart(self.ask(self.norms[1](x)))
        seen = F.scaled_dot_product_attention(query, *memory, dropout_p=rate)
        x = x + self.drop(self.ask_out(self.together(seen)))
        return x + self.drop(self.feed(self.norms[2](x))), (keys, values)

    def apart(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) as (batch, heads, tokens, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def together(self, x: Tensor) -> Tensor:
        """The inverse of `apart`."""
        return x.transpose(1, 2).flatten(2)
