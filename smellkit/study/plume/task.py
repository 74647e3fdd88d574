"""Plumes as a task for the trainer: masks of both gases and the class, and FUME's losses of both."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from smellkit import checkpoint, runs
from smellkit.errors import OptionError
from smellkit.plume import CLASSES, GASES, models
from smellkit.plume.models import Sized
from smellkit.study.losses import CERTAIN, focal
from smellkit.study.plume import data, scores
from smellkit.study.plume.data import Augment
from smellkit.task import Batch

PH = 5.9  # of the class in the middle, from which the learned pH is counted


@dataclass(frozen=True)
class PlumeTask:
    """Train `model` (a name in `smellkit.plume.models`) on the pairs of `data` ("" is the sample), test on `test`'s.

    `gases` is both, co2 or ch4, or full: to train on the pairs that have both (and test on
    all). Frames are seen at `height` rows (4:3) and answered at `test_height` (0 is the same). What weighs nothing
    (`masks`, `health`, `ph`) is not scored either. `fusion` and `shared` change FUME alone.
    """

    name: ClassVar[str] = "plume"
    watch: ClassVar[str] = "selection_score"
    about: ClassVar[type] = dict
    batch: ClassVar[int] = 32
    data: str = ""
    test: str = ""
    model: str = "fume"
    fusion: str = ""
    shared: bool = True
    gases: str = "both"
    pairing: str = ""  # original_based or random pairs the training frames anew
    height: int = 120
    test_height: int = 0
    augment: bool = True
    invert: float = 0.0  # share of negative frames in the augmentation
    dropout: float = 0.2  # how often one gas of a full pair is hidden
    videos: float = 0.0
    start: str = ""  # a finished run whose weights training begins with
    balance: bool = True  # draw every class equally often
    masks: float = 1.0  # weights of the losses of masks, class, and (for a model that gives one) pH
    health: float = 1.0
    ph: float = 0.0
    gamma: float = 2.0  # of both focal losses
    alpha: str = "1,8,1.2"  # weights of the classes

    def __post_init__(self) -> None:
        if not {"masks", "class"} & self.weights.keys():
            raise OptionError("Neither masks nor the class are to be learned", hint="masks or health above 0")
        for name, share in (("dropout", self.dropout), ("videos", self.videos)):
            if not 0 <= share <= 1:
                raise OptionError(f"{name}={share} is not a share of the pairs", hint="0 to 1")
        for height in (self.height, self.test_height or self.height):
            if height < 32:
                raise OptionError(f"Frames of {height} rows", hint="32 or more")
        self.alphas  # noqa: B018 - wrong numbers are refused now, not when data are read

    @property
    def weights(self) -> dict[str, float]:
        """The losses to learn from, and their weights."""
        weights = {"masks": self.masks, "class": self.health, "ph": self.ph}
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def alphas(self) -> Tensor:
        """Weights of the classes, (3,)."""
        try:
            numbers = [float(part) for part in self.alpha.split(",")]
        except ValueError as why:
            raise OptionError(f"alpha={self.alpha!r} are not numbers", hint="alpha=1,8,1.2") from why
        if len(numbers) != len(CLASSES) or min(numbers) <= 0:
            raise OptionError(f"alpha={self.alpha!r}", hint="a weight above 0 for each of three classes")
        return torch.tensor(numbers)

    @property
    def change(self) -> Augment | None:
        """What training frames go through."""
        return Augment(invert=self.invert) if self.augment else None

    def load(self) -> dict[str, Dataset]:
        """Pairs to train on, changed and drawn anew every epoch, and pairs to validate and test on as they are."""
        size, test_size = data.four_to_three(self.height), data.four_to_three(self.test_height or self.height)
        changed: dict[str, Any] = {"change": self.change, "dropout": self.dropout, "balance": self.balance}
        changed["videos"], videos = self.videos, float(self.videos > 0)
        gases = "both" if self.gases == "full" else self.gases
        return {
            "train": data.paired(self.data, "train", size=size, pairing=self.pairing, gases=self.gases, **changed),
            "valid": data.paired(self.data, "valid", size=size, gases=gases, videos=videos),
            "test": data.paired(self.test or self.data, "test", size=test_size, gases=gases, videos=videos),
        }

    def build(self) -> Sized:
        """The untrained model."""
        options: dict[str, Any] = {"fusion": self.fusion} if self.fusion else {}
        options |= ({} if self.shared else {"shared": False}) | ({"videos": True} if self.videos else {})
        network = Sized(models.build(self.model, **options), data.four_to_three(self.height))
        if self.start:  # what sees a video begins at nothing where the run has seen none
            new = {name: x for name, x in network.state_dict().items() if ".moving." in name}
            checkpoint.fill(network, new | checkpoint.load(runs.latest(self.start).folder)[0], where=self.start)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU

    def loss(self, outputs: Batch, batch: Batch) -> Tensor:
        """L = masks * L_masks + health * L_class + ph * L_pH; one that weighs nothing is left out."""
        weights, parts = self.weights, []
        if "co2_logits" in outputs and "masks" in weights:
            parts.append(self.masks * of_masks(outputs, batch, gamma=self.gamma))
        if "class_logits" in outputs and "class" in weights:
            parts.append(self.health * of_class(outputs, batch, alpha=self.alphas, gamma=self.gamma))
        if "ph" in outputs and "ph" in weights:
            parts.append(self.ph * F.smooth_l1_loss(outputs["ph"], batch["ph"] - PH, beta=0.3))
        if not parts:
            raise OptionError(
                f"{' and '.join(weights)} is to be learned, but {self.model} has a loss for nothing of it"
            )
        return torch.stack(parts).sum()

    def keep(self, outputs: Batch, batch: Batch) -> tuple[Batch, Batch]:
        """What scores need of a batch, without what is not learned."""
        part_of = {"counts": "masks", "class_logits": "class"}
        kept, known = scores.keep(outputs, batch)
        return {name: x for name, x in kept.items() if part_of[name] in self.weights}, known

    score = staticmethod(scores.score)


def alpha_focal(logits: Tensor, target: Tensor, *, alpha: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss whose classes weigh `alpha`, averaged over all places: -alpha_t (1 - p_t)^gamma log p_t.

    Unlike `smellkit.study.losses.focal` with a weight, the mean is not divided by the weights, as published.
    """
    log_p = F.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
    modulation = (1 - log_p.exp()).clamp(min=CERTAIN) ** gamma
    return -(alpha.to(logits)[target] * modulation * log_p).mean()


def dice(logits: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """1 - (2 |p y| + smooth) / (|p| + |y| + smooth), averaged over samples and classes: (B, C, H, W), (B, H, W)."""
    p = logits.softmax(dim=1)
    y = torch.movedim(F.one_hot(target, logits.shape[1]), -1, 1).to(p)
    both, either = (p * y).sum(dim=(2, 3)), (p + y).sum(dim=(2, 3))
    return (1 - (2 * both + smooth) / (either + smooth)).mean()


def focal_dice(logits: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Half focal, half Dice: the published loss of a mask."""
    return 0.5 * focal(logits, target, gamma=gamma) + 0.5 * dice(logits, target)


def of_masks(outputs: Batch, batch: Batch, *, gamma: float = 2.0) -> Tensor:
    """`focal_dice` on the samples that have a gas, averaged over the gases that any sample has."""
    losses = [outputs["co2_logits"].sum() * 0]  # where there is no gas at all
    for gas, there in zip(GASES, batch["present"].unbind(dim=1), strict=True):
        if (rows := there > 0).any():
            logits, target = outputs[f"{gas}_logits"][rows], batch[f"{gas}_mask"][rows]
            losses.append(focal_dice(logits, target, gamma=gamma))
    return torch.stack(losses[1:] or losses).mean()


def of_class(outputs: Batch, batch: Batch, *, alpha: Tensor, gamma: float = 2.0) -> Tensor:
    """`alpha_focal` of the class; a model that gives a class for each frame answers for every frame that is there."""
    if "each_class_logits" not in outputs:
        return alpha_focal(outputs["class_logits"], batch["label"], alpha=alpha, gamma=gamma)
    there = batch["present"] > 0
    label = batch["label"][:, None].expand_as(there)
    return alpha_focal(outputs["each_class_logits"][there], label[there], alpha=alpha, gamma=gamma)
