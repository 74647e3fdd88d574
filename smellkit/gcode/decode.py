"""From scores to lines: one token at a time, with kept keys and values, inside the grammar or free of it."""

from __future__ import annotations

import torch
from torch import Tensor

from smellkit.gcode.grammar import STEPS, Grammar
from smellkit.gcode.tokens import BOS, EOS, PAD
from smellkit.gcode.window_decoder import MachineReader

WEIGHT = 0.3  # of the decoder beside the lines' prior; chosen on the validation part of fold 0 of protocol G


@torch.no_grad()
def decode(
    model: MachineReader,
    continuous: Tensor,
    categorical: Tensor,
    *,
    line: Tensor | None = None,
    prior: float = 1.0,
    weight: float = WEIGHT,
) -> tuple[Tensor, Tensor]:
    """Free-running tokens (B, 8) in the grammar's open vocabulary, padded after EOS, and `operation` logits (B, 9).

    `line` are probabilities of lines (B, L) in place of the window's own. `prior` weighs the line head, `weight` the
    decoder; a `prior` of 0 leaves only what the lines allow.
    """
    model.eval()
    memory, outputs = model.encode(continuous, categorical)
    line = (prior * outputs["line"]).softmax(dim=1) if line is None else line
    alive = torch.ones_like(line)
    keys = model.decoder.remember(memory)
    token = torch.full((len(line),), BOS, device=line.device)
    done = torch.zeros_like(token, dtype=torch.bool)
    past, found = None, []
    for step in range(STEPS):
        parts, flat, past = model.decoder(token[:, None], outputs["context"], keys, past)
        score = weight * model.scored(parts[:, 0], flat[:, 0]).log_softmax(dim=1)
        token = (score + model.grammar.prior(line, alive, step)).argmax(dim=1)
        alive = model.grammar.narrowed(alive, token, step)
        found.append(torch.where(done, PAD, token))
        done |= token == EOS
    return torch.stack(found, dim=1), outputs["operation"]


def forced(
    grammar: Grammar, line: Tensor, token: Tensor, target: Tensor, *, prior: float = 1.0, weight: float = WEIGHT
) -> Tensor:
    """Teacher-forced tokens (B, 8): scores `token` (B, 8, V) and line logits (B, L), given the true tokens so far."""
    chance = (prior * line).softmax(dim=1)
    alive, found = torch.ones_like(chance), []
    for step in range(STEPS):
        score = weight * token[:, step].log_softmax(dim=1) + grammar.prior(chance, alive, step)
        found.append(score.argmax(dim=1))
        alive = grammar.narrowed(alive, target[:, step], step)
    return torch.stack(found, dim=1)


def lines(grammar: Grammar, tokens: Tensor) -> list[str]:
    """The text of decoded tokens (B, 8)."""
    from smellkit.gcode.tokens import join

    return [join(grammar.vocabulary.decode(row)) for row in tokens.tolist()]
