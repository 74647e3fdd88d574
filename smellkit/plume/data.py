"""Pairs of frames as batches: kept as bytes, a missing gas blank and marked, augmented a whole batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from smellkit.checks import Report
from smellkit.errors import DataError, OptionError
from smellkit.plume import GASES
from smellkit.plume import annotations as tables
from smellkit.plume.pictures import VALUES, Rule, read_frame, read_mask
from smellkit.task import Batch

__all__ = ["Pairs", "paired", "read", "read_frame", "read_mask"]  # pictures are read where pairs are
SIZE = (120, 160)  # rows, columns
Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Pairs(Dataset):
    """Pairs of one split. A batch has `co2`, `ch4`, `co2_mask`, `ch4_mask`, `present`, `label`, `ph` and `index`.

    Frames are (B, 1, H, W) from -1 to 1, and 0 everywhere where the gas is missing; masks are (B, H, W); `present`
    (B, 2) is 1 where a gas was filmed. `dropout` hides one gas of a full pair that often; `change` augments. With
    `balance`, `weights` draws every class equally often.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        frames: Tensor,
        masks: Tensor,
        *,
        gases: str = "both",
        change: Change | None = None,
        dropout: float = 0.0,
        balance: bool = False,
    ):
        if gases == "single":
            table, frames, masks = alone(table, frames, masks)
        present = present_in(table)
        rows = _rows(present, gases)
        if not len(rows):
            raise DataError(f"No pair has the gases asked for ({gases})", hint=f"one of {', '.join(SELECTIONS)}")
        if gases in GASES:
            present = present & (np.array(GASES) == gases)
        self.table, self.frames, self.masks = table, frames, masks
        self.row = torch.as_tensor(rows)
        self.present = torch.as_tensor(present, dtype=torch.float32)
        self.label = torch.tensor(table["class_id"].to_numpy(np.int64))
        self.ph = torch.tensor(table["ph_value"].tolist())
        self.change, self.dropout = change, dropout
        self.weights = inverse_frequency(self.label[self.row]) if balance else None

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: int) -> Batch:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        row = self.row[torch.as_tensor(indices)]
        present = hide(self.present[row], probability=self.dropout) if self.dropout else self.present[row]
        frames, masks = self.frames[row].float() / 255, self.masks[row].long()  # (B, 2, H, W)
        if self.change:
            frames, masks = self.change(frames, masks)
        frames = normalise(frames) * present[:, :, None, None]
        masks = masks * present[:, :, None, None].long()
        batch = {gas: frames[:, place, None] for place, gas in enumerate(GASES)}
        batch |= {f"{gas}_mask": masks[:, place] for place, gas in enumerate(GASES)}
        return batch | {"present": present, "label": self.label[row], "ph": self.ph[row], "index": row}


SELECTIONS = ("both", "full", "single", *GASES)


def paired(
    folder: str | Path = "",
    split: str = "train",
    *,
    size: tuple[int, int] = SIZE,
    pairing: str = "",
    **shown: Any,
) -> Pairs:
    """Return the pairs of a split at `size` (rows, columns), as filed, or the same frames paired anew (PAIRINGS).

    `shown` are keywords of `Pairs`. `gases`: "both" is every pair as it is, "full" only those with both gases, "co2" or
    "ch4" those that have this gas, and the other one hidden; "single" is each frame alone, as a pair whose other gas is
    missing.
    """
    folder = tables.find(folder)
    return Pairs(*_load(str(folder), split, tuple(size), pairing, state=_state(folder)), **shown)


def alone(table: pd.DataFrame, frames: Tensor, masks: Tensor) -> tuple[pd.DataFrame, Tensor, Tensor]:
    """Each frame of these pairs as a pair of its own whose other gas is missing: table, frames and masks of those."""
    row, gas = present_in(table).nonzero()
    single = table.iloc[row].reset_index(drop=True)
    single["is_paired"], single["missing_modality"] = False, np.array(GASES)[1 - gas]
    for name in GASES:
        single.loc[single["missing_modality"] == name, [f"{name}_frame", f"{name}_mask"]] = ""
    single = single.drop_duplicates(["co2_frame", "ch4_frame"])  # of the published files some are in several pairs
    row, gas = row[single.index], gas[single.index]
    there = torch.as_tensor(gas[:, None] == np.arange(len(GASES)))[:, :, None, None]
    return single.reset_index(drop=True), frames[row] * there, masks[row] * there


def hide(present: Tensor, *, probability: float) -> Tensor:
    """Modality dropout: in rows with both gases, with `probability`, one of the two (each as often) becomes missing."""
    drawn = (torch.rand(len(present)) < probability) & (present.sum(dim=1) == 2)
    which = torch.randint(0, 2, (len(present),))
    gone = torch.nn.functional.one_hot(which, 2) * drawn[:, None]
    return present * (1 - gone)


def inverse_frequency(label: Tensor) -> Tensor:
    """Weights (n,) that sum to 1 for each label."""
    return 1 / torch.bincount(label).clamp(min=1)[label].double()


def normalise(frames: Tensor) -> Tensor:
    """From 0..1 to -1..1."""
    return (frames - 0.5) / 0.5


def four_to_three(height: int) -> tuple[int, int]:
    """Rows and columns of a frame of `height` rows."""
    return height, round(height * 4 / 3)


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every annotation file: what `_load` knows is old once one of them changes."""
    listed = [*sorted(folder.glob("*_annotations.csv")), *folder.glob(VALUES)]
    files = [(file.name, file.stat()) for file in listed]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in files)


@lru_cache(maxsize=4)
def _load(
    folder: str, split: str, size: tuple[int, int], pairing: str, *, state: tuple
) -> tuple[pd.DataFrame, Tensor, Tensor]:
    table, frames, masks = read(folder, split, size=size, pairing=pairing)
    return table, torch.as_tensor(frames), torch.as_tensor(masks)


def read(
    folder: str | Path,
    split: str,
    *,
    size: tuple[int, int] = SIZE,
    pairing: str = "",
    report: Report | None = None,
) -> tuple[pd.DataFrame, NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the table of a split's pairs, its frames and its masks (pairs, 2, rows, columns), 0 where missing."""
    folder = tables.find(folder)
    if pairing:
        table = tables.pair(tables.read_to_pair(folder, split, report=report), pairing)
    else:
        table = tables.read_pairs(folder, split, report=report)
    frames = np.zeros((len(table), len(GASES), *size), np.uint8)
    masks = np.zeros_like(frames)
    rule = Rule.of(folder, report=report)
    for place, gas in enumerate(GASES):
        for row, (frame, mask) in enumerate(zip(table[f"{gas}_frame"], table[f"{gas}_mask"], strict=True)):
            if frame:
                files = tables.located(folder, frame), tables.located(folder, mask)
                frames[row, place], masks[row, place] = rule.read_both(*files, size=size, report=report)
    return table, frames, rule.classes(masks)


def check(folder: str | Path = "") -> Report:
    """Read every annotation, frame, mask and pair in a folder; what is wrong is in the report's `skipped`.

    Its remarks say which grey levels the frames use, and the shares of background, tube and gas.
    """
    folder, report = tables.find(folder), Report()
    couples: list[tuple[str, str]] = []
    for paired in (False, True):
        for split in tables.splits_in(folder, paired=paired):
            try:
                table = (tables.read_pairs if paired else tables.read)(folder, split, report=report)
            except DataError as why:
                report.skip(tables.annotation_file(folder, split, paired=paired), why)
                continue
            report.files += not paired  # `read_pairs` counts its own
            names = [f"{gas}_{{}}" for gas in GASES] if paired else ["{}_path"]
            for name in names:
                couples += zip(table[name.format("frame")], table[name.format("mask")], strict=True)
    try:
        rule = Rule.of(folder, report=report)
        report.remarks += rule.survey([couple for couple in dict.fromkeys(couples) if couple[0]], report)
    except DataError as why:
        report.skip(folder, why)
    return report


def present_in(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which frames there are, (pairs, 2)."""
    return np.stack([table["missing_modality"] != gas for gas in GASES], axis=1)


def _rows(present: NDArray[np.bool_], gases: str) -> NDArray[np.int64]:
    if gases not in SELECTIONS:
        raise OptionError(f"There are no gases {gases!r}", hint=f"one of {', '.join(SELECTIONS)}")
    if gases in GASES:
        return np.flatnonzero(present[:, GASES.index(gases)])
    return np.flatnonzero(present.all(axis=1)) if gases == "full" else np.arange(len(present))
