"""`smellkit audit DIR`: how much of an accuracy may come from the session instead of the smell.

Recordings of one session share temperature, pressure, humidity and the sensors' resting level. If each substance was
recorded in one session, whatever tells sessions apart tells substances apart. The audit measures with inputs that hold
no smell, or hardly any, and on recordings from another time.
"""

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
from smellkit.study.evaluate import Outcome, percent, summarise
from smellkit.study.odour.survey import number_sessions, other_sessions

FIRST_ROWS = {  # inputs of one row, before any odour dynamics
    "temperature, pressure, humidity, altitude": ("Temperature", "Pressure", "Humidity", "Altitude"),
    "pressure alone": ("Pressure",),
    "six gas channels": GAS,
    "all twelve channels": SENSORS,
}
INPUTS = {  # of windows, with ever less smell-free information in them
    "environment columns": Protocol("absolute", ENVIRONMENT),
    "twelve channels, absolute": Protocol("absolute", SENSORS),
    "six gas channels, absolute": Protocol("absolute"),
    "six gas channels, level-free": Protocol("level-free"),
    "six gas channels, differences (strict)": Protocol(),
}


def run(data: str | Path = "", *, trees: int = 200, seed: int = 0) -> dict[str, Any]:
    """Measure what a forest learns from inputs with ever less smell in them on the recordings in `data`.

    Returns {"chance_level", "recordings", "first_row", "windows", "other_session", "second_sessions", "verdict"};
    accuracies as {value, low, high} with intervals over recordings.
    """
    report = Report()
    training, testing = (recordings.read_recordings(data, split, report=report) for split in ("training", "testing"))
    away, classes = other_sessions(data, report), tuple(sorted(training["substance"].unique()))
    how = {"trees": trees, "seed": seed}
    tables = {"windows": testing} | ({"other_session": away} if away is not None else {})
    result: dict[str, Any] = {
        "chance_level": 1 / len(classes),
        "substances": len(classes),
        "recordings": {"training": training["file"].nunique(), "testing": testing["file"].nunique()},
        "first_row": {name: _first_row(training, testing, columns, **how) for name, columns in FIRST_ROWS.items()},
        "windows": {},
        "other_session": {},
    }
    for name, protocol in INPUTS.items():
        model = _forest(cut(training, protocol, classes=classes), **how)
        for split, table in tables.items():
            test = cut(table, protocol, classes=classes)
            scores = model.predict_proba(describe(test.values).numpy())
            hits = {f"top{k}": metrics.hits(scores, test.target, k=k) for k in (1, 5)}
            intervals = summarise([Outcome(test.recording, hits)])
            result[split][name] = {measure: interval._asdict() for measure, interval in intervals.items()}
    result["second_sessions"] = _second_sessions(training, **how)
    result["faults"] = {str(note): int(count) for note, count in report.counts.items()}
    return result | {"verdict": verdict(result)}


def verdict(result: dict[str, Any]) -> str:
    """A paragraph in words, from the numbers alone."""
    chance, first, windows = result["chance_level"], result["first_row"], result["windows"]
    climate, gas = (first[name]["value"] for name in ("temperature, pressure, humidity, altitude", "six gas channels"))
    absolute = windows["twelve channels, absolute"]["top1"]["value"]
    text = "One row of temperature, pressure, humidity and altitude, with no gas sensor in it, names "
    text += f"{climate:.0%} of the test recordings ({chance:.1%} by chance); one row of the six gas channels, "
    text += f"before any odour dynamics, {gas:.0%}. "
    if climate > max(5 * chance, 0.2):
        text += "So the session gives the substance away: training and test recordings share it. "
        text += f"The {absolute:.0%} of windows that absolute levels of all channels reach are a session detector's. "
    else:
        text += "So the surroundings say little about the substance here. "
    text += _on_another_day(result, absolute)
    if result["second_sessions"]["substances"]:
        count = len(result["second_sessions"]["substances"])
        text += f" {count} substances have a second session in the training split; without it, "
        text += f"{result['second_sessions']['top1']:.0%} of its windows are named right from absolute levels."
    return text.strip()


def _on_another_day(result: dict[str, Any], absolute: float) -> str:
    """What the recordings of other sessions say, for the verdict."""
    if not result["other_session"]:
        return "There are no online_* recordings here, so nothing is known about another day. "
    name = "six gas channels, differences (strict)"
    moved = result["other_session"]["twelve channels, absolute"]["top1"]["value"]
    strict, kept = (result[split][name]["top1"]["value"] for split in ("windows", "other_session"))
    text = f"On recordings from another time the same model falls from {absolute:.0%} to {moved:.0%}, "
    text += f"and the strict differences from {strict:.0%} to {kept:.0%}. "
    within = "Read test accuracy as recognition within a session, and expect the other-session figure on a new day."
    return text + ("The figure survives a change of session." if moved >= absolute / 2 else within)


def report(result: dict[str, Any]) -> str:
    """The audit as text."""
    count, chance = result["substances"], result["chance_level"]
    lines = [f"{result['recordings']} recordings of {count} substances, chance {chance:.1%}"]
    lines += ["", "First row of a recording alone, per cent"]
    lines += [f"  {name:42} {percent(value)}" for name, value in result["first_row"].items()]
    lines += ["", "Windows of the test split, top-1 in per cent (and from another session, top-1 / top-5)"]
    for name, value in result["windows"].items():
        away = result["other_session"].get(name)
        more = f"   {100 * away['top1']['value']:.1f} / {100 * away['top5']['value']:.1f}" if away else ""
        lines.append(f"  {name:42} {percent(value['top1'])}{more}")
    return "\n".join([*lines, "", result["verdict"]])


def _first_row(training, testing, columns, *, trees: int, seed: int) -> dict[str, float]:
    first, rows = (table[table["step"] == 0] for table in (training, testing))
    rows = rows[rows["substance"].isin(first["substance"])]
    names, target = np.unique(first["substance"], return_inverse=True)
    model = _trees(first[list(columns)].to_numpy(), target, trees=trees, seed=seed)
    right = names[model.predict(rows[list(columns)].to_numpy())] == rows["substance"].to_numpy()
    return summarise([Outcome(np.arange(len(right)), {"top1": right})])["top1"]._asdict()


def _second_sessions(training: pd.DataFrame, *, trees: int, seed: int) -> dict[str, Any]:
    """Accuracy on the second session of the substances that have two, when it was left out of the training."""
    number = number_sessions(training)
    substance = training.groupby("file", sort=True)["substance"].first()
    double = sorted(set(substance[number > 0]))
    if not double:
        return {"substances": [], "top1": None}
    classes = tuple(sorted(training["substance"].unique()))
    away, protocol = training["file"].isin(number.index[number > 0]), Protocol("absolute", SENSORS)
    train, test = (cut(part, protocol, classes=classes) for part in (training[~away], training[away]))
    right = _forest(train, trees=trees, seed=seed).predict(describe(test.values).numpy()) == test.target
    return {"substances": double, "top1": float(right.mean())}


def _forest(windows: LabelledWindows, **how: int) -> Any:
    return _trees(describe(windows.values).numpy(), windows.target, **how)


def _trees(x: NDArray, target: NDArray, *, trees: int, seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    if len(np.unique(target)) < 2:
        raise DataError("An audit needs two substances at least", hint="choose a folder with more of them")
    return ExtraTreesClassifier(trees, random_state=seed).fit(x, target)
