"""`smellkit export plume --onnx FILE`: the model as one ONNX file.

co2, ch4 (1, 1, 240, 320) grey from 0 to 255; present (1, 2), 1 where there is a frame --> co2_mask, ch4_mask
(1, 240, 320) of 0 background, 1 tube, 2 gas; probability (1, 3) of Healthy, Transitional, Acidotic
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit import export
from smellkit.plume import GASES
from smellkit.plume.models import Sized, normalise
from smellkit.plume.predict import PlumePredictor

SIZE = (240, 320)  # of the frames that the file takes
INPUTS = (*GASES, "present")
OUTPUTS = (*(f"{gas}_mask" for gas in GASES), "probability")


class Frames(nn.Module):
    """A model that takes grey frames from 0 to 255 and gives masks and probabilities."""

    def __init__(self, model: Sized):
        super().__init__()
        self.model = model

    def forward(self, co2: Tensor, ch4: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        there = present[:, :, None, None, None]
        frames = {"co2": normalise(co2 / 255) * there[:, 0], "ch4": normalise(ch4 / 255) * there[:, 1]}
        outputs = self.model(frames | {"present": present})
        masks = [outputs[f"{gas}_logits"].argmax(dim=1) for gas in GASES]
        return (*masks, outputs["class_logits"].softmax(dim=1))


def plume(weights: Path, *, out: Path) -> str:
    """Write the model in the folder `weights` as ONNX to `out`, checked on pairs with and without a missing gas."""
    random = np.random.default_rng(0)
    examples = [example(random, present=present) for present in ((1, 1), (1, 0), (0, 1)) * 4]
    module = Frames(PlumePredictor.load(weights).model).eval()
    return export.onnx(module, out, examples=examples, inputs=INPUTS, outputs=OUTPUTS, each="pair")


def example(random: np.random.Generator, *, present: tuple[int, int] = (1, 1)) -> tuple[Tensor, Tensor, Tensor]:
    """Two noisy grey frames with soft bright and dark places, and which of them are there."""
    soft = F.interpolate(torch.as_tensor(random.normal(110, 40, (2, 1, 5, 6))), SIZE, mode="bicubic")
    noisy = (soft + torch.as_tensor(random.normal(0, 3, soft.shape))).clamp(0, 255).round().float()
    return noisy[:1], noisy[1:], torch.tensor([present], dtype=torch.float32)
