"""`smellkit export odour --onnx FILE`: the encoder as one ONNX file.

    rows (batch, 125, 6), as recorded --- protocol, network, temperature ---> z (batch, 50), probabilities (batch, 50)

The file needs nothing else: differences, scaling and calibration are inside. Class names and columns are its metadata.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smellkit import export
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import Protocol
from smellkit.sensors import FULL

CHECKED = 30  # windows, one at a time


class Recorded(nn.Module):
    """An encoder that takes rows as they were recorded (batch, span, channels) and does all the rest itself."""

    def __init__(self, smell: SubstanceSmell):
        super().__init__()
        self.network = smell.network
        self.protocol = smell.protocol
        self.temperature = smell.confidence.temperature

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network({"window": self.protocol.represent(rows)})
        return outputs["z"], (outputs["logits"] / self.temperature).softmax(1)


def odour(weights: Path, *, out: Path) -> str:
    """Write the encoder in the folder `weights` as ONNX to `out`, for any number of windows at once; see `export`."""
    smell = SubstanceSmell.load(weights)
    facts = {"columns": smell.protocol.columns, "classes": smell.classes, "rate_hz": smell.nose.rate}
    examples = [(example(smell.protocol, windows=7, seed=7),)]  # several at once, too
    examples += [(example(smell.protocol, seed=seed),) for seed in range(CHECKED)]
    shapes = {"rows": {0: torch.export.Dim("batch", min=1, max=4096)}}
    return export.onnx(Recorded(smell).eval(), out, examples=examples, inputs=["rows"], outputs=["z", "probabilities"],
                       each="window", facts=facts, dynamic_shapes=shapes, opset_version=18)  # fmt: skip


def example(protocol: Protocol, *, windows: int = 1, seed: int = 0) -> Tensor:
    """Rows as a sensor board sends them, (windows, span, channels): slow walks in whole counts."""
    random = np.random.default_rng(seed)
    steps = random.normal(0, 2, (windows, protocol.span, len(protocol.columns))).cumsum(1)
    return torch.from_numpy((200 + steps).round().clip(0, FULL).astype(np.float32))
