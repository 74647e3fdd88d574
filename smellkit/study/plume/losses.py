"""What training minimises: how wrong the masks are, how wrong the class is, and how the two are weighed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from smellkit.plume import GASES
from smellkit.study.losses import CERTAIN, focal
from smellkit.task import Batch


def alpha_focal(logits: Tensor, target: Tensor, *, alpha: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss whose classes weigh `alpha`, averaged over all places: -alpha_t (1 - p_t)^gamma log p_t.

    Unlike `smellkit.study.losses.focal` with a weight, the mean is not divided by the weights, as published.
    """
    log_p = F.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
    modulation = (1 - log_p.exp()).clamp(min=CERTAIN) ** gamma
    return -(alpha.to(logits)[target] * modulation * log_p).mean()


def dice(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """1 - (2 |p y| + smooth) / (|p| + |y| + smooth), averaged over samples and classes: (B, C, H, W), (B, H, W)."""
    p = logits.softmax(dim=1)
    y = torch.movedim(F.one_hot(target, logits.shape[1]), -1, 1).to(p)
    both, either = (p * y).sum(dim=(2, 3)), (p + y).sum(dim=(2, 3))
    return (1 - (2 * both + smooth) / (either + smooth)).mean()


def focal_dice(logits: Tensor, target: Tensor, *, gamma: float = 2.0, smooth: float = 1.0) -> Tensor:
    """Half focal, half Dice: the published loss of a mask."""
    return 0.5 * focal(logits, target, gamma=gamma) + 0.5 * dice(logits, target, smooth=smooth)


def of_masks(outputs: Batch, batch: Batch, *, gamma: float = 2.0, smooth: float = 1.0) -> Tensor:
    """`focal_dice` on the samples that have a gas, averaged over the gases that any sample has."""
    losses = [outputs["co2_logits"].sum() * 0]  # where there is no gas at all
    for gas, there in zip(GASES, batch["present"].unbind(dim=1), strict=True):
        if (rows := there > 0).any():
            logits, target = outputs[f"{gas}_logits"][rows], batch[f"{gas}_mask"][rows]
            losses.append(focal_dice(logits, target, gamma=gamma, smooth=smooth))
    return torch.stack(losses[1:] or losses).mean()


def of_class(outputs: Batch, batch: Batch, *, alpha: Tensor, gamma: float = 2.0) -> Tensor:
    """`alpha_focal` of the class; a model that gives a class for each frame answers for every frame that is there."""
    if "each_class_logits" not in outputs:
        return alpha_focal(outputs["class_logits"], batch["label"], alpha=alpha, gamma=gamma)
    there = batch["present"] > 0
    label = batch["label"][:, None].expand_as(there)
    return alpha_focal(outputs["each_class_logits"][there], label[there], alpha=alpha, gamma=gamma)


def weighted_sum(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of the parts; one whose weight is 0 is left out."""
    return torch.stack([weights[name] * part for name, part in parts.items() if weights[name]]).sum()
