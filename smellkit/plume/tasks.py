"""Plumes as a task for the trainer: masks of both gases and the class, with FUME's recipe as the defaults."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from smellkit.errors import OptionError
from smellkit.plume import losses, models, samples, scores
from smellkit.plume.augment import Augment
from smellkit.plume.network import Sized
from smellkit.plume.samples import Pairs
from smellkit.task import Batch, Task

PH = 5.9  # of the class in the middle, from which the learned pH is counted


def plume(
    *,
    data: str = "",
    test: str = "",
    model: str = "fume",
    fusion: str = "",
    shared: bool = True,
    gases: str = "both",
    pairing: str = "",
    height: int = 120,
    test_height: int = 0,
    augment: bool = True,
    invert: float = 0.0,
    dropout: float = 0.2,
    balance: bool = True,
    masks: float = 1.0,
    health: float = 1.0,
    ph: float = 0.0,
    gamma: float = 2.0,
    alpha: str = "1,8,1.2",
    smooth: float = 1.0,
    uncertainty: bool = False,
) -> Task:
    """Train `model` (a name in `smellkit.plume.models`) on the pairs of `data` ("" is the sample), test on `test`'s.

    `gases` is both, full, co2 or ch4; `pairing` original_based or random pairs the training frames anew; `dropout`
    hides one gas of a full pair; `balance` draws every class equally often. Frames are seen at `height` rows (4:3) and
    answered at `test_height` (0 is the same). `masks`, `health` and `ph` weigh the losses of masks, class and (for a
    model that says one) pH; `gamma`, `alpha` shape the focal loss, `smooth` the Dice loss; `uncertainty` learns the
    weights instead. `fusion` and `shared` change FUME alone.
    """
    weights = {"masks": masks, "class": health, "ph": ph}
    alphas = _numbers(alpha)
    size, test_size = _size(height), _size(test_height or height)

    def load() -> dict[str, Dataset]:
        change = Augment(invert=invert) if augment else False
        train = samples.paired(data, "train", size=size, augment=change, dropout=dropout, gases=gases, pairing=pairing)
        found: dict[str, Dataset] = {"train": Training(train, balance=balance)}
        found["valid"] = samples.paired(data, "valid", size=size, gases=gases)
        found["test"] = samples.paired(test or data, "test", size=test_size, gases=gases)
        return found

    def build() -> nn.Module:
        own: dict[str, object] = {"fusion": fusion} if fusion else {}
        own |= {} if shared else {"shared": False}
        network = Sized(models.build(model, **own), size, tasks=2 if uncertainty else 0)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        parts = {}
        if "co2_logits" in outputs and masks:
            parts["masks"] = losses.of_masks(outputs, batch, gamma=gamma, smooth=smooth)
        if "class_logits" in outputs and health:
            parts["class"] = losses.of_class(outputs, batch, alpha=alphas, gamma=gamma)
        if "ph" in outputs and ph:
            parts["ph"] = nn.functional.smooth_l1_loss(outputs["ph"], batch["ph"] - PH, beta=0.3)
        if "log_variance" in outputs and len(parts) == 2:
            return losses.uncertain(list(parts.values()), outputs["log_variance"])
        return losses.together(parts, weights)

    return Task("plume", load, build, loss, scores.score, watch="promise", keep=scores.keep, batch=32)


class Training(Dataset):
    """The pairs to train on, with the pH of each; `weights` draws the classes equally often."""

    def __init__(self, pairs: Pairs, *, balance: bool):
        self.pairs = pairs
        self.ph = torch.tensor(pairs.table["ph_value"].tolist())
        self.weights = pairs.weights if balance else None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = self.pairs.__getitems__(indices)
        return batch | {"ph": self.ph[batch["index"]]}

    def __getitem__(self, index: int) -> Batch:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}


def _size(height: int) -> tuple[int, int]:
    if height < 32:
        raise OptionError(f"Frames of {height} rows", hint="32 or more")
    return height, round(height * 4 / 3)


def _numbers(text: str) -> Tensor:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as why:
        raise OptionError(f"alpha={text!r} are no numbers", hint="alpha=1,8,1.2") from why
    if len(numbers) != scores.CLASSES or min(numbers) <= 0:
        raise OptionError(f"alpha={text!r}", hint="a weight above 0 for each of three classes")
    return torch.tensor(numbers)
