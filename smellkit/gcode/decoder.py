"""From memory to tokens: a transformer decoder with a flat head and structured heads."""

import torch
from torch import Tensor, nn

from smellkit.gcode.tokens import BOS, OUTPUTS, STEPS, Vocabulary


class TokenDecoder(nn.Module):
    """Tokens so far in, what comes next out.

    tokens (B, t) -> embedding + position + context (B, width) -> masked layers over the memory (B, steps, width)
      -> norm -> structured (B, t, 82): type, command, parameter, sign and six digits of the next token, a head each
              -> token (B, t, V): the flat head
    """

    def __init__(self, vocabulary: Vocabulary, *, width: int, layers: int, heads: int, dropout: float, inner: int = 4):
        super().__init__()
        self.embed = nn.Embedding(len(vocabulary), width)
        self.position = nn.Parameter(torch.randn(STEPS, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, heads, inner * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.structured = nn.Linear(width, OUTPUTS)
        self.token = nn.Linear(width, len(vocabulary))
        self.later = nn.Buffer(torch.ones(STEPS, STEPS, dtype=torch.bool).triu(1), persistent=False)

    def line(self, target: Tensor, context: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Structured (B, 8, 82) and flat logits (B, 8, V) of each token of `target` (B, 8), from the ones before it."""
        before = torch.cat([torch.full_like(target[:, :1], BOS), target[:, :-1]], dim=1)
        x = self.embed(before) + self.position + context[:, None]  # (B, 8, width)
        for layer in self.layers:  # a token attends to those before it, then to all of the memory (B, steps, width)
            x = layer(x, memory, tgt_mask=self.later)
        x = self.norm(x)
        return self.structured(x), self.token(x)
