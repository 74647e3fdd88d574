"""The published figures: site/results/*.json, each written by a command and shown with it. Nothing is filled in.

site/results.yaml says which tables a page shows of a file. A file without an entry there shows its plain numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from smellkit import paths, runs
from smellkit.errors import DataError
from smellkit.study.tables import Figure, Table, markdown

FOLDER = paths.HOME / "site" / "results"


@dataclass(frozen=True)
class Result:
    """One published result: the `command` that made it and the tables to show."""

    name: str
    title: str
    command: str
    tables: tuple[Table, ...]


def layouts(folder: Path = FOLDER) -> dict[str, Any]:
    """What site/results.yaml says: name -> title, command, tables."""
    file = folder.with_suffix(".yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}


def read(folder: Path = FOLDER) -> dict[str, Result]:
    """Return name -> result for every JSON file in `folder`; DataError names a file that can't be read."""
    known, files = layouts(folder), {path.stem: path for path in sorted(folder.glob("*.json"))}
    return {name: _read(files[name], known.get(name, {})) for name in {**known, **files} if name in files}


def made_by(name: str, command: str) -> str:
    """The whole command that writes the result `name`."""
    return f"{command} --json site/results/{name}.json"


def show(folder: Path = FOLDER) -> None:
    """Show every result in the notebook: title, its first table, the command that made it, where the others are."""
    from IPython.display import Markdown, display

    texts, pages = [], layouts(folder)
    for result in read(folder).values():
        texts += [f"### {result.title}", *map(markdown, result.tables[:1])]
        made, page = made_by(result.name, result.command), pages.get(result.name, {}).get("page")
        more = f" All {len(result.tables)} tables are on the page `results-{page}` of the site." if page else ""
        texts.append(f"Made by `{made}`.{more}")
    for text in texts or ["*None yet.*"]:
        display(Markdown(text))


def todo(folder: Path = FOLDER) -> pd.DataFrame:
    """The results that are not there, with their commands: columns result, command."""
    absent = [
        (name, each["command"]) for name, each in layouts(folder).items() if not (folder / f"{name}.json").exists()
    ]
    return pd.DataFrame(absent, columns=["result", "command"])


def scores() -> pd.DataFrame:
    """The single numbers in this machine's run folders: columns run, score, value, data."""
    rows = []
    for path in sorted(paths.runs().glob("*/scores.json")):
        run = runs.Run(path.parent.name, path.parent)
        data = Path(str(run.params.get("data") or "sample")).name
        rows += [(run.name, score, value, data) for score, value in _numbers(run.scores)]
    return pd.DataFrame(rows, columns=["run", "score", "value", "data"])


def _read(path: Path, layout: dict[str, Any]) -> Result:
    """One result: the tables laid out for it or, without any, every single number under the keys that lead to it."""
    command = layout.get("command", "")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        every = [table for part in layout.get("tables", []) if (table := _table(raw, part)).rows]
        if not every:
            numbers = tuple((name, ((value, None, None),)) for name, value in _numbers(raw))
            every = [Table("", "figure", ("value",), numbers)]
        command = command or (raw.get("made_by") or {}).get("command", "")
    except (ValueError, AttributeError, TypeError, OSError) as why:
        raise DataError(f"{path} is not a result: {why}", hint="make it again: " + made_by(path.stem, command)) from why
    return Result(path.stem, layout.get("title", path.stem.replace("-", " ")), command, tuple(every))


def _table(raw: dict[str, Any], layout: dict[str, Any]) -> Table:
    """The rows that `layout` names, with a figure for every column."""
    columns, where, begins = layout["columns"], layout.get("where", {}), layout.get("begins", "")
    rows = []
    for name, row in (at(raw, layout["rows"]) or {}).items():
        figures = tuple(figure_at(row, place, layout.get("times", 1)) for place in columns.values())
        kept = all(isinstance(row, dict) and row.get(key) == value for key, value in where.items())
        if kept and str(name).startswith(begins) and any(figure is not None for figure in figures):
            rows.append((str(name).removeprefix(begins), figures))
    conclusion = at(raw, layout["says"]) if "says" in layout else ""
    note = " ".join(part for part in (layout.get("note", ""), conclusion) if part)
    how = {"smaller": tuple(layout.get("smaller", ())), "compete": layout.get("compete", True)}
    return Table(layout["title"], layout["of"], tuple(columns), tuple(rows), note, **how)


def figure_at(row: Any, place: str | list[str], times: float) -> Figure | None:
    """The figure at `place` in `row`, with its interval where there is one."""
    first, *second = [place] if isinstance(place, str) else place
    value: Any = at(row, first)
    low, high = (at(row, second[0]) if second else None) or (None, None)
    if isinstance(value, dict):
        value, low, high = value.get("value"), value.get("low"), value.get("high")
    if not isinstance(value, (int, float)):
        return None
    value = float(value)
    if low is None or high is None:
        return value * times, None, None
    return value * times, low * times, high * times


def at(value: Any, place: str) -> Any:
    """What lies in nested dicts under keys joined by ` / `; None where there is nothing."""
    for key in place.split(" / ") if place else []:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _numbers(value: dict[str, Any], name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested `value`, under the dotted keys that lead to it."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _numbers(item, f"{name}{key}.")
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            yield name + key, float(item)
