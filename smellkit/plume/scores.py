"""How good masks and classes are, from counts that a split of any size fits in memory with.

Masks are scored by pooled counts: all pixels of a split in one confusion matrix for each gas, frames that are missing
left out. `miou` is the mean over both gases of the mean IoU over background, tube and gas.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit.errors import OptionError
from smellkit.plume.fume import GASES
from smellkit.task import Batch

CLASSES = 3
NAMES = ("healthy", "transitional", "acidotic")
SHOWN = 32  # frames whose outlines are measured at a time
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
    cell = (sample * CLASSES + target.cpu()) * CLASSES + answer.cpu()
    return torch.bincount(cell.flatten(), minlength=len(target) * CLASSES**2).view(-1, CLASSES, CLASSES)


def score(kept: Batch, batch: Batch) -> dict[str, float]:
    """Every score that the outputs allow; `joint` is half `miou`, half `balanced` where there are both.

    `promise`, with `belief` in place of `balanced`, picks the epoch: it is steadier where a class has few rows.
    """
    found: dict[str, float] = {}
    if "counts" in kept:
        found |= of_masks(pooled(kept["counts"].numpy(), batch["present"].numpy()))
    if "class_logits" in kept:
        label = batch["label"].numpy()
        found |= of_class(kept["class_logits"].argmax(dim=1).numpy(), label)
        found["belief"] = belief(kept["class_logits"].softmax(dim=1).numpy(), label)
    found["joint"] = float(np.mean([found[name] for name in ("miou", "balanced") if name in found]))
    found["promise"] = float(np.mean([found[name] for name in ("miou", "belief") if name in found]))
    return found


def pooled(counts: Counts, present: NDArray) -> Counts:
    """Counts of a whole split for each gas, (2, 3, 3), over the frames that are there."""
    return (counts * (present[:, :, None, None] > 0)).sum(axis=0)


def of_masks(counts: Counts) -> dict[str, float]:
    """IoU, Dice and pixel accuracy of pooled counts (2, 3, 3); a gas without any frame is left out of the means."""
    found: dict[str, float] = {}
    means = []
    for place, gas in enumerate(GASES):
        own = counts[place]
        if not own.sum():
            continue
        each = iou(own)
        means.append((np.nanmean(each), np.nanmean(2 * each / (1 + each)), np.trace(own) / own.sum()))
        found |= {f"iou_{gas}": float(means[-1][0]), f"plume_{gas}": float(each[2]), f"tube_{gas}": float(each[1])}
    miou, dice, pixels = np.mean(means, axis=0) if means else (np.nan,) * 3
    return {"miou": float(miou), "dice": float(dice), "pixels": float(pixels), **found}


def iou(counts: Counts) -> NDArray[np.float64]:
    """Intersection over union of each class of (classes, classes); NaN for one that neither is there nor answered."""
    both = np.diagonal(counts).astype(float)
    either = counts.sum(axis=0) + counts.sum(axis=1) - both
    with np.errstate(invalid="ignore"):
        return both / either


def of_class(answer: NDArray, label: NDArray) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro and weighted F1, kappa; F1, recall and precision of each class."""
    cells = crossed(label, answer) / len(label)
    was, said, right = cells.sum(axis=1), cells.sum(axis=0), np.diagonal(cells)
    each, recall, precision = (
        whole / np.maximum(of, 1e-12) for whole, of in ((2 * right, was + said), (right, was), (right, said))
    )
    chance = float(was @ said)
    return {
        "accuracy": float(right.sum()),
        "balanced": balanced(answer, label),
        "macro_f1": float(each[was > 0].mean()),
        "weighted_f1": float(was @ each),
        "kappa": (float(right.sum()) - chance) / (1 - chance) if chance < 1 else 0.0,
        **{f"f1_{name}": float(x) for name, x in zip(NAMES, each, strict=True)},
        **{f"recall_{name}": float(x) for name, x in zip(NAMES, recall, strict=True)},
        **{f"precision_{name}": float(x) for name, x in zip(NAMES, precision, strict=True)},
    }


def crossed(label: NDArray, answer: NDArray) -> Counts:
    """How many rows of each class (rows) were named each class (columns)."""
    return np.bincount(CLASSES * label + answer, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def balanced(answer: NDArray, label: NDArray) -> float:
    """Mean over the classes that occur of the share of their rows that is named right."""
    return float(np.mean([(answer[label == number] == number).mean() for number in np.unique(label)]))


def belief(chance: NDArray, label: NDArray) -> float:
    """Mean over the classes that occur of the probability that their rows are given: a balanced accuracy by degrees."""
    own = chance[np.arange(len(label)), label]
    return float(np.mean([own[label == number].mean() for number in np.unique(label)]))


def surface(answer: NDArray[np.uint8], target: NDArray[np.uint8]) -> dict[str, float]:
    """How far the outlines of tube and plume lie from the true ones, in pixels: HD95 and mean distance (monai's).

    `answer`, `target` (n, H, W) of class numbers. `outlined` is the share of true outlines that there is an answer to;
    the others have no distance, and are left out of both means.
    """
    try:
        from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
    except ImportError as why:
        raise OptionError("Distances between outlines need monai", hint="pip install monai, or --no-outlines") from why
    eye, found = torch.eye(CLASSES), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is nowhere in a frame is said by the distance itself
        for row in range(0, len(answer), SHOWN):  # one-hot masks of all frames at once would take gigabytes
            some = slice(row, row + SHOWN)
            one, two = (torch.movedim(eye[torch.as_tensor(masks[some]).long()], -1, 1) for masks in (answer, target))
            hd95 = compute_hausdorff_distance(one, two, include_background=False, percentile=95)
            asd = compute_average_surface_distance(one, two, include_background=False, symmetric=True)
            found.append(torch.stack([hd95, asd]))
    each = torch.cat(found, dim=1)
    asked = np.stack([(target == number).any(axis=(1, 2)) for number in range(1, CLASSES)], axis=1)
    known = torch.isfinite(each[0]).numpy()
    means = {name: float(x[torch.isfinite(x)].double().mean()) for name, x in zip(("hd95", "asd"), each, strict=True)}
    return means | {"outlined": float(known[asked].mean())}
