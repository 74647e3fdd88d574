"""Scores of a whole split, and how sure one can be of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def hits(scores: ArrayLike, target: ArrayLike, *, k: int = 1) -> NDArray[np.float64]:
    """1.0 where the target is among the `k` largest scores (rows, classes), else 0.0; ties count against the target."""
    scores, target = np.asarray(scores), np.asarray(target)
    own = np.take_along_axis(scores, target[:, None], axis=1)
    return ((scores >= own).sum(axis=1) <= k).astype(np.float64)


def macro_f1(predicted: ArrayLike, target: ArrayLike) -> float:
    """Mean F1 over the classes that occur in the target."""
    from sklearn.metrics import f1_score

    return float(f1_score(target, predicted, labels=np.unique(target), average="macro", zero_division=0))


def expected_calibration_error(probabilities: ArrayLike, target: ArrayLike, *, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence, weighted by their size.

    `probabilities` (rows, classes), `target` (rows,). Source: Guo et al., arXiv 1706.04599, eq. 3.
    """
    probabilities = np.asarray(probabilities)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(target)
    position = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(position, weights=right - confidence)  # of each bin: its size times (accuracy - confidence)
    return float(np.abs(gaps).sum() / max(len(right), 1))


def bootstrap(values: ArrayLike, *, groups: ArrayLike | None = None, rounds: int = 2000, seed: int = 0) -> Interval:
    """Mean of `values` with a percentile interval from resampling whole groups.

    Windows of one recording are not independent: pass the recordings as `groups`, and whole recordings are drawn.
    """
    values = np.asarray(values, dtype=np.float64)
    which = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(which, weights=values), np.bincount(which).astype(float)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(rounds, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_of(
    score: Callable[[NDArray[np.int64]], float], groups: ArrayLike, *, rounds: int = 500, seed: int = 0
) -> Interval:
    """Any `score(rows)` over row numbers (F1, kappa), with a 95 % interval from resampling whole groups."""
    groups = np.asarray(groups)
    names = np.unique(groups)
    rows = [np.flatnonzero(groups == name) for name in names]
    random = np.random.default_rng(seed)
    draws = (random.integers(0, len(names), size=len(names)) for _ in range(rounds))
    sample = [score(np.concatenate([rows[i] for i in draw])) for draw in draws]
    low, high = np.nanquantile(sample, [0.025, 0.975])
    return Interval(float(score(np.arange(len(groups)))), float(low), float(high))


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean over repetitions with a 95 % interval by Student's t; a single value has an infinite one."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)
