"""The rest of `smellkit learn`: the session audit, weights with a card, and the report, from what `own` measured."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from smellkit import checkpoint, runs
from smellkit.odour.smell import board_ranges
from smellkit.odour.windows import LabelledWindows, Protocol
from smellkit.study import metrics
from smellkit.study.evaluate import Outcome, percent, summarise
from smellkit.study.odour import calibrated
from smellkit.study.odour.own import SHORT, Own, Trial, features, network
from smellkit.study.odour.systems import Discriminant, forest

REFERENCES = 2000  # training windows whose z stays with the weights, for `smellkit calibrate`
COUNTS = {"least": 1e-3}  # of a count: features of whole counts that lie nearer are told apart by rounding alone

# Smell, or session?


def first_row(own: Own, windows: LabelledWindows, fold: NDArray[np.int64], *, seed: int = 7) -> dict[str, Outcome]:
    """Input -> which recordings forests name from their first row, in the folds of the trial; by recording."""
    first = own.table.groupby("file", sort=True).first()
    used, begins = np.unique(windows.recording, return_index=True)
    fold_of = fold[begins]
    rows, target = first.iloc[used], np.array([windows.classes.index(name) for name in first["substance"].iloc[used]])
    others = [name for name in own.nose.columns if name not in own.nose.gas and own.nose.columns[name].role != "other"]
    inputs = {"first row, gas columns": list(own.nose.gas), "first row, " + ", ".join(others).lower(): others}
    shown = {}
    for name in [name for name, columns in inputs.items() if columns and not own.nose.features]:
        x = rows[inputs[name]].to_numpy()
        right = np.zeros(len(target))
        for number in np.unique(fold_of):
            train, test = fold_of != number, fold_of == number
            right[test] = forest(seed, trees=200).fit(x[train], target[train]).predict(x[test]) == target[test]
        shown[name] = Outcome(used, {"accuracy": right})
    return shown


def audit(
    own: Own, windows: LabelledWindows, fold: NDArray[np.int64], trial: Trial, *, seed: int = 7
) -> dict[str, Any]:
    """What one row of a recording gives away before anything is smelled, in the folds of the trial, and a verdict.

    {"first_row": {input: interval}, "chance", "verdict"}; forests on the first row of each recording.
    """
    outcomes = first_row(own, windows, fold, seed=seed)
    shown = {name: summarise([outcome])["accuracy"] for name, outcome in outcomes.items()}
    best, chance = trial.accuracy(trial.kept).value, trial.accuracy("null").value
    result = {"first_row": {name: value._asdict() for name, value in shown.items()}, "chance": chance}
    return result | {"verdict": verdict(shown, chance=chance, best=best)}


def verdict(first: Mapping[str, metrics.Interval], *, chance: float, best: float) -> str:
    """A sentence or two in words, from the numbers alone."""
    if not first:
        return "A row is a whole exposure here, so nothing comes before the smell: only other sessions can tell."
    name, value = max(first.items(), key=lambda item: item[1].value)
    text = f"One row, before any smell is there ({name.removeprefix('first row, ')}), names {value.value:.0%} of the "
    text += f"recordings, the most frequent class alone {chance:.0%}, and the whole recording {best:.0%}. "
    if value.low > chance and value.value - chance > 0.3 * (best - chance):
        return text + (
            "So recordings of a class resemble each other before they smell: they share a session, or the nose was "
            "still full of the smell. Read the accuracy as recognition within a session; record each class on several "
            "days, and name the days (--sessions)."
        )
    return text + "So the session gives little away here."


# Weights


def weights(
    own: Own, protocol: Protocol, windows: LabelledWindows, trial: Trial, *, folder: Path, seed: int = 7
) -> str:
    """Train on everything, write weights with a card into `folder`, and return the name of the learner that was kept.

    The network or the discriminant, whichever named more held-out windows right; calibrated on what was held out. Rows
    of features have no windows, and so no weights: "".
    """
    if own.nose.features:
        return ""
    kept, options = trial.kept, {}
    if kept == "lda":
        options = COUNTS if {own.nose.columns[name].unit for name in protocol.columns} == {"adc"} else {}
        linear = Discriminant.fit(features(windows.values), windows.target, **options)
        model, net = "linear", linear.network(windows.values, **options)
    else:
        model = "curve-mlp" if protocol.steps >= SHORT else "summary-mlp"
        net = network(model, windows, seed=seed)
    held = trial.scores[kept], trial.windows.target, trial.windows.recording
    learnt = calibrated.calibrate(*held, precision=0.9)
    figures = {name: trial.accuracy(name)._asdict() for name in trial.scores}
    count = own.files["recording"].nunique()
    manifest = {
        "kind": "odour",
        "model": model,
        "options": options,
        "protocol": asdict(protocol) | {"columns": list(protocol.columns)},
        "classes": list(windows.classes),
        "calibration": learnt.asdict(),
        "nose": own.nose.to_dict(),
        "ranges": board_ranges(own.table, protocol.columns, own.nose).asdict(),
        "scores": {"recordings held out": figures},
        "made_by": {
            "command": "smellkit learn",
            "data": f"{count} recordings of {own.nose.name}",
            "seed": seed,
            "revision": runs.revision(),
        },
    }
    some = np.unique(np.linspace(0, len(windows) - 1, min(REFERENCES, len(windows))).astype(int))
    spare = {
        "references.z": net.run(windows.values[some], "z"),
        "references.target": torch.from_numpy(windows.target[some]),
    }
    checkpoint.save(folder, dict(net.state_dict()) | spare, runs.plain(manifest))
    return kept


def report(
    own: Own,
    protocol: Protocol,
    trial: Trial,
    audited: Mapping[str, Any],
    *,
    by_session: Trial | None,
    sniffing: pd.DataFrame,
    curve: pd.DataFrame,
    seconds: float,
    kept: str = "",
) -> dict[str, Any]:
    """Everything as plain numbers, for report.json."""
    full = sniffing["value"].iloc[-1]
    enough = sniffing[sniffing["value"] >= full - 0.02]["seconds"].iloc[0]
    learners = {name: trial.accuracy(name)._asdict() for name in trial.scores}
    apart = {n: by_session.accuracy(n)._asdict() for n in by_session.scores} if by_session else None
    return runs.plain(
        {
            "nose": own.nose.to_dict(),
            "recordings": int(own.files["recording"].nunique()),
            "classes": list(trial.windows.classes),
            "columns": list(protocol.columns),
            "rate": own.nose.rate,
            "sessions": int(own.files["session"].replace("", np.nan).nunique()),
            "window": {"rows": protocol.span, "input": protocol.representation},
            "too_short": list(trial.windows.short),
            "folds": trial.folds,
            "accuracy": learners[trial.kept],
            "windows": {name: trial.accuracy(name, count=1)._asdict() for name in trial.scores},
            "learners": learners,
            "by_session": apart,
            "null": learners["null"],
            "audit": dict(audited),
            "confusion": trial.confusion().tolist(),
            "learning_curve": curve.to_dict("records"),
            "sniffing": {"enough": float(enough), "unit": "seconds" if own.nose.rate else "rows"},
            "kept": kept,
            "told": own.notes,
            "seconds": round(seconds, 1),
        }
    )


def summary(report: Mapping[str, Any]) -> str:
    """The report in a few lines."""
    rate = f"{report['rate']:g} rows a second" if report["rate"] else "rate unknown"
    sniff = report["sniffing"]
    lines = [
        f"{report['recordings']} recordings, {len(report['classes'])} classes, {rate}, {', '.join(report['columns'])}",
        f"named right on recordings left out ({report['folds']} folds): {percent(report['accuracy'])} %, "
        f"the most frequent class {percent(report['null'])} %",
    ]
    if short := report["too_short"]:
        lines += [f"{len(short)} recordings are shorter than a window and left out, such as {short[0]}"]
    if report["by_session"]:
        lines += [f"on sessions left out: {percent(report['by_session'][report['kept'] or 'ensemble'])} %"]
    if report["kept"]:  # a row of features is no time
        lines += [f"{sniff['enough']:.3g} {sniff['unit']} of sniffing are enough"]
    lines += [report["audit"]["verdict"]]
    return "\n".join(lines)
