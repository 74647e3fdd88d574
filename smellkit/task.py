"""The one contract that joins a system to the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What a system gives the trainer. Dict in, dict out, so one loop fits every model.

    A function with typed keyword arguments makes a task (`encoder(window=100, hidden=64) -> Task`); those arguments are
    what `smellkit train TASK --set name=value` may set.
    """

    name: str
    load: Callable[[], dict[str, Dataset]]  # "train", "valid" and perhaps "test" -> samples, each a dict of tensors
    build: Callable[[], nn.Module]  # model: batch in, dict of outputs out
    loss: Callable[[Batch, Batch], Tensor]  # (outputs, batch) -> scalar
    score: Callable[[Batch, Batch], dict[str, float]]  # (outputs, batch) of a whole split, on the CPU
    watch: str = "accuracy"  # the score that picks the best epoch, larger is better
