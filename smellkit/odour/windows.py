"""SmellNet's protocol: from recordings to windows of sensor values, with every choice in one place.

Strict: six gas channels, first row subtracted, difference over 25 rows, windows of 100 every 50 rows. So a window spans
125 rows of the recording. "rebuilt" is the strict input again, put back together: 125 rows made from its 100 rows of
differences and from nothing else (see `integral`). "level-free" shows the same 125 rows less the first of them;
"absolute" shows them as they are, with the session in them. "conductance" turns the four Grove channels into
log-conductance, level and all, and shows the other channels less their first row: what drifts between days is not
looked at, what saturates is. Two adapt to the recording that a window is from: "baseline" shows rows less the
recording's first, "normalised" in units of its own deviation about its own mean.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.errors import DataError, OptionError
from smellkit.odour.recordings import GAS
from smellkit.windows import Array, sliding

COLUMNS = ("values", "target", "recording", "start", "fold")  # of Windows, one row a window
REPRESENTATIONS = ("fotd", "rebuilt", "level-free", "absolute", "conductance", "baseline", "normalised")
RECORDING = ("baseline", "normalised")  # those that need more of the recording than the rows of a window
LEVELS = ("absolute", "conductance")  # those that show where a window starts
GROVE = ("NO2", "C2H5OH", "VOC", "CO")  # 10-bit counts over a load resistor; they keep their scale between days
FULL = 1023.0  # counts of a sensor that conducts without resistance
CATEGORIES = {  # SmellNet's 50 substances, ten each, as its authors sort them (analysis/plot_pca_iclr.py)
    "nuts": "almond brazil_nut cashew chestnuts hazelnut peanuts pecans pili_nut pistachios walnuts",
    "spices": "allspice chervil cinnamon cloves cumin ginger mustard nutmeg saffron star_anise",
    "herbs": "angelica chamomile chives coriander dill garlic mint mugwort oregano turnip",
    "fruits": "apple banana kiwi lemon mandarin_orange mango peach pear pineapple strawberry",
    "vegetables": "asparagus avocado broccoli brussel_sprouts cabbage cauliflower potato radish sweet_potato tomato",
}


@dataclass(frozen=True)
class Protocol:
    """How a recording becomes windows; the defaults are the strict protocol."""

    representation: str = "fotd"
    columns: tuple[str, ...] = GAS
    length: int = 100  # rows of a window, after the difference
    stride: int = 50
    lag: int = 25  # rows of the difference; a level-free window shows length + lag rows

    def __post_init__(self):
        if self.representation not in REPRESENTATIONS:
            raise OptionError(f"No representation {self.representation!r}", hint="one of " + ", ".join(REPRESENTATIONS))
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

    def windows(self, values: NDArray, *, stride: int = 0) -> Array:
        """Windows (windows, steps, channels) of one recording `values` (rows, channels); none when it is too short."""
        raw = sliding(self._adapted(values), length=self.span, stride=stride or self.stride)
        return self.represent(raw)

    def _adapted(self, values: NDArray) -> NDArray:
        if self.representation == "baseline":
            return values - values[:1]
        if self.representation == "normalised":  # one count keeps a still sensor still
            return (values - values.mean(0)) / (values.std(0) + 1)
        return values

    def represent(self, raw: NDArray) -> Array:
        """Turn rows of a recording (windows, span, channels) into what the model sees (windows, steps, channels)."""
        if self.representation in ("fotd", "rebuilt"):  # the first row cancels in the difference
            strict = raw[:, self.lag :] - raw[:, : -self.lag]
            return strict if self.representation == "fotd" else rebuild(strict, lag=self.lag)
        if self.representation == "level-free":
            return raw - raw[:, :1]
        return conductance(raw, self.columns) if self.representation == "conductance" else raw


def rebuild(differences: NDArray, *, lag: int) -> Array:
    """Rows less the first of them (windows, rows + lag, channels), from `differences` over `lag` rows alone."""
    back = integral(np.shape(differences)[1], lag)
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


def log_conductance(counts: NDArray, *, half: float = 0.5, clip: float = 0.0) -> Array:
    """Return ln(c / (1023 - c)) of converter counts: the log of a sensor's conductance, up to a constant.

    A sensor of conductance G in series with a load gives counts c with G ~ c / (full - c). Both ends stay finite by
    `half` a count on either side, or by counts that are clipped to `clip` ... full - `clip`.
    """
    counts = np.clip(np.asarray(counts, np.float32), clip, FULL - clip)
    return np.log((counts + half) / (FULL + half - counts))


def conductance(raw: NDArray, columns: Sequence[str]) -> Array:
    """Hundredths of log-conductance of the Grove channels, and of log(1 + reading) of others less their first row.

    `raw` is (..., rows, channels).
    """
    raw = np.asarray(raw, np.float32)
    logs = np.empty_like(raw)
    for channel, name in enumerate(columns):
        x = raw[..., channel]
        if name in GROVE:
            logs[..., channel] = log_conductance(x)
        else:
            other = np.log1p(np.maximum(x, 0))
            logs[..., channel] = other - other[..., :1]
    return 100 * logs


@dataclass(frozen=True)
class Windows:
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

    def __getitem__(self, chosen: NDArray) -> Windows:
        """The windows that a mask or row numbers choose."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in COLUMNS})

    def every(self, stride: int) -> Windows:
        """The windows that start at a multiple of `stride` rows."""
        return self[self.start % stride == 0]


def cut(table: pd.DataFrame, protocol: Protocol, *, stride: int = 0, classes: Sequence[str] = ()) -> Windows:
    """Cut the recordings of a tidy `table` into windows every `stride` rows (the protocol's by default).

    `classes` are the substances in order, those of the table by default; others are left out. A recording too short for
    one window is left out and named in `short`. DataError when nothing is left.
    """
    names = tuple(classes) or tuple(sorted(table["substance"].unique()))
    stride = stride or protocol.stride
    parts: list[tuple] = []
    short, seen = [], dict.fromkeys(names, 0)
    for number, (file, rows) in enumerate(table.groupby("file", sort=True)):
        substance = rows["substance"].iloc[0]
        if substance not in seen:
            continue
        values = protocol.windows(rows[list(protocol.columns)].to_numpy(np.float32), stride=stride)
        fold, seen[substance] = seen[substance], seen[substance] + 1
        if not len(values):
            short.append(str(file))
            continue
        whole = np.ones(len(values), np.int64)
        starts = np.arange(len(values)) * stride
        parts.append((values, names.index(substance) * whole, number * whole, starts, fold * whole))
    if not parts:
        what = f"the {len(short)} recordings are shorter than {protocol.span} rows" if short else "no known substance"
        raise DataError(f"No window: {what}", hint="record longer, or use a smaller length or lag")
    values, target, recording, start, folds = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Windows(values, target, recording, start, folds, names, tuple(short))


def join(first: Windows, second: Windows) -> Windows:
    """Both sets of windows; recordings and folds of the second are numbered on after those of the first."""
    if first.classes != second.classes:
        raise OptionError("Windows of different substances can't be joined")
    second = replace(
        second,
        recording=second.recording + first.recording.max() + 1,
        fold=second.fold + first.fold.max() + 1,
        short=first.short + second.short,
    )
    parts: dict[str, Any] = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in COLUMNS}
    return replace(second, **parts)


def category(substance: str) -> str:
    """Kind of food: nuts, spices, herbs, fruits or vegetables; "other" for a substance that is not in SmellNet."""
    return next((name for name, members in CATEGORIES.items() if substance in members.split()), "other")
