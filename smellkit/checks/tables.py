"""Read a table of numbers or texts from CSV, and be exact about the place of a fault."""

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
    cells, lines = _rows(path, wanted=list(spans), aliases=aliases or {}, drop=first_row == "drop", report=report)
    values = np.stack([_numbers(column) for column in zip(*cells, strict=True)], axis=1)
    for index, (name, span) in enumerate(spans.items()):
        if span.overflow is not None and (over := values[:, index] == span.overflow).any():
            values[over, index] = span.high
            report.note(path, f"{name}: overflow {span.overflow:.0f} taken as {span.high:g}", over.sum())
    low, high = np.array([(span.low, span.high) for span in spans.values()]).T
    if (bad := ~((values >= low) & (values <= high))).any():
        raise _bad_number(path, cells, lines, bad, spans)
    return pd.DataFrame(values, columns=list(spans))


def read_texts(path: Path | str, *, columns: Sequence[str], report: Report | None = None) -> pd.DataFrame:
    """Return the `columns` of a CSV file as trimmed text, in the order asked for; the index is the line in the file.

    What a cell must be is the caller's business; the file itself is checked as `read_table` does it.
    """
    path, report = Path(path), report if report is not None else Report()
    rows, lines = _rows(path, wanted=list(columns), report=report)
    cells = [[cell.strip() for cell in row] for row in rows]
    return pd.DataFrame(cells, columns=list(columns), index=pd.Index(lines, name="line"), dtype=str)


def _rows(
    path: Path, *, wanted: list[str], aliases: Mapping[str, str] | None = None, drop: bool = False, report: Report
) -> tuple[list[list[str]], list[int]]:
    """Return the `wanted` cells of each row below the header, and the line that it begins on.

    The header has every name wanted, and the rows all have as many fields as it; but for the first, with `drop`.
    """
    text = decoded(path, content(path, limit=LIMIT)).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    physical = text.split("\n")
    longest = max(range(len(physical)), key=lambda line: len(physical[line]))
    if len(physical[longest]) > LONGEST_LINE:
        size = f"{len(physical[longest])} characters"
        raise fault(path, line=longest + 1, expected="a row of fields", found=size, hint="is it a CSV file?")
    rows, lines = _split(path, text)
    if "\0" in text:
        raise _nul(path, rows, lines)
    header = _header(path, rows[0], physical[0], wanted=wanted, aliases=aliases or {}, report=report)
    width, rows, lines = len(header), rows[1:], lines[1:]
    places = [header.index(name) for name in wanted]
    if drop and rows and (len(rows[0]) < width or any(rows[0][place].strip() in MISSING for place in places)):
        report.note(path, "truncated first row dropped")
        rows, lines = rows[1:], lines[1:]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            raise _wrong_width(path, line, physical[line - 1], width=width, fields=len(row))
    if not rows:
        raise fault(path, line=2, expected="rows", found="a header only", hint="record or write the file again")
    return [[row[place] for place in places] for row in rows], lines


def _split(path: Path, text: str) -> tuple[list[list[str]], list[int]]:
    """Return the fields of every row, header included, and the line that it begins on."""
    reader, rows, lines, line = csv.reader(io.StringIO(text), strict=True), [], [], 1
    try:
        for row in reader:
            rows.append(row)
            lines.append(line)
            line = reader.line_num + 1
    except csv.Error as why:
        column, closed = str(text.split("\n")[line - 1].find('"') + 1), "every quote to be closed"
        hint = "close or delete the quote in that line"
        raise fault(path, line=line, column=column, expected=closed, found=str(why), hint=hint) from why
    return rows, lines


def _nul(path: Path, rows: list[list[str]], lines: list[int]) -> Exception:
    """Return the error for the first NUL byte, in the header or below it."""
    row, place = next((row, n) for row, cells in enumerate(rows) for n, cell in enumerate(cells) if "\0" in cell)
    column = rows[0][place].strip() if row and place < len(rows[0]) else str(place + 1)
    hint = "the file is damaged: copy or record it again"
    return fault(path, line=lines[row], column=column, expected="text", found="a NUL byte", hint=hint)


def _header(
    path: Path, names: list[str], line: str, *, wanted: list[str], aliases: Mapping[str, str], report: Report
) -> list[str]:
    """Return the `names` of the first `line`, trimmed, in their usual spelling; all `wanted` are there, once."""
    header = [name.strip() for name in names]
    if header != names:
        report.note(path, "header trimmed")
        log.warning("%s, line 1: spaces around column names were trimmed", path)
    for name in header:
        if name and header.count(name) > 1:
            twice, hint = f"{header.count(name)} times {name!r}", "delete or rename the copy"
            raise fault(path, line=1, column=name, expected="each column once", found=twice, hint=hint)
    usual = [aliases.get(name, name) for name in header]
    header = [name if new in header else new for name, new in zip(header, usual, strict=True)]
    header = [name or f"(column {number})" for number, name in enumerate(header, 1)]
    if missing := [name for name in wanted if name not in header]:
        raise _missing(path, line, header, missing, wanted=wanted, aliases=aliases)
    return header


def _missing(
    path: Path, line: str, header: list[str], missing: list[str], *, wanted: list[str], aliases: Mapping[str, str]
) -> Exception:
    """Return the error for a header without the columns `missing`: another delimiter, or other names."""
    for delimiter, word in DELIMITERS.items():
        split = {name.strip().strip('"') for name in line.split(delimiter)}
        if len(split) > 1 and len(split & {*wanted, *aliases}) > len({*wanted} & {*header}):
            hint = f"save it with commas between columns and points in numbers: pd.read_csv(..., sep={delimiter!r})"
            other = f"a {word} ({delimiter!r})"
            return fault(path, line=1, expected="columns separated by a comma", found=other, hint=hint)
    close = {name: nearest(name, header) for name in missing}
    words = "; ".join(f"{name} (near: {', '.join(near)})" if near else name for name, near in close.items())
    hint = f"rename the columns; the header has {', '.join(header)[:200]}"
    expected = f"the columns {', '.join(wanted)}"
    return fault(path, line=1, column=missing[0], expected=expected, found=f"no {words}", hint=hint)


def _wrong_width(path: Path, line: int, raw: str, *, width: int, fields: int) -> Exception:
    """Return the error for a row of another number of `fields` than the header's `width`."""
    other = next((mark for mark in DELIMITERS if fields < width <= raw.count(mark) + 1), None)
    if other:
        hint = f"this line separates columns by {other!r}: save the file with commas"
    elif fields > width:
        hint = "a decimal comma (3,5) or a thousands comma (1,000) also looks like one field more: use points"
    else:
        hint = "the line was cut off: delete it or record again"
    return fault(path, line=line, expected=f"{width} fields", found=f"{fields} fields in {raw[:40]!r}", hint=hint)


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """Return the numbers in `cells`: NaN for an empty one, infinity (which no span allows) for any other text."""
    import pyarrow

    try:  # quick, and strict: no hexadecimal, no 1_000, no digits of other scripts
        return pyarrow.array(cells, pyarrow.string()).cast(pyarrow.float64()).to_numpy(zero_copy_only=False).copy()
    except pyarrow.ArrowInvalid:
        missing, text = float("nan"), float("inf")
        return np.array([
            float(cell) if NUMBER.fullmatch(cell) else missing if cell.strip() in MISSING else text for cell in cells
        ])  # fmt: skip


def _bad_number(
    path: Path, cells: list[list[str]], lines: list[int], bad: np.ndarray, spans: Mapping[str, Span]
) -> Exception:
    """Return the error for the first cell that is `bad` (rows, columns), and how many there are."""
    row, column = map(int, np.argwhere(bad)[0])
    cell, name = cells[row][column], list(spans)[column]
    hint = "delete or correct the cell, or leave the file out (skip)"
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell):
        hint = "write numbers with a point and without thousands commas"
    more = f" (and {bad.sum() - 1} more cells like it in this file)" if bad.sum() > 1 else ""
    limits = f"a number from {spans[name].low:g} to {spans[name].high:g}"
    return fault(path, line=lines[row], column=name, expected=limits, found=f"{cell[:40]!r}{more}", hint=hint)
