"""The results as pages to look at, one a question: an interval plot first, then every table, to sort and to filter.

site/results.yaml says on which `page` a result is shown and which columns a table's `plot` compares. Figures come from
site/results/*.json alone, as in `published`; what sorts, filters and saves a table is site/tables.js.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import yaml

from smellkit import paths
from smellkit.errors import DataError
from smellkit.plots import PALETTE
from smellkit.study import published, score, tables
from smellkit.study.published import FOLDER, Result
from smellkit.study.tables import Figure, Table

WIDE, LINE, LETTER = 760, 22, 6.8  # a plot, a row, and a letter of a row's name, in pixels
PAGES = ("odour", "scents", "noses", "gcode", "plume", "speed")  # site/results-`name`.qmd
SHAPES = ("circle", "rect", "path")  # another mark for each column: colours alone don't reach everybody


def parts(home: Path = paths.HOME) -> dict[str, str]:
    """What stands for each mark `<!-- name -->` of a page, as markdown."""
    cards = [path.read_text(encoding="utf-8").split("---\n", 2)[2] for path in paths.weights().glob("*/README.md")]
    return {f"results {name}": page(name) for name in PAGES} | {
        "headlines": headlines(),
        "data": (home / "data" / "README.md").read_text(encoding="utf-8").partition("\n")[2],
        "cards": "\n".join(text.replace("\n# ", "\n## ") for text in sorted(cards)),
        "open": open_links(home / "_quarto.yml"),
        "badges": badges(home / "_quarto.yml"),
    }


def page(name: str, folder: Path = FOLDER) -> str:
    """The body of site/results-`name`.qmd as markdown: sections with plots and tables, and who looked at the tests."""
    layouts = published.layouts(folder)
    results = [one for one in published.read(folder).values() if layouts.get(one.name, {}).get("page") == name]
    sections = [_section(one, layouts[one.name], results) for one in results]
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
    *parents, last = place.split(" / ")
    row = published.at(json.loads(file.read_text(encoding="utf-8")), " / ".join(parents))
    if (figure := published.figure_at(row, last, times)) is None:
        raise DataError(f"{file} has no figure at {place!r}", hint="correct site/headlines.yaml")
    value, mark, interval = tables.cell(figure).partition(" [")
    return f"**{value}**{mark}{interval}, {where}"


def open_links(file: Path = paths.HOME / "_quarto.yml") -> str:
    """Links that open notebook 00 in Binder and Colab, and the code; nothing while repo-url in _quarto.yml is empty."""
    if not (places := _places(file)):
        return ""
    return "Open notebook 00 in [Binder]({Binder}) or [Colab]({Colab}), or see [the code]({code}).".format(**places)


def badges(file: Path = paths.HOME / "_quarto.yml") -> str:
    """Badges for the README, each a link to what it tells; nothing while repo-url in _quarto.yml is empty."""
    if not (places := _places(file)):
        return ""
    tests = "[![tests]({code}/actions/workflows/tests.yml/badge.svg)]({code}/actions/workflows/tests.yml)"
    binder = "[![Binder](https://mybinder.org/badge_logo.svg)]({Binder})"
    colab = "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({Colab})"
    return f"{tests} {binder} {colab}".format(**places)


def _places(file: Path) -> dict[str, str]:
    code = (yaml.safe_load(file.read_text(encoding="utf-8"))["website"].get("repo-url") or "").rstrip("/")
    name = code.removeprefix("https://github.com/")
    if not code or name == code:
        return {}
    return {
        "code": code,
        "Binder": f"https://mybinder.org/v2/gh/{name}/main?labpath=notebooks/00_start.ipynb",
        "Colab": f"https://colab.research.google.com/github/{name}/blob/main/notebooks/00_start.ipynb",
    }


def _section(result: Result, layout: dict, results: Sequence[Result]) -> str:
    parts = [f"## {result.title}"]
    shown = {table["title"]: table for table in layout.get("tables", [])}
    for table in result.tables:
        how = shown.get(table.title, {})
        if columns := how.get("plot"):
            parts.append(intervals(table, columns, lines=how.get("lines", {}), log=how.get("log", False)))
    for table in result.tables:
        figures = f"{len(table.rows)} row{'s' * (len(table.rows) != 1)}"
        body = tables.markdown(table).removeprefix(f"**{table.title}**\n\n")
        head = f"<summary>{escape(table.title or 'Figures')} <small>{figures}</small></summary>"
        parts.append(f'<details class="results">{head}\n\n{body}\n\n</details>')
    made = f"Made by `{published.made_by(result.name, result.command)}`"
    return "\n\n".join(filter(None, [*parts, f"{made}: [{result.name}.json](results/{result.name}.json)."]))


def intervals(table: Table, columns: Sequence[str], *, lines: dict[str, float] | None = None, log: bool = False) -> str:
    """Rows of a table as points with their intervals, one mark a column, and figures of others as `lines` across.

    One line of HTML. A reader who points at a mark sees the row and its figures. `log` is for ratios of any size.
    """
    lines, scale = lines or {}, math.log10 if log else float
    places = [table.columns.index(column) for column in columns]
    rows = [(name, [figures[place] for place in places]) for name, figures in table.rows]
    rows = [row for row in rows if any(row[1])]
    every = [value for _, figures in rows for figure in figures if figure for value in figure if value is not None]
    ends = [scale(value) for value in (*every, *lines.values())]
    low, high = min(0.0, *ends), max(ends)
    step = next(step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9) if (high - low) / step <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)

    left = min(WIDE / 2, 24 + LETTER * max(len(name) for name, _ in rows))

    def x(value: float) -> float:
        return left + (WIDE - left - 30) * (scale(value) - first * step) / ((last - first) * step)

    height = LINE * len(rows) + 44 + 18 * len(lines)
    top = 14 + 18 * len(lines)
    ticks = [10 ** (n * step) if log else n * step for n in range(first, last + 1)]
    parts = [f'<line x1="{x(tick):.0f}" x2="{x(tick):.0f}" y1="{top - 6}" y2="{height - 26}" class="grid"/>'
             f'<text x="{x(tick):.0f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'
             for tick in ticks]  # fmt: skip
    for number, (words, value) in enumerate(lines.items()):
        y: float = 14 + 18 * number
        parts.append(f'<line x1="{x(value):.0f}" x2="{x(value):.0f}" y1="{y}" y2="{height - 26}" class="other"/>'
                     f'<text x="{x(value) - 5:.0f}" y="{y + 4}" text-anchor="end">{escape(words)}</text>')  # fmt: skip
    for number, (name, figures) in enumerate(rows):
        y = top + LINE * number + LINE / 2
        parts.append(f'<text x="{left - 12:.0f}" y="{y + 4:.0f}" text-anchor="end">{escape(name[:60])}</text>')
        parts += [_mark(x, y + 5 * (mark - (len(places) - 1) / 2), mark, name, columns[mark], figure)
                  for mark, figure in enumerate(figures) if figure]  # fmt: skip
    small = '<svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">'
    keys = " ".join(
        f"<span>{small}{_shape(8, 8, mark)}</svg> {escape(name)}</span>" for mark, name in enumerate(columns)
    )
    words = (
        f"{table.title}: {', '.join(columns)} with 95 % intervals, {len(rows)} rows; the tables below have the figures"
    )
    label = f'aria-label="{escape(words, quote=True)}"'
    drawing = f'<svg viewBox="0 0 {WIDE} {height:.0f}" role="img" {label}>{"".join(parts)}</svg>'
    return (f'<figure class="intervals"><div tabindex="0" role="group" {label}>{drawing}</div>'
            f"<figcaption>{escape(table.title)}. {keys}</figcaption></figure>")  # fmt: skip


def _mark(x, y: float, mark: int, row: str, column: str, figure: Figure) -> str:
    value, low, high = figure
    told = f"{row}, {column}: {value:.3g}" + ("" if low is None else f" [{low:.3g}, {high:.3g}]")
    line = ""
    if low is not None and high is not None:
        place = f'x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        line = f'<line {place} stroke="{PALETTE[mark]}" stroke-width="2"/>'
    return f"<g><title>{escape(told)}</title>{line}{_shape(x(value), y, mark)}</g>"


def _shape(x: float, y: float, mark: int) -> str:
    look = f'fill="{PALETTE[mark]}"'
    if SHAPES[mark % 3] == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {look}/>'
    if SHAPES[mark % 3] == "rect":
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" {look}/>'
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" {look}/>'
