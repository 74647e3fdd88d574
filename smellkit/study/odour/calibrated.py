"""Learn how sure to be from recordings that a fit did not see, and measure how well that holds on others.

Probabilities are (rows, classes); targets and groups are (rows,). Rows that belong to one recording share a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
from smellkit.study.evaluate import Outcome, summarise
from smellkit.study.odour.systems import System, cross_validate

Held = tuple[ArrayLike, ArrayLike, ArrayLike]  # scores (rows, classes) of recordings not trained on, target, groups


def learn(
    system: System, windows: LabelledWindows, *, name: str = "bench", seed: int = 1, precision: float = 0.75
) -> Confidence:
    """The confidence of a fit of `system` on `windows`, learnt on recordings that other fits did not see.

    With four recordings of every substance or more it is learnt for a fit on all of them, see `calibrate_ahead`.
    """

    def held_out(fewer: int) -> Held:
        scores, graded = cross_validate(system, windows, name=name, seed=seed, fewer=fewer)
        return scores, graded.target, graded.recording

    count = int(windows.fold.max()) + 1
    if count < 4:
        return calibrate(*held_out(0), precision=precision)
    return calibrate_ahead(held_out(1), held_out(0), ahead=ahead_of(count), precision=precision)


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
    quantile = conformal_quantile(probabilities, target, groups, level=level)
    return Confidence(temperature, quantile, abstention(probabilities, target, precision=precision), level)


def calibrate_ahead(few: Held, many: Held, *, ahead: float, level: float = 0.9, precision: float = 0.75) -> Confidence:
    """Learn a calibration for a fit on more recordings than any held-out one can have been made of.

    A network that has learnt from one recording more is surer and more often right, so sets that are learnt beside it
    are too large. `few` and `many` are held-out (scores, target, groups) of fits on n - 1 and n recordings a substance;
    log-temperature and quantile go on from them by the share `ahead` of their difference. See `ahead_of`.
    """
    logs = [np.log(fit_temperature(scores, target)) for scores, target, _ in (few, many)]
    temperature = float(np.exp(logs[1] + ahead * (logs[1] - logs[0])))
    probabilities = [softmax(np.asarray(scores, np.float64) / temperature, axis=-1) for scores, _, _ in (few, many)]
    known = zip(probabilities, (few[1:], many[1:]), strict=True)
    first, second = (conformal_quantile(p, *truth, level=level) for p, truth in known)
    quantile = float(np.clip(second + ahead * (second - first), 0, 1))
    return Confidence(temperature, quantile, abstention(probabilities[1], many[1], precision=precision), level)


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
    order = np.argsort(-sure, kind="stable")
    enough = np.flatnonzero(np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= precision)
    least = float(sure[order][enough[-1]]) if len(enough) else 1.0
    return replace(learnt, category_temperature=temperature, category_least=least)


def ahead_of(recordings: int) -> float:
    """How far a fit on `recordings` lies ahead of one on a recording less, in steps of the one before that.

    What a fit still misses is taken to fall like 1 / recordings.
    """
    few, many, all_of = recordings - 2, recordings - 1, recordings
    return (1 / many - 1 / all_of) / (1 / few - 1 / many)


def conformal_quantile(probabilities: ArrayLike, target: ArrayLike, groups: ArrayLike, *, level: float = 0.9) -> float:
    """How much probability a set must hold so that `level` of new rows find their truth in it.

    Rows of one recording are alike, so each recording counts as one: its rows are weighted to add up to 1, and the
    correction for few recordings is (recordings + 1) / recordings. Source: adaptive prediction sets, Romano et al.,
    arXiv 2006.02544; recordings as groups: Dunn et al., arXiv 1809.07441.
    """
    probabilities, rows = np.asarray(probabilities, np.float64), np.arange(len(np.asarray(target)))
    own = probabilities[rows, np.asarray(target)]
    above = np.where(probabilities > own[:, None], probabilities, 0).sum(1)
    needed = np.where(own >= probabilities.max(1), 0.0, above + 0.5 * own)  # the share at which a set holds its truth
    _, which, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    weight = 1 / counts[which] / len(counts)
    order = np.argsort(needed)
    reached = np.cumsum(weight[order])
    rank = int(np.searchsorted(reached, min(1.0, level * (len(counts) + 1) / len(counts)) - 1e-12))
    return float(needed[order][min(rank, len(order) - 1)])


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


def selective(probabilities: ArrayLike, target: ArrayLike, thresholds: Thresholds) -> dict[str, float]:
    """Share of rows answered, and how often those answers are right (0 when none is answered)."""
    answers = decide(probabilities, thresholds)
    given = answers != ABSTAIN
    right = answers[given] == np.asarray(target)[given]
    return {"answered": float(given.mean()), "accuracy": float(right.mean()) if given.any() else 0.0}


def holds(scores: Sequence[NDArray], test: LabelledWindows, learnt: Confidence) -> dict[str, Any]:
    """How well a confidence learnt on other recordings holds on these: error, coverage, size of sets, abstention.

    Each is the mean over `scores`, one array (windows, classes) a seed.
    """
    probabilities = [softmax(part / learnt.temperature, axis=-1) for part in scores]
    sets = [prediction_sets(p, learnt.quantile) for p in probabilities]
    rows = np.arange(len(test))
    covered = summarise([Outcome(test.recording, {"coverage": part[rows, test.target]}) for part in sets])
    error = metrics.expected_calibration_error
    answered = [selective(p, test.target, learnt.thresholds) for p in probabilities]
    return {
        "expected_calibration_error": float(np.mean([error(p, test.target) for p in probabilities])),
        "before": float(np.mean([error(softmax(part, axis=-1), test.target) for part in scores])),
        "coverage": covered["coverage"]._asdict(),
        "set_size": float(np.mean([part.sum(1).mean() for part in sets])),
        "selective": {name: float(np.mean([one[name] for one in answered])) for name in answered[0]},
    }
