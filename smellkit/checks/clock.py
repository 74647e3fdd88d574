"""One clock for every system: what a time column says, in seconds, and rows at the rate that weights know.

    cells -- read_clock --> seconds -- paced --> rows in order, at `Pace.rate`, in parts that no gap divides

Read are ISO dates, times of day (AM/PM, decimal comma, midnight), seconds, `millis()` and `micros()` with their
overflow, epochs in s, ms, us or ns, and days of a spreadsheet. What is repeated, out of order or missing is told,
cut or refused.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
from numpy.typing import NDArray

from smellkit.checks.report import Report, fault

Seconds = NDArray[np.float64]
CLOCK = re.compile(
    r"^(t|s|ms|us|secs?|seconds?|t console|t m?s)$"
    r"|\b(time|timestamp|datetime|date|clock|millis|micros|epoch|elapsed|uptime|utc|ts)\b"
)
UNITS = {"ns": 1e-9, "us": 1e-6, "micros": 1e-6, "ms": 1e-3, "msec": 1e-3, "millis": 1e-3}
UNITS |= dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0)
EPOCHS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))  # from which number on an epoch counts in which unit
TIME = (
    r"^(?P<date>.*?)[T ]*(?<!\d)(?:(?P<h>\d{1,3}):)?(?P<m>\d{1,2}):(?P<s>\d{1,2}(?:[.,:]\d+)?)\s*"
    r"(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?$"
)
OVERFLOWS = (2.0**32, 2.0**16)  # of the counters behind millis() and micros()
LARGEST = 1e20  # nanoseconds since 1970 have 19 digits
REPEATS = 0.005  # share of rows that may repeat a time: a clock of tenths of a second does so by chance
UNEVEN = 0.05  # share of steps that may be uneven where a clock proves the order
FEW = 8  # rows, with which a clock proves nothing


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
    known = [name for name in header if CLOCK.search(plain[name])]
    dates = [name for name in known if plain[name] == "date"][:1]
    times = [name for name in known if plain[name] != "date"][:1]
    return dates + times if times and plain[times[0]] == "time" else times or dates


def read_clock(cells: pd.Series | pd.DataFrame, *, path: Path, name: str, lines: Sequence[int]) -> Seconds:
    """Return the seconds that the `cells` of a clock say, from some moment on, NaN for an empty one.

    Of several columns, a date and a time, a row is one text. `lines` are the lines of the file. DataError for a cell
    that is no time, with its line.
    """
    if isinstance(cells, pd.DataFrame):
        cells = cells.iloc[:, 0] if cells.shape[1] == 1 else cells.astype(str).agg(" ".join, axis=1)
    if pd.api.types.is_datetime64_any_dtype(cells):
        cells = cells - cells.min()
    if pd.api.types.is_timedelta64_dtype(cells):
        return cells.dt.total_seconds().to_numpy()
    numbers, empty = _numbers(cells)
    if numbers is not None:
        wrong, seconds, modulus = np.abs(numbers) > LARGEST, numbers, 0.0
    else:
        seconds, modulus = _times(cells.fillna("").astype(str).str.strip())
        wrong = np.isnan(seconds) & ~empty
    if wrong.any():
        first = int(wrong.argmax())
        hint = "a time such as 2025-03-01 12:43:56.017, 12:43:56.017, or seconds; or delete the column"
        raise fault(path, "a time", repr(cells.iloc[first])[:60], hint, line=lines[first], column=name)
    return _numeric(numbers, name) if numbers is not None else _unwrapped(seconds, modulus, slack=0.01)


def _numbers(cells: pd.Series) -> tuple[Seconds | None, NDArray[np.bool_]]:
    """A clock whose cells are all numbers or empty, or None; and which cells are empty."""
    try:  # quick, and what almost all are
        if not pd.api.types.is_numeric_dtype(cells):
            cells = pyarrow.array(cells, pyarrow.string()).cast(pyarrow.float64()).to_pandas()
        numbers = cells.to_numpy(np.float64, na_value=np.nan)
        return numbers, np.isnan(numbers)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        texts = cells.astype("object").where(cells.notna(), "").astype(str).str.strip()
    empty = texts.str.lower().isin(["", "nan", "nat", "none", "null"]).to_numpy()
    points = texts.mask(empty, "").str.replace(r"^([+-]?\d+),(\d+)$", r"\1.\2", regex=True)
    numbers = pd.to_numeric(points, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return (numbers if (~np.isnan(numbers) | empty).all() else None), empty


def _numeric(values: Seconds, name: str) -> Seconds:
    """Seconds of a numeric clock: the unit is in its name, or follows from the size of an epoch or of a step."""
    finite = values[np.isfinite(values)]
    step, largest = _usual(np.abs(np.diff(finite))), np.abs(finite).max(initial=0)
    named = [UNITS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in UNITS][-1:]
    named += [unit for limit, unit in EPOCHS if largest >= limit]
    if 3e4 <= largest <= 7e4 and 0 < step < 1e-3:
        named += [86400.0]  # days since 1900, as a spreadsheet counts them
    unit = [*named, 1e-6 if step >= 2e4 else 1e-3 if step >= 20 else 1.0][0]
    return unit * _unwrapped(values, *(OVERFLOWS if unit < 1 and step >= 1 else ()))


def _usual(steps: Seconds) -> float:
    """The median of the steps above 0; 0 where there is none."""
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def _times(texts: pd.Series) -> tuple[Seconds, float]:
    """Seconds of texts with a time of day, and after how many they begin anew: a day, 12 hours, an hour, or never."""
    parts = texts.str.extract(TIME)
    numbers = parts[["h", "m", "s"]].apply(lambda column: column.str.replace(r"[,:]", ".", regex=True).astype(float))
    half, dates = parts["half"].str.lower().str[0], parts["date"].fillna("").str.strip(" ,T")
    minutes = numbers["h"].isna() & (half.notna() | (dates != "")) & ~parts["s"].fillna("").str.contains(r"\D")
    numbers[minutes] = numbers[minutes].assign(h=numbers["m"], m=numbers["s"], s=0.0)  # 12:43 PM is no 12 minutes
    hours = numbers["h"].where(half.isna(), numbers["h"] % 12 + 12 * (half == "p"))
    seconds = 3600 * hours.fillna(0) + 60 * numbers["m"] + numbers["s"]
    if (dates == "").all():
        twelve = half.isna().all() and numbers["h"].between(1, 12).all()
        return seconds.to_numpy(), 3600.0 if numbers["h"].isna().all() else 43200.0 if twelve else 86400.0
    return (seconds + dates.map(_days(dates[parts["s"].notna()].unique()))).to_numpy(), 0.0


def _days(dates: Sequence[str]) -> dict[str, float]:
    """Seconds of midnight of each date; of day.month and month/day the reading in which the dates lie closer."""
    readings = []
    for first in (True, False):
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that 2025-03-01 has no day first
            days = [pd.to_datetime(text, dayfirst=first, errors="coerce") for text in dates]
        stamps = pd.Series([np.nan if pd.isna(day) else day.timestamp() for day in days], dates, dtype=float)
        readings.append((stamps.isna().sum(), stamps.max() - stamps.min(), stamps.to_dict()))
    return min(readings, key=lambda reading: reading[:2])[2]


def _unwrapped(values: Seconds, *moduli: float, slack: float = 0.0) -> Seconds:
    """Undo the overflow of a counter: a fall by almost all of a modulus goes on instead."""
    values = values.copy()
    there = np.flatnonzero(np.isfinite(values))
    steps = np.diff(values[there])
    step = _usual(np.abs(steps))
    for modulus in filter(None, moduli):
        falls = (steps < 0) & (steps + modulus >= 0) & (steps + modulus <= max(3 * step, slack * modulus))
        if falls.any() and 20 * step < modulus:
            values[there[1:]] += modulus * np.cumsum(falls)
            break
    return values


def paced(
    table: pd.DataFrame, clock: Seconds | None, *, pace: Pace, path: Path, name: str, lines: Sequence[int],
    rows: NDArray[np.int64], alike: Sequence[str] = (), report: Report,
) -> pd.DataFrame:  # fmt: skip
    """Return the rows of `table` in order and at the pace, with `row` (of the file) and `part` (up at each gap).

    `rows` and `lines` say where each row stands in the file; `table` itself gets both columns. Without a `clock` the
    rows are taken at the pace. What was mended is told; DataError where the clock proves no order, rows come too
    slowly, or columns that are `alike` change places in the order of the clock.
    """
    table["row"], table["part"] = rows, 0
    if clock is None or len(table) < FEW:
        return table
    steps = np.diff(clock) * pace.rate
    if steps.min() > 0.5 and steps.max() < 1.5 and pace.near[0] <= 1 / steps.mean() <= pace.near[1]:
        return table  # as almost all are
    if np.isnan(clock).all() or np.nanmax(clock) == np.nanmin(clock):
        report.tell(path, f"the clock {name!r} stands still: {pace.rate:g} rows a second assumed", len(table))
        return table
    timed = _Timed(table, clock, np.asarray(lines), path, name, report)
    if (lost := np.isnan(clock)).any():
        timed.tell(f"rows without a time in {name!r}: put between their neighbours", lost.sum())
        timed.clock = np.interp(np.arange(len(lost)), np.flatnonzero(~lost), clock[~lost])
    timed.leave_out_copies()
    timed.put_in_order(alike)
    timed.spread()
    return timed.at_rate(pace, timed.cut(pace.gap))


def refuse_exchange(path: Path, lines: Sequence[int] | np.ndarray, values: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a recording whose columns change places from one row to the next: the same values in another order."""
    jump = np.abs(np.diff(values, axis=0)).sum(axis=1)
    far = np.flatnonzero(jump > 0.2 * np.abs(values[:-1]).sum(axis=1))
    if len(far) > 0.1 * len(jump):
        return  # readings that jump all the time prove nothing
    moved = np.abs(np.sort(values[far + 1], axis=1) - np.sort(values[far], axis=1)).sum(axis=1)
    if (rows := far[moved < 0.05 * jump[far]]).size:
        actual = f"the values of the row before in another order ({', '.join(names)})"
        hint = "did the order of columns change there? Save the rows from there on as a file with a header of its own"
        raise fault(path, "rows that follow each other", actual, hint, line=int(lines[rows[0] + 1]))


@dataclass
class _Timed:
    """Rows of a file with their times, which one step after another mends: each says what it did."""

    table: pd.DataFrame
    clock: Seconds
    lines: NDArray[np.int64]
    path: Path
    name: str
    report: Report

    def tell(self, what: str, count: int) -> None:
        self.report.tell(self.path, what, count)

    def take(self, places: NDArray) -> None:
        """Go on with the rows at some places."""
        self.table, self.clock = self.table.iloc[places].reset_index(drop=True), self.clock[places]
        self.lines = self.lines[places]

    def leave_out_copies(self) -> None:
        """Leave out rows that repeat the one before, its time included, where that is no chance."""
        same = np.diff(self.clock) == 0
        if same.mean() > REPEATS or same.sum() == 1:
            values = self.table.drop(columns=["row", "part"])
            before = values.shift()
            same &= ((values == before) | (values.isna() & before.isna())).all(axis=1).to_numpy()[1:]
            if same.any():
                self.tell("rows that repeat the one before and its time: left out", same.sum())
                self.take(np.flatnonzero(np.append(True, ~same)))

    def put_in_order(self, alike: Sequence[str]) -> None:
        """Sort rows where their times prove an order; a clock that was set back a few times is told."""
        steps = np.diff(self.clock)
        if not len(back := np.flatnonzero(steps < 0)):
            return
        order = np.argsort(self.clock, kind="stable")
        ahead = np.diff(self.clock[order])
        typical = float(np.median(ahead))
        uneven = np.mean((ahead < 0.5 * typical) | (ahead > 1.5 * typical)) if typical > 0 else 1.0
        restarted = len(back) <= 5 and typical < 0.75 * _usual(steps)
        line = int(self.lines[back[0] + 1])
        if uneven <= UNEVEN and not restarted:
            self.tell(f"rows against the clock (from line {line}): put in its order", len(back))
            self.take(order)
            refuse_exchange(self.path, self.lines, self.table[list(alike)].to_numpy(np.float64), alike)
        elif len(back) <= max(5, 0.01 * len(self.clock)):
            self.tell(f"the clock goes back (in line {line}): cut there", len(back))
        else:
            times, hint = f"times that go back {len(back)} times", "sort the rows by their time, or delete the column"
            raise fault(self.path, "rows in the order of their times", times, hint, line=line, column=self.name)

    def spread(self) -> None:
        """Rows that share a time, as a clock of whole seconds gives it to several, spread up to the next time."""
        same = np.diff(self.clock) == 0
        if same.mean() <= REPEATS:
            return
        self.tell(f"rows share their time with the one before in {self.name!r}: spread evenly", same.sum())
        starts = np.flatnonzero(np.append(True, ~same))
        counts, ahead = np.diff(np.append(starts, len(self.clock))), np.diff(self.clock[starts])
        usual, width = _usual(ahead), np.append(ahead, 0.0)
        width = np.where((width <= 0) | (width > 3 * usual), usual, width)
        if len(starts) > 2:  # the first and the last time may be those of a part of their rows
            width[[0, -1]] = np.minimum(width[[0, -1]], counts[[0, -1]] * np.median(width[1:-1] / counts[1:-1]))
        begun = self.clock[starts]
        begun[0] += max(0.0, ahead[0] - width[0] if len(ahead) else width[0])
        inside = np.arange(len(self.clock)) - np.repeat(starts, counts)
        self.clock = np.repeat(begun, counts) + inside * np.repeat(width / counts, counts)

    def cut(self, gap: float) -> Seconds:
        """Number the parts between gaps and return the steps of the clock within them."""
        steps = np.diff(self.clock)
        if gaps := int((steps > gap).sum()):
            longest = f"{steps.max():.0f} s" if steps.max() < 600 else f"{steps.max() / 60:.0f} min"
            where = f"the longest {longest}, before line {self.lines[steps.argmax() + 1]}"
            self.tell(f"gaps in the clock, cut there ({where})", gaps)
        cuts = (steps > gap) | (steps < 0)
        self.table["part"] = np.append(0, np.cumsum(cuts))
        return steps[~cuts & (steps > 0)]

    def at_rate(self, pace: Pace, steps: Seconds) -> pd.DataFrame:
        """The rows at the pace: as they are, resampled, or refused with both rates."""
        step = float(np.median(steps)) if len(steps) else 1 / pace.rate
        measured, rate = 1 / step, f"{pace.rate:.3g} rows a second"
        if measured < pace.slowest * pace.rate:
            hint = f"record {rate} or more, or use weights trained at {measured:.3g}"
            raise fault(self.path, rate, f"{measured:.3g} rows a second", hint, column=self.name)
        lost = int((steps > 1.5 * step).sum()) if pace.fill else 0
        if pace.near[0] <= measured / pace.rate <= pace.near[1]:
            if not lost:
                return self.table
            self.tell("rows lost on the way, by the clock: filled in by interpolation", lost)
        else:
            word = "resampled" if pace.fill else "thinned"
            self.tell(f"{measured:.3g} rows a second {word} to {pace.rate:.3g}", len(self.table))
        pieces = self.table.groupby("part", sort=True).indices.values()
        return pd.concat([self._on_grid(piece, step=step, pace=pace) for piece in pieces], ignore_index=True)

    def _on_grid(self, places: NDArray, *, step: float, pace: Pace) -> pd.DataFrame:
        """One part of a recording at an even pace: interpolated at the times of a grid, or every so many rows."""
        table, clock = self.table.iloc[places], self.clock[places]
        if not pace.fill:  # rows are events of a machine: those that it left out stay left out
            wanted = np.arange(0, len(table) * step, 1 / pace.rate) / step
            return table.iloc[np.minimum(np.round(wanted).astype(int), len(table) - 1)]
        grid = np.arange(clock[0], clock[-1] + 1e-6, 1 / pace.rate)
        nearest = np.floor(np.interp(grid, clock, np.arange(len(clock))) + 0.5).astype(int)
        result = table.iloc[nearest].reset_index(drop=True)
        for column in table.columns.drop(["row", "part"]):
            result[column] = np.interp(grid, clock, table[column].to_numpy(np.float64))
        return result
