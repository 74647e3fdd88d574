"""A table of text, however it is written, as a `Raw` recording: cells by column, and the line of each row.

Any delimiter and decimal sign, with a header or without, with remarks above and between the rows. Nothing is judged
here: which columns count, their units and spans are the description's business (see `readers`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks import Report, fault
from smellkit.checks.report import decoded

HEAD = 200  # lines from which the layout is read
MISSING = ("", "nan", "NaN", "NAN", "NA", "N/A", "null", "None")
NUMBER = {
    mark: re.compile(rf'\s*"?[+-]?(\d+{re.escape(mark)}?\d*|{re.escape(mark)}\d+)([eE][+-]?\d+)?"?\s*', re.ASCII)
    for mark in ".,"
}
LAYOUTS = [(delimiter, mark) for delimiter in (",", ";", "\t", "|", " ") for mark in ".," if delimiter != mark]
TORN = 0.02  # share of rows that a serial line may tear: they are left out and told
SPELLED = {  # unit in brackets behind a column's name, or in OpenSmell's JSON -> unit of a description
    **dict.fromkeys(("adc", "counts", "count", "raw"), "adc"),
    **dict.fromkeys(("v", "volt", "volts", "voltage"), "volt"),
    **dict.fromkeys(("ohm", "ohms", "ω", "resistance_ohm"), "ohm"),
    **dict.fromkeys(("kohm", "kohms", "kω", "kilo-ohm"), "kilo-ohm"),
    **dict.fromkeys(("mv", "millivolt"), "millivolt"),
    **dict.fromkeys(("rs/r0", "rs_r0"), "rs/r0"),
    **dict.fromkeys(("c", "°c", "degc", "deg c", "celsius", "degreescelcius", "temperature_celsius"), "celsius"),
    **dict.fromkeys(("%", "%rh", "rh", "percent", "humidity_percent"), "percent"),
    **dict.fromkeys(("hpa", "hectopascal", "hectopascals", "mbar"), "hectopascal"),
    **dict.fromkeys(("pa", "pascal"), "pascal"),
    **dict.fromkeys(("kpa", "kilopascal"), "kilopascal"),
    **{name: name for name in ("ppm", "ppb")},
}


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


class Layout(NamedTuple):
    """How a table of text is written: `first` is the index of the line in which the rows begin."""

    delimiter: str
    mark: str
    names: list[str]
    first: int
    numeric: list[bool]  # of each column
    named: bool


def read_text(path: Path, data: bytes, report: Report) -> Raw:
    lines = decoded(path, data[: _end(data, HEAD)]).split("\n")
    layout = _layout(path, lines, report)
    if layout.delimiter == " ":
        data = re.sub(rb"(?m)^ | $", b"", re.sub(rb"[ \t]+", b" ", data))
    body = data[_end(data, layout.first) :].rstrip()
    cells, kept = _parsed(path, body, layout, report)
    lines_of = kept + layout.first
    empty = cells.isna().all(axis=1).to_numpy()
    if empty.any():
        report.note(path, "empty rows left out", int(empty.sum()))
        cells, lines_of = cells[~empty].reset_index(drop=True), lines_of[~empty]
    raw = Raw(path, cells, lines_of, units=_units(layout.names), named=layout.named)
    return _of_numbers(raw, layout, report)


def _end(data: bytes, count: int) -> int:
    """Where the first `count` lines end."""
    place = 0
    for _ in range(count):
        if not (place := data.find(b"\n", place) + 1):
            return len(data)
    return place


def _split(line: str, delimiter: str) -> list[str]:
    fields = line.split() if delimiter == " " else line.split(delimiter)
    return [name.strip().strip('"').strip() for name in fields]


def _layout(path: Path, lines: Sequence[str], report: Report) -> Layout:
    """Delimiter and decimal sign with which most fields are numbers; where rows begin; the header above them."""
    best, most = None, (0.0, 0)
    for delimiter, mark in LAYOUTS:
        counts = [
            (sum(map(bool, map(NUMBER[mark].fullmatch, fields))), len(fields))
            for fields in (_split(line, delimiter) for line in lines if line.strip())
        ]
        total, width = (sum(pair[place] for pair in counts if pair[0]) for place in (0, 1))
        if total and (score := (round(total / width, 2), total)) > most:
            best, most = (delimiter, mark), score
    if best is None:
        hint = "rows of numbers with a header above; is it a recording?"
        raise fault(path, line=1, expected="a table of numbers", found=repr(lines[0][:60]), hint=hint)
    delimiter, mark = best
    rows = [_split(line, delimiter) if line.strip() else [] for line in lines]
    numbers = [[bool(NUMBER[mark].fullmatch(cell)) for cell in row] for row in rows]
    width = Counter(len(row) for row, own in zip(rows, numbers, strict=True) if any(own)).most_common(1)[0][0]
    usual = np.median([sum(own) for own in numbers if len(own) == width and any(own)])
    first = next(at for at, own in enumerate(numbers) if len(own) == width and sum(own) >= max(1, usual / 2))
    body = [own for own in numbers[first:] if len(own) == width]
    numeric = [sum(column) > len(body) / 2 for column in zip(*body, strict=True)]
    names, named = _names(path, rows[:first], numbers[:first], width, report)
    return Layout(delimiter, mark, names, first, numeric, named)


def _names(
    path: Path, above: list[list[str]], numbers: list[list[bool]], width: int, report: Report
) -> tuple[list[str], bool]:
    """The header among the lines `above` the rows, or names made up; what else stands there is told."""
    headers = [at for at, row in enumerate(above) if len(row) == width and not any(numbers[at]) and any(row)]
    texts = [at for at, row in enumerate(above) if len(row) > 1 and not any(numbers[at])]
    if not headers and texts and len(above[texts[-1]]) > 2 and abs(len(above[texts[-1]]) - width) <= 2:
        found = f"{len(above[texts[-1]])} names above rows of {width} fields"
        hint = "a name for each column; or a decimal comma that also separates columns?"
        raise fault(path, line=texts[-1] + 1, expected=f"{width} names", found=found, hint=hint)
    others = [at + 1 for at, row in enumerate(above) if row and at not in headers[:1]]
    if others:
        what = f"lines above the rows that are none (the first: line {others[0]})"
        report.tell(path, f"{what}: left out", len(others))
    if not headers:
        return [f"column {number}" for number in range(1, width + 1)], False
    names = [name or f"column {number}" for number, name in enumerate(above[headers[0]], 1)]
    if twice := [name for name in names if names.count(name) > 1]:
        found, hint = f"{names.count(twice[0])} times", "rename or delete the copy"
        raise fault(path, line=headers[0] + 1, column=twice[0], expected="each column once", found=found, hint=hint)
    return names, True


def _parsed(path: Path, body: bytes, layout: Layout, report: Report) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The cells of the rows, and the number of each (from 1); torn lines and remarks between are left out and told."""
    import io

    import pyarrow as arrow
    from pyarrow import csv

    odd: list[tuple[int, str]] = []

    def leave(row) -> str:
        odd.append((row.number, row.text))
        return "skip"

    def parse(types: dict[str, Any]):
        odd.clear()
        convert = {"null_values": list(MISSING), "strings_can_be_null": True, "decimal_point": layout.mark}
        lines = {"delimiter": layout.delimiter, "invalid_row_handler": leave, "ignore_empty_lines": False}
        return csv.read_csv(
            io.BytesIO(body),
            read_options=csv.ReadOptions(column_names=layout.names, use_threads=False, block_size=1 << 22),
            parse_options=csv.ParseOptions(**lines),
            convert_options=csv.ConvertOptions(column_types=types, **convert),
        )

    kinds = [arrow.float64() if number else arrow.string() for number in layout.numeric]
    try:
        table = parse(dict(zip(layout.names, kinds, strict=True)))
    except arrow.ArrowInvalid:  # a cell that is no number, somewhere
        try:
            table = parse(dict.fromkeys(layout.names, arrow.string()))
        except arrow.ArrowInvalid as why:
            decoded(path, body)  # says where it is no UTF-8
            raise fault(path, expected="a table of text", found=str(why)[:100], hint="is it a CSV file?") from why
    _judge(path, odd, table.num_rows, layout, report)
    lines = np.arange(1, table.num_rows + len(odd) + 1)
    return table.to_pandas(), np.delete(lines, [number - 1 for number, _ in odd])


def _judge(path: Path, odd: list[tuple[int, str]], rows: int, layout: Layout, report: Report) -> None:
    """Lines of another width than the rows: a few torn ones and remarks are forgiven, many torn ones are not."""
    torn: list[tuple[int, str]] = []
    remarks: list[tuple[int, str]] = []
    for number, text in odd:
        fields = _split(text, layout.delimiter)
        count = sum(map(bool, map(NUMBER[layout.mark].fullmatch, fields)))
        (torn if 2 * count >= len(fields) else remarks).append((number + layout.first, text))
    if len(torn) > max(2, TORN * rows):
        line, text = torn[0]
        found = f"{len(_split(text, layout.delimiter))} in {text[:40]!r}, and {len(torn) - 1} more such lines"
        raise fault(
            path,
            line=line,
            expected=f"{len(layout.names)} fields",
            found=found,
            hint="were cells lost? Record it again",
        )
    for lines, what in ((torn, "torn rows"), (remarks, "lines between the rows that are none")):
        if lines:
            report.tell(path, f"{what} (the first: line {lines[0][0]}): left out", len(lines))


def _of_numbers(raw: Raw, layout: Layout, report: Report) -> Raw:
    """Columns of numbers as numbers; rows without any are left out, what else is none is remembered in `bad`."""
    names = [name for name, number in zip(layout.names, layout.numeric, strict=True) if number]
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(raw.cells[name])]
    if not texts:
        return raw
    values, wrong = {}, {}
    for name in texts:
        cells = raw.cells[name].astype("object")
        plain = cells.where(cells.notna(), "").astype(str)
        good = plain.str.fullmatch(NUMBER[layout.mark].pattern)
        points = plain.where(good).str.strip(' "').str.replace(layout.mark, ".", regex=False)
        values[name] = pd.to_numeric(points, errors="coerce")
        wrong[name] = ~good & (plain != "")
    nothing = np.all([wrong[name] | values[name].isna() for name in texts], axis=0) & np.any(
        list(wrong.values()), axis=0
    )
    for row in np.flatnonzero(nothing):
        again = [str(cell).strip() for cell in raw.cells.iloc[row]]
        if set(again) == set(layout.names) and again != layout.names:
            hint = "save the rows from there on as a file of its own, with that header"
            line = int(raw.lines[row])
            raise fault(raw.path, line=line, expected="columns in one order", found="another header", hint=hint)
    if nothing.any():
        first = raw.lines[nothing][0]
        report.tell(
            raw.path, f"lines between the rows that are none (the first: line {first}): left out", nothing.sum()
        )
    for name in texts:
        if (places := np.flatnonzero(wrong[name] & ~nothing)).size:
            raw.bad[name] = int(raw.lines[places[0]]), str(raw.cells[name].iloc[places[0]])
    cells = raw.cells.assign(**values)[~nothing].reset_index(drop=True)
    return Raw(raw.path, cells, raw.lines[~nothing], units=raw.units, bad=raw.bad, named=raw.named)


def _units(names: Sequence[str]) -> dict[str, str]:
    """The units that stand in brackets behind the names of columns."""
    found = {name: re.search(r"[(\[]\s*([^)\]]+?)\s*[)\]]\s*$", name) for name in names}
    spelled = {name: SPELLED.get(match[1].lower()) for name, match in found.items() if match}
    return {name: unit for name, unit in spelled.items() if unit}
