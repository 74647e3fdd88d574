"""What training data look like, for the manifest of weights that are released: see `smellkit.checks.ranges`."""

from pathlib import Path

import numpy as np

from smellkit.checks.ranges import Ranges
from smellkit.gcode import recordings as machine
from smellkit.plume import GASES
from smellkit.plume import annotations as tables
from smellkit.plume.annotations import FEATURES, Rule, features


def gcode(folder: str | Path) -> Ranges:
    """Of the recordings of a milling machine."""
    names = list(machine.CONTINUOUS)
    parts = [rows[names].to_numpy() for _, rows in machine.read(folder).groupby("recording")]
    return Ranges.measure(parts, names=names, unit=list(map(machine.modality, names)), strict=False)


def plume(folder: str | Path) -> Ranges:
    """Of the frames of the training pairs, whichever gas they show."""
    pairs = tables.read_pairs(folder, "train")
    names = [name for gas in GASES for name in pairs[f"{gas}_frame"] if name]
    rule, root = Rule.of(folder), tables.find(folder)
    frames = np.concatenate([features(rule.read_frame(tables.located(root, name))) for name in names])
    return Ranges.measure([frames], names=FEATURES, unit=["grey"] * len(FEATURES))
