"""A table of text, however it is written, as a `Raw` recording: cells by column, and the line of each row.

Any delimiter and decimal sign, with a header or without, with remarks above and between the rows; or, of a board whose
files are known (`read_known`), nothing but what it writes. Nothing is judged here: which columns count, their units and
spans are the description's business (see `readers`).
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks import Report, fault
from smellkit.checks.clock import clock_columns
from smellkit.checks.report import decoded
from smellkit.checks.tables import Sheet, numbers
from smellkit.errors import DataError
from smellkit.noses import Column, Description

HEAD = 200  # lines from which the layout is read
MISSING = ["", "nan", "NaN", "NAN", "NA", "N/A", "null", "None"]
NUMBER = {
    mark: re.compile(rf'[ \t]*"?[+-]?(\d+{re.escape(mark)}?\d*|{re.escape(mark)}\d+)([eE][+-]?\d+)?"?[ \t]*', re.ASCII)
    for mark in ".,"
}
LAYOUTS = [(delimiter, mark) for delimiter in (",", ";", "\t", "|", " ") for mark in ".," if delimiter != mark]
TORN = 0.02  # share of rows that a serial line may tear: they are left out and told
SPELLINGS = {  # unit of a description -> in brackets behind a column's name, or in the JSON or header of a format
    "adc": "adc counts count raw",
    "volt": "v volt volts voltage",
    "millivolt": "mv millivolt",
    "ohm": "ohm ohms ω resistance_ohm",
    "kilo-ohm": "kohm kohms kω",
    "rs/r0": "rs/r0 rs_r0",
    "celsius": "c °c degc celsius degreescelcius temperature_celsius",
    "percent": "% %rh rh percent humidity_percent",
    "hectopascal": "hpa mbar hectopascal hectopascals",
    "pascal": "pa pascal",
    "kilopascal": "kpa kilopascal",
    "ppm": "ppm",
    "ppb": "ppb",
}
SPELLED = {word: unit for unit, words in SPELLINGS.items() for word in words.split()}


@dataclass
class Raw:
    """A recording as its file has it: `cells` are numbers, or texts where a column has any; `lines` those of the rows.

    `part` is which of several of a file it is. `bad` are cells of columns of numbers that are none. What the format
    tells by itself: substance, session, the `units` of columns, and the `rate` that was declared.
    """

    path: Path
    cells: pd.DataFrame
    lines: NDArray[np.int64]
    part: str = ""
    substance: str = ""
    session: str = ""
    rate: float | None = None
    units: dict[str, str] = field(default_factory=dict)
    bad: dict[str, tuple[int, str]] = field(default_factory=dict)  # column -> line and text of the first
    named: bool = True  # there is a header
    features: bool = False
    sheet: Sheet | None = None  # the file's own cells, where none of them may be missing

    def fault(
        self,
        expected: str,
        found: str,
        hint: str,
        *,
        column: str | None = None,
        row: Any = None,
        line: int | None = None,
    ) -> DataError:
        """The error for one fault: in a column, in a row or a line, or of the whole file."""
        line = line if row is None else int(self.lines[row])
        return fault(self.path, line=line, column=column, expected=expected, found=found, hint=hint)


def read_known(path: Path, nose: Description, report: Report) -> Raw:
    """Return the columns of a `nose` whose files are known, and those of the clock; all else is a DataError.

    A first row that was caught halfway is dropped, and told.
    """
    aliases = {other: name for name, column in nose.columns.items() for other in column.also}
    sheet = Sheet.read(path, wanted=list(nose.columns), aliases=aliases, drop=True, report=report)
    cells: dict[str, Any] = {name: numbers(sheet.cells[name]) for name in nose.columns}
    for name in clock_columns(sheet.header):
        cells.setdefault(name, sheet.cells[name].to_pandas().str.strip())
    return Raw(path, pd.DataFrame(cells), np.array(sheet.lines), sheet=sheet)


def tell_moved(sheet: Sheet, columns: Mapping[str, Column], report: Report) -> None:
    """Tell of `columns` that hold what they can't: they are not used, but the cells of their rows may have moved."""
    there = {name: column for name, column in columns.items() if name in sheet.header}
    moved = {name: place for name, column in there.items() if (place := _impossible(sheet, name, column))}
    if moved:
        what = f"{', '.join(moved)} can't hold what they hold ({next(iter(moved.values()))})"
        report.tell(sheet.path, f"{what}: not used, but have cells moved?", len(sheet.cells))


def _impossible(sheet: Sheet, name: str, column: Column) -> str:
    """Where a column holds first what it can't, in words; or ""."""
    values, (low, high) = numbers(sheet.cells[name]), column.span
    wrong = ~((values >= low) & (values <= high)) & (values != column.overflow)
    row = int(wrong.argmax())
    return f"line {sheet.lines[row]}, {str(sheet.cells[name][row])[:40]!r}" if wrong.any() else ""


def row_fault(sheet: Sheet, row: int, cell: str, *, whole: bool) -> str:
    """What a row tells of why its `cell` is no reading (`whole`: nor is any other), as a hint; "" where it does not."""
    cells = [str(one[row]) for one in sheet.cells.columns]
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell):
        return "write numbers with a point and without thousands commas"
    if set(cells) & set(sheet.header):
        return "the header stands here again: delete the line; are its columns in the same order?"
    if not "".join(cells).strip():
        return "the row is empty: delete it and those below"
    if whole and not any(map(NUMBER["."].fullmatch, cells)):
        return "that is a line of units or remarks: delete it"
    return ""


class Layout(NamedTuple):
    """How a table of text is written: `first` is the index of the line in which the rows begin."""

    delimiter: str
    mark: str
    names: list[str]
    first: int
    numeric: list[str]  # the columns of numbers
    named: bool

    def split(self, line: str) -> list[str]:
        """The fields of a line."""
        return _split(line, self.delimiter)


def read_text(path: Path, data: bytes, report: Report) -> Raw:
    """Return the table in the bytes of a file; what is no row of it is told, DataError where it is none."""
    layout = _layout(path, decoded(path, data[: _end(data, HEAD)]).split("\n"), report)
    if layout.delimiter == " ":
        data = re.sub(rb"(?m)^ | $", b"", re.sub(rb"[ \t]+", b" ", data))
    cells, lines = _parsed(path, data[_end(data, layout.first) :].rstrip(), layout, report)
    raw = Raw(path, cells, lines + layout.first, units=_units(layout.names), named=layout.named)
    if (empty := cells.isna().all(axis=1)).any():
        report.note(path, "empty rows left out", int(empty.sum()))
        raw = _only(raw, ~empty.to_numpy())
    return _of_numbers(raw, layout, report)


def _only(raw: Raw, kept: NDArray[np.bool_]) -> Raw:
    raw.cells, raw.lines = raw.cells[kept].reset_index(drop=True), raw.lines[kept]
    return raw


def _end(data: bytes, count: int) -> int:
    """Where the first `count` lines end."""
    place = 0
    for _ in range(count):
        if not (place := data.find(b"\n", place) + 1):
            return len(data)
    return place


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == " " or '"' not in line:
        fields = line.split() if delimiter == " " else line.split(delimiter) if line.strip() else []
    else:
        fields = next(csv.reader([line[: csv.field_size_limit()]], delimiter=delimiter), [])
    return [name.strip().strip('"').strip() for name in fields]


def _layout(path: Path, lines: Sequence[str], report: Report) -> Layout:
    """Delimiter and decimal sign with which most fields are numbers; where rows begin; the header above them."""
    tried: dict[tuple[str, str], tuple[float, int]] = {}
    for delimiter, mark in LAYOUTS:
        rows = [list(map(bool, map(NUMBER[mark].fullmatch, _split(line, delimiter)))) for line in lines]
        total, width = sum(map(sum, rows)), sum(len(row) for row in rows if any(row))
        tried[delimiter, mark] = round(total / max(width, 1), 2), total
    delimiter, mark = max(tried, key=lambda layout: tried[layout])
    if not tried[delimiter, mark][1]:
        hint = "rows of numbers with a header above; is it a recording?"
        raise fault(path, line=1, expected="a table of numbers", found=repr(lines[0][:60]), hint=hint)
    fields = [_split(line, delimiter) for line in lines]
    rows = [[bool(NUMBER[mark].fullmatch(cell)) for cell in row] for row in fields]
    width = Counter(len(row) for row in rows if any(row)).most_common(1)[0][0]
    usual = np.median([sum(row) for row in rows if len(row) == width and any(row)])
    first = next(at for at, row in enumerate(rows) if len(row) == width and sum(row) >= max(1, usual / 2))
    names, named = _names(path, fields[:first], rows[:first], width, report)
    body = [row for row in rows[first:] if len(row) == width]
    numeric = [name for name, own in zip(names, zip(*body, strict=True), strict=True) if sum(own) > len(body) / 2]
    return Layout(delimiter, mark, names, first, numeric, named)


def _names(
    path: Path, above: list[list[str]], numbers: list[list[bool]], width: int, report: Report
) -> tuple[list[str], bool]:
    """The header among the lines `above` the rows, or names made up; what else stands there is told."""
    texts = [at for at, row in enumerate(above) if any(row) and not any(numbers[at])]
    headers = [at for at in texts if len(above[at]) == width]
    if not headers and texts and len(above[texts[-1]]) > 2 and abs(len(above[texts[-1]]) - width) <= 2:
        found = f"{len(above[texts[-1]])} names above rows of {width} fields"
        hint = "a name for each column; or a decimal comma that also separates columns?"
        raise fault(path, line=texts[-1] + 1, expected=f"{width} names", found=found, hint=hint)
    others = [at + 1 for at, row in enumerate(above) if row and at not in headers[:1]]
    _tell(path, "lines above the rows that are none", others, report)
    if not headers:
        return [f"column {number}" for number in range(1, width + 1)], False
    names = [name or f"column {number}" for number, name in enumerate(above[headers[0]], 1)]
    if twice := [name for name in names if names.count(name) > 1]:
        found, hint = f"{names.count(twice[0])} times", "rename or delete the copy"
        raise fault(path, line=headers[0] + 1, column=twice[0], expected="each column once", found=found, hint=hint)
    return names, True


def _tell(path: Path, what: str, lines: Sequence[int], report: Report) -> None:
    if len(lines):
        report.tell(path, f"{what} (the first: line {lines[0]}): left out", len(lines))


def _parsed(path: Path, body: bytes, layout: Layout, report: Report) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The cells of the rows, and the number of each (from 1); torn lines and remarks between are left out and told."""
    import pyarrow as arrow
    from pyarrow import csv as table_of_text

    odd: list[tuple[int, str]] = []

    def leave(row) -> str:
        odd.append((row.number, row.text))
        return "skip"

    def parse(numeric: Sequence[str]):
        odd.clear()
        types = {name: arrow.float64() if name in numeric else arrow.string() for name in layout.names}
        how: dict[str, Any] = {"null_values": MISSING, "strings_can_be_null": True, "decimal_point": layout.mark}
        return table_of_text.read_csv(
            io.BytesIO(body),
            read_options=table_of_text.ReadOptions(column_names=layout.names, use_threads=False, block_size=1 << 22),
            parse_options=table_of_text.ParseOptions(
                delimiter=layout.delimiter,
                ignore_empty_lines=False,
                invalid_row_handler=leave,
            ),
            convert_options=table_of_text.ConvertOptions(column_types=types, **how),
        )

    try:
        table = parse(layout.numeric)
    except arrow.ArrowInvalid:  # a cell that is no number, somewhere
        try:
            table = parse([])
        except arrow.ArrowInvalid as why:
            decoded(path, body)  # says where it is no UTF-8
            raise fault(path, expected="a table of text", found=str(why)[:100], hint="is it a CSV file?") from why
    _judge(path, odd, table.num_rows, layout, report)
    lines = np.arange(1, table.num_rows + len(odd) + 1)
    return table.to_pandas(), np.delete(lines, [number - 1 for number, _ in odd])


def _judge(path: Path, odd: list[tuple[int, str]], rows: int, layout: Layout, report: Report) -> None:
    """Lines of another width than the rows: a few torn ones and remarks are forgiven, many torn ones are not."""
    lines, number = {line + layout.first: text for line, text in odd}, NUMBER[layout.mark]
    fields = {line: layout.split(text) for line, text in lines.items()}
    torn = [line for line, own in fields.items() if 2 * sum(bool(number.fullmatch(one)) for one in own) >= len(own)]
    if len(torn) > max(2, TORN * rows):
        line = torn[0]
        found = f"{len(fields[line])} in {lines[line][:40]!r}, and {len(torn) - 1} more such lines"
        expected, hint = f"{len(layout.names)} fields", "were cells lost? Record it again"
        raise fault(path, line=line, expected=expected, found=found, hint=hint)
    _tell(path, "torn rows", torn, report)
    _tell(path, "lines between the rows that are none", sorted({*lines} - {*torn}), report)


def _of_numbers(raw: Raw, layout: Layout, report: Report) -> Raw:
    """Columns of numbers as numbers; rows without any are left out, what else is none is remembered in `bad`."""
    texts = raw.cells[[name for name in layout.numeric if not pd.api.types.is_numeric_dtype(raw.cells[name])]]
    if texts.empty:
        return raw
    texts = texts.astype(object).where(texts.notna(), "").astype(str)
    good = texts.apply(lambda cells: cells.str.fullmatch(NUMBER[layout.mark].pattern))
    points = texts.where(good).apply(lambda cells: cells.str.strip(' \t"').str.replace(layout.mark, ".", regex=False))
    wrong = (~good & (texts != "")).to_numpy()
    nothing = wrong.any(axis=1) & ~good.any(axis=1).to_numpy()
    for row in np.flatnonzero(nothing).tolist():
        again = [str(cell).strip() for cell in raw.cells.iloc[row]]
        if set(again) == set(layout.names) and again != layout.names:
            hint = "save the rows from there on as a file of its own, with that header"
            raise raw.fault("columns in one order", "another header", hint, row=row)
    _tell(raw.path, "lines between the rows that are none", raw.lines[nothing], report)
    raw.cells = raw.cells.assign(**points.apply(pd.to_numeric))
    kept, texts, wrong = _only(raw, ~nothing), texts[~nothing], wrong[~nothing]
    for place in np.flatnonzero(wrong.any(axis=0)):
        row = int(wrong[:, place].argmax())
        kept.bad[texts.columns[place]] = int(kept.lines[row]), texts.iat[row, place]
    return kept


def _units(names: Sequence[str]) -> dict[str, str]:
    """The units that stand in brackets behind the names of columns."""
    brackets = {name: re.search(r"[(\[]([^)\]]+)[)\]]\s*$", name) for name in names}
    spelled = {name: SPELLED.get(match[1].lower().replace(" ", "")) for name, match in brackets.items() if match}
    return {name: unit for name, unit in spelled.items() if unit}
