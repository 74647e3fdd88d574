"""One evaluation for every study: models times splits, several seeds, into one table of scores with intervals.

    fit(seed) -> {split: Outcome} -> summarise over seeds -> Interval a measure -> JSON with a stamp

A study says what a row fits and what counts as a unit; seeds, intervals, differences on the same units, resuming and
the stamp are here. Sweeps over seeds alone take Student's t from `metrics.over_seeds`.
95 % intervals: bootstrap over groups (recordings, videos), never over windows of one recording, which are not
independent.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smellkit import paths, runs
from smellkit.checks import read_json
from smellkit.errors import DataError
from smellkit.study import metrics
from smellkit.study.metrics import Interval

Rows = NDArray[np.int64]
Measure = ArrayLike | Callable[[Rows], float]  # a value for each unit, or a score of any selection of units
RESUMED = ("seeds", "seconds", "revision")  # what a row holds beside its splits


@dataclass(frozen=True)
class Outcome:
    """What one fit scored on one split: `measures` of its units, and the `groups` (units,) that are drawn together.

    >>> Outcome(groups=recording, measures={"top1": hits, "macro_f1": lambda rows: macro_f1(named[rows], target[rows])})
    """

    groups: ArrayLike
    measures: Mapping[str, Measure]
    extra: Mapping[str, Any] = field(default_factory=dict)  # kept as it is beside the measures of the last seed


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Interval]:
    """Mean over seeds of each measure, with a 95 % interval by bootstrap over groups; one Outcome a seed.

    Measures that are functions of rows are computed anew for each draw, of which there are fewer.
    """
    return {
        name: _interval([outcome.measures[name] for outcome in outcomes], outcomes[0].groups)
        for name in outcomes[0].measures
    }


def paired_difference(first: Sequence[Outcome], second: Sequence[Outcome]) -> dict[str, Interval]:
    """By how much `first` scores more than `second` on the same units, for each measure that both have.

    DataError when the units or the seeds are not the same ones: a difference of other units is not paired.
    """
    pairs = list(zip(first, second, strict=False))
    if len(first) != len(second) or not all(np.array_equal(one.groups, other.groups) for one, other in pairs):
        raise DataError("The two were not measured on the same units and seeds", hint="measure both again together")
    return {
        name: _interval([_minus(one.measures[name], other.measures[name]) for one, other in pairs], first[0].groups)
        for name in first[0].measures
        if name in second[0].measures
    }


def evaluate(
    models: Mapping[str, Callable[[int], Mapping[str, Outcome]]],
    *,
    seeds: int | Iterable[int],
    about: Mapping[str, Any],
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Fit every row with every seed and return {"about", "stamp", "rows": {row: {split: {measure: interval}}}}.

    `models` maps a row's name to `fit(seed)`, which gives an Outcome for each split; `seeds` is how many (1, 2, ...) or
    which. `about` describes the data and the settings: rows of an `earlier` result about the same, with the same seeds,
    are taken up instead of measured again, and its other rows are kept. A row whose library is absent is left out.
    """
    chosen = list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)
    content = runs.plain(about)
    rows = dict((earlier or {}).get("rows", {})) if (earlier or {}).get("about") == content else {}
    for name, fit in models.items():
        if rows.get(name, {}).get("seeds") == chosen:
            progress(f"{name}: measured before")
            continue
        try:
            rows[name] = measure(fit, chosen)
        except ImportError as why:
            progress(f"{name}: left out, {why}")
        else:
            splits = {split: figures for split, figures in rows[name].items() if split not in RESUMED}
            told = [f"{split} {percent(next(iter(one.values())))}" for split, one in splits.items() if one["by_seed"]]
            progress(f"{name}: {', '.join(told)}   ({rows[name]['seconds']:.0f} s)")
    return {"about": content, "stamp": runs.stamp(), "rows": rows}


def measure(fit: Callable[[int], Mapping[str, Outcome]], seeds: Sequence[int]) -> dict[str, Any]:
    """One row: {split: {measure: interval, "by_seed": {measure: values}, extras}}, seeds, seconds a fit, revision."""
    began = time.monotonic()
    fits = [fit(seed) for seed in seeds]
    seconds = (time.monotonic() - began) / len(fits)
    splits = {split: scores([one[split] for one in fits]) for split in fits[0]}
    return splits | {"seeds": list(seeds), "seconds": round(seconds, 1), "revision": runs.revision()}


def scores(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Intervals of one split as plain dicts, the values of each seed, and what the last seed's Outcome holds extra."""
    intervals = {name: interval._asdict() for name, interval in summarise(outcomes).items()}
    by_seed = {name: [_value(one.measures[name], one.groups) for one in outcomes] for name in intervals}
    return runs.plain({**intervals, "by_seed": by_seed, **outcomes[-1].extra})


def earlier(path: Path | None) -> dict[str, Any]:
    """What an earlier measurement left in the file `path`; nothing without one."""
    return read_json(path) if path and path.is_file() else {}


def publish(path: Path, result: Mapping[str, Any], *, command: str) -> Path:
    """Write `result` as JSON with the `command` that makes it again and the stamp of this machine; return the path."""
    stamped = {"made_by": {"command": command}, "stamp": runs.stamp(), **result}
    return paths.write_json(Path(path), runs.plain(stamped))


def percent(interval: Interval | Mapping[str, float], *, digits: int = 1) -> str:
    """`71.1 [68.3, 73.6]`: an interval of shares in per cent."""
    value, low, high = (interval[name] for name in Interval._fields) if isinstance(interval, Mapping) else interval
    return f"{100 * value:.{digits}f} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _interval(measures: Sequence[Measure], groups: ArrayLike) -> Interval:
    """The mean of one measure over seeds with its interval; `measures` holds it for each seed."""
    if functions := [measure for measure in measures if callable(measure)]:
        mean = lambda rows: float(np.mean([score(rows) for score in functions]))  # noqa: E731
        return metrics.bootstrap_of(mean, groups, rounds=200)
    return metrics.bootstrap(np.mean(np.asarray(measures, np.float64), axis=0), groups=groups)


def _minus(first: Measure, second: Measure) -> Measure:
    if callable(first) and callable(second):
        return lambda rows: first(rows) - second(rows)
    return np.asarray(first, np.float64) - np.asarray(second, np.float64)


def _value(measure: Measure, groups: ArrayLike) -> float:
    return measure(np.arange(len(np.asarray(groups)))) if callable(measure) else float(np.mean(np.asarray(measure)))
