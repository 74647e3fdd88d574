"""Baselines without a trained network: which gases were filmed, a random forest, and the emission that none can see.

The forest is the fifth published baseline: it sees size, brightness and shape of a plume, and needs a mask to look in.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks import fault
from smellkit.plume import CLASSES, GAS, GASES
from smellkit.plume import annotations as tables
from smellkit.study.plume import splits
from smellkit.study.plume.data import Pairs

SHAPE = ("area", "mean", "deviation", "median", "first quartile", "third quartile", "compactness", "aspect", "extent")
Masks = NDArray[np.uint8]
Table = NDArray[np.float64]


def pattern(train: pd.DataFrame, pairs: pd.DataFrame, *, even: bool = False) -> Table:
    """Probabilities (pairs, 3) of the classes by which gas is missing alone, as counted on the pairs of `train`.

    A pattern that training has not seen gets the shares of all of training. With `even`, for balanced accuracy, as if
    all classes were equally frequent.
    """
    prior = np.bincount(train["class_id"], minlength=len(CLASSES)) / len(train)
    shares = pd.crosstab(train["missing_modality"], train["class_id"], normalize="index")
    shares = shares.reindex(columns=range(len(CLASSES)), fill_value=0).reindex(pairs["missing_modality"])
    probability = shares.fillna(dict(enumerate(prior))).to_numpy(float)
    if even:
        probability = probability / np.maximum(prior, 1e-12) * (prior > 0)
    return probability / probability.sum(axis=1, keepdims=True)


def describe(frame: NDArray[np.uint8], mask: Masks) -> Table:
    """What `SHAPE` names of the gas in one frame (H, W); zeros where the mask holds none.

    Area is a share of the frame and brightness is from 0 to 1, so that frames of all sizes compare.
    """
    gas = mask == GAS
    area = gas.sum()
    if not area:
        return np.zeros(len(SHAPE))
    inside = frame[gas] / 255
    padded = np.pad(gas, 1).astype(np.int8)
    outline = sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in (0, 1))
    rows, columns = np.flatnonzero(gas.any(axis=1)), np.flatnonzero(gas.any(axis=0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    low, middle, high = np.quantile(inside, [0.25, 0.5, 0.75])
    shape = [4 * np.pi * area / outline**2, width / height, area / (height * width)]
    return np.array([area / gas.size, inside.mean(), inside.std(), middle, low, high, *shape])


def true_masks(pairs: Pairs) -> Masks:
    """The masks that the annotations give, (pairs, 2, H, W)."""
    return pairs.masks[pairs.row].numpy()


def forest(train: Pairs, given: Masks, pairs: Pairs, masks: Masks, *, seed: int = 7) -> Table:
    """Probabilities of the classes of each pair (pairs, 3): the mean over the frames that are there.

    They are those of a forest of single frames, as published: 100 trees of depth 10, balanced classes. It sees SHAPE
    and which gas, in the masks (pairs, 2, H, W) that are `given` of `train`, and in `masks`.
    """
    from sklearn.ensemble import RandomForestClassifier

    trees = RandomForestClassifier(100, max_depth=10, class_weight="balanced", random_state=seed)
    table, pair = _features(train, given)
    trees.fit(table, train.label[train.row].numpy()[pair])
    table, pair = _features(pairs, masks)
    probability, each = np.zeros((len(pairs), len(CLASSES))), np.zeros((len(table), len(CLASSES)))
    each[:, trees.classes_] = trees.predict_proba(table)
    np.add.at(probability, pair, each)
    return probability / np.maximum(probability.sum(axis=1, keepdims=True), 1e-12)


def _features(pairs: Pairs, masks: Masks) -> tuple[Table, NDArray[np.int64]]:
    """SHAPE and which gas, a row for each frame that is there, and the pair (from 0) that it belongs to."""
    kept, frames = pairs.row.numpy(), pairs.frames.numpy()
    pair, gas = np.nonzero(pairs.present[pairs.row].numpy())
    rows = [describe(frames[kept[p], g], masks[p, g]) for p, g in zip(pair, gas, strict=True)]
    return np.column_stack([np.array(rows), np.eye(len(GASES))[gas]]), pair


def emission_probabilities(train: Pairs, known: Table, asked: Table) -> Table:
    """Probabilities (pairs, 3) by a linear rule on the true emission, which no camera tells."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rule = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    return rule.fit(known, train.label.numpy()[train.row]).predict_proba(asked)


def emissions(folder: str, pairs: Pairs, *, split: str) -> Table | None:
    """What only a simulator knows, (pairs, 4): ln Q of each gas, 0 where it was not filmed, and whether it was.

    None where there is no emission.csv, or only pairs, whose originals nobody knows.
    """
    file = tables.find(folder) / "emission.csv"
    if not file.is_file() or not tables.splits_in(file.parent):
        return None
    known = pd.read_csv(file, dtype={"original_sample_id": str}).drop_duplicates(["original_sample_id", "gas_type"])
    table, there = pairs.table.iloc[pairs.row.numpy()], pairs.present[pairs.row].numpy()
    emitted = np.zeros(there.shape)
    for place, gas in enumerate(GASES):
        rows = there[:, place] > 0
        originals = splits.annotated(folder, table.loc[rows, f"{gas}_frame"], split=split)["original_sample_id"]
        own = known[known["gas_type"] == gas].set_index("original_sample_id")["log_emission"].reindex(originals)
        if own.isna().any():
            absent, expected = f"none of {own.index[own.isna()][0]}", f"log_emission of every {gas} video"
            hint = "take the file that came with these annotations, or delete it"
            raise fault(file, expected=expected, actual=absent, hint=hint)
        emitted[rows, place] = own
    return np.hstack([emitted, there])


def videos(folder: str, pairs: Pairs) -> NDArray[np.object_]:
    """The original (a video) of every test pair: what a bootstrap resamples.

    In a folder that has only pairs nobody knows it, and each pair is its own. A frame that is not annotated is refused.
    """
    table = pairs.table.iloc[pairs.row.numpy()]
    first = table["co2_frame"].where(table["co2_frame"] != "", table["ch4_frame"])
    if tables.splits_in(tables.find(folder)):
        first = splits.annotated(folder, first, split="test")["original_sample_id"]
    return first.to_numpy(object)
