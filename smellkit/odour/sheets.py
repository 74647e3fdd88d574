"""A table of text, however it is written, as a `Raw` recording: cells by column, indexed by the line of each row.

Any delimiter and decimal sign, with a header or without, with remarks above and between the rows; or, of a board whose
files are known (`read_known`), nothing but what it writes. Nothing is judged here: which columns count, their units and
spans are the description's business (see `readers`).
"""

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
import pyarrow
from numpy.typing import NDArray

from smellkit.checks import Report, fault
from smellkit.checks.clock import clock_columns
from smellkit.checks.report import decoded
from smellkit.checks.tables import MISSING, NUMBER, Sheet, numbers
from smellkit.errors import DataError
from smellkit.noses import Description

HEAD = 200  # lines from which the layout is read
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
    """A recording as its file has it: `cells` are numbers, or texts where a column has any; the index is their line."""

    path: Path
    cells: pd.DataFrame
    part: str = ""  # which of several of a file it is
    substance: str = ""  # this, the session, units and the declared rate are what the format tells by itself
    session: str = ""
    rate: float | None = None
    units: dict[str, str] = field(default_factory=dict)
    bad: dict[str, tuple[int, str]] = field(default_factory=dict)  # column of numbers -> line, text of one that is none
    named: bool = True  # there is a header
    features: bool = False
    sheet: Sheet | None = None  # the file's own cells, where none of them may be missing

    @property
    def lines(self) -> NDArray[np.int64]:
        """The line of the file on which each row begins."""
        return self.cells.index.to_numpy()

    def fault(self, expected: str, actual: str, hint: str, *, row: Any = None, **place: Any) -> DataError:
        """The error for one fault: in a `column`, in a `row` or a `line`, or of the whole file."""
        return fault(self.path, expected, actual, hint, **place | ({} if row is None else {"line": self.lines[row]}))


def read_known(path: Path, nose: Description, report: Report) -> Raw:
    """Return the columns of a `nose` whose files are known, and those of the clock; all else is a DataError.

    A first row that was caught halfway is dropped, and told.
    """
    aliases = {other: name for name, column in nose.columns.items() for other in column.also}
    sheet = Sheet.read(path, wanted=list(nose.columns), aliases=aliases, drop=True, report=report)
    cells: dict[str, Any] = {name: numbers(sheet.cells[name]) for name in nose.columns}
    for name in clock_columns(sheet.header):
        cells.setdefault(name, sheet.cells[name].to_pandas().str.strip().array)
    return Raw(path, pd.DataFrame(cells, index=sheet.lines, copy=False), sheet=sheet)


def tell_moved(raw: Raw, nose: Description, report: Report) -> None:
    """Tell of columns that hold what they can't: they are not used, but the cells of their rows may have moved."""
    sheet, moved = raw.sheet, {}
    assert sheet
    unused = {*sheet.header} - {*raw.cells}
    for name in [name for name in nose.columns if name in unused]:
        values, (low, high) = numbers(sheet.cells[name]), nose.columns[name].span
        wrong = ~((values >= low) & (values <= high)) & (values != nose.columns[name].overflow)
        if wrong.any():
            row = int(wrong.argmax())
            moved[name] = f"line {sheet.lines[row]}, {str(sheet.cells[name][row])[:40]!r}"
    if moved:
        what = f"{', '.join(moved)} can't hold what they hold ({next(iter(moved.values()))})"
        report.tell(sheet.path, f"{what}: not used, but have cells moved?", len(sheet.cells))


class Layout(NamedTuple):
    """How a table of text is written: `first` is the index of the line in which the rows begin."""

    delimiter: str
    mark: str
    names: list[str]
    first: int
    numeric: list[str]  # the columns of numbers
    named: bool


def read_text(path: Path, data: bytes, report: Report) -> Raw:
    """Return the table in the bytes of a file; what is no row of it is told, DataError where it is none."""
    head = data.split(b"\n", HEAD)[:HEAD]
    layout = _layout(path, decoded(path, b"\n".join(head)).split("\n"), report)
    body = data[sum(len(line) + 1 for line in head[: layout.first]) :].rstrip()
    if layout.delimiter == " ":
        body = re.sub(rb"(?m)^ | $", b"", re.sub(rb"[ \t]+", b" ", body))
    texts, lines = _parsed(path, body, layout, report)
    brackets = {name: re.search(r"[(\[]([^)\]]+)[)\]]\s*$", name) for name in layout.names}
    units = {name: SPELLED.get(match[1].lower().replace(" ", ""), "") for name, match in brackets.items() if match}
    numeric = {name: numbers(texts[name], layout.mark) for name in layout.numeric}
    columns = {name: numeric[name] if name in numeric else texts[name].to_pandas().array for name in layout.names}
    cells = pd.DataFrame(columns, index=lines)
    raw = Raw(path, cells, units={name: unit for name, unit in units.items() if unit}, named=layout.named)
    return _rows_of_numbers(raw, texts, layout, report)


def _rows_of_numbers(raw: Raw, texts: pyarrow.Table, layout: Layout, report: Report) -> Raw:
    """The rows that hold any number; what else is none in a column of numbers is remembered in `bad`."""
    values, empty = raw.cells[layout.numeric], raw.cells.isna().all(axis=1).to_numpy()
    wrong = np.isinf(values)
    nothing = (wrong.any(axis=1) & ~np.isfinite(values).any(axis=1)).to_numpy()
    for row in np.flatnonzero(nothing).tolist():
        again = [str(cell).strip() for cell in texts.slice(row, 1).to_pylist()[0].values()]
        if set(again) == set(layout.names) and again != layout.names:
            hint = "save the rows from there on as a file of its own, with that header"
            raise raw.fault("columns in one order", "another header", hint, row=row)
    _tell(raw.path, "lines between the rows that are none", raw.lines[nothing], report)
    if empty.any():
        report.note(raw.path, "empty rows left out", empty.sum())
    for name in layout.numeric:
        for row in np.flatnonzero(wrong[name] & ~nothing)[:1].tolist():
            raw.bad[name] = int(raw.lines[row]), texts[name][row].as_py()
    raw.cells = raw.cells.assign(**values.mask(wrong))[~(nothing | empty)]
    return raw


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == " " or '"' not in line:
        fields = line.split() if delimiter == " " else line.split(delimiter) if line.strip() else []
    else:
        fields = next(csv.reader([line[: csv.field_size_limit()]], delimiter=delimiter), [])
    return [name.strip().strip('"').strip() for name in fields]


def _layout(path: Path, lines: Sequence[str], report: Report) -> Layout:
    """Delimiter and decimal sign with which most fields are numbers; where rows begin; the header above them."""

    def numeric(delimiter: str, mark: str) -> list[list[bool]]:
        return [[bool(NUMBER[mark].fullmatch(cell)) for cell in _split(line, delimiter)] for line in lines]

    def score(layout: tuple[str, str]) -> tuple[float, int]:
        rows = numeric(*layout)
        total = sum(map(sum, rows))
        return round(total / max(sum(len(row) for row in rows if any(row)), 1), 2), total

    delimiter, mark = max(LAYOUTS, key=score)
    fields, rows = [_split(line, delimiter) for line in lines], numeric(delimiter, mark)
    if not any(map(any, rows)):
        hint = "rows of numbers with a header above; is it a recording?"
        raise fault(path, "a table of numbers", repr(lines[0][:60]), hint, line=1)
    width = Counter(len(row) for row in rows if any(row)).most_common(1)[0][0]
    usual = np.median([sum(row) for row in rows if len(row) == width and any(row)])
    first = next(at for at, row in enumerate(rows) if len(row) == width and sum(row) >= max(1, usual / 2))
    names, named = _names(path, fields[:first], rows[:first], width, report)
    body = [row for row in rows[first:] if len(row) == width]
    often = [name for name, own in zip(names, zip(*body, strict=True), strict=True) if sum(own) > len(body) / 2]
    return Layout(delimiter, mark, names, first, often, named)


def _names(
    path: Path, above: list[list[str]], numbers: list[list[bool]], width: int, report: Report
) -> tuple[list[str], bool]:
    """The header among the lines `above` the rows, or names made up; what else stands there is told."""
    texts = [at for at, row in enumerate(above) if any(row) and not any(numbers[at])]
    headers = [at for at in texts if len(above[at]) == width]
    if not headers and texts and len(above[texts[-1]]) > 2 and abs(len(above[texts[-1]]) - width) <= 2:
        actual = f"{len(above[texts[-1]])} names above rows of {width} fields"
        hint = "a name for each column; or a decimal comma that also separates columns?"
        raise fault(path, f"{width} names", actual, hint, line=texts[-1] + 1)
    others = [at + 1 for at, row in enumerate(above) if row and at not in headers[:1]]
    _tell(path, "lines above the rows that are none", others, report)
    if not headers:
        return [f"column {number}" for number in range(1, width + 1)], False
    names = [name or f"column {number}" for number, name in enumerate(above[headers[0]], 1)]
    if twice := [name for name in names if names.count(name) > 1]:
        actual, hint = f"{names.count(twice[0])} times", "rename or delete the copy"
        raise fault(path, "each column once", actual, hint, line=headers[0] + 1, column=twice[0])
    return names, True


def _tell(path: Path, what: str, lines: Sequence[int], report: Report) -> None:
    if len(lines):
        report.tell(path, f"{what} (the first: line {lines[0]}): left out", len(lines))


def _parsed(path: Path, body: bytes, layout: Layout, report: Report) -> tuple[pyarrow.Table, NDArray[np.int64]]:
    """The texts of the rows, and the line of each; torn lines and remarks between are left out and told."""
    from pyarrow import csv as quick

    odd: dict[int, str] = {}  # line -> its text

    def leave(row) -> str:
        odd[row.number + layout.first] = row.text
        return "skip"

    try:
        table = quick.read_csv(
            io.BytesIO(body),
            quick.ReadOptions(column_names=layout.names, use_threads=False, block_size=1 << 22),
            quick.ParseOptions(delimiter=layout.delimiter, ignore_empty_lines=False, invalid_row_handler=leave),
            quick.ConvertOptions(
                column_types=dict.fromkeys(layout.names, pyarrow.string()),
                null_values=MISSING,
                strings_can_be_null=True,
            ),
        )
    except pyarrow.ArrowInvalid as why:
        decoded(path, body)  # says where it is no UTF-8
        raise fault(path, "a table of text", str(why)[:100], "is it a CSV file?") from why
    _judge(path, odd, table.num_rows, layout, report)
    lines = np.delete(np.arange(table.num_rows + len(odd)) + 1 + layout.first, [n - 1 - layout.first for n in odd])
    return table, lines


def _judge(path: Path, odd: Mapping[int, str], rows: int, layout: Layout, report: Report) -> None:
    """Lines of another width than the rows: a few torn ones and remarks are forgiven, many torn ones are not."""
    fields = {line: _split(text, layout.delimiter) for line, text in odd.items()}
    number = NUMBER[layout.mark].fullmatch
    torn = [line for line, own in fields.items() if 2 * sum(bool(number(one)) for one in own) >= len(own)]
    if len(torn) > max(2, TORN * rows):
        line = torn[0]
        actual = f"{len(fields[line])} in {odd[line][:40]!r}, and {len(torn) - 1} more such lines"
        raise fault(path, f"{len(layout.names)} fields", actual, "were cells lost? Record it again", line=line)
    _tell(path, "torn rows", torn, report)
    _tell(path, "lines between the rows that are none", sorted({*odd} - {*torn}), report)
