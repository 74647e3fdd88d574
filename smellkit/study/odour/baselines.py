"""Classical models on summary features, through well-kept libraries, behind one registry.

Each has `fit(windows (windows, steps, channels), target) -> itself` and `scores(windows) -> log-probabilities`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from smellkit.odour.features import LAG, QuantileNormalizer, describe
from smellkit.windows import Array

FLOOR = 1e-3  # added to probabilities that a forest counts, before the logarithm


class Baseline:
    """A scikit-learn style classifier on the summary features of a window."""

    lag = 0  # rows over which differences are summarised as well

    def __init__(self, *, seed: int = 0, threads: int = 1):
        self.seed = seed
        self.threads = threads

    def fit(self, windows: Array, target: NDArray[np.int64]) -> Baseline:
        """Fit on windows (windows, steps, channels) whose classes are 0, 1, ..., each of them present."""
        x = self._describe(windows)
        self.normalizer = QuantileNormalizer(x.shape[1]).fit(x)
        self.model = self._fit(self._inputs(x), np.asarray(target))
        return self

    def scores(self, windows: Array) -> Array:
        """Log-probabilities (windows, classes)."""
        return np.log(self.model.predict_proba(self._inputs(self._describe(windows))) + FLOOR).astype(np.float32)

    def _describe(self, windows: Array) -> torch.Tensor:
        return describe(windows, lag=self.lag)

    def _inputs(self, x: torch.Tensor) -> Array:
        return x.numpy()

    def _fit(self, x: Array, target: NDArray):
        raise NotImplementedError


class Lda(Baseline):
    """Linear discriminants with a shrunk covariance, on normal features: 0.1 s to fit."""

    def _inputs(self, x):
        return self.normalizer(x).numpy()

    def _fit(self, x, target):
        return discriminants().fit(x, target)

    def scores(self, windows):
        return self.model.predict_log_proba(self._inputs(self._describe(windows))).astype(np.float32)


class ExtraTrees(Baseline):
    """Extremely randomised trees."""

    trees = 300

    def _fit(self, x, target):
        from sklearn.ensemble import ExtraTreesClassifier

        model = ExtraTreesClassifier(self.trees, min_samples_leaf=2, random_state=self.seed, n_jobs=self.threads)
        return model.fit(x, target)


class ExtraTreesLda(ExtraTrees):
    """Trees that see the linear discriminants' scores beside the features: a tree alone can't add features up."""

    def fit(self, windows, target):
        x = self._describe(windows)
        self.linear = discriminants().fit(QuantileNormalizer(x.shape[1]).fit(x)(x).numpy(), target)
        return super().fit(windows, target)

    def _inputs(self, x):
        scores = self.linear.decision_function(self.normalizer(x).numpy())
        return np.concatenate([x.numpy(), scores.reshape(len(x), -1)], axis=1)


class CurveTrees(ExtraTreesLda):
    """The same on whole curves (level-free, or rebuilt), with the differences of the strict protocol beside them."""

    lag, trees = LAG, 150


class LightGbm(Baseline):
    """Gradient-boosted trees (the extra `peers`)."""

    def _fit(self, x, target):
        from lightgbm import LGBMClassifier

        model = LGBMClassifier(
            n_estimators=80,
            learning_rate=0.08,
            num_leaves=15,
            colsample_bytree=0.3,
            verbose=-1,
            random_state=self.seed,
            n_jobs=self.threads,
        )
        return model.fit(x, target)

    def scores(self, windows):
        return np.log(self.model.predict_proba(self._describe(windows).numpy()) + 1e-6).astype(np.float32)


BASELINES: dict[str, Callable[..., Baseline]] = {
    "lda": Lda,
    "extratrees": ExtraTrees,
    "extratrees-lda": ExtraTreesLda,
    "curve-trees": CurveTrees,
    "lightgbm": LightGbm,
}


def discriminants():
    """Linear discriminants whose covariance is shrunk by a tenth."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
