"""Pairs of frames as batches: kept as bytes, a missing gas blank and marked, augmented a whole batch at a time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from smellkit.checks import Report
from smellkit.errors import DataError
from smellkit.options import check
from smellkit.plume import GASES
from smellkit.plume import annotations as tables
from smellkit.plume.annotations import Grey, Rule
from smellkit.plume.models import normalise
from smellkit.plume.video import OTHERS, motion, spread
from smellkit.study.plume import splits
from smellkit.study.plume.masks import VALUES, MaskRule
from smellkit.task import Batch, Tensors

SIZE = (120, 160)  # rows, columns
KERNEL = 7  # pixels of a blur
SELECTIONS = ("both", "full", *GASES)


class Pairs(Tensors):
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
        change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        dropout: float = 0.0,
        balance: bool = False,
        videos: float = 0.0,
    ):
        check([gases], SELECTIONS, "There are no gases")
        present = present_in(table)
        if gases in GASES:
            present &= np.array(GASES) == gases
        chosen = present.all(axis=1) if gases == "full" else present.any(axis=1)
        if not chosen.any():
            raise DataError(f"No pair has the gases asked for ({gases})", hint=f"one of {', '.join(SELECTIONS)}")
        self.table, self.frames, self.masks = table, frames, masks
        self.row = torch.as_tensor(np.flatnonzero(chosen))
        super().__init__(row=self.row)
        self.present = torch.as_tensor(present, dtype=torch.float32)
        self.label = torch.tensor(table["class_id"].to_numpy(np.int64))
        self.ph = torch.tensor(table["ph_value"].tolist())
        self.augment, self.dropout = change, dropout
        self.videos, self.others = videos, None
        if videos and "video" in table:
            order = table.sort_values("frame_number").index  # of the frames of each video
            self.others = torch.empty(len(table), OTHERS, dtype=torch.long)
            others = spread(table["video"][order].tolist())
            self.others[order] = torch.as_tensor(np.append(order, -1)[others])
        label = self.label[self.row]
        self.weights = 1 / torch.bincount(label).clamp(min=1)[label].double() if balance else None

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        row = self.row[torch.as_tensor(indices)]
        present = hide(self.present[row], probability=self.dropout) if self.dropout else self.present[row]
        frames, masks, there = self.frames[row], self.masks[row].long(), present  # (B, 2, H, W), (B, 2)
        if self.others is not None:  # the others of the video come after the frame itself, gas by gas
            rows = self.others[row]
            seen = (rows >= 0) & (torch.rand(len(row), 1) < self.videos)
            frames = torch.cat([frames, self.frames[rows].flatten(1, 2)], dim=1)
            there = torch.cat([present, (self.present[rows] * seen[:, :, None] * present[:, None]).flatten(1)], dim=1)
        frames = frames.float() / 255
        if self.augment:
            frames, masks = self.augment(frames, masks)
        frames = normalise(frames) * there[:, :, None, None]
        masks = masks * present[:, :, None, None].long()
        batch = {gas: frames[:, place, None] for place, gas in enumerate(GASES)}
        if self.others is not None:
            others = frames[:, len(GASES) :].unflatten(1, (OTHERS, len(GASES))).unbind(2)
            batch |= {f"{gas}_motion": motion(batch[gas], x) for gas, x in zip(GASES, others, strict=True)}
        batch |= {f"{gas}_mask": masks[:, place] for place, gas in enumerate(GASES)}
        return batch | {"present": present, "label": self.label[row], "ph": self.ph[row], "index": row}


def paired(
    folder: str | Path = "", split: str = "train", *, size: tuple[int, int] = SIZE, pairing: str = "", **shown: Any
) -> Pairs:
    """Return the pairs of a split at `size` (rows, columns), as filed, or the same frames paired anew (PAIRINGS).

    `shown` are keywords of `Pairs`. `gases`: "both" is every pair as it is, "full" only those with both gases, "co2" or
    "ch4" those that have this gas, and the other one hidden.
    """
    folder = tables.find(folder)
    files = [*sorted(folder.glob("*_annotations.csv")), *folder.glob(VALUES)]
    state = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return Pairs(*_load(str(folder), split, tuple(size), pairing, state=state), **shown)


@lru_cache(maxsize=4)
def _load(
    folder: str, split: str, size: tuple[int, int], pairing: str, *, state: tuple
) -> tuple[pd.DataFrame, Tensor, Tensor]:
    """`read`, once for every `state` (names, times and sizes) of the annotation files."""
    table, frames, masks = read(folder, split, size=size, pairing=pairing)
    return table, torch.as_tensor(frames), torch.as_tensor(masks)


def read(
    folder: str | Path, split: str, *, size: tuple[int, int] = SIZE, pairing: str = "", report: Report | None = None
) -> tuple[pd.DataFrame, Grey, Grey]:
    """Return the table of a split's pairs, its frames and its masks (pairs, 2, rows, columns), 0 where missing."""
    folder = tables.find(folder)
    if pairing:
        table = splits.pair(splits.read_to_pair(folder, split, report=report), pairing)
    else:
        table = tables.read_pairs(folder, split, report=report)
    frames = np.zeros((len(table), len(GASES), *size), np.uint8)
    masks = np.zeros_like(frames)
    rule, classes = Rule.of(folder, report=report), MaskRule.of(folder)
    for place, gas in enumerate(GASES):
        for row, names in enumerate(zip(table[f"{gas}_frame"], table[f"{gas}_mask"], strict=True)):
            if names[0]:
                path, mask = (tables.located(folder, name) for name in names)
                frame = rule.read_frame(path, report=report)
                values = classes.read(mask, frame=(path, frame), report=report)
                frames[row, place] = resized(frame, size, Image.Resampling.BILINEAR)
                masks[row, place] = resized(values, size, Image.Resampling.NEAREST)
    return table, frames, classes.classes(masks)


def resized(pixels: Grey, size: tuple[int, int], how: Image.Resampling) -> Grey:
    """A picture at `size` (rows, columns)."""
    return pixels if pixels.shape == size else np.asarray(Image.fromarray(pixels).resize(size[::-1], how))


def hide(present: Tensor, *, probability: float) -> Tensor:
    """Modality dropout: in rows with both gases, with `probability`, one of the two (each as often) becomes missing."""
    drawn = (torch.rand(len(present)) < probability) & (present.sum(dim=1) == 2)
    gone = F.one_hot(torch.randint(0, 2, (len(present),)), 2) * drawn[:, None]
    return present * (1 - gone)


def four_to_three(height: int) -> tuple[int, int]:
    """Rows and columns of a frame of `height` rows."""
    return height, round(height * 4 / 3)


def present_in(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which frames there are, (pairs, 2)."""
    return np.stack([table["missing_modality"] != gas for gas in GASES], axis=1)


@dataclass(frozen=True)
class Augment:
    """Probabilities and sizes as FUME describes them: `frames, masks = Augment()(frames, masks)`.

    Frames (B, gases, H, W) from 0 to 1, masks of the same shape and whole numbers. Drawn from torch's generator.
    """

    flip: float = 0.5
    affine: float = 0.5  # shift, scale and rotation together
    shift: float = 0.1  # of the frame
    scale: float = 0.15
    rotate: float = 15.0  # degrees
    elastic: float = 0.3
    bend: float = 0.04  # of the frame, deviation of the elastic warp
    spoil: float = 0.3  # one of noise, blur, motion blur
    light: float = 0.5  # brightness and contrast
    brightness: float = 0.2
    contrast: float = 0.2
    gamma: float = 0.3
    gammas: tuple[float, float] = (0.8, 1.2)
    invert: float = 0.0  # not FUME's: negative frames, each gas for itself

    def __call__(self, frames: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        grid = self.grid(frames)
        frames = F.grid_sample(frames, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        moved = F.grid_sample(masks.float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)
        return self.shade(self.smear(frames)), moved.round().to(masks.dtype)

    def grid(self, frames: Tensor) -> Tensor:
        """Where each pixel of the result comes from, (B, H, W, 2) in -1..1."""
        count, _, height, width = frames.shape
        mirror = 1.0 - 2 * _chosen(count, self.flip)
        moves = _chosen(count, self.affine)
        angle = moves * math.radians(self.rotate) * _even(count)
        scale = 1 + moves * self.scale * _even(count)
        shift = 2 * self.shift * moves[:, None] * torch.stack([_even(count), _even(count)], dim=1)
        aspect = width / height
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        rows = [torch.stack([mirror * cos, -sin / aspect, shift[:, 0]], dim=1)]
        rows += [torch.stack([mirror * sin * aspect, cos, shift[:, 1]], dim=1)]
        grid = F.affine_grid(torch.stack(rows, dim=1), [count, 1, height, width], align_corners=False)
        bent = _chosen(count, self.elastic)
        if bent.any():
            coarse = 2 * self.bend * torch.randn(count, 2, 5, 6) * bent[:, None, None, None]
            smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
            grid = grid + smooth.permute(0, 2, 3, 1)
        return grid

    def smear(self, frames: Tensor) -> Tensor:
        """Noise, blur or motion blur in a share of the frames."""
        which = torch.where(_chosen(len(frames), self.spoil) > 0, torch.randint(0, 3, (len(frames),)), 3)
        noise = (which == 0) * torch.empty(len(frames)).uniform_(10, 50).sqrt() / 255
        frames = frames + noise[:, None, None, None] * torch.randn_like(frames)
        rows = torch.nonzero((which == 1) | (which == 2))[:, 0]
        if not len(rows):
            return frames
        kernel = _kernels(which[rows] == 1).repeat_interleave(frames.shape[1], dim=0)[:, None]
        padded = F.pad(frames[rows], [KERNEL // 2] * 4, mode="replicate").flatten(0, 1)[None]
        return frames.index_copy(0, rows, F.conv2d(padded, kernel, groups=len(kernel)).view_as(frames[rows]))

    def shade(self, frames: Tensor) -> Tensor:
        """Brightness, contrast, gamma, and negatives; the result is from 0 to 1."""
        count = len(frames)
        lit = _chosen(count, self.light)
        gain, offset = 1 + lit * self.contrast * _even(count), lit * self.brightness * _even(count)
        frames = (gain[:, None, None, None] * frames + offset[:, None, None, None]).clamp(0, 1)
        power = torch.where(_chosen(count, self.gamma) > 0, torch.empty(count).uniform_(*self.gammas), 1.0)
        frames = frames.clamp(min=1e-6) ** power[:, None, None, None]
        negative = (torch.rand(frames.shape[:2]) < self.invert).float()[:, :, None, None]
        return negative + (1 - 2 * negative) * frames


def _kernels(even: Tensor) -> Tensor:
    """Kernels (n, KERNEL, KERNEL) of a Gaussian blur where `even` (n,), else of motion along a line."""
    axis = torch.arange(KERNEL) - KERNEL // 2
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    radius = torch.empty(len(even), 1, 1).uniform_(0.5, 1.2)
    soft = torch.exp(-0.5 * (down**2 + right**2) / radius**2)
    angle = torch.empty(len(even), 1, 1).uniform_(0, math.pi)
    length = torch.randint(1, KERNEL // 2 + 1, (len(even), 1, 1))
    off = right * torch.sin(angle) - down * torch.cos(angle)
    line = torch.exp(-2 * off**2) * (down.abs().maximum(right.abs()) <= length)
    kernel = torch.where(even[:, None, None], soft, line)
    return kernel / kernel.sum(dim=(1, 2), keepdim=True)


def _chosen(count: int, probability: float) -> Tensor:
    return (torch.rand(count) < probability).float()


def _even(count: int) -> Tensor:
    return torch.empty(count).uniform_(-1, 1)
