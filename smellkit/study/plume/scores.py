"""How good masks and classes are, from counts that a split of any size fits in memory with.

Masks are scored by pooled counts: all pixels of a split in one confusion matrix for each gas, frames that are missing
left out. `miou` is the mean over both gases of the mean IoU over background, tube and gas.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from smellkit.errors import OptionError
from smellkit.plume import CLASSES, GAS, GASES, TUBE
from smellkit.study.plume.data import Pairs
from smellkit.task import Batch
from smellkit.train import predict

CHUNK = 32  # frames whose outlines are measured at a time: one-hot masks of all at once would take gigabytes
Masks = NDArray[np.uint8]
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
        there = batch["present"][:, :, None, None] > 0
        scores |= of_masks((kept["counts"] * there).sum(dim=0).numpy())
    if "class_logits" in kept:
        label, probability = batch["label"].numpy(), kept["class_logits"].softmax(dim=1).numpy()
        scores |= of_class(kept["class_logits"].argmax(dim=1).numpy(), label)
        own = probability[np.arange(len(label)), label]  # a balanced accuracy by degrees
        scores["balanced_probability"] = float(np.mean([own[label == number].mean() for number in np.unique(label)]))
    for name, of_health in (("joint", "balanced"), ("selection_score", "balanced_probability")):
        scores[name] = float(np.mean([scores[part] for part in ("miou", of_health) if part in scores]))
    return scores


def of_masks(counts: Counts) -> dict[str, float]:
    """IoU, Dice and pixel accuracy of pooled counts (2, 3, 3); a gas without any frame is left out of the means."""
    scores: dict[str, float] = {}
    means = []
    for gas, own in zip(GASES, counts, strict=True):
        if own.sum():
            both = np.diagonal(own).astype(float)
            with np.errstate(invalid="ignore"):  # NaN for a class that neither is there nor answered
                iou = both / (own.sum(axis=0) + own.sum(axis=1) - both)
            means.append((np.nanmean(iou), np.nanmean(2 * iou / (1 + iou)), both.sum() / own.sum()))
            scores |= {f"iou_{gas}": means[-1][0], f"plume_{gas}": iou[GAS], f"tube_{gas}": iou[TUBE]}
    whole = np.mean(means, axis=0) if means else (np.nan,) * 3
    scores = dict(zip(("miou", "dice", "pixels"), whole, strict=True)) | scores
    return {name: float(value) for name, value in scores.items()}


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


def masks_of(model: nn.Module, pairs: Dataset) -> Masks:
    """The masks that a model predicts of these pairs, (pairs, 2, H, W)."""

    def keep(outputs: Batch, batch: Batch) -> tuple[Batch, Batch]:
        masks = [outputs[f"{gas}_logits"].argmax(dim=1).byte() for gas in GASES]
        return {"masks": torch.stack(masks, dim=1)}, {"index": batch["index"]}

    return predict(model, pairs, batch=32, keep=keep)[0]["masks"].numpy()


def outlines(model: nn.Module, pairs: Pairs, groups: NDArray) -> dict[str, float]:
    """How far predicted outlines lie from the true ones, on the first pair of every video: see `surface`."""
    first = np.unique(groups, return_index=True)[1]
    answer = masks_of(model, Subset(pairs, first.tolist()))
    there = pairs.present[pairs.row[first]].numpy() > 0
    target = torch.stack([pairs[i][f"{gas}_mask"] for i in first.tolist() for gas in GASES]).byte().numpy()
    return surface(answer[there], target.reshape(answer.shape)[there])


def surface(answer: Masks, target: Masks) -> dict[str, float]:
    """How far the outlines of tube and plume lie from the true ones, in pixels: HD95 and mean distance (monai's).

    `answer`, `target` (n, H, W) of class numbers. `outlined` is the share of true outlines that there is an answer to;
    the others have no distance, and are left out of both means.
    """
    try:
        from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
    except ImportError as why:
        raise OptionError("Distances between outlines need monai", hint="pip install monai, or --no-outlines") from why
    eye, distances = torch.eye(COUNT), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is nowhere in a frame is said by the distance itself
        for row in range(0, len(answer), CHUNK):
            some = slice(row, row + CHUNK)
            one, two = (torch.movedim(eye[torch.as_tensor(masks[some]).long()], -1, 1) for masks in (answer, target))
            hd95 = compute_hausdorff_distance(one, two, include_background=False, percentile=95)
            asd = compute_average_surface_distance(one, two, include_background=False, symmetric=True)
            distances.append(torch.stack([hd95, asd]))
    each = torch.cat(distances, dim=1)
    asked = np.stack([(target == number).any(axis=(1, 2)) for number in range(1, COUNT)], axis=1)
    known = torch.isfinite(each[0]).numpy()
    means = {name: float(x[torch.isfinite(x)].double().mean()) for name, x in zip(("hd95", "asd"), each, strict=True)}
    return means | {"outlined": float(known[asked].mean())}
