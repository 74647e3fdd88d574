"""`smellkit bench smellnet-base`: SmellNet's 50 substances, measured so that a stranger can check every number.

A model is fitted on the training split with everything chosen beforehand, and the test split is scored once a seed.
Beside it stands the cross-validated score over all recordings of both splits, because 50 test recordings are few.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks import Report
from smellkit.odour import recordings
from smellkit.odour.confidence import Confidence
from smellkit.odour.scents import category
from smellkit.odour.windows import LabelledWindows, Protocol, cut
from smellkit.study import evaluate, metrics
from smellkit.study.evaluate import Outcome
from smellkit.study.odour import calibrated, systems
from smellkit.study.odour.survey import other_sessions, stuck

PUBLISHED = {  # top-1 of windows on the official split, Feng et al., arXiv 2506.00239
    "ScentFormer, sensors only": 58.5,
    "ScentFormer, with GC-MS": 63.3,
}
DENSE = 10  # rows between test windows that are averaged for "test-time windows"
LEVELS = {"1 window": 1, "2 windows": 2, "3 windows": 3, "recording": 0}  # windows that are pooled; 0: all


def run(
    data: str | Path = "",
    *,
    models: Sequence[str] = (),
    seeds: int = 5,
    folds: int = 6,
    progress: Callable[[str], object] = lambda _: None,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure `models` (names of `systems.SYSTEMS`, all by default) on the SmellNet folder `data`.

    Returns {"about", "stamp", "rows", "published"}. `folds` 0 leaves cross-validation out; rows of other models in
    `earlier`, a result on the same data, are kept.
    """
    report = Report()
    training, testing = (recordings.read_recordings(data, split, report=report) for split in ("training", "testing"))
    away = other_sessions(data, report)
    known = {name: systems.named(name) for name in models or systems.SYSTEMS}
    fits = {name: Fits(name, system, training, testing, away, folds) for name, system in known.items()}
    settings = {name: system.settings | {"folds": folds} for name, system in known.items()}
    asked: dict[str, Any] = {"about": describe(training, testing, away, report), "settings": settings}
    result = evaluate.evaluate(fits, seeds=seeds, earlier=earlier, progress=progress, **asked)
    return {"published": PUBLISHED, **result}


@dataclass
class Fits:
    """The fits of one system: each call scores the test split and other sessions, the first cross-validates, too."""

    name: str
    system: systems.System
    training: pd.DataFrame
    testing: pd.DataFrame
    away: pd.DataFrame | None
    folds: int

    def __call__(self, seed: int) -> dict[str, Outcome]:
        """Fit with `seed` and return an Outcome for each level of the test split and for other sessions."""
        protocol = self.system.protocol
        train = cut(self.training, protocol, stride=self.system.train_stride)
        dense = cut(self.testing, protocol, stride=DENSE, classes=train.classes)
        inside = dense.start % protocol.stride == 0
        scorer = systems.fit(self.system, train, seed=seed, name=f"bench/{self.name}")
        every = scorer(dense.values)
        scores, test = every[inside], dense[inside]
        outcomes = {level: outcome(scores, test, count) for level, count in LEVELS.items()}
        outcomes["1 window"] = replace(outcomes["1 window"], extra={"windows": len(test), **by_kind(scores, test)})
        outcomes["test-time windows"] = outcome(around(every, dense)[inside], test)
        if self.away is not None:
            other = cut(self.away, protocol, classes=train.classes)
            another = outcome(scorer(other.values), other)
            more = {**another.extra, "windows_of": int(self.away["file"].nunique())}
            outcomes["other_session"] = replace(another, extra=more)
        if self.folds and seed == 1:
            outcomes["cross_validated"] = self.cross_validated(train.classes)
        if self.system.calibrated:
            outcomes["calibration"] = calibrated.holds(scores, test, self.learnt)
        return outcomes

    @cached_property
    def learnt(self) -> Confidence:
        """How sure to be, learnt on recordings of the training split alone."""
        windows = cut(self.training, self.system.protocol, stride=self.system.stride)
        return calibrated.learn(self.system, windows, name=self.name)

    def cross_validated(self, classes: Sequence[str]) -> Outcome:
        """Windows of all recordings, each by a fit without its fold."""
        both = pd.concat([self.training, self.testing[self.testing["substance"].isin(classes)]])
        everything = cut(both, self.system.protocol, stride=self.system.stride)
        return outcome(*systems.cross_validate(self.system, everything, name=self.name, folds=self.folds))


def outcome(scores: NDArray, windows: LabelledWindows, count: int = 1) -> Outcome:
    """Top-1, top-5 and macro F1 of log-probabilities when `count` windows in a row are pooled (0: the recording)."""
    pooled, target, recording = combine(scores, windows, count)
    named = pooled.argmax(1)
    measures: dict[str, evaluate.Measure] = {
        "top1": metrics.hits(pooled, target),
        "top5": metrics.hits(pooled, target, k=5),
        "macro_f1": lambda rows: metrics.macro_f1(named[rows], target[rows]),
    }
    return Outcome(recording, measures, extra={"windows": len(target)})


def by_kind(scores: NDArray, test: LabelledWindows) -> dict[str, Any]:
    """Top-1 of windows for each substance and each category."""
    right = pd.Series(metrics.hits(scores, test.target))
    substance = pd.Series(np.array(test.classes)[test.target])
    kinds = substance.map(category)
    return {
        "per_substance": right.groupby(substance).mean().to_dict(),
        "per_category": right.groupby(kinds, sort=False).mean().to_dict(),
    }


def around(scores: NDArray, windows: LabelledWindows, *, reach: int = 20) -> NDArray:
    """Mean log-probabilities of all windows of the recording that start at most `reach` rows before or after."""
    means = np.empty_like(scores)
    for number in np.unique(windows.recording):
        rows = np.flatnonzero(windows.recording == number)
        near = np.abs(windows.start[rows, None] - windows.start[rows]) <= reach
        means[rows] = near @ scores[rows] / near.sum(1, keepdims=True)
    return means


def combine(scores: NDArray, test: LabelledWindows, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Mean log-probabilities over every run of `count` windows in a recording, their targets and recordings.

    0 pools the whole recording; a recording with fewer windows is pooled as a whole.
    """
    if count == 1:
        return scores, test.target, test.recording
    parts = []
    for number in np.unique(test.recording):
        rows = np.flatnonzero(test.recording == number)
        size = min(count or len(rows), len(rows))
        pooled = np.lib.stride_tricks.sliding_window_view(scores[rows], size, axis=0).mean(-1)
        parts.append((pooled, np.full(len(pooled), test.target[rows[0]]), np.full(len(pooled), number)))
    means, target, recording = map(np.concatenate, zip(*parts, strict=True))
    return means, target, recording


def describe(
    training: pd.DataFrame, testing: pd.DataFrame, away: pd.DataFrame | None, report: Report
) -> dict[str, Any]:
    """What was measured on: recordings and windows of each split, substances, faults that were forgiven."""
    splits = {"training": training, "testing": testing} | ({"other sessions": away} if away is not None else {})
    lengths, strict = {name: table.groupby("file").size() for name, table in splits.items()}, Protocol()
    windows = {name: (n - strict.span) // strict.stride + 1 for name, n in lengths.items()}
    faults = {
        "notes": {str(note): int(count) for note, count in report.counts.items()},
        "environment_sensor_stuck": int(pd.concat(splits.values()).pipe(stuck).sum()),
        "substances_missing_from_a_split": sorted(set(training["substance"]) ^ set(testing["substance"])),
        "recordings_too_short": int(sum((rows < strict.span).sum() for rows in lengths.values())),
    }
    return {
        "substances": training["substance"].nunique(),
        "recordings": {name: len(rows) for name, rows in lengths.items()},
        "windows": {name: int(counts.clip(lower=0).sum()) for name, counts in windows.items()},
        "faults": faults,
    }
