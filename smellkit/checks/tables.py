"""Read a table of numbers or texts from CSV, and be exact about the place of a fault."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smellkit.checks.clock import Pace, clock_columns, paced, read_clock
from smellkit.checks.report import Report, content, decoded, fault, nearest

LONGEST_LINE = 100_000  # characters
LIMIT = 200_000_000  # bytes; the longest real recording has 60 thousand
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
THOUSANDS = re.compile(r"\s*\d{1,3}(\.\d{3})+\s*")
COUNTS = 1023  # of a 10-bit converter
ABOVE = 40  # lines in which a header is looked for, to say where it is
MISSING = ["", "nan", "NaN", "NAN", "NA", "null"]
DELIMITERS = {";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}


@dataclass(frozen=True)
class Span:
    """What a column may hold: numbers from `low` to `high`. NaN, infinity and anything outside is refused.

    `overflow` is the one value outside that a known firmware fault writes: it becomes `high`, and is counted; and told,
    unless the sensor is known for it (`usual`).
    """

    low: float = -1e15
    high: float = 1e15
    overflow: float | None = None
    usual: bool = False


def read_table(
    path: Path | str,
    *,
    columns: Mapping[str, Span] | Sequence[str],
    aliases: Mapping[str, str] | None = None,
    first_row: str = "refuse",
    pace: Pace | None = None,
    alike: Sequence[str] = (),
    watch: Mapping[str, Span] | None = None,
    report: Report | None = None,
) -> pd.DataFrame:
    """Return the `columns` of a CSV file as float64, in the order asked for; other columns are left out.

    `aliases` maps a header's other spelling to the name wanted. `first_row="drop"` drops a first row that is short or
    has empty cells (a serial line caught halfway), and tells it. With a `pace` the file's clock, where it has one, puts
    the rows at that rate (see `clock.paced`), and `row` and `part` are added. Columns that are `alike` are refused
    where they change places on the way. What columns to `watch` hold is told where they can't hold it: the cells of a
    row may have moved. Raises `DataError` with line and column.
    """
    path, report = Path(path), report if report is not None else Report()
    spans = dict(columns) if isinstance(columns, Mapping) else {name: Span() for name in columns}
    how: dict[str, Any] = {"aliases": aliases, "first_row": first_row, "alike": alike, "watch": watch}
    sheet, values = read_values(path, spans, report=report, **how)
    table = pd.DataFrame(values, columns=list(spans))
    return table if pace is None else at_pace(sheet, table, pace=pace, report=report)


def read_values(
    path: Path,
    spans: Mapping[str, Span],
    *,
    aliases: Mapping[str, str] | None = None,
    first_row: str = "refuse",
    alike: Sequence[str] = (),
    watch: Mapping[str, Span] | None = None,
    report: Report,
) -> tuple[Sheet, np.ndarray]:
    """Return the cells of a file and the numbers (rows, columns) of `spans`; keywords are those of `read_table`."""
    sheet = Sheet.read(path, wanted=list(spans), aliases=aliases or {}, drop=first_row == "drop", report=report)
    cells = sheet.columns(list(spans))
    values = np.stack([numbers(column) for column in cells], axis=1)
    for index, (name, span) in enumerate(spans.items()):
        if span.overflow is not None and (over := values[:, index] == span.overflow).any():
            values[over, index] = span.high
            say = report.note if span.usual else report.tell
            say(path, f"{name}: overflow {span.overflow:.0f} taken as {span.high:g}", int(over.sum()))
    low, high = np.array([(span.low, span.high) for span in spans.values()]).T
    if (bad := ~((values >= low) & (values <= high))).any():
        raise _bad_number(sheet, cells, values, bad, spans)
    for name, column in zip(spans, cells, strict=True):
        _refuse_thousands(sheet, name, column)
    if alike:
        _refuse_exchange(sheet, values[:, [list(spans).index(name) for name in alike]], alike)
    _tell_moved(sheet, {name: span for name, span in (watch or {}).items() if name not in spans}, report)
    return sheet, values


def at_pace(sheet: Sheet, table: pd.DataFrame, *, pace: Pace, report: Report) -> pd.DataFrame:
    """The rows of `table`, one a row of the sheet, by the sheet's own clock."""
    names = [name for name in clock_columns(sheet.header) if name not in table]
    seconds = None
    if names:
        texts = [" ".join(cells).strip() for cells in zip(*sheet.columns(names), strict=True)]
        seconds = read_clock(pd.Series(texts), path=sheet.path, name=" ".join(names), lines=sheet.lines)
    place: dict[str, Any] = {"path": sheet.path, "name": " ".join(names), "lines": sheet.lines, "rows": sheet.numbers}
    return paced(table, seconds, pace=pace, report=report, **place)


def read_texts(
    path: Path | str,
    *,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    clock: bool = False,
    report: Report | None = None,
) -> pd.DataFrame:
    """Return the `columns` of a CSV file as trimmed text, in the order asked for; the index is the line in the file.

    Those of `optional` come after them where the header has them, and with `clock` those that hold times. What a cell
    must be is the caller's business; the file itself is checked as `read_table` does it.
    """
    path, report = Path(path), report if report is not None else Report()
    sheet = Sheet.read(path, wanted=list(columns), report=report)
    more = [*(name for name in optional if name in sheet.header), *(clock_columns(sheet.header) if clock else [])]
    names = list(dict.fromkeys([*columns, *more]))
    cells = {name: [cell.strip() for cell in column] for name, column in zip(names, sheet.columns(names), strict=True)}
    return pd.DataFrame(cells, columns=names, index=pd.Index(sheet.lines, name="line"), dtype=str)


@dataclass(frozen=True)
class Sheet:
    """The cells of a CSV file below its header: as many in each row as the header has names."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]  # of the file, on which each row begins
    dropped: int = 0  # rows in front that were caught halfway

    @property
    def numbers(self) -> np.ndarray:
        """The number of each row in the file, from 0 below the header."""
        return np.arange(len(self.rows)) + self.dropped

    def columns(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The cells of some columns, a tuple each."""
        return [self._cells[self.header.index(name)] for name in names]

    @cached_property
    def _cells(self) -> list[tuple[str, ...]]:
        return list(zip(*self.rows, strict=True))

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        wanted: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        drop: bool = False,
        separated: bool = False,
        report: Report,
    ) -> Sheet:
        """Read a file whose header has every name `wanted`; `drop` leaves out a first row that was caught halfway.

        With `separated` a header without any comma, but with another delimiter, is refused.
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
        header = _header(path, rows[0], physical, wanted=list(wanted), aliases=aliases or {}, report=report)
        if separated and len(header) == 1 and (other := next((mark for mark in DELIMITERS if mark in header[0]), "")):
            raise _delimiter(path, other)
        width, rows, lines, dropped = len(header), rows[1:], lines[1:], 0
        places = [header.index(name) for name in wanted]
        if drop and rows and (len(rows[0]) < width or any(rows[0][place].strip() in MISSING for place in places)):
            report.tell(path, "truncated first row dropped")
            rows, lines, dropped = rows[1:], lines[1:], 1
        for row, line in zip(rows, lines, strict=True):
            if len(row) != width:
                raise _wrong_width(path, line, physical[line - 1], width=width, fields=len(row))
        if not rows:
            raise fault(path, line=2, expected="rows", found="a header only", hint="record or write the file again")
        return cls(path, header, rows, lines, dropped)


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
    path: Path, names: list[str], physical: list[str], *, wanted: list[str], aliases: Mapping[str, str], report: Report
) -> list[str]:
    """Return the `names` of the first line, trimmed, in their usual spelling; all `wanted` are there, once."""
    header = [name.strip() for name in names]
    if header != names:
        report.tell(path, "header trimmed")
    for name in header:
        if name and header.count(name) > 1:
            twice, hint = f"{header.count(name)} times {name!r}", "delete or rename the copy"
            raise fault(path, line=1, column=name, expected="each column once", found=twice, hint=hint)
    usual = [aliases.get(name, name) for name in header]
    header = [name if new in header else new for name, new in zip(header, usual, strict=True)]
    header = [name or f"(column {number})" for number, name in enumerate(header, 1)]
    if missing := [name for name in wanted if name not in header]:
        raise _missing(path, physical, header, missing, wanted=wanted, aliases=aliases)
    return header


def _missing(
    path: Path, physical: list[str], header: list[str], missing: list[str], *, wanted: list[str],
    aliases: Mapping[str, str],
) -> Exception:  # fmt: skip
    """Return the error for a header without the columns `missing`: below other lines, absent, another delimiter."""
    line, known = physical[0], {*wanted, *aliases}
    for delimiter in DELIMITERS:
        split = {name.strip().strip('"') for name in line.split(delimiter)}
        if len(split) > 1 and len(split & known) > len({*wanted} & {*header}):
            return _delimiter(path, delimiter)
    for number, other in enumerate(physical[1:ABOVE], 2):
        if known and len(known & {name.strip().strip('"') for name in re.split(r"[,;\t]", other)}) > len(
            known & {*header}
        ):
            hint = f"the header is in line {number}: delete what is above it"
            return fault(path, line=1, expected="the names of the columns", found=repr(line[:60]), hint=hint)
    if sum(bool(NUMBER.fullmatch(cell)) for cell in line.split(",")) > len(header) // 2:
        hint = f"there is no header: write the names of all {len(header)} columns above the first row"
        return fault(path, line=1, expected="the names of the columns", found=repr(line[:60]), hint=hint)
    close = {name: nearest(name, header) for name in missing}
    words = "; ".join(f"{name} (near: {', '.join(near)})" if near else name for name, near in close.items())
    hint = f"rename the columns; the header has {', '.join(header)[:200]}"
    expected = f"the columns {', '.join(wanted)}"
    return fault(path, line=1, column=missing[0], expected=expected, found=f"no {words}", hint=hint)


def _delimiter(path: Path, mark: str) -> Exception:
    hint = f"save it with commas between columns and points in numbers: pd.read_csv(..., sep={mark!r})"
    other = f"a {DELIMITERS[mark]} ({mark!r})"
    return fault(path, line=1, expected="columns separated by a comma", found=other, hint=hint)


def _wrong_width(path: Path, line: int, raw: str, *, width: int, fields: int) -> Exception:
    """Return the error for a row of another number of `fields` than the header's `width`."""
    other = next((mark for mark in DELIMITERS if fields < width <= raw.count(mark) + 1), None)
    if other:
        hint = f"this line separates columns by {other!r}: save the file with commas"
    elif not raw.strip():
        hint = "the line is blank: delete it"
    elif fields == 1:
        hint = "that is no row: delete the line, or record again without messages in between"
    elif fields > width:
        hint = "a decimal comma (3,5) or a thousands comma (1,000) also looks like one field more: use points"
    else:
        hint = "the line was cut off: delete it or record again"
    return fault(path, line=line, expected=f"{width} fields", found=f"{fields} fields in {raw[:40]!r}", hint=hint)


def numbers(cells: Sequence[str]) -> np.ndarray:
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
    sheet: Sheet, cells: list[tuple[str, ...]], values: np.ndarray, bad: np.ndarray, spans: Mapping[str, Span]
) -> Exception:
    """Return the error for the first cell that is `bad` (rows, columns), and how many there are."""
    row, column = map(int, np.argwhere(bad)[0])
    cell, name = cells[column][row], list(spans)[column]
    span, counts = spans[name], values[:, [place for place, one in enumerate(spans.values()) if one.high == COUNTS]]
    largest = counts[np.isfinite(counts)].max(initial=0)
    hint = "delete or correct the cell, or leave the file out (skip)"
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell):
        hint = "write numbers with a point and without thousands commas"
    elif set(sheet.rows[row]) & set(sheet.header):
        hint = "the header stands here again: delete the line; are its columns in the same order?"
    elif not cell.strip() and all(not other.strip() for other in sheet.rows[row]):
        hint = "the row is empty: delete it and those below"
    elif bad[row].all() and not any(map(NUMBER.fullmatch, sheet.rows[row])):
        hint = "that is a line of units or remarks: delete it"
    elif bits := next((bits for bits in (12, 14, 16) if span.high == COUNTS < largest < 2**bits), 0):
        hint = f"these look like counts of a {bits}-bit converter: divide by {(2**bits - 1) / COUNTS:.4g}"
    more = f" (and {bad.sum() - 1} more cells like it in this file)" if bad.sum() > 1 else ""
    limits = f"a number from {span.low:g} to {span.high:g}"
    found = f"{cell[:40]!r}{more}"
    return fault(sheet.path, line=sheet.lines[row], column=name, expected=limits, found=found, hint=hint)


def _refuse_thousands(sheet: Sheet, name: str, cells: Sequence[str]) -> None:
    """Refuse a column of whole numbers below 1000 and of 1.092, which means 1092 then."""
    pointed = [row for row, cell in enumerate(cells) if "." in cell]
    if not pointed or len(pointed) == len(cells) or not all(THOUSANDS.fullmatch(cells[row]) for row in pointed):
        return
    whole = [float(cell) for cell in cells if "." not in cell]
    if np.median(whole) >= 100 and max(whole) < 1000:
        found, hint = repr(cells[pointed[0]]), "a point between thousands, as in 1.092 for 1092? Save it without"
        line = sheet.lines[pointed[0]]
        raise fault(sheet.path, line=line, column=name, expected="a whole number, as above", found=found, hint=hint)


def _tell_moved(sheet: Sheet, spans: Mapping[str, Span], report: Report) -> None:
    """Tell of columns that are not used, and hold what they can't: the cells of their rows may have moved."""
    moved, place = [], ""
    if not (names := [name for name in spans if name in sheet.header]):
        return
    cells = sheet.columns(names)
    values = numbers([cell for column in cells for cell in column]).reshape(len(names), -1)
    for name, column, own in zip(names, cells, values, strict=True):
        span = spans[name]
        wrong = np.flatnonzero(~((own >= span.low) & (own <= span.high)) & (own != span.overflow))
        if len(wrong):
            place = place or f"line {sheet.lines[wrong[0]]}, {column[wrong[0]][:40]!r}"
            moved.append(name)
    if moved:
        what = f"{', '.join(moved)} can't hold what they hold ({place}): not used, but have cells moved?"
        report.tell(sheet.path, what, len(sheet.rows))


def _refuse_exchange(sheet: Sheet, values: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a recording whose columns change places from one row to the next: the same values in another order."""
    before, after = values[:-1], values[1:]
    jump = np.abs(after - before).sum(axis=1)
    moved = np.abs(np.sort(after, axis=1) - np.sort(before, axis=1)).sum(axis=1)
    scale = np.abs(before).sum(axis=1)
    rows = np.flatnonzero((jump > 0.2 * scale) & (moved < 0.05 * jump))
    if len(rows):
        found = f"the values of the row before in another order ({', '.join(names)})"
        hint = "did the order of columns change there? Save the rows from there on as a file with a header of its own"
        raise fault(
            sheet.path, line=sheet.lines[rows[0] + 1], expected="rows that follow each other", found=found, hint=hint
        )
