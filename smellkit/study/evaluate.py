"""One evaluation for every study: models times splits, several seeds, into one table of scores with intervals.

    fit(seed) -> {split: Outcome} -> summarise over seeds -> Interval a measure -> JSON with a stamp

    {"about": the data, "stamp", "rows": {row: {split: {measure: interval, "by_seed", "difference", what is beside},
                                                "seeds", "seconds", "revision", "settings"}}}

A study says what a row fits and what counts as a unit; seeds, intervals, differences on the same units, resuming and
the stamp are here. 95 % intervals: bootstrap over groups (recordings, videos), never over windows of one recording,
which are not independent; Student's t over seeds where a number is all that is known of a fit.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
Seeds = int | Sequence[int]
Fit = Callable[[int], Mapping[str, "Outcome"]]  # seed -> what a fit scored on each split
BESIDE = ("seeds", "seconds", "revision", "settings")  # what a row holds beside its splits


@dataclass(frozen=True)
class Outcome:
    """What one fit scored on one split: `measures` of its units, and the `groups` (units,) that are drawn together.

    Without groups a measure is one number for the fit, and its interval is over seeds.

    >>> Outcome(groups=recording, measures={"top1": hits, "macro_f1": lambda rows: macro_f1(named[rows], target[rows])})
    """

    groups: ArrayLike | None
    measures: Mapping[str, Measure]
    extra: Mapping[str, Any] = field(default_factory=dict)  # kept beside the measures: the mean where seeds differ

    def of(self, rows: ArrayLike) -> "Outcome":
        """The same measures of some of the units: row numbers, or a mask."""
        groups = np.asarray(self.groups)
        chosen = np.arange(len(groups))[np.asarray(rows)]
        return Outcome(groups[chosen], {name: _part(each, chosen) for name, each in self.measures.items()})


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
    alike = all(np.array_equal(np.asarray(one.groups), np.asarray(other.groups)) for one, other in pairs)
    if not pairs or len(first) != len(second) or not alike:
        raise DataError("The two were not measured on the same units and seeds", hint="measure both again together")
    return {
        name: _interval([_minus(one.measures[name], other.measures[name]) for one, other in pairs], first[0].groups)
        for name in first[0].measures
        if name in second[0].measures
    }


def evaluate(
    models: Mapping[str, Fit],
    *,
    seeds: Seeds | Mapping[str, Seeds],
    about: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    against: str = "",
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
    times: float = 100,
) -> dict[str, Any]:
    """Fit every row with every seed and return {"about", "stamp", "rows": {row: {split: {measure: interval}}}}.

    `models` maps a row's name to `fit(seed)`, which gives an Outcome for each split; a split may come with some seeds
    alone. `seeds` is how many (1, 2, ...) or which, for all or by row. `about` describes the data, `settings` how each
    row was fitted: rows of an `earlier` result about the same, with the same settings and seeds, are taken up instead
    of measured again, and its other rows are kept. A row whose library is absent is left out. Splits also hold the
    paired `difference` to the row `against`, where the units are the same. `progress` is told the first measure of
    every split, `times` 100 for shares. What ends it early has the rows until then as `measured`.
    """
    chosen = {name: _which(seeds[name] if isinstance(seeds, Mapping) else seeds) for name in models}
    content, how = runs.plain(about), runs.plain(settings or {})
    rows = dict((earlier or {}).get("rows", {}))
    if rows and (earlier or {}).get("about") != content:
        progress(f"not of the same data, so left out: {', '.join(rows)}")
        rows = {}
    first = functools.cache(lambda: [models[against](seed) for seed in chosen[against]])
    for name, fit in models.items():
        before = rows.get(name, {})
        if (before.get("seeds"), before.get("settings", {})) == (chosen[name], how.get(name, {})):
            progress(f"{name}: measured before")
            continue
        began = time.monotonic()
        try:
            fits = first() if name == against else [fit(seed) for seed in chosen[name]]
        except ImportError as why:
            progress(f"{name}: left out, {why}")
            continue
        except BaseException as why:  # an interrupt, too: whoever keeps the result has the rows until then
            why.measured = {"about": content, "rows": rows}  # type: ignore[attr-defined]
            raise
        facts: dict[str, Any] = {"seeds": chosen[name], "seconds": round((time.monotonic() - began) / len(fits), 1)}
        facts |= {"revision": runs.revision()} | ({"settings": how[name]} if how.get(name) else {})
        rows[name] = measured(fits, first() if against in models and name != against else ()) | facts
        shown = [f"{split} {percent(next(iter(one.values())), times=times)}"
                for split, one in splits(rows[name]).items() if one["by_seed"]]  # fmt: skip
        progress(f"{name}: {', '.join(shown)}   ({facts['seconds']:.0f} s)")
    return {"about": content, "stamp": runs.stamp(), "rows": rows}


def _which(seeds: Seeds) -> list[int]:
    return list(range(1, seeds + 1)) if isinstance(seeds, int) else list(seeds)


def splits(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of a result scored on each split, without what stands beside."""
    return {name: figures for name, figures in row.items() if name not in BESIDE}


def intervals(figures: Mapping[str, Any]) -> dict[str, Interval]:
    """The measures among the plain figures of a split; ends that are not known are None."""
    known = {name: one for name, one in figures.items() if isinstance(one, Mapping) and "value" in one}
    return {name: Interval(one["value"], one.get("low"), one.get("high")) for name, one in known.items()}  # type: ignore[arg-type]


def measured(fits: Sequence[Mapping[str, Outcome]], others: Sequence[Mapping[str, Outcome]] = ()) -> dict[str, Any]:
    """{split: scores} of the fits of a row, each with its paired difference to the fits of the row `others`."""
    row = {}
    for split in dict.fromkeys(name for one in fits for name in one):
        outcomes, beside = ([one[split] for one in some if split in one] for some in (fits, others))
        row[split] = scores(outcomes)
        with suppress(DataError):  # of other units
            difference = paired_difference(outcomes, beside)
            row[split] |= runs.plain({"difference": {name: one._asdict() for name, one in difference.items()}})
    return row


def scores(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Intervals of one split as plain dicts, the values of each seed, and what the Outcomes hold extra."""
    intervals = {name: interval._asdict() for name, interval in summarise(outcomes).items()}
    by_seed = {name: [value(one.measures[name], one.groups) for one in outcomes] for name in intervals}
    extra = {
        name: [one.extra[name] for one in outcomes if name in one.extra] for each in outcomes for name in each.extra
    }
    return runs.plain(
        {**intervals, "by_seed": by_seed, **{name: _over(runs.plain(each)) for name, each in extra.items()}}
    )


def earlier(path: Path | None) -> dict[str, Any]:
    """What an earlier measurement left in the file `path`; nothing without one."""
    return read_json(path) if path and path.is_file() else {}


def publish(path: Path, result: Mapping[str, Any], *, command: str) -> Path:
    """Write `result` as JSON with the `command` that makes it again and the stamp of this machine; return the path."""
    stamped = {"made_by": {"command": command}, "stamp": runs.stamp(), **result}
    return paths.write_json(Path(path), runs.plain(stamped))


def percent(figure: Interval | Mapping[str, Any], *, digits: int = 1, times: float = 100) -> str:
    """`71.1 [68.3, 73.6]`: a share and its interval in per cent; the share alone where no interval is known."""
    ends = [figure.get(name) for name in Interval._fields] if isinstance(figure, Mapping) else figure
    value, *span = [f"{times * end:.{digits}f}" for end in ends if end is not None]
    return f"{value} [{', '.join(span)}]" if span else value


def _interval(measures: Sequence[Measure], groups: ArrayLike | None) -> Interval:
    """The mean of one measure over seeds with its interval; `measures` holds it for each seed."""
    if groups is None:
        return metrics.over_seeds([float(np.asarray(value)) for value in measures])
    if functions := [measure for measure in measures if callable(measure)]:
        mean = lambda rows: float(np.mean([score(rows) for score in functions]))  # noqa: E731
        return metrics.bootstrap_of(mean, groups, rounds=200)
    return metrics.bootstrap(np.mean(np.asarray(measures, np.float64), axis=0), groups=groups)


def _part(measure: Measure, chosen: Rows) -> Measure:
    return (lambda rows: measure(chosen[rows])) if callable(measure) else np.asarray(measure)[chosen]


def _over(values: list) -> Any:
    """One of `values`, a seed each: the same where they are alike, the mean of numbers where not."""
    if all(value == values[0] for value in values):
        return values[0]
    if isinstance(values[0], Mapping):
        return {name: _over([value[name] for value in values]) for name in values[0]}
    return np.mean(values, axis=0)


def _minus(first: Measure, second: Measure) -> Measure:
    if callable(first) and callable(second):
        return lambda rows: first(rows) - second(rows)
    return np.asarray(first, np.float64) - np.asarray(second, np.float64)


def value(measure: Measure, groups: ArrayLike | None) -> float:
    """A measure of all units."""
    return measure(np.arange(len(np.asarray(groups)))) if callable(measure) else float(np.mean(np.asarray(measure)))
