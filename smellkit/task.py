"""The one contract that joins a system to the trainer: a Task, and a data set that gives whole batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """What a system gives the trainer. Dict in, dict out, so one loop fits every model.

    A function with typed keyword arguments makes a task (`task(*, window: int = 100) -> Task`); its arguments are what
    `smellkit train TASK --set name=value` may set.
    """

    name: str
    load: Callable[[], dict[str, Dataset]]  # "train", "valid" and perhaps "test" -> samples, each a dict of tensors
    build: Callable[[], nn.Module]  # model: batch in, dict of outputs out
    loss: Callable[[Batch, Batch], Tensor]  # (outputs, batch) -> scalar
    score: Callable[[Batch, Batch], dict[str, float]]  # (outputs, batch) of a whole split, on the CPU
    watch: str = "accuracy"  # the score that picks the best epoch; larger is better
    keep: Callable[[Batch, Batch], tuple[Batch, Batch]] | None = None  # less of a batch, where all is too much
    about: Callable[[], dict] = dict  # what the manifest of its weights says besides, so that they can predict
    batch: int = 256  # samples that a model is shown at a time for the scores


class Tensors(Dataset):
    """Samples that lie in memory as tensors of equal length: `Tensors(x=windows, y=labels)`.

    A batch is one indexing operation, then `change(batch)`, where augmentation belongs (drawn from torch's generator).
    """

    def __init__(self, *, change: Callable[[Batch], Batch] | None = None, **tensors):
        self.tensors = {name: torch.as_tensor(tensor) for name, tensor in tensors.items()}
        self.change = change
        lengths = {name: len(tensor) for name, tensor in self.tensors.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"tensors of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: int) -> Batch:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.as_tensor(indices)
        batch = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return self.change(batch) if self.change else batch


def collate(samples: Batch | list[Batch]) -> Batch:
    """A batch from a list of samples; what `Tensors` gives is one already."""
    return samples if isinstance(samples, dict) else default_collate(samples)
