"""From files of a milling machine to one table of rows: parquet or the original CSV, every fault counted or refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from smellkit import paths
from smellkit.checks import Report, fault
from smellkit.errors import DataError
from smellkit.gcode import channels

RATE = 1 / 0.257  # rows a second
VERSION = "3"  # of what this module and `data.cut` make of a file; part of the key of the cache
FROZEN = 8  # rows without any change of what moves, after which a node is taken as dead; a live one repeats 1 row
MOVING = ("accelerometer", "gyroscope", "current")  # never constant while they work; the others may be
CURRENT = {name.removesuffix("_A"): name for name in channels.CURRENT}  # the same values under an older name
PLACES = ("gcode_fingerprint/recordings", "gcode/aligned")  # below a data root
HINT = "`smellkit data get gcode`, or leave --data out for the simulated sample"


def find(folder: str | Path | None = None) -> Path:
    """Folder of recordings to use: "" is the sample; else `folder`, or a usual place inside it."""
    if folder is None or str(folder) == "":
        return paths.sample() / "gcode"
    here = Path(folder)
    for place in (here / "recordings", here / "aligned", here, *(here / name for name in PLACES)):
        if place.is_dir() and files(place):
            return place
    raise DataError(f"No recordings (*.parquet or *_aligned.csv) in {here}", hint=HINT)


def files(folder: Path) -> list[Path]:
    """The recordings in `folder`, sorted by name; other files (vocabularies, lists of recordings) are left alone."""
    found = [*folder.glob("*.parquet"), *folder.glob("*_aligned.csv")]
    return sorted(path for path in found if not path.name.startswith("."))


def read(
    folder: str | Path | None = None, *, labels: bool = True, skip: bool = False, report: Report | None = None
) -> pd.DataFrame:
    """Return every row of every recording in `folder`.

    Columns: recording, operation (the name before the last `_`), group, row, the 155 continuous channels (float32, NaN
    where a node is absent), the 4 categorical ones (float32), line (G-code; missing where the controller gave none).
    Recordings that repeat the status rows of another share its `group`. With `skip` a file with a fault is reported
    and left out; without `labels` the G-code column may be absent.
    """
    folder = find(folder)
    report = report if report is not None else Report()
    tables = []
    for path in files(folder):
        try:
            tables.append(read_one(path, labels=labels, report=report))
            report.files += 1
        except DataError as why:
            if not skip:
                raise
            report.skip(path, why)
    if not tables:
        raise DataError(f"No recording in {folder} could be read", hint="; ".join(report.skipped.values())[:300])
    return _grouped(pd.concat(tables, ignore_index=True), report)


def read_one(path: Path, *, labels: bool = True, report: Report | None = None) -> pd.DataFrame:
    """Return the rows of one recording, in the columns of `read`, or refuse the file with column and reason."""
    path, report = Path(path), report if report is not None else Report()
    table = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    table = table.rename(columns={old: new for old, new in CURRENT.items() if new not in table})
    recording = path.stem.removesuffix("_aligned")
    if not len(table):
        raise fault(path, expected="rows", found="none", hint="record it again, or leave the file out")
    present = [channel for channel in channels.CONTINUOUS if channel in table]
    if not present:
        raise fault(path, column=channels.CONTINUOUS[0], expected="sensor channels", found="none of the 155", hint=HINT)
    if labels and channels.LABEL not in table:
        raise fault(
            path,
            column=channels.LABEL,
            expected="the line of G-code of each row",
            found="no such column",
            hint="`smellkit predict` reads recordings without it",
        )
    table = _resampled(table, path=path, report=report)
    numbers = {each: _numbers(table, each, path=path) for each in (*channels.CONTINUOUS, *channels.CATEGORICAL)}
    for node in dict.fromkeys(channels.node(channel) for channel in channels.CONTINUOUS if channel not in table):
        whole = not any(channels.node(channel) == node for channel in present)
        report.note(path, f"{'missing node' if whole else 'missing channels of'} {node}")
    for name in channels.CATEGORICAL:
        if name not in table:
            report.note(path, f"missing column {name}")
    values = np.column_stack([numbers[channel] for channel in channels.CONTINUOUS])
    for node, rows in mark_frozen(values).items():
        report.note(path, f"frozen {node}: rows taken as missing", rows)
    numbers |= dict(zip(channels.CONTINUOUS, values.T, strict=True))
    result = pd.DataFrame(numbers)
    result["line"] = _lines(table, path=path, report=report)
    result.insert(0, "row", np.arange(len(result), dtype=np.int32))
    result.insert(0, "recording", recording)
    result.insert(1, "operation", recording.rpartition("_")[0] or recording)
    result.insert(2, "clock", _clock(table))
    return result


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        return file.read(columns=[name for name in _wanted() if name in names]).to_pandas()
    except (ArrowException, OSError, ValueError) as why:
        raise fault(path, expected="a parquet file", found=str(why)[:120], hint="copy it again") from why


def _csv(path: Path) -> pd.DataFrame:
    wanted = set(_wanted())
    try:
        return pd.read_csv(path, usecols=lambda name: name in wanted, low_memory=False)
    except (OSError, ValueError) as why:  # pandas' own errors are ValueErrors
        raise fault(path, expected="a table", found=str(why)[:120], hint="copy or export it again") from why


def _wanted() -> tuple[str, ...]:
    return (channels.CLOCK, *channels.CONTINUOUS, *channels.CATEGORICAL, channels.LABEL, *CURRENT)


def _numbers(table: pd.DataFrame, name: str, *, path: Path) -> np.ndarray:
    """A column as float32 with NaN where it has nothing; a cell that is not a number is refused with its row."""
    if name not in table:
        return np.full(len(table), np.nan, np.float32)
    column = table[name]
    if column.dtype.kind in "fiu":
        values = column.to_numpy(np.float32, copy=True)
        values[~np.isfinite(values)] = np.nan
        return values
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan, copy=True)
    wrong = np.flatnonzero(np.isnan(values) & column.notna().to_numpy())
    if len(wrong):
        found = repr(column.iloc[wrong[0]])[:40]
        hint = "correct the cell, or leave the file out (skip)"
        raise fault(path, line=int(wrong[0]) + 2, column=name, expected="a number", found=found, hint=hint)
    values[~np.isfinite(values)] = np.nan
    return values.astype(np.float32)


def _lines(table: pd.DataFrame, *, path: Path, report: Report) -> pd.Series:
    if channels.LABEL not in table:
        return pd.Series([None] * len(table), dtype="str")
    lines = table[channels.LABEL].reset_index(drop=True).astype("str")
    lines = lines.str.strip().where(lines.notna() & ~lines.isin(["", "nan"]))
    if gone := int(lines.isna().sum()):
        report.note(path, "rows without G-code", gone)
    return lines


def mark_frozen(values: np.ndarray, *, still: np.ndarray | None = None) -> dict[str, int]:
    """Set what a dead node still repeats to NaN, in place, and return node -> number of such rows.

    A node is dead from the `FROZEN`-th row in a row in which nothing that moves has changed: a rule that needs no
    future, so a stream and a file agree. `still` (nodes,) holds how long each has been still before, and is brought up
    to date; then the first row is the last one seen before.
    """
    counts = {}
    for number, (node, moving, everything) in enumerate(_NODES):
        same = np.zeros(len(values), int)
        now, before = values[1:, moving], values[:-1, moving]
        absent = np.isnan(now)
        same[1:] = ((now == before) | (absent & np.isnan(before))).all(axis=1) & ~absent.all(axis=1)
        moved = np.where(same == 0, np.arange(len(values)), 0)
        runs = np.arange(len(values)) - np.maximum.accumulate(moved)
        if still is not None:
            runs += still[number] * (np.maximum.accumulate(moved) == 0)
            still[number] = runs[-1]
        dead = runs >= FROZEN
        if dead.any():
            counts[node] = int(dead.sum())
            values[np.flatnonzero(dead)[:, None], everything] = np.nan
    return counts


def _nodes() -> list[tuple[str, list[int], list[int]]]:
    """(node, its moving channels, all its channels), as numbers of channels; the position is none."""
    rows = []
    for node in (*channels.NODES, "current"):
        own = [i for i, channel in enumerate(channels.CONTINUOUS) if channels.node(channel) == node]
        rows.append((node, [i for i in own if channels.modality(channels.CONTINUOUS[i]) in MOVING], own))
    return rows


_NODES = _nodes()


def _clock(table: pd.DataFrame) -> pd.Series:
    if channels.CLOCK not in table:
        return pd.Series([""] * len(table), dtype="str")
    return table[channels.CLOCK].astype("str").fillna("").reset_index(drop=True)


def seconds(clock: pd.Series) -> np.ndarray:
    """Seconds since midnight of `HH:MM:SS.mmm` or `MM:SS.s`; NaN where it is neither."""

    def one(text: str) -> float:
        if not re.fullmatch(r"(\d+:){1,2}\d+(\.\d+)?", text):
            return float("nan")
        parts = [float(part) for part in text.split(":")]
        return sum(part * 60**power for power, part in enumerate(reversed(parts)))

    return np.array([one(text) for text in clock])


def _resampled(table: pd.DataFrame, *, path: Path, report: Report) -> pd.DataFrame:
    """The table at about 3.9 rows a second: a faster one is thinned to the nearest rows, a slower one is refused."""
    if channels.CLOCK not in table or len(table) < 8:
        report.note(path, "no clock: 3.9 rows a second assumed")
        return table
    clock = seconds(_clock(table))
    steps = np.diff(clock)
    steps = steps[(steps > 0) & (steps < 60)]
    step = float(np.median(steps)) if len(steps) else 1 / RATE
    if step > 1.5 / RATE:
        found = f"one row every {step:.2f} s"
        hint = "record at 3.9 rows a second or more"
        raise fault(path, column=channels.CLOCK, expected="about 3.9 rows a second", found=found, hint=hint)
    if step > 0.67 / RATE:
        return table
    report.note(path, f"{1 / step:.1f} rows a second thinned to 3.9", len(table))
    wanted = np.arange(0, len(table) * step, 1 / RATE)
    return table.iloc[np.clip(np.round(wanted / step).astype(int), 0, len(table) - 1)].reset_index(drop=True)


def _grouped(table: pd.DataFrame, report: Report) -> pd.DataFrame:
    """Add `group`: recordings whose first status rows are the same are one group, named after the first of them."""
    first: dict[bytes, str] = {}
    groups: dict[str, str] = {}
    for name, rows in table.groupby("recording", sort=True):
        head = rows.head(64)
        key = "|".join(head["clock"]).encode() + head[list(channels.POSITION)].to_numpy().tobytes()
        known = bool(head["clock"].any())
        groups[name] = first.setdefault(key, name) if known else name
        if groups[name] != name:
            report.note(name, f"repeats the status rows of {groups[name]}")
    table.insert(2, "group", table["recording"].map(groups))
    return table.drop(columns="clock")
