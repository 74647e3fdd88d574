"""Windows of a milling machine: 64 rows (16.5 s) every 16, cut, labelled and scaled.

recordings -> windows with their operation and line -> values as the networks see them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from smellkit import cache, windows
from smellkit.checks import Report
from smellkit.errors import DataError
from smellkit.gcode import recordings
from smellkit.gcode.recordings import CATEGORICAL, CHANNELS, CONTINUOUS, OPERATIONS, POSITION_COLUMNS

LENGTH, STRIDE = 64, 16
CLIP = 4.0  # interquartile ranges from the median; the published 3 from the quartiles is about the same
Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Machine:
    """All rows of all recordings, and where the windows begin. Windows are cut when they are asked for."""

    values: Floats  # (rows, 159) channels, NaN where a node is absent or dead
    lines: tuple[str, ...]  # the distinct lines of G-code
    windows: pd.DataFrame  # one row a window: recording, operation, group, start (row in the recording), row (in
    #   `values`), line (number in `lines`, -1 for none), operation_id (-1 for an unknown one), has_sensors, file_row
    #   (first row in the file), part (of a recording with gaps)
    row_lines: NDArray[np.int32]  # (rows,) number of the line of each row, -1 for none

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, rows: ArrayLike) -> Floats:
        """The windows (n, 64, 159) that begin at these `rows`."""
        return self.values[np.asarray(rows)[:, None] + np.arange(LENGTH)]

    def labelled(self) -> Machine:
        """Only the windows that have a line, an operation that is known, and sensors all through.

        DataError where no operation is known, which is the beginning of a file's name.
        """
        table = self.windows
        if (table["operation_id"] < 0).all():
            names, known = ", ".join(table["operation"].unique()[:3]), ", ".join(OPERATIONS)
            hint = f"name the files after them: {known} (face_001.parquet)"
            raise DataError(f"No recording is of a known operation (here: {names})", hint=hint)
        return self.chosen((table["line"] >= 0) & (table["operation_id"] >= 0) & table["has_sensors"])

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
    """Recordings of `folder` ("" is the sample) as windows; the rows are kept in the cache by content.

    The label of a window is its most frequent line, the earliest of those that tie. A recording shorter than one window
    is counted.
    """
    folder = recordings.find(folder)
    build = partial(recordings.read, folder, labels=labels, skip=skip)
    digests = cache.digests({path.name: path for path in recordings.files(folder)})
    options = f"{recordings.VERSION} labels={labels} skip={skip}"
    table = cache.table("gcode", lambda notes: build(report=notes), files=digests, options=options, report=report)
    return cut(table, stride=stride, report=report)


def cut(table: pd.DataFrame, *, stride: int = STRIDE, report: Report | None = None) -> Machine:
    """The rows of `recordings.read` as a `Machine`."""
    begins: list[Numbers] = []
    for (name, _), rows in table.groupby(["recording", "part"], sort=False).indices.items():
        begins.append(rows[0] + windows.starts(len(rows), length=LENGTH, stride=stride))
        if report and not len(begins[-1]):
            report.note(name, f"shorter than a window of {LENGTH} rows", len(rows))
    row = np.concatenate(begins)
    if not len(row):
        raise DataError(f"No recording is as long as a window ({LENGTH} rows)", hint="record for 17 s or more")
    values = table[list(CHANNELS)].to_numpy(np.float32, copy=True)
    codes, lines = pd.factorize(table["line"], sort=True)
    sensors = ~np.isnan(np.delete(values[:, : len(CONTINUOUS)], POSITION_COLUMNS, axis=1)).all(axis=1)
    kept = table[["recording", "operation", "group", "part", "row"]].rename(columns={"row": "file_row"})
    number = {name: index for index, name in enumerate(OPERATIONS)}
    frame = kept.iloc[row].reset_index(drop=True).assign(
        start=table.groupby("recording").cumcount().to_numpy()[row],
        row=row,
        line=modes(codes, starts=row),
        operation_id=lambda own: own["operation"].map(number).fillna(-1).astype(int),
        has_sensors=sensors[row[:, None] + np.arange(LENGTH)].all(axis=1),
    )  # fmt: skip
    return Machine(values, tuple(lines), frame, codes.astype(np.int32))


def modes(codes: NDArray, *, starts: NDArray, length: int = LENGTH) -> Numbers:
    """The most frequent code of each window, the earliest in time of those that tie; -1 is no code."""
    best = []
    for start in starts:
        code, first, count = np.unique(codes[start : start + length], return_index=True, return_counts=True)
        best.append(code[np.lexsort([first, -count * (code >= 0)])[0]])
    return np.array(best, np.int64)


class Scaling(nn.Module):
    """Raw rows as the networks see them, in training, for files, in a stream and in ONNX: nothing here is learned.

    rows (..., 159), NaN where nothing was
      -> 155 continuous: (x - median) / interquartile range, clipped but for the position, 0 (the median) if missing
      -> 4 categorical: class numbers, 0 for a value that training did not have
    """

    def __init__(self, centre: Tensor, spread: Tensor, categories: Sequence[Sequence[float]]):
        super().__init__()
        self.categories = tuple(map(tuple, categories))  # of each categorical channel, its known values
        self.cardinalities = tuple(len(known) + 1 for known in self.categories)
        most = max(1, *map(len, self.categories))
        known = [[*values, *[np.inf] * (most - len(values))] for values in self.categories]
        self.known = nn.Buffer(torch.tensor(known, dtype=torch.float32))
        self.centre, self.spread, self.clip = map(nn.Buffer, (centre, spread, torch.full_like(spread, CLIP)))
        self.clip[POSITION_COLUMNS] = float("inf")

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        values, states = rows.split([len(CONTINUOUS), len(CATEGORICAL)], dim=-1)
        scaled = (values - self.centre) / self.spread
        scaled = torch.minimum(torch.maximum(scaled, -self.clip), self.clip)
        scaled = torch.where(torch.isnan(scaled), 0.0, scaled)
        number = torch.arange(1, self.known.shape[1] + 1)
        return scaled, ((states[..., None] == self.known) * number).sum(dim=-1)

    @property
    def millimetres(self) -> list[float]:
        """Millimetres in one unit of each scaled position."""
        return self.spread[POSITION_COLUMNS].tolist()
