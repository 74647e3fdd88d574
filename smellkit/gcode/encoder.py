"""The published encoder, MM-DTAE-LSTM, as it is claimed to be; and its memory, computed once and then only read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit import checkpoint, paths
from smellkit.gcode.recordings import CONTINUOUS, OPERATIONS, POSITION_COLUMNS
from smellkit.losses import focal
from smellkit.task import Batch, Tensors

WIDTH = 128
WAVELENGTHS = tuple(2.0**power for power in range(1, 9))  # mm: from 2 to 256, the width of the bed
FOURIER = 3 * 2 * len(WAVELENGTHS)  # 48: sine and cosine of three axes


def fourier_features(position: Tensor, millimetres: Tensor) -> Tensor:
    """Sine and cosine of a scaled position (..., 3) at every wavelength, (..., 48); zeros where it is hidden.

    `millimetres` (3,) are those in one unit of it. A network reads 0.1 mm from these, but not from one large number.
    """
    known = (position != 0).any(dim=-1, keepdim=True)
    wavelengths = torch.tensor(WAVELENGTHS, dtype=position.dtype, device=position.device)
    phase = (position * millimetres)[..., None] * (2 * math.pi / wavelengths)  # (..., 3, 8)
    return torch.cat([phase.sin().flatten(-2), phase.cos().flatten(-2)], dim=-1) * known


class MachineEncoder(nn.Module):
    """Sensors to memory: two branches, summed, then a BiLSTM.

        continuous (64, 155) -> linear -> norm -> ReLU --+
                                                         +--> BiLSTM x 2 -> memory (64, 128) -> operation (9)
        categorical (64, 4) -> embeddings -> linear -----+                                  -> continuous again
                               -> norm -> ReLU

    In training the continuous input is noisy and the clean one is to be restored (the DTAE part). With `fourier` (not
    as claimed) the position is also there as sines and cosines of several wavelengths: at the entrance and, since a
    memory that is trained for the operation blurs it, once more behind the memory (64, 128 + 48).
    """

    millimetres: Tensor

    def __init__(
        self,
        *,
        cardinalities: Sequence[int],
        millimetres: Sequence[float] = (1.0, 1.0, 1.0),
        noise: float = 0.1,
        dropout: float = 0.2,
        fourier: bool = False,
    ):
        super().__init__()
        self.noise, self.fourier = noise, fourier
        self.width = WIDTH + FOURIER * fourier  # of the memory
        self.register_buffer("millimetres", torch.as_tensor(millimetres, dtype=torch.float32), persistent=False)
        features = len(CONTINUOUS) + FOURIER * fourier
        self.continuous = nn.Sequential(nn.Linear(features, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.embeddings = nn.ModuleList(nn.Embedding(n, 4) for n in cardinalities)
        self.categorical = nn.Sequential(nn.Linear(4 * len(cardinalities), WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.bilstm = nn.LSTM(WIDTH, WIDTH // 2, num_layers=2, batch_first=True, bidirectional=True, dropout=dropout)
        self.operation = nn.Sequential(nn.Dropout(dropout), nn.Linear(WIDTH, len(OPERATIONS)))
        self.restore = nn.Linear(WIDTH, len(CONTINUOUS))

    def forward(self, batch: Batch) -> Batch:
        """Outputs `memory` (B, 64, width), `operation` (B, 9), `restored` (B, 64, 155)."""
        x = batch["continuous"]  # (B, 64, 155)
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)  # the denoising autoencoder's corruption
        fourier = fourier_features(x[..., POSITION_COLUMNS], self.millimetres) if self.fourier else x[..., :0]
        x = torch.cat([x, fourier], dim=-1)
        embedded = [table(batch["categorical"][..., column]) for column, table in enumerate(self.embeddings)]
        x = self.continuous(x) + self.categorical(torch.cat(embedded, dim=-1))  # (B, 64, 128): the modalities' sum
        memory = self.bilstm(x)[0]  # (B, 64, 2 x 64)
        return {
            "memory": torch.cat([memory, fourier], dim=-1),
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
def remember(model: MachineEncoder, windows: Tensors, *, key: str) -> dict[str, Tensor]:
    """Memory (n, 64, width) and operation logits (n, 9) of all `windows`, from data/work when they are there.

    The file is named after the encoder's own weights and `key`, the windows: other weights are another file.
    """
    folder = memory_folder(model, key=key)
    if (folder / checkpoint.FILE).exists():
        return checkpoint.load(folder)[0]
    model.eval()
    memory, operation = [], []
    for start in range(0, len(windows), 256):
        outputs = model(windows.__getitems__(range(start, min(start + 256, len(windows)))))
        memory.append(outputs["memory"].half())
        operation.append(outputs["operation"])
    tensors = {"memory": torch.cat(memory), "operation": torch.cat(operation)}
    checkpoint.save(folder, tensors, {"kind": "gcode-memory", "encoder": checkpoint.fingerprint(model)})
    return tensors


def memory_folder(model: MachineEncoder, *, key: str) -> Path:
    """Where the memory of these weights over these windows lies."""
    name = sha256(f"{checkpoint.fingerprint(model)} {model.width} {key}".encode()).hexdigest()[:24]
    return paths.work() / "gcode-memory" / name
