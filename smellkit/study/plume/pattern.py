"""The baseline that looks at no picture: which gases were filmed already tells much of the class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.plume.annotations import CLASSES


@dataclass(frozen=True)
class Pattern:
    """Class shares for each pattern of missing gases ("", "co2", "ch4"), counted on training pairs.

    >>> Pattern.fit(train).predict(test)
    """

    shares: dict[str, NDArray[np.float64]]
    prior: NDArray[np.float64]

    @classmethod
    def fit(cls, pairs: pd.DataFrame) -> Pattern:
        """Count the classes in `pairs` (columns of `annotations.read_pairs`)."""
        count = pd.crosstab(pairs["missing_modality"], pairs["class_id"])
        count = count.reindex(columns=range(len(CLASSES)), fill_value=0)
        shares = {
            str(pattern): row / row.sum() for pattern, row in zip(count.index, count.to_numpy(float), strict=True)
        }
        return cls(shares, count.sum().to_numpy(float) / len(pairs))

    def probabilities(self, pairs: pd.DataFrame, *, even: bool = False) -> NDArray[np.float64]:
        """Chance of each class (pairs, 3); with `even`, as if all classes were equally frequent.

        A pattern that training has not seen gets the shares of all of training.
        """
        chance = np.array([self.shares.get(pattern, self.prior) for pattern in pairs["missing_modality"]])
        if even:
            chance = chance / np.maximum(self.prior, 1e-12) * (self.prior > 0)
        return chance / chance.sum(axis=1, keepdims=True)

    def predict(self, pairs: pd.DataFrame, *, even: bool = False) -> NDArray[np.int64]:
        """The likeliest class of each pair; `even` is for balanced accuracy."""
        return self.probabilities(pairs, even=even).argmax(axis=1)
