"""Recordings of any nose as one tidy table: what a folder holds, by the description of the nose that made it.

    folder --formats--> raw cells --description--> numbers in their spans --clock--> rows at one rate --> tidy table

A unit is never guessed in silence: what `guess` can't know it says, for the owner to confirm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import noses
from smellkit.checks import Report, fault, nearest, readable
from smellkit.checks.clock import paced
from smellkit.noses import Column, Description
from smellkit.odour.formats import class_of, clock_names, day_of, label_column, name_of, raws, seconds_of
from smellkit.odour.recordings import JUMP, Stretch, unread
from smellkit.odour.sheets import Raw

WORDS = ("substance", "recording", "file", "session", "step")  # of the tidy table, before the nose's columns
HOLD = 5  # rows without a reading that are filled in; more are a gap
FASTEST = 500.0  # rows a second that a nose may have without saying so
KINDS = (  # in the name of a column -> role, unit, span, in this order
    (r"temp|^t$", "temperature", "celsius", (-45.0, 125.0)),
    (r"hum|^rh|^h$", "humidity", "percent", (0.0, 100.0)),
    (r"press|baro", "pressure", "hectopascal", (300.0, 1200.0)),
    (r"altitude|index|^id$|battery|fan|rpm|^no\.?$", "other", "none", (-1e9, 1e9)),
    (r"", "gas", "", (0.0, 0.0)),
)
SPANS = {"ppm": (0.0, 1e5), "volt": (0.0, 5.5), "ohm": (0.0, 1e9), "kilo-ohm": (0.0, 1e6), "rs/r0": (0.0, 1e4)}
NO_READING = (-999.0, -127.0, -1.0)  # what libraries of sensors answer in place of a reading


def read_folder(
    folder: str | Path, nose: Description | None = None, *, skip: bool = False, report: Report | None = None
) -> tuple[Description, pd.DataFrame]:
    """Return the nose and every recording in `folder` as one tidy table.

    A row a time step at the nose's rate: `substance`, `recording`, `file`, `session` ("" where unknown), `step` (which
    jumps at a gap), then the nose's columns as float64, no NaN. A nose that has no rate gets the measured one, or stays
    without where no clock tells. Of a nose with `features` each row is a recording. Without `nose` it is the
    `nose.toml` in the folder, or guessed, which is told. With `skip`, a file with a fault is reported and left out.
    """
    folder, report = Path(folder).expanduser(), report if report is not None else Report()
    found = raws(folder, skip=skip, report=report)
    if nose is None and (folder / noses.FILE).is_file():
        nose = noses.load(folder)
    if nose is None:
        nose, guesses = _guessed(folder, found)
        what = f"guessed, see `smellkit nose new`: {'; '.join(guesses)}" if guesses else f"{nose.name}, by its columns"
        report.tell(folder, f"no {noses.FILE}, so the nose is {what}"[:300], len(guesses) or 1)
    nose = _with_rate(nose, found, folder, report)
    by_path: dict[Path, list[Raw]] = {}
    for raw in found:
        by_path.setdefault(raw.path, []).append(raw)

    def read(path: Path) -> list[pd.DataFrame]:
        return [_tidy(raw, nose, folder=folder, report=report) for raw in by_path[path]]

    notes = Report()  # files were counted when they were opened
    tables = [table for _, own in readable(by_path, read, skip=skip, report=notes) for table in own]
    report.skipped |= notes.skipped
    if not tables:
        raise unread(folder, report)
    return nose, pd.concat(tables, ignore_index=True)[[*WORDS, *nose.columns]]


def read_stretches(
    path: Path, nose: Description, *, columns: Sequence[str], report: Report | None = None
) -> list[Stretch]:
    """The `columns` of one file as the parts that no gap divides, with the row of the file that each row was."""
    report = report if report is not None else Report()
    tables = [_tidy(raw, nose, folder=path, report=report) for raw in raws(path, skip=False, report=report)]
    parts = [part for table in tables for _, part in table.groupby(["file", "part"], sort=False)]
    return [Stretch(part[list(columns)].to_numpy(np.float32), part["row"].to_numpy()) for part in parts]


def guess(folder: str | Path) -> tuple[Description, list[str]]:
    """Return the nose that the recordings in `folder` look like, and each thing about it that is only guessed."""
    folder, report = Path(folder).expanduser(), Report()
    found = raws(folder, skip=True, report=report)
    nose, words = _guessed(folder, found)
    measured = _with_rate(nose, found, folder, report)
    if measured.rate is None and not nose.features:
        words.append("rate unknown, since no column is a clock: write rate = rows a second")
    return measured, words


def remarks(nose: Description, guesses: Sequence[str]) -> dict[str, str]:
    """Guesses as remarks in the nose's TOML, each at its key."""
    found = {}
    for name, prefix in [*((name, f"{name}.") for name in nose.columns), (nose.clock, "clock_")]:
        for text in (text.removeprefix(f"{name}: ") for text in guesses if text.startswith(f"{name}: ")):
            key = "unit" if text.startswith("unit") else "fault" if text.endswith("no reading") else "role"
            found[f"{prefix}{key}".replace("clock_role", "clock")] = f"{text}: confirm"
    return found


# numbers in their spans


def _tidy(raw: Raw, nose: Description, *, folder: Path, report: Report) -> pd.DataFrame:
    """One raw recording as rows of the tidy table."""
    name, values = name_of(raw, folder), _values(raw, nose, report)
    if nose.features:
        label = label_column(raw)
        rows = [f"{name}#{line}" for line in raw.lines]
        return values.assign(
            substance=raw.cells[label] if label else "", recording=rows, file=rows, session=raw.session, step=0
        )
    if raw.features:
        hint = f"write features = true into {noses.FILE} if each row is an exposure of its own"
        raise fault(raw.path, expected="a recording", found="another class in almost every row", hint=hint)
    seconds, clock = seconds_of(raw, nose)
    values, kept, seconds = _filled(raw, values, seconds, report)
    lines = raw.lines[kept]
    session = raw.session or day_of(seconds)
    if nose.rate is None:
        table = values.assign(part=0, row=np.flatnonzero(kept))
    else:
        where: dict[str, Any] = {"path": raw.path, "name": clock, "lines": lines.tolist(), "rows": np.flatnonzero(kept)}
        table = paced(values, seconds, pace=nose.pace, report=report, **where)
    if seconds is None:  # nothing else says where rows are missing
        table["part"] = np.concatenate([[0], np.cumsum(np.diff(np.flatnonzero(kept)) > HOLD)])
    words = {"substance": class_of(raw, folder), "file": name, "session": session}
    recording = re.sub(r"#sensor \d+ ?", "#", name).rstrip("#")  # sensors of one board smell the same
    return table.assign(**words, recording=recording, step=np.arange(len(table)) + JUMP * table["part"].to_numpy())


def _values(raw: Raw, nose: Description, report: Report) -> pd.DataFrame:
    """The nose's columns in its units; NaN where there is no reading. DataError for anything outside of a span."""
    sources = _sources(raw, nose, report)
    values = {}
    for name, column in nose.columns.items():
        source = sources[name]
        if source in raw.bad:
            line, text = raw.bad[source]
            hint = "delete or correct the cell, or leave the file out (skip)"
            raise fault(raw.path, line=line, column=source, expected="a number", found=repr(text), hint=hint)
        if not pd.api.types.is_numeric_dtype(raw.cells[source]):
            found = repr(str(raw.cells[source].iloc[0]))
            raise fault(
                raw.path, line=int(raw.lines[0]), column=source, expected="numbers", found=found, hint="another column?"
            )
        factor, offset = _conversion(raw, source, column, report)
        own = raw.cells[source].to_numpy(np.float64) * factor + offset
        own[np.isin(own, column.fault)] = np.nan
        if column.overflow is not None and (over := own == column.overflow).any():
            own[over] = column.span[1]
            report.note(raw.path, f"{name}: overflow taken as {column.span[1]:g}", int(over.sum()))
        _check_span(raw, source, column, own, report)
        values[name] = own
    _refuse_exchange(raw, nose, values)
    return pd.DataFrame(values)


def _sources(raw: Raw, nose: Description, report: Report) -> dict[str, str]:
    """Which column of the file is which of the nose, by name or another spelling; by place where there is no header."""
    here = [str(name) for name in raw.cells]
    if not raw.named and not set(nose.columns) <= set(here):
        free = [name for name in here if pd.api.types.is_numeric_dtype(raw.cells[name])]
        if len(free) != len(nose.columns):
            hint = f"write the names above the first row: {', '.join(nose.columns)}"
            found = f"{len(free)} columns without a header"
            raise fault(raw.path, line=1, expected=f"{len(nose.columns)} columns", found=found, hint=hint)
        report.tell(raw.path, f"no header: the columns taken in the order of the nose {nose.name}")
        return dict(zip(nose.columns, free, strict=True))
    result = {}
    for name, column in nose.columns.items():
        spelled = [one for one in here if one in (name, *column.also, f"sensor_{name}")]
        spelled = spelled or [one for one in here if one.strip().casefold() == name.casefold()]
        if not spelled:
            near = nearest(name, here) or here
            hint = f"rename the column, or describe your nose: `smellkit nose new`; near: {', '.join(near)[:200]}"
            expected = f"the columns of the nose {nose.name}"
            raise fault(raw.path, line=1, column=name, expected=expected, found="no such column", hint=hint)
        result[name] = spelled[0]
    return result


def _conversion(raw: Raw, source: str, column: Column, report: Report) -> tuple[float, float]:
    """Factor and offset to the nose's unit from the one that the file itself tells."""
    unit = raw.units.get(source, column.unit)
    if unit == column.unit or column.unit == "none":
        return 1.0, 0.0
    known = noses.UNITS[column.unit]
    if unit not in known:
        hint = f"write unit = {unit!r} and its span into {noses.FILE}, or convert the column"
        raise fault(raw.path, column=source, expected=column.unit, found=f"{unit}, as the file says", hint=hint)
    report.tell(raw.path, f"{source}: {unit}, as the file says, taken as {column.unit}", len(raw.cells))
    return known[unit]


def _check_span(raw: Raw, source: str, column: Column, values: NDArray, report: Report) -> None:
    low, high = column.span
    if np.isnan(values).all():
        hint = f"take the column out of {noses.FILE} if the sensor is absent"
        raise fault(raw.path, column=source, expected="readings", found="none in the whole file", hint=hint)
    wrong = np.flatnonzero((values < low) | (values > high))
    if len(wrong):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        found = f"{values[wrong[0]]:.10g}{more}"
        hint = column.explain(values) or f"correct the cell, or write the column's real span into {noses.FILE}"
        line, expected = int(raw.lines[wrong[0]]), f"{column.unit} from {low:g} to {high:g}"
        raise fault(raw.path, line=line, column=source, expected=expected, found=found, hint=hint)
    if column.unit == "adc":
        _check_counts(raw, source, values, report)


def _check_counts(raw: Raw, source: str, values: NDArray, report: Report) -> None:
    """Refuse counts with a point between thousands, as in 1.092; tell of others that are no whole numbers."""
    values = np.nan_to_num(values)
    thousands = np.abs(1000 * values - np.round(1000 * values)) < 1e-6
    whole = values == np.round(values)
    if whole.all():
        return
    rest, pointed = values[whole], values[~whole]
    if len(rest) and thousands.all() and np.median(rest) >= 100 and rest.max() < 1000 and pointed.max() < 10:
        line, found = int(raw.lines[np.flatnonzero(~whole)[0]]), f"{pointed[0]:g} among counts"
        hint = "a point between thousands? Save it without"
        raise fault(raw.path, line=line, column=source, expected="whole counts", found=found, hint=hint)
    if (~whole).mean() > 0.5:
        report.tell(
            raw.path, f"counts that are no whole numbers ({source}): averaged, or another unit?", (~whole).sum()
        )


def _refuse_exchange(raw: Raw, nose: Description, values: dict[str, NDArray]) -> None:
    """Refuse a recording in which gas columns change places on the way: the same values in another order."""
    for unit in {nose.columns[name].unit for name in nose.gas}:
        names = [name for name in nose.gas if nose.columns[name].unit == unit]
        if nose.features or len(names) < 2 or len(raw.cells) < 2:
            continue
        rows = np.stack([values[name] for name in names], axis=1)
        before, after = rows[:-1], rows[1:]
        jump = np.abs(after - before).sum(axis=1) / np.maximum(np.abs(before).sum(axis=1), 1e-12)
        far = np.flatnonzero(jump > 0.2) if np.median(jump) < 0.05 else np.zeros(0, int)
        moved = np.abs(np.sort(after[far], axis=1) - np.sort(before[far], axis=1)).sum(axis=1)
        if (places := far[moved < 0.05 * np.abs(after[far] - before[far]).sum(axis=1)]).size:
            found = f"the values of the row before in another order ({', '.join(names)})"
            hint = "did the order of columns change there? Save the rows from there on as a file of its own"
            line = int(raw.lines[places[0] + 1])
            raise fault(raw.path, line=line, expected="rows that follow each other", found=found, hint=hint)


def _filled(
    raw: Raw, values: pd.DataFrame, seconds: NDArray | None, report: Report
) -> tuple[pd.DataFrame, NDArray[np.bool_], NDArray | None]:
    """Values without NaN, which rows are kept, their seconds: a few lost readings are filled in, more left out."""
    lost = values.isna().to_numpy()
    if not lost.any():
        return values, np.ones(len(values), bool), seconds
    filled = values.interpolate(limit_area=None, limit_direction="both")
    long = np.zeros(len(values), bool)
    for column in lost.T:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], column, [0]])))
        for start, end in edges.reshape(-1, 2):
            long[start:end] |= end - start > HOLD or start == 0 or end == len(column)
    count = int(lost.any(axis=1).sum() - long.sum())
    if count:
        report.tell(raw.path, "rows without a reading of some sensor: filled in from their neighbours", count)
    if long.any():
        first = int(raw.lines[long][0])
        report.tell(raw.path, f"rows without a reading of some sensor (from line {first}): left out", int(long.sum()))
    if long.mean() > 0.5:
        hint = "record again, or take the sensor out of the description"
        raise fault(
            raw.path, expected="readings", found=f"none of some sensor in {long.mean():.0%} of the rows", hint=hint
        )
    return filled[~long].reset_index(drop=True), ~long, None if seconds is None else seconds[~long]


# time


def _with_rate(nose: Description, raws: Sequence[Raw], folder: Path, report: Report) -> Description:
    """The nose with the rate that its clocks measure, or that its files declare, where it has none of its own."""
    if nose.features or nose.rate is not None:
        return nose
    rates, declared = [], [raw.rate for raw in raws if raw.rate]
    for raw in raws:
        seconds, clock = seconds_of(raw, nose)
        steps = np.diff(seconds[np.isfinite(seconds)]) if seconds is not None else np.zeros(0)
        if (steps > 0).any():
            rates.append(1 / float(np.median(steps[steps > 0])))
            if raw.rate and not 0.5 <= rates[-1] / raw.rate <= 2:
                what = f"{raw.rate:g} rows a second declared, {rates[-1]:.3g} measured in {clock!r}"
                report.tell(raw.path, f"{what}: the measured ones count")
    if not rates and not declared:
        report.tell(folder, f"no clock and no rate: rows are taken as they come (write rate = ... into {noses.FILE})")
        return nose
    rate = float(np.median(rates or declared))
    if rate > FASTEST:
        hint = f'write clock_unit = "hour" (or second, millisecond, ...) into {noses.FILE}'
        found = f"{rate:.4g} rows a second if it counts seconds"
        raise fault(folder, column=nose.clock, expected="the unit of the clock", found=found, hint=hint)
    return replace(nose, rate=float(f"{rate:.3g}"))


# guesses


def _guessed(folder: Path, raws: Sequence[Raw]) -> tuple[Description, list[str]]:
    """The nose that most recordings look like: a shipped one by its columns, or one of guesses."""
    first = raws[0]
    here = [name for name in map(str, first.cells) if all(name in raw.cells for raw in raws)]
    for shipped in map(noses.load, noses.names()):
        sources = {
            name: [one for one in here if one in (name, *column.also)] for name, column in shipped.columns.items()
        }
        if all(_alike(shipped, column, sources[name], raws) for name, column in shipped.columns.items()):
            return shipped, []
    if not first.named and not first.features:
        hint = f"write the names of the columns above the first row, or a {noses.FILE} with as many columns"
        raise fault(first.path, line=1, expected="the names of the columns", found="no header", hint=hint)
    words = ["a row is taken as an exposure of its own, since the class changes from row to row"] * first.features
    skipped = {*clock_names(first, None), label_column(first)}
    columns = {}
    for name in here:
        cells = [raw.cells[name] for raw in raws]
        if name in skipped or not all(map(pd.api.types.is_numeric_dtype, cells)):
            continue
        values = np.concatenate([cell.to_numpy(np.float64) for cell in cells])
        if np.isnan(values).all() or _counts_rows(name):
            words.append(f"{name}: left out, it looks like no sensor")
            continue
        columns[name] = _column(name, values, first.units.get(name, ""), words, features=first.features)
    if not any(column.role == "gas" for column in columns.values()):
        hint = f"write a {noses.FILE} with your columns into the folder; here are {', '.join(here)[:200]}"
        raise fault(first.path, expected="a column of a gas sensor", found="none that looks like one", hint=hint)
    clock = clock_names(first, None)
    nose = Description(
        folder.resolve().stem, columns, clock=clock[0] if len(clock) == 1 else None, features=first.features
    )
    return _with_clock_unit(nose, first, words), words


def _alike(shipped: Description, column: Column, sources: list[str], raws: Sequence[Raw]) -> bool:
    """Whether a column of a shipped nose is there, in its unit or one to convert, and holds counts if it counts."""
    known = (column.unit, *noses.UNITS[column.unit])
    if not sources or any(raw.features or raw.units.get(sources[0], column.unit) not in known for raw in raws):
        return False
    values = np.concatenate([raw.cells[sources[0]].to_numpy(np.float64) for raw in raws])
    return column.unit != "adc" or _unit_of(values, 0.0, float(np.nanmax(values))) == "adc"


def _counts_rows(name: str) -> bool:
    return bool(re.fullmatch(r"id|index|no\.?|row|sample|unnamed.*|sensor[ _]?id", name.strip(), re.IGNORECASE))


def _with_clock_unit(nose: Description, raw: Raw, words: list[str]) -> Description:
    """The nose with a clock in hours where seconds would mean thousands of rows each."""
    if nose.clock is None or nose.features:
        return nose
    words.append(f"{nose.clock}: taken as the clock")
    seconds, _ = seconds_of(raw, nose)
    steps = np.diff(seconds) if seconds is not None else np.zeros(0)
    if (steps > 0).any() and (step := float(np.median(steps[steps > 0]))) < 1 / FASTEST:
        unit = "hour" if 0.05 < step * 3600 < 120 else "day"
        words.append(f"{nose.clock}: unit guessed {unit}, since rows would be {step:.3g} s apart")
        return replace(nose, clock_unit=unit)
    return nose


def _column(name: str, values: NDArray, unit: str, words: list[str], *, features: bool) -> Column:
    """Role, unit and span of a column by its name and its values; everything that is a guess goes into `words`."""
    plain = re.sub(r"[(\[].*", "", name).strip().lower()
    role, usual, span = next(kind[1:] for kind in KINDS if re.search(kind[0], plain))
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    faults = tuple(
        value for value in NO_READING if value == low and (values > low).any() and np.nanmin(values[values > low]) >= 0
    )
    low = float(np.nanmin(values[~np.isin(values, faults)]))
    if features:
        wide = 10 * max(abs(low), abs(high), 1.0)
        return Column("gas", "none", (-wide, wide))
    if not unit:
        unit = usual or _unit_of(values[~np.isin(values, faults)], low, high)
        if role == "pressure" and 30_000 <= np.nanmedian(values) <= 120_000:
            unit = "pascal"
        words.append(f"{name}: unit guessed {unit} from {low:g} to {high:g}")
    if role == "gas":
        words.append(f"{name}: taken as a gas sensor")
        tops = [top for top in noses.FULL if high <= top]
        span = (0.0, float(tops[0])) if unit == "adc" and tops else SPANS.get(unit, (0.0, 0.0))
        span = span if span[1] else (min(0.0, 10 * low), 10 * max(abs(high), 1e-6))
    elif unit == "pascal":
        span = (30_000.0, 120_000.0)
    if faults:
        words.append(f"{name}: {faults[0]:g} taken as no reading")
    return Column(role, unit, span, faults)


def _unit_of(values: NDArray, low: float, high: float) -> str:
    """The unit that readings of a gas sensor look like."""
    whole = np.all(values[np.isfinite(values)] % 1 == 0)
    if whole and low >= 0 and high > 20 and high <= 65535:
        return "adc"
    return "volt" if low >= 0 and 1.2 < high <= 5.5 and not whole else "none"
