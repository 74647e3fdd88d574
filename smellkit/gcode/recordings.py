"""From files of a milling machine to one table of rows: the channels, parquet or CSV, every fault counted or refused.

parquet or the original CSV -> 3.9 rows a second -> 155 continuous channels, 4 categorical ones, the line of G-code
"""

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import options, paths
from smellkit.checks import Pace, Report, fault, read_texts, readable
from smellkit.checks.clock import clock_columns, paced, read_clock
from smellkit.checks.report import content
from smellkit.checks.tables import numbers
from smellkit.errors import DataError
from smellkit.gcode.tokens import normalise

RATE = 1 / 0.257  # rows a second
PACE = Pace(rate=RATE, gap=300.0, near=(0.67, 1.5), fill=False)  # a machine that waits is silent for minutes
VERSION = "8"  # of what this module makes of a file; part of the key of the cache
FROZEN = 8  # rows without any change of what moves, after which a node is taken as dead; a live one repeats 1 row
FOLDERS = ("gcode_fingerprint/recordings", "gcode/aligned")  # below a data root
HINT = "`smellkit data get gcode`, or leave --data out for the simulated sample"
LABEL, CLOCK = "gcode_string", "t_console"
LARGEST = 1e15  # that a sensor may say
LIMIT = 1_000_000_000  # bytes

SIX = ("adaptive", "adaptive150025", "face", "face150025", "pocket", "pocket150025")
OPERATIONS = (*SIX, "damageadaptive", "damageface", "damagepocket")  # class number = position in this list
CATEGORICAL = ("stat", "unit", "dist", "coor")
POSITION = ("mpox", "mpoy", "mpoz")  # mm, from the controller: it nearly gives the line away
CURRENT = ("spindle_A", "x_motor_A", "y_motor_A", "z_motor_A")
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
CONTINUOUS = tuple(
    sorted([*POSITION, *CURRENT, *(f"{node}.{name}" for node, names in NODES.items() for name in names.split())])
)
CHANNELS = (*CONTINUOUS, *CATEGORICAL)  # the 159 columns of a row, in this order
KINDS = {  # how a quantity begins -> the kind of its sensor
    "mpo": "position", "A": "accelerometer", "G": "gyroscope", "M": "magnetometer", "Pressure": "pressure",
    "Temperature": "temperature", "Proximity": "proximity", "Color": "colour", "RMS": "microphone",
}  # fmt: skip
CHANNEL_SETS = ("all", "no-position", "no-position-z", "centred")


def modality(channel: str) -> str:
    """Which kind of sensor a continuous channel is: one of the values of `MODALITIES`."""
    quantity = channel.split(".")[-1]
    return "current" if channel in CURRENT else next(KINDS[name] for name in KINDS if quantity.startswith(name))


def node(channel: str) -> str:
    """The sensor node of a continuous channel; the controller's own are `position` and `current`."""
    return channel.split(".")[0] if "." in channel else modality(channel)


MODALITIES = tuple(dict.fromkeys(map(modality, CONTINUOUS)))
COLUMNS: dict[str, list[int]] = {}  # node -> where its channels are among the 155
for _index, _channel in enumerate(CONTINUOUS):
    COLUMNS.setdefault(node(_channel), []).append(_index)
POSITION_COLUMNS = COLUMNS["position"]
MOVING = {  # node -> those of its columns that are never constant while it works
    name: [i for i in columns if modality(CONTINUOUS[i]) in ("accelerometer", "gyroscope", "current")]
    for name, columns in COLUMNS.items()
    if name != "position"
}


def channel_mask(channels: str = "all", *, without: str = "") -> NDArray[np.bool_]:
    """Which of the 155 channels are used, as a mask: a channel set, less the modalities in `without` (commas).

    `all`; `no-position` leaves out machine position; `no-position-z` also standardises every recording by itself;
    `centred` standardises like that but keeps the position, in mm from the middle of the recording.
    """
    options.check([channels], CHANNEL_SETS, "There is no channel set")
    gone = {name.strip() for name in without.split(",") if name.strip()}
    options.check(gone, MODALITIES, "There is no modality")
    gone |= {"position"} if channels.startswith("no-position") else set()
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
    folder, report = find(folder), report or Report()
    by_name = {name_of(path): path for path in files(folder)}
    for path in files(folder):
        if (other := by_name[name_of(path)]) != path:
            hint = "two files of one recording: leave one of them out, or rename it"
            raise fault(path, expected="a recording of its own", actual=f"that of {other.name}", hint=hint)
    one = partial(read_one, labels=labels, report=report)
    tables = [table for _, table in readable(by_name.values(), one, skip=skip, report=report)]
    if not tables:
        raise DataError(f"No recording in {folder} could be read", hint="; ".join(report.skipped.values())[:300])
    table = pd.concat(tables, ignore_index=True)
    first: dict[tuple, str] = {}
    groups: dict[str, str] = {}
    for name, rows in table.groupby("recording"):
        head = rows.head(64)
        status = (*head["clock"], head[list(POSITION)].to_numpy().tobytes())
        known = head["clock"].any() and head[list(POSITION)].notna().any(axis=None)
        groups[name] = first.setdefault(status, name) if known else name
        if groups[name] != name:
            report.note(name, f"repeats the status rows of {groups[name]}")
    return table.assign(group=table["recording"].map(groups)).drop(columns="clock")


def read_one(path: Path, *, labels: bool = True, report: Report | None = None) -> pd.DataFrame:
    """Return the rows of one recording, in the columns of `read`, or refuse the file with column and reason."""
    path, report = Path(path), report or Report()
    cells = _cells(path, labels=labels)
    for name, columns in COLUMNS.items():
        absent = [CONTINUOUS[i] not in cells for i in columns]
        if any(absent):
            report.note(path, f"missing {'node' if all(absent) else 'channels of'} {name}")
    for name in CATEGORICAL:
        if name not in cells:
            report.note(path, f"missing column {name}")
    recording, clock = name_of(path), cells[CLOCK] if CLOCK in cells else pd.Series("", cells.index)
    about = {"recording": recording, "operation": recording.rpartition("_")[0] or recording}
    values = {name: _numbers(cells, name, path=path) for name in CHANNELS}
    if all(np.isnan(values[channel]).all() for channel in CONTINUOUS):
        raise fault(path, column=CONTINUOUS[0], expected="sensor channels", actual="none of the 155", hint=HINT)
    lines = _lines(cells, path=path, report=report)
    table = pd.DataFrame({**about, "clock": clock.astype("str").fillna(""), **values, "line": lines})
    table = _at_pace(table, cells, path=path, report=report)
    channels = table[list(CONTINUOUS)].to_numpy(np.float32, copy=True)
    for dead, rows in mark_frozen(channels).items():
        report.note(path, f"frozen {dead}: rows taken as missing", rows)
    table[list(CONTINUOUS)] = channels
    return table.copy()  # in one piece again


def _cells(path: Path, *, labels: bool) -> pd.DataFrame:
    """The columns of a file that are known, under their names of today; the index is the line that a row has in CSV."""
    older = {name.removesuffix("_A"): name for name in CURRENT}  # the same values under an older name
    wanted = [CLOCK, *CONTINUOUS, *CATEGORICAL, LABEL, *older]
    if path.suffix == ".parquet":
        cells = _parquet(path, wanted)
        cells.index = pd.RangeIndex(2, len(cells) + 2)
    else:
        cells = read_texts(path, columns=[], optional=wanted, clock=True)
    cells = cells.rename(columns={old: new for old, new in older.items() if new not in cells})
    if not len(cells):
        raise fault(path, expected="rows", actual="none", hint="record it again, or leave the file out")
    if labels and LABEL not in cells:
        hint = "`smellkit predict` reads recordings without it"
        raise fault(path, column=LABEL, expected="the line of G-code of each row", actual="no such column", hint=hint)
    return cells


def _parquet(path: Path, wanted: list[str]) -> pd.DataFrame:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    data = content(path, limit=LIMIT)
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        known = {*wanted, *clock_columns(file.schema_arrow.names)}
        table = file.read(columns=[name for name in file.schema_arrow.names if name in known])
        return table.to_pandas(ignore_metadata=True)  # a clock that was the index is a column, too
    except (ArrowException, OSError, ValueError) as why:
        cut = data.startswith(b"PAR1") and not data.endswith(b"PAR1")
        actual = f"one that was cut off ({len(data)} bytes)" if cut else str(why)[:120]
        raise fault(path, expected="a parquet file", actual=actual, hint="copy it again") from why


def _numbers(cells: pd.DataFrame, name: str, *, path: Path) -> NDArray[np.float32]:
    """A column as float32 with NaN where it has nothing; a cell that is not a number is refused with its row."""
    if name not in cells:
        return np.full(len(cells), np.nan, np.float32)
    column = cells[name]
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan, copy=True)
        values[np.isinf(values)] = np.nan
    else:
        values = numbers(["" if pd.isna(cell) else str(cell) for cell in column])
    if len(wrong := np.flatnonzero(np.abs(values) > LARGEST)):
        line, cell = int(cells.index[wrong[0]]), repr(column.iloc[wrong[0]])[:40]
        hint = "correct the cell, or leave the file out (skip)"
        raise fault(path, line=line, column=name, expected="a number", actual=cell, hint=hint)
    return values.astype(np.float32)


def _lines(cells: pd.DataFrame, *, path: Path, report: Report) -> pd.Series:
    """The line of G-code of each row, spelled in the kit's way; missing where there is none."""
    if LABEL not in cells:
        return pd.Series([None] * len(cells), cells.index, dtype="str")
    raw = cells[LABEL].astype("str").str.strip()
    spelled = {line: normalise(line) for line in raw.dropna().unique() if line not in ("", "nan")}
    if dialect := {line: names for line, (_, names) in spelled.items() if names}:
        names = ", ".join(dict.fromkeys(name for names in dialect.values() for name in names))
        report.tell(path, f"lines of G-code spelled in the kit's way ({names})", raw.isin(dialect).sum())
    lines = pd.Series(raw.map({line: text or None for line, (text, _) in spelled.items()}), dtype="str")
    if missing := int(lines.isna().sum()):
        report.note(path, "rows without G-code", missing)
    return lines


def _at_pace(table: pd.DataFrame, cells: pd.DataFrame, *, path: Path, report: Report) -> pd.DataFrame:
    """The rows in the order of the clock at about 3.9 a second, with the `row` of the file and the `part`."""
    names, seconds = [CLOCK] if CLOCK in cells else clock_columns(list(cells.columns)), None
    where: dict[str, Any] = {"path": path, "name": " ".join(names), "lines": list(cells.index)}
    if names and len(cells) >= 8:
        seconds = read_clock(cells[names], **where)
    else:
        report.note(path, "no clock: 3.9 rows a second assumed")
    rows = np.arange(len(table))
    return paced(table.reset_index(drop=True), seconds, pace=PACE, report=report, rows=rows, **where)


def mark_frozen(values: NDArray) -> dict[str, int]:
    """Set what a dead node still repeats to NaN, in place, and return node -> number of such rows.

    A node is dead from the `FROZEN`-th row in a row in which nothing that moves has changed: a rule that needs no
    future and `FROZEN` rows of the past, so a stream and a file agree.
    """
    counts = {}
    for name, moving in MOVING.items():
        now = np.nan_to_num(values[:, moving], nan=np.inf)  # what is absent is equal to itself
        same = np.zeros(len(values), bool)
        same[1:] = (now[1:] == now[:-1]).all(axis=1) & np.isfinite(now[1:]).any(axis=1)
        row = np.arange(len(values))
        dead = row - np.maximum.accumulate(np.where(same, 0, row)) >= FROZEN
        if dead.any():
            counts[name] = int(dead.sum())
            values[np.flatnonzero(dead)[:, None], COLUMNS[name]] = np.nan
    return counts
