"""How good predicted mixture ratios are: the published metric, and the others that keep it honest.

Top-1@0.1 asks only about the components that are really there, so naming too many costs nothing: a constant 0.5 for all
twelve scores 37 % on SmellNet's seen split. Never read it without the dynamic top-k, the error and the presence.
Source: Feng et al., arXiv 2506.00239. Ratios are (windows, 12); a truth of 0 means absent.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
ROUNDING = 1e-6  # 0.3 - 0.2 is not quite 0.1 in binary


def within(predicted: ArrayLike, truth: ArrayLike, *, tolerance: float = 0.1) -> FloatArray:
    """Per window, the share of truly present components whose predicted ratio is within `tolerance` (Top-1@0.1)."""
    predicted, truth = _pair(predicted, truth)
    present = truth > 0
    close = np.abs(predicted - truth) <= tolerance + ROUNDING
    return (close & present).sum(axis=1) / present.sum(axis=1)


def dynamic_top_k(predicted: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Per window with k components, the share of them among the k largest predictions; the lower number wins a tie."""
    predicted, truth = _pair(predicted, truth)
    present = truth > 0
    order = np.argsort(-predicted, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    count = present.sum(axis=1)
    return ((rank < count[:, None]) & present).sum(axis=1) / count


def absolute_error(predicted: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Per window, the absolute error averaged over all twelve ratios."""
    predicted, truth = _pair(predicted, truth)
    return np.abs(predicted - truth).mean(axis=1)


def divergence(predicted: ArrayLike, truth: ArrayLike, *, floor: float = 1e-3) -> FloatArray:
    """Per window, KL(truth || prediction) in nats; `floor` is mixed into the prediction so that a miss stays finite."""
    said, real = _pair(predicted, truth)
    said = np.clip(said, 0, None)
    said = said / np.maximum(said.sum(axis=1, keepdims=True), 1e-12)
    said = (1 - floor) * said + floor / said.shape[1]
    real = real / real.sum(axis=1, keepdims=True)
    return np.where(real > 0, real * np.log(np.maximum(real, 1e-12) / said), 0.0).sum(axis=1)


def presence_f1(predicted: ArrayLike, truth: ArrayLike, *, threshold: float = 0.1) -> float:
    """F1 of "is this component there", over all windows and components together; there means at least `threshold`."""
    predicted, truth = _pair(predicted, truth)
    said, real = predicted >= threshold - ROUNDING, truth > 0
    return float(2 * (said & real).sum() / max(said.sum() + real.sum(), 1))


def summary(predicted: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """All scores over all windows; percentages are 0..100, as in the paper."""
    return {
        "windows": len(np.asarray(truth)),
        "top1_at_0.1": 100 * float(within(predicted, truth).mean()),
        "top1_at_0.2": 100 * float(within(predicted, truth, tolerance=0.2).mean()),
        "dynamic_top_k": 100 * float(dynamic_top_k(predicted, truth).mean()),
        "mae": float(absolute_error(predicted, truth).mean()),
        "kl": float(divergence(predicted, truth).mean()),
        "presence_f1": 100 * presence_f1(predicted, truth),
    }


def by_group(predicted: ArrayLike, truth: ArrayLike, groups: Iterable[object]) -> dict[str, dict[str, float]]:
    """`summary` for each value of `groups` (one a window), in sorted order."""
    predicted, truth = _pair(predicted, truth)
    names = np.array([str(group) for group in groups])
    return {str(name): summary(predicted[names == name], truth[names == name]) for name in np.unique(names)}


def _pair(predicted: ArrayLike, truth: ArrayLike) -> tuple[FloatArray, FloatArray]:
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape or predicted.ndim != 2 or not len(truth):
        raise ValueError(f"predicted {predicted.shape} and true {truth.shape} ratios; both must be (windows, 12)")
    return predicted, truth
