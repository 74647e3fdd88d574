"""Tables for pages, as markdown: figures with their intervals, and a winner only where there is one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Markdown

Figure = tuple[float, float | None, float | None]  # value, low, high


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
