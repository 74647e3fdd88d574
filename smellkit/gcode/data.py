"""Windows of a milling machine: 64 rows (16.5 s) every 16, each with its operation and its line of G-code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import cache, paths, windows
from smellkit.checks import Report, fault
from smellkit.errors import DataError
from smellkit.gcode import channels, recordings
from smellkit.gcode.channels import CATEGORICAL, CONTINUOUS, OPERATIONS
from smellkit.gcode.tokens import LONGEST, Vocabulary

LENGTH, STRIDE = 64, 16
CLIP = 4.0  # interquartile ranges from the median; the published 3 from the quartiles is about the same
Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Machine:
    """All rows of all recordings, and where the windows begin. Windows are cut when they are asked for."""

    values: Floats  # (rows, 155), NaN where a node is absent or dead
    categories: Floats  # (rows, 4), NaN where absent
    lines: tuple[str, ...]  # the distinct lines of G-code
    windows: pd.DataFrame  # one row a window: recording, operation, group, start (row in the recording), row (in
    #   `values`), line (number in `lines`, -1 for none), operation_id (-1 for an unknown one), alive (has sensors)
    row_lines: NDArray[np.int32]  # (rows,) number of the line of each row, -1 for none

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, rows: NDArray, *, length: int = LENGTH) -> tuple[Floats, Floats]:
        """Values (n, 64, 155) and categories (n, 64, 4) of the windows that begin at `rows` of the table."""
        index = np.asarray(rows)[:, None] + np.arange(length)
        return self.values[index], self.categories[index]

    def labelled(self) -> Machine:
        """Only the windows that have a line, an operation that is known, and sensors all through."""
        table = self.windows
        return self.chosen((table["line"] >= 0) & (table["operation_id"] >= 0) & table["alive"])

    def chosen(self, mask) -> Machine:
        """Only the windows where `mask` is true."""
        return replace(self, windows=self.windows[np.asarray(mask)].reset_index(drop=True))


def load(
    folder: str | Path | None = None,
    *,
    labels: bool = True,
    skip: bool = False,
    stride: int = STRIDE,
    report: Report | None = None,
) -> Machine:
    """Recordings of `folder` ("" is the sample) as windows, kept in the cache by content.

    The label of a window is its most frequent line, the earliest of those that tie. A recording shorter than one window
    is counted.
    """
    folder = recordings.find(folder)

    def build(notes: Report) -> dict[str, NDArray]:
        return _arrays(
            cut(recordings.read(folder, labels=labels, skip=skip, report=notes), stride=stride, report=notes)
        )

    digests = cache.digests({path.name: path for path in recordings.files(folder)})
    options = f"{recordings.VERSION} labels={labels} skip={skip} stride={stride}"
    return _machine(cache.arrays("gcode", build, files=digests, options=options, report=report))


def _arrays(machine: Machine) -> dict[str, NDArray]:
    """A machine as arrays by name; each column of the table is one."""
    columns = {f"windows.{name}": column.to_numpy() for name, column in machine.windows.items()}
    texts = {name: column.astype(str) for name, column in columns.items() if column.dtype.kind not in "biuf"}
    fields = {name: getattr(machine, name) for name in ("values", "categories", "row_lines")}
    return {**fields, "lines": np.array(machine.lines, dtype=str), **columns, **texts}


def _machine(arrays: dict[str, NDArray]) -> Machine:
    """The inverse of `_arrays`."""
    columns = {name.removeprefix("windows."): arrays[name] for name in arrays if name.startswith("windows.")}
    lines = tuple(arrays["lines"].tolist())
    return Machine(arrays["values"], arrays["categories"], lines, pd.DataFrame(columns), arrays["row_lines"])


def cut(table: pd.DataFrame, *, stride: int = STRIDE, report: Report | None = None) -> Machine:
    """The rows of `recordings.read` as a `Machine`."""
    report = report if report is not None else Report()
    values = table[list(CONTINUOUS)].to_numpy(np.float32)
    codes, lines = pd.factorize(table["line"], sort=True)
    alive = ~np.isnan(np.delete(values, channels.PLACES, axis=1)).all(axis=1)
    names = table["recording"].to_numpy()
    edges = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1], [True]]))
    rows = []
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        recording, operation, group = table.loc[first, ["recording", "operation", "group"]]
        starts = windows.starts(int(end - first), length=LENGTH, stride=stride)
        if not len(starts):
            report.note(recording, f"shorter than a window of {LENGTH} rows", int(end - first))
            continue
        begin = first + starts
        rows.append(
            pd.DataFrame(
                {
                    "recording": recording,
                    "operation": operation,
                    "group": group,
                    "start": starts,
                    "row": begin,
                    "line": modes(codes[first:end], starts=starts),
                    "operation_id": OPERATIONS.index(operation) if operation in OPERATIONS else -1,
                    "alive": [bool(alive[at : at + LENGTH].all()) for at in begin],
                }
            )
        )
    if not rows:
        raise DataError(f"No recording is as long as a window ({LENGTH} rows)", hint="record for 17 s or more")
    categories = table[list(CATEGORICAL)].to_numpy(np.float32)
    frame = pd.concat(rows, ignore_index=True)
    return Machine(values, categories, tuple(lines), frame, codes.astype(np.int32))


def modes(codes: NDArray, *, starts: NDArray, length: int = LENGTH) -> Numbers:
    """The most frequent code of each window, the earliest in time of those that tie; -1 is no code."""
    found = []
    for part in np.array_split(np.asarray(starts), max(1, len(starts) // 256)):
        window = np.asarray(codes)[part[:, None] + np.arange(length)]
        counts = (window[:, :, None] == window[:, None, :]).sum(axis=2)
        counts[window < 0] = 0
        found.append(np.take_along_axis(window, counts.argmax(axis=1)[:, None], axis=1)[:, 0])
    return np.concatenate(found).astype(np.int64) if found else np.empty(0, np.int64)


@dataclass(frozen=True)
class Scaling:
    """Median and interquartile range of every channel, and the values that the categories take. From training only."""

    centre: Floats  # (155,)
    spread: Floats  # (155,), never zero
    categories: tuple[tuple[float, ...], ...]  # of each categorical channel, its known values

    @classmethod
    def fit(cls, values: NDArray, categories: NDArray) -> Scaling:
        """Measure on training rows (rows, 155) and (rows, 4); a channel without spread or values keeps the scale 1."""
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is absent everywhere
            low, centre, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
            deviation = np.nanstd(values, axis=0)
        spread = np.where(high - low > 1e-6, high - low, deviation)
        spread = np.where(np.isfinite(spread) & (spread > 1e-6), spread, 1.0)
        known = tuple(tuple(np.unique(c[~np.isnan(c)]).tolist()) for c in np.asarray(categories).T)
        return cls(np.nan_to_num(centre).astype(np.float32), spread.astype(np.float32), known)

    def __call__(self, values: NDArray) -> Floats:
        """Scaled values, clipped (the position is not); what is missing is 0, the median."""
        scaled = (np.asarray(values, np.float32) - self.centre) / self.spread
        position = scaled[..., channels.PLACES].copy()
        np.clip(scaled, -CLIP, CLIP, out=scaled)
        scaled[..., channels.PLACES] = position
        return np.nan_to_num(scaled, copy=False, nan=0.0)

    def codes(self, categories: NDArray) -> Numbers:
        """Class numbers (..., 4): 0 for a value that training did not have, or none."""
        coded = np.zeros(np.shape(categories), np.int64)
        for channel, known in enumerate(self.categories):
            for number, value in enumerate(known, 1):
                coded[..., channel][categories[..., channel] == value] = number
        return coded

    @property
    def cardinalities(self) -> tuple[int, ...]:
        return tuple(len(known) + 1 for known in self.categories)


def centred(machine: Machine) -> Machine:
    """Every recording standardised by itself: position in mm from the middle of its range, the rest as z.

    This needs the whole recording, so it is for files, not for streams.
    """
    values = machine.values.copy()
    for rows in _spans(machine):
        part = values[rows]
        mean, deviation = _nan_moments(part)
        low, high = np.nanmin(part[:, channels.PLACES], axis=0), np.nanmax(part[:, channels.PLACES], axis=0)
        mean[channels.PLACES], deviation[channels.PLACES] = (low + high) / 2, 1.0
        values[rows] = (part - mean) / deviation
    return replace(machine, values=values)


def _nan_moments(part: Floats) -> tuple[Floats, Floats]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, deviation = np.nanmean(part, axis=0), np.nanstd(part, axis=0)
    return np.nan_to_num(mean), np.where(deviation > 1e-6, deviation, 1.0)


def _spans(machine: Machine) -> list[slice]:
    """Rows of each recording that has windows."""
    table = machine.windows
    first = (table["row"] - table["start"]).unique()
    ends = [*first[1:], len(machine.values)]
    return [slice(int(a), int(b)) for a, b in zip(first, ends, strict=True)]


def write_npz(path: Path, machine: Machine, *, scaling: Scaling, vocabulary: Vocabulary) -> Path:
    """Write the published layout: continuous (n, 64, 155), categorical (n, 64, 4), tokens (n, 7), operation_type."""
    values, categories = machine.take(machine.windows["row"].to_numpy())
    arrays = {
        "continuous": scaling(values),
        "categorical": scaling.codes(categories),
        "tokens": encode(machine, vocabulary)[:, :LONGEST],
        "operation_type": machine.windows["operation_id"].to_numpy(np.int64),
    }
    with paths.replacing(Path(path)) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return Path(path)


def read_npz(path: Path) -> dict[str, NDArray]:
    """Read the published layout; a file without one of its four arrays, or with other shapes, is refused."""
    shapes = {"continuous": 3, "categorical": 3, "tokens": 2, "operation_type": 1}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in shapes if name in file}
    except (OSError, ValueError, EOFError) as why:
        raise fault(path, expected="an NPZ file of windows", found=str(why)[:100], hint="write it again") from why
    for name, dimensions in shapes.items():
        if name not in arrays:
            raise fault(path, key=name, expected="this array", found="none", hint=f"it needs {', '.join(shapes)}")
        if arrays[name].ndim != dimensions or len(arrays[name]) != len(arrays["continuous"]):
            found = f"shape {arrays[name].shape}"
            raise fault(path, key=name, expected=f"{dimensions} dimensions", found=found, hint="write it again")
    return arrays


def encode(machine: Machine, vocabulary: Vocabulary) -> Numbers:
    """Tokens (n, 8) of the labels of the windows in the published vocabulary, EOS included; all PAD without label."""
    table = np.array([vocabulary.encode(line) for line in machine.lines] + [np.zeros(LONGEST + 1, int)])
    return table[machine.windows["line"].to_numpy()]


def line_numbers(machine: Machine, lines: Sequence[str]) -> Numbers:
    """Number of the label of each window in another list of lines; -1 where that list does not have it."""
    known = {line: number for number, line in enumerate(lines)}
    table = np.array([known.get(line, -1) for line in machine.lines] + [-1])
    return table[machine.windows["line"].to_numpy()]
