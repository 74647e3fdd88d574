"""`smellkit bench smellnet-sessions`: which method survives another day? Chosen on training recordings alone.

On another day a sensor rests elsewhere and answers more or less. All that the training split knows about it are the
substances with a second session: `movements` are those of their pairs, and windows moved like that are simulated days.
Held-out training recordings are moved as one pair of sessions was, forth and back; a method that learns from simulated
days learns from those of the other pairs. Five recordings of each substance, and the pairs, are left out in turn. The
method with the best top-1 there is the chosen one: that was decided before any of them was scored on recordings of
another session. Those scores stand beside it for every method: for all but the chosen one they are an observation, and
to choose by them would be to fit the test.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.errors import DataError
from smellkit.odour import recordings
from smellkit.odour.windows import PER_WINDOW, LabelledWindows, Protocol, cut
from smellkit.options import check
from smellkit.sensors import FULL, GAS, GROVE
from smellkit.study.evaluate import Outcome, evaluate
from smellkit.study.odour import smellnet, systems
from smellkit.study.odour.survey import number_sessions, other_sessions
from smellkit.study.odour.systems import ENSEMBLE, FREE, System, curves

CRITERION = "top-1 on held-out training recordings, moved like a pair of sessions that was left out"
COPIES, STRIDE = 2, 50  # windows that are moved for each as it was recorded, and the rows between two
SPREAD = 0.1  # of a movement that no pair of sessions showed, in logarithms
COUNTS = np.array([name in GROVE for name in GAS])
NETWORK, CONDUCTANCE, BOTH = ("curve-mlp",), Protocol("conductance"), Protocol("curve-and-level")
METHODS: dict[str, System] = {
    "strict differences": System(("summary-mlp",)),
    "level-free": curves(NETWORK, protocol=FREE),
    "conductance": curves(NETWORK, protocol=CONDUCTANCE),
    "gain augmentation 0.5": curves(NETWORK, augment={"gain": 0.5}),
    "ensemble, gain augmentation 0.3": curves(ENSEMBLE, augment={"gain": 0.3}),
    "discriminant, conductance": System(("lda",), CONDUCTANCE),
    "discriminant, curve and level": System(("lda",), BOTH),
    "simulated days, level-free": System(("lda",), FREE, days=True),
    "simulated days, conductance": System(("lda",), CONDUCTANCE, days=True),
    "simulated days, curve and level": System(("lda",), BOTH, days=True),
}


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


def move(rows: NDArray, by: NDArray) -> NDArray[np.float32]:
    """Counts `rows` (..., rows, 6) from sensors that have moved `by` (..., 12: log gains, then log levels)."""
    first, gain, level = rows[..., :1, :], np.exp(by[..., None, :6]), np.exp(by[..., None, 6:])
    moved = (first + 1) * level - 1 + gain * (rows - first)
    return np.clip(moved, 0, np.where(COUNTS, FULL, np.inf)).round().astype(np.float32)


def moving_windows(
    table: pd.DataFrame, protocol: Protocol, moved: pd.DataFrame, *, classes: Sequence[str] = (), seed: int = 0
) -> LabelledWindows:
    """Windows of the recordings in `table` as they are, and `COPIES` times more, each of a simulated day of its own.

    A day's movement is a random mix of those in `moved`, as large as they are.
    """
    if tuple(protocol.columns) != GAS:
        raise DataError("A simulated day moves the six gas channels", hint="a protocol with these columns")
    as_recorded = replace(protocol, representation="absolute")
    known, random = cut(table, as_recorded, stride=STRIDE, classes=classes), np.random.default_rng(seed)
    copies = [known.values]
    for _ in range(COPIES):
        mixes = random.normal(size=(len(known), len(moved))) @ moved.to_numpy() / np.sqrt(len(moved))
        copies.append(move(known.values, mixes + SPREAD * random.normal(size=mixes.shape)))
    whole = known[np.tile(np.arange(len(known)), len(copies))]
    return replace(whole, values=protocol.represent(np.concatenate(copies)))


def another_day(table: pd.DataFrame, by: NDArray) -> pd.DataFrame:
    """The recordings of `table` on a day on which the sensors had moved `by` (12,), for all of them alike."""
    parts = [rows.assign(**dict(zip(GAS, move(rows[list(GAS)].to_numpy(float), by).T, strict=True)))
             for _, rows in table.groupby("file", sort=False)]  # fmt: skip
    return pd.concat(parts)


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
    `seeds` fits on all training recordings, or not at all, and then an earlier figure stays. Rows of other methods in
    `earlier`, a result, are kept. {"about", "stamp", "rows", "chosen": the best method}.
    """
    check(methods, METHODS, "There is no method")
    training = recordings.read_recordings(data, "training")
    moved, away = movements(training), other_sessions(data) if seeds else None
    fits = {name: partial(measure, name, training, away, moved, folds=folds) for name in methods or METHODS}
    settings = {name: METHODS[name].settings | {"folds": folds, "away": away is not None} for name in fits}
    deviation = moved.pow(2).mean().pow(0.5).round(3).to_dict()
    about = {"movements": {"of": list(moved.index), "deviation": deviation}, "criterion": CRITERION}
    asked: dict[str, Any] = {"about": about, "settings": settings, "earlier": earlier}
    result = evaluate(fits, seeds=seeds or 1, progress=progress, **asked)
    for name in fits if not seeds else ():
        before = (earlier or {}).get("rows", {}).get(name, {})
        result["rows"][name] |= {split: one for split, one in before.items() if split == "other_session"}
    return {**result, "chosen": chosen(result["rows"])}


def chosen(rows: Mapping[str, Any]) -> str:
    """The method with the best top-1 on simulated days; other sessions have no say."""
    return max(rows, key=lambda name: rows[name].get("simulated", {"top1": {"value": -1}})["top1"]["value"])


def fit(system: System, table: pd.DataFrame, moved: pd.DataFrame, **how: Any) -> systems.Scorer:
    """Fit `system` to the recordings in `table`, and where it wants to, to days that `moved` like pairs of sessions."""
    if system.days:
        return systems.fit(system, moving_windows(table, system.protocol, moved), **how)
    return systems.fit(system, cut(table, system.protocol, stride=system.train_stride), **how)


def held_out(
    system: System, training: pd.DataFrame, moved: pd.DataFrame, *, folds: int, name: str
) -> Iterator[tuple[systems.Scorer, pd.DataFrame, NDArray]]:
    """Of each fold what a fit without it says, its recordings, and the pair of sessions that was left out, too."""
    number = training.groupby("substance")["file"].transform(lambda files: pd.factorize(files, sort=True)[0])
    for fold in range(folds):
        pair = moved.index[fold % len(moved)]
        others = moved.drop(index=pair) if len(moved) > 1 else moved
        scorer = fit(system, training[number != fold], others, name=f"{name}/fold={fold}")
        yield scorer, training[number == fold], moved.loc[pair].to_numpy()


def measure(
    name: str, training: pd.DataFrame, away: pd.DataFrame | None, moved: pd.DataFrame, seed: int, *, folds: int
) -> dict[str, Outcome]:
    """Top-1, top-5 and macro F1 of a method on simulated days, as recorded, and on the recordings of other sessions.

    A recording that was scored on several days counts as one for the interval. Days are simulated for the first seed.
    """
    system, classes = METHODS[name], tuple(sorted(training["substance"].unique()))

    def scored(scorer: systems.Scorer, table: pd.DataFrame) -> tuple[NDArray, LabelledWindows]:
        windows, files = cut(table, system.protocol, classes=classes), np.unique(table["file"])
        return scorer(windows.values), replace(windows, recording=files[windows.recording])

    def joined(parts: list[tuple[NDArray, LabelledWindows]]) -> Outcome:
        scores, windows = zip(*parts, strict=True)
        every = {name: np.concatenate([getattr(one, name) for one in windows]) for name in PER_WINDOW}
        return smellnet.outcome(np.concatenate(scores), replace(windows[0], **every))

    days, same, outcomes = [], [], {}
    for scorer, table, pair in (
        held_out(system, training, moved, folds=folds, name=f"sessions/{name}") if seed == 1 else ()
    ):
        same.append(scored(scorer, table))
        days += [scored(scorer, another_day(table, sign * pair)) for sign in (1, -1)]
    if seed == 1:
        outcomes = {"simulated": joined(days), "as recorded": joined(same)}
    if away is not None:
        away_scores = scored(fit(system, training, moved, seed=seed, name=f"sessions/{name}"), away)
        outcomes["other_session"] = smellnet.outcome(*away_scores)
    return outcomes
