"""Learn how sure to be from recordings that a fit did not see, and measure how well that holds on others.

Probabilities are (rows, classes); targets and groups are (rows,). Rows that belong to one recording share a group.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from smellkit.odour.confidence import (
    ABSTAIN,
    Confidence,
    Thresholds,
    decide,
    entropy,
    fit_temperature,
    margin,
    prediction_sets,
)
from smellkit.odour.scents import category
from smellkit.odour.windows import LabelledWindows
from smellkit.study import metrics
from smellkit.study.evaluate import Outcome
from smellkit.study.odour.systems import System, cross_validate

Held = tuple[ArrayLike, ArrayLike, ArrayLike]  # scores (rows, classes) of recordings not trained on, target, groups
LEVEL = 0.9  # of new rows find their truth in a prediction set


def learn(
    system: System, windows: LabelledWindows, *, name: str = "bench", seed: int = 1, precision: float = 0.75
) -> Confidence:
    """The confidence of a fit of `system` on `windows`, learnt on recordings that other fits did not see.

    With n = 4 recordings of every substance or more it is learnt for a fit on all of them (see `calibrate`). How far
    that lies ahead of fits on n - 1, in steps from those on n - 2: what a fit still misses is taken to fall like 1 / n.
    """

    def held_out(fewer: int) -> Held:
        scores, graded = cross_validate(system, windows, name=name, seed=seed, fewer=fewer)
        return scores, graded.target, graded.recording

    count = int(windows.fold.max()) + 1
    if count < 4:
        return calibrate(*held_out(0), precision=precision)
    return calibrate(*held_out(0), precision=precision, few=held_out(1), ahead=(count - 2) / count)


def calibrate(
    scores: ArrayLike,
    target: ArrayLike,
    groups: ArrayLike,
    *,
    precision: float = 0.75,
    few: Held | None = None,
    ahead: float = 0.0,
) -> Confidence:
    """Learn temperature, prediction sets and abstention from `scores` (rows, classes) of recordings not trained on.

    `scores` are logits or log-probabilities. Abstention is set so that what is still answered is right with
    `precision`, as often as that can be had (see `abstention`).

    A network that has learnt from one recording more is surer and more often right, so sets that are learnt beside it
    are too large. `few` are scores of fits on a recording of each substance less: log-temperature and quantile go on
    from theirs by the share `ahead` of the difference.
    """
    many = (np.asarray(scores, np.float64), target, groups)
    few = many if few is None else few
    logs = [np.log(fit_temperature(*held[:2])) for held in (few, many)]
    temperature = float(np.exp(logs[1] + ahead * (logs[1] - logs[0])))
    probabilities = [softmax(np.asarray(held[0], np.float64) / temperature, axis=-1) for held in (few, many)]
    first, second = (conformal_quantile(p, *held[1:]) for p, held in zip(probabilities, (few, many), strict=True))
    quantile = float(np.clip(second + ahead * (second - first), 0, 1))
    return Confidence(temperature, quantile, abstention(probabilities[1], target, precision=precision), LEVEL)


def growing(
    scores: NDArray, target: NDArray, groups: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Mean scores over the first 1, 2, 4, ... and all windows of each recording, as it is sniffed longer.

    Returns means (rows, classes), their target and how many windows each is of.
    """
    rows = []
    for number in np.unique(groups):
        own = np.flatnonzero(groups == number)
        counts = sorted({*(2 ** np.arange(len(own).bit_length())).tolist(), len(own)})
        rows += [(scores[own[:count]].mean(axis=0), target[own[0]], count) for count in counts]
    means, targets, windows = zip(*rows, strict=True)
    return np.array(means, np.float64), np.array(targets), np.array(windows)


def pooling(scores: NDArray, target: NDArray, windows: NDArray) -> float:
    """How much surer the mean over n windows is than one: its temperature falls like n ** -pooling. See `growing`."""
    sizes = [size for size in np.unique(windows) if np.log2(size) % 1 == 0]
    temperatures = [fit_temperature(scores[windows == size], target[windows == size]) for size in sizes]
    return float(-np.polyfit(np.log(sizes), np.log(temperatures), 1)[0]) if len(sizes) > 1 else 0.0


def with_categories(
    learnt: Confidence, scores: NDArray, target: NDArray, classes: Sequence[str], *, precision: float
) -> Confidence:
    """The confidence that also knows the temperature of categories, and from which probability on one is named.

    So that those named where no class is are right with `precision`, on the same held-out `scores` (rows, classes).
    """
    kinds, which = np.unique([category(name) for name in classes], return_inverse=True)
    p = softmax(np.asarray(scores, np.float64) / learnt.temperature, axis=-1)
    sums = np.log((p @ np.eye(len(kinds))[which]).clip(1e-12))
    temperature, true = fit_temperature(sums, which[target]), which[target]
    each, silent = softmax(sums / temperature, axis=-1), decide(p, learnt.thresholds) == ABSTAIN
    right, sure = (each.argmax(1) == true)[silent], each.max(1)[silent]
    return replace(learnt, category_temperature=temperature, category_least=least(sure, right, precision, never=1.0))


def least(score: NDArray, good: NDArray, wanted: float, *, never: float) -> float:
    """The least score from which on `good` is at least `wanted` on average; `never` where it is from none on."""
    order = np.argsort(-score, kind="stable")
    enough = np.flatnonzero(np.cumsum(good[order]) / np.arange(1, len(order) + 1) >= wanted)
    return float(score[order][enough[-1]]) if len(enough) else never


def conformal_quantile(probabilities: ArrayLike, target: ArrayLike, groups: ArrayLike) -> float:
    """How much probability a set must hold so that `LEVEL` of new rows find their truth in it.

    Rows of one recording are alike, so each recording counts as one: its rows are weighted to add up to 1, and the
    correction for few recordings is (recordings + 1) / recordings. Source: adaptive prediction sets, Romano et al.,
    arXiv 2006.02544; recordings as groups: Dunn et al., arXiv 1809.07441.
    """
    probabilities, target = np.asarray(probabilities, np.float64), np.asarray(target)
    own = probabilities[np.arange(len(target)), target]
    above = np.where(probabilities > own[:, None], probabilities, 0).sum(1)
    needed = np.where(own >= probabilities.max(1), 0.0, above + 0.5 * own)  # the share at which a set holds its truth
    _, which, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    level = min(1.0, LEVEL * (len(counts) + 1) / len(counts)) - 1e-12
    return float(np.quantile(needed, level, weights=1 / counts[which], method="inverted_cdf"))


def abstention(
    probabilities: ArrayLike, target: ArrayLike, *, precision: float = 0.75, fewest: float = 0.2
) -> Thresholds:
    """Thresholds that answer as many rows as can be while the answers are right with `precision`.

    Chosen on held-out recordings among 20 margins x 20 entropies. When `precision` can't be had with at least the
    share `fewest` of rows answered, the pair with the best precision at that share.
    """
    probabilities, target = np.asarray(probabilities, np.float64), np.asarray(target)
    right = probabilities.argmax(1) == target
    lead, flat = margin(probabilities), entropy(probabilities)
    shares = np.linspace(0, 0.95, 20)[1:]
    margins, entropies = [0.0, *np.quantile(lead, shares)], [1.0, *np.quantile(flat, 1 - shares)]

    def worth(pair: tuple[float, float]) -> tuple[float, float]:
        chosen = (lead >= pair[0]) & (flat <= pair[1])
        answered = chosen.mean()
        if answered < fewest:
            return -1.0, 0.0
        correct = right[chosen].mean()
        return (1.0, answered) if correct >= precision else (correct / 2, answered)

    low, high = max(itertools.product(margins, entropies), key=worth)
    return Thresholds(float(low), float(high))


def selective(probabilities: ArrayLike, target: ArrayLike, thresholds: Thresholds) -> dict[str, float]:
    """Share of rows answered, and how often those answers are right (0 when none is answered)."""
    answers = decide(probabilities, thresholds)
    given = answers != ABSTAIN
    right = answers[given] == np.asarray(target)[given]
    return {"answered": float(given.mean()), "accuracy": float(right.mean()) if given.any() else 0.0}


def holds(scores: NDArray, test: LabelledWindows, learnt: Confidence) -> Outcome:
    """How well a confidence learnt on other recordings holds on these: coverage; error, size of sets, abstention."""
    p, error = softmax(scores / learnt.temperature, axis=-1), metrics.expected_calibration_error
    sets = prediction_sets(p, learnt.quantile)
    beside = {
        "expected_calibration_error": error(p, test.target),
        "before": error(softmax(scores, axis=-1), test.target),
        "set_size": float(sets.sum(1).mean()),
        "selective": selective(p, test.target, learnt.thresholds),
        "learnt": learnt.asdict(),
    }
    return Outcome(test.recording, {"coverage": sets[np.arange(len(test)), test.target]}, beside)
