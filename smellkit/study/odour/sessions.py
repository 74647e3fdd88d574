"""`smellkit bench smellnet-sessions`: which method survives another day? Chosen on training recordings alone.

Held-out training recordings are moved as one pair of sessions was (`days`), forth and back; a method that learns from
simulated days learns from those of the other pairs. Five recordings of each substance, and the pairs, are left out in
turn. The method with the best top-1 there is the chosen one: that was decided before any of them was scored on
recordings of another session. Those scores stand beside it for every method: for all but the chosen one they are an
observation, and to choose by them would be to fit the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import runs
from smellkit.odour import recordings
from smellkit.odour.windows import LabelledWindows, Protocol, cut
from smellkit.options import check
from smellkit.study.evaluate import percent
from smellkit.study.odour import smellnet, systems
from smellkit.study.odour.days import another_day, movements, moving_windows
from smellkit.study.odour.survey import other_sessions
from smellkit.study.odour.systems import ENSEMBLE, FREE, System, curves

CRITERION = "top-1 on held-out training recordings, moved like a pair of sessions that was left out"
NETWORK = ("curve-mlp",)
METHODS: dict[str, System] = {
    "strict differences": System(("summary-mlp",)),
    "level-free": curves(NETWORK, FREE),
    "conductance": curves(NETWORK, Protocol("conductance")),
    "gain augmentation 0.5": curves(NETWORK, augment={"gain": 0.5}),
    "ensemble, gain augmentation 0.3": curves(ENSEMBLE, augment={"gain": 0.3}),
    "discriminant, conductance": System(("lda",), Protocol("conductance")),
    "discriminant, curve and level": System(("lda",), Protocol("curve-and-level")),
    "simulated days, level-free": System(("lda",), FREE, days=True),
    "simulated days, conductance": System(("lda",), Protocol("conductance"), days=True),
    "simulated days, curve and level": System(("lda",), Protocol("curve-and-level"), days=True),
}


def run(
    data: str | Path = "",
    *,
    methods: Sequence[str] = (),
    folds: int = 5,
    seeds: int = 0,
    progress: Callable[[str], object] = lambda _: None,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Score `methods` (all by default) on simulated days and on the recordings of other sessions in `data`.

    `folds` recordings of each substance are held out in turn for the simulated days; the other sessions are scored by
    `seeds` fits on all training recordings, or not at all, and then an earlier figure stays. Figures of other methods
    in `earlier`, a result, are kept.
    """
    check(methods, METHODS, "There is no method")
    training = recordings.read_recordings(data, "training")
    moved, before = movements(training), (earlier or {}).get("methods", {})
    rows = {name: row for name, row in before.items() if row.get("criterion") == CRITERION}
    rows |= {
        name: {key: row[key] for key in row if key != "simulated"} for name, row in before.items() if name not in rows
    }
    for name in methods or METHODS:
        kept = {key: rows[name][key] for key in ("other_session",) if key in rows.get(name, {})}
        rows[name] = kept | measure(
            name, training, other_sessions(data) if seeds else None, moved, folds=folds, seeds=seeds
        )
        progress(line(name, rows[name]))
    best = chosen(rows)
    return {
        "movements": {"of": list(moved.index), "deviation": moved.pow(2).mean().pow(0.5).round(3).to_dict()},
        "criterion": CRITERION,
        "chosen": {best: rows[best]},
        "methods": rows,
    }


def chosen(methods: dict[str, Any]) -> str:
    """The method with the best top-1 on simulated days; other sessions have no say."""
    return max(methods, key=lambda name: methods[name].get("simulated", {"top1": {"value": -1}})["top1"]["value"])


def fit(system: System, table: pd.DataFrame, moved: pd.DataFrame, **how: Any) -> systems.Scorer:
    """Fit `system` to the recordings in `table`, and where it wants to, to days that `moved` like pairs of sessions."""
    days, seed = moving_windows(table, system.protocol, moved) if system.days else None, how.pop("seed", 1)
    train = days if days is not None else cut(table, system.protocol, stride=system.train_stride)
    return systems.fit(system, train, seed=seed, **how)


def left_out(training: pd.DataFrame, moved: pd.DataFrame, fold: int) -> tuple[NDArray, pd.DataFrame, NDArray]:
    """Which rows of `training` are recording `fold` of a substance, the pairs to learn from, and the one left out."""
    numbers = training.groupby("substance")["file"].transform(lambda files: pd.factorize(files, sort=True)[0])
    pair = fold % len(moved)
    rest = moved.drop(index=moved.index[pair]) if len(moved) > 1 else moved
    return (numbers == fold).to_numpy(), rest, moved.iloc[pair].to_numpy()


def measure(
    name: str, training: pd.DataFrame, away: pd.DataFrame | None, moved: pd.DataFrame, *, folds: int, seeds: int
) -> dict[str, Any]:
    """Top-1, top-5 and macro F1 of a method on simulated days, as recorded, and on the recordings of other sessions."""
    system, classes = METHODS[name], tuple(sorted(training["substance"].unique()))
    names = sorted({*training["file"], *(away["file"] if away is not None else [])})

    def scored(scorer: systems.Scorer, table: pd.DataFrame) -> tuple[NDArray, LabelledWindows]:
        windows = cut(table, system.protocol, classes=classes)
        number = np.array([names.index(file) for file in sorted(set(table["file"]))])
        return scorer(windows.values), replace(windows, recording=number[windows.recording])

    days, same = [], []
    for fold in range(folds):
        held, others, pair = left_out(training, moved, fold)
        scorer = fit(system, training[~held], others, name=f"sessions/{name}/fold={fold}")
        same.append(scored(scorer, training[held]))
        days += [scored(scorer, another_day(training[held], sign * pair)) for sign in (1, -1)]
    row = {
        "criterion": CRITERION,
        "simulated": _figures(days),
        "as recorded": _figures(same),
        "revision": runs.revision(),
    }
    if away is not None and seeds:
        fits = [fit(system, training, moved, seed=seed, name=f"sessions/{name}") for seed in range(1, seeds + 1)]
        scores, other = zip(*(scored(scorer, away) for scorer in fits), strict=True)
        row["other_session"] = smellnet.at_level(scores, other[0])
    return row


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
    each = [(score, one.target, one.recording) for score, one in parts]
    scores, target, whose = map(np.concatenate, zip(*each, strict=True))
    return smellnet.at_level([scores], LabelledWindows(scores, target, whose, target, target, parts[0][1].classes))
