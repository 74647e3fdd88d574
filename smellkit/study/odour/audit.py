"""`smellkit audit DIR`: how much of an accuracy may come from the session instead of the smell.

Recordings of one sitting share temperature, pressure, humidity and the sensors' resting level. If each substance was
recorded in one sitting, whatever tells sittings apart tells substances apart. The audit measures with inputs that hold
no smell, or hardly any, and on recordings from another time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import metrics
from smellkit.checks import Report
from smellkit.errors import DataError
from smellkit.odour import recordings
from smellkit.odour.features import describe
from smellkit.odour.recordings import ENVIRONMENT, GAS, SENSORS
from smellkit.odour.sessions import other_sessions, sittings
from smellkit.odour.windows import Protocol, Windows, cut

CLIMATE = ("Temperature", "Pressure", "Humidity", "Altitude")


def run(data: str | Path = "", *, trees: int = 200, seed: int = 0) -> dict[str, Any]:
    """Measure what a forest learns from inputs with ever less smell in them on the recordings in `data`.

    Returns {"chance", "recordings", "rows", "windows", "other_session", "sittings", "verdict"}; accuracies as
    {value, low, high} with intervals over recordings.
    """
    report = Report()
    training = recordings.read_recordings(data, "training", report=report)
    testing = recordings.read_recordings(data, "testing", report=report)
    away = other_sessions(data, report)
    classes = tuple(sorted(training["substance"].unique()))
    found: dict[str, Any] = {
        "chance": 1 / len(classes),
        "substances": len(classes),
        "recordings": {"training": training["file"].nunique(), "testing": testing["file"].nunique()},
        "first_row": {
            name: _first_row(training, testing, columns, trees=trees, seed=seed)
            for name, columns in {
                "temperature, pressure, humidity, altitude": CLIMATE,
                "pressure alone": ("Pressure",),
                "six gas channels": GAS,
                "all twelve channels": SENSORS,
            }.items()
        },
    }
    views = {
        "environment columns": Protocol("absolute", ENVIRONMENT),
        "twelve channels, absolute": Protocol("absolute", SENSORS),
        "six gas channels, absolute": Protocol("absolute"),
        "six gas channels, level-free": Protocol("level-free"),
        "six gas channels, differences (strict)": Protocol(),
    }
    found["windows"], found["other_session"] = {}, {}
    for name, protocol in views.items():
        train = cut(training, protocol, classes=classes)
        scorer = _forest(describe(train.values).numpy(), train.target, trees=trees, seed=seed)
        found["windows"][name] = _graded(scorer, cut(testing, protocol, classes=classes))
        if away is not None:
            found["other_session"][name] = _graded(scorer, cut(away, protocol, classes=classes))
    found["sittings"] = _sittings(training, trees=trees, seed=seed)
    found["faults"] = {str(note): int(count) for note, count in report.counts.items()}
    found["verdict"] = verdict(found)
    return found


def verdict(found: dict[str, Any]) -> str:
    """A paragraph in words, from the numbers alone."""
    chance, first, windows = found["chance"], found["first_row"], found["windows"]
    climate = first["temperature, pressure, humidity, altitude"]["value"]
    gas, strict = first["six gas channels"]["value"], windows["six gas channels, differences (strict)"]["top1"]["value"]
    absolute = windows["twelve channels, absolute"]["top1"]["value"]
    text = "One row of temperature, pressure, humidity and altitude, with no gas sensor in it, names "
    text += f"{climate:.0%} of the test recordings ({chance:.1%} by chance); one row of the six gas channels, "
    text += f"before any odour dynamics, {gas:.0%}. "
    if climate > max(5 * chance, 0.2):
        text += "So the sitting gives the substance away: training and test recordings share it. "
        text += f"The {absolute:.0%} of windows that absolute levels of all channels reach are a session detector's. "
    else:
        text += "So the surroundings say little about the substance here. "
    if found["other_session"]:
        moved = found["other_session"]["twelve channels, absolute"]["top1"]["value"]
        kept = found["other_session"]["six gas channels, differences (strict)"]["top1"]["value"]
        text += f"On recordings from another time the same model falls from {absolute:.0%} to {moved:.0%}, "
        text += f"and the strict differences from {strict:.0%} to {kept:.0%}. "
        text += (
            "Read test accuracy as recognition within a sitting, and expect the other-session figure on a new day."
            if moved < absolute / 2
            else "The figure survives a change of session."
        )
    else:
        text += "There are no online_* recordings here, so nothing is known about another day. "
    if found["sittings"]["substances"]:
        text += f" {len(found['sittings']['substances'])} substances have a second sitting in the training split; "
        text += f"without it, {found['sittings']['top1']:.0%} of its windows are named right from absolute levels."
    return text.strip()


def report(found: dict[str, Any]) -> str:
    """The audit as text."""
    lines = [f"{found['recordings']} recordings of {found['substances']} substances, chance {found['chance']:.1%}"]
    lines += ["", "First row of a recording alone"]
    lines += [f"  {name:42} {_percent(value)}" for name, value in found["first_row"].items()]
    lines += ["", "Windows of the test split, top-1 (and from another session, top-1 / top-5)"]
    for name, value in found["windows"].items():
        away = found["other_session"].get(name)
        more = f"   {away['top1']['value']:.1%} / {away['top5']['value']:.1%}" if away else ""
        lines.append(f"  {name:42} {_percent(value['top1'])}{more}")
    return "\n".join([*lines, "", found["verdict"]])


def _percent(interval: dict[str, float]) -> str:
    return f"{interval['value']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"


def _first_row(training, testing, columns, *, trees: int, seed: int) -> dict[str, float]:
    rows = training[training["step"] == 0], testing[testing["step"] == 0]
    testable = rows[1][rows[1]["substance"].isin(rows[0]["substance"])]
    names, target = np.unique(rows[0]["substance"], return_inverse=True)
    model = _forest(rows[0][list(columns)].to_numpy(), target, trees=trees, seed=seed)
    said = names[model.predict(testable[list(columns)].to_numpy())]
    return metrics.bootstrap((said == testable["substance"].to_numpy()).astype(float))._asdict()


def _graded(model, test: Windows) -> dict[str, Any]:
    scores = model.predict_proba(describe(test.values).numpy())
    return {
        f"top{k}": metrics.bootstrap(metrics.hits(scores, test.target, k=k), groups=test.recording)._asdict()
        for k in (1, 5)
    }


def _sittings(training: pd.DataFrame, *, trees: int, seed: int) -> dict[str, Any]:
    """Accuracy on the second sitting of the substances that have two, when it was left out of the training."""
    number = sittings(training)
    substance = training.groupby("file", sort=True)["substance"].first()
    double = sorted(set(substance[number > 0]))
    held = number.index[(number > 0) & substance.isin(double)]
    if not double:
        return {"substances": [], "top1": None}
    protocol = Protocol("absolute", SENSORS)
    classes = tuple(sorted(training["substance"].unique()))
    away = training["file"].isin(held)
    train, test = (cut(part, protocol, classes=classes) for part in (training[~away], training[away]))
    model = _forest(describe(train.values).numpy(), train.target, trees=trees, seed=seed)
    right = model.predict(describe(test.values).numpy()) == test.target
    return {"substances": double, "top1": float(right.mean())}


def _forest(x: NDArray, target: NDArray, *, trees: int, seed: int):
    from sklearn.ensemble import ExtraTreesClassifier

    if len(np.unique(target)) < 2:
        raise DataError("An audit needs two substances at least", hint="choose a folder with more of them")
    return ExtraTreesClassifier(trees, random_state=seed).fit(x, target)
