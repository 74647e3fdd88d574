"""How far the outlines of predicted tubes and plumes lie from the true ones."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset, Subset

from smellkit.errors import OptionError
from smellkit.plume import CLASSES, GASES
from smellkit.plume.data import Pairs
from smellkit.task import Batch
from smellkit.train import predict

CHUNK = 32  # frames whose outlines are measured at a time


def masks_of(model: nn.Module, pairs: Dataset) -> NDArray[np.uint8]:
    """The masks that a model predicts of these pairs, (pairs, 2, H, W)."""

    def keep(outputs: Batch, batch: Batch) -> tuple[Batch, Batch]:
        masks = [outputs[f"{gas}_logits"].argmax(dim=1).byte() for gas in GASES]
        return {"masks": torch.stack(masks, dim=1)}, {"index": batch["index"]}

    return predict(model, pairs, batch=32, keep=keep)[0]["masks"].numpy()


def outlines(model: nn.Module, pairs: Pairs, groups: NDArray) -> dict[str, float]:
    """HD95 and mean surface distance in pixels, on the first pair of every video."""
    first = np.unique(groups, return_index=True)[1]
    answer = masks_of(model, Subset(pairs, first.tolist()))
    there = pairs.present[pairs.row[first]].numpy() > 0
    target = torch.stack([pairs[i][f"{gas}_mask"] for i in first.tolist() for gas in GASES]).byte().numpy()
    return surface(answer[there], target.reshape(answer.shape)[there])


def surface(answer: NDArray[np.uint8], target: NDArray[np.uint8]) -> dict[str, float]:
    """How far the outlines of tube and plume lie from the true ones, in pixels: HD95 and mean distance (monai's).

    `answer`, `target` (n, H, W) of class numbers. `outlined` is the share of true outlines that there is an answer to;
    the others have no distance, and are left out of both means.
    """
    try:
        from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
    except ImportError as why:
        raise OptionError("Distances between outlines need monai", hint="pip install monai, or --no-outlines") from why
    eye, distances = torch.eye(len(CLASSES)), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is nowhere in a frame is said by the distance itself
        for row in range(0, len(answer), CHUNK):  # one-hot masks of all frames at once would take gigabytes
            some = slice(row, row + CHUNK)
            one, two = (torch.movedim(eye[torch.as_tensor(masks[some]).long()], -1, 1) for masks in (answer, target))
            hd95 = compute_hausdorff_distance(one, two, include_background=False, percentile=95)
            asd = compute_average_surface_distance(one, two, include_background=False, symmetric=True)
            distances.append(torch.stack([hd95, asd]))
    each = torch.cat(distances, dim=1)
    asked = np.stack([(target == number).any(axis=(1, 2)) for number in range(1, len(CLASSES))], axis=1)
    known = torch.isfinite(each[0]).numpy()
    means = {name: float(x[torch.isfinite(x)].double().mean()) for name, x in zip(("hd95", "asd"), each, strict=True)}
    return means | {"outlined": float(known[asked].mean())}
