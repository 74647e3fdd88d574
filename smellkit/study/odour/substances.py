"""`python -m smellkit.study.odour.substances DIR`: what the site says of each of SmellNet's 50 substances.

For every substance its curves, what the shipped network takes it for in the session of training and in another one,
and how soon a test recording is recognised. Written to site/substances.json; `pages` makes a page of each.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import checkpoint, paths, runs
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.recordings import read_recordings
from smellkit.odour.scents import category
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import cut
from smellkit.study.odour.survey import other_sessions
from smellkit.study.pages import template

FILE = paths.HOME / "site" / "substances.json"
WEIGHTS = "odour-same-session"
POINTS = 60  # of a curve


def measure(data: str = "") -> dict[str, Any]:
    """{substance: category, recordings, minutes, curves, same_session, other_session, early}."""
    smell, pipeline = SubstanceSmell.load(checkpoint.find(WEIGHTS)), Pipeline.load(WEIGHTS)
    testing, away = read_recordings(data, "testing"), other_sessions(data)
    rows = {}
    for name, own in read_recordings(data, "training").groupby("substance"):
        first, test = own[own["file"] == own["file"].min()], testing[testing["substance"] == name]
        rows[str(name)] = {
            "category": category(str(name)),
            "recordings": int(own["file"].nunique()),
            "minutes": round(len(own) / 60),
            "curves": {column: _curve(first[column].to_numpy()) for column in smell.columns},
            "same_session": taken_for(test, smell),
            "early": early(test[test["file"] == test["file"].min()], str(name), pipeline),
        }
        if away is not None and (away["substance"] == name).any():
            rows[str(name)]["other_session"] = taken_for(away[away["substance"] == name], smell)
    return rows


def taken_for(table: pd.DataFrame, smell: SubstanceSmell) -> dict[str, Any]:
    """Windows, and the share of them that each name got, the most frequent first (up to five)."""
    windows = cut(table, smell.protocol)
    named = pd.Series(np.array(smell.classes)[smell.scores(windows.values).argmax(1)])
    shares = named.value_counts(normalize=True).head(5).round(4)
    return {"recordings": int(table["file"].nunique()), "windows": len(windows), "named": shares.to_dict()}


def early(rows: pd.DataFrame, name: str, pipeline: Pipeline) -> dict[str, Any]:
    """Probability of the right name after so many seconds, and from when on the name is right to the end, or None."""
    recogniser = Recogniser(pipeline, columns=pipeline.smell.columns)
    place = pipeline.smell.classes.index(name)
    answers = []
    for second, row in enumerate(rows[list(pipeline.smell.columns)].to_numpy(float).tolist(), 1):
        if (answer := recogniser.add(row)) and answer.probabilities:
            answers.append((second, answer.probabilities[place], answer.name == name))
    wrong = [second for second, _, right in answers if not right]
    since = next((second for second, _, _ in answers if not wrong or second > wrong[-1]), None)
    kept = answers[:: max(1, len(answers) // POINTS)]
    return {"seconds": [second for second, _, _ in kept], "p": [round(p, 4) for _, p, _ in kept], "right_from": since}


def _curve(values: NDArray) -> dict[str, Any]:
    """A curve at `POINTS` points with its length in seconds."""
    chosen = np.linspace(0, len(values) - 1, POINTS).astype(int)
    return {"seconds": len(values), "values": [float(f"{value:.5g}") for value in values[chosen]]}


def pages(file: Path = FILE) -> dict[str, str]:
    """The page of each substance, and of all of them, as markdown: file name -> text."""
    if not file.is_file():
        return {}
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    kinds: dict[str, list[str]] = {}
    for name, row in rows.items():
        kinds.setdefault(row["category"], []).append(f"[{name.replace('_', ' ')}](substances/{name}.qmd)")
    listed = "\n\n".join(f"**{kind.capitalize()}**: {', '.join(names)}" for kind, names in kinds.items())
    title = 'title: "What does each substance look like to the nose?"'
    about = f'subtitle: "The {len(rows)} substances of SmellNet, a page each."'
    made = {f"substances/{name}.qmd": _page(name, row) for name, row in rows.items()}
    return {"substances.qmd": f"---\n{title}\n{about}\ntoc: false\n---\n\n{listed}\n", **made}


def _page(name: str, row: dict[str, Any]) -> str:
    soon = row["early"]
    curves = {
        column: _drawn(range(POINTS), one["values"], (min(one["values"]), max(one["values"])))
        for column, one in row["curves"].items()
    }
    lasted = next(iter(row["curves"].values()))["seconds"]
    shown = {"other_session": None, **row, "early": {**soon, "seconds": soon["seconds"] or [0]}}
    words = {"word": name.replace("_", " "), "row": shown, "lasted": lasted, "curves": curves}
    return template("substance.qmd.j2").render(**words, probability=_drawn(soon["seconds"], soon["p"], (0, 1))) + "\n"


def _drawn(across: Sequence[float], values: Sequence[float], span: tuple[float, float]) -> dict[str, Any]:
    """A curve as points of a drawing of 300 x 80, its values between the ends of `span`."""
    x, y = np.array([across or [0], values or [span[0]]], float)
    x, y = (x - x[0]) / max(np.ptp(x), 1), (y - span[0]) / max(span[1] - span[0], 1e-9)
    points = " ".join(f"{300 * a:.1f},{76 - 72 * b:.1f}" for a, b in zip(x, y, strict=True))
    return {"points": points, "low": span[0], "high": span[1]}


if __name__ == "__main__":
    command = "python -m smellkit.study.odour.substances data/raw/smellnet"
    result = {"made_by": {"command": command}, "stamp": runs.stamp(), "rows": measure(*sys.argv[1:2])}
    paths.write_text(FILE, json.dumps(runs.plain(result)) + "\n")
