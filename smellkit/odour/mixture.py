"""Two ways from a window to its mixture, and a hybrid that knows which of them to trust.

    counts (n, 100, 4) --+-- Neighbours: which known mixture is this?     --+-- near a known window? --> ratios (n, 12)
                         +-- Forest: what is in it, never mind its label  --+

Within a session a window lies beside others of its own mixture, and to look it up is hard to beat. On another day it
lies beside nothing, and then the mean over what is plausible is the honest answer. All of a model is arrays, so that it
is kept as safetensors; scikit-learn grows the trees and is not needed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smellkit.errors import DataError
from smellkit.odour.mixture_task import Windows, groups, label, log_conductance
from smellkit.odour.scents import ODORANTS

Array = NDArray[np.float32]
MANY, MINORITY = 10, 0.2  # an eighth of the recordings of a left-out day lie near a known one by chance
EDGE = 25  # steps at each end of a window whose difference is its slope


def levels(counts: NDArray) -> Array:
    """Return the mean count of each sensor, (n, 4)."""
    return np.asarray(counts, np.float32).mean(axis=1)


def log_levels(counts: NDArray) -> Array:
    """Return mean log-conductance, (n, 4)."""
    return log_conductance(counts).mean(axis=1)


def level_and_slope(counts: NDArray) -> Array:
    """Return mean log-conductance and its change from the first to the last quarter of the window, (n, 8)."""
    logs = log_conductance(counts)
    return np.concatenate([logs.mean(axis=1), logs[:, -EDGE:].mean(axis=1) - logs[:, :EDGE].mean(axis=1)], axis=1)


def within(features: NDArray, of: NDArray, *, shrink: float = 0.1) -> Array:
    """Return a matrix (d, d) that makes the scatter of `features` (n, d) inside the groups `of` equal in all ways."""
    _, which = np.unique(of, return_inverse=True)
    sums = np.zeros((which.max() + 1, features.shape[1]))
    np.add.at(sums, which, features)
    centred = features - (sums / np.bincount(which)[:, None])[which]
    scatter = centred.T @ centred / max(len(features) - 1, 1)
    scatter = (1 - shrink) * scatter + shrink * np.diag(np.diag(scatter))
    size, axes = np.linalg.eigh(scatter)
    return (axes / np.sqrt(np.maximum(size, 1e-9 * max(size.max(), 1e-9)))).astype(np.float32)


@dataclass(frozen=True)
class Neighbours:
    """Known windows and their mixtures: a window is judged by those that lie nearest to it."""

    features: Array  # (n, d), already in the metric
    label: NDArray[np.int32]  # (n,), row of `mixtures`
    mixtures: Array  # (m, 12)
    metric: Array  # (d, d)
    k: int = 15

    @classmethod
    def fit(cls, features: NDArray, ratios: NDArray, *, metric: Array, k: int = 15) -> Neighbours:
        """Keep `features` (n, d) and their `ratios` (n, 12)."""
        mixtures, label = np.unique(np.round(ratios, 4), axis=0, return_inverse=True)
        own = label.ravel().astype(np.int32)
        return cls((features @ metric).astype(np.float32), own, mixtures.astype(np.float32), metric, k)

    def look(self, features: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each known mixture's share of votes, (n, m), and the mean distance to the 5 nearest windows, (n,)."""
        from scipy.spatial import cKDTree

        k = min(self.k, len(self.features))
        far, near = cKDTree(self.features).query(np.asarray(features, np.float32) @ self.metric, k=[*range(1, k + 1)])
        votes = np.zeros((len(far), len(self.mixtures)))
        np.add.at(votes, (np.arange(len(far))[:, None], self.label[near]), 1 / (far + 1e-3))
        return votes / votes.sum(axis=1, keepdims=True), far[:, :5].mean(axis=1)

    def best(self, votes: NDArray) -> Array:
        """Return for each row of votes (n, m) the known mixture that is expected to score best, (n, 12).

        Best is the sum of both published scores, components within 0.1 and dynamic top-k: neither is traded for the
        other, and the answer is always a mixture that exists.
        """
        from smellkit.odour.mixture_scores import dynamic_top_k
        from smellkit.odour.mixture_scores import within as close

        m = len(self.mixtures)
        said, real = np.repeat(self.mixtures, m, axis=0), np.tile(self.mixtures, (m, 1))
        gain = (close(said, real) + dynamic_top_k(said, real)).reshape(m, m)
        return self.mixtures[(votes @ gain.T).argmax(axis=1)]


@dataclass(frozen=True)
class Forest:
    """Extremely randomised trees as arrays: each leaf holds the mean ratios of the windows that fell into it."""

    feature: NDArray[np.int16]  # (nodes,), -1 at a leaf
    threshold: Array  # (nodes,), go left when not above it
    left: NDArray[np.int32]  # (nodes,)
    right: NDArray[np.int32]  # (nodes,)
    value: NDArray[np.float16]  # (nodes, 12)
    roots: NDArray[np.int32]  # (trees,)

    @classmethod
    def fit(cls, features: NDArray, ratios: NDArray, *, trees: int = 100, leaf: int = 20, seed: int = 0) -> Forest:
        """Grow `trees` that tell mixtures apart; a leaf holds at least `leaf` windows, so that none is sure of much."""
        from sklearn.ensemble import ExtraTreesClassifier

        mixtures, label = np.unique(np.round(ratios, 4), axis=0, return_inverse=True)
        leaf = max(1, min(leaf, len(features) // 20))
        model = ExtraTreesClassifier(trees, min_samples_leaf=leaf, max_features=None, random_state=seed, n_jobs=1)
        model.fit(features, label.ravel())
        parts: dict[str, list[NDArray]] = {name: [] for name in ("feature", "threshold", "left", "right", "value")}
        roots, offset = [], 0
        for one in model.estimators_:
            tree = one.tree_
            inner = tree.children_left >= 0
            share = tree.value[:, 0] / tree.value[:, 0].sum(axis=1, keepdims=True)
            parts["feature"].append(np.where(inner, tree.feature, -1))
            parts["threshold"].append(tree.threshold)
            parts["left"].append(np.where(inner, tree.children_left + offset, -1))
            parts["right"].append(np.where(inner, tree.children_right + offset, -1))
            parts["value"].append(share @ mixtures)
            roots.append(offset)
            offset += tree.node_count
        kinds = (np.int16, np.float32, np.int32, np.int32, np.float16)
        arrays: dict[str, Any] = {
            name: np.concatenate(part).astype(kind) for (name, part), kind in zip(parts.items(), kinds, strict=True)
        }
        return cls(**arrays, roots=np.array(roots, np.int32))

    def predict(self, features: NDArray) -> Array:
        """Return the mean ratios over all trees, (n, 12): the posterior mean."""
        features = np.asarray(features, np.float32)
        total, rows = np.zeros((len(features), self.value.shape[1])), np.arange(len(features))
        for root in self.roots:
            node = np.full(len(features), root)
            while (inner := self.feature[node] >= 0).any():
                at, on = node[inner], rows[inner]
                right = features[on, self.feature[at]] > self.threshold[at]
                node[inner] = np.where(right, self.right[at], self.left[at])
            total += self.value[node]
        return (total / len(self.roots)).astype(np.float32)


@dataclass(frozen=True)
class Hybrid:
    """Looks a window up when its recording belongs to a known session, and otherwise says what is plausible.

    Whether the session is known shows in the distance of a recording from all known windows. `edge` is a logistic curve
    over its logarithm, (offset, slope), measured by leaving out recordings (session known) and whole days (unknown).
    """

    known: Neighbours  # on counts: finds the mixture
    session: Neighbours  # on log-conductance: finds out whether the session is known
    forest: Forest
    edge: tuple[float, float]
    today: Array  # (8, 8), metric of level and slope within a day: for references made in an unknown session

    @classmethod
    def fit(cls, windows: Windows, *, trees: int = 100, leaf: int = 20, k: int = 15, seed: int = 0) -> Hybrid:
        """Fit all parts and the edge on training windows. The forest grows on real recordings where there are any."""
        real = windows.column("kind") == "real"
        real = real if real.any() else np.ones(len(windows), bool)
        shapes = level_and_slope(windows.counts[real])
        forest = Forest.fit(shapes, windows.ratios[real], trees=trees, leaf=leaf, seed=seed)
        known, session = look_up(windows, levels, k=k), look_up(windows, log_levels)
        of = [
            f"{label(r)} {day}"
            for r, day in zip(windows.index[list(ODORANTS)].to_numpy(), groups(windows.index, "day"), strict=True)
        ]
        today = within(shapes, np.array(of)[windows.recording[real]], shrink=0.05)
        return cls(known, session, forest, session_edge(windows, real, seed=seed), today)

    def predict(self, counts: NDArray, *, recording: NDArray | None = None) -> Array:
        """Return ratios (n, 12) of windows of counts (n, 100, 4); see `explain`."""
        return self.explain(counts, recording=recording)["ratios"]

    def explain(self, counts: NDArray, *, recording: NDArray | None = None) -> dict[str, NDArray]:
        """Return "ratios" (n, 12), the "looked_up" and the "plausible" ones, and "familiar" (n,), 0 to 1.

        `recording` (n,) says which windows belong together; without it each is judged alone. Recordings that are
        predicted together also tell how common known sessions are among them.
        """
        if not len(counts):
            raise DataError("No window to predict", hint="recordings of at least 100 steps (10 s at 10 Hz)")
        recording = np.arange(len(counts)) if recording is None else np.asarray(recording)
        votes, _ = self.known.look(levels(counts))
        found, plausible = self.known.best(votes), self.forest.predict(level_and_slope(counts))
        names, which = np.unique(recording, return_inverse=True)
        far = self.session.look(log_levels(counts))[1]
        odds = self.edge[0] + self.edge[1] * _mean(np.log(far + 1e-6), which)
        familiar = shared_prior(odds)[which]
        ratios = np.where(familiar[:, None] >= 0.5, found, plausible)
        return {"ratios": ratios, "looked_up": found, "plausible": plausible, "familiar": familiar}

    def tensors(self) -> dict[str, NDArray]:
        """Return all arrays of the model by name."""
        arrays: dict[str, NDArray] = {"edge": np.array(self.edge, np.float64), "today": self.today}
        for part, names in _ARRAYS.items():
            arrays |= {f"{part}.{name}": np.asarray(getattr(getattr(self, part), name)) for name in names}
        return arrays

    @classmethod
    def from_tensors(cls, tensors: dict[str, Any]) -> Hybrid:
        """Rebuild the model from its arrays; a DataError names one that is missing."""
        needed = [f"{part}.{name}" for part, names in _ARRAYS.items() for name in names] + ["edge", "today"]
        lost = [name for name in needed if name not in tensors]
        if lost:
            raise DataError(
                f"No mixture model: {', '.join(lost[:5])} missing", hint="choose weights of a mixture model"
            )
        got: dict[str, Any] = {name: np.asarray(tensors[name]) for name in needed}

        def part(name: str) -> dict[str, Any]:
            return {inner: got[f"{name}.{inner}"] for inner in _ARRAYS[name]}

        known, session = (Neighbours(**{**part(name), "k": int(part(name)["k"])}) for name in ("known", "session"))
        return cls(
            known, session, Forest(**part("forest")), (float(got["edge"][0]), float(got["edge"][1])), got["today"]
        )


_TABLE = ("features", "label", "mixtures", "metric", "k")
_ARRAYS = {"known": _TABLE, "session": _TABLE, "forest": ("feature", "threshold", "left", "right", "value", "roots")}


def look_up(windows: Windows, describe: Callable[[NDArray], Array], *, k: int = 15) -> Neighbours:
    """Return training windows as a table to look up, in a metric that makes each mixture equally wide in all ways."""
    features = describe(windows.counts)
    _, label = np.unique(np.round(windows.ratios, 4), axis=0, return_inverse=True)
    return Neighbours.fit(features, windows.ratios, metric=within(features, label.ravel()), k=k)


def shared_prior(odds: NDArray, *, rounds: int = 30) -> NDArray[np.float64]:
    """Return probabilities (n,) from log odds (n,) under the prior that fits them best, shared by all of them.

    Expectation-maximisation over the share of ones (Saerens et al. 2002), with one pseudo-count on either side, so that
    a single recording is judged by its own odds. Among `MANY` a small minority is taken for coincidence.
    """
    share = 0.5
    for _ in range(rounds):
        sure = 1 / (1 + np.exp(-np.clip(odds + np.log(share / (1 - share)), -50, 50)))
        share = (sure.sum() + 1) / (len(odds) + 2)
    if len(odds) >= MANY and (share < MINORITY or share > 1 - MINORITY):
        return np.full(len(odds), share)
    return sure


def session_edge(windows: Windows, real: NDArray, *, folds: int = 5, seed: int = 0) -> tuple[float, float]:
    """Return (offset, slope) of the logistic curve that tells known sessions from unknown ones by log distance.

    Distances of held-out real recordings: with others of their mixture and day in the table, and with their day left
    out. Where hardly a mixture was recorded twice a day, every second window of all recordings is held out instead.
    Where there is one day only, the edge lies beyond 95 % of the first kind.
    """
    of, days = groups(windows.index, "recording"), groups(windows.index, "day")
    names = np.random.default_rng(seed).permutation(np.unique(of))
    fold = {name: i % folds for i, name in enumerate(names)}
    part = np.array([fold[name] for name in of])
    kinds = [f"{label(row)} {day}" for row, day in zip(windows.index[list(ODORANTS)].to_numpy(), days, strict=True)]
    near = []
    for i in range(min(folds, len(names))):
        twin = np.isin(kinds, np.array(kinds)[(part != i) & np.isin(np.arange(len(of)), windows.recording)])
        near.append(_far(windows, part != i, (part == i) & twin, real))
    some = np.unique(days[windows.recording[real]])
    far = [_far(windows, days != day, days == day, real) for day in some if (days != day).any()]
    known, new = np.concatenate([np.empty(0), *near]), np.concatenate([np.empty(0), *far])
    if len(known) < MANY:
        known = _every_second(windows)
    if not len(known):
        return 0.0, -1.0
    if not len(new):
        return 8.0 * float(np.quantile(known, 0.95)), -8.0
    from sklearn.linear_model import LogisticRegression

    y = np.repeat([1, 0], [len(known), len(new)])
    fitted = LogisticRegression(class_weight="balanced").fit(np.concatenate([known, new])[:, None], y)
    return float(fitted.intercept_[0]), float(min(fitted.coef_[0, 0], -1e-3))


def _far(windows: Windows, table: NDArray, asked: NDArray, real: NDArray) -> NDArray:
    """Log distances of the real recordings `asked` from the windows of the recordings `table` (masks), one each."""
    rows = np.flatnonzero(asked[windows.recording] & real)
    kept = windows.of(table)
    if not len(rows) or len(kept) < 5:
        return np.empty(0)
    far = look_up(kept, log_levels).look(log_levels(windows.counts[rows]))[1]
    return _mean(np.log(far + 1e-6), np.unique(windows.recording[rows], return_inverse=True)[1])


def _every_second(windows: Windows) -> NDArray:
    """Log distances of every second window from the others, one a recording."""
    odd = np.arange(len(windows)) % 2 == 1
    if odd.sum() < 5:
        return np.empty(0)
    features, ratios = log_levels(windows.counts), windows.ratios
    of = np.unique(np.round(ratios[~odd], 4), axis=0, return_inverse=True)[1].ravel()
    table = Neighbours.fit(features[~odd], ratios[~odd], metric=within(features[~odd], of))
    far = table.look(features[odd])[1]
    return _mean(np.log(far + 1e-6), np.unique(windows.recording[odd], return_inverse=True)[1])


def _mean(values: NDArray, which: NDArray) -> NDArray[np.float64]:
    return np.bincount(which, values) / np.bincount(which)
