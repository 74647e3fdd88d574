"""Confidence beyond what the kit needs to answer: for a fit on more recordings, and how well it holds on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from smellkit import metrics
from smellkit.evaluate import Outcome, summarise
from smellkit.odour.confidence import (
    ABSTAIN,
    Confidence,
    Thresholds,
    abstention,
    calibrate,
    conformal_quantile,
    decide,
    fit_temperature,
    prediction_sets,
)
from smellkit.odour.windows import LabelledWindows
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


def calibrate_ahead(few: Held, many: Held, *, ahead: float, level: float = 0.9, precision: float = 0.75) -> Confidence:
    """Learn a calibration for a fit on more recordings than any held-out one can have been made of.

    A network that has learnt from one recording more is surer and more often right, so sets that are learnt beside it
    are too large. `few` and `many` are held-out (scores, target, groups) of fits on n - 1 and n recordings a substance;
    log-temperature and quantile go on from them by the share `ahead` of their difference. See `ahead_of`.
    """
    logs = [np.log(fit_temperature(scores, target)) for scores, target, _ in (few, many)]
    temperature = float(np.exp(logs[1] + ahead * (logs[1] - logs[0])))
    probabilities = [softmax(np.asarray(scores, np.float64) / temperature, axis=-1) for scores, _, _ in (few, many)]
    quantiles = [
        conformal_quantile(p, target, groups, level=level)
        for p, (_, target, groups) in zip(probabilities, (few, many), strict=True)
    ]
    return Confidence(
        temperature=temperature,
        quantile=float(np.clip(quantiles[1] + ahead * (quantiles[1] - quantiles[0]), 0, 1)),
        thresholds=abstention(probabilities[1], many[1], precision=precision),
        level=level,
    )


def ahead_of(recordings: int) -> float:
    """How far a fit on `recordings` lies ahead of one on a recording less, in steps of the one before that.

    What a fit still misses is taken to fall like 1 / recordings.
    """
    few, many, all_of = recordings - 2, recordings - 1, recordings
    return (1 / many - 1 / all_of) / (1 / few - 1 / many)


def selective(
    probabilities: ArrayLike, target: ArrayLike, thresholds: Thresholds | Sequence[float]
) -> dict[str, float]:
    """Share of rows answered, and how often those answers are right (0 when none is answered)."""
    limits = thresholds if isinstance(thresholds, Thresholds) else Thresholds(*thresholds)
    answers = decide(probabilities, limits)
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
