"""What a line may be: a table of known lines, walked token by token like a trie, as plain tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from smellkit.gcode import tokens
from smellkit.gcode.tokens import COMMANDS, LONGEST, PARAMETERS, SPECIAL, TYPES, Vocabulary

STEPS = LONGEST + 1  # a line and its EOS
HEADS = {"type": len(TYPES), "command": len(COMMANDS), "parameter": len(PARAMETERS), "sign": 2} | {
    f"digit{number}": 10 for number in range(tokens.WHOLE + tokens.FRACTION)
}
OUTPUTS = sum(HEADS.values())


class Grammar(nn.Module):
    """Known lines as tables: which token follows which, what a token is made of, and its published name.

    `lines` (L, 8) numbers of open tokens, `fields` (V, 10) class numbers of the structured heads (-1: not said by it),
    `parts` (V, 82) the same as ones and zeros, `published` (V,) numbers in the published vocabulary.
    """

    lines: Tensor
    fields: Tensor
    parts: Tensor
    published: Tensor

    def __init__(self, lines: Sequence[str], vocabulary: Vocabulary):
        super().__init__()
        self.texts = tuple(lines)
        self.vocabulary = Vocabulary.open(lines)
        names = self.vocabulary.tokens
        fields = [tokens.structured(name) if name not in SPECIAL or name == "EOS" else None for name in names]
        rows = np.array([row if row is not None else np.full(len(HEADS), -1) for row in fields])
        place = np.cumsum([0, *HEADS.values()])[:-1]
        parts = np.zeros((len(names), OUTPUTS), np.float32)
        for head in range(len(HEADS)):
            said = np.flatnonzero(rows[:, head] >= 0)
            parts[said, place[head] + rows[said, head]] = 1
        table = np.array([self.vocabulary.numbers(tokens.split(line)) for line in lines])
        known = [vocabulary.ids.get(tokens.published(name), tokens.UNK) for name in names]
        self.register_buffer("lines", torch.as_tensor(table).view(-1, STEPS), persistent=False)
        self.register_buffer("fields", torch.as_tensor(rows), persistent=False)
        self.register_buffer("parts", torch.as_tensor(parts), persistent=False)
        self.register_buffer("published", torch.as_tensor(known), persistent=False)

    def __len__(self) -> int:
        return len(self.texts)

    def prior(self, line: Tensor, alive: Tensor, step: int) -> Tensor:
        """Log-probability of each next token, (batch, V), from probabilities of lines (batch, L) not ruled out.

        `alive` (batch, L) is 1 for lines that begin as the decoded tokens do; a token that begins none has e^-30.
        """
        chance = (line + 1e-9) * alive
        follows = nn.functional.one_hot(self.lines[:, step], len(self.vocabulary)).to(chance.dtype)
        return ((chance / chance.sum(dim=1, keepdim=True).clamp(min=1e-12)) @ follows).clamp(min=1e-13).log()

    def narrowed(self, alive: Tensor, token: Tensor, step: int) -> Tensor:
        """`alive` once `token` (batch,) has been decoded at `step`."""
        return alive * (self.lines[:, step][None] == token[:, None]).to(alive.dtype)


def spoken(logits: Tensor, grammar: Grammar) -> Tensor:
    """Log-probability of every token of the grammar, (..., V), from the structured heads (..., 82)."""
    pieces = torch.split(logits, list(HEADS.values()), dim=-1)
    return torch.cat([piece.log_softmax(dim=-1) for piece in pieces], dim=-1) @ grammar.parts.T


def read_out(logits: Tensor) -> list[str]:
    """Tokens (open, perhaps never seen) that the structured heads say, for logits (tokens, 82)."""
    best = torch.stack([piece.argmax(dim=-1) for piece in torch.split(logits, list(HEADS.values()), dim=-1)], dim=-1)
    return [tokens.unstructured(row) for row in best.cpu().numpy()]
