"""Losses that more than one system uses."""

import torch
from torch import Tensor
from torch.nn import functional as F

CERTAIN = 1e-8  # left of a probability of 1, where a root of nothing would have no slope


def focal(logits: Tensor, target: Tensor, *, gamma: float = 0.0, smoothing: float = 0.0) -> Tensor:
    """Focal loss with label smoothing, averaged: sum_c -q_c (1 - p_c)^gamma log p_c. gamma 0 is cross-entropy.

    `logits` (batch, classes, ...), `target` class numbers (batch, ...) or probabilities shaped like `logits`; q is the
    target with `smoothing` spread evenly over all classes. Source: Lin et al., arXiv 1708.02002, eq. 4.
    """
    if not gamma:
        return F.cross_entropy(logits, target, label_smoothing=smoothing)
    log_p = F.log_softmax(logits, dim=1)
    classes = logits.shape[1]
    if target.shape != logits.shape:
        target = torch.movedim(F.one_hot(target.long(), classes), -1, 1)
    q = target * (1 - smoothing) + smoothing / classes
    modulation = (1 - log_p.exp()).clamp(min=CERTAIN) ** gamma  # (1 - p_c)^gamma: little for what is right already
    return -(q * modulation * log_p).sum(dim=1).mean()
