"""Recordings of any nose as one tidy table: what a folder holds, by the description of the nose that made it.

    folder --formats--> raw cells --description--> numbers in their spans --clock--> rows at one rate --> tidy table

A unit is never guessed in silence: what `guess` can't know it says, for the owner to confirm.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from smellkit import noses
from smellkit.checks import Report, readable
from smellkit.checks.clock import paced, refuse_exchange
from smellkit.noses import SECONDS, Column, Description
from smellkit.odour.formats import clock_names, day_of, label_column, raws, seconds_of, step_of, unread
from smellkit.odour.sheets import Raw, read_known, tell_moved
from smellkit.options import alike
from smellkit.sensors import MIXTURE, SMELLNET

KNOWN = (SMELLNET, MIXTURE)  # noses whose files are known: what differs is a fault, and no cell may be missing
SPLITS = ("training", "testing", "train", "test", "validation")  # folders that are no classes
WORDS = ("substance", "recording", "file", "session", "step")  # of the tidy table, before the nose's columns
NO_CLOCK = "no clock: taken at"  # the rate of the nose
NO_NUMBER = "write numbers with points; delete a row that is empty, or repeats the header, or holds units or remarks"
HOLD = 5  # rows without a reading that are filled in; more are a gap
JUMP = 10  # steps at a gap
FASTEST = 500.0  # rows a second that a nose may have without saying so
KINDS = (  # in the name of a column -> role, unit, span, in this order; anything else is a gas sensor
    (r"temp|^t$", "temperature", "celsius", (-45.0, 125.0)),
    (r"hum|^rh|^h$", "humidity", "percent", (0.0, 100.0)),
    (r"press|baro", "pressure", "hectopascal", (300.0, 1200.0)),
    (r"altitude|battery|fan|rpm", "other", "none", (-1e9, 1e9)),
)
SPANS = {"ppm": 1e5, "volt": 5.5, "ohm": 1e9, "kilo-ohm": 1e6, "rs/r0": 1e4}  # tops of a gas sensor's readings
NO_SENSOR = re.compile(r"id|index|no\.?|row|sample|unnamed.*|sensor[ _]?id", re.IGNORECASE)
NO_READING = (-999.0, -127.0, -1.0)  # what libraries of sensors answer in place of a reading


class Stretch(NamedTuple):
    """Rows of a file that follow each other at the pace, and the row of the file that each of them is."""

    values: NDArray[np.float32]  # (rows, columns)
    row: NDArray[np.int64]  # (rows,)


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
    recordings = raws(folder, skip=skip, report=report)
    if nose is None and (folder / noses.FILE).is_file():
        nose = noses.load(folder)
    elif nose is None:
        nose, guesses = guessed(folder, recordings)
        what = f"guessed, see `smellkit nose new`: {'; '.join(guesses)}" if guesses else f"{nose.name}, by its columns"
        report.tell(folder, f"no {noses.FILE}, so the nose is {what}"[:300], len(guesses) or 1)
    nose = _with_rate(nose, recordings, folder, report)
    files = {path: list(own) for path, own in itertools.groupby(recordings, lambda raw: raw.path)}

    def read(path: Path) -> list[pd.DataFrame]:
        return [_tidy(raw, nose, folder=folder, report=report) for raw in files[path]]

    notes = Report()  # files were counted when they were opened
    tables = [table for _, own in readable(files, read, skip=skip, report=notes) for table in own]
    report.skipped |= notes.skipped
    if not tables:
        raise unread(folder, report)
    return nose, pd.concat(tables, ignore_index=True)[[*WORDS, *nose.columns]]


def read_stretches(
    path: Path, nose: Description, *, columns: Sequence[str], report: Report | None = None
) -> list[Stretch]:
    """The `columns` of one file as the parts that no gap divides, with the row of the file that each row was."""
    report = report if report is not None else Report()
    if nose in KNOWN:
        tables = [read_rows(path, nose, columns=columns, report=report)]
    else:
        tables = [_tidy(raw, nose, folder=path, report=report) for raw in raws(path, skip=False, report=report)]
    return [part for table in tables for part in _stretches(table, columns)]


def read_rows(path: Path, nose: Description, *, columns: Sequence[str], report: Report) -> pd.DataFrame:
    """The `columns` of a file of a known nose by its clock, the `row` of the file and the `part` between two gaps."""
    own = replace(nose, columns={name: nose.columns[name] for name in columns})
    raw = read_known(path, own, report)
    table = _rows(raw, own, report)
    tell_moved(raw, nose, report)
    return table


def by_clock(table: pd.DataFrame, values: NDArray, nose: Description) -> list[Stretch]:
    """The parts of a table's `values` (rows, columns) at the nose's pace, by the clock in its index or a column."""
    if isinstance(table.index, pd.DatetimeIndex | pd.TimedeltaIndex):
        table = table.assign(time=table.index)
    raw = Raw(Path("the table"), table.reset_index(drop=True).rename(columns=str))
    return _stretches(_at_pace(raw, nose, pd.DataFrame(values), [], Report()), range(values.shape[1]))


def _stretches(table: pd.DataFrame, columns: Sequence[Any]) -> list[Stretch]:
    ends = np.flatnonzero(np.diff(table["part"].to_numpy())) + 1
    both = table[list(columns)].to_numpy(np.float32), table["row"].to_numpy()
    return [Stretch(*one) for one in zip(*(np.split(values, ends) for values in both), strict=True)]


def _with_rate(nose: Description, recordings: Sequence[Raw], folder: Path, report: Report) -> Description:
    """The nose with the rate that its clocks measure, or that its files declare, where it has none of its own."""
    if nose.features or nose.rate is not None:
        return nose
    rates, declared = [], [raw.rate for raw in recordings if raw.rate]
    for raw in recordings:
        if step := step_of(raw, nose):
            rates.append(1 / step)
            if raw.rate and not 0.5 <= rates[-1] / raw.rate <= 2:
                rates_differ = f"{raw.rate:g} rows a second declared, {rates[-1]:.3g} measured"
                report.tell(raw.path, f"{rates_differ}: the measured ones count")
    if not rates and not declared:
        report.tell(folder, f"no clock and no rate: rows are taken as they come (write rate = ... into {noses.FILE})")
        return nose
    rate = float(np.quantile(rates or declared, 0.5, method="lower"))  # faster recordings can be resampled to it
    if rate > FASTEST:
        hint = f'write clock_unit = "hour" (or second, millisecond, ...) into {noses.FILE}'
        raise recordings[0].fault("the unit of the clock", f"{rate:.4g} rows a second if it counts seconds", hint)
    return replace(nose, rate=float(f"{rate:.3g}"))


def _tidy(raw: Raw, nose: Description, *, folder: Path, report: Report) -> pd.DataFrame:
    """One raw recording as rows of the tidy table, with the `row` of the file and the `part` between two gaps."""
    name = raw.path.name if folder.is_file() else raw.path.relative_to(folder).as_posix()
    name += f"#{raw.part}" if raw.part else ""
    if nose.features:
        values, label = _values(raw, nose, report), label_column(raw)
        rows = [f"{name}#{line}" for line in raw.lines]
        table = values.assign(recording=rows, file=rows, session=raw.session, step=0, part=0, row=np.arange(len(rows)))
        return table.assign(substance=raw.cells[label].to_numpy() if label else "")
    if raw.features:
        hint = f"write features = true into {noses.FILE} if each row is an exposure of its own"
        raise raw.fault("a recording", "another class in almost every row", hint)
    parent, table = raw.path.parent, _rows(raw, nose, report)
    substance = raw.substance or parent.name
    if not raw.substance and (parent in (folder, folder.parent) or parent.name in SPLITS):
        substance = re.sub(r"[\s_.-]*\(?\d+\)?$", "", raw.path.stem) or parent.name
    recording = re.sub(r"#sensor \d+ ?", "#", name).rstrip("#")  # sensors of one board smell the same
    step = np.arange(len(table)) + JUMP * table["part"].to_numpy()
    return table.assign(recording=recording, file=name, step=step, substance=substance, session=raw.session)


def _rows(raw: Raw, nose: Description, report: Report) -> pd.DataFrame:
    """The nose's columns of one recording by its clock, the `row` of the file and the `part` between two gaps."""
    values = _values(raw, nose, report)
    counts = [name for name in nose.gas if nose.columns[name].unit == "adc"]  # alike: nobody sees them exchanged
    if len(counts) > 1:
        refuse_exchange(raw.path, raw.lines, values.to_numpy()[:, [name in counts for name in nose.columns]], counts)
    if nose.rate and not clock_names(raw, nose):
        note = report.note if nose.name == SMELLNET.name else report.tell  # SmellNet's board writes no clock
        note(raw.path, f"{NO_CLOCK} {nose.rate:g} Hz, as the nose says")
    return _at_pace(raw, nose, values, counts, report)


def _at_pace(raw: Raw, nose: Description, values: pd.DataFrame, alike: Sequence[str], report: Report) -> pd.DataFrame:
    """Values, one row a row of the recording, in the order and at the rate of its clock; its day is its session."""
    seconds, clock = seconds_of(raw, nose)
    raw.session = raw.session or day_of(seconds)
    values, kept = _filled(raw, values, report)
    numbers = np.flatnonzero(kept) + (raw.sheet.dropped if raw.sheet else 0)
    if seconds is None or nose.rate is None:
        part = np.concatenate([[0], np.cumsum(np.diff(numbers) > HOLD)])  # nothing else says where rows are missing
        return values.assign(row=numbers, part=0 if seconds is not None else part)
    where: dict[str, Any] = {"path": raw.path, "name": clock, "lines": raw.lines[kept], "rows": numbers}
    return paced(values, seconds[kept], pace=nose.pace, alike=alike, report=report, **where)


def _values(raw: Raw, nose: Description, report: Report) -> pd.DataFrame:
    """The nose's columns in its units; NaN where there is no reading. DataError for anything outside of a span."""
    sources = _sources(raw, nose, report)
    each = [_readings(raw, name, nose.columns[name], source, report) for name, source in sources.items()]
    values = np.stack(each, axis=1)
    _check_spans(raw, nose, sources, values)
    for own, (name, source) in zip(each, sources.items(), strict=True):
        _check_counts(raw, source, own, nose.columns[name].unit, report)
    return pd.DataFrame(values, columns=list(sources))


def _readings(raw: Raw, name: str, column: Column, source: str, report: Report) -> NDArray[np.float64]:
    """The readings of one column in the unit of the nose, an overflow as the top of its span."""
    if source in raw.bad:
        line, text = raw.bad[source]
        hint = "delete or correct the cell, or leave the file out (skip)"
        raise raw.fault("a number", repr(text), hint, column=source, line=line)
    cells = raw.cells[source]
    if not is_numeric_dtype(cells):
        raise raw.fault("numbers", repr(str(cells.iloc[0])), "another column?", column=source, row=0)
    own, unit = cells.to_numpy(np.float64), raw.units.get(source) or column.unit
    if column.unit not in (unit, "none"):
        if unit not in noses.UNITS[column.unit]:
            hint = f"write unit = {unit!r} and its span into {noses.FILE}, or convert the column"
            raise raw.fault(column.unit, f"{unit}, as the file says", hint, column=source)
        report.tell(raw.path, f"{source}: {unit}, as the file says, taken as {column.unit}", len(cells))
        factor, offset = noses.UNITS[column.unit][unit]
        own = own * factor + offset
    if column.fault:
        own = np.where(np.isin(own, column.fault), np.nan, own)
    if column.overflow is not None and (over := own == column.overflow).any():
        own = np.where(over, column.span[1], own)
        note = report.tell if column.role == "gas" else report.note  # other sensors are known for it
        note(raw.path, f"{name}: overflow {column.overflow:.0f} taken as {column.span[1]:g}", int(over.sum()))
    if np.isnan(own).all() and raw.sheet is None:
        hint = f"take the column out of {noses.FILE} if the sensor is absent"
        raise raw.fault("readings", "none in the whole file", hint, column=source)
    return own


def _sources(raw: Raw, nose: Description, report: Report) -> dict[str, str]:
    """The file's column for each of the nose, by name or another spelling; by place where there is no header."""
    here = list(raw.cells)
    if not raw.named and not set(nose.columns) <= set(here):
        free = [name for name in here if is_numeric_dtype(raw.cells[name])]
        if nose.clock and len(free) == len(nose.columns) + 1:  # it comes first
            raw.cells = raw.cells.rename(columns={free.pop(0): nose.clock})
        if len(free) != len(nose.columns):
            hint = f"write the names above the first row: {', '.join(nose.columns)}"
            raise raw.fault(f"{len(nose.columns)} columns", f"{len(free)} columns without a header", hint, line=1)
        report.tell(raw.path, f"no header: the columns taken in the order of the nose {nose.name}")
        return dict(zip(nose.columns, free, strict=True))
    sources = {}
    for name, column in nose.columns.items():
        spelled = [one for one in here if one in (name, *column.also, f"sensor_{name}")]
        spelled += [one for one in here if one.strip().casefold() == name.casefold()]
        if not spelled:
            hint = "rename the column, or describe your nose: `smellkit nose new`; near: "
            hint += ", ".join(alike(name, here) or here)[:200]
            raise raw.fault(f"the columns of the nose {nose.name}", "no such column", hint, column=name, line=1)
        sources[name] = spelled[0]
    return sources


def _check_spans(raw: Raw, nose: Description, sources: Mapping[str, str], values: NDArray) -> None:
    """Refuse the first of `values` (rows, columns) that is outside of its span; where none may be missing, NaN too."""
    columns = list(nose.columns.values())
    low, high = np.array([column.span for column in columns]).T
    wrong = (values < low) | (values > high) | (np.isnan(values) & (raw.sheet is not None))
    if not wrong.any():
        return
    row, index = map(int, np.argwhere(wrong)[0])
    source, column, actual = list(sources.values())[index], columns[index], f"{values[row, index]:.10g}"
    if raw.sheet:
        actual = repr(str(raw.sheet.cells[source][row])[:40])
    more = f" (and {wrong.sum() - 1} more cells like it in this file)" if wrong.sum() > 1 else ""
    same = [one.unit == column.unit and one.span == column.span for one in columns]
    hint = column.explain(values[:, same].ravel()) if np.isfinite(values[row, index]) else NO_NUMBER
    hint = hint or f"correct the cell, leave the file out (skip), or write the column's real span into {noses.FILE}"
    limits = f"a number from {low[index]:g} to {high[index]:g} ({column.unit})"
    raise raw.fault(limits, actual + more, hint, column=source, row=row)


def _check_counts(raw: Raw, source: str, values: NDArray, unit: str, report: Report) -> None:
    """Refuse counts with a point between thousands, as in 1.092; tell of others that are no whole numbers."""
    if unit not in ("adc", "ppm"):
        return
    broken = (values != np.round(values)) & ~np.isnan(values)
    if not broken.any():
        return
    rest, pointed = values[~broken], values[broken]
    thousands = (np.abs(1000 * pointed - np.round(1000 * pointed)) < 1e-6).all() and pointed.max() < 10
    if thousands and len(rest) and np.nanmedian(rest) >= 100 and np.nanmax(rest) < 1000:
        hint, row = "a point between thousands, as in 1.092 for 1092? Save it without", int(broken.argmax())
        raise raw.fault("whole counts", f"{pointed[0]:g} among counts", hint, column=source, row=row)
    if broken.mean() > 0.5 and unit == "adc" and raw.sheet is None:
        report.tell(raw.path, f"counts that are no whole numbers ({source}): averaged, or another unit?", broken.sum())


def _filled(raw: Raw, values: pd.DataFrame, report: Report) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Values without NaN, and which rows are kept: a few lost readings are filled in, more of them left out."""
    if not np.isnan(values.to_numpy()).any():
        return values, np.ones(len(values), bool)
    lost = values.isna()
    runs = lost.apply(lambda column: column.groupby((column != column.shift()).cumsum()).transform("size"))
    gone = (lost & (runs > HOLD)).any(axis=1).to_numpy()
    if gone.mean() > 0.5:
        hint = "record again, or take the sensor out of the description"
        raise raw.fault("readings", f"none of some sensor in {gone.mean():.0%} of the rows", hint)
    if count := (lost.any(axis=1) & ~gone).sum():
        report.tell(raw.path, "rows without a reading of some sensor: filled in from their neighbours", count)
    if gone.any():
        what = f"rows without a reading of some sensor (from line {raw.lines[gone][0]}): left out"
        report.tell(raw.path, what, gone.sum())
    return values.interpolate(limit_direction="both")[~gone].reset_index(drop=True), ~gone


def guess(folder: str | Path) -> tuple[Description, list[str]]:
    """Return the nose that the recordings in `folder` look like, and each thing about it that is only guessed."""
    folder, report = Path(folder).expanduser(), Report()
    recordings = raws(folder, skip=True, report=report)
    nose, words = guessed(folder, recordings)
    nose = _with_rate(nose, recordings, folder, report)
    if nose.rate is None and not nose.features:
        words.append("rate unknown, since no column is a clock: write rate = rows a second")
    return nose, words


def guessed(folder: Path, raws: Sequence[Raw]) -> tuple[Description, list[str]]:
    """The nose that all of the recordings look like, and what of it is only guessed: nothing of one that ships."""
    first = raws[0]
    here = [name for name in first.cells if all(name in raw.cells for raw in raws)]
    numeric = [name for name in here if all(is_numeric_dtype(raw.cells[name]) for raw in raws)]
    values = {name: np.concatenate([raw.cells[name].to_numpy(np.float64) for raw in raws]) for name in numeric}
    if shipped := next((one for one in map(noses.load, noses.names()) if _is(one, first, values)), None):
        return shipped, []
    if not first.named and not first.features:
        hint = f"write the names of the columns above the first row, or a {noses.FILE} with as many columns"
        raise first.fault("the names of the columns", "no header", hint, line=1)
    words = ["a row is taken as an exposure of its own, since the class changes from row to row"] * first.features
    units = {name: unit for name in numeric for unit in SECONDS if name.strip().lower() in (unit, f"{unit}s")}
    clock, columns = clock_names(first) or list(units)[:1], {}
    for name in dict.fromkeys(name for raw in raws for name in raw.cells):
        if name in (*clock, label_column(first)):
            continue
        if name not in numeric or np.isnan(values[name]).all() or NO_SENSOR.fullmatch(name.strip()):
            why = "it looks like no sensor" if name in here else "not every recording has it"
            words.append(f"{name}: left out, {why}")
        else:
            columns[name] = _column(name, values[name], first, words)
    if not any(column.role == "gas" for column in columns.values()):
        hint = f"write a {noses.FILE} with your columns into the folder; here are {', '.join(here)[:200]}"
        raise first.fault("a column of a gas sensor", "none that looks like one", hint)
    nose = Description(folder.resolve().stem, columns, features=first.features)
    if len(clock) != 1 or first.features:
        return nose, words
    nose = replace(nose, clock=clock[0], clock_unit=units.get(clock[0]))
    words.append(f"{clock[0]}: taken as the clock")
    step = 0.0 if nose.clock_unit else step_of(first, nose)
    if 0 < step < 1 / FASTEST:  # hours, where seconds would mean thousands of rows each
        nose = replace(nose, clock_unit="hour" if 0.05 < step * 3600 < 120 else "day")
        words.append(f"{clock[0]}: unit guessed {nose.clock_unit}, since rows would be {step:.3g} s apart")
    return nose, words


def _is(nose: Description, raw: Raw, values: Mapping[str, NDArray]) -> bool:
    """Whether recordings have the columns of a shipped nose, in units to convert, and counts where it counts."""
    for name, column in nose.columns.items():
        source = next((one for one in (name, *column.also) if one in values), "")
        known = raw.units.get(source, column.unit) in (column.unit, *noses.UNITS[column.unit])
        if not source or raw.features or not known or (column.unit == "adc" != _unit_of(values[source])):
            return False
    return True


def _column(name: str, values: NDArray, raw: Raw, words: list[str]) -> Column:
    """Role, unit and span of a column by its name and its values; everything that is a guess goes into `words`."""
    plain = re.sub(r"[(\[].*", "", name).strip().lower()
    role, usual, span = next((kind[1:] for kind in KINDS if re.search(kind[0], plain)), ("gas", "", (0.0, 0.0)))
    faults = tuple(one for one in NO_READING if np.nanmin(values) == one and (values[values != one] >= 0).all())
    values = values[~np.isin(values, faults)]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    far = 10 * max(abs(low), abs(high), 1.0)
    if raw.features:
        return Column("gas", "none", (-far, far))
    if not (unit := raw.units.get(name, "")):
        pascal = role == "pressure" and 30_000 <= np.nanmedian(values) <= 120_000
        unit = "pascal" if pascal else usual or _unit_of(values)
        words.append(f"{name}: unit guessed {unit} from {low:g} to {high:g}")
    if role == "gas":
        words.append(f"{name}: taken as a gas sensor")
        top = next((top for top in noses.FULL if high <= top), 0) if unit == "adc" else SPANS.get(unit, 0)
        span = (0.0, float(top)) if top else (min(0.0, 10 * low), 10 * max(abs(high), 1e-6))
    elif unit == "pascal":
        span = (30_000.0, 120_000.0)
    if faults:
        words.append(f"{name}: {faults[0]:g} taken as no reading")
    return Column(role, unit, span, faults)


def _unit_of(values: NDArray) -> str:
    """The unit that readings of a gas sensor look like."""
    low, high, whole = np.nanmin(values), np.nanmax(values), np.all(values[np.isfinite(values)] % 1 == 0)
    if whole and low >= 0 and 20 < high <= 65535:
        return "adc"
    return "volt" if low >= 0 and 1.2 < high <= 5.5 and not whole else "none"
