"""Name what a machine was doing in recorded files, and while it runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smellkit import paths
from smellkit.checks import Report
from smellkit.errors import DataError, OptionError
from smellkit.gcode import channels, data, recordings, shipping
from smellkit.gcode.channels import CATEGORICAL, CONTINUOUS
from smellkit.gcode.data import LENGTH, STRIDE
from smellkit.gcode.shipping import Read, Reader

COLUMNS = ("file", "start", "operation", "p", "line", "tokens")
CONTEXTS = ("window", "recording")


def gcode(
    folder: Path, *, weights: Path, out: Path, channels: str = "all", context: str = "recording", skip: bool = False
) -> str:
    """Write one row a window of 64 rows, every 16: file, start (row), operation, p, line, tokens; say what happened.

    `line` has all its digits; `tokens` are those of the published vocabulary, UNK where it has none, without EOS.
    `channels=no-position` hides the machine position. The windows of a recording are judged together, as one run of a
    known program; with `context=window` each by itself, as a stream has to. `skip` leaves out what can't be read.
    """
    if context not in CONTEXTS:
        raise OptionError(f"There is no context {context!r}", hint="window or recording")
    if channels in ("no-position-z", "centred"):
        raise OptionError(f"The weights read raw channels, not {channels!r}", hint="all or no-position")
    reader, report = shipping.unpack(weights).without(channels), Report()
    machine = data.load(folder, labels=False, skip=skip, report=report)
    names = {path.stem.removesuffix("_aligned"): path.name for path in recordings.files(recordings.find(folder))}
    count = 0
    with paths.replacing(Path(out)) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, rows in machine.windows.groupby("recording", sort=True):
            said = reader.read(*machine.take(rows["row"].to_numpy()), context=context)
            for start, one in zip(rows["start"], said, strict=True):
                tokens = " ".join(one.tokens)
                writer.writerow([names[str(name)], start, one.operation, f"{one.p:.4f}", one.line, tokens])
            count += len(said)
    short = sum("shorter than a window" in what for _, what, _ in report.notes)
    left = f"; {len(report.skipped)} files skipped" if report.skipped else ""
    left += f"; {short} recordings shorter than {LENGTH} rows" if short else ""
    return f"{out}: {count} windows of {machine.windows['recording'].nunique()} recordings{left}"


class Stream:
    """Rows in, one `Read` out every 16 rows once 64 have been seen; memory does not grow.

    >>> stream = Stream(shipping.unpack(paths.weights() / "gcode"))
    >>> for row in machine:  # a dict by channel name, or 155 continuous and 4 categorical values
    ...     read = stream.push(row)
    """

    def __init__(self, reader: Reader, *, stride: int = STRIDE):
        self.reader, self.stride = reader, stride
        self._raw = np.full((2, len(CONTINUOUS)), np.nan, np.float32)  # the row before and this one, as they came
        self._values = np.full((LENGTH, len(CONTINUOUS)), np.nan, np.float32)
        self._categories = np.full((LENGTH, len(CATEGORICAL)), np.nan, np.float32)
        self._still = np.zeros(len(channels.NODES) + 1, int)
        self.seen = 0

    def push(self, row: dict[str, float] | Sequence[float]) -> Read | None:
        """Take one row; what is absent or no number is missing. Every `stride` rows, say what the last 64 say."""
        values, categories = _row(row)
        self._raw = np.stack([self._raw[1], values])
        checked = self._raw.copy()
        if self.seen:
            recordings.mark_frozen(checked, still=self._still)
        self._values = np.roll(self._values, -1, axis=0)
        self._categories = np.roll(self._categories, -1, axis=0)
        self._values[-1], self._categories[-1] = checked[1], categories
        self.seen += 1
        if self.seen < LENGTH or (self.seen - LENGTH) % self.stride:
            return None
        return self.reader.read(self._values[None], self._categories[None])[0]


def _row(row: dict[str, float] | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    names = (*CONTINUOUS, *CATEGORICAL)
    if isinstance(row, dict):
        row = [row.get(name, np.nan) for name in names]
    if len(row) != len(names):
        raise DataError(f"A row of {len(row)} values", hint=f"{len(CONTINUOUS)} channels and {len(CATEGORICAL)} states")
    try:
        values = np.array([np.nan if value is None else value for value in row], dtype=np.float32)
    except (TypeError, ValueError) as why:
        raise DataError(f"A row holds a cell that is not a number: {why}", hint="leave absent channels out") from why
    values[~np.isfinite(values)] = np.nan
    return values[: len(CONTINUOUS)], values[len(CONTINUOUS) :]
