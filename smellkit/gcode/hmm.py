"""A recording is one program from its beginning on: a hidden Markov model over the training recordings."""

import torch
from torch import Tensor

from smellkit.gcode.recordings import OPERATIONS

# Chosen on the validation parts of the five folds of protocol G, position hidden; evidence on halves of recordings too.
# That the operation says nothing of the program was chosen there, and on validation recordings of protocol X in which
# the nodes of other programs stand in for some of their own: 86 % of the tokens instead of 84, at half of the nodes.
STEPS = (0.02, 0.96, 0.02)  # probability to stay, to go on by one window, and by two
JUMP = 0.002  # probability to be anywhere next
WHOLE = 0.5  # probability that a recording begins where a program does, and that it ends where one does
EVIDENCE = 0.1  # weight of a window: it shares 48 of its 64 rows with the next one, and its faults with all
EVIDENCE_OF_RUN = 0.02  # where the recording is known to be a whole run: then its length says most


class ProgramHMM:
    """The windows of all training recordings in order, as states of a hidden Markov model.

        windows of a recording -> p(line), p(operation) of each alone -> forward and backward over all recordings
        -> p(line), p(operation) of each, all of the recording's windows considered

    `line` (states,) number of the line, -1 for one that isn't known; `operation` (states,); `first` (states,) whether
    a recording begins there. Nothing here is learned.

    Lines tell which program runs, the operation only which of those that run the same one: by themselves operations
    are told apart by their sessions, which a recording of another day does not share.
    """

    def __init__(self, line: Tensor, operation: Tensor, first: Tensor):
        self.line, self.operation, self.first = line.long(), operation.long(), first.bool()
        last = self.first.roll(-1)
        has = torch.zeros(len(OPERATIONS), int(self.line.max()) + 1)
        has[self.operation[self.line >= 0], self.line[self.line >= 0]] = 1
        shared = has @ has.T
        either = shared.diag()[:, None] + shared.diag() - shared
        self.same = ((shared > either / 2) | torch.eye(len(has)).bool()).float()  # (9, 9): one program, by its lines
        self.begins, self.ends = (WHOLE * at / at.sum() + (1 - WHOLE) / len(line) for at in (self.first, last))
        state = torch.arange(len(line))
        begin = torch.where(self.first, state, 0).cummax(dim=0).values
        # of each state, the one that each step comes from; -1 where that is in another recording
        self.back = [torch.where(state - step >= begin, state - step, -1) for step in range(len(STEPS))]

    def __call__(self, line: Tensor, operation: Tensor, *, seen: Tensor, run: bool = False) -> tuple[Tensor, Tensor]:
        """Probabilities of line (T, L) and operation (T, 9) of a recording's windows, from those of each alone.

        Windows whose position was `seen` (T,) count whole for themselves. `run`: the recording is one whole run.
        """
        known, evidence = self.line.clamp(min=0), EVIDENCE_OF_RUN if run else EVIDENCE
        alone = line.clamp(min=1e-4)[:, known] * (self.line >= 0) + 1e-6
        apart = operation.clamp(min=1e-2)
        alone = alone * (apart / (apart @ self.same))[:, self.operation]
        likelihood = alone**evidence
        count, posterior = len(self.line), torch.empty_like(likelihood)
        now = self.begins
        for step, row in enumerate(likelihood):  # forward, scaled to sum 1 (states,): Rabiner (1989), eq. 19 and 20
            posterior[step] = now * row / (now * row).sum()
            now = torch.full_like(now, JUMP / count)
            for odds, back in zip(STEPS, self.back, strict=True):
                now = now + (1 - JUMP) * odds * torch.where(back >= 0, posterior[step][back], 0)
        backward = self.ends / self.ends.max()
        for step in range(len(likelihood) - 1, -1, -1):  # backward (states,): eq. 25
            posterior[step] *= backward  # both together: eq. 27, but for its sum
            ahead = backward * likelihood[step]
            backward = torch.full_like(ahead, JUMP * float(ahead.mean()))
            for odds, back in zip(STEPS, self.back, strict=True):
                backward.index_add_(0, back.clamp(min=0), (1 - JUMP) * odds * torch.where(back >= 0, ahead, 0))
            backward = backward / backward.max()
        posterior = posterior * torch.where(seen[:, None], alone ** (1 - evidence), 1.0)
        posterior = posterior / posterior.sum(dim=1, keepdim=True)
        of_line = torch.zeros_like(line).index_add_(1, known, posterior * (self.line >= 0))
        of_operation = torch.zeros_like(operation).index_add_(1, self.operation, posterior)
        return 0.99 * of_line + 0.01 * line, 0.99 * of_operation + 0.01 * operation
