"""Fit the models of `odour.mixture` to labelled windows: the hybrid with its session's edge, and the classifier."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from smellkit import checkpoint
from smellkit.odour import mixture
from smellkit.odour.mixture import MANY, Array, Forest, Hybrid, MixtureClassifier, Neighbours, level_and_slope, summary
from smellkit.odour.recordings import LENGTH, MixtureWindows
from smellkit.odour.scents import ODORANTS
from smellkit.study.odour.mixture_data import groups, labels

EPOCHS, BATCH, RATE, SOFT = 25, 256, 4e-3, 0.05  # of the classifier


def fit_hybrid(windows: MixtureWindows, *, trees: int = 100, seed: int = 0) -> Hybrid:
    """Fit all parts and the edge on training windows. The forest grows on real recordings where there are any."""
    real = real_windows(windows)
    features = level_and_slope(windows.counts[real])
    return Hybrid(
        known=whitened_neighbours(windows, mixture.levels),
        session=whitened_neighbours(windows, mixture.log_levels),
        forest=grow_forest(features, windows.ratios[real], trees=trees, seed=seed),
        edge=session_edge(windows, real, seed=seed),
        within_day=whitening(features, _mixture_and_day(windows)[windows.recording[real]], shrink=0.05),
    )


def real_windows(windows: MixtureWindows) -> NDArray[np.bool_]:
    """A mask of the windows of real recordings; all where there is none."""
    real = windows.column("kind") == "real"
    return real if real.any() else ~real


def whitening(features: NDArray, group: NDArray, *, shrink: float = 0.1) -> Array:
    """Return a matrix (d, d) that makes the scatter of `features` (n, d) inside each `group` equal in all ways."""
    table = pd.DataFrame(np.asarray(features, np.float64))
    centred = (table - table.groupby(group).transform("mean")).to_numpy()
    scatter = centred.T @ centred / max(len(features) - 1, 1)
    scatter = (1 - shrink) * scatter + shrink * np.diag(np.diag(scatter))
    size, axes = np.linalg.eigh(scatter)
    return (axes / np.sqrt(np.maximum(size, 1e-9 * max(size.max(), 1e-9)))).astype(np.float32)


def whitened_neighbours(windows: MixtureWindows, describe: Callable[[NDArray], Array]) -> Neighbours:
    """Return training windows as a table to look up, in a metric that makes each mixture equally wide in all ways."""
    features = describe(windows.counts)
    _, which = np.unique(np.round(windows.ratios, 4), axis=0, return_inverse=True)
    return Neighbours.fit(features, windows.ratios, metric=whitening(features, which.ravel()))


def grow_forest(features: NDArray, ratios: NDArray, *, trees: int = 100, leaf: int = 20, seed: int = 0) -> Forest:
    """Grow `trees` that tell mixtures apart; a leaf holds at least `leaf` windows, so that none is sure of much."""
    from sklearn.ensemble import ExtraTreesClassifier

    mixtures, target = np.unique(np.round(ratios, 4), axis=0, return_inverse=True)
    leaf = max(1, min(leaf, len(features) // 20))
    model = ExtraTreesClassifier(trees, min_samples_leaf=leaf, max_features=None, random_state=seed, n_jobs=1)
    grown = [one.tree_ for one in model.fit(features, target.ravel()).estimators_]
    sizes = [tree.node_count for tree in grown]
    roots = np.cumsum([0, *sizes])[:-1]
    inner = np.concatenate([tree.children_left for tree in grown]) >= 0

    def joined(of: Callable[[Any], NDArray]) -> NDArray:
        return np.concatenate([of(tree) for tree in grown])

    def branch(of: Callable[[Any], NDArray]) -> NDArray[np.int32]:
        return np.where(inner, joined(of) + np.repeat(roots, sizes), -1).astype(np.int32)

    counts = joined(lambda tree: tree.value[:, 0])  # (nodes, mixtures)
    return Forest(
        feature=np.where(inner, joined(lambda tree: tree.feature), -1).astype(np.int16),
        threshold=joined(lambda tree: tree.threshold).astype(np.float32),
        left=branch(lambda tree: tree.children_left),
        right=branch(lambda tree: tree.children_right),
        value=(counts / counts.sum(axis=1, keepdims=True) @ mixtures).astype(np.float16),
        roots=roots.astype(np.int32),
    )


def session_edge(windows: MixtureWindows, real: NDArray, *, folds: int = 5, seed: int = 0) -> NDArray[np.float64]:
    """(offset, slope) of the logistic curve that tells known sessions from unknown ones by log distance."""
    known, days = (
        known_distances(windows, real, folds=folds, seed=seed),
        groups(windows.index, "day")[windows.recording],
    )
    away = [_log_distances(windows, days != day, (days == day) & real) for day in np.unique(days[real])]
    unknown = np.concatenate([np.empty(0), *away])  # real recordings, from the windows of all other days
    if not len(known):
        return np.array([0.0, -1.0])
    if not len(unknown):
        return np.array([8.0 * np.quantile(known, 0.95), -8.0])
    from sklearn.linear_model import LogisticRegression

    target = np.repeat([1, 0], [len(known), len(unknown)])
    curve = LogisticRegression(class_weight="balanced").fit(np.concatenate([known, unknown])[:, None], target)
    return np.array([curve.intercept_[0], min(curve.coef_[0, 0], -1e-3)])


def known_distances(windows: MixtureWindows, real: NDArray, *, folds: int, seed: int) -> NDArray:
    """Return log distances of held-out real recordings, with others of their mixture and day in the table.

    Where hardly a mixture was recorded twice a day, every second window of all recordings is held out instead.
    """
    rows, kinds = windows.recording, _mixture_and_day(windows)
    names, number = np.unique(groups(windows.index, "recording"), return_inverse=True)
    part = np.random.default_rng(seed).permutation(len(names)).argsort()[number] % folds
    there = np.isin(np.arange(len(part)), rows)
    distances = [np.empty(0)]
    for i in range(min(folds, len(names))):
        asked = (part == i) & np.isin(kinds, kinds[(part != i) & there])
        distances.append(_log_distances(windows, (part != i)[rows], asked[rows] & real))
    if sum(map(len, distances)) >= MANY:
        return np.concatenate(distances)
    odd = np.arange(len(windows)) % 2 == 1
    return _log_distances(windows, ~odd, odd)


def _log_distances(windows: MixtureWindows, table: NDArray, asked: NDArray) -> NDArray:
    """Log distances of the windows `asked` from the windows `table` (masks), averaged over each recording."""
    if not asked.any() or table.sum() < 5:
        return np.empty(0)
    known = whitened_neighbours(windows[table], mixture.log_levels)
    distance = known.votes(mixture.log_levels(windows.counts[asked]))[1]
    which = np.unique(windows.recording[asked], return_inverse=True)[1]
    return mixture.recording_means(np.log(distance + 1e-6), which)


def _mixture_and_day(windows: MixtureWindows) -> NDArray:
    """The mixture and the day of each recording, as one text."""
    return np.strings.add(labels(windows.index) + " ", groups(windows.index, "day"))


def fit_classifier(windows: MixtureWindows, mixtures: NDArray, *, seed: int = 0) -> MixtureClassifier:
    """Train on windows of known `mixtures` (k, 12): soft labels, one cycle of the learning rate, nothing held out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = torch.from_numpy(summary(windows.counts))
        target = torch.from_numpy(np.abs(windows.ratios[:, None] - mixtures).sum(axis=2).argmin(axis=1))
        network = MixtureClassifier(len(mixtures))
        network.mean.copy_(x.mean(0))
        network.scale.copy_(x.std(0).clamp(min=1e-6))
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
        steps = EPOCHS * -(-len(x) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x)).split(BATCH):
                logits = network({"summary": x[rows]})["logits"]
                loss = F.cross_entropy(logits, target[rows], label_smoothing=SOFT)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return network.eval()


def save_hybrid(model: Hybrid, folder: Path, *, extra: dict | None = None, about: dict | None = None) -> Path:
    """Write `model` (and `extra` tensors beside it) as weights of kind "mixture"."""
    manifest = {"kind": "mixture", "odorants": list(ODORANTS), "rate_hz": 10, "window": LENGTH, **(about or {})}
    return checkpoint.save(folder, {**tensors_of(model), **(extra or {})}, manifest)


def tensors_of(thing: Any, prefix: str = "") -> dict[str, Tensor]:
    """All arrays and numbers of a dataclass by name; those of its parts as `part.name`."""
    tensors: dict[str, Tensor] = {}
    for field in fields(thing):
        value, name = getattr(thing, field.name), f"{prefix}{field.name}"
        inner = is_dataclass(value)
        tensors |= tensors_of(value, f"{name}.") if inner else {name: torch.from_numpy(np.array(value))}
    return tensors
