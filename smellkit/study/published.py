"""The published figures: site/results/*.json, each written by a command and shown with it. Nothing is filled in.

site/results.yaml says which tables a page shows of a file; they are markdown, and praise a winner only where there is
one. A file without an entry there shows its plain numbers.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from smellkit import paths, runs
from smellkit.errors import DataError

if TYPE_CHECKING:
    from IPython.display import Markdown

Figure = tuple[float, float | None, float | None]  # value, low, high
FOLDER = paths.HOME / "site" / "results"
_parsed = functools.cache(yaml.safe_load)  # a page asks for the same text many times


@dataclass(frozen=True)
class Table:
    """One table: a row has a name and a figure, or None, for each of the `columns`."""

    title: str
    of: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure | None, ...]], ...]
    note: str = ""
    smaller: tuple[str, ...] = ()  # columns in which the least is the best
    compete: bool = True  # whether rows are rivals, so that one may be the best

    def best(self, column: int) -> int | None:
        """Row whose interval in `column` stands clear of every other's, on the better side, or None."""
        known = {row: figure for row, (_, figures) in enumerate(self.rows) if (figure := figures[column])}
        every = [part for figure in known.values() for part in figure]
        if not self.compete or len(known) < 2 or any(part is None or math.isnan(part) for part in every):
            return None
        sign, near, far = (-1, 2, 1) if self.columns[column] in self.smaller else (1, 1, 2)
        best = max(known, key=lambda row: sign * known[row][0])
        clear = all(sign * known[best][near] > sign * known[row][far] for row in known if row != best)  # type: ignore[operator]
        return best if clear else None


def markdown(table: Table) -> str:
    """The table as markdown: a figure is bold when its interval stands clear of all others in its column."""
    best = [table.best(column) for column in range(len(table.columns))]
    rows = [
        [_text(name), *(cell(figure, bold=best[column] == number) for column, figure in enumerate(figures))]
        for number, (name, figures) in enumerate(table.rows)
    ]
    title = f"**{table.title}**" if table.title else ""
    return "\n\n".join(filter(None, [title, _piped([table.of, *table.columns], rows), table.note]))


def plain(table: pd.DataFrame, *, note: str = "") -> Markdown:
    """Show a table as it is, numbers as `cell` writes them."""
    from IPython.display import Markdown

    rows = [[cell((value, None, None)) if isinstance(value, (int, float)) else _text(value) for value in row]
            for row in table.itertuples(index=False)]  # fmt: skip
    left = [dtype.kind not in "iuf" for dtype in table.dtypes]
    return Markdown("\n\n".join(filter(None, [_piped(list(table.columns), rows, left=left), note])))


def cell(figure: Figure | None, *, bold: bool = False) -> str:
    """A figure with its interval as text, in bold where it is the best of a column."""
    if figure is None or math.isnan(figure[0]):
        return "–"
    value, low, high = figure
    digits = 0 if isinstance(value, int) or abs(value) >= 10_000 else 1 if abs(value) >= 1 or not value else 3
    text = f"**{value:,.{digits}f}**" if bold else f"{value:,.{digits}f}"
    return text if low is None else f"{text} [{low:,.{digits}f},\N{NO-BREAK SPACE}{high:,.{digits}f}]"


def _piped(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[bool] = (True,)) -> str:
    """Cells as a table of markdown; columns that do not begin on the `left` end on the right."""
    head, *body = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    rule = ["---" if number < len(left) and left[number] else "---:" for number in range(len(header))]
    return "\n".join([head, f"|{'|'.join(rule)}|", *body])


def _text(value: Any) -> str:
    """Text from a file as it may stand in a table: no markup, no end of the cell."""
    return escape(str(value), quote=False).replace("|", "\\|")


@dataclass(frozen=True)
class Published:
    """One published result: the `command` that made it and the tables to show."""

    name: str
    title: str
    command: str
    tables: tuple[Table, ...]


def layouts(folder: Path = FOLDER) -> dict[str, Any]:
    """What site/results.yaml says: name -> title, command, tables."""
    file = folder.with_suffix(".yaml")
    return _parsed(file.read_text(encoding="utf-8")) if file.exists() else {}


def read(folder: Path = FOLDER) -> dict[str, Published]:
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
        page = pages.get(result.name, {}).get("page")
        more = f" All {len(result.tables)} tables are on the page `results-{page}` of the site." if page else ""
        texts.append(f"Made by `{made_by(result.name, result.command)}`.{more}")
    for text in texts or ["*None yet.*"]:
        display(Markdown(text))


def text(name: str, result: Mapping[str, Any]) -> str:
    """The tables that a page shows of the `result` of a bench, for a terminal."""
    parts = []
    for table in _tables(result, layouts().get(name, {})):
        rows = {row: map(cell, figures) for row, figures in table.rows}
        shown = pd.DataFrame.from_dict(rows, orient="index", columns=table.columns).to_string()
        parts.append(f"{table.title}\n{shown}\n")
    return "\n".join(parts)


def todo(folder: Path = FOLDER) -> pd.DataFrame:
    """The results that are not there, with their commands: columns result, command."""
    absent = [(name, one["command"]) for name, one in layouts(folder).items() if not (folder / f"{name}.json").exists()]
    return pd.DataFrame(absent, columns=["result", "command"])


def scores() -> pd.DataFrame:
    """The single numbers in this machine's run folders: columns run, score, value, data."""
    rows = []
    for path in sorted(paths.runs().glob("*/scores.json")):
        run = runs.Run(path.parent.name, path.parent)
        data = Path(str(run.params.get("data") or "sample")).name
        rows += [(run.name, score, value, data) for score, value in _numbers(run.scores)]
    return pd.DataFrame(rows, columns=["run", "score", "value", "data"])


def _read(path: Path, layout: dict[str, Any]) -> Published:
    command = layout.get("command", "")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        command = command or (raw.get("made_by") or {}).get("command", "")
        return Published(path.stem, layout.get("title", path.stem.replace("-", " ")), command, _tables(raw, layout))
    except (ValueError, AttributeError, TypeError, OSError) as why:
        raise DataError(f"{path} is not a result: {why}", hint="make it again: " + made_by(path.stem, command)) from why


def _tables(raw: Mapping[str, Any], layout: dict[str, Any]) -> tuple[Table, ...]:
    """The tables laid out or, where there is none, every single number under the keys that lead to it."""
    tables = tuple(table for part in layout.get("tables", []) if (table := _table(raw, part)).rows)
    numbers = [] if tables else [(name, ((value, None, None),)) for name, value in _numbers(raw)]
    return tables or (Table("", "figure", ("value",), tuple(numbers)),)


def _table(raw: Mapping[str, Any], layout: dict[str, Any]) -> Table:
    """The rows that `layout` names, with a figure for every column."""
    columns, where, begins = layout["columns"], layout.get("where", {}), layout.get("begins", "")
    rows = []
    for name, row in (at(raw, layout["rows"]) or {}).items():
        asked = str(name).startswith(begins) and all(at(row, key) == value for key, value in where.items())
        if asked and at(raw, layout.get("only", "-")) in (None, name):
            for own, part in _parts(str(name).removeprefix(begins), row, layout):
                figures = tuple(figure_at(part, place, layout.get("times", 1)) for place in columns.values())
                rows += [(own, figures)] if any(figure is not None for figure in figures) else []
    note = " ".join(filter(None, [layout.get("note"), at(raw, layout.get("says", "-"))]))
    how = {"smaller": tuple(layout.get("smaller", ())), "compete": layout.get("compete", True)}
    return Table(layout["title"], layout["of"], tuple(columns), tuple(rows), note, **how)


def _parts(name: str, row: Any, layout: dict[str, Any]) -> list[tuple[str, Any]]:
    """A row of a table, or one for each of the `splits` of the layout that it has."""
    named = layout.get("named", "{row}, {split}")
    splits = [split for split in layout.get("splits", ()) if split in row]
    return (
        [(named.format(row=name, split=split), row[split]) for split in splits] if "splits" in layout else [(name, row)]
    )


def figure_at(row: Any, place: str, times: float) -> Figure | None:
    """The figure at `place` in `row`, with its interval where there is one."""
    value: Any = at(row, place)
    ends = None
    if isinstance(value, dict):
        value, ends = value.get("value"), [value.get("low"), value.get("high")]
    if not isinstance(value, (int, float)):
        return None
    low, high = (None, None) if not ends or None in ends else (end * times for end in ends)
    return float(value) * times, low, high


def at(value: Any, place: str) -> Any:
    """What lies in nested dicts under keys joined by ` / `; None where there is nothing."""
    for key in place.split(" / ") if place else []:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _numbers(value: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Every number in nested `value`, under the dotted keys that lead to it."""
    for row in pd.json_normalize(dict(value), sep=".").to_dict("records"):
        yield from (
            (str(k), float(v)) for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)
        )
