"""`smellkit bench smellnet-base`: SmellNet's 50 substances, measured so that a stranger can check every number.

A model is fitted on the training split with everything chosen beforehand, and the test split is scored once a seed.
Beside it stands the cross-validated score over all recordings of both splits, because 50 test recordings are few.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import metrics, runs
from smellkit.checks import Report
from smellkit.errors import DataError
from smellkit.odour import confidence as calibration
from smellkit.odour import recordings
from smellkit.odour.sessions import other_sessions
from smellkit.odour.windows import Protocol, Windows, category, cut
from smellkit.study.odour import systems

PUBLISHED = {  # top-1 of windows on the official split, Feng et al., arXiv 2506.00239
    "ScentFormer, sensors only": 58.5,
    "ScentFormer, with GC-MS": 63.3,
}
TABLES = {
    "strict": "Six gas channels, differences over 25 rows (the published protocol)",
    "level-free": "Six gas channels, the same 125 rows less the first of them",
    "confounded": "SESSION-CONFOUNDED: the input shows which session a recording comes from",
}
DENSE = 10  # rows between test windows that are averaged for "test-time windows"
Say = Callable[[str], object]


def run(
    data: str | Path = "",
    *,
    models: Sequence[str] = (),
    seeds: int = 5,
    folds: int = 6,
    progress: Say = lambda _: None,
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure `models` (names of `systems.SYSTEMS`, all by default) on the SmellNet folder `data`.

    Returns {"data", "made_by", "published", "models": {name: figures}}. `folds` 0 leaves cross-validation out;
    figures of other models in `before`, an earlier result on the same data, are kept.
    """
    report = Report()
    training = recordings.read_recordings(data, "training", report=report)
    testing = recordings.read_recordings(data, "testing", report=report)
    away = other_sessions(data, report)
    described = describe(training, testing, away, report)
    known = (before or {}).get("models", {}) if (before or {}).get("data") == described else {}
    measured = {}
    for name in models or systems.SYSTEMS:
        began = time.monotonic()
        try:
            measured[name] = measure(name, training, testing, away, seeds=seeds, folds=folds)
            measured[name] |= {"command": command(name, seeds=seeds, folds=folds), "revision": runs.revision()}
        except ImportError as why:
            progress(f"{name}: left out, {why}")
            continue
        progress(f"{_line(name, measured[name])}   ({time.monotonic() - began:.0f} s)")
    return {
        "data": described,
        "made_by": {
            "command": "smellkit bench smellnet-base --data DIR",
            "machine": f"{os.cpu_count()} cores, CPU",
            "memory_mib": max(_memory(), ((before or {}).get("made_by") or {}).get("memory_mib", 0)),
        },
        "published": PUBLISHED,
        "models": known | measured,
    }


def measure(
    name: str,
    training: pd.DataFrame,
    testing: pd.DataFrame,
    away: pd.DataFrame | None = None,
    *,
    seeds: int = 5,
    folds: int = 6,
) -> dict[str, Any]:
    """Fit system `name` with `seeds` seeds and return all its figures, see `figures`."""
    system = systems.find(name)
    train = cut(training, system.protocol, stride=system.train_stride)
    dense = cut(testing, system.protocol, stride=DENSE, classes=train.classes)
    test = dense.every(system.protocol.stride)
    other = cut(away, system.protocol, classes=train.classes) if away is not None else None
    scores, scores_dense, scores_away, seconds = [], [], [], []
    for seed in range(1, seeds + 1):
        began = time.monotonic()
        scorer = systems.fit(system, train, seed=seed, name=f"bench/{name}")
        seconds.append(time.monotonic() - began)
        scores_dense.append(scorer(dense.values))
        scores.append(scores_dense[-1][dense.start % system.protocol.stride == 0])
        scores_away += [scorer(other.values)] if other is not None else []
    found: dict[str, Any] = {
        "table": system.table,
        "members": list(system.members),
        "channels": list(system.protocol.columns),
        "representation": system.protocol.representation,
        "seeds": seeds,
        "fit_seconds": round(float(np.median(seconds)), 1),
        "test": figures(scores, test),
    }
    smooth = [around(part, dense)[dense.start % system.protocol.stride == 0] for part in scores_dense]
    found["test"]["test-time windows"] = at_level(smooth, test)
    if other is not None:
        found["other_session"] = at_level(scores_away, other, 1) | {"windows_of": int(len(np.unique(other.recording)))}
    if folds:
        everything = cut(_both(training, testing), system.protocol, stride=_common(system.protocol, system))
        held_out, graded = cross_validate(system, everything, name=name, folds=folds)
        found["cross_validated"] = at_level([held_out], graded)
    if system.calibrated:
        inside = cut(training, system.protocol, stride=_common(system.protocol, system))
        learnt = calibrate(system, inside, name=name)
        found["calibration"] = {"learnt": learnt.asdict(), **calibrated(scores, test, learnt)}
    return found


def figures(scores: Sequence[NDArray], test: Windows) -> dict[str, Any]:
    """Scores of log-probabilities, one array (windows, classes) a seed, at 1, 2 and 3 windows and a whole recording."""
    levels = {"1 window": 1, "2 windows": 2, "3 windows": 3, "recording": 0}
    found: dict[str, Any] = {level: at_level(scores, test, count) for level, count in levels.items()}
    right = np.mean([metrics.hits(part, test.target) for part in scores], axis=0)
    found["per_substance"] = {name: float(right[test.target == i].mean()) for i, name in enumerate(test.classes)
                              if (test.target == i).any()}  # fmt: skip
    kinds = np.array([category(name) for name in test.classes])[test.target]
    found["per_category"] = {kind: float(right[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}
    return found


def at_level(scores: Sequence[NDArray], test: Windows, count: int = 1) -> dict[str, Any]:
    """Top-1, top-5 and macro F1 when `count` windows in a row are pooled (0 is the whole recording).

    Each is {value, low, high}: the mean over seeds, with a 95 % interval from drawing recordings anew; top-1 of each
    seed beside it.
    """
    parts = [combine(part, test, count) for part in scores]
    target, recording = parts[0][1], parts[0][2]
    found: dict[str, Any] = {"windows": len(target)}
    for name, k in (("top1", 1), ("top5", 5)):
        hits = np.mean([metrics.hits(part[0], target, k=k) for part in parts], axis=0)
        found[name] = metrics.bootstrap(hits, groups=recording)._asdict()
    said = [part[0].argmax(1) for part in parts]
    found["macro_f1"] = metrics.bootstrap_of(
        lambda rows: float(np.mean([metrics.macro_f1(one[rows], target[rows]) for one in said])), recording, rounds=100
    )._asdict()
    found["top1_of_seeds"] = [metrics.top_k(part[0], target) for part in parts]
    return found


def around(scores: NDArray, windows: Windows, *, reach: int = 20) -> NDArray:
    """Mean log-probabilities of all windows of the recording that start at most `reach` rows before or after."""
    found = np.empty_like(scores)
    for number in np.unique(windows.recording):
        rows = np.flatnonzero(windows.recording == number)
        near = np.abs(windows.start[rows, None] - windows.start[rows]) <= reach
        found[rows] = near @ scores[rows] / near.sum(1, keepdims=True)
    return found


def combine(scores: NDArray, test: Windows, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Mean log-probabilities over every run of `count` windows in a recording, their targets and recordings.

    0 pools the whole recording; a recording with fewer windows is pooled as a whole.
    """
    if count == 1:
        return scores, test.target, test.recording
    found, target, recording = [], [], []
    for number in np.unique(test.recording):
        rows = np.flatnonzero(test.recording == number)
        size = min(count or len(rows), len(rows))
        sums = np.lib.stride_tricks.sliding_window_view(scores[rows], size, axis=0).mean(-1)
        found.append(sums)
        target += [test.target[rows[0]]] * len(sums)
        recording += [number] * len(sums)
    return np.concatenate(found), np.array(target), np.array(recording)


def calibrate(
    system: systems.System, windows: Windows, *, name: str = "bench", seed: int = 1, precision: float = 0.75
) -> calibration.Calibration:
    """The calibration of a fit of `system` on `windows`, learnt on recordings that other fits did not see.

    With four recordings of every substance or more it is learnt for a fit on all of them, see `calibrate_ahead`.
    """

    def held_out(fewer: int) -> calibration.Held:
        scores, graded = cross_validate(system, windows, name=name, seed=seed, fewer=fewer)
        return scores, graded.target, graded.recording

    count = int(windows.fold.max()) + 1
    if count < 4:
        return calibration.calibrate(*held_out(0), precision=precision)
    ahead = calibration.ahead_of(count)
    return calibration.calibrate_ahead(held_out(1), held_out(0), ahead=ahead, precision=precision)


def cross_validate(
    system: systems.System, windows: Windows, *, name: str = "bench", seed: int = 1, folds: int = 0, fewer: int = 0
) -> tuple[NDArray, Windows]:
    """Log-probabilities of windows at the protocol's stride, each from a fit without its recording's fold.

    With `folds`, only the recordings of the first so many folds are scored. Returns those windows too. `fewer` folds
    after the scored one are left out of its fit as well.
    """
    count = int(windows.fold.max()) + 1
    folds = min(folds or count, count)
    graded = windows.every(system.protocol.stride)
    graded = graded[graded.fold < folds]
    scores = np.zeros((len(graded), len(windows.classes)), np.float32)
    for fold in range(folds):
        apart = [(fold + more) % count for more in range(fewer + 1)]
        train = windows[~np.isin(windows.fold, apart)].every(system.train_stride)
        held = graded.fold == fold
        if len(np.unique(train.target)) < len(windows.classes):
            raise DataError("Cross-validation needs two recordings of every substance", hint="--folds 0 leaves it out")
        scores[held] = systems.fit(system, train, seed=seed, name=f"bench/{name}/fold={fold}")(graded[held].values)
    return scores, graded


def calibrated(scores: Sequence[NDArray], test: Windows, learnt: calibration.Calibration) -> dict[str, Any]:
    """How well a calibration learnt on other recordings holds on these: error, coverage, size of sets, abstention.

    Each is the mean over `scores`, one array (windows, classes) a seed.
    """
    chances = [calibration.softmax(part / learnt.temperature) for part in scores]
    sets = [calibration.prediction_sets(p, learnt.quantile) for p in chances]
    covered = np.mean([part[np.arange(len(part)), test.target] for part in sets], axis=0)
    error = metrics.expected_calibration_error
    said = [calibration.selective(p, test.target, learnt.thresholds) for p in chances]
    return {
        "expected_calibration_error": float(np.mean([error(p, test.target) for p in chances])),
        "before": float(np.mean([error(calibration.softmax(part), test.target) for part in scores])),
        "coverage": metrics.bootstrap(covered, groups=test.recording)._asdict(),
        "set_size": float(np.mean([part.sum(1).mean() for part in sets])),
        "selective": {name: float(np.mean([one[name] for one in said])) for name in said[0]},
    }


def describe(
    training: pd.DataFrame, testing: pd.DataFrame, away: pd.DataFrame | None, report: Report
) -> dict[str, Any]:
    """What was measured on: recordings and windows of each split, substances, faults that were forgiven."""
    splits = {"training": training, "testing": testing} | ({"other sessions": away} if away is not None else {})
    stuck = pd.concat(splits.values()).pipe(recordings.stuck)
    both = set(training["substance"]) & set(testing["substance"])
    everything = set(training["substance"]) | set(testing["substance"])
    strict = Protocol()
    windows = {
        name: int(sum(max(0, (n - strict.span) // strict.stride + 1) for n in table.groupby("file").size()))
        for name, table in splits.items()
    }
    return {
        "substances": len(set(training["substance"])),
        "recordings": {name: int(table["file"].nunique()) for name, table in splits.items()},
        "windows": windows,
        "faults": {
            "notes": {str(note): int(count) for note, count in report.counts.items()},
            "environment_sensor_stuck": int(stuck.sum()),
            "substances_missing_from_a_split": sorted(everything - both),
            "recordings_too_short": int(sum((t.groupby("file").size() < strict.span).sum() for t in splits.values())),
        },
    }


def report(result: dict[str, Any]) -> str:
    """The tables as text: percentages with 95 % intervals over recordings."""
    lines = [f"{result['data']['recordings']} recordings, {result['data']['windows']} windows"]
    lines += [f"faults handled: {result['data']['faults']}"]
    for table, title in TABLES.items():
        rows = {name: found for name, found in result["models"].items() if found["table"] == table}
        lines += ["", title] + [_line(name, found) for name, found in rows.items()] if rows else []
    return "\n".join(lines)


def _line(name: str, found: dict[str, Any]) -> str:
    test = found["test"]["1 window"]
    text = f"  {name:28} top-1 {_percent(test['top1'])}  top-5 {_percent(test['top5'])}"
    text += f"  recording {100 * found['test']['recording']['top1']['value']:.1f}"
    if "cross_validated" in found:
        text += f"  6-fold {_percent(found['cross_validated']['top1'])}"
    if "other_session" in found:
        other = found["other_session"]
        text += f"  other session {100 * other['top1']['value']:.1f} / {100 * other['top5']['value']:.1f}"
    if "calibration" in found:
        text += f"  ECE {100 * found['calibration']['expected_calibration_error']:.1f}"
        text += f"  coverage {100 * found['calibration']['coverage']['value']:.1f}"
    return text + f"  fit {found['fit_seconds']:.0f} s"


def _percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _both(training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([training, testing[testing["substance"].isin(training["substance"])]], ignore_index=True)


def _common(protocol: Protocol, system: systems.System) -> int:
    """The stride that holds both the windows to train on and those to grade."""
    return int(np.gcd(protocol.stride, system.train_stride))


def command(model: str, *, seeds: int, folds: int) -> str:
    """The command that measures `model` again."""
    return f'smellkit bench smellnet-base --data DIR --model "{model}" --seeds {seeds} --folds {folds}'


def _memory() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
