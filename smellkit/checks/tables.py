"""Read a table of numbers from CSV: quick when all is well, exact about the place when it is not."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from smellkit.checks.report import Report, content, decoded, fault, nearest

log = logging.getLogger(__name__)
LONGEST_LINE = 100_000  # characters
LIMIT = 200_000_000  # bytes; the longest real recording has 60 thousand
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
MISSING = ["", "nan", "NaN", "NAN", "NA", "null"]
DELIMITERS = {";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}


@dataclass(frozen=True)
class Span:
    """What a column may hold: numbers from `low` to `high`. NaN, infinity and anything outside is refused.

    `overflow` is the one value outside that a known firmware fault writes: it becomes `high`, and is counted.
    """

    low: float = -1e15
    high: float = 1e15
    overflow: float | None = None


def read_table(
    path: Path | str,
    *,
    columns: Mapping[str, Span] | Sequence[str],
    aliases: Mapping[str, str] | None = None,
    first_row: str = "refuse",
    report: Report | None = None,
) -> pd.DataFrame:
    """Return the `columns` of a CSV file as float64, in the order asked for; other columns are left out.

    `aliases` maps a header's other spelling to the name wanted. `first_row="drop"` drops a first row that is short or
    has empty cells (a serial line caught halfway), and counts it. Raises `DataError` with line and column.
    """
    path, report = Path(path), report if report is not None else Report()
    spans = dict(columns) if isinstance(columns, Mapping) else {name: Span() for name in columns}
    text = decoded(path, content(path, limit=LIMIT)).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    _no_nul(path, text)
    header = _header(path, text, wanted=list(spans), aliases=aliases or {}, report=report)
    cut = _rows(path, text, width=len(header), first_row=first_row)
    values = _parse(path, text, header=header, spans=spans, cut=cut)
    if first_row == "drop" and (cut or np.isnan(values[:1]).any()):
        report.note(path, "truncated first row dropped")
        values, cut = values[1 - cut :], True
    if not len(values):
        raise fault(path, line=2, expected="rows of numbers", found="a header only", hint="record it again")
    for index, (name, span) in enumerate(spans.items()):
        if span.overflow is not None and (over := values[:, index] == span.overflow).any():
            values[over, index] = span.high
            report.note(path, f"{name}: overflow {span.overflow:.0f} taken as {span.high:g}", over.sum())
    low, high = np.array([(span.low, span.high) for span in spans.values()]).T
    bad = ~((values >= low) & (values <= high))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise _bad_number(path, text, header, spans, row=row + cut, column=list(spans)[column], count=bad.sum())
    return pd.DataFrame(values, columns=list(spans))


def read_texts(path: Path | str, *, columns: Sequence[str], report: Report | None = None) -> pd.DataFrame:
    """Return the `columns` of a CSV file as trimmed text, in the order asked for; the index is the line in the file.

    What a cell must be is the caller's business; the file itself is checked as `read_table` does it.
    """
    path, report = Path(path), report if report is not None else Report()
    text = decoded(path, content(path, limit=LIMIT)).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    _no_nul(path, text)
    header = _header(path, text, wanted=list(columns), aliases={}, report=report)
    _rows(path, text, width=len(header), first_row="refuse")
    reader = csv.reader(io.StringIO(text))
    places = [header.index(name) for name in columns]
    next(reader)
    rows, lines, line = [], [], reader.line_num + 1
    for row in reader:
        rows.append([row[place].strip() for place in places])
        lines.append(line)
        line = reader.line_num + 1
    if not rows:
        raise fault(path, line=2, expected="rows", found="a header only", hint="write the file again")
    return pd.DataFrame(rows, columns=list(columns), index=pd.Index(lines, name="line"), dtype=str)


def _no_nul(path: Path, text: str) -> None:
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        field = text.count(",", text.rfind("\n", 0, at) + 1, at) + 1
        name = _fields(text.partition("\n")[0])[field - 1 : field]
        column = name[0].strip() if name and line > 1 else str(field)
        raise fault(
            path,
            line=line,
            column=column,
            expected="text",
            found="a NUL byte",
            hint="the file is damaged: copy or record it again",
        )


def _fields(line: str) -> list[str]:
    return next(csv.reader([line]), [])


def _header(path: Path, text: str, *, wanted: list[str], aliases: Mapping[str, str], report: Report) -> list[str]:
    """Return the names in the first line, trimmed, by their usual spelling; every one `wanted` is there, and once."""
    first = text.partition("\n")[0]
    if len(first) > LONGEST_LINE:
        raise fault(
            path, line=1, expected="names of columns", found=f"{len(first)} characters", hint="is it a CSV file?"
        )
    names = _fields(first)
    header = [name.strip() for name in names]
    if header != names:
        report.note(path, "header trimmed")
        log.warning("%s, line 1: spaces around column names were trimmed", path)
    for name in header:
        if name and header.count(name) > 1:
            raise fault(
                path,
                line=1,
                column=name,
                expected="each column once",
                found=f"{header.count(name)} times {name!r}",
                hint="delete or rename the copy",
            )
    usual = [aliases.get(name, name) for name in header]
    header = [name if new in header else new for name, new in zip(header, usual, strict=True)]
    header = [name or f"(column {number})" for number, name in enumerate(header, 1)]
    missing = [name for name in wanted if name not in header]
    if not missing:
        return header
    for delimiter, word in DELIMITERS.items():
        split = {name.strip().strip('"') for name in first.split(delimiter)}
        if len(split) > 1 and len(split & {*wanted, *aliases}) > len({*wanted} & {*header}):
            raise fault(
                path,
                line=1,
                expected="columns separated by a comma",
                found=f"a {word} ({delimiter!r})",
                hint=f"save it with commas between columns and points in numbers: pd.read_csv(..., sep={delimiter!r})",
            )
    close = {name: nearest(name, header) for name in missing}
    words = "; ".join(f"{name} (near: {', '.join(near)})" if near else name for name, near in close.items())
    raise fault(
        path,
        line=1,
        column=missing[0],
        expected=f"the columns {', '.join(wanted)}",
        found=f"no {words}",
        hint=f"rename the columns; the header has {', '.join(header)[:200]}",
    )


def _rows(path: Path, text: str, *, width: int, first_row: str) -> bool:
    """Check that every row has `width` fields; return whether the first row is short and may be dropped."""
    if '"' in text:
        widths, lines = _quoted(path, text)
    else:
        data = np.frombuffer(text.encode(), np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        starts = np.concatenate([[0], ends + 1])
        widths = np.add.reduceat(np.append(data, 0) == ord(","), starts) + 1
        lengths = np.diff(np.append(starts, data.size + 1)) - 1
        widths[lengths == 0] = 0  # an empty line is no field, not one
        if lengths.max() > LONGEST_LINE:
            line, found = int(lengths.argmax()) + 1, f"{lengths.max()} characters"
            raise fault(path, line=line, expected="a row of numbers", found=found, hint="is it a CSV file?")
        lines = np.arange(1, len(widths) + 1)
    wrong = np.flatnonzero(widths != width)
    cut = first_row == "drop" and len(wrong) > 0 and wrong[0] == 1 and widths[1] < width
    if (wrong := wrong[int(cut) :]).size:
        number, line = int(widths[wrong[0]]), int(lines[wrong[0]])
        raw = text.split("\n")[line - 1]
        other = next((mark for mark in DELIMITERS if number < width <= raw.count(mark) + 1), None)
        if other:
            hint = f"this line separates columns by {other!r}: save the file with commas"
        elif number > width:
            hint = "a decimal comma (3,5) or a thousands comma (1,000) also looks like one field more: use points"
        else:
            hint = "the line was cut off: delete it or record again"
        raise fault(path, line=line, expected=f"{width} fields", found=f"{number} fields in {raw[:40]!r}", hint=hint)
    return bool(cut)


def _quoted(path: Path, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of fields of each row, and the line it starts on, for a file with quotes."""
    reader, widths, lines, line = csv.reader(io.StringIO(text), strict=True), [], [], 1
    try:
        for row in reader:
            widths.append(len(row))
            lines.append(line)
            line = reader.line_num + 1
    except csv.Error as why:
        raise fault(
            path,
            line=line,
            column=str(text.split("\n")[line - 1].find('"') + 1),
            expected="every quote to be closed",
            found=str(why),
            hint="close or delete the quote in that line",
        ) from why
    return np.array(widths), np.array(lines)


def _parse(path: Path, text: str, *, header: list[str], spans: Mapping[str, Span], cut: bool) -> np.ndarray:
    """Return the wanted columns (rows, columns) as numbers, NaN where a cell is empty; other text is refused.

    Arrow reads a clean file in a blink. Whatever it does not take for numbers is read again, cell by cell.
    """
    if text.count("\n") <= cut:
        return np.empty((0, len(spans)))
    if '"' not in text and (quick := _quickly(text, header=header, wanted=list(spans), cut=cut)) is not None:
        return quick
    rows = list(csv.reader(io.StringIO(text)))[1 + cut :]
    columns = []
    for name in spans:
        column = [_number(row[header.index(name)]) for row in rows]
        wrong = [row for row, value in enumerate(column) if isinstance(value, str)]
        if wrong:
            raise _bad_number(path, text, header, spans, row=wrong[0] + cut, column=name, count=len(wrong))
        columns.append(column)
    return np.array(columns, dtype=np.float64).T


def _quickly(text: str, *, header: list[str], wanted: list[str], cut: bool) -> np.ndarray | None:
    import pyarrow
    from pyarrow import csv as arrow

    try:
        table = arrow.read_csv(
            pyarrow.py_buffer(text.encode()),
            read_options=arrow.ReadOptions(column_names=header, skip_rows=1 + cut, use_threads=False),
            parse_options=arrow.ParseOptions(quote_char=False),
            convert_options=arrow.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pyarrow.float64()),  # left to itself it takes 0x10 for a number
                null_values=MISSING,
            ),
        )
    except pyarrow.ArrowInvalid:
        return None
    return np.stack([column.to_numpy() for column in table.columns], axis=1)


def _number(cell: str) -> float | str:
    """Return the number in `cell`, NaN for an empty one, or the cell itself."""
    if NUMBER.fullmatch(cell):
        return float(cell)
    return float("nan") if cell.strip() in MISSING else cell


def _bad_number(
    path: Path, text: str, header: list[str], spans: Mapping[str, Span], *, row: int, column: str, count: int
) -> Exception:
    """Return the error for the cell in data row `row` (0 is the line below the header)."""
    reader = csv.reader(io.StringIO(text))
    for _ in range(row + 1):  # the header, and the rows above
        next(reader)
    line, cells = reader.line_num + 1, next(reader)
    cell, span = cells[header.index(column)], spans[column]
    hint = "delete or correct the cell, or leave the file out (skip)"
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell):
        hint = "write numbers with a point and without thousands commas"
    more = f" (and {count - 1} more cells like it in this file)" if count > 1 else ""
    limits = f"a number from {span.low:g} to {span.high:g}"
    return fault(path, line=line, column=column, expected=limits, found=f"{cell[:40]!r}{more}", hint=hint)
