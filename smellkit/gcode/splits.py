"""Three protocols, always reported side by side: S as published (leaky), G grouped folds, X an unseen session."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.errors import DataError, OptionError

PROTOCOLS = {
    "S": "windows at random, stratified by operation, 70/15/15: every test window overlaps a training window (leaky)",
    "G": "5 folds of whole recordings; repeats and rows without sensors left out",
    "X": "trained on the six nominal operations, tested on the damaged tool: another session",
}
FOLDS = 5


class Split(NamedTuple):
    """Numbers of the windows of each part."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]


def split(table: pd.DataFrame, protocol: str = "G", *, fold: int = 0, seed: int = 7) -> Split:
    """Parts of the windows in `table` (`Machine.windows`) under a protocol; `fold` is for G.

    In G and X the validation part is every tenth group of the training part, so that selection sees no test recording.
    """
    if protocol == "S":
        return _windows(table, seed=seed)
    if protocol not in PROTOCOLS:
        raise OptionError(f"There is no protocol {protocol!r}", hint="one of S, G, X")
    honest = ~repeats(table)
    if protocol == "X":
        damaged = table["operation"].str.startswith("damage")
        test, rest = honest & damaged, honest & ~damaged
    else:
        if fold not in range(FOLDS):
            raise OptionError(f"There is no fold {fold}", hint=f"0 to {FOLDS - 1}")
        folds = table["group"].map(_folds(table))
        test, rest = honest & (folds == fold), honest & (folds != fold)
    if not test.any() or not rest.any():
        raise DataError(f"Protocol {protocol} finds nothing to test on", hint="it needs recordings of every operation")
    chosen = picked(table[rest], seed=seed)
    held = rest & table["group"].isin(chosen)
    return Split(*(np.flatnonzero(mask) for mask in (rest & ~held, held, test)))


def repeats(table: pd.DataFrame) -> pd.Series:
    """Whether a window comes from a recording that repeats the status of another: its group is not its own name."""
    return table["recording"] != table["group"]


def _windows(table: pd.DataFrame, *, seed: int) -> Split:
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
        folds |= {group: (place + number) % FOLDS for place, group in enumerate(groups)}
    return folds


def picked(table: pd.DataFrame, *, seed: int) -> set[str]:
    """About a tenth of the groups of each operation, at least one where there are three or more."""
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for _, rows in table.groupby("operation", sort=True):
        groups = sorted(rows["group"].unique())
        if len(groups) >= 3:
            chosen |= set(random.choice(groups, max(1, round(len(groups) / 10)), replace=False))
    return chosen
