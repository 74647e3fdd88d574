"""Where the information sits: what a forest names from one kind of sensor alone, with and without honest splits."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.gcode.data import LENGTH, Machine
from smellkit.gcode.recordings import CONTINUOUS, MODALITIES, modality
from smellkit.gcode.tokens import PAD
from smellkit.study.gcode.splits import split


def features(machine: Machine) -> NDArray[np.float32]:
    """Mean and deviation of every channel in every window, (windows, 155, 2); 0 where a node is missing."""
    blocks = []
    for rows in np.array_split(machine.windows["row"], max(1, len(machine) // 256)):
        values = np.ma.masked_invalid(machine.take(rows)[..., : len(CONTINUOUS)])
        blocks.append(np.stack([values.mean(axis=1).filled(0), values.std(axis=1).filled(0)], axis=2))
    return np.concatenate(blocks).astype(np.float32)


def by_modality(machine: Machine, *, protocols: str = "SG", trees: int = 50, seed: int = 7) -> pd.DataFrame:
    """Accuracy of operation and of the whole line from one modality alone: modality, channels, protocol, two scores.

    ExtraTrees on `features`; G is fold 0. `missing nodes` sees nothing but which nodes were there.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    described, kinds = features(machine), np.array([modality(channel) for channel in CONTINUOUS])
    chosen = {kind: described[:, kinds == kind] for kind in MODALITIES}
    chosen |= {"all": described, "missing nodes": (described == 0).all(axis=2)}
    rows = []
    for protocol in protocols:
        train, _, test = split(machine.windows, protocol)
        for kind, values in chosen.items():
            table = values.reshape(len(machine), -1)
            row = {"modality": kind, "channels": values.shape[1], "protocol": protocol}
            for name, target in {"operation": "operation_id", "line": "line"}.items():
                forest = ExtraTreesClassifier(trees, n_jobs=1, random_state=seed, min_samples_leaf=2)
                truth = machine.windows[target].to_numpy()
                row[name] = (forest.fit(table[train], truth[train]).predict(table[test]) == truth[test]).mean()
            rows.append(row)
    return pd.DataFrame(rows)


def ties(machine: Machine) -> pd.Series:
    """Whether each window has several lines that are equally frequent, so that its label is the earliest of them."""
    counts = [np.unique(machine.row_lines[row : row + LENGTH], return_counts=True)[1] for row in machine.windows["row"]]
    return pd.Series([(count == count.max()).sum() > 1 for count in counts], index=machine.windows.index)


def composition(target: NDArray[np.int64], names: tuple[str, ...]) -> pd.Series:
    """Shares of the kinds of tokens among targets (n, 8): EOS, UNK, letters, numbers, commands."""
    kinds = ["numbers" if name.startswith("NUM_") else "letters" if len(name) == 1 else "commands" for name in names]
    kinds = [name if name in ("EOS", "UNK") else kind for name, kind in zip(names, kinds, strict=True)]
    return pd.Series(np.array(kinds)[target[target != PAD]]).value_counts(normalize=True)
