"""The published encoder, MM-DTAE-LSTM, as it is claimed to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smellkit.gcode.recordings import CONTINUOUS, OPERATIONS, POSITION_COLUMNS
from smellkit.task import Batch

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
