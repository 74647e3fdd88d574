"""Changes to training windows that leave the smell what it is; each is off at 0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from smellkit.task import Batch


@dataclass(frozen=True)
class Augment:
    """Change a training batch {"window" (batch, steps, channels), "target" (batch,)}; drawn from torch's generator.

    >>> Tensors(window=windows, target=labels, change=Augment(classes=50, jitter=0.1))
    """

    classes: int
    jitter: float = 0.0  # noise, in deviations of a channel within the batch
    scale: float = 0.0  # one amplitude for all channels, deviation of its logarithm
    gain: float = 0.0  # an amplitude for each channel, as another day's sensors have, deviation of its logarithm
    shift: float = 0.0  # a new level for each channel that shows one, deviation in units of the representation
    levels: bool = False  # whether windows show levels: scale and gain then act on what changes since the first row
    warp: float = 0.0  # share by which time runs faster or slower at most
    sensor_dropout: float = 0.0  # chance that a channel is still
    mixup: float = 0.0  # both parameters of the beta distribution (Zhang et al., arXiv 1710.09412)

    def __call__(self, batch: Batch) -> Batch:
        x, target = batch["window"], batch["target"]
        if self.warp:
            x = warped(x, most=self.warp)
        level = x[:, :1] if self.levels else torch.zeros(())
        if self.scale:
            x = level + (x - level) * torch.exp(self.scale * torch.randn(len(x), 1, 1))
        if self.gain:
            x = level + (x - level) * torch.exp(self.gain * torch.randn(len(x), 1, x.shape[2]))
        if self.shift:
            both = torch.randn(len(x), 1, x.shape[2]) + torch.randn(len(x), 1, 1)  # a channel's own, and a common one
            x = x + self.shift * both * (level != 0)
        if self.jitter:
            x = x + self.jitter * x.std(dim=(0, 1), keepdim=True) * torch.randn_like(x)
        if self.sensor_dropout:
            x = x * (torch.rand(len(x), 1, x.shape[2]) >= self.sensor_dropout)
        if self.mixup:
            x, target = mixed(x, F.one_hot(target, self.classes).to(x), alpha=self.mixup)
        return {**batch, "window": x, "target": target}


def warped(x: Tensor, *, most: float) -> Tensor:
    """Play each window (batch, steps, channels) faster or slower by up to the share `most`, about a random step."""
    steps = x.shape[1]
    speed = 1 + most * (2 * torch.rand(len(x), 1) - 1)
    pivot = torch.rand(len(x), 1) * (steps - 1)
    where = (pivot + speed * (torch.arange(steps) - pivot)).clamp(0, steps - 1)
    left = where.long().clamp(max=steps - 2)
    share = (where - left).unsqueeze(-1)
    index = left.unsqueeze(-1).expand(-1, -1, x.shape[2])
    return (1 - share) * x.gather(1, index) + share * x.gather(1, index + 1)


def mixed(x: Tensor, target: Tensor, *, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix windows with others of the batch, and their targets (batch, classes) in the same shares."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(x))
    return share * x + (1 - share) * x[other], share * target + (1 - share) * target[other]
