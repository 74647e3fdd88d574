"""From rows of a recording to the windows that a model sees: the one place for training, batch, live and export.

    recording (rows, channels) -> rows under windows (windows, 125, channels) -> represent -> (windows, steps, channels)

Strict: six gas channels, first row subtracted, difference over 25 rows, windows of 100 every 50 rows. So a window spans
125 rows of the recording. "rebuilt" is the strict input again, put back together: 125 rows made from its 100 rows of
differences and from nothing else (see `integral`). "level-free" shows the same 125 rows less the first of them;
"absolute" shows them as they are, with the session in them. "conductance" turns the four Grove channels into
log-conductance, level and all, and shows the other channels less their first row: what drifts between days is not
looked at, what saturates is. "curve-and-level" shows the level-free rows, and as many channels of conductance beside.

`represent` and what it calls take arrays and tensors alike, so that an exported network holds the same lines of code.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from smellkit.errors import DataError, OptionError
from smellkit.options import check
from smellkit.sensors import FULL, GAS, GROVE
from smellkit.windows import Array, sliding

REPRESENTATIONS = ("fotd", "rebuilt", "level-free", "absolute", "conductance", "curve-and-level")
LEVELS = ("absolute", "conductance", "curve-and-level")  # those that show where a window starts
PER_WINDOW = ("values", "target", "recording", "start", "fold")  # of LabelledWindows, one row a window


@dataclass(frozen=True)
class Protocol:
    """How a recording becomes windows; the defaults are the strict protocol."""

    representation: str = "fotd"
    columns: tuple[str, ...] = GAS
    length: int = 100  # rows of a window, after the difference
    stride: int = 50
    lag: int = 25  # rows of the difference; a level-free window shows length + lag rows

    def __post_init__(self):
        check([self.representation], REPRESENTATIONS, "There is no representation")
        apart = self.representation in ("fotd", "rebuilt")
        for name, least in {"length": 1, "stride": 1, "lag": int(apart)}.items():
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}", hint=f"{least} or more")
        if not self.columns:
            raise OptionError("A protocol without a sensor", hint=f"keep at least one of {', '.join(GAS)}")

    @property
    def span(self) -> int:
        """Rows of the recording under one window."""
        return self.length + self.lag

    @property
    def steps(self) -> int:
        """Rows that a model sees of one window."""
        return self.length if self.representation == "fotd" else self.span

    @property
    def channels(self) -> int:
        """Channels that a model sees."""
        return len(self.columns) * (1 + (self.representation == "curve-and-level"))

    def windows(self, values: NDArray, *, stride: int = 0) -> Array:
        """Windows (windows, steps, channels) of one recording `values` (rows, channels); none when it is too short."""
        return self.represent(sliding(values, length=self.span, stride=stride or self.stride))

    def represent(self, rows: Any) -> Any:
        """Turn rows of a recording (windows, span, channels) into what the model sees (windows, steps, channels)."""
        if self.representation in ("fotd", "rebuilt"):  # the first row cancels in the difference
            strict = rows[:, self.lag :] - rows[:, : -self.lag]
            return strict if self.representation == "fotd" else rebuild(strict, lag=self.lag)
        if self.representation == "absolute":
            return rows
        curves = _in_a_row(rows.swapaxes(1, 2))  # (windows, channels, span): all below is several times as fast
        parts = [curves - curves[..., :1]] if self.representation != "conductance" else []
        parts += [conductance(curves, self.columns)] if self.representation != "level-free" else []
        return _xp(rows).concatenate(parts, 1).swapaxes(1, 2)


def log_conductance(counts: Any, *, offset: float = 0.5, least: float = 0.0) -> Any:
    """Log of a sensor's conductance, up to a constant, from `counts` of a 10-bit converter.

    A sensor of conductance G in series with a load gives counts c with G ~ c / (full - c). Both ends are kept finite by
    an `offset`, half a count here, or by the `least` distance of c from either end.
    """
    xp = _xp(counts)
    inside = xp.clip(counts, least, FULL - least)
    return xp.log((inside + offset) / (FULL + offset - inside))


def conductance(curves: Any, columns: Sequence[str]) -> Any:
    """Hundredths of log-conductance of the Grove channels, and of log(1 + reading) of others less the first of them.

    `curves` is (..., channels, rows).
    """
    parts, start = [], 0
    for grove, names in itertools.groupby(columns, GROVE.__contains__):
        part = curves[..., start : (start := start + len([*names])), :]
        logs = log_conductance(part) if grove else _xp(part).log1p(_xp(part).clip(part, 0, None))
        parts.append(logs if grove else logs - logs[..., :1])
    return 100 * _xp(curves).concatenate(parts, -2)


def _xp(values: Any) -> Any:
    return torch if isinstance(values, torch.Tensor) else np


def _in_a_row(values: Any) -> Any:
    return values.contiguous() if isinstance(values, torch.Tensor) else np.ascontiguousarray(values)


def rebuild(differences: Any, *, lag: int) -> Any:
    """Rows less the first of them (windows, rows + lag, channels), from `differences` over `lag` rows alone."""
    back = integral(differences.shape[1], lag)
    if isinstance(differences, torch.Tensor):
        return (differences.transpose(1, 2) @ torch.from_numpy(back).to(differences).T).transpose(1, 2)
    return np.ascontiguousarray(np.einsum("st,btc->bsc", back, differences, optimize=True), np.float32)


@functools.cache
def integral(rows: int, lag: int) -> Array:
    """The map (rows + lag, rows) from differences over `lag` rows back to the curve that they came from.

    Differences fix a curve up to its level and a pattern that repeats every `lag` rows. Sensors are slow, so of all
    curves with exactly these differences it takes the one with the least squared change from row to row.
    """
    span = rows + lag
    sums = np.zeros((span, rows))
    for row in range(lag, span):  # a curve that starts with `lag` zeros
        sums[row] = sums[row - lag]
        sums[row, row - lag] += 1
    pattern = np.eye(lag)[np.arange(span) % lag]
    change = np.diff(np.eye(span), axis=0)
    back = sums - pattern @ np.linalg.lstsq(change @ pattern, change @ sums, rcond=None)[0]
    return (back - back[:1]).astype(np.float32)


@dataclass(frozen=True)
class LabelledWindows:
    """Windows of many recordings, and where each comes from."""

    values: Array  # (windows, steps, channels)
    target: NDArray[np.int64]  # (windows,), number of the substance in `classes`
    recording: NDArray[np.int64]  # (windows,), number of the recording
    start: NDArray[np.int64]  # (windows,), its first row in the recording
    fold: NDArray[np.int64]  # (windows,), number of the recording among those of its substance
    classes: tuple[str, ...]
    short: tuple[str, ...] = field(default=())  # files too short for one window: left out

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: NDArray) -> LabelledWindows:
        """The windows that a mask or row numbers choose."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in PER_WINDOW})

    def every(self, stride: int) -> LabelledWindows:
        """The windows that start at a multiple of `stride` rows."""
        return self[self.start % stride == 0]


def cut(table: pd.DataFrame, protocol: Protocol, *, stride: int = 0, classes: Sequence[str] = ()) -> LabelledWindows:
    """Cut the recordings of a tidy `table` into windows every `stride` rows (the protocol's by default).

    `classes` are the substances in order, those of the table by default; others are left out. A recording too short for
    one window is left out and named in `short`. DataError when nothing is left.
    """
    names, stride = tuple(classes) or tuple(sorted(table["substance"].unique())), stride or protocol.stride
    parts: list[tuple] = []
    short: list[str] = []
    seen: dict[str, dict[str, int]] = {name: {} for name in names}  # recordings of each
    for number, (file, rows) in enumerate(table.groupby("file", sort=True)):
        if (substance := rows["substance"].iloc[0]) not in seen:
            continue
        values, starts = _cut_one(rows, protocol, stride)
        if not len(values):
            short.append(str(file))
            continue
        recording = rows["recording"].iloc[0] if "recording" in rows else file  # several sensors may share one
        fold = seen[substance].setdefault(str(recording), len(seen[substance]))
        whole = np.ones(len(values), np.int64)
        parts.append((values, names.index(substance) * whole, number * whole, starts, fold * whole))
    if not parts:
        what = f"the {len(short)} recordings are shorter than {protocol.span} rows" if short else "no known substance"
        raise DataError(f"No window: {what}", hint="record longer, or use a smaller length or lag")
    columns = {name: np.concatenate(part) for name, part in zip(PER_WINDOW, zip(*parts, strict=True), strict=True)}
    return LabelledWindows(**columns, classes=names, short=tuple(short))


def _cut_one(rows: pd.DataFrame, protocol: Protocol, stride: int) -> tuple[Array, NDArray[np.int64]]:
    """Windows of one recording and where they start in it; none lies across a jump of `step`, which is a gap."""
    values = rows[list(protocol.columns)].to_numpy(np.float32)
    edges = np.flatnonzero(np.diff(rows["step"]) != 1) + 1 if "step" in rows else np.zeros(0, int)
    windows = [protocol.windows(part, stride=stride) for part in np.split(values, edges)]
    firsts = [0, *edges.tolist()]
    starts = [first + stride * np.arange(len(part)) for first, part in zip(firsts, windows, strict=True)]
    return np.concatenate(windows), np.concatenate(starts)
