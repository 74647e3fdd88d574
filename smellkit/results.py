"""The published figures: site/results/*.json, each written by a command, and shown with it. Nothing is filled in.

A file holds what its command found. What a page shows of it: `title`, `note`, and every list of rows (dicts).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smellkit import paths
from smellkit.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = paths.HOME / "site" / "results"
COMMANDS = {
    "smellnet-base": "smellkit bench smellnet-base --data data/raw/smellnet",
    "smellnet-mixture": "smellkit bench smellnet-mixture --data data/raw/smellnet",
    "audit": "smellkit audit data/raw/smellnet",
    "neckwear": "smellkit bench neckwear",
}
MADE_BY = {name: f"{command} --json site/results/{name}.json" for name, command in COMMANDS.items()}


@dataclass(frozen=True)
class Result:
    """One published result: `tables` maps a name to rows, `command` made it."""

    name: str
    title: str
    command: str
    note: str = ""
    tables: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)


def read(folder: Path = FOLDER) -> dict[str, Result]:
    """Return name -> result for every JSON file in `folder`; DataError names a file that can't be read."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}


def missing(found: dict[str, Result]) -> dict[str, str]:
    """Return name -> command for the results that are not there."""
    return {name: command for name, command in MADE_BY.items() if name not in found}


def show(found: dict[str, Result]) -> None:
    """Show every result in the notebook: title, tables, note, and the command that made it."""
    from IPython.display import Markdown, display

    from smellkit import tables

    if not found:
        display(Markdown("*None yet.*"))
    for result in found.values():
        display(Markdown(f"### {result.title}\n\n{result.note}"))
        for name, rows in result.tables.items():
            display(tables.plain(frame(rows), title=name, note=f"Made by {result.command}"))


def todo(absent: dict[str, str]) -> pd.DataFrame:
    """The results that are not there, with their commands: columns result, command."""
    import pandas as pd

    return pd.DataFrame({"result": list(absent), "command": list(absent.values())})


def scores(names: list[str] | None = None) -> pd.DataFrame:
    """The single numbers in the run folders, all or those called `names`: columns run, score, value, data."""
    import pandas as pd

    from smellkit import runs

    folders = sorted(path.parent for path in paths.runs().glob("*/scores.json"))
    rows = []
    for folder in folders:
        run = runs.Run(folder.name, folder)
        if names is None or run.name in names:
            data = Path(str(run.params.get("data") or "sample")).name
            rows += [(run.name, score, value, data) for score, value in _numbers(run.scores)]
    return pd.DataFrame(rows, columns=["run", "score", "value", "data"])


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table, with the columns whose values are single numbers or words."""
    import pandas as pd

    table = pd.DataFrame(rows)
    return table[[name for name in table if not table[name].map(lambda value: isinstance(value, (dict, list))).any()]]


def summary(found: dict[str, Result]) -> str:
    """Return the results as markdown for the first page: one table each, or the command that makes it."""
    parts = []
    for result in found.values():
        rows: list[dict[str, Any]] = next(iter(result.tables.values()), [])
        if rows:
            parts += [f"### {result.title}", _markdown(rows[:12]), result.note, f"Made by `{result.command}`."]
    return "\n\n".join(part for part in parts if part)


def _read(path: Path) -> Result:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        command = raw.get("command") or MADE_BY.get(path.stem, "")
        title, note = raw.get("title") or path.stem.replace("-", " "), raw.get("note", "")
    except (ValueError, AttributeError, OSError) as why:
        raise DataError(f"{path} is no result: {why}", hint="make it again: " + MADE_BY.get(path.stem, "")) from why
    return Result(path.stem, title, command, note, dict(_lists(raw)), raw)


def _lists(value: Any, name: str = "") -> list[tuple[str, list[dict[str, Any]]]]:
    """Every list of dicts in `value`, under the keys that lead to it."""
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _lists(item, f"{name} {key}".strip())]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [(name.replace("_", " ") or "rows", value)]
    return []


def _numbers(value: dict[str, Any], name: str = "") -> list[tuple[str, float]]:
    """Every number in nested `value`, under the dotted keys that lead to it."""
    pairs = []
    for key, item in value.items():
        if isinstance(item, dict):
            pairs += _numbers(item, f"{name}{key}.")
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            pairs.append((name + key, float(item)))
    return pairs


def _markdown(rows: list[dict[str, Any]]) -> str:
    table = frame(rows)
    head = "| " + " | ".join(map(str, table.columns)) + " |\n|" + "---|" * table.shape[1]
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join([head, *lines])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3g}"
    return str(value).replace("|", "\\|")
