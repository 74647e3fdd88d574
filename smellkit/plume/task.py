"""Plumes as a task for the trainer: masks of both gases and the class, with FUME's losses and sampling as defaults."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from smellkit.errors import OptionError
from smellkit.plume import data as samples
from smellkit.plume import losses, models, scores
from smellkit.plume.augment import Augment
from smellkit.plume.data import Pairs
from smellkit.plume.fume import Sized
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
    focal: bool = True,
    uncertainty: bool = False,
) -> Task:
    """Train `model` (a name in `smellkit.plume.models`) on the pairs of `data` ("" is the sample), test on `test`'s.

    `gases` is both, co2 or ch4, single (each frame alone), or full: to train on the pairs that have both (and test on
    all). `pairing` original_based or random pairs the training frames anew; `dropout` hides one gas of a full pair;
    `balance` draws every class equally often. Frames are seen at `height` rows (4:3) and answered at `test_height` (0
    is the same). `masks`, `health` and `ph` weigh the losses of masks, class and (for a model that says one) pH; what
    weighs nothing is not scored either. `gamma`, `alpha` shape the focal loss, `smooth` the Dice loss; `focal` false is
    a weighted cross-entropy of the class. `uncertainty` learns a weight for each loss instead. `fusion` and `shared`
    change FUME alone.
    """
    weights = {name: weight for name, weight in {"masks": masks, "class": health, "ph": ph}.items() if weight}
    alphas = _numbers(alpha)
    if not {"masks", "class"} & weights.keys():
        raise OptionError("Neither masks nor the class are to be learned", hint="masks or health above 0")
    if not 0 <= dropout <= 1:
        raise OptionError(f"dropout={dropout} is not a share of the full pairs", hint="0 to 1")
    size, test_size = _size(height), _size(test_height or height)

    def load() -> dict[str, Dataset]:
        change = Augment(invert=invert) if augment else False
        train = samples.paired(data, "train", size=size, augment=change, dropout=dropout, gases=gases, pairing=pairing)
        found: dict[str, Dataset] = {"train": Training(train, balance=balance)}
        seen = "both" if gases == "full" else gases
        found["valid"] = samples.paired(data, "valid", size=size, gases=seen)
        found["test"] = samples.paired(test or data, "test", size=test_size, gases=seen)
        return found

    def build() -> nn.Module:
        own: dict[str, object] = {"fusion": fusion} if fusion else {}
        own |= {} if shared else {"shared": False}
        network = Sized(models.build(model, **own), size, tasks=len(weights) if uncertainty else 0)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        parts = {}
        if "co2_logits" in outputs and "masks" in weights:
            parts["masks"] = losses.of_masks(outputs, batch, gamma=gamma, smooth=smooth)
        if "class_logits" in outputs and "class" in weights:
            parts["class"] = losses.of_class(outputs, batch, alpha=alphas, gamma=gamma if focal else 0)
        if "ph" in outputs and "ph" in weights:
            parts["ph"] = nn.functional.smooth_l1_loss(outputs["ph"], batch["ph"] - PH, beta=0.3)
        if not parts or uncertainty and len(parts) < len(weights):
            what = " and ".join(weights) or "nothing"
            raise OptionError(f"{what} is to be learned, but {model} has a loss for {' and '.join(parts) or 'nothing'}")
        if uncertainty:
            return losses.uncertain(list(parts.values()), outputs["log_variance"])
        return losses.together(parts, weights)

    def keep(outputs: Batch, batch: Batch) -> tuple[Batch, Batch]:
        untrained = {"counts": "masks", "class_logits": "class"}
        kept, known = scores.keep(outputs, batch)
        return {name: x for name, x in kept.items() if untrained[name] in weights}, known

    return Task("plume", load, build, loss, scores.score, watch="promise", keep=keep, batch=32)


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
        raise OptionError(f"alpha={text!r} are not numbers", hint="alpha=1,8,1.2") from why
    if len(numbers) != scores.CLASSES or min(numbers) <= 0:
        raise OptionError(f"alpha={text!r}", hint="a weight above 0 for each of three classes")
    return torch.tensor(numbers)
