"""Recordings of the mixture board, 4 gas channels at 10 Hz (SmellNet-Mixture, arXiv 2506.00239), and their windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import cache
from smellkit.checks import Report, readable
from smellkit.errors import DataError
from smellkit.odour.formats import unread
from smellkit.odour.readers import Stretch, read_stretches
from smellkit.odour.scents import ODORANTS
from smellkit.sensors import GROVE, MIXTURE
from smellkit.windows import sliding

MIXTURE_GAS = GROVE  # 10-bit counts of the four Grove v2 sensors
PACE = MIXTURE.pace
LENGTH, STRIDE, STEPS = 100, 50, 600  # a window, the way to the next, and how much of a recording counts, as published
_VERSION = "blends 4"


@dataclass(frozen=True)
class MixtureWindows:
    """Windows of mixture recordings: what the sensors read, what was there, and where it comes from."""

    counts: NDArray[np.float32]  # (windows, 100, 4), 0..1023
    ratios: NDArray[np.float32]  # (windows, 12), in the order of ODORANTS; NaN when unknown, 0 when absent
    recording: NDArray[np.int64]  # (windows,), row of `index`
    start: NDArray[np.int64]  # (windows,), first step
    index: pd.DataFrame  # one row a recording

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: NDArray) -> MixtureWindows:
        """The windows at `rows`, numbers or a mask; the index stays whole."""
        return MixtureWindows(
            self.counts[rows], self.ratios[rows], self.recording[rows], self.start[rows], index=self.index
        )

    def of(self, recordings: NDArray) -> MixtureWindows:
        """The windows of the recordings where `recordings` (a mask over `index`) is true."""
        return self[np.asarray(recordings)[self.recording]]

    def column(self, name: str) -> NDArray:
        """A column of `index` for every window."""
        return self.index[name].to_numpy()[self.recording]


def cut(values: NDArray | Sequence[NDArray], index: pd.DataFrame) -> MixtureWindows:
    """Cut recordings, (steps, 4) each, into windows; only the first 600 steps count."""
    parts = [sliding(value[:STEPS], length=LENGTH, stride=STRIDE) for value in values]
    counts = [len(part) for part in parts]
    if not sum(counts):
        raise DataError(f"No recording has a whole window of {LENGTH} steps", hint="at least 10 s at 10 Hz are needed")
    recording = np.repeat(np.arange(len(parts)), counts)
    start = np.concatenate([STRIDE * np.arange(count) for count in counts])
    ratios = index.reindex(columns=list(ODORANTS)).to_numpy(np.float32)[recording]
    return MixtureWindows(np.concatenate(parts), ratios, recording, start, index)


def read_mixture_files(
    files: Sequence[Path],
    *,
    root: Path,
    label: Callable[[str], object] | None = None,
    skip: bool = False,
    report: Report | None = None,
) -> tuple[list[NDArray[np.float32]], pd.DataFrame]:
    """Return the first 600 rows (steps, 4) of each file at 10 Hz, and an index with one row a file.

    The index has `file` (relative to `root`), how many `rows` were there, the `first` row in the file, and how many
    rows of the file are `every` row read, 1 unless it had to be resampled. Of a file whose clock shows a gap the first
    stretch that holds a window is used. What `label` refuses of a name is a fault of the file, too. With `skip`, a file
    with a fault is reported and left out.
    """
    names = cache.named(files, root=root)
    name_of = {path: name for name, path in names.items()}

    def read(file: Path, notes: Report) -> pd.DataFrame:
        if label:
            label(str(file))
        values, row = read_mixture(file, report=notes)
        table = pd.DataFrame(values[:STEPS], columns=list(MIXTURE_GAS))
        return table.assign(rows=len(values), first=row[0], every=(row[-1] - row[0]) / max(1, len(row) - 1))

    def build(notes: Report) -> pd.DataFrame:
        readings = readable(names.values(), lambda file: read(file, notes), skip=skip, report=notes)
        tables = [table.assign(file=name_of[file], number=n) for n, (file, table) in enumerate(readings)]
        if not tables:
            raise unread(root, notes)
        return pd.concat(tables, ignore_index=True)

    options = f"{_VERSION} labelled={label is not None} skip={skip}"
    table = cache.table("mixtures", build, files=cache.digests(names), options=options, report=report)
    ends = np.cumsum(np.bincount(table["number"]))
    index = table[["file", "rows", "first", "every"]].iloc[ends - 1].reset_index(drop=True)
    return np.split(table[list(MIXTURE_GAS)].to_numpy(), ends[:-1]), index


def read_mixture(path: Path, *, report: Report | None = None) -> Stretch:
    """Return one file of the mixture board at 10 Hz: the first stretch without a gap that holds a window."""
    report = report if report is not None else Report()
    parts = read_stretches(path, MIXTURE, columns=MIXTURE_GAS, report=report)
    chosen = next((part for part in parts if len(part.row) >= LENGTH), parts[0])
    if len(parts) > 1:
        left = sum(len(part.row) for part in parts) - len(chosen.row)
        report.tell(path, "rows before or after a gap left out", left)
    return chosen
