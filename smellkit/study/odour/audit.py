"""`smellkit audit DIR`: how much of an accuracy may come from the session instead of the smell.

Recordings of one session share temperature, pressure, humidity and the sensors' resting level. If each substance was
recorded in one session, whatever tells sessions apart tells substances apart. The audit measures with inputs that hold
no smell, or hardly any, and on recordings from another time.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks import Report
from smellkit.errors import DataError
from smellkit.odour import recordings
from smellkit.odour.features import describe
from smellkit.odour.windows import LabelledWindows, Protocol, cut
from smellkit.sensors import ENVIRONMENT, GAS, SENSORS
from smellkit.study import metrics
from smellkit.study.evaluate import Fit, Outcome, evaluate
from smellkit.study.odour.survey import number_sessions, other_sessions

CLIMATE = "temperature, pressure, humidity, altitude"
ABSOLUTE, STRICT = "twelve channels, absolute", "six gas channels, differences (strict)"
SECOND = "twelve channels, absolute, without second sessions"
FIRST_ROWS = {  # inputs of one row, before any odour dynamics
    CLIMATE: ("Temperature", "Pressure", "Humidity", "Altitude"),
    "pressure alone": ("Pressure",),
    "six gas channels": GAS,
    "all twelve channels": SENSORS,
}
INPUTS = {  # of windows, with ever less smell-free information in them
    "environment columns": Protocol("absolute", ENVIRONMENT),
    ABSOLUTE: Protocol("absolute", SENSORS),
    "six gas channels, absolute": Protocol("absolute"),
    "six gas channels, level-free": Protocol("level-free"),
    STRICT: Protocol(),
}


def run(
    data: str | Path = "",
    *,
    trees: int = 200,
    seed: int = 0,
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure what a forest learns from inputs with ever less smell in them on the recordings in `data`.

    {"about", "stamp", "rows": {input: {"first row" or "windows", "other_session"}}, "verdict"}; intervals over
    recordings.
    """
    report = Report()
    training, testing = (recordings.read_recordings(data, split, report=report) for split in ("training", "testing"))
    away, classes = other_sessions(data, report), tuple(sorted(training["substance"].unique()))
    tables = {"windows": testing} | ({"other_session": away} if away is not None else {})

    def windows(protocol: Protocol, seed: int) -> dict[str, Outcome]:
        model, outcomes = _forest(cut(training, protocol, classes=classes), trees=trees, seed=seed), {}
        for split, table in tables.items():
            test = cut(table, protocol, classes=classes)
            scores = model.predict_proba(describe(test.values).numpy())
            hits = {f"top{k}": metrics.hits(scores, test.target, k=k) for k in (1, 5)}
            outcomes[split] = Outcome(test.recording, hits)
        return outcomes

    fits: dict[str, Fit] = {}
    for name, columns in FIRST_ROWS.items():
        fits[name] = partial(_first_row, training, testing, columns, trees)
    fits |= {name: partial(windows, protocol) for name, protocol in INPUTS.items()}
    double = _second_sessions(training)
    if len(double):
        fits[SECOND] = partial(_without, training, double, trees)
    about = {
        "chance_level": 1 / len(classes),
        "substances": len(classes),
        "recordings": {"training": training["file"].nunique(), "testing": testing["file"].nunique()},
        "second_sessions": sorted(set(training.loc[training["file"].isin(double), "substance"])),
        "faults": {str(note): int(count) for note, count in report.counts.items()},
        "trees": trees,
    }
    result = evaluate(fits, seeds=[seed], about=about, earlier=earlier, progress=progress)
    return result | {"verdict": verdict(result)}


def verdict(result: Mapping[str, Any]) -> str:
    """A paragraph in words, from the numbers alone."""
    chance, rows = result["about"]["chance_level"], result["rows"]
    climate, gas = (rows[name]["first row"]["top1"]["value"] for name in (CLIMATE, "six gas channels"))
    absolute = rows[ABSOLUTE]["windows"]["top1"]["value"]
    text = "One row of temperature, pressure, humidity and altitude, with no gas sensor in it, names "
    text += f"{climate:.0%} of the test recordings ({chance:.1%} by chance); one row of the six gas channels, "
    text += f"before any odour dynamics, {gas:.0%}. "
    if climate > max(5 * chance, 0.2):
        text += "So the session gives the substance away: training and test recordings share it. "
        text += f"The {absolute:.0%} of windows that absolute levels of all channels reach are a session detector's. "
    else:
        text += "So the surroundings say little about the substance here. "
    text += _on_another_day(rows, absolute)
    if SECOND in rows:
        count, right = len(result["about"]["second_sessions"]), rows[SECOND]["second sessions"]["top1"]["value"]
        text += f" {count} substances have a second session in the training split; without it, "
        text += f"{right:.0%} of its windows are named right from absolute levels."
    return text.strip()


def _on_another_day(rows: Mapping[str, Any], absolute: float) -> str:
    """What the recordings of other sessions say, for the verdict."""
    if "other_session" not in rows[ABSOLUTE]:
        return "There are no online_* recordings here, so nothing is known about another day. "
    moved = rows[ABSOLUTE]["other_session"]["top1"]["value"]
    strict, kept = (rows[STRICT][split]["top1"]["value"] for split in ("windows", "other_session"))
    text = f"On recordings from another time the same model falls from {absolute:.0%} to {moved:.0%}, "
    text += f"and the strict differences from {strict:.0%} to {kept:.0%}. "
    within = "Read test accuracy as recognition within a session, and expect the other-session figure on a new day."
    return text + ("The figure survives a change of session." if moved >= absolute / 2 else within)


def _first_row(training, testing, columns, trees: int, seed: int) -> dict[str, Outcome]:
    first, rows = (table[table["step"] == 0] for table in (training, testing))
    rows = rows[rows["substance"].isin(first["substance"])]
    names, target = np.unique(first["substance"], return_inverse=True)
    model = _trees(first[list(columns)].to_numpy(), target, trees=trees, seed=seed)
    right = names[model.predict(rows[list(columns)].to_numpy())] == rows["substance"].to_numpy()
    return {"first row": Outcome(np.arange(len(right)), {"top1": right})}


def _second_sessions(training: pd.DataFrame) -> NDArray:
    """The files of second sessions, of the substances that have two."""
    number = number_sessions(training)
    return number.index[number > 0].to_numpy()


def _without(training: pd.DataFrame, files: NDArray, trees: int, seed: int) -> dict[str, Outcome]:
    """Windows of the `files`, when they were left out of the training."""
    classes, protocol = tuple(sorted(training["substance"].unique())), Protocol("absolute", SENSORS)
    away = training["file"].isin(files)
    train, test = (cut(part, protocol, classes=classes) for part in (training[~away], training[away]))
    right = _forest(train, trees=trees, seed=seed).predict(describe(test.values).numpy()) == test.target
    return {"second sessions": Outcome(test.recording, {"top1": right})}


def _forest(windows: LabelledWindows, **how: int) -> Any:
    return _trees(describe(windows.values).numpy(), windows.target, **how)


def _trees(x: NDArray, target: NDArray, *, trees: int, seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    if len(np.unique(target)) < 2:
        raise DataError("An audit needs two substances at least", hint="choose a folder with more of them")
    return ExtraTreesClassifier(trees, random_state=seed).fit(x, target)
