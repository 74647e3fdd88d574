"""How good masks and classes are, from counts that a split of any size fits in memory with.

Masks are scored by pooled counts: all pixels of a split in one confusion matrix for each gas, frames that are missing
left out. `miou` is the mean over both gases of the mean IoU over background, tube and gas.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit.plume import CLASSES, GAS, GASES, TUBE
from smellkit.task import Batch

COUNT = len(CLASSES)  # of health, and of what a pixel may be
NAMES = tuple(name.lower() for name in CLASSES)
Counts = NDArray[np.int64]


def keep(outputs: Batch, batch: Batch) -> tuple[Batch, Batch]:
    """What scores need of a batch: counts of pixels (B, 2, 3, 3) by truth and answer, and what is known of the rows."""
    kept = {}
    if f"{GASES[0]}_logits" in outputs:
        kept["counts"] = torch.stack([confusion(outputs[f"{g}_logits"], batch[f"{g}_mask"]) for g in GASES], dim=1)
    if "class_logits" in outputs:
        kept["class_logits"] = outputs["class_logits"]
    return kept, {name: batch[name] for name in ("present", "label", "index")}


def confusion(logits: Tensor, target: Tensor) -> Tensor:
    """Pixels of each sample by (true class, class answered): logits (B, 3, H, W), target (B, H, W) -> (B, 3, 3)."""
    answer = logits.argmax(dim=1)
    sample = torch.arange(len(target))[:, None, None]
    cell = (sample * COUNT + target.cpu()) * COUNT + answer.cpu()
    return torch.bincount(cell.flatten(), minlength=len(target) * COUNT**2).view(-1, COUNT, COUNT)


def score(kept: Batch, batch: Batch) -> dict[str, float]:
    """Every score that the outputs allow; `joint` is half `miou`, half `balanced` where there are both.

    `selection_score`, with `balanced_probability` in place of `balanced`, picks the epoch: it is steadier where a class
    has few rows.
    """
    scores: dict[str, float] = {}
    if "counts" in kept:
        scores |= of_masks(pooled(kept["counts"].numpy(), batch["present"].numpy()))
    if "class_logits" in kept:
        label = batch["label"].numpy()
        scores |= of_class(kept["class_logits"].argmax(dim=1).numpy(), label)
        scores["balanced_probability"] = balanced_probability(kept["class_logits"].softmax(dim=1).numpy(), label)
    for name, of_health in (("joint", "balanced"), ("selection_score", "balanced_probability")):
        scores[name] = float(np.mean([scores[part] for part in ("miou", of_health) if part in scores]))
    return scores


def pooled(counts: Counts, present: NDArray) -> Counts:
    """Counts of a whole split for each gas, (2, 3, 3), over the frames that are there."""
    return (counts * (present[:, :, None, None] > 0)).sum(axis=0)


def of_masks(counts: Counts) -> dict[str, float]:
    """IoU, Dice and pixel accuracy of pooled counts (2, 3, 3); a gas without any frame is left out of the means."""
    scores: dict[str, float] = {}
    means = []
    for gas, own in zip(GASES, counts, strict=True):
        if not own.sum():
            continue
        each = iou(own)
        means.append((np.nanmean(each), np.nanmean(2 * each / (1 + each)), np.trace(own) / own.sum()))
        scores |= {
            f"iou_{gas}": float(means[-1][0]),
            f"plume_{gas}": float(each[GAS]),
            f"tube_{gas}": float(each[TUBE]),
        }
    miou, dice, pixels = np.mean(means, axis=0) if means else (np.nan,) * 3
    return {"miou": float(miou), "dice": float(dice), "pixels": float(pixels), **scores}


def iou(counts: Counts) -> NDArray[np.float64]:
    """Intersection over union of each class of (classes, classes); NaN for one that neither is there nor answered."""
    both = np.diagonal(counts).astype(float)
    with np.errstate(invalid="ignore"):
        return both / (counts.sum(axis=0) + counts.sum(axis=1) - both)


def of_class(answer: NDArray, label: NDArray) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro and weighted F1, kappa; F1, recall and precision of each class.

    All from one table of counts: a bootstrap asks for them some thousand times, too often for scikit-learn's checks.
    """
    cells = class_confusion(label, answer) / len(label)
    true, named, right = cells.sum(axis=1), cells.sum(axis=0), np.diagonal(cells)
    occurs, agreement = true > 0, float(true @ named)  # agreement that would come by chance alone
    whole = {"f1": (2 * right, true + named), "recall": (right, true), "precision": (right, named)}
    each = {name: part / np.maximum(of, 1e-12) for name, (part, of) in whole.items()}
    return {
        "accuracy": float(right.sum()),
        "balanced": float(each["recall"][occurs].mean()),
        "macro_f1": float(each["f1"][occurs].mean()),
        "weighted_f1": float(true @ each["f1"]),
        "kappa": (float(right.sum()) - agreement) / (1 - agreement) if agreement < 1 else 0.0,
        **{f"{name}_{n}": float(x) for name, values in each.items() for n, x in zip(NAMES, values, strict=True)},
    }


def class_confusion(label: NDArray, answer: NDArray) -> Counts:
    """How many rows of each class (rows) were named each class (columns)."""
    return np.bincount(COUNT * label + answer, minlength=COUNT**2).reshape(COUNT, COUNT)


def balanced_probability(probability: NDArray, label: NDArray) -> float:
    """Mean over the classes that occur of the probability that their rows are given: a balanced accuracy by degrees."""
    own = probability[np.arange(len(label)), label]
    return float(np.mean([own[label == number].mean() for number in np.unique(label)]))
