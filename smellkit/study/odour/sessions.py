"""`smellkit bench smellnet-sessions`: which method survives another day? Chosen on training recordings alone.

On another day a sensor rests elsewhere and answers more or less. All that the training split knows about it are the
substances with a second session: how their channels' logarithmic amplitude and resting level moved between sessions. A
simulated day moves held-out training recordings by a random mix of those movements; the recordings of one category of
substances share a day. The method with the best top-1 there is the chosen one: that was decided before any of them was
scored on recordings of another session. Those scores stand beside it for every method: for all but the chosen one they
are an observation, and to choose by them would be to fit the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import runs
from smellkit.errors import DataError, OptionError
from smellkit.odour import recordings
from smellkit.odour.windows import LabelledWindows, Protocol, cut
from smellkit.sensors import FULL, GAS, GROVE
from smellkit.study.evaluate import percent
from smellkit.study.odour import smellnet, systems
from smellkit.study.odour.survey import number_sessions, other_sessions
from smellkit.study.odour.systems import ENSEMBLE, FREE, System, curves

DAYS = 3  # simulated for each category and fold
NETWORK = ("curve-mlp",)
METHODS: dict[str, System] = {
    "strict differences": System(("summary-mlp",)),
    "rebuilt": curves(NETWORK),
    "level-free": curves(NETWORK, FREE),
    "conductance": curves(NETWORK, Protocol("conductance")),
    "gain augmentation 0.5": curves(NETWORK, augment={"gain": 0.5}),
    "ensemble": curves(ENSEMBLE),
    "ensemble, gain augmentation 0.3": curves(ENSEMBLE, augment={"gain": 0.3}),
}


def run(
    data: str | Path = "",
    *,
    methods: Sequence[str] = (),
    folds: int = 1,
    seeds: int = 1,
    progress: Callable[[str], object] = lambda _: None,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Score `methods` (all by default) on simulated days and on the recordings of other sessions in `data`.

    `folds` recordings of each substance are held out in turn for the simulated days; the other sessions are scored by
    `seeds` fits on all training recordings. Figures of other methods in `earlier`, a result, are kept.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise OptionError(f"There is no method {unknown[0]!r}", hint="one of " + ", ".join(METHODS))
    training = recordings.read_recordings(data, "training")
    away = other_sessions(data)
    moved = movements(training)
    rows = dict((earlier or {}).get("methods", {}))
    for name in methods or METHODS:
        rows[name] = measure(name, training, away, moved, folds=folds, seeds=seeds)
        progress(line(name, rows[name]))
    best = chosen(rows)
    return {
        "movements": {"of": list(moved.index), "deviation": moved.pow(2).mean().pow(0.5).round(3).to_dict()},
        "criterion": "top-1 on simulated days of held-out training recordings",
        "chosen": {best: rows[best]},
        "methods": rows,
    }


def chosen(methods: dict[str, Any]) -> str:
    """The method with the best top-1 on simulated days; other sessions have no say."""
    return max(methods, key=lambda name: methods[name]["simulated"]["top1"]["value"])


def measure(
    name: str, training: pd.DataFrame, away: pd.DataFrame | None, moved: pd.DataFrame, *, folds: int, seeds: int
) -> dict[str, Any]:
    """Top-1, top-5 and macro F1 of a method on simulated days, as recorded, and on the recordings of other sessions."""
    system, classes = METHODS[name], tuple(sorted(training["substance"].unique()))
    numbers = training.groupby("substance")["file"].transform(lambda files: pd.factorize(files, sort=True)[0])

    def scored(scorer: systems.Scorer, table: pd.DataFrame) -> tuple[NDArray, LabelledWindows]:
        windows = cut(table, system.protocol, classes=classes)
        return scorer(windows.values), windows

    days, same = [], []
    for fold in range(folds):
        train = cut(training[numbers != fold], system.protocol, stride=system.train_stride, classes=classes)
        scorer, held = systems.fit(system, train, name=f"sessions/{name}/fold={fold}"), training[numbers == fold]
        same.append(scored(scorer, held))
        for number, (_, day) in enumerate(held.groupby(held["substance"].map(smellnet.category))):
            seeds_of_day = [1000 * fold + 10 * number + draw for draw in range(DAYS)]
            days += [scored(scorer, simulate(day, moved, seed=seed)) for seed in seeds_of_day]
    row = {"simulated": _figures(days), "as recorded": _figures(same), "revision": runs.revision()}
    if away is not None and seeds:
        train = cut(training, system.protocol, stride=system.train_stride)
        fits = [systems.fit(system, train, seed=seed, name=f"sessions/{name}") for seed in range(1, seeds + 1)]
        scores, other = zip(*(scored(scorer, away) for scorer in fits), strict=True)
        row["other_session"] = smellnet.at_level(scores, other[0])
    return row


def movements(training: pd.DataFrame) -> pd.DataFrame:
    """How each channel's log amplitude and log level moved between two sessions of a substance, one row a pair.

    Columns "gain NO2", ..., "level NO2", ...; DataError when no substance has a second session.
    """
    by_file = training.groupby("file", sort=True)
    changes = by_file[list(GAS)].apply(lambda rows: rows.diff(25).abs().mean())
    levels = by_file[list(GAS)].first()
    known = pd.concat([np.log(changes + 0.5).add_prefix("gain "), np.log(levels + 1).add_prefix("level ")], axis=1)
    substance = by_file["substance"].first()
    means = known.groupby([substance, number_sessions(training)]).mean()
    moves = {}
    for name, rows in means.groupby(level=0):
        for later in range(1, len(rows)):
            moves[f"{name}, session {later + 1}"] = rows.iloc[later] - rows.iloc[0]
    if not moves:
        raise DataError("No substance has a second session", hint="a simulated day needs one to learn from")
    return pd.DataFrame(moves).T


def simulate(day: pd.DataFrame, moved: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The recordings of `day` as another day's sensors might have given them: one random mix of `moved` for all."""
    random = np.random.default_rng(seed)
    mix = pd.Series(random.normal(size=len(moved)) @ moved.to_numpy() / np.sqrt(len(moved)), moved.columns)
    moved_day = day.copy()
    first = day.groupby("file")[list(GAS)].transform("first")
    for name in GAS:
        level = (first[name] + 1) * np.exp(mix[f"level {name}"]) - 1
        values = level + np.exp(mix[f"gain {name}"]) * (day[name] - first[name])
        moved_day[name] = values.clip(0, FULL if name in GROVE else None).round()
    return moved_day


def report(result: dict[str, Any]) -> str:
    """The table as text, the chosen method last."""
    lines = [line(name, row) for name, row in result["methods"].items()]
    return "\n".join([*lines, f"Chosen by {result['criterion']}: {next(iter(result['chosen']))}"])


def line(name: str, row: dict[str, Any]) -> str:
    """One method's figures in a line."""
    kinds = {kind: row[kind] for kind in ("simulated", "as recorded", "other_session") if kind in row}
    parts = [f"{kind} {percent(one['top1'])} / {100 * one['top5']['value']:.1f}" for kind, one in kinds.items()]
    return f"  {name:34} " + "   ".join(parts)


def _figures(parts: list[tuple[NDArray, LabelledWindows]]) -> dict[str, Any]:
    """Figures over scored sets; a recording that was scored on several days counts as one for the interval."""
    each = [(score, one.target, 10_000 * one.target + one.recording) for score, one in parts]
    scores, target, whose = map(np.concatenate, zip(*each, strict=True))
    return smellnet.at_level([scores], LabelledWindows(scores, target, whose, target, target, parts[0][1].classes))
