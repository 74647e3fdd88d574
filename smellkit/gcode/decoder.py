"""The published decoder as it is claimed to be, all of its heads trained; it sees the encoder's memory alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from smellkit.gcode import tokens
from smellkit.gcode.channels import OPERATIONS
from smellkit.gcode.encoder import WIDTH
from smellkit.gcode.grammar import HEADS, OUTPUTS, STEPS
from smellkit.gcode.layers import Layer
from smellkit.gcode.tokens import BOS, EOS, PAD, Vocabulary
from smellkit.task import Batch


class SensorDecoder(nn.Module):
    """Memory to tokens: a transformer of 4 layers, 8 heads, width 192, told the predicted operation.

    tokens so far (8) + places + operation ---> 4 layers over memory (64, 192) ---> token (668)
                                                                             ---> type, command, parameter, digits
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        memory: int = WIDTH,
        width: int = 192,
        layers: int = 4,
        heads: int = 8,
        dropout: float = 0.3,
    ):
        super().__init__()
        self.embed = nn.Embedding(len(vocabulary), width)
        self.place = nn.Parameter(torch.randn(STEPS, width) * 0.02)
        self.operation = nn.Linear(len(OPERATIONS), width)
        self.memory = nn.Linear(memory, width)
        self.layers = nn.ModuleList(Layer(width, heads=heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.token = nn.Linear(width, len(vocabulary))
        self.parts = nn.Linear(width, OUTPUTS)

    def forward(self, batch: Batch) -> Batch:
        """Outputs `token` (B, 8, 668) and `parts` (B, 8, 82), each from the true tokens before it."""
        target = batch["published"]
        shifted = torch.cat([torch.full_like(target[:, :1], BOS), target[:, :-1]], dim=1)
        context, keys = self.begin(batch["memory"].float(), batch["logits"])
        token, parts, _ = self.step(shifted, context, keys)
        return {"token": token, "parts": parts, "operation": batch["logits"]}

    def begin(self, memory: Tensor, operation: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """What a window needs once: the operation as a vector, keys and values of the memory."""
        projected = self.memory(memory)
        return self.operation(operation.softmax(dim=1)), [layer.remember(projected) for layer in self.layers]  # type: ignore[operator]

    def step(self, token: Tensor, context: Tensor, keys, past=None):
        """Token logits, structured logits, and keys and values for the next step."""
        first = past[0][0].shape[2] if past else 0
        x = self.embed(token) + self.place[first : first + token.shape[1]] + context[:, None]
        kept = []
        for number, layer in enumerate(self.layers):
            x, own = layer(x, keys[number], past[number] if past else None)
            kept.append(own)
        x = self.norm(x)
        return self.token(x), self.parts(x), kept

    @torch.no_grad()
    def free(self, memory: Tensor, operation: Tensor) -> Tensor:
        """Greedy tokens (B, 8), padded after EOS."""
        self.eval()
        context, keys = self.begin(memory.float(), operation)
        token = torch.full((len(memory),), BOS)
        done, past, found = torch.zeros(len(memory), dtype=torch.bool), None, []
        for _ in range(STEPS):
            logits, _, past = self.step(token[:, None], context, keys, past)
            token = logits[:, 0].argmax(dim=1)
            found.append(torch.where(done, PAD, token))
            done |= token == EOS
        return torch.stack(found, dim=1)


def fields(vocabulary: Vocabulary) -> Tensor:
    """Class numbers of the structured heads for every published token, (668, 10); -1 where one does not apply.

    A number's four characters fill the sign and the first four digits: `NUM_X_-125` is minus, 0 1 2 5.
    """
    rows = np.full((len(vocabulary), len(HEADS)), -1)
    for number, token in enumerate(vocabulary.tokens):
        own = tokens.structured(token) if token not in tokens.SPECIAL or number == EOS else None
        if token.startswith("NUM_") and token[4] in tokens.PARAMETERS:
            digits = token[6:].lstrip("-").zfill(4)
            rows[number, :8] = 3, -1, tokens.PARAMETERS.index(token[4]), "-" in token[6:], *map(int, digits)
        elif own is not None:
            rows[number] = own
        elif number == tokens.UNK:
            rows[number, 0] = 0
    return torch.as_tensor(rows)
