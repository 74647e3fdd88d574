"""A recording is one program from its beginning on: follow it through the courses that training recordings took."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

# Chosen on the validation parts of the five folds of protocol G, position hidden.
STEPS = (0.02, 0.96, 0.02)  # chance to stay, to go on by one window, and by two
JUMP = 0.002  # chance to be anywhere next
BEGINNING = 0.5  # chance that a recording begins where a program does
EVIDENCE = 0.25  # weight of a window: it shares 48 of its 64 rows with the next one


class Courses:
    """The windows of all training recordings in order, as states of a hidden Markov model.

        windows of a recording -> p(line), p(operation) of each alone -> forward and backward over all courses
        -> p(line), p(operation) of each, all of the recording's windows considered

    `line` (states,) number of the line, -1 for one that isn't known; `operation` (states,); `first` (states,) whether
    a recording begins there. Nothing here is learned.
    """

    def __init__(self, line: Tensor, operation: Tensor, first: Tensor):
        self.line, self.operation, self.first = line.long(), operation.long(), first.bool()
        place = torch.arange(len(line))
        begin = torch.where(self.first, place, 0).cummax(dim=0).values
        self.back = [torch.where(place - step >= begin, place - step, -1) for step in range(len(STEPS))]

    @classmethod
    def of(cls, recording: ArrayLike, start: ArrayLike, line: ArrayLike, operation: ArrayLike) -> Courses:
        """From these four of every training window."""
        order = np.lexsort([np.asarray(start), np.asarray(recording, dtype=str)])
        names = np.asarray(recording, dtype=str)[order]
        first = np.concatenate([[True], names[1:] != names[:-1]])
        return cls(*(torch.as_tensor(column) for column in (np.array(line)[order], np.array(operation)[order], first)))

    def __call__(self, line: Tensor, operation: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of line (T, L) and operation (T, 9) of a recording's windows, from those of each alone."""
        known = torch.where(self.line >= 0, self.line, 0)
        seen = line.clamp(min=1e-4)[:, known] * (self.line >= 0) + 1e-6
        seen = (seen * operation.clamp(min=1e-2)[:, self.operation]) ** EVIDENCE
        count = len(self.line)
        ahead = torch.empty_like(seen)
        now = BEGINNING * self.first / self.first.sum() + (1 - BEGINNING) / count
        for step, row in enumerate(seen):
            now = now * row
            ahead[step] = now = now / now.sum()
            now = self._onward(now)
        after = torch.ones(count)
        together = torch.empty_like(seen)
        for step in range(len(seen) - 1, -1, -1):
            together[step] = ahead[step] * after
            after = self._backward(after * seen[step])
            after = after / after.max()
        together = together / together.sum(dim=1, keepdim=True)
        of_line = torch.zeros_like(line).index_add_(1, known, together * (self.line >= 0))
        of_operation = torch.zeros_like(operation).index_add_(1, self.operation, together)
        return 0.99 * of_line + 0.01 * line, 0.99 * of_operation + 0.01 * operation

    def _onward(self, now: Tensor) -> Tensor:
        gone = torch.full_like(now, JUMP / len(now))
        for chance, back in zip(STEPS, self.back, strict=True):
            gone = gone + (1 - JUMP) * chance * torch.where(back >= 0, now[back], 0)
        return gone

    def _backward(self, after: Tensor) -> Tensor:
        gone = torch.full_like(after, JUMP * float(after.mean()))
        for chance, back in zip(STEPS, self.back, strict=True):
            reached = torch.where(back >= 0, after, 0)
            gone.index_add_(0, back.clamp(min=0), (1 - JUMP) * chance * reached)
        return gone
