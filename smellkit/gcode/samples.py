"""Windows as batches: scaled once, cut on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from smellkit.gcode import channels, data, splits, tokens
from smellkit.gcode.data import LENGTH, Machine, Scaling
from smellkit.gcode.grammar import Grammar
from smellkit.gcode.hmm import Courses
from smellkit.task import Batch


class Windows(Dataset):
    """Windows of one split. A batch has continuous, categorical, operation, line, moment, open and published.

    `moment` are the lines of the reader's 16 steps of a window, as numbers; the last number is any other line.
    """

    def __init__(self, prepared: Prepared, rows: np.ndarray, *, mask: np.ndarray | None = None):
        machine, grammar = prepared.machine, prepared.grammar
        table = machine.windows.iloc[rows]
        self.prepared = prepared
        self.row = torch.tensor(table["row"].to_numpy(np.int64))
        self.operation = torch.tensor(table["operation_id"].to_numpy(np.int64))
        self.label = torch.tensor(table["line"].to_numpy(np.int64))
        mask = prepared.mask if mask is None else mask
        self.mask = torch.as_tensor(mask, dtype=torch.float32) if not mask.all() else None
        numbers = {line: number for number, line in enumerate(grammar.texts)}
        self.line_of = torch.tensor([numbers.get(line, -1) for line in machine.lines] + [-1])
        moment = torch.where(self.line_of < 0, len(grammar), self.line_of)
        self.moment_of = moment[torch.as_tensor(machine.row_lines.astype(np.int64))]  # (rows,)
        opened = [grammar.vocabulary.numbers(tokens.split(line)) for line in machine.lines]
        self.open = torch.as_tensor(np.array([*opened, np.zeros_like(opened[0])]))
        coded = [prepared.vocabulary.encode(line) for line in machine.lines]
        self.published = torch.as_tensor(np.array([*coded, np.zeros_like(coded[0])]))

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: int) -> Batch:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(indices)
        row, label = self.row[chosen], self.label[chosen]
        index = row[:, None] + torch.arange(LENGTH)
        values = self.prepared.values[index]
        return {
            "continuous": values if self.mask is None else values * self.mask,
            "categorical": self.prepared.codes[index],
            "operation": self.operation[chosen],
            "line": self.line_of[label],
            "moment": self.moment_of[index[:, ::4]],
            "open": self.open[label],
            "published": self.published[label],
        }


@dataclass(frozen=True)
class Prepared:
    """A split of one folder, ready to train: scaling and grammar from its training part alone."""

    machine: Machine
    parts: splits.Split
    scaling: Scaling
    vocabulary: tokens.Vocabulary
    grammar: Grammar
    mask: np.ndarray  # (155,) channels in use
    values: Tensor  # (rows, 155) scaled
    codes: Tensor  # (rows, 4)

    def paths(self) -> tuple[Tensor, Tensor]:
        """Where the tool was in each training window, (n, 64, 3) in mm but for the scaling's centre, and its line."""
        table = self.machine.windows.iloc[self.parts.train]
        rows = torch.tensor(table["row"].to_numpy(np.int64))[:, None] + torch.arange(LENGTH)
        numbers = {line: number for number, line in enumerate(self.grammar.texts)}
        line = torch.tensor([numbers[self.machine.lines[number]] for number in table["line"]])
        return self.values[rows][..., channels.PLACES] * torch.tensor(self.spread), line

    def courses(self) -> Courses:
        """The lines and operations of the training recordings, window after window."""
        table = self.machine.windows.iloc[self.parts.train]
        line = data.line_numbers(replace(self.machine, windows=table), self.grammar.texts)
        return Courses.of(table["recording"], table["start"], line, table["operation_id"])

    @property
    def spread(self) -> list[float]:
        """Millimetres in one unit of each scaled position."""
        return self.scaling.spread[channels.PLACES].tolist()


@lru_cache(maxsize=2)
def prepare(
    folder: str,
    *,
    protocol: str,
    fold: int,
    seed: int,
    channel_set: str = "all",
    without: str = "",
    thin: int = 1,
) -> Prepared:
    """Read `folder`, split it (protocol "all": everything but repeats, for weights to ship), scale, list the lines."""
    machine = data.load(folder).labelled()
    if channel_set in ("no-position-z", "centred"):
        machine = data.centred(machine)
    table = machine.windows
    if protocol == "all":
        honest = np.flatnonzero(~splits.repeats(table))
        held = table["group"].isin(splits.picked(table.iloc[honest], seed=seed)).to_numpy()[honest]
        parts = splits.Split(honest[~held], honest[held], honest[held])
    else:
        parts = splits.split(table, protocol, fold=fold, seed=seed)
    parts = parts._replace(train=parts.train[::thin])
    train = table.iloc[parts.train]
    rows = np.unique(train["row"].to_numpy()[:, None] + np.arange(LENGTH))
    scaling = Scaling.fit(machine.values[rows], machine.categories[rows])
    seen = np.unique(train["line"])
    vocabulary = tokens.default()
    grammar = Grammar([machine.lines[line] for line in seen if line >= 0], vocabulary)
    return Prepared(
        machine,
        parts,
        scaling,
        vocabulary,
        grammar,
        channels.keep(channel_set, without=without),
        torch.as_tensor(scaling(machine.values)),
        torch.as_tensor(scaling.codes(machine.categories)),
    )


def windows_of(prepared: Prepared) -> dict[str, Windows]:
    """The splits as data sets."""
    return {
        "train": Windows(prepared, prepared.parts.train),
        "valid": Windows(prepared, prepared.parts.valid),
        "test": Windows(prepared, prepared.parts.test),
    }
