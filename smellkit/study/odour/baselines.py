"""Classical models on summary features, through well-kept libraries, behind one registry.

Each has `fit(windows (windows, steps, channels), target) -> itself` and `scores(windows) -> log-probabilities`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smellkit.odour.features import LAG, QuantileNormalizer, describe
from smellkit.windows import Array


@dataclass
class Baseline:
    """A scikit-learn style classifier on the summary features of a window.

    `inputs` are the "features", the "normal" ones (about N(0, 1) each), or the features "scored" by linear
    discriminants beside them: a tree alone can't add features up.
    """

    model: Any
    inputs: str = "features"
    lag: int = 0  # rows over which differences are summarised as well
    floor: float = 1e-3  # added to probabilities that a forest counts, before the logarithm

    def fit(self, windows: Array, target: NDArray[np.int64]) -> Baseline:
        """Fit on windows (windows, steps, channels) whose classes are 0, 1, ..., each of them present."""
        x = describe(windows, lag=self.lag)
        self.normalizer = QuantileNormalizer(x.shape[1]).fit(x)
        if self.inputs == "scored":
            self.linear = discriminants().fit(self.normalizer(x).numpy(), target)
        self.model.fit(self._inputs(x), np.asarray(target))
        return self

    def scores(self, windows: Array) -> Array:
        """Log-probabilities (windows, classes)."""
        x = self._inputs(describe(windows, lag=self.lag))
        if not self.floor:
            return self.model.predict_log_proba(x).astype(np.float32)
        return np.log(self.model.predict_proba(x) + self.floor).astype(np.float32)

    def _inputs(self, x: torch.Tensor) -> Array:
        if self.inputs == "features":
            return x.numpy()
        normal = self.normalizer(x).numpy()
        if self.inputs == "normal":
            return normal
        return np.concatenate([x.numpy(), self.linear.decision_function(normal).reshape(len(x), -1)], axis=1)


def discriminants():
    """Linear discriminants whose covariance is shrunk by a tenth: 0.1 s to fit."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)


def forest(seed: int, *, trees: int = 300):
    """Extremely randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(trees, min_samples_leaf=2, random_state=seed, n_jobs=1)


def boosted(seed: int):
    """Gradient-boosted trees (the extra `peers`)."""
    from lightgbm import LGBMClassifier

    shape: dict[str, Any] = {"n_estimators": 80, "learning_rate": 0.08, "num_leaves": 15, "colsample_bytree": 0.3}
    return LGBMClassifier(**shape, verbose=-1, random_state=seed, n_jobs=1)


BASELINES: dict[str, Callable[[int], Baseline]] = {  # name -> function(seed)
    "lda": lambda seed: Baseline(discriminants(), "normal", floor=0.0),
    "extratrees": lambda seed: Baseline(forest(seed)),
    "extratrees-lda": lambda seed: Baseline(forest(seed), "scored"),
    "curve-trees": lambda seed: Baseline(forest(seed, trees=150), "scored", LAG),  # on whole curves and differences
    "lightgbm": lambda seed: Baseline(boosted(seed), floor=1e-6),
}
