"""How right tokens are: as a loss to train on, head by head, and as the published scores count them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from smellkit.gcode.tokens import EOS, HEADS, PAD, PARAMETERS, SIZES, UNK, Grammar, Numbers, default, structured
from smellkit.study.losses import focal

WEIGHT = 0.3  # of the token decoder beside the lines' prior, teacher-forced


def published_fields() -> Tensor:
    """Class numbers of the structured heads for every published token, (668, 10); -1 where one does not apply.

    A number's four characters fill the sign and the first four digits: `NUM_X_-125` is minus, 0 1 2 5.
    """
    rows = np.full((len(default()), len(HEADS)), -1)
    for number, token in enumerate(default().tokens):
        if token.startswith("NUM_") and token[4] in PARAMETERS:
            digits = token[6:].lstrip("-").zfill(4)
            rows[number, :8] = 3, -1, PARAMETERS.index(token[4]), "-" in token[6:], *map(int, digits)
        elif number == UNK:
            rows[number, 0] = 0
        else:
            rows[number] = structured(token)
    return torch.as_tensor(rows)


def structured_loss(logits: Tensor, fields: Tensor, gamma: float = 0.0) -> Tensor:
    """Mean cross-entropy over the ten structured heads (n, 82), each on the tokens that have its field (n, 10)."""
    losses = []
    for head, piece in enumerate(torch.split(logits, SIZES, dim=-1)):
        has = fields[:, head] >= 0
        if has.any():
            losses.append(focal(piece[has], fields[has, head], gamma=gamma))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def head_scores(logits: Tensor, fields: Tensor) -> dict[str, float]:
    """Share of tokens that each structured head gets right, teacher-forced, among those that have its field.

    `digits` are right when the sign and all digits that a number has are; a head whose field no token has is left out.
    """
    best = torch.stack([piece.argmax(dim=-1) for piece in torch.split(logits, SIZES, dim=-1)], dim=-1)
    right, has = best == fields, fields >= 0
    rows = {name: (right[..., head], has[..., head]) for head, name in enumerate(("type", "command", "parameter"))}
    rows["digits"] = (right | ~has)[..., 3:].all(dim=-1), has[..., 3:].any(dim=-1)
    return {name: float(hit[valid].float().mean()) for name, (hit, valid) in rows.items() if valid.any()}


def token_hits(tokens: Numbers, target: Numbers, *, kind: str = "all") -> Numbers:
    """(right, counted) tokens of each window, (n, 2): over the target's tokens of a kind, position by position.

    all: every token with EOS and UNK, as published. words: without EOS and UNK. numbers: NUM_ tokens alone.
    """
    counted = target != PAD
    if kind != "all":
        counted &= (target != EOS) & (target != UNK)
    if kind == "numbers":
        counted &= np.array([token.startswith("NUM_") for token in default().tokens])[target]
    right = (tokens == target) & counted
    return np.stack([right.sum(axis=1), counted.sum(axis=1)], axis=1)


def token_accuracy(tokens: Numbers, target: Numbers, **how: Any) -> float:
    """Share of the target's tokens that are right at their position; NaN if there are none of this kind."""
    right, counted = token_hits(tokens, target, **how).sum(axis=0)
    return float(right / counted) if counted else float("nan")


def forced(grammar: Grammar, line: Tensor, token: Tensor, target: Tensor) -> Tensor:
    """Teacher-forced tokens (B, 8): scores `token` (B, 8, V), and logits (B, L) of lines that begin with the true ones.

    This is what the losses on tokens train; an answer is the likeliest line.
    """
    known = grammar.tokens.T  # (8, L)
    other = (target[:, :, None] != known).long()  # (B, 8, L): lines that have another token here
    begun = other.cumsum(dim=1) == other  # and those that have had no other before
    probability = (line.softmax(dim=1) + 1e-9)[:, None] * begun
    probability = probability / probability.sum(dim=2, keepdim=True).clamp(min=1e-12)
    prior = torch.zeros_like(token).scatter_add(2, known.expand_as(begun), probability).clamp(min=1e-13).log()
    return (WEIGHT * token.log_softmax(dim=2) + prior).argmax(dim=2)
