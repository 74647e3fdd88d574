"""`python -m smellkit.study.odour.substances DIR`: what the site says of each of SmellNet's 50 substances.

For every substance its curves, what the shipped network takes it for in the session of training and in another one,
and how soon a test recording is recognised. Written to site/substances.json; `pages` makes a page of each.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import paths, runs
from smellkit.checks import Report
from smellkit.errors import OptionError
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.recordings import read_recordings
from smellkit.odour.scents import category
from smellkit.odour.smell import SubstanceSmell
from smellkit.study.odour.survey import other_sessions

FILE = paths.HOME / "site" / "substances.json"
POINTS = 60  # of a curve


def measure(data: str = "") -> dict[str, Any]:
    """{substance: category, recordings, curves, same_session, other_session, early}."""
    pipeline = Pipeline.load("odour-same-session")
    smell = pipeline.smell
    if not isinstance(smell, SubstanceSmell):
        raise OptionError("The shipped weights name no substances", hint="data/weights/odour")
    training, testing = (read_recordings(data, split, report=Report()) for split in ("training", "testing"))
    away = other_sessions(data, Report())
    rows = {}
    for name, own in training.groupby("substance"):
        first = own[own["file"] == own["file"].min()]
        row: dict[str, Any] = {"category": category(str(name)), "recordings": int(own["file"].nunique())}
        row["minutes"] = round(len(own) / 60)
        row["curves"] = {column: _curve(first[column].to_numpy()) for column in smell.columns}
        row["same_session"] = taken_for(testing[testing["substance"] == name], smell)
        if away is not None and (away["substance"] == name).any():
            row["other_session"] = taken_for(away[away["substance"] == name], smell)
        test = testing[testing["substance"] == name]
        row["early"] = early(test[test["file"] == test["file"].min()], str(name), pipeline)
        rows[str(name)] = row
    return rows


def taken_for(table: pd.DataFrame, smell: SubstanceSmell) -> dict[str, Any]:
    """Windows, and the share of them that each name got, the most frequent first (up to five)."""
    counts: Counter[str] = Counter()
    for _, rows in table.groupby("file"):
        windows = smell.windows(rows[list(smell.columns)].to_numpy(np.float32))
        counts.update(smell.classes[best] for best in smell.scores(windows).argmax(1))
    total = sum(counts.values())
    shares = {name: round(count / total, 4) for name, count in counts.most_common(5)}
    return {"recordings": int(table["file"].nunique()), "windows": total, "named": shares}


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


def _curve(values: NDArray) -> Mapping[str, Any]:
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
        kinds.setdefault(row["category"], []).append(f"[{_words(name)}](substances/{name}.qmd)")
    listed = "\n\n".join(f"**{kind.capitalize()}**: {', '.join(names)}" for kind, names in kinds.items())
    front = _front(
        "What does each substance look like to the nose?", f"The {len(rows)} substances of SmellNet, a page each."
    )
    made = {f"substances/{name}.qmd": _page(name, row) for name, row in rows.items()}
    return {"substances.qmd": f"{front}\n{listed}\n", **made}


def _page(name: str, row: Mapping[str, Any]) -> str:
    curves, soon, word = row["curves"], row["early"], _words(name)
    lasted = f"{next(iter(curves.values()))['seconds']} s"
    about = (
        f"One of ten {row['category']}, by {row['recordings']} training recordings, {row['minutes']} minutes in all."
    )
    drawn = "".join(
        _figure(column, enumerate(one["values"]), (min(one["values"]), max(one["values"])))
        for column, one in curves.items()
    )
    right = "is not right to the end" if soon["right_from"] is None else f"is right from second {soon['right_from']} on"
    seconds = soon["seconds"] or [0]
    early = _figure(
        f"probability of {word} from second {seconds[0]} to {seconds[-1]}",
        zip(seconds, soon["p"], strict=False),
        (0, 1),
    )
    parts = [
        _front(word, about),
        "## Its curves",
        f"The first training recording, {lasted}, each sensor between its least and its largest value.",
        f'<div class="curves">{drawn}</div>',
        "## What the weights `odour-same-session` take it for",
        _taken("Session of training, test recordings", row.get("same_session")),
        _taken("Another session", row.get("other_session")),
        "## How soon it is recognised",
        f"A test recording of the session of training comes in row by row: the name {right}.",
        f'<div class="curves one">{early}</div>',
        "Made by `python -m smellkit.study.odour.substances data/raw/smellnet`. [All substances](../substances.qmd)",
    ]
    return "\n\n".join(parts) + "\n"


def _taken(where: str, told: Mapping[str, Any] | None) -> str:
    if not told:
        return f"**{where}**: nobody recorded it, so nobody knows."
    named = ", ".join(f"{_words(name)} {100 * share:.0f} %" for name, share in told["named"].items())
    return f"**{where}** ({told['recordings']}, {told['windows']} windows): {named}."


def _figure(title: str, points: Iterable[tuple[float, float]], span: tuple[float, float]) -> str:
    """A curve as one line of HTML, its values between the ends of `span`."""
    x, y = np.array(list(points) or [(0, span[0])], float).T
    across, up = (x - x[0]) / max(np.ptp(x), 1), (y - span[0]) / max(span[1] - span[0], 1e-9)
    line = " ".join(f"{300 * a:.1f},{76 - 72 * b:.1f}" for a, b in zip(across, up, strict=True))
    label = f"{title}, {span[0]:g} to {span[1]:g}"
    return (f'<figure><svg viewBox="0 0 300 80" role="img" aria-label="{label}"><polyline points="{line}"/></svg>'
            f"<figcaption>{label}</figcaption></figure>")  # fmt: skip


def _front(title: str, subtitle: str) -> str:
    return f'---\ntitle: "{title}"\nsubtitle: "{subtitle}"\ntoc: false\n---\n'


def _words(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    command = "python -m smellkit.study.odour.substances data/raw/smellnet"
    result = {"made_by": {"command": command}, "stamp": runs.stamp(), "rows": measure(*sys.argv[1:2])}
    paths.write_text(FILE, json.dumps(runs.plain(result)) + "\n")
