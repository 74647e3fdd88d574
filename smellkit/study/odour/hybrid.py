"""Fit the hybrid of `odour.mixture`: tables to look up, trees, and the edge between known and unknown sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smellkit.odour.mixture import (
    MANY,
    Array,
    Forest,
    Hybrid,
    Neighbours,
    level_and_slope,
    levels,
    log_levels,
    recording_means,
)
from smellkit.odour.mixture_task import MixtureWindows, groups, label
from smellkit.odour.scents import ODORANTS


def fit_hybrid(windows: MixtureWindows, *, trees: int = 100, leaf: int = 20, k: int = 15, seed: int = 0) -> Hybrid:
    """Fit all parts and the edge on training windows. The forest grows on real recordings where there are any."""
    real = real_windows(windows)
    features = level_and_slope(windows.counts[real])
    return Hybrid(
        known=whitened_neighbours(windows, levels, k=k),
        session=whitened_neighbours(windows, log_levels),
        forest=grow_forest(features, windows.ratios[real], trees=trees, leaf=leaf, seed=seed),
        edge=session_edge(windows, real, seed=seed),
        within_day=whitening(features, _mixture_and_day(windows)[windows.recording[real]], shrink=0.05),
    )


def real_windows(windows: MixtureWindows) -> NDArray[np.bool_]:
    """Return a mask of the windows of real recordings; all where there is none."""
    real = windows.column("kind") == "real"
    return real if real.any() else np.ones(len(windows), bool)


def whitening(features: NDArray, group: NDArray, *, shrink: float = 0.1) -> Array:
    """Return a matrix (d, d) that makes the scatter of `features` (n, d) inside each `group` equal in all ways."""
    _, which = np.unique(group, return_inverse=True)
    sums = np.zeros((which.max() + 1, features.shape[1]))
    np.add.at(sums, which, features)
    centred = features - (sums / np.bincount(which)[:, None])[which]
    scatter = centred.T @ centred / max(len(features) - 1, 1)
    scatter = (1 - shrink) * scatter + shrink * np.diag(np.diag(scatter))
    size, axes = np.linalg.eigh(scatter)
    return (axes / np.sqrt(np.maximum(size, 1e-9 * max(size.max(), 1e-9)))).astype(np.float32)


def whitened_neighbours(windows: MixtureWindows, describe: Callable[[NDArray], Array], *, k: int = 15) -> Neighbours:
    """Return training windows as a table to look up, in a metric that makes each mixture equally wide in all ways."""
    features = describe(windows.counts)
    _, mixture = np.unique(np.round(windows.ratios, 4), axis=0, return_inverse=True)
    return Neighbours.fit(features, windows.ratios, metric=whitening(features, mixture.ravel()), k=k)


def grow_forest(features: NDArray, ratios: NDArray, *, trees: int = 100, leaf: int = 20, seed: int = 0) -> Forest:
    """Grow `trees` that tell mixtures apart; a leaf holds at least `leaf` windows, so that none is sure of much."""
    from sklearn.ensemble import ExtraTreesClassifier

    mixtures, target = np.unique(np.round(ratios, 4), axis=0, return_inverse=True)
    leaf = max(1, min(leaf, len(features) // 20))
    model = ExtraTreesClassifier(trees, min_samples_leaf=leaf, max_features=None, random_state=seed, n_jobs=1)
    grown = [one.tree_ for one in model.fit(features, target.ravel()).estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in grown)])[:-1]

    def joined(part: Callable[[Any, int], NDArray], kind: type) -> NDArray:
        return np.concatenate([part(tree, root) for tree, root in zip(grown, roots, strict=True)]).astype(kind)

    def ratios_of(tree: Any, root: int) -> NDArray:
        counts = tree.value[:, 0]  # (nodes, mixtures)
        return counts / counts.sum(axis=1, keepdims=True) @ mixtures

    def inner(tree: Any, values: NDArray) -> NDArray:
        return np.where(tree.children_left >= 0, values, -1)

    return Forest(
        feature=joined(lambda tree, root: inner(tree, tree.feature), np.int16),
        threshold=joined(lambda tree, root: tree.threshold, np.float32),
        left=joined(lambda tree, root: inner(tree, tree.children_left + root), np.int32),
        right=joined(lambda tree, root: inner(tree, tree.children_right + root), np.int32),
        value=joined(ratios_of, np.float16),
        roots=roots.astype(np.int32),
    )


def session_edge(windows: MixtureWindows, real: NDArray, *, folds: int = 5, seed: int = 0) -> tuple[float, float]:
    """Return (offset, slope) of the logistic curve that tells known sessions from unknown ones by log distance.

    Where there is one day only, the edge lies beyond 95 % of the distances in the known session.
    """
    known, unknown = known_distances(windows, real, folds=folds, seed=seed), unknown_distances(windows, real)
    if not len(known):
        return 0.0, -1.0
    if not len(unknown):
        return 8.0 * float(np.quantile(known, 0.95)), -8.0
    from sklearn.linear_model import LogisticRegression

    target = np.repeat([1, 0], [len(known), len(unknown)])
    curve = LogisticRegression(class_weight="balanced").fit(np.concatenate([known, unknown])[:, None], target)
    return float(curve.intercept_[0]), float(min(curve.coef_[0, 0], -1e-3))


def known_distances(windows: MixtureWindows, real: NDArray, *, folds: int, seed: int) -> NDArray:
    """Return log distances of held-out real recordings, with others of their mixture and day in the table.

    Where hardly a mixture was recorded twice a day, every second window of all recordings is held out instead.
    """
    group, kinds = groups(windows.index, "recording"), _mixture_and_day(windows)
    names = np.random.default_rng(seed).permutation(np.unique(group))
    fold = {name: i % folds for i, name in enumerate(names)}
    part = np.array([fold[name] for name in group])
    there = np.isin(np.arange(len(group)), windows.recording)
    distances = [np.empty(0)]
    for i in range(min(folds, len(names))):
        asked = (part == i) & np.isin(kinds, kinds[(part != i) & there])
        rows = windows.recording
        distances.append(_log_distances(windows, (part != i)[rows], asked[rows] & real))
    if sum(map(len, distances)) >= MANY:
        return np.concatenate(distances)
    odd = np.arange(len(windows)) % 2 == 1
    return _log_distances(windows, ~odd, odd)


def unknown_distances(windows: MixtureWindows, real: NDArray) -> NDArray:
    """Return log distances of real recordings from the windows of all other days."""
    days = groups(windows.index, "day")[windows.recording]
    every = [_log_distances(windows, days != day, (days == day) & real) for day in np.unique(days[real])]
    return np.concatenate([np.empty(0), *every])


def _log_distances(windows: MixtureWindows, table: NDArray, asked: NDArray) -> NDArray:
    """Log distances of the windows `asked` from the windows `table` (masks), averaged over each recording."""
    if not asked.any() or table.sum() < 5:
        return np.empty(0)
    kept = MixtureWindows(
        windows.counts[table], windows.ratios[table], windows.recording[table], windows.start[table], windows.index
    )
    distance = whitened_neighbours(kept, log_levels).votes(log_levels(windows.counts[asked]))[1]
    which = np.unique(windows.recording[asked], return_inverse=True)[1]
    return recording_means(np.log(distance + 1e-6), which)


def _mixture_and_day(windows: MixtureWindows) -> NDArray:
    """The mixture and the day of each recording, as one text."""
    ratios, days = windows.index[list(ODORANTS)].to_numpy(), groups(windows.index, "day")
    return np.array([f"{label(row)} {day}" for row, day in zip(ratios, days, strict=True)])
