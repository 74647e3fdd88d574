"""Read a table from CSV as text, and be exact about the place of a fault.

pyarrow splits a file at once; what it can't split is read again row by row, which finds the place.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow

from smellkit.checks.clock import clock_columns
from smellkit.checks.report import Report, content, decoded, fault
from smellkit.options import alike

LONGEST_LINE = 100_000  # characters
NUMBER = {  # decimal sign -> what a number looks like
    mark: re.compile(rf"\s*[+-]?(\d+{re.escape(mark)}?\d*|{re.escape(mark)}\d+)([eE][+-]?\d+)?\s*", re.ASCII)
    for mark in ".,"
}
QUOTED = re.compile(r'(?:^|,)"[^"\n]*"(?=,|$)', re.MULTILINE)  # a cell in quotes, without any inside
ABOVE = 40  # lines in which a header is looked for, to say where it is
MISSING = ["", "nan", "NaN", "NAN", "NA", "N/A", "null", "None"]
DELIMITERS = {";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}


def read_texts(
    path: Path | str, *, columns: Sequence[str], optional: Sequence[str] = (), clock: bool = False,
    report: Report | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return the `columns` of a CSV file as trimmed text, in the order asked for; the index is the line in the file.

    Those of `optional` come after them where the header has them, and with `clock` those that hold times. What a cell
    must be is the caller's business.
    """
    sheet = Sheet.read(Path(path), wanted=columns, report=report if report is not None else Report())
    more = [*(name for name in optional if name in sheet.header), *(clock_columns(sheet.header) if clock else [])]
    cells = sheet.cells.select(list(dict.fromkeys([*columns, *more]))).to_pandas()
    return cells.apply(lambda column: column.str.strip()).set_axis(pd.Index(sheet.lines, name="line"))


@dataclass(frozen=True)
class Sheet:
    """The `cells` of a CSV file below its header, as text: a column a name, and as many cells in each row."""

    path: Path
    cells: pyarrow.Table
    lines: Sequence[int]  # of the file, on which each row begins
    dropped: int = 0  # rows in front that were caught halfway

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        return self.cells.column_names

    @classmethod
    def read(
        cls, path: Path, *, wanted: Sequence[str] = (), aliases: Mapping[str, str] | None = None, drop: bool = False,
        report: Report,
    ) -> Sheet:  # fmt: skip
        """Read a file whose header has every name `wanted`; `drop` leaves out a first row that was caught halfway."""
        text = decoded(path, content(path)).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
        physical = text.split("\n")
        if (longest := max(map(len, physical))) > LONGEST_LINE:
            line = [len(one) for one in physical].index(longest) + 1
            raise fault(path, "a row of fields", f"{longest} characters", "is it a CSV file?", line=line)
        header = _header(path, physical, wanted=wanted, aliases=aliases or {}, report=report)
        first, places = next(csv.reader(physical[1:2]), []), [header.index(name) for name in wanted]
        halfway = len(first) < len(header) or any(first[at].strip() in MISSING for at in places)
        if dropped := int(drop and halfway and len(physical) > 1):
            report.tell(path, "truncated first row dropped")
        if not (rows := physical[1 + dropped :]):
            raise fault(path, "rows", "a header only", "record or write the file again", line=2)
        cells, lines = _split_at_once(rows, len(header)), range(2 + dropped, len(physical) + 1)
        if cells is None:
            return cls(path, *_split(path, rows, header, line=2 + dropped), dropped)
        return cls(path, cells.rename_columns(header), lines, dropped)


def _split_at_once(rows: Sequence[str], width: int) -> pyarrow.Table | None:
    """The cells of lines that are all rows of one width, without a quote inside of quotes; or None."""
    from pyarrow import csv as quick

    text = "\n".join(rows)
    if "\0" in text or "" in rows or ('"' in text and text.count('"') != 2 * len(QUOTED.findall(text))):
        return None
    names = [str(number) for number in range(width)]
    try:
        return quick.read_csv(
            pyarrow.BufferReader(text.encode()),
            quick.ReadOptions(use_threads=False, column_names=names),
            quick.ParseOptions(ignore_empty_lines=False),
            quick.ConvertOptions(check_utf8=False, column_types=dict.fromkeys(names, pyarrow.string())),
        )
    except pyarrow.ArrowInvalid:
        return None


def _split(path: Path, rows: Sequence[str], header: list[str], *, line: int) -> tuple[pyarrow.Table, list[int]]:
    """The cells of lines from `line` on and the line that each row begins on; or the error, with its place."""
    reader, begin, lines, cells = csv.reader((f"{row}\n" for row in rows), strict=True), line, [], []
    try:
        for row in reader:
            lines.append(line)
            cells.append(row)
            line = begin + reader.line_num
    except csv.Error as why:
        column, hint = str(rows[line - begin].find('"') + 1), "close or delete the quote in that line"
        raise fault(path, "every quote to be closed", str(why), hint, line=line, column=column) from why
    for line, row in zip(lines, cells, strict=True):
        if len(row) != len(header):
            raise _wrong_width(path, line, rows[line - begin], width=len(header), fields=len(row))
        for name, cell in zip(header, row, strict=True):
            if "\0" in cell:
                hint = "the file is damaged: copy or record it again"
                raise fault(path, "text", "a NUL byte", hint, line=line, column=name)
    columns = [pyarrow.array(column, pyarrow.string()) for column in zip(*cells, strict=True)]
    return pyarrow.table(columns, header), lines


def _header(
    path: Path, physical: list[str], *, wanted: Sequence[str], aliases: Mapping[str, str], report: Report
) -> list[str]:
    """Return the names in the first line, trimmed, in their usual spelling; all `wanted` are there, once."""
    names = next(csv.reader(physical[:1]))
    header = [name.strip() for name in names]
    if header != names:
        report.tell(path, "header trimmed")
    for name in header:
        if name and header.count(name) > 1:
            twice, hint = f"{header.count(name)} times {name!r}", "delete or rename the copy"
            raise fault(path, "each column once", twice, hint, line=1, column=name)
    usual = [aliases.get(name, name) for name in header]
    header = [name if new in header else new for name, new in zip(header, usual, strict=True)]
    header = [name or f"(column {number})" for number, name in enumerate(header, 1)]
    if missing := [name for name in wanted if name not in header]:
        raise _missing(path, physical, header, missing, wanted=wanted, known={*wanted, *aliases})
    return header


def _missing(
    path: Path, physical: list[str], header: list[str], missing: list[str], *, wanted: Sequence[str], known: set[str]
) -> Exception:
    """Return the error for a header without the columns `missing`: below other lines, absent, another delimiter."""

    def among(line: str, marks: str) -> int:
        return len(known & {name.strip().strip('"') for name in re.split(f"[{marks}]", line)})

    line, hint = physical[0], ""
    for mark in DELIMITERS:
        if mark in line and among(line, mark) > len({*wanted} & {*header}):
            other = f"a {DELIMITERS[mark]} ({mark!r})"
            hint = f"save it with commas between columns and points in numbers: pd.read_csv(..., sep={mark!r})"
            return fault(path, "columns separated by a comma", other, hint, line=1)
    below = [n for n, other in enumerate(physical[1:ABOVE], 2) if among(other, ",;\t") > len(known & {*header})]
    if below:
        hint = f"the header is in line {below[0]}: delete what is above it"
    elif sum(bool(NUMBER["."].fullmatch(cell)) for cell in line.split(",")) > len(header) // 2:
        hint = f"there is no header: write the names of all {len(header)} columns above the first row"
    if hint:
        return fault(path, "the names of the columns", repr(line[:60]), hint, line=1)
    close = {name: alike(name, header) for name in missing}
    words = "; ".join(f"{name} (near: {', '.join(near)})" if near else name for name, near in close.items())
    hint = f"rename the columns; the header has {', '.join(header)[:200]}"
    return fault(path, f"the columns {', '.join(wanted)}", f"no {words}", hint, line=1, column=missing[0])


def _wrong_width(path: Path, line: int, raw: str, *, width: int, fields: int) -> Exception:
    """Return the error for a row of another number of `fields` than the header's `width`."""
    if other := next((mark for mark in DELIMITERS if fields < width <= raw.count(mark) + 1), None):
        hint = f"this line separates columns by {other!r}: save the file with commas"
    elif fields > width:
        hint = "a decimal comma (3,5) or a thousands comma (1,000) also looks like one field more: use points"
    else:
        hint = "delete a line that is blank or a message; record again where rows were cut off"
    return fault(path, f"{width} fields", f"{fields} fields in {raw[:40]!r}", hint, line=line)


def numbers(cells: Sequence[str] | pyarrow.ChunkedArray, mark: str = ".") -> np.ndarray:
    """Return the numbers in `cells`: NaN for an empty one, infinity (which no span allows) for any other text.

    `mark` is the decimal sign.
    """
    from pyarrow import compute

    texts = cells if isinstance(cells, pyarrow.ChunkedArray) else pyarrow.array(cells, pyarrow.string())
    if mark == ",":
        texts = compute.replace_substring(compute.replace_substring(texts, ".", "?"), ",", ".")
    try:  # quick, and strict: no hexadecimal, no 1_000, no digits of other scripts
        return np.array(compute.utf8_trim(texts, " \t").cast(pyarrow.float64()), np.float64)
    except pyarrow.ArrowInvalid:
        empty, number = {False: np.inf, True: np.nan}, NUMBER["."].fullmatch
        return np.array([float(cell) if number(cell) else empty[cell.strip() in MISSING] for cell in map(str, texts)])
