"""How sure is sure: a temperature, and when to say nothing. Functions of probabilities alone.

Probabilities are (rows, classes); targets and groups are (rows,). Rows that belong to one recording share a group.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, log_softmax, softmax

from smellkit.errors import DataError

ABSTAIN = -1


@dataclass(frozen=True)
class Thresholds:
    """When an answer counts: the lead of the first over the second at least `margin`, the entropy at most `entropy`.

    Entropy is a share of the largest possible, from 0 (certain) to 1 (flat). The defaults let everything pass.
    """

    margin: float = 0.0
    entropy: float = 1.0


@dataclass(frozen=True)
class Confidence:
    """How sure to be, learnt on held-out recordings; `asdict` goes into a manifest, `Confidence.of` comes back."""

    temperature: float = 1.0
    quantile: float = 1.0  # of conformal scores: a prediction set adds up to at least this much probability
    thresholds: Thresholds = Thresholds()
    level: float = 0.9  # the share of rows whose set is to hold the truth
    category_temperature: float = 1.0
    category_least: float = 1.0  # probability above which a category is named where no class is
    pooling: float = 0.0  # the temperature of mean scores over n windows is that of one, divided by n ** pooling

    def __post_init__(self):
        if not min(self.temperature, self.category_temperature) > 0:
            raise ValueError(f"temperatures of {self.temperature} and {self.category_temperature}")

    @classmethod
    def of(cls, values: dict) -> Confidence:
        """From the dict that `asdict` made."""
        return cls(**{**values, "thresholds": Thresholds(**values.get("thresholds", {}))})

    def asdict(self) -> dict:
        """Plain numbers for a manifest."""
        return asdict(self)

    def calibrated(self, scores: ArrayLike, windows: ArrayLike = 1) -> NDArray[np.float64]:
        """Probabilities of log-probabilities (..., classes), each the mean over so many `windows`, (...)."""
        sharper = np.asarray(windows, np.float64)[..., None] ** self.pooling
        return softmax(np.asarray(scores, np.float64) * sharper / self.temperature, axis=-1)


def fit_temperature(scores: ArrayLike, target: ArrayLike) -> float:
    """The temperature T at which softmax(scores / T) gives the target the largest likelihood.

    Source: Guo et al., arXiv 1706.04599, section 4.2. Between 0.05 and 20.
    """
    from scipy.optimize import minimize_scalar

    scores, target = np.asarray(scores, np.float64), np.asarray(target)[:, None]
    if not len(target):
        raise DataError("No rows to calibrate on", hint="hold out at least one recording a substance")

    def nll(log_temperature: float) -> float:
        chosen = np.take_along_axis(log_softmax(scores / np.exp(log_temperature), axis=-1), target, 1)
        return float(-chosen.clip(np.log(1e-12)).mean())

    best = minimize_scalar(nll, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(best.x))


def margin(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Lead of the likeliest class over the second, (rows,)."""
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.shape[-1] < 2:
        return np.ones(probabilities.shape[:-1])
    top = np.partition(probabilities, -2, axis=-1)
    return top[..., -1] - top[..., -2]


def entropy(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Entropy as a share of the largest possible, (rows,): 0 is certain, 1 is flat."""
    probabilities = np.asarray(probabilities, np.float64)
    return entr(probabilities).sum(-1) / np.log(max(probabilities.shape[-1], 2))


def decide(probabilities: ArrayLike, thresholds: Thresholds = Thresholds()) -> NDArray[np.int64]:
    """The likeliest class of each row, or `ABSTAIN` (-1) where the distribution is too flat to act upon."""
    probabilities = np.asarray(probabilities, np.float64)
    sure = (margin(probabilities) >= thresholds.margin) & (entropy(probabilities) <= thresholds.entropy + 1e-12)
    sure &= np.isfinite(probabilities).all(-1)
    return np.where(sure, probabilities.argmax(-1), ABSTAIN)


def prediction_sets(probabilities: ArrayLike, quantile: float) -> NDArray[np.bool_]:
    """Which classes are in each row's set, (rows, classes): the likeliest up to `quantile`, and always the first."""
    probabilities = np.asarray(probabilities, np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, 1)
    inside = np.cumsum(ranked, 1) - 0.5 * ranked <= quantile
    inside[:, 0] = True
    return np.take_along_axis(inside, order.argsort(axis=1), 1)
