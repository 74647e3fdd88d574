"""What is in the air and how much of each: a network over odour channels, and a hybrid of look-up and posterior mean.

    counts (n, 100, 4) ----- MixtureClassifier: z (50) -> AlphaSum -> odour vector (128) -------> known mixtures (n, k)

    counts (n, 100, 4) --+-- Neighbours: which known mixture is this?           --+-- known session? --> ratios (n, 12)
                         +-- Forest: posterior mean, regardless of the mixture  --+

Within a session a window lies beside others of its own mixture, and to look it up is hard to beat. On another day it
lies beside nothing, and then the mean over what is plausible is the honest answer. All of the hybrid is arrays, so that
it is kept as safetensors; scikit-learn grows the trees (`study.odour.hybrid`) and is not needed afterwards.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import expit
from torch import Tensor, nn

from smellkit.errors import DataError
from smellkit.odour.windows import log_conductance
from smellkit.task import Batch

Array = NDArray[np.float32]
FloatArray = NDArray[np.float64]
MANY, MINORITY = 10, 0.2  # an eighth of the recordings of a left-out day lie near a known one by chance
EDGE = 25  # steps at each end of a window whose difference is its slope
ROUNDING = 1e-6  # 0.3 - 0.2 is not quite 0.1 in binary
PAIRS = tuple(itertools.combinations(range(4), 2))


def mixture_conductance(counts: NDArray) -> Array:
    """Log-conductance with counts clipped to 1 ... 1022: what all models of mixtures are made for."""
    return log_conductance(counts, offset=0.0, least=1.0)


def levels(counts: NDArray) -> Array:
    """Return the mean count of each sensor, (n, 4)."""
    return np.asarray(counts, np.float32).mean(axis=1)


def log_levels(counts: NDArray) -> Array:
    """Return mean log-conductance, (n, 4)."""
    return mixture_conductance(counts).mean(axis=1)


def level_and_slope(counts: NDArray) -> Array:
    """Return mean log-conductance and its change from the first to the last quarter of the window, (n, 8)."""
    logs = mixture_conductance(counts)
    return np.concatenate([logs.mean(axis=1), logs[:, -EDGE:].mean(axis=1) - logs[:, :EDGE].mean(axis=1)], axis=1)


def summary(counts: NDArray) -> Array:
    """Level, spread and drift of four sensors, and how they stand to each other, for windows (n, steps, 4): (n, 26)."""
    counts = np.asarray(counts, np.float32)
    logs = level_and_slope(counts)
    ratios = np.stack([logs[:, first] - logs[:, second] for first, second in PAIRS], axis=1)
    return np.concatenate([levels(counts), logs, counts.std(axis=1), ratios, np.median(counts, axis=1)], axis=1)


def within_tolerance(predicted: ArrayLike, truth: ArrayLike, *, tolerance: float = 0.1) -> FloatArray:
    """Per window, the share of truly present components whose predicted ratio is within `tolerance` (Top-1@0.1)."""
    predicted, truth = _pair(predicted, truth)
    present = truth > 0
    close = np.abs(predicted - truth) <= tolerance + ROUNDING
    return (close & present).sum(axis=1) / present.sum(axis=1)


def dynamic_top_k(predicted: ArrayLike, truth: ArrayLike) -> FloatArray:
    """Per window with k components, the share of them among the k largest predictions; the lower number wins a tie."""
    predicted, truth = _pair(predicted, truth)
    present = truth > 0
    rank = np.argsort(-predicted, axis=1, kind="stable").argsort(axis=1)
    count = present.sum(axis=1)
    return ((rank < count[:, None]) & present).sum(axis=1) / count


def _pair(predicted: ArrayLike, truth: ArrayLike) -> tuple[FloatArray, FloatArray]:
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape or predicted.ndim != 2 or not len(truth):
        raise ValueError(f"predicted {predicted.shape} and true {truth.shape} ratios; both must be (windows, 12)")
    return predicted, truth


class AlphaSum(nn.Module):
    """Blend the encoder's odour channels into one odour vector.

        z (batch, 50) --- alpha (50, dim): one learned direction a channel ---> sum_i z_i * alpha_i  (batch, dim)

    `weights()` gives what each channel contributes, for the plots.
    """

    def __init__(self, channels: int = 50, dim: int = 256):
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(channels, dim) / channels**0.5)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.alpha  # (batch, 50) @ (50, dim) -> (batch, dim): the sum over channels is the matrix product

    def weights(self) -> Tensor:
        """Length of each channel's direction, (50,): how loudly it is heard."""
        return self.alpha.detach().norm(dim=1)


class MixtureClassifier(nn.Module):
    """Which known mixture is this? "summary" (batch, 26) to "z" (batch, 50), "odour" (batch, 128), "logits" (batch, k).

    A small network beside the look-up, whose errors are others.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mixtures: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(26))
        self.register_buffer("scale", torch.ones(26))
        widen = (nn.Linear(26, 256), nn.LayerNorm(256), nn.GELU(), nn.Dropout(0.2))
        self.channels = nn.Sequential(*widen, nn.Linear(256, 50), nn.Tanh())
        self.alpha = AlphaSum(50, 128)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(128, mixtures))

    def forward(self, batch: Batch) -> Batch:
        x = (batch["summary"] - self.mean) / self.scale  # (batch, 26)
        if self.training:
            x = x + 0.03 * torch.randn_like(x)
        z = self.channels(x)  # (batch, 50), each channel from -1 to 1
        odour = self.alpha(z)  # (batch, 128): the sum of the channels' directions
        return {"z": z, "odour": odour, "logits": self.head(odour)}

    @torch.no_grad()
    def votes(self, counts: NDArray) -> FloatArray:
        """Probability of each known mixture for windows of counts (n, 100, 4), (n, k)."""
        return self({"summary": torch.from_numpy(summary(counts))})["logits"].softmax(dim=1).double().numpy()


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
        own = np.asarray(label.ravel(), np.int32)
        return cls((features @ metric).astype(np.float32), own, mixtures.astype(np.float32), metric, k)

    @functools.cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.features)

    def votes(self, features: NDArray) -> tuple[FloatArray, FloatArray]:
        """Return each known mixture's share of votes, (n, m), and the mean distance to the 5 nearest windows, (n,)."""
        ranks = range(1, min(int(self.k), len(self.features)) + 1)
        distance, near = self._tree.query(np.asarray(features, np.float32) @ self.metric, k=[*ranks])
        votes = np.zeros((len(distance), len(self.mixtures)))
        # (n, k) neighbours vote for their mixture, the nearer the louder
        np.add.at(votes, (np.arange(len(distance))[:, None], self.label[near]), 1 / (distance + 1e-3))
        return votes / votes.sum(axis=1, keepdims=True), distance[:, :5].mean(axis=1)

    def votes_on(self, table: NDArray, features: NDArray) -> FloatArray:
        """Return the votes for the rows of a larger `table` of mixtures (k, 12), (n, k)."""
        votes = np.zeros((len(features), len(table)))
        votes[:, cdist(self.mixtures, table, "cityblock").argmin(axis=1)] = self.votes(features)[0]
        return votes

    def predict(self, features: NDArray) -> Array:
        """Return ratios (n, 12): of the known mixtures the one that is expected to score best by the votes.

        Best is the sum of both published scores, components within 0.1 and dynamic top-k: neither is traded for the
        other, and the answer is always a mixture that exists.
        """
        return self.mixtures[(self.votes(features)[0] @ self._gain.T).argmax(axis=1)]  # gain of each answer, (n, m)

    @functools.cached_property
    def _gain(self) -> FloatArray:
        """What each known mixture scores where each other is true, (m, m)."""
        m = len(self.mixtures)
        predicted, truth = np.repeat(self.mixtures, m, axis=0), np.tile(self.mixtures, (m, 1))  # all pairs, (m * m, 12)
        return (within_tolerance(predicted, truth) + dynamic_top_k(predicted, truth)).reshape(m, m)


@dataclass(frozen=True)
class Forest:
    """Extremely randomised trees as arrays: each leaf holds the mean ratios of the windows that fell into it."""

    feature: NDArray[np.int16]  # (nodes,), -1 at a leaf
    threshold: Array  # (nodes,), go left when not above it
    left: NDArray[np.int32]  # (nodes,)
    right: NDArray[np.int32]  # (nodes,)
    value: NDArray[np.float16]  # (nodes, 12)
    roots: NDArray[np.int32]  # (trees,)

    def predict(self, features: NDArray) -> Array:
        """Return the mean ratios over all trees, (n, 12): the posterior mean."""
        features = np.asarray(features, np.float32)
        node = np.tile(self.roots, (len(features), 1))  # where each window stands in each tree, (n, trees)
        while (inner := self.feature[node] >= 0).any():  # one level down at a time, until all stand on leaves
            at, (row, _) = node[inner], np.nonzero(inner)
            right = features[row, self.feature[at]] > self.threshold[at]
            node[inner] = np.where(right, self.right[at], self.left[at])
        total = np.zeros((len(features), self.value.shape[1]))
        for tree in node.T:  # in the order of the trees, so that sums round as they did
            total += self.value[tree]
        return (total / len(self.roots)).astype(np.float32)


@dataclass(frozen=True)
class Hybrid:
    """Looks a window up when its recording lies near known windows, and otherwise gives the posterior mean."""

    known: Neighbours  # on counts: finds the mixture
    session: Neighbours  # on log-conductance: finds out whether the session is known
    forest: Forest
    edge: FloatArray  # (offset, slope) of a logistic curve over its logarithm, from left-out recordings and days
    within_day: Array  # (8, 8), metric of level and slope within a day: for references made in an unknown session

    def explain(self, counts: NDArray, *, recording: NDArray) -> dict[str, NDArray]:
        """Return "ratios" (n, 12) of windows of counts (n, 100, 4), and what they were chosen from.

        That is "neighbours" (n, 12), "posterior_mean" (n, 12) and "p_known_session" (n,), 0 to 1. `recording` (n,) says
        which windows belong together. Recordings that are predicted together also tell how common known sessions are.
        """
        if not len(counts):
            raise DataError("No window to predict", hint="recordings of at least 100 steps (10 s at 10 Hz)")
        neighbours = self.known.predict(levels(counts))  # (n, 4) -> (n, 12)
        posterior_mean = self.forest.predict(level_and_slope(counts))  # (n, 8) -> (n, 12)
        _, which = np.unique(recording, return_inverse=True)
        distance = self.session.votes(log_levels(counts))[1]  # (n,)
        odds = self.edge[0] + self.edge[1] * recording_means(np.log(distance + 1e-6), which)  # (recordings,)
        p_known_session = shared_prior(odds)[which]  # (n,)
        return {
            "ratios": np.where(p_known_session[:, None] >= 0.5, neighbours, posterior_mean),
            "neighbours": neighbours,
            "posterior_mean": posterior_mean,
            "p_known_session": p_known_session,
        }


def shared_prior(odds: NDArray, *, rounds: int = 30) -> FloatArray:
    """Return probabilities (n,) from log odds (n,) under the prior that fits them best, shared by all of them.

    Expectation-maximisation over the share of ones (Saerens et al. 2002), with one pseudo-count on either side, so that
    a single recording is judged by its own odds. Among `MANY` a small minority is taken for coincidence.
    """
    share = 0.5
    for _ in range(rounds):
        probability = expit(odds + np.log(share / (1 - share)))
        share = (probability.sum() + 1) / (len(odds) + 2)
    if len(odds) >= MANY and (share < MINORITY or share > 1 - MINORITY):
        return np.full(len(odds), share)
    return probability


def recording_means(values: NDArray, which: NDArray) -> FloatArray:
    """Return the mean of `values` (n,) over the windows of each recording `which` (n,), 0, 1, ..."""
    return np.bincount(which, values) / np.bincount(which)
