"""The reader's second view: what a window sums up to, which a network learns from fewer windows than a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EIGHTHS = 8
REACH = 4.0  # deviations: what lies further out is no more than that


def summarised(x: Tensor) -> Tensor:
    """Of each channel of windows (B, 64, C): mean of every eighth, deviation, least, most, mean change: (B, 12 C)."""
    eighths = x.unflatten(1, (EIGHTHS, -1)).mean(dim=2).flatten(1)
    change = (x[:, 1:] - x[:, :-1]).abs().mean(dim=1)
    return torch.cat([eighths, x.std(dim=1), x.amin(dim=1), x.amax(dim=1), change], dim=1)


class Sums(nn.Module):
    """Operation and line from the sums of a window.

    continuous (B, 64, C) -> sums (B, 12 C) -> standard units -> noise, in training
      -> two dense layers -> operation (B, `operations`), line (B, `lines`)
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self, channels: int, *, operations: int, lines: int, hidden: int = 384, dropout: float = 0.4, noise: float = 0.5
    ):
        super().__init__()
        wide = (EIGHTHS + 4) * channels
        self.outputs, self.noise = (operations, lines), noise
        self.register_buffer("centre", torch.zeros(wide))
        self.register_buffer("scale", torch.ones(wide))
        layers: list[nn.Module] = []
        for inside in (wide, hidden):
            layers += [nn.Linear(inside, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Dropout(dropout)]
        self.dense = nn.Sequential(*layers, nn.Linear(hidden, sum(self.outputs)))

    def prepare(self, windows: Tensor) -> None:
        """Take the standard units from the training windows (n, 64, C)."""
        sums = summarised(windows)
        deviation = sums.std(dim=0)
        self.centre.copy_(sums.mean(dim=0))
        self.scale.copy_(torch.where(deviation < 1e-6, torch.ones_like(deviation), deviation))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sums = ((summarised(x) - self.centre) / self.scale).clamp(-REACH, REACH)
        if self.training:
            sums = sums + self.noise * torch.randn_like(sums)
        operation, line = self.dense(sums).split(self.outputs, dim=1)
        return operation, line
