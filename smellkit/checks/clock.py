"""One clock for every system: what a time column says, in seconds, and rows at the rate that weights know.

    cells -- read_clock --> seconds -- paced --> rows in order, at `Pace.rate`, in parts that no gap divides

Read are ISO dates, times of day (AM/PM, decimal comma, midnight), seconds, `millis()` and `micros()` with their
overflow, epochs in s, ms, us or ns, and days of a spreadsheet. What is repeated, out of order or missing is told,
cut or refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks.report import Report, fault
from smellkit.errors import DataError

Seconds = NDArray[np.float64]
WORDS = {
    "time",
    "timestamp",
    "datetime",
    "date",
    "clock",
    "millis",
    "micros",
    "epoch",
    "elapsed",
    "uptime",
    "utc",
    "ts",
}
ALONE = {
    "t",
    "s",
    "ms",
    "us",
    "sec",
    "secs",
    "second",
    "seconds",
    "t console",
    "t s",
    "t ms",
}  # names that are one whole
UNITS = {"ns": 1e-9, "us": 1e-6, "micros": 1e-6, "ms": 1e-3, "msec": 1e-3, "millis": 1e-3}
UNITS |= dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0)
TIME = re.compile(
    r"(?P<date>.*?)[T ]*(?<!\d)(?:(?P<h>\d{1,3}):)?(?P<m>\d{1,2}):(?P<s>\d{1,2}(?:[.,:]\d+)?)\s*"
    r"(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?"
)
OVERFLOWS = (2.0**32, 2.0**16)  # of the counters behind millis() and micros()
LARGEST = 1e20  # nanoseconds since 1970 have 19 digits
REPEATS = 0.005  # share of rows that may repeat a time: a clock of tenths of a second does so by chance
UNEVEN = 0.05  # share of steps that may be uneven where a clock proves the order


@dataclass(frozen=True)
class Pace:
    """How fast rows must come, and what happens when they don't.

    Rows within `near` of `rate` are taken as they are; faster ones are resampled, by interpolation with `fill`, or else
    to the nearest rows; below `slowest` (times the rate) they are refused. Beyond `gap` seconds without a row a
    recording is cut.
    """

    rate: float  # rows a second
    gap: float
    near: tuple[float, float] = (0.9, 1.1)
    slowest: float = 0.67
    fill: bool = True


def clock_columns(header: Sequence[str]) -> list[str]:
    """The columns of a header that hold the time of each row: one, a date and a time, or none."""
    plain = {name: " ".join(re.findall(r"[a-z]+", name.lower().replace("stamp", "stamp "))) for name in header}
    known = [
        name
        for name, words in plain.items()
        if words in ALONE or WORDS & {*words.replace("time stamp", "timestamp").split()}
    ]
    dates = [name for name in known if plain[name] == "date"]
    times = [name for name in known if plain[name] != "date"]
    if dates and times and plain[times[0]] == "time":
        return [dates[0], times[0]]
    return times[:1] or dates[:1]


def read_clock(cells: pd.Series, *, path: Path, name: str, lines: Sequence[int]) -> Seconds:
    """Return the seconds that the `cells` of a clock say, NaN for an empty one.

    `lines` are the lines of the file. DataError for a cell that is no time, with its line.
    """
    if pd.api.types.is_datetime64_any_dtype(cells):
        return cells.astype("int64").where(cells.notna()).to_numpy(np.float64, na_value=np.nan) / _ticks(cells)
    if pd.api.types.is_timedelta64_dtype(cells):
        return cells.dt.total_seconds().to_numpy()
    numbers, empty = _numbers(cells)
    if numbers is not None:
        wrong, seconds, modulus = np.abs(numbers) > LARGEST, numbers, 0.0
    else:
        seconds, modulus = _times(cells.fillna("").astype(str).str.strip())
        wrong = np.isnan(seconds) & ~empty
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        hint = "a time such as 2025-03-01 12:43:56.017, 12:43:56.017, or seconds; or delete the column"
        cell = repr(cells.iloc[first])[:60]
        raise fault(path, line=lines[first], column=name, expected="a time", found=cell, hint=hint)
    return _numeric(numbers, name) if numbers is not None else _unwrapped(seconds, modulus, slack=0.01)


def _numbers(cells: pd.Series) -> tuple[Seconds | None, NDArray[np.bool_]]:
    """A clock whose cells are all numbers or empty, or None; and which cells are empty."""
    if pd.api.types.is_numeric_dtype(cells):
        return cells.to_numpy(np.float64, na_value=np.nan), cells.isna().to_numpy()
    if (quick := _floats(cells)) is not None:
        return quick, np.isnan(quick)
    texts = cells.astype("object").where(cells.notna(), "").astype(str).str.strip()
    empty = texts.str.lower().isin(["", "nan", "nat", "none", "null"]).to_numpy()
    points = texts.mask(empty, "").str.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True)
    numbers = pd.to_numeric(points, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return (numbers if (~np.isnan(numbers) | empty).all() else None), empty


def _floats(cells: pd.Series) -> Seconds | None:
    """Texts that are all plain numbers, quickly."""
    import pyarrow

    try:
        return pyarrow.array(cells, pyarrow.string()).cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return None


def _ticks(cells: pd.Series) -> float:
    unit = getattr(cells.dt, "unit", "ns")
    return {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]


def _numeric(values: Seconds, name: str) -> Seconds:
    """Seconds of a numeric clock: the unit is in its name, or follows from the size of an epoch or of a step."""
    steps = np.abs(np.diff(values[np.isfinite(values)]))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    words = re.findall(r"[a-z]+", name.lower())
    named = next((UNITS[word] for word in reversed(words) if word in UNITS), None)
    largest = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 0.0
    if named is None:
        epochs = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
        named = next((unit for limit, unit in epochs if largest >= limit), None)
    if named is None and 3e4 <= largest <= 7e4 and 0 < step < 1e-3:
        named = 86400.0  # days since 1900, as a spreadsheet counts them
    if named is None:
        named = 1e-6 if step >= 2e4 else 1e-3 if step >= 20 else 1.0
    moduli = OVERFLOWS if named < 1 and step >= 1 else ()
    return _unwrapped(values, *moduli) * named


def _times(texts: pd.Series) -> tuple[Seconds, float]:
    """Seconds of texts with a time of day, and after how many they begin anew: a day, 12 hours, an hour, or never."""
    parts = texts.str.extract("^" + TIME.pattern + "$")
    numbers = parts[["h", "m", "s"]].apply(lambda column: column.str.replace(r"[,:]", ".", regex=True).astype(float))
    half, dates = parts["half"].str.lower().str[0], parts["date"].fillna("").str.strip(" ,T")
    minutes = numbers["h"].isna() & (half.notna() | (dates != "")) & ~parts["s"].fillna("").str.contains(r"\D")
    numbers[minutes] = numbers[minutes].assign(h=numbers["m"], m=numbers["s"], s=0.0)  # 12:43 PM is no 12 minutes
    hours = numbers["h"].where(half.isna(), numbers["h"] % 12 + 12 * (half == "p"))
    seconds = 3600 * hours.fillna(0) + 60 * numbers["m"] + numbers["s"]
    if (dates == "").all():
        within = numbers["h"].isna().all()
        twelve = half.isna().all() and numbers["h"].between(1, 12).all()
        return seconds.to_numpy(), 3600.0 if within else 43200.0 if twelve else 86400.0
    return (seconds + dates.map(_days(dates[parts["s"].notna()].unique()))).to_numpy(), 0.0


def _days(dates: Sequence[str]) -> dict[str, float]:
    """Seconds of midnight of each date; of day.month and month/day the reading in which the dates lie closer."""
    readings = []
    for first in (True, False):
        days = {text: pd.to_datetime(text, dayfirst=first, errors="coerce") for text in dates}
        stamps = {text: day.timestamp() if not pd.isna(day) else np.nan for text, day in days.items()}
        lost = sum(np.isnan(stamp) for stamp in stamps.values())
        values = [stamp for stamp in stamps.values() if not np.isnan(stamp)]
        readings.append((lost, max(values) - min(values) if values else 0.0, stamps))
    return min(readings, key=lambda reading: reading[:2])[2]


def _unwrapped(values: Seconds, *moduli: float, slack: float = 0.0) -> Seconds:
    """Undo the overflow of a counter: a fall by almost all of a modulus goes on instead."""
    values = values.copy()
    there = np.flatnonzero(np.isfinite(values))
    steps = np.diff(values[there])
    step = float(np.median(np.abs(steps[steps != 0]))) if (steps != 0).any() else 0.0
    for modulus in filter(None, moduli):
        falls = (steps < 0) & (steps + modulus >= 0) & (steps + modulus <= max(3 * step, slack * modulus))
        if falls.any() and 20 * step < modulus:
            values[there[1:]] += modulus * np.cumsum(falls)
            break
    return values


def paced(
    table: pd.DataFrame, clock: Seconds | None, *, pace: Pace, path: Path, name: str, lines: Sequence[int],
    rows: NDArray[np.int64], report: Report,
) -> pd.DataFrame:  # fmt: skip
    """Return the rows of `table` in order and at the pace, with `row` (of the file) and `part` (up at each gap).

    `rows` and `lines` say where each row stands in the file; `table` itself gets both columns. Without a `clock` the
    rows are taken at the pace. What was
    mended is told in the report; DataError where the clock proves no order, or rows come too slowly.
    """
    table["row"], table["part"] = rows, 0
    if clock is None or len(table) < 8:
        return table
    steps = np.diff(clock) * pace.rate
    if steps.min() > 0.5 and steps.max() < 1.5 and pace.near[0] <= 1 / steps.mean() <= pace.near[1]:
        return table  # as almost all are
    if np.isnan(clock).all() or np.nanmax(clock) == np.nanmin(clock):
        report.tell(path, f"the clock {name!r} stands still: {pace.rate:g} rows a second assumed", len(table))
        return table
    if lost := int(np.isnan(clock).sum()):
        report.tell(path, f"rows without a time in {name!r}: put between their neighbours", lost)
        there = np.flatnonzero(~np.isnan(clock))
        clock = np.interp(np.arange(len(clock)), there, clock[there])
    table, clock = _without_copies(table, clock, path=path, report=report)
    table, clock = _in_order(
        table, clock, path=path, name=name, lines=dict(zip(rows, lines, strict=True)), report=report
    )
    clock = _spread(clock, path=path, name=name, report=report)
    steps = np.diff(clock)
    cuts = (steps > pace.gap) | (steps < 0)
    if gaps := int((steps > pace.gap).sum()):
        longest = f"{steps.max():.0f} s" if steps.max() < 600 else f"{steps.max() / 60:.0f} min"
        report.tell(
            path,
            f"gaps in the clock, cut there (the longest {longest}, before {_line(lines, rows, table, steps)})",
            gaps,
        )
    table["part"] = np.concatenate([[0], np.cumsum(cuts)])
    return _at_rate(table, clock, steps[~cuts & (steps > 0)], pace=pace, path=path, name=name, report=report)


def _line(lines: Sequence[int], rows: NDArray, table: pd.DataFrame, steps: Seconds) -> str:
    at = int(table["row"].iloc[int(steps.argmax()) + 1])
    return f"line {lines[int(np.flatnonzero(rows == at)[0])]}"


def _without_copies(table: pd.DataFrame, clock: Seconds, *, path: Path, report: Report) -> tuple[pd.DataFrame, Seconds]:
    """Without rows that repeat the one before, its time included, where that is no chance."""
    values = table.drop(columns=["row", "part"])
    same = np.diff(clock) == 0
    if same.mean() > REPEATS or same.sum() == 1:
        after, before = values.iloc[1:].reset_index(drop=True), values.iloc[:-1].reset_index(drop=True)
        same &= ((after == before) | (after.isna() & before.isna())).all(axis=1).to_numpy()
        if same.any():
            report.tell(path, "rows that repeat the one before and its time: left out", int(same.sum()))
            kept = np.concatenate([[True], ~same])
            return table[kept].reset_index(drop=True), clock[kept]
    return table, clock


def _in_order(
    table: pd.DataFrame, clock: Seconds, *, path: Path, name: str, lines: dict[int, int], report: Report
) -> tuple[pd.DataFrame, Seconds]:
    """In the order of the clock, where its times prove one; a clock that was set back a few times is told."""
    steps = np.diff(clock)
    back = np.flatnonzero(steps < 0)
    if not len(back):
        return table, clock
    order = np.argsort(clock, kind="stable")
    ahead = np.diff(clock[order])
    typical = float(np.median(ahead))
    uneven = np.mean((ahead < 0.5 * typical) | (ahead > 1.5 * typical)) if typical > 0 else 1.0
    restarted = len(back) <= 5 and (steps > 0).any() and typical < 0.75 * np.median(steps[steps > 0])
    line = lines[int(table["row"].iloc[back[0] + 1])]
    if uneven <= UNEVEN and not restarted:
        report.tell(path, f"rows against the clock (from line {line}): put in its order", len(back))
        return table.iloc[order].reset_index(drop=True), clock[order]
    if len(back) <= max(5, 0.01 * len(clock)):
        report.tell(path, f"the clock goes back (in line {line}): cut there", len(back))
        return table, clock
    places, hint = f"times that go back {len(back)} times", "sort the rows by their time, or delete the column"
    raise fault(path, line=line, column=name, expected="rows in the order of their times", found=places, hint=hint)


def _spread(clock: Seconds, *, path: Path, name: str, report: Report) -> Seconds:
    """Rows that share a time, as a clock of whole seconds gives it to several, spread evenly up to the next time."""
    same = np.diff(clock) == 0
    if same.mean() <= REPEATS:
        return clock
    report.tell(path, f"rows share their time with the one before in {name!r}: spread evenly", int(same.sum()))
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    counts = np.diff(np.append(starts, len(clock)))
    ahead = np.diff(clock[starts])
    width = np.append(ahead, 0.0)
    usual = np.median(ahead[ahead > 0]) if (ahead > 0).any() else 0.0
    width = np.where((width <= 0) | (width > 3 * usual), usual, width)
    if len(starts) > 2:  # the first and the last time may be those of a part of their rows
        width[[0, -1]] = np.minimum(width[[0, -1]], counts[[0, -1]] * np.median(width[1:-1] / counts[1:-1]))
    shift = width[0] if not len(ahead) else ahead[0] - width[0]
    begun = clock[starts] + np.where(np.arange(len(starts)) == 0, max(0.0, shift), 0.0)
    inside = np.arange(len(clock)) - np.repeat(starts, counts)
    return np.repeat(begun, counts) + inside * np.repeat(width / counts, counts)


def _at_rate(
    table: pd.DataFrame, clock: Seconds, steps: Seconds, *, pace: Pace, path: Path, name: str, report: Report
) -> pd.DataFrame:
    """The rows at the pace: as they are, resampled, or refused with both rates."""
    step = float(np.median(steps)) if len(steps) else 1 / pace.rate
    measured = 1 / step / pace.rate
    if measured < pace.slowest:
        raise _slow(path, name, 1 / step, pace.rate)
    lost = int((steps > 1.5 * step).sum()) if pace.fill else 0
    if pace.near[0] <= measured <= pace.near[1] and not lost:
        return table
    if pace.near[0] <= measured <= pace.near[1]:
        report.tell(path, "rows lost on the way, by the clock: filled in by interpolation", lost)
    else:
        word = "resampled" if pace.fill else "thinned"
        report.tell(path, f"{1 / step:.3g} rows a second {word} to {pace.rate:.3g}", len(table))
    parts = table["part"].to_numpy()
    pieces = [(table[parts == part], clock[parts == part]) for part in np.unique(parts)]
    return pd.concat([_on_grid(*piece, step=step, pace=pace) for piece in pieces], ignore_index=True)


def _on_grid(table: pd.DataFrame, clock: Seconds, *, step: float, pace: Pace) -> pd.DataFrame:
    """One part of a recording at an even pace: interpolated at the times of a grid, or every so many rows."""
    if not pace.fill:  # rows are events of a machine: those that it left out stay left out
        wanted = np.arange(0, len(table) * step, 1 / pace.rate) / step
        return table.iloc[np.clip(np.round(wanted).astype(int), 0, len(table) - 1)].reset_index(drop=True)
    grid = np.arange(clock[0], clock[-1] + 1e-6, 1 / pace.rate)
    after = np.clip(np.searchsorted(clock, grid), 1, max(1, len(clock) - 1))
    after -= grid - clock[after - 1] < clock[np.minimum(after, len(clock) - 1)] - grid
    result = table.iloc[np.minimum(after, len(clock) - 1)].reset_index(drop=True)
    for column in table.columns.drop(["row", "part"]):
        result[column] = np.interp(grid, clock, table[column].to_numpy(np.float64))
    return result


def _slow(path: Path, name: str, measured: float, wanted: float) -> DataError:
    hint = f"record {wanted:.3g} rows a second or more, or use weights trained at {measured:.3g}"
    found = f"{measured:.3g} rows a second"
    return fault(path, column=name, expected=f"{wanted:.3g} rows a second", found=found, hint=hint)
