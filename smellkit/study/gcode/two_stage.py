"""The published two stages as they are claimed to be: a frozen encoder (MM-DTAE-LSTM) and a decoder to compare with."""

import torch
from torch import Tensor, nn

from smellkit.gcode.data import Scaling
from smellkit.gcode.decoder import TokenDecoder
from smellkit.gcode.recordings import CONTINUOUS, OPERATIONS, POSITION_COLUMNS
from smellkit.gcode.tokens import EOS, PAD, STEPS, default
from smellkit.gcode.window_decoder import FOURIER, fourier_features
from smellkit.task import Batch

WIDTH = 128


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

    def __init__(self, scaling: Scaling, *, noise: float = 0.1, fourier: bool = False):
        super().__init__()
        self.noise, self.fourier = noise, fourier
        self.width = WIDTH + FOURIER * fourier  # of the memory
        self.millimetres = nn.Buffer(torch.tensor(scaling.millimetres), persistent=False)
        features = len(CONTINUOUS) + FOURIER * fourier
        self.continuous = nn.Sequential(nn.Linear(features, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.embeddings = nn.ModuleList(nn.Embedding(n, 4) for n in scaling.cardinalities)
        self.categorical = nn.Sequential(nn.Linear(4 * len(self.embeddings), WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.bilstm = nn.LSTM(WIDTH, WIDTH // 2, num_layers=2, batch_first=True, bidirectional=True, dropout=0.2)
        self.operation = nn.Sequential(nn.Dropout(0.2), nn.Linear(WIDTH, len(OPERATIONS)))
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


class SensorDecoder(TokenDecoder):
    """The published decoder as it is claimed to be, all of its heads trained; it sees the encoder's memory alone.

    memory (B, 64, 128) of the frozen encoder -> linear -> 4 layers, 8 heads, width 192
    predicted operation (B, 9) -> softmax -> linear -> context (B, 192), added to every token
    """

    def __init__(self, *, memory: int, width: int, layers: int, dropout: float):
        super().__init__(default(), width=width, layers=layers, heads=8, dropout=dropout)
        self.operation = nn.Linear(len(OPERATIONS), width)
        self.memory = nn.Linear(memory, width)

    def forward(self, batch: Batch) -> Batch:
        """Outputs `token` (B, 8, 668) and `structured` (B, 8, 82), each from the true tokens before it."""
        structured, token = self.line(batch["published"], *self.inputs(batch["memory"], batch["logits"]))
        return {"token": token, "structured": structured, "operation": batch["logits"]}

    def inputs(self, memory: Tensor, operation: Tensor) -> tuple[Tensor, Tensor]:
        """Context and memory of a window as the decoder sees them, from the encoder's memory and operation logits."""
        return self.operation(operation.softmax(dim=1)), self.memory(memory.float())

    def free(self, memory: Tensor, operation: Tensor) -> Tensor:
        """Greedy tokens (B, 8), padded after EOS."""
        tokens, given = torch.full((len(memory), STEPS), PAD), self.eval().inputs(memory, operation)
        for step in range(STEPS):
            tokens[:, step] = self.line(tokens, *given)[1][:, step].argmax(dim=1)
        ended = (tokens == EOS).cumsum(dim=1) - (tokens == EOS).long()  # EOS before this one
        return torch.where(ended > 0, PAD, tokens)


class TwoStage(nn.Module):
    """Encoder and decoder in one model, for training both."""

    def __init__(self, encoder: MachineEncoder, decoder: SensorDecoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, batch: Batch) -> Batch:
        encoded = self.encoder(batch)
        outputs = self.decoder(batch | {"memory": encoded["memory"], "logits": encoded["operation"]})
        return outputs | {"restored": encoded["restored"]}
