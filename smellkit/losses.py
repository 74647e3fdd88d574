"""Losses that more than one system uses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CERTAIN = 1e-8  # left of a probability of 1, where a root of nothing would have no slope


def focal(
    logits: Tensor, target: Tensor, *, gamma: float = 0.0, smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Focal loss with label smoothing, averaged: sum_c -q_c w_c (1 - p_c)^gamma log p_c.

    `logits` (batch, classes, ...), `target` class numbers (batch, ...) or probabilities shaped like `logits`; q is the
    target with `smoothing` spread evenly over all classes. gamma 0 is cross-entropy. A `weight` (classes,) divides the
    sum by the weights of the targets, as torch's cross-entropy does. Source: Lin et al., arXiv 1708.02002, eq. 4.
    """
    log_p = F.log_softmax(logits, dim=1)
    classes = logits.shape[1]
    hard = target if target.shape == logits.shape else _one_hot(target, classes, logits)
    soft = hard * (1 - smoothing) + smoothing / classes
    if weight is not None:
        shape = (1, classes) + (1,) * (logits.ndim - 2)
        soft, hard = soft * weight.view(shape), hard * weight.view(shape)
    modulation = (1 - log_p.exp()).clamp(min=CERTAIN) ** gamma if gamma else 1.0
    loss = -(soft * modulation * log_p).sum(dim=1)
    return loss.sum() / hard.sum() if weight is not None else loss.mean()


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy against a distribution, averaged: both (batch, classes). KL divergence up to a constant."""
    return -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()


def _one_hot(target: Tensor, classes: int, like: Tensor) -> Tensor:
    return torch.movedim(F.one_hot(target.long(), classes), -1, 1).to(like.dtype)
