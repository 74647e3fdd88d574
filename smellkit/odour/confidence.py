"""How sure is sure: temperature, prediction sets, and when to say nothing. Functions of probabilities alone.

Probabilities are (rows, classes); targets and groups are (rows,). Rows that belong to one recording share a group.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

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
    """How sure to be, learnt on held-out recordings; `asdict` goes into a manifest and `Confidence.of` comes back from it."""

    temperature: float = 1.0
    quantile: float = 1.0  # of conformal scores: a prediction set adds up to at least this much probability
    thresholds: Thresholds = Thresholds()
    level: float = 0.9  # the share of rows whose set is to hold the truth

    @classmethod
    def of(cls, values: dict) -> Confidence:
        """From the dict that `asdict` made."""
        return cls(**{**values, "thresholds": Thresholds(**values.get("thresholds", {}))})

    def asdict(self) -> dict:
        """Plain numbers for a manifest."""
        return asdict(self)


def calibrate(
    scores: ArrayLike, target: ArrayLike, groups: ArrayLike, *, level: float = 0.9, precision: float = 0.75
) -> Confidence:
    """Learn temperature, prediction sets and abstention from `scores` (rows, classes) of recordings not trained on.

    `scores` are logits or log-probabilities. Abstention is set so that what is still answered is right with
    `precision`, as often as that can be had (see `abstention`).
    """
    scores = np.asarray(scores, np.float64)
    temperature = fit_temperature(scores, target)
    probabilities = softmax(scores / temperature, axis=-1)
    return Confidence(
        temperature=temperature,
        quantile=conformal_quantile(probabilities, target, groups, level=level),
        thresholds=abstention(probabilities, target, precision=precision),
        level=level,
    )


def fit_temperature(scores: ArrayLike, target: ArrayLike) -> float:
    """The temperature T at which softmax(scores / T) gives the target the largest likelihood.

    Source: Guo et al., arXiv 1706.04599, section 4.2. Between 0.05 and 20.
    """
    from scipy.optimize import minimize_scalar

    scores, rows = np.asarray(scores, np.float64), np.arange(len(np.asarray(target)))
    if not len(rows):
        raise DataError("No rows to calibrate on", hint="hold out at least one recording a substance")

    def nll(log_temperature: float) -> float:
        chosen = softmax(scores / np.exp(log_temperature), axis=-1)[rows, np.asarray(target)]
        return float(-np.log(chosen.clip(1e-12)).mean())

    best = minimize_scalar(nll, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(best.x))


def conformal_quantile(probabilities: ArrayLike, target: ArrayLike, groups: ArrayLike, *, level: float = 0.9) -> float:
    """How much probability a set must hold so that `level` of new rows find their truth in it.

    Rows of one recording are alike, so each recording counts as one: its rows are weighted to add up to 1, and the
    correction for few recordings is (recordings + 1) / recordings. Source: adaptive prediction sets, Romano et al.,
    arXiv 2006.02544; recordings as groups: Dunn et al., arXiv 1809.07441.
    """
    needed = _needed(np.asarray(probabilities, np.float64), np.asarray(target))
    _, which, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    weight = 1 / counts[which] / len(counts)
    order = np.argsort(needed)
    reached = np.cumsum(weight[order])
    rank = int(np.searchsorted(reached, min(1.0, level * (len(counts) + 1) / len(counts)) - 1e-12))
    return float(needed[order][min(rank, len(order) - 1)])


def prediction_sets(probabilities: ArrayLike, quantile: float) -> NDArray[np.bool_]:
    """Which classes belong to each row's set (rows, classes): the likeliest ones, up to `quantile` of probability.

    The first class is always in it, so no set is empty.
    """
    probabilities = np.asarray(probabilities, np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, 1)
    middle = np.cumsum(ranked, 1) - 0.5 * ranked
    inside = middle <= quantile
    inside[:, 0] = True
    sets = np.zeros_like(inside)
    np.put_along_axis(sets, order, inside, 1)
    return sets


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
    nats = -(probabilities * np.log(probabilities.clip(1e-300))).sum(-1)
    return nats / np.log(max(probabilities.shape[-1], 2))


def decide(probabilities: ArrayLike, thresholds: Thresholds = Thresholds()) -> NDArray[np.int64]:
    """The likeliest class of each row, or `ABSTAIN` (-1) where the distribution is too flat to act upon."""
    probabilities = np.asarray(probabilities, np.float64)
    sure = (margin(probabilities) >= thresholds.margin) & (entropy(probabilities) <= thresholds.entropy + 1e-12)
    sure &= np.isfinite(probabilities).all(-1)
    return np.where(sure, probabilities.argmax(-1), ABSTAIN)


def abstention(
    probabilities: ArrayLike, target: ArrayLike, *, precision: float = 0.75, least: float = 0.2
) -> Thresholds:
    """Thresholds that answer as many rows as can be while the answers are right with `precision`.

    Chosen on held-out recordings among 20 margins x 20 entropies. When `precision` can't be had with at least the
    share `least` of rows answered, the pair with the best precision at that share.
    """
    probabilities, target = np.asarray(probabilities, np.float64), np.asarray(target)
    right = probabilities.argmax(1) == target
    lead, flat = margin(probabilities), entropy(probabilities)
    shares = np.linspace(0, 0.95, 20)
    margins = np.concatenate([[0.0], np.quantile(lead, shares[1:])])
    entropies = np.concatenate([[1.0], np.quantile(flat, 1 - shares[1:])])
    best, best_key = Thresholds(), (-1.0, -1.0)
    for low in margins:
        for high in entropies:
            chosen = (lead >= low) & (flat <= high)
            answered = float(chosen.mean())
            if answered < least:
                continue
            correct = float(right[chosen].mean())
            key = (1.0, answered) if correct >= precision else (correct / 2, answered)
            if key > best_key:
                best, best_key = Thresholds(float(low), float(high)), key
    return best


def _needed(probabilities: NDArray, target: NDArray) -> NDArray:
    """Probability above the truth, plus half its own: the share at which a set begins to hold it; 0 for the first."""
    own = probabilities[np.arange(len(target)), target]
    above = np.where(probabilities > own[:, None], probabilities, 0).sum(1)
    return np.where(own >= probabilities.max(1), 0.0, above + 0.5 * own)
