"""From memory to tokens: a transformer decoder with a flat head and structured heads."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smellkit.gcode.tokens import BOS, EOS, OUTPUTS, PAD, STEPS, Vocabulary

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]


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

    def _hidden(self, tokens: Tensor, context: Tensor, memory: Tensor) -> Tensor:
        steps = tokens.shape[1]
        x = self.embed(tokens) + self.position[:steps] + context[:, None]  # (B, t, width)
        for layer in self.layers:  # a token attends to those before it, then to all of the memory (B, steps, width)
            x = layer(x, memory, tgt_mask=self.later[:steps, :steps])
        return self.norm(x)

    def line(self, target: Tensor, context: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Structured (B, 8, 82) and flat logits (B, 8, V) of each token of `target` (B, 8), from the ones before it."""
        before = torch.cat([torch.full_like(target[:, :1], BOS), target[:, :-1]], dim=1)
        x = self._hidden(before, context, memory)
        return self.structured(x), self.token(x)

    def generate(self, context: Tensor, memory: Tensor, *, draft: Tensor, choose: Choose) -> Tensor:
        """Free-running tokens (B, 8), padded after EOS; `choose(structured, flat, before)` picks all eight at once.

        Each is chosen given those before it in a `draft` (B, 8), and what is chosen is the next draft. One that stays
        is what token by token would give, since every look makes at least one more token right: a good draft needs one.
        """

        def unsettled(draft: Tensor, tokens: Tensor) -> Tensor:
            return (draft != tokens).any()

        def look(_: Tensor, draft: Tensor) -> tuple[Tensor, Tensor]:
            tokens = choose(*self.line(draft, context, memory), draft)
            ended = (tokens == EOS).cumsum(dim=1) - (tokens == EOS).long()  # EOS before this one
            return draft.clone(), torch.where(ended > 0, PAD, tokens)

        seen = look(draft, draft)
        if torch.compiler.is_exporting():
            return torch.while_loop(unsettled, look, seen)[1]
        while unsettled(*seen):
            seen = look(*seen)
        return seen[1]
