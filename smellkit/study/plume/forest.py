"""The fifth baseline: a random forest on size, brightness and shape of a plume. It needs a mask to look in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smellkit.plume.data import Pairs
from smellkit.simulate.plume_physics import GAS, GASES

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

NAMES = ("area", "mean", "deviation", "median", "first quartile", "third quartile", "compactness", "aspect", "extent")
COLUMNS = (*NAMES, *GASES)
Masks = NDArray[np.uint8]


def describe(frame: NDArray[np.uint8], mask: Masks) -> NDArray[np.float64]:
    """What `NAMES` say of the gas in one frame (H, W); zeros where the mask holds none.

    Area is a share of the frame and brightness is from 0 to 1, so that frames of all sizes compare.
    """
    gas = mask == GAS
    area = gas.sum()
    if not area:
        return np.zeros(len(NAMES))
    inside = frame[gas] / 255
    padded = np.pad(gas, 1).astype(np.int8)
    outline = sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in (0, 1))
    rows, columns = np.flatnonzero(gas.any(axis=1)), np.flatnonzero(gas.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    low, middle, high = np.quantile(inside, [0.25, 0.5, 0.75])
    shape = [4 * np.pi * area / outline**2, width / height, area / (height * width)]
    return np.array([area / gas.size, inside.mean(), inside.std(), middle, low, high, *shape])


def features(pairs: Pairs, masks: Masks) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A row of COLUMNS for each frame that is there, and the pair (from 0) that it belongs to.

    `masks` (pairs, 2, H, W) may be the true ones or what a model says; the frames are the data set's own.
    """
    kept = pairs.row.numpy()
    pair, gas = np.nonzero(pairs.present[pairs.row].numpy())
    frames = pairs.frames.numpy()
    rows = [describe(frames[kept[p], g], masks[p, g]) for p, g in zip(pair, gas, strict=True)]
    return np.column_stack([np.array(rows), np.eye(len(GASES))[gas]]), pair


def true_masks(pairs: Pairs) -> Masks:
    """The masks that the annotations give, (pairs, 2, H, W)."""
    return pairs.masks[pairs.row].numpy()


def fit(pairs: Pairs, masks: Masks, *, seed: int = 7) -> RandomForestClassifier:
    """A forest of single frames, as published: 100 trees of depth 10, balanced classes."""
    from sklearn.ensemble import RandomForestClassifier

    table, pair = features(pairs, masks)
    label = pairs.label[pairs.row].numpy()
    forest = RandomForestClassifier(100, max_depth=10, class_weight="balanced", random_state=seed)
    return forest.fit(table, label[pair])


def predict(forest: RandomForestClassifier, pairs: Pairs, masks: Masks) -> NDArray[np.float64]:
    """Probabilities of the classes of each pair (pairs, 3): the mean over the frames that are there."""
    table, pair = features(pairs, masks)
    chance = np.zeros((len(pairs), 3))
    each = np.zeros((len(table), 3))
    each[:, forest.classes_] = forest.predict_proba(table)
    np.add.at(chance, pair, each)
    return chance / np.maximum(chance.sum(axis=1, keepdims=True), 1e-12)
