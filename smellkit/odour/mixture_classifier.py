"""Which known mixture is this? A small network beside the look-up, whose errors are others.

counts (n, 100, 4) -> summary (26) -> z (50 odour channels) -- alpha --> odour vector (128) -> known mixtures (k)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smellkit.odour.mixture import EDGE, AlphaSum, Array, mixture_conductance
from smellkit.task import Batch

PAIRS = tuple(itertools.combinations(range(4), 2))


def summary(counts: NDArray) -> Array:
    """Level, spread and drift of four sensors, and how they stand to each other, for windows (n, steps, 4): (n, 26)."""
    counts = np.asarray(counts, np.float32)
    logs = mixture_conductance(counts)
    mean = logs.mean(axis=1)
    slope = logs[:, -EDGE:].mean(axis=1) - logs[:, :EDGE].mean(axis=1)
    ratios = np.stack([mean[:, first] - mean[:, second] for first, second in PAIRS], axis=1)
    parts = (counts.mean(axis=1), mean, slope, counts.std(axis=1), ratios, np.median(counts, axis=1))
    return np.concatenate(parts, axis=1)


class MixtureClassifier(nn.Module):
    """Summaries "summary" (batch, 26) to "z" (batch, 50) and "logits" (batch, k) over known mixtures."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mixtures: int, *, inputs: int = 26, hidden: int = 256, dim: int = 128):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.channels = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, 50),
            nn.Tanh(),
        )
        self.alpha = AlphaSum(50, dim)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(dim, mixtures))

    def forward(self, batch: Batch) -> Batch:
        x = (batch["summary"] - self.mean) / self.scale  # (batch, 26)
        if self.training:
            x = x + 0.03 * torch.randn_like(x)
        z = self.channels(x)  # (batch, 50), each channel from -1 to 1
        odour = self.alpha(z)  # (batch, dim): the sum of the channels' directions
        return {"z": z, "odour": odour, "logits": self.head(odour)}

    @torch.no_grad()
    def votes(self, counts: NDArray) -> NDArray[np.float64]:
        """Probability of each known mixture for windows of counts (n, 100, 4), (n, k)."""
        return self({"summary": torch.from_numpy(summary(counts))})["logits"].softmax(dim=1).double().numpy()

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> MixtureClassifier:
        """From its tensors, ready to be asked."""
        network = cls(tensors["head.1.weight"].shape[0])
        network.load_state_dict(dict(tensors))
        return network.eval()
