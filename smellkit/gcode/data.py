"""Windows of a milling machine: 64 rows (16.5 s) every 16, cut, split under a protocol, scaled, as tensors to train on.

recordings -> windows with their operation and line -> train, valid, test -> scaling from training alone -> batches
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smellkit import cache, windows
from smellkit.checks import Report
from smellkit.errors import DataError, OptionError
from smellkit.gcode import recordings, tokens
from smellkit.gcode.recordings import CATEGORICAL, CONTINUOUS, OPERATIONS, POSITION_COLUMNS
from smellkit.gcode.tokens import Grammar, Vocabulary
from smellkit.task import Tensors

LENGTH, STRIDE = 64, 16
CLIP = 4.0  # interquartile ranges from the median; the published 3 from the quartiles is about the same
FOLDS = 5
PROTOCOLS = {
    "S": "windows at random, stratified by operation, 70/15/15: every test window overlaps a training window (leaky)",
    "G": "5 folds of whole recordings; repeats and rows without sensors left out",
    "X": "trained on the six nominal operations, tested on the damaged tool: another session",
}
Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Machine:
    """All rows of all recordings, and where the windows begin. Windows are cut when they are asked for."""

    values: Floats  # (rows, 155), NaN where a node is absent or dead
    categories: Floats  # (rows, 4), NaN where absent
    lines: tuple[str, ...]  # the distinct lines of G-code
    windows: pd.DataFrame  # one row a window: recording, operation, group, start (row in the recording), row (in
    #   `values`), line (number in `lines`, -1 for none), operation_id (-1 for an unknown one), has_sensors
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
        return self.chosen((table["line"] >= 0) & (table["operation_id"] >= 0) & table["has_sensors"])

    def chosen(self, mask) -> Machine:
        """Only the windows where `mask` is true."""
        return replace(self, windows=self.windows[np.asarray(mask)].reset_index(drop=True))

    def encode(self, vocabulary: Vocabulary) -> Numbers:
        """Tokens (n, 8) of the windows' labels in the published vocabulary, EOS included; all PAD without a label."""
        table = np.array([*map(vocabulary.encode, self.lines), np.zeros(tokens.STEPS, int)])
        return table[self.windows["line"].to_numpy()]

    def line_numbers(self, lines: Sequence[str]) -> Numbers:
        """Number of each of our lines, and of no line, in another list of lines, (lines + 1,); -1 where it has none."""
        known = {line: number for number, line in enumerate(lines)}
        return np.array([known.get(line, -1) for line in self.lines] + [-1])


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

    def build(notes: Report) -> pd.DataFrame:
        return recordings.read(folder, labels=labels, skip=skip, report=notes)

    digests = cache.digests({path.name: path for path in recordings.files(folder)})
    options = f"{recordings.VERSION} labels={labels} skip={skip}"
    return cut(cache.table("gcode", build, files=digests, options=options, report=report), stride=stride, report=report)


def cut(table: pd.DataFrame, *, stride: int = STRIDE, report: Report | None = None) -> Machine:
    """The rows of `recordings.read` as a `Machine`."""
    report = report if report is not None else Report()
    values = table[list(CONTINUOUS)].to_numpy(np.float32, copy=True)
    codes, lines = pd.factorize(table["line"], sort=True)
    names = table["recording"].to_numpy()
    edges = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1], [True]]))
    starts = []
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        starts.append(windows.starts(int(end - first), length=LENGTH, stride=stride))
        if not len(starts[-1]):
            report.note(names[first], f"shorter than a window of {LENGTH} rows", int(end - first))
    start = np.concatenate(starts)
    if not len(start):
        raise DataError(f"No recording is as long as a window ({LENGTH} rows)", hint="record for 17 s or more")
    row = start + np.repeat(edges[:-1], [len(part) for part in starts])
    sensors = ~np.isnan(np.delete(values, POSITION_COLUMNS, axis=1)).all(axis=1)
    frame = table.loc[row, ["recording", "operation", "group"]].reset_index(drop=True)
    frame = frame.assign(start=start, row=row, line=modes(codes, starts=row))
    frame["operation_id"] = [OPERATIONS.index(name) if name in OPERATIONS else -1 for name in frame["operation"]]
    frame["has_sensors"] = sensors[row[:, None] + np.arange(LENGTH)].all(axis=1)
    categories = table[list(CATEGORICAL)].to_numpy(np.float32, copy=True)
    return Machine(values, categories, tuple(lines), frame, codes.astype(np.int32))


def modes(codes: NDArray, *, starts: NDArray, length: int = LENGTH) -> Numbers:
    """The most frequent code of each window, the earliest in time of those that tie; -1 is no code."""
    parts = []
    for block in np.array_split(np.asarray(starts), max(1, len(starts) // 256)):
        window = np.asarray(codes)[block[:, None] + np.arange(length)]
        counts = (window[:, :, None] == window[:, None, :]).sum(axis=2)
        counts[window < 0] = 0
        parts.append(np.take_along_axis(window, counts.argmax(axis=1)[:, None], axis=1)[:, 0])
    return np.concatenate(parts).astype(np.int64)


def centred(machine: Machine) -> Machine:
    """Every recording standardised by itself: position in mm from the middle of its range, the rest as z.

    This needs the whole recording, so it is for files, not for streams.
    """
    values = machine.values.copy()
    first = (machine.windows["row"] - machine.windows["start"]).unique()
    for begin, end in zip(first, [*first[1:], len(values)], strict=True):
        part = values[begin:end]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is absent in the whole recording
            mean, deviation = np.nan_to_num(np.nanmean(part, axis=0)), np.nanstd(part, axis=0)
        deviation = np.where(deviation > 1e-6, deviation, 1.0)
        position = part[:, POSITION_COLUMNS]
        mean[POSITION_COLUMNS] = (np.nanmin(position, axis=0) + np.nanmax(position, axis=0)) / 2
        deviation[POSITION_COLUMNS] = 1.0
        values[begin:end] = (part - mean) / deviation
    return replace(machine, values=values)


class Scaling(nn.Module):
    """Raw rows as the networks see them, in training, for files, in a stream and in ONNX: nothing here is learned.

    values (..., 155), NaN where nothing was -> (x - median) / interquartile range, clipped but for the position,
      0 (the median) for what is missing
    categories (..., 4) -> class numbers, 0 for a value that training did not have
    """

    centre: Tensor
    spread: Tensor
    known: Tensor
    clip: Tensor

    def __init__(self, centre: Tensor, spread: Tensor, categories: Sequence[Sequence[float]]):
        super().__init__()
        self.categories = tuple(tuple(values) for values in categories)  # of each categorical channel, its known values
        known = torch.full((len(self.categories), max(1, *map(len, self.categories))), float("inf"))
        for row, values in enumerate(self.categories):
            known[row, : len(values)] = torch.tensor(values)
        clip = torch.full_like(spread, CLIP)
        clip[POSITION_COLUMNS] = float("inf")
        for name, tensor in {"centre": centre, "spread": spread, "known": known, "clip": clip}.items():
            self.register_buffer(name, tensor)

    @classmethod
    def fit(cls, values: NDArray, categories: NDArray) -> Scaling:
        """Measure on training rows (rows, 155) and (rows, 4); a channel without spread or values keeps the scale 1."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is absent everywhere
            low, centre, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
            deviation = np.nanstd(values, axis=0)
        spread = np.where(high - low > 1e-6, high - low, deviation)
        spread = np.where(np.isfinite(spread) & (spread > 1e-6), spread, 1.0)
        known = [np.unique(c[~np.isnan(c)]).tolist() for c in np.asarray(categories).T]
        as_float = torch.as_tensor(np.nan_to_num(centre), dtype=torch.float32)
        return cls(as_float, torch.as_tensor(spread, dtype=torch.float32), known)

    def forward(self, values: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        scaled = (values - self.centre) / self.spread
        scaled = torch.minimum(torch.maximum(scaled, -self.clip), self.clip)
        scaled = torch.where(torch.isnan(scaled), torch.zeros_like(scaled), scaled)
        number = torch.arange(1, self.known.shape[1] + 1)
        return scaled, ((categories[..., None] == self.known) * number).sum(dim=-1)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Class numbers of each categorical channel, 0 included."""
        return tuple(len(known) + 1 for known in self.categories)

    @property
    def millimetres(self) -> list[float]:
        """Millimetres in one unit of each scaled position."""
        return self.spread[POSITION_COLUMNS].tolist()


class Split(NamedTuple):
    """Numbers of the windows of each part."""

    train: Numbers
    valid: Numbers
    test: Numbers


def split(table: pd.DataFrame, protocol: str = "G", *, fold: int = 0, seed: int = 7) -> Split:
    """Parts of the windows in `table` (`Machine.windows`): S as published (leaky), G grouped folds, X unseen session.

    In G and X the validation part is every tenth group of the training part, so that selection sees no test recording.
    "all", for weights to ship, trains on every other group and validates (and tests) on those.
    """
    if protocol == "S":
        return _split_windows(table, seed=seed)
    if protocol not in (*PROTOCOLS, "all"):
        raise OptionError(f"There is no protocol {protocol!r}", hint="one of S, G, X")
    if fold not in range(FOLDS):
        raise OptionError(f"There is no fold {fold}", hint=f"0 to {FOLDS - 1}")
    honest = ~repeats(table)
    if protocol == "X":
        tested = table["operation"].str.startswith("damage")
    else:
        tested = table["group"].map(_folds(table)) == (fold if protocol == "G" else -1)
    test, rest = honest & tested, honest & ~tested
    held = rest & table["group"].isin(_tenth(table[rest], seed=seed))
    test = held if protocol == "all" else test
    if not test.any() or not rest.any():
        raise DataError(f"Protocol {protocol} finds nothing to test on", hint="it needs recordings of every operation")
    return Split(*(np.flatnonzero(mask) for mask in (rest & ~held, held, test)))


def repeats(table: pd.DataFrame) -> pd.Series:
    """Whether a window comes from a recording that repeats the status of another: its group is not its own name."""
    return table["recording"] != table["group"]


def _split_windows(table: pd.DataFrame, *, seed: int) -> Split:
    random = np.random.default_rng(seed)
    parts: list[list[NDArray]] = [[], [], []]
    for _, rows in table.groupby("operation", sort=True).indices.items():
        order = random.permutation(rows)
        first, second = round(0.70 * len(order)), round(0.85 * len(order))
        for part, piece in zip(parts, np.split(order, [first, second]), strict=True):
            part.append(piece)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def _folds(table: pd.DataFrame) -> dict[str, int]:
    """Group -> fold, dealt out in turn within each operation, in an order that only the names decide."""
    folds: dict[str, int] = {}
    for number, (_, rows) in enumerate(table.groupby("operation", sort=True)):
        groups = sorted(rows["group"].unique(), key=lambda group: (zlib.crc32(group.encode()), group))
        folds |= {group: (position + number) % FOLDS for position, group in enumerate(groups)}
    return folds


def _tenth(table: pd.DataFrame, *, seed: int) -> set[str]:
    """About a tenth of the groups of each operation, at least one where there are three or more."""
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for _, rows in table.groupby("operation", sort=True):
        groups = sorted(rows["group"].unique())
        if len(groups) >= 3:
            chosen |= set(random.choice(groups, max(1, round(len(groups) / 10)), replace=False))
    return chosen


@dataclass(frozen=True)
class Prepared:
    """A split of one folder, ready to train: scaling and grammar from its training part alone."""

    machine: Machine
    parts: Split
    scaling: Scaling
    vocabulary: Vocabulary
    grammar: Grammar
    mask: NDArray[np.bool_]  # (155,) channels in use
    values: Tensor  # (rows, 155) scaled
    codes: Tensor  # (rows, 4)

    def windows(self, part: str, *, mask: NDArray[np.bool_] | None = None) -> Tensors:
        """The windows of "train", "valid" or "test", seen through `mask` (the channels in use by default).

        continuous (n, 64, 155), categorical (n, 64, 4), operation (n,), line (n,) number in the grammar or -1,
        step_line (n, 16) the line at each of the window decoder's steps, the last number being any other line,
        open (n, 8) tokens in the grammar's vocabulary, published (n, 8) tokens in the published one.
        """
        table = self.machine.windows.iloc[getattr(self.parts, part)]
        index = torch.tensor(table["row"].to_numpy(copy=True))[:, None] + torch.arange(LENGTH)
        label = table["line"].to_numpy()
        line = self.machine.line_numbers(self.grammar.texts)
        step_line = np.where(line < 0, len(self.grammar), line)[self.machine.row_lines[index[:, ::4].numpy()]]
        lines = [self.grammar.vocabulary.numbers(tokens.split(text)) for text in self.machine.lines]
        return Tensors(
            continuous=self.values[index] * torch.as_tensor(self.mask if mask is None else mask),
            categorical=self.codes[index],
            operation=table["operation_id"].to_numpy(copy=True),
            line=line[label],
            step_line=step_line,
            open=np.array([*lines, np.zeros(tokens.STEPS, int)])[label],
            published=self.machine.encode(self.vocabulary)[getattr(self.parts, part)],
        )


@dataclass(frozen=True)
class DataConfig:
    """Which windows, split how, seen through which channels: the options that the tasks of this system share."""

    data: str = ""  # folder of recordings; "" is the sample
    protocol: str = "G"  # S, G or X; "all" for weights to ship
    fold: int = 0
    split_seed: int = 7
    channels: str = "all"  # see `recordings.channel_mask`
    without: str = ""  # modalities to leave out, with commas
    thin: int = 1  # keep one training window in so many

    @cached_property
    def prepared(self) -> Prepared:
        """The data, read and split; the last two are kept."""
        return _prepare(DataConfig(**{field.name: getattr(self, field.name) for field in fields(DataConfig)}))

    def load(self) -> dict[str, Tensors]:
        """The three parts as data sets."""
        return {part: self.prepared.windows(part) for part in Split._fields}


@lru_cache(maxsize=2)
def _prepare(config: DataConfig) -> Prepared:
    machine = load(config.data).labelled()
    if config.channels in ("no-position-z", "centred"):
        machine = centred(machine)
    parts = split(machine.windows, config.protocol, fold=config.fold, seed=config.split_seed)
    parts = parts._replace(train=parts.train[:: config.thin])
    train = machine.windows.iloc[parts.train]
    rows = np.unique(train["row"].to_numpy()[:, None] + np.arange(LENGTH))
    scaling = Scaling.fit(machine.values[rows], machine.categories[rows])
    vocabulary = tokens.default()
    grammar = Grammar([machine.lines[line] for line in np.unique(train["line"])], vocabulary)
    mask = recordings.channel_mask(config.channels, without=config.without)
    scaled = scaling(torch.as_tensor(machine.values), torch.as_tensor(machine.categories))
    return Prepared(machine, parts, scaling, vocabulary, grammar, mask, *scaled)
