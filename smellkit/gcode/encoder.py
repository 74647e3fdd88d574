"""The published encoder, MM-DTAE-LSTM, as it is claimed to be; and its memory, computed once and then only read."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit import checkpoint as weights
from smellkit import paths
from smellkit.gcode.channels import CONTINUOUS, OPERATIONS, PLACES
from smellkit.gcode.layers import WAVES, in_waves
from smellkit.gcode.samples import Prepared, Windows
from smellkit.losses import focal
from smellkit.task import Batch

WIDTH = 128


class MachineEncoder(nn.Module):
    """Sensors to memory: two branches, summed, then a BiLSTM.

        continuous (64, 155) -> linear -> norm -> ReLU --+
                                                         +--> BiLSTM x 2 -> memory (64, 128) -> operation (9)
        categorical (64, 4) -> embeddings -> linear -----+                                  -> continuous again
                               -> norm -> ReLU

    In training the continuous input is noisy and the clean one is to be restored (the DTAE part). With `waves` (not as
    claimed) the position, scaled by `spread` mm, is also there as sines and cosines of several wavelengths: at the
    entrance and, since a memory that is trained for the operation blurs it, once more behind the memory (64, 128 + 48).
    """

    spread: Tensor

    def __init__(
        self,
        *,
        cardinalities: Sequence[int],
        spread: Sequence[float] = (1.0, 1.0, 1.0),
        noise: float = 0.1,
        dropout: float = 0.2,
        waves: bool = False,
    ):
        super().__init__()
        self.noise, self.waves = noise, waves
        self.width = WIDTH + 6 * len(WAVES) * waves  # of the memory
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.float32), persistent=False)
        features = len(CONTINUOUS) + 6 * len(WAVES) * waves
        self.continuous = nn.Sequential(nn.Linear(features, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.embeddings = nn.ModuleList(nn.Embedding(n, 4) for n in cardinalities)
        self.categorical = nn.Sequential(nn.Linear(4 * len(cardinalities), WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.pass_through = nn.LSTM(
            WIDTH, WIDTH // 2, num_layers=2, batch_first=True, bidirectional=True, dropout=dropout
        )
        self.operation = nn.Sequential(nn.Dropout(dropout), nn.Linear(WIDTH, len(OPERATIONS)))
        self.restore = nn.Linear(WIDTH, len(CONTINUOUS))

    def forward(self, batch: Batch) -> Batch:
        """Outputs `memory` (B, 64, width), `operation` (B, 9), `restored` (B, 64, 155)."""
        x = batch["continuous"]
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        behind = in_waves(x[..., PLACES], self.spread) if self.waves else x[..., :0]
        x = torch.cat([x, behind], dim=-1)
        embedded = [table(batch["categorical"][..., place]) for place, table in enumerate(self.embeddings)]
        x = self.continuous(x) + self.categorical(torch.cat(embedded, dim=-1))
        memory = self.pass_through(x)[0]
        return {
            "memory": torch.cat([memory, behind], dim=-1),
            "operation": self.operation(memory.mean(dim=1)),
            "restored": self.restore(memory),
        }


def encoder_loss(outputs: Batch, batch: Batch, *, reconstruction: float) -> Tensor:
    """Cross-entropy of the operation plus `reconstruction` times the squared error of the restored input."""
    loss = focal(outputs["operation"], batch["operation"], smoothing=0.1)
    if reconstruction:
        loss = loss + reconstruction * F.mse_loss(outputs["restored"], batch["continuous"])
    return loss


@torch.no_grad()
def remember(model: MachineEncoder, windows: Windows, *, key: str) -> dict[str, Tensor]:
    """Memory (n, 64, 128) and operation logits (n, 9) of all `windows`, from data/work when they are there.

    The key is the encoder's own weights and the windows: other weights are another file.
    """
    folder = memory_folder(model, key=key)
    if (folder / weights.FILE).exists():
        return weights.load(folder)[0]
    model.eval()
    found: dict[str, list[Tensor]] = {"memory": [], "operation": []}
    for start in range(0, len(windows), 256):
        outputs = model(windows.__getitems__(range(start, min(start + 256, len(windows)))))
        found["memory"].append(outputs["memory"].half())
        found["operation"].append(outputs["operation"])
    tensors = {name: torch.cat(parts) for name, parts in found.items()}
    weights.save(folder, tensors, {"kind": "gcode-memory", "encoder": weights.fingerprint(model)})
    return tensors


def memory_folder(model: MachineEncoder, *, key: str) -> Path:
    """Where the memory of these weights over these windows lies."""
    name = sha256(f"{weights.fingerprint(model)} {model.width} {key}".encode()).hexdigest()[:24]
    return paths.work() / "gcode-memory" / name


def build(prepared: Prepared, **options) -> MachineEncoder:
    """An encoder whose embeddings fit the categories that training has."""
    return MachineEncoder(cardinalities=prepared.scaling.cardinalities, spread=prepared.spread, **options)
