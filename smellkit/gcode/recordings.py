"""From files of a milling machine to one table of rows: the channels, parquet or CSV, every fault counted or refused.

parquet or the original CSV -> 3.9 rows a second -> 155 continuous channels, 4 categorical ones, the line of G-code
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import paths
from smellkit.checks import Pace, Report, fault, read_texts
from smellkit.checks.clock import clock_columns, paced, read_clock
from smellkit.checks.report import content
from smellkit.checks.tables import numbers
from smellkit.errors import DataError, OptionError
from smellkit.gcode.tokens import normalise
from smellkit.options import nearest

RATE = 1 / 0.257  # rows a second
PACE = Pace(rate=RATE, gap=300.0, near=(0.67, 1.5), fill=False)  # a machine that waits is silent for minutes
VERSION = "6"  # of what this module makes of a file; part of the key of the cache
FROZEN = 8  # rows without any change of what moves, after which a node is taken as dead; a live one repeats 1 row
FOLDERS = ("gcode_fingerprint/recordings", "gcode/aligned")  # below a data root
HINT = "`smellkit data get gcode`, or leave --data out for the simulated sample"

OPERATIONS = (  # class number = position in this list
    "adaptive",
    "adaptive150025",
    "face",
    "face150025",
    "pocket",
    "pocket150025",
    "damageadaptive",
    "damageface",
    "damagepocket",
)
NODES = {  # what the published rules select from each sensor node
    "frame_b2": "Ax Ay Az ColorA Gx Gy Gz Mx Mz Pressure Proximity",
    "frame_l2": "Ax Ay Az ColorA ColorR Gx Gy Gz Mx My Mz Pressure Proximity",
    "frame_l3": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity RMS",
    "frame_r1": "Ax Ay Az ColorA ColorG Gx Gy Gz Mx My Mz Pressure Proximity",
    "frame_r2": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity",
    "spindle1": "Ax Ay Az Gx Gy Gz My Mz Pressure RMS Temperature",
    "spindle2": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure",
    "xa_motor": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure RMS",
    "y_bed__1": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity Temperature",
    "y_bed__2": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity RMS",
    "y_bed__3": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity",
    "y_bed__4": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity RMS Temperature",
}
POSITION = ("mpox", "mpoy", "mpoz")  # mm, from the controller: it nearly gives the line away
CURRENT = ("spindle_A", "x_motor_A", "y_motor_A", "z_motor_A")
CONTINUOUS = tuple(
    sorted([*POSITION, *CURRENT, *(f"{node}.{name}" for node, names in NODES.items() for name in names.split())])
)
CATEGORICAL = ("stat", "unit", "dist", "coor")
LABEL, CLOCK, LINE = "gcode_string", "t_console", "(line)"
LARGEST = 1e15  # that a sensor may say
LIMIT = 1_000_000_000  # bytes
POSITION_COLUMNS = [CONTINUOUS.index(name) for name in POSITION]  # where the position is among the 155

_KINDS = {
    "A": "accelerometer",
    "G": "gyroscope",
    "M": "magnetometer",
    "Pressure": "pressure",
    "Temperature": "temperature",
    "Proximity": "proximity",
    "Color": "colour",
    "RMS": "microphone",
}
CHANNEL_SETS = ("all", "no-position", "no-position-z", "centred")


def modality(channel: str) -> str:
    """Which kind of sensor a continuous channel is: one of the values of `MODALITIES`."""
    if channel in POSITION:
        return "position"
    if channel in CURRENT:
        return "current"
    quantity = channel.split(".")[1]
    return next(kind for start, kind in reversed(_KINDS.items()) if quantity.startswith(start))


def node(channel: str) -> str:
    """The sensor node of a continuous channel; the controller's own are `position` and `current`."""
    return channel.split(".")[0] if "." in channel else modality(channel)


MODALITIES = tuple(dict.fromkeys(modality(channel) for channel in CONTINUOUS))


def channel_mask(channels: str = "all", *, without: str = "") -> NDArray[np.bool_]:
    """Which of the 155 channels are used, as a mask: a channel set, less the modalities in `without` (commas).

    `all`; `no-position` leaves out machine position; `no-position-z` also standardises every recording by itself;
    `centred` standardises like that but keeps the position, in mm from the middle of the recording.
    """
    if channels not in CHANNEL_SETS:
        raise OptionError(f"There is no channel set {channels!r}", hint=nearest(channels, CHANNEL_SETS))
    gone = {name.strip() for name in without.split(",") if name.strip()}
    for name in gone - set(MODALITIES):
        raise OptionError(f"There is no modality {name!r}", hint=nearest(name, MODALITIES))
    if channels.startswith("no-position"):
        gone.add("position")
    return np.array([modality(channel) not in gone for channel in CONTINUOUS])


def find(folder: str | Path | None = None) -> Path:
    """Folder of recordings to use: "" is the sample; else `folder`, or a usual place inside it."""
    if folder is None or str(folder) == "":
        return paths.sample() / "gcode"
    here = Path(folder)
    for candidate in (here / "recordings", here / "aligned", here, *(here / name for name in FOLDERS)):
        if candidate.is_dir() and files(candidate):
            return candidate
    raise DataError(f"No recordings (*.parquet or *_aligned.csv) in {here}", hint=HINT)


def files(folder: Path) -> list[Path]:
    """The recordings in `folder`, sorted by name; other files (vocabularies, lists of recordings) are left alone."""
    candidates = [*folder.glob("*.parquet"), *folder.glob("*_aligned.csv")]
    return sorted(path for path in candidates if not path.name.startswith("."))


def name_of(path: Path) -> str:
    """Name of the recording in a file: `face_001` for face_001.parquet and for face_001_aligned.csv."""
    return path.stem.removesuffix("_aligned")


def read(
    folder: str | Path | None = None, *, labels: bool = True, skip: bool = False, report: Report | None = None
) -> pd.DataFrame:
    """Return every row of every recording in `folder`.

    Columns: recording, operation (the name before the last `_`), group, row (of the file), part (up by 1 at a gap of
    the clock), the 155 continuous channels (float32, NaN where a node is absent), the 4 categorical ones (float32),
    line (G-code; missing where the controller gave none).
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
    table = _at_pace(_table(path, labels=labels), path=path, report=report)
    _note_missing(table, path=path, report=report)
    values = np.column_stack([_numbers(table, channel, path=path) for channel in CONTINUOUS])
    for dead, rows in mark_frozen(values).items():
        report.note(path, f"frozen {dead}: rows taken as missing", rows)
    recording = name_of(path)
    first = {"recording": recording, "operation": recording.rpartition("_")[0] or recording, "clock": _clock(table)}
    place = {name: table[name].astype(np.int32) for name in ("row", "part")}
    result = pd.DataFrame({**first, **place})
    states = {name: _numbers(table, name, path=path) for name in CATEGORICAL}
    result = pd.concat([result, pd.DataFrame(values, columns=list(CONTINUOUS)), pd.DataFrame(states)], axis=1)
    result["line"] = _lines(table, path=path, report=report)
    return result


def _table(path: Path, *, labels: bool) -> pd.DataFrame:
    """The columns of a file that are known, under their names of today."""
    older = {name.removesuffix("_A"): name for name in CURRENT}  # the same values under an older name
    wanted = [CLOCK, *CONTINUOUS, *CATEGORICAL, LABEL, *older]
    table = _parquet(path, wanted) if path.suffix == ".parquet" else _csv(path, wanted)
    table = table.rename(columns={old: new for old, new in older.items() if new not in table})
    if not len(table):
        raise fault(path, expected="rows", found="none", hint="record it again, or leave the file out")
    if not any(channel in table for channel in CONTINUOUS):
        raise fault(path, column=CONTINUOUS[0], expected="sensor channels", found="none of the 155", hint=HINT)
    if labels and LABEL not in table:
        hint = "`smellkit predict` reads recordings without it"
        raise fault(path, column=LABEL, expected="the line of G-code of each row", found="no such column", hint=hint)
    return table


def _parquet(path: Path, wanted: list[str]) -> pd.DataFrame:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    data = content(path, limit=LIMIT)
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        known = {*wanted, *clock_columns(file.schema_arrow.names)}
        return file.read(columns=[name for name in file.schema_arrow.names if name in known]).to_pandas()
    except (ArrowException, OSError, ValueError) as why:
        cut = data.startswith(b"PAR1") and not data.endswith(b"PAR1")
        found = f"one that was cut off ({len(data)} bytes)" if cut else str(why)[:120]
        raise fault(path, expected="a parquet file", found=found, hint="copy it again") from why


def _csv(path: Path, wanted: list[str]) -> pd.DataFrame:
    table = read_texts(path, columns=[], optional=wanted, report=Report(), clock=True)
    return table.reset_index(names=LINE).replace("", None)


def _note_missing(table: pd.DataFrame, *, path: Path, report: Report) -> None:
    present = {node(channel) for channel in CONTINUOUS if channel in table}
    for name in dict.fromkeys(node(channel) for channel in CONTINUOUS if channel not in table):
        report.note(path, f"{'missing channels of' if name in present else 'missing node'} {name}")
    for name in CATEGORICAL:
        if name not in table:
            report.note(path, f"missing column {name}")


def _numbers(table: pd.DataFrame, name: str, *, path: Path) -> NDArray[np.float32]:
    """A column as float32 with NaN where it has nothing; a cell that is not a number is refused with its row."""
    if name not in table:
        return np.full(len(table), np.nan, np.float32)
    column = table[name]
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan, copy=True)
    else:
        values = numbers(["" if pd.isna(cell) else str(cell) for cell in column])
    wrong = np.flatnonzero((np.abs(values) > LARGEST) & (not pd.api.types.is_float_dtype(column)))
    if len(wrong):
        cell = repr(column.iloc[wrong[0]])[:40]
        hint = "correct the cell, or leave the file out (skip)"
        raise fault(path, line=_lines_of(table)[wrong[0]], column=name, expected="a number", found=cell, hint=hint)
    values[~np.isfinite(values)] = np.nan
    return values.astype(np.float32)


def _lines(table: pd.DataFrame, *, path: Path, report: Report) -> pd.Series:
    if LABEL not in table:
        return pd.Series([None] * len(table), dtype="str")
    lines = table[LABEL].reset_index(drop=True).astype("str")
    lines = lines.str.strip().where(lines.notna() & ~lines.isin(["", "nan"]))
    spelled = {line: normalise(line) for line in lines.dropna().unique()}
    if dialect := dict.fromkeys(name for _, names in spelled.values() for name in names):
        count = int(lines.map({line: bool(names) for line, (_, names) in spelled.items()}).sum())
        report.tell(path, f"lines of G-code spelled in the kit's way ({', '.join(dialect)})", count)
    lines = pd.Series(lines.map({line: text or None for line, (text, _) in spelled.items()}), dtype="str")
    if missing := int(lines.isna().sum()):
        report.note(path, "rows without G-code", missing)
    return lines


def mark_frozen(values: NDArray, *, still: NDArray | None = None) -> dict[str, int]:
    """Set what a dead node still repeats to NaN, in place, and return node -> number of such rows.

    A node is dead from the `FROZEN`-th row in a row in which nothing that moves has changed: a rule that needs no
    future, so a stream and a file agree. `still` (nodes,) holds how long each has been still before, and is brought up
    to date; then the first row is the last one seen before.
    """
    counts = {}
    for number, (name, moving, everything) in enumerate(_COLUMNS_OF_NODES):
        same = np.zeros(len(values), int)
        now, before = values[1:, moving], values[:-1, moving]
        absent = np.isnan(now)
        same[1:] = ((now == before) | (absent & np.isnan(before))).all(axis=1) & ~absent.all(axis=1)
        moved = np.where(same == 0, np.arange(len(values)), 0)
        unchanged = np.arange(len(values)) - np.maximum.accumulate(moved)
        if still is not None:
            unchanged += still[number] * (np.maximum.accumulate(moved) == 0)
            still[number] = unchanged[-1]
        dead = unchanged >= FROZEN
        if dead.any():
            counts[name] = int(dead.sum())
            values[np.flatnonzero(dead)[:, None], everything] = np.nan
    return counts


def _columns_of_nodes() -> list[tuple[str, list[int], list[int]]]:
    """(node, columns that are never constant while it works, all its columns) of every node; the position is none."""
    moving = ("accelerometer", "gyroscope", "current")
    rows = []
    for name in (*NODES, "current"):
        columns = [i for i, channel in enumerate(CONTINUOUS) if node(channel) == name]
        rows.append((name, [i for i in columns if modality(CONTINUOUS[i]) in moving], columns))
    return rows


_COLUMNS_OF_NODES = _columns_of_nodes()


def _clock(table: pd.DataFrame) -> pd.Series:
    if CLOCK not in table:
        return pd.Series([""] * len(table), dtype="str")
    return table[CLOCK].astype("str").fillna("").reset_index(drop=True)


def _lines_of(table: pd.DataFrame) -> list[int]:
    """The line of the file that each row is; of parquet, the one that it would have in a CSV."""
    return table[LINE].tolist() if LINE in table else (np.arange(len(table)) + 2).tolist()


def _at_pace(table: pd.DataFrame, *, path: Path, report: Report) -> pd.DataFrame:
    """The table in the order of its clock at about 3.9 rows a second, with the `row` of the file and its `part`."""
    names = [CLOCK] if CLOCK in table else clock_columns(list(table.columns))
    lines = _lines_of(table)
    if not names or len(table) < 8:
        report.note(path, "no clock: 3.9 rows a second assumed")
        return table.assign(row=np.arange(len(table)), part=0)
    cells = table[names[0]] if len(names) == 1 else table[names].astype(str).agg(" ".join, axis=1)
    seconds = read_clock(cells, path=path, name=" ".join(names), lines=lines)
    rows = np.arange(len(table))
    return paced(table, seconds, pace=PACE, path=path, name=" ".join(names), lines=lines, rows=rows, report=report)


def _grouped(table: pd.DataFrame, report: Report) -> pd.DataFrame:
    """Add `group`: recordings whose first status rows are the same are one group, named after the first of them."""
    first: dict[bytes, str] = {}
    groups: dict[str, str] = {}
    for name, rows in table.groupby("recording", sort=True):
        head = rows.head(64)
        key = "|".join(head["clock"]).encode() + head[list(POSITION)].to_numpy().tobytes()
        groups[name] = first.setdefault(key, name) if head["clock"].any() else name
        if groups[name] != name:
            report.note(name, f"repeats the status rows of {groups[name]}")
    table.insert(2, "group", table["recording"].map(groups))
    return table.drop(columns="clock")
