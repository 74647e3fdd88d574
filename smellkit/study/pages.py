"""The results as pages to look at, one a question: an interval plot first, then every table, to sort and to filter.

site/results.yaml says on which `page` a result is shown and which columns a table's `plot` compares. Figures come from
site/results/*.json alone, as in `published`; drawings from site/templates; what sorts and filters is site/tables.js.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from smellkit import paths
from smellkit.errors import DataError
from smellkit.plots import PALETTE
from smellkit.study import published, score
from smellkit.study.published import FOLDER, Figure, Published, Table

if TYPE_CHECKING:
    from jinja2 import Template

WIDE, LINE, LETTER = 760, 22, 6.8  # a plot, a row, and a letter of a row's name, in pixels
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9)  # between ticks
PAGES = ("odour", "scents", "noses", "gcode", "plume", "speed")  # site/results-`name`.qmd
BADGES = (
    "[![tests]({code}/actions/workflows/tests.yml/badge.svg)]({code}/actions/workflows/tests.yml) "
    "[![Binder](https://mybinder.org/badge_logo.svg)]({binder}) "
    "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
)
OPEN = "Open notebook 00 in [Binder]({binder}) or [Colab]({colab}), or see [the code]({code})."


def parts(home: Path = paths.HOME) -> dict[str, str]:
    """What stands for each mark `<!-- name -->` of a page, as markdown."""
    cards = [path.read_text(encoding="utf-8").split("---\n", 2)[2] for path in paths.weights().glob("*/README.md")]
    return {f"results {name}": page(name) for name in PAGES} | links(home / "_quarto.yml") | {
        "headlines": headlines(),
        "data": (home / "data" / "README.md").read_text(encoding="utf-8").partition("\n")[2],
        "cards": "\n".join(text.replace("\n# ", "\n## ") for text in sorted(cards)),
    }  # fmt: skip


def page(name: str, folder: Path = FOLDER) -> str:
    """The body of site/results-`name`.qmd as markdown: sections with plots and tables, and who looked at the tests."""
    layouts = published.layouts(folder)
    results = [one for one in published.read(folder).values() if layouts.get(one.name, {}).get("page") == name]
    sections = [_section(one, layouts[one.name]) for one in results]
    return "\n\n".join(filter(None, [*sections, score.table(name, folder / score.FILE.name)]))


def headlines(folder: Path = FOLDER) -> str:
    """The numbers of the first page as a table in markdown: where it is easy, its honest twin, and others' figure."""
    chosen = yaml.safe_load((folder.parent / "headlines.yaml").read_text(encoding="utf-8"))
    lines = ["| in per cent | easy | honest | published by others |", "|---|---|---|---|"]
    for one in chosen:
        cells = [_headline(folder, *one[kind]) if kind in one else "–" for kind in ("easy", "honest", "others")]
        lines.append(f"| {one['what']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _headline(folder: Path, where: str, name: str, place: str, times: float = 100) -> str:
    """A figure with the words for where it was measured; DataError where the result has none."""
    file = folder / f"{name}.json"
    figure = published.figure_at(json.loads(file.read_text(encoding="utf-8")), place, times)
    if figure is None:
        raise DataError(f"{file} has no figure at {place!r}", hint="correct site/headlines.yaml")
    value, mark, interval = published.cell(figure).partition(" [")
    return f"**{value}**{mark}{interval}, {where}"


def links(file: Path = paths.HOME / "_quarto.yml") -> dict[str, str]:
    """What opens notebook 00 and the code, and badges of the README; empty while repo-url in _quarto.yml is."""
    code = (yaml.safe_load(file.read_text(encoding="utf-8"))["website"].get("repo-url") or "").rstrip("/")
    name = code.removeprefix("https://github.com/")
    if name == code:
        return {"open": "", "badges": ""}
    binder = f"https://mybinder.org/v2/gh/{name}/main?labpath=notebooks/00_start.ipynb"
    colab = f"https://colab.research.google.com/github/{name}/blob/main/notebooks/00_start.ipynb"
    return {
        key: words.format(code=code, binder=binder, colab=colab)
        for key, words in {"open": OPEN, "badges": BADGES}.items()
    }


@functools.cache
def template(name: str) -> Template:
    """A template of site/templates to `render`; texts are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(paths.HOME / "site" / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(name)


def _section(result: Published, layout: dict) -> str:
    parts = [f"## {result.title}"]
    shown = {table["title"]: table for table in layout.get("tables", [])}
    for table in result.tables:
        how = shown.get(table.title, {})
        if columns := how.get("plot"):
            parts.append(intervals(table, columns, lines=how.get("lines", {}), log=how.get("log", False)))
    for table in result.tables:
        figures = f"{len(table.rows)} row{'s' * (len(table.rows) != 1)}"
        body = published.markdown(table).removeprefix(f"**{table.title}**\n\n")
        head = f"<summary>{escape(table.title or 'Figures')} <small>{figures}</small></summary>"
        parts.append(f'<details class="results">{head}\n\n{body}\n\n</details>')
    made = f"Made by `{published.made_by(result.name, result.command)}`"
    return "\n\n".join([*parts, f"{made}: [{result.name}.json](results/{result.name}.json)."])


def intervals(table: Table, columns: Sequence[str], *, lines: dict[str, float] | None = None, log: bool = False) -> str:
    """Rows of a table as points with their intervals, one mark a column, and figures of others as `lines` across.

    One line of HTML. A reader who points at a mark sees the row and its figures. `log` is for ratios of any size.
    """
    lines, scale = lines or {}, math.log10 if log else float
    places = [table.columns.index(column) for column in columns]
    rows = [(name, [figures[place] for place in places]) for name, figures in table.rows]
    rows = [row for row in rows if any(row[1])]
    known = [value for _, figures in rows for figure in figures if figure for value in figure if value is not None]
    ends = [0.0, *(scale(value) for value in (*known, *lines.values()))]
    step = next(step for step in STEPS if (max(ends) - min(ends)) / step <= 6)
    first = math.floor(min(ends) / step)
    last = max(math.ceil(max(ends) / step), first + 1)  # where all figures are 0
    left, top = min(WIDE / 2, 24 + LETTER * max(len(name) for name, _ in rows)), 14 + 18 * len(lines)

    def x(value: float) -> float:
        return left + (WIDE - left - 30) * (scale(value) - first * step) / ((last - first) * step)

    def mark(number: int, middle: float, figure: Figure) -> tuple:
        value, low, high = figure
        text = f"{value:.3g}" if low is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"
        y = middle + 5 * (number - (len(places) - 1) / 2)
        return number, y, x(value), *(None if end is None else x(end) for end in (low, high)), text

    middles = [top + LINE * (number + 0.5) for number in range(len(rows))]
    marks = [
        [mark(number, y, figure) for number, figure in enumerate(figures) if figure]
        for y, (_, figures) in zip(middles, rows, strict=True)
    ]
    drawn = [(y, name, each) for y, (name, _), each in zip(middles, rows, marks, strict=True)]
    ticks = [10 ** (n * step) if log else n * step for n in range(first, last + 1)]
    words = (
        f"{table.title}: {', '.join(columns)} with 95 % intervals, {len(rows)} rows; the tables below have the figures"
    )
    size = {"width": WIDE, "height": LINE * len(rows) + 30 + top, "left": left, "top": top}
    drawing = {"title": table.title, "label": words, "columns": columns, "palette": PALETTE, "rows": drawn}
    across = {
        "ticks": [(x(tick), f"{tick:g}") for tick in ticks],
        "lines": [(x(at), name) for name, at in lines.items()],
    }
    return template("intervals.svg.j2").render(**size, **drawing, **across)
