"""The published attention: within a stream, between the two streams, and over their channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Every place looks at every other: x + gamma * attention(x), and gamma starts at 0.

    q, k have an eighth of the channels. Source: Zhang et al., arXiv 1805.08318.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * attend(self.query(x), self.key(x), self.value(x))


class CrossModalAttention(nn.Module):
    """Each stream looks at the other, through the same projections.

        co2' = co2 + gamma * attention(query of co2, keys and values of ch4), and the other way round

    A gas that is not there (`present` 0) is not looked at.
    """

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 8, 64)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, co2: Tensor, ch4: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        there = present[:, :, None, None, None]
        to_co2 = attend(self.query(co2), self.key(ch4), self.value(ch4)) * there[:, 1]
        to_ch4 = attend(self.query(ch4), self.key(co2), self.value(co2)) * there[:, 0]
        return co2 + self.gamma * to_co2, ch4 + self.gamma * to_ch4


class ChannelAttention(nn.Module):
    """Squeeze and excite: the mean of every channel decides how loud each is. Source: Hu et al., arXiv 1709.01507."""

    def __init__(self, channels: int, *, reduction: int = 16):
        super().__init__()
        hidden = channels // reduction
        self.weigh = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x.mean(dim=(2, 3)))[:, :, None, None]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mean of `value` over places, weighted by how well each place's key answers the query: (B, C, H, W)."""
    weights = torch.bmm(query.flatten(2).transpose(1, 2), key.flatten(2)).softmax(dim=-1)
    return torch.bmm(value.flatten(2), weights.transpose(1, 2)).view(value.shape[0], -1, *query.shape[-2:])
