"""Augmentation on whole batches: the same draw moves both gases and both masks; and test-time augmentation.

All of it is one warp (flip, shift, scale, rotation, elastic) and one small kernel (blur, motion) a sample, on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from smellkit.plume import GASES
from smellkit.task import Batch

KERNEL = 7  # pixels


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
    invert: float = 0.0  # not FUME's: negative frames, for gas that is colder than the wall

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
        negative = _chosen(count, self.invert)[:, None, None, None]
        return negative + (1 - 2 * negative) * frames


class View(NamedTuple):
    """One change of a batch, and the way back for maps (B, C, H, W): the map, and where it is known (H, W)."""

    name: str
    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], tuple[Tensor, Tensor]]


def views(*, crop: float = 1.05) -> list[View]:
    """The three views that FUME averages: identity, flip, and the centre, enlarged `crop` times."""
    return [
        View("identity", lambda frames: frames, lambda maps: (maps, torch.ones(maps.shape[-2:]))),
        View("flip", lambda frames: frames.flip(-1), lambda maps: (maps.flip(-1), torch.ones(maps.shape[-2:]))),
        View("crop", lambda frames: _zoom(frames, crop)[0], lambda maps: _zoom(maps, 1 / crop)),
    ]


def tta(model: Callable[[Batch], Batch], batch: Batch) -> Batch:
    """Test-time augmentation: the mean over `views`, as log-probabilities under the names of the `*_logits`."""
    totals: dict[str, Tensor] = {}
    known: dict[str, Tensor | float] = {}
    for view in views():
        there = batch["present"][:, :, None, None, None]  # a missing gas stays blank
        changed = batch | {gas: view.apply(batch[gas]) * there[:, place] for place, gas in enumerate(GASES)}
        for name, logits in model(changed).items():
            if not name.endswith("_logits"):
                continue
            probability, weight = logits.softmax(dim=1), torch.tensor(1.0)
            if probability.ndim == 4:
                probability, weight = view.undo(probability)
            totals[name] = totals.get(name, 0) + probability * weight
            known[name] = known.get(name, 0) + weight
    return {name: (total / known[name]).clamp(min=1e-8).log() for name, total in totals.items()}


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


def _zoom(maps: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Enlarge about the centre; below 1 the rim is unknown."""
    theta = torch.tensor([[1 / factor, 0, 0], [0, 1 / factor, 0]], dtype=maps.dtype)
    grid = F.affine_grid(theta[None].expand(len(maps), -1, -1), list(maps.shape), align_corners=False)
    inside = (grid[0].abs() <= 1).all(dim=-1).to(maps.dtype)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False), inside


def _chosen(count: int, probability: float) -> Tensor:
    return (torch.rand(count) < probability).float()


def _even(count: int) -> Tensor:
    return torch.empty(count).uniform_(-1, 1)
