"""How well tokens were decoded: the published measure, and the ones that say more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smellkit.gcode.tokens import EOS, PAD, UNK, Vocabulary

Numbers = NDArray[np.int64]


def hits(found: Numbers, target: Numbers, *, kind: str = "all", vocabulary: Vocabulary | None = None) -> NDArray:
    """(right, counted) tokens of each window, (n, 2): over the target's tokens of a kind, place by place.

    all: every token with EOS and UNK, as published. words: without EOS and UNK. numbers: NUM_ tokens alone (these need
    the `vocabulary`).
    """
    counted = target != PAD
    if kind != "all":
        counted &= (target != EOS) & (target != UNK)
    if kind == "numbers":
        assert vocabulary is not None
        number = np.array([token.startswith("NUM_") for token in vocabulary.tokens])
        counted &= number[target]
    right = (found == target) & counted
    return np.stack([right.sum(axis=1), counted.sum(axis=1)], axis=1)


def accuracy(found: Numbers, target: Numbers, *, kind: str = "all", vocabulary: Vocabulary | None = None) -> float:
    """Share of the target's tokens that were found at their place; NaN if there are none of this kind."""
    right, counted = hits(found, target, kind=kind, vocabulary=vocabulary).sum(axis=0)
    return float(right / counted) if counted else float("nan")


def table(
    forced: Numbers | None, free: Numbers, target: Numbers, *, vocabulary: Vocabulary, groups: NDArray
) -> dict[str, list[float]]:
    """Every token measure as [value, low, high], the 95 % interval from drawing whole recordings again."""
    rows: dict[str, NDArray] = {}
    if forced is not None:
        rows["TF"] = hits(forced, target)
    rows["AR"] = hits(free, target)
    rows["Num"] = hits(free, target, kind="numbers", vocabulary=vocabulary)
    rows["words"] = hits(free, target, kind="words")
    same = (np.where(target == PAD, PAD, free) == target).all(axis=1)
    rows["exact"] = np.stack([same, np.ones_like(same)], axis=1).astype(int)
    return {name: interval(row, groups) for name, row in rows.items()}


def interval(right_of: NDArray, groups: NDArray, *, rounds: int = 1000, seed: int = 0) -> list[float]:
    """[value, low, high] of a ratio of sums over (n, 2) rows, drawing whole groups again."""
    _, which = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(which, weights=right_of[:, column]) for column in (0, 1)], axis=1)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(rounds, len(sums)))
    total = sums[drawn].sum(axis=1)
    low, high = np.quantile(total[:, 0] / np.maximum(total[:, 1], 1), [0.025, 0.975])
    value = sums[:, 0].sum() / max(sums[:, 1].sum(), 1)
    return [float(value), float(low), float(high)]
