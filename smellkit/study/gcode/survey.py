"""Where the information sits: what a forest names from one kind of sensor alone, with and without honest splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.gcode.data import LENGTH, Machine
from smellkit.gcode.recordings import CONTINUOUS, MODALITIES, modality
from smellkit.gcode.tokens import EOS, PAD, UNK
from smellkit.study.gcode.splits import split


def features(machine: Machine) -> NDArray[np.float32]:
    """Mean and deviation of every channel in every window, (windows, 155, 2); 0 where a node is missing."""
    described = np.zeros((len(machine), len(CONTINUOUS), 2), np.float32)
    for rows in np.array_split(np.arange(len(machine)), max(1, len(machine) // 256)):
        values, _ = machine.take(machine.windows["row"].to_numpy()[rows])
        known = ~np.isnan(values)
        count = np.maximum(known.sum(axis=1), 1)
        filled = np.where(known, values, 0)
        mean = filled.sum(axis=1) / count
        spread = np.where(known, values - mean[:, None], 0)
        described[rows, :, 0], described[rows, :, 1] = mean, np.sqrt((spread**2).sum(axis=1) / count)
    return described


def by_modality(machine: Machine, *, protocols: str = "SG", trees: int = 50, seed: int = 7) -> pd.DataFrame:
    """Accuracy of operation and of the whole line from one modality alone: modality, channels, protocol, two scores.

    ExtraTrees on `features`; G is fold 0. `missing nodes` sees nothing but which nodes were there.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    described = features(machine)
    kinds = np.array([modality(channel) for channel in CONTINUOUS])
    chosen = {kind: described[:, kinds == kind].reshape(len(machine), -1) for kind in MODALITIES}
    chosen["all"] = described.reshape(len(machine), -1)
    chosen["missing nodes"] = (described == 0).all(axis=2)
    operation, line = (machine.windows[name].to_numpy() for name in ("operation_id", "line"))
    rows = []
    for protocol in protocols:
        train, _, test = split(machine.windows, protocol)
        for kind, table in chosen.items():
            forest = ExtraTreesClassifier(trees, n_jobs=1, random_state=seed, min_samples_leaf=2)
            right = forest.fit(table[train], operation[train]).predict(table[test]) == operation[test]
            same = forest.fit(table[train], line[train]).predict(table[test]) == line[test]
            width = int((kinds == kind).sum()) or len(CONTINUOUS)
            row = {"modality": kind, "channels": width, "protocol": protocol}
            rows.append(row | {"operation": right.mean(), "line": same.mean()})
    return pd.DataFrame(rows)


def ties(machine: Machine) -> pd.Series:
    """Whether each window has several lines that are equally frequent, so that its label is the earliest of them."""
    tied: list[bool] = []
    for rows in np.array_split(machine.windows["row"].to_numpy(), max(1, len(machine) // 256)):
        codes = machine.row_lines[rows[:, None] + np.arange(LENGTH)]
        counts = (codes[:, :, None] == codes[:, None, :]).sum(axis=2)
        best = counts == counts.max(axis=1, keepdims=True)
        tied += [len(set(row[mask])) > 1 for row, mask in zip(codes, best, strict=True)]
    return pd.Series(tied, index=machine.windows.index)


def composition(target: NDArray[np.int64], names: tuple[str, ...]) -> pd.Series:
    """Shares of the kinds of tokens among targets (n, 8): EOS, UNK, letters, commands, numbers."""
    kept = target[target != PAD]
    texts = np.array(names)[kept]
    number = np.array([text.startswith("NUM_") for text in texts])
    letter = np.array([len(text) == 1 for text in texts])
    shares = {
        "EOS": (kept == EOS).mean(),
        "UNK": (kept == UNK).mean(),
        "letters": letter.mean(),
        "numbers": number.mean(),
    }
    return pd.Series(shares | {"commands": 1 - sum(shares.values())})
