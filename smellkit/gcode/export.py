"""The window decoder as one ONNX model: raw sensor rows of a window in, operation and tokens out."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smellkit import export
from smellkit.gcode import predict
from smellkit.gcode.data import LENGTH
from smellkit.gcode.predict import LinePredictor
from smellkit.gcode.recordings import CONTINUOUS

CHECKED = 30  # windows on which ONNX Runtime must say what torch says


class RawWindow(nn.Module):
    """Rows (1, 64, 159), NaN where nothing was -> p(operation) (1, 9), open tokens (1, 8)."""

    def __init__(self, predictor: LinePredictor):
        super().__init__()
        self.model, self.scaling = predictor.model, predictor.scaling
        self.mask = nn.Buffer(torch.as_tensor(predictor.mask))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scaled, codes = self.scaling(rows)
        outputs = self.model.encode(scaled * self.mask, codes)
        return outputs["operation"].softmax(dim=1), self.model.grammar.tokens[outputs["line"].argmax(dim=1)]


def gcode(weights: Path, *, out: Path) -> str:
    """Write the decoder in the folder `weights` as ONNX to `out`; see `export`."""
    predictor, random = predict.load(weights), np.random.default_rng(0)
    examples = [(_example(predictor, random),) for _ in range(CHECKED)]
    whole = RawWindow(predictor).eval()
    return export.onnx(whole, out, examples=examples, inputs=["rows"], outputs=["operation", "tokens"], each="window")


def _example(predictor: LinePredictor, random: np.random.Generator) -> Tensor:
    """A raw window (1, 64, 159) of plausible values, some of them missing."""
    scaling = predictor.scaling
    values = scaling.centre.numpy() + scaling.spread.numpy() * random.normal(0, 1, (LENGTH, len(CONTINUOUS)))
    values[:, random.random(len(CONTINUOUS)) < 0.2] = np.nan
    states = [[random.choice(known or (0.0,)) for known in scaling.categories]] * LENGTH
    return torch.as_tensor(np.hstack([values, states])[None], dtype=torch.float32)
