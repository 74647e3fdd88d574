"""Teach the network that names known mixtures: cross-entropy with soft labels, one cycle of the learning rate."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from smellkit.odour.mixture_classifier import MixtureClassifier, summary
from smellkit.odour.mixture_task import MixtureWindows

EPOCHS, BATCH, RATE, SOFT = 25, 256, 4e-3, 0.05


def fit_classifier(
    windows: MixtureWindows, mixtures: NDArray, *, epochs: int = EPOCHS, seed: int = 0
) -> MixtureClassifier:
    """Train on windows whose ratios are among `mixtures` (k, 12); the last epoch counts, as nothing is held out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = torch.from_numpy(summary(windows.counts))
        target = torch.from_numpy(np.abs(windows.ratios[:, None] - mixtures).sum(axis=2).argmin(axis=1))
        network = MixtureClassifier(len(mixtures))
        network.mean.copy_(x.mean(0))
        network.scale.copy_(x.std(0).clamp(min=1e-6))
        steps = epochs * -(-len(x) // BATCH)
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(BATCH):
                logits = network({"summary": x[rows]})["logits"]
                loss = F.cross_entropy(logits, target[rows], label_smoothing=SOFT)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return network.eval()
