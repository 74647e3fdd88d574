"""Which windows train, which validate, which test; and a split of one folder as tensors to train on.

windows with their operation and line -> train, valid, test -> scaling and grammar from training alone -> batches
"""

import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit import options
from smellkit.errors import DataError, OptionError
from smellkit.gcode import recordings, tokens
from smellkit.gcode.data import LENGTH, Machine, Numbers, Scaling, load, modes
from smellkit.gcode.recordings import CONTINUOUS, POSITION_COLUMNS
from smellkit.gcode.tokens import Grammar
from smellkit.task import Tensors

FOLDS = 5
PROTOCOLS = {
    "S": "windows at random, stratified by operation, 70/15/15: every test window overlaps a training window (leaky)",
    "G": "5 folds of whole recordings; repeats and rows without sensors left out",
    "X": "trained on the six nominal operations, tested on the damaged tool: another session",
}


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
        return _at_random(table, seed=seed)
    options.check([protocol], [*PROTOCOLS, "all"], "There is no protocol")
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
    if not test.any() or not held.any():
        part = "choose an epoch" if test.any() else "test"
        hint = "it needs several recordings of each operation"
        raise DataError(f"Protocol {protocol} finds nothing to {part} on", hint=hint)
    return Split(*(np.flatnonzero(mask) for mask in (rest & ~held, held, test)))


def impossible(data: str, protocols: Iterable[str], **how: int) -> dict[str, str]:
    """Protocols that the recordings of `data` are too few for, each with what it lacks; `how` are keywords of `split`.

    DataError where there are no recordings at all.
    """
    table, absent = load(data).labelled().windows, {}
    for name in protocols:
        try:
            split(table, name, **how)
        except DataError as why:
            absent[name] = f"{why.what} in {data}."
    return absent


def repeats(table: pd.DataFrame) -> pd.Series:
    """Whether a window comes from a recording that repeats the status of another: its group is not its own name."""
    return table["recording"] != table["group"]


def _at_random(table: pd.DataFrame, *, seed: int) -> Split:
    random, pieces = np.random.default_rng(seed), []
    for rows in table.groupby("operation").indices.values():
        order = random.permutation(rows)
        pieces.append(np.split(order, [round(0.70 * len(order)), round(0.85 * len(order))]))
    return Split(*(np.sort(np.concatenate(part)) for part in zip(*pieces, strict=True)))


def _folds(table: pd.DataFrame) -> dict[str, int]:
    """Group -> fold, dealt out in turn within each operation, in an order that only the names decide."""
    operations = table.groupby("operation")["group"]
    every = [sorted(own.unique(), key=lambda group: (zlib.crc32(group.encode()), group)) for _, own in operations]
    return {group: (n + turn) % FOLDS for n, groups in enumerate(every) for turn, group in enumerate(groups)}


def _tenth(table: pd.DataFrame, *, seed: int) -> set[str]:
    """About a tenth of the groups of each operation, at least one where there are three or more."""
    random, every = np.random.default_rng(seed), table.groupby("operation")["group"].unique().map(sorted)
    drawn = (random.choice(g, max(1, round(len(g) / 10)), replace=False) for g in every if len(g) >= 3)
    return {str(group) for groups in drawn for group in groups}


def centred(machine: Machine) -> Machine:
    """Every recording standardised by itself: position in mm from the middle of its range, the rest as z.

    This needs the whole recording, so it is for files, not for streams.
    """
    values = machine.values.copy()
    first = (machine.windows["row"] - machine.windows["start"]).unique()
    for begin, end in zip(first, [*first[1:], len(values)], strict=True):
        part = values[begin:end, : len(CONTINUOUS)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is absent in the whole recording
            mean, deviation = np.nan_to_num(np.nanmean(part, axis=0)), np.nanstd(part, axis=0)
        deviation = np.where(deviation > 1e-6, deviation, 1.0)
        position = part[:, POSITION_COLUMNS]
        mean[POSITION_COLUMNS] = (np.nanmin(position, axis=0) + np.nanmax(position, axis=0)) / 2
        deviation[POSITION_COLUMNS] = 1.0
        part[:] = (part - mean) / deviation
    return replace(machine, values=values)


def fit_scaling(rows: NDArray) -> Scaling:
    """Measure on training rows (rows, 159); a channel without spread or values keeps the scale 1."""
    values, states = np.split(rows, [len(CONTINUOUS)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is absent everywhere
        low, centre, high = np.nanquantile(values, [0.25, 0.5, 0.75], axis=0)
        spread = np.where(high - low > 1e-6, high - low, np.nanstd(values, axis=0))
    spread = np.where(np.isfinite(spread) & (spread > 1e-6), spread, 1.0)
    known = [np.unique(c[~np.isnan(c)]).tolist() for c in states.T]
    middle = torch.as_tensor(np.nan_to_num(centre), dtype=torch.float32)
    return Scaling(middle, torch.as_tensor(spread, dtype=torch.float32), known)


@dataclass(frozen=True)
class Prepared:
    """A split of one folder, ready to train: scaling and grammar from its training part alone."""

    machine: Machine
    parts: Split
    scaling: Scaling
    grammar: Grammar
    mask: NDArray[np.bool_]  # (155,) channels in use
    values: Tensor  # (rows, 155) scaled
    codes: Tensor  # (rows, 4)
    numbers: Numbers  # (lines + 1,) in the grammar, of each of the machine's lines and of none; -1 where it has none
    target: Numbers  # (windows, 8) published tokens

    @property
    def texts(self) -> NDArray[np.str_]:
        """The line of each window as text, (windows,)."""
        return np.array(self.machine.lines)[self.machine.windows["line"]]

    def paths(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (M, 64, 3), mm, and lines (M,) of windows that begin at every row, and whether none trains there.

        Of a recording that trains in part alone (protocol S) only the windows that train: others would hold the test.
        """
        table, train = self.machine.windows, self.machine.windows.iloc[self.parts.train]
        counts = train["recording"].value_counts()
        whole = counts == table["recording"].value_counts()[counts.index]
        starts = [
            np.arange(rows.min(), rows.max() + 1) if whole[name] else rows.to_numpy()
            for (name, _), rows in train.groupby(["recording", "part"])["row"]
        ]
        row = np.concatenate(starts)
        line = self.numbers[modes(self.machine.row_lines.astype(np.int64), starts=row)]
        row, line = row[line >= 0], line[line >= 0]
        index = torch.as_tensor(row)[:, None] + torch.arange(LENGTH)
        positions = self.values[index][..., POSITION_COLUMNS] * torch.tensor(self.scaling.millimetres)
        return positions, torch.as_tensor(line), torch.as_tensor(~np.isin(row, train["row"]))

    def windows(self, part: str, *, mask: NDArray[np.bool_] | None = None) -> Tensors:
        """The windows of "train", "valid" or "test", seen through `mask` (the channels in use by default).

        continuous (n, 64, 155), categorical (n, 64, 4), operation (n,), line (n,) number in the grammar or -1,
        step_line (n, 16) the line at each of the window decoder's steps, the last number being any other line,
        open (n, 8) tokens in the grammar's vocabulary, published (n, 8) tokens in the published one.
        """
        table = self.machine.windows.iloc[getattr(self.parts, part)]
        index = torch.tensor(table["row"].to_numpy(copy=True))[:, None] + torch.arange(LENGTH)
        label = table["line"].to_numpy()
        step_line = np.where(self.numbers < 0, len(self.grammar), self.numbers)[self.machine.row_lines[index[:, ::4]]]
        lines = [self.grammar.vocabulary.numbers(tokens.split(text)) for text in self.machine.lines]
        return Tensors(
            continuous=self.values[index] * torch.as_tensor(self.mask if mask is None else mask),
            categorical=self.codes[index],
            operation=table["operation_id"].to_numpy(copy=True),
            line=self.numbers[label],
            step_line=step_line,
            open=np.array([*lines, np.zeros(tokens.STEPS, int)])[label],
            published=self.target[getattr(self.parts, part)],
        )


def encode(machine: Machine) -> Numbers:
    """Tokens (windows, 8) of the labels in the published vocabulary, EOS included; all PAD without a label."""
    return np.array([*map(tokens.default().encode, machine.lines), np.zeros(tokens.STEPS, int)])[
        machine.windows["line"]
    ]


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
    scaling = fit_scaling(machine.values[rows])
    grammar = Grammar([machine.lines[line] for line in np.unique(train["line"])])
    mask = recordings.channel_mask(config.channels, without=config.without)
    values, codes = scaling(torch.as_tensor(machine.values))
    known = {line: number for number, line in enumerate(grammar.texts)}
    numbers = np.array([known.get(line, -1) for line in machine.lines] + [-1])
    return Prepared(machine, parts, scaling, grammar, mask, values, codes, numbers, encode(machine))
