"""Everything that the benchmark can fit, by name: a network, a classical baseline, or several of them averaged.

A baseline has `fit(windows (windows, steps, channels), target) -> itself` and `scores(windows) -> log-probabilities`.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from smellkit import checkpoint, train
from smellkit.errors import DataError
from smellkit.odour.encoder import BACKBONES, Encoder, discriminant, make
from smellkit.odour.features import LAG, QuantileNormalizer, describe
from smellkit.odour.windows import LabelledWindows, Protocol
from smellkit.options import check
from smellkit.sensors import ENVIRONMENT, GAS, SENSORS
from smellkit.study.odour.encoder_task import RECIPES, EncoderConfig, over_windows
from smellkit.windows import Array

Scorer = Callable[[Array], Array]  # windows (windows, steps, channels) -> log-probabilities (windows, classes)


@dataclass
class Discriminant:
    """A shrinkage discriminant (0.1 s to fit) on features (rows, n) that were made normal; `least` as `make` has it."""

    normalizer: QuantileNormalizer
    model: Any

    @classmethod
    def fit(cls, x: NDArray, target: NDArray, **least: Any) -> Discriminant:
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        tensor = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        normalizer = QuantileNormalizer(tensor.shape[1], **least).fit(tensor)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
        return cls(normalizer, model.fit(normalizer(tensor).numpy(), target))

    def normal(self, x: NDArray) -> NDArray:
        """The features, about N(0, 1) each."""
        return self.normalizer(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()

    def scores(self, x: NDArray) -> NDArray:
        """Log-probabilities (rows, classes)."""
        return self.model.predict_log_proba(self.normal(x))

    def network(self, values: NDArray, **least: float) -> Encoder:
        """The same as weights, on summary features of windows such as `values`."""
        weight, bias = self.model.coef_, self.model.intercept_
        if len(weight) == 1:  # two classes: scikit-learn keeps their difference alone
            weight, bias = np.vstack([0 * weight, weight]), np.hstack([0 * bias, bias])
        return discriminant(torch.from_numpy(values), torch.from_numpy(weight), torch.from_numpy(bias), **least)


@dataclass
class Baseline:
    """A classifier on the summary features of a window: of a scikit-learn style, or linear discriminants alone (None).

    Where it is `scored`, it sees the features with linear discriminants beside, because a tree alone can't add up.
    """

    model: Any = None
    scored: bool = False
    lag: int = 0  # rows over which differences are summarised as well
    floor: float = 1e-3  # added to probabilities that a forest counts, before the logarithm

    def fit(self, windows: Array, target: NDArray[np.int64]) -> Baseline:
        x = describe(windows, lag=self.lag).numpy()
        if self.scored or self.model is None:
            self.linear = Discriminant.fit(x, target)
        if self.model is not None:
            self.model.fit(self._inputs(x), np.asarray(target))
        return self

    def scores(self, windows: Array) -> Array:
        """Log-probabilities (windows, classes)."""
        x = describe(windows, lag=self.lag).numpy()
        if self.model is None:
            return self.linear.scores(x).astype(np.float32)
        return np.log(self.model.predict_proba(self._inputs(x)) + self.floor).astype(np.float32)

    def _inputs(self, x: Array) -> Array:
        if not self.scored:
            return x
        beside = self.linear.model.decision_function(self.linear.normal(x))
        return np.concatenate([x, beside.reshape(len(x), -1)], axis=1)


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
    "lda": lambda seed: Baseline(),
    "extratrees": lambda seed: Baseline(forest(seed)),
    "extratrees-lda": lambda seed: Baseline(forest(seed), scored=True),
    "curve-trees": lambda seed: Baseline(forest(seed, trees=150), scored=True, lag=LAG),  # on curves and differences
    "lightgbm": lambda seed: Baseline(boosted(seed), floor=1e-6),
}


@dataclass(frozen=True)
class System:
    """What to fit, on which input, and in which table of the report it belongs."""

    members: tuple[str, ...]  # of BACKBONES or BASELINES
    protocol: Protocol = Protocol()
    table: str = "strict"
    train_stride: int = 20
    calibrated: bool = False  # worth more fits, on parts of the training split
    augment: dict[str, float] = field(default_factory=dict)  # of the networks, see `EncoderConfig`
    days: bool = False  # learns from simulated days as well, see `sessions`

    @property
    def stride(self) -> int:
        """The stride that holds both the windows to train on and those to grade."""
        return int(np.gcd(self.protocol.stride, self.train_stride))

    @property
    def settings(self) -> dict[str, Any]:
        """What a published row says of how it was fitted."""
        of = {"members": list(self.members), "channels": list(self.protocol.columns), **self.augment}
        more = {"table": self.table} | ({"days": True} if self.days else {})
        return of | {"representation": self.protocol.representation, **more}


FREE, REBUILT = Protocol("level-free"), Protocol("rebuilt")  # rebuilt from the strict differences alone
ENSEMBLE = ("curve-trees", *3 * ("curve-mlp",))
curves = partial(System, protocol=REBUILT, train_stride=10)  # looks at whole curves, and at differences beside them
SYSTEMS: dict[str, System] = {
    **{name: System((name,)) for name in [*BACKBONES, *BASELINES] if name != "linear"},
    "summary-mlp": System(("summary-mlp",), calibrated=True),
    "curve-mlp": curves(("curve-mlp",), calibrated=True),
    "curve-trees": curves(("curve-trees",)),
    "ensemble": curves(ENSEMBLE, calibrated=True),
    "level-free/summary-mlp": System(("summary-mlp",), FREE, "level-free"),
    "level-free/curve-mlp": curves(("curve-mlp",), protocol=FREE, table="level-free"),
    "level-free/ensemble": curves(ENSEMBLE, protocol=FREE, table="level-free"),
    "confounded/11 level-free": curves(
        ENSEMBLE, protocol=Protocol("level-free", (*GAS, *ENVIRONMENT)), table="confounded"
    ),
    "confounded/12 absolute": System(("extratrees",), Protocol("absolute", SENSORS), "confounded"),
    "confounded/conductance": System(("summary-mlp",), Protocol("conductance"), "confounded", calibrated=True),
}


def named(name: str) -> System:
    """The system called `name`."""
    check([name], SYSTEMS, "There is no model")
    return SYSTEMS[name]


def fit(system: System, train: LabelledWindows, *, seed: int = 1, name: str = "bench") -> Scorer:
    """Fit `system` on the windows `train` (cut at its `train_stride`) and return what scores new windows.

    Nothing is held out here: how long to train was chosen by cross-validation before. The average is of
    log-probabilities. `name` is the run folder of the networks.
    """
    scorers: list[Scorer] = []
    for number, member in enumerate(system.members):
        if member in BASELINES:
            scorers.append(BASELINES[member](seed + number).fit(train.values, train.target).scores)
        else:
            network = trained(member, train, system=system, seed=seed + 100 * number, name=name)
            scorers.append(partial(network_scores, network))
    return lambda windows: _average(system.members, [scorer(windows) for scorer in scorers])


def trained(
    model: str, windows: LabelledWindows, *, seed: int, name: str, system: System = System(()), **changes: Any
) -> Encoder:
    """Train a network on all of `windows`, as `system` augments it, and return it; its run's folder is not kept.

    `changes` replace settings of the network's recipe.
    """
    some = windows[np.arange(0, len(windows), max(1, len(windows) // 500))]
    augment: dict[str, Any] = system.augment
    config = EncoderConfig(model=model, representation=system.protocol.representation, fold=-1, **augment)
    own = f"{name}/{model}-{secrets.token_hex(4)}"  # who trains the same at the same time has a folder of its own
    task = over_windows(lambda: {"train": windows, "valid": some}, config)
    run = train.fit(task, replace(RECIPES[model], seed=seed, **changes), name=own)
    network = checkpoint.restore(make(model, windows.values.shape[1:], classes=len(windows.classes)), run.folder)
    shutil.rmtree(run.folder)
    return network


def network_scores(network: Encoder, windows: Array) -> Array:
    """Log-probabilities (windows, classes) of windows by a network."""
    return network.run(windows).log_softmax(1).numpy()


def cross_validate(
    system: System, windows: LabelledWindows, *, name: str = "bench", seed: int = 1, folds: int = 0, fewer: int = 0
) -> tuple[NDArray, LabelledWindows]:
    """Log-probabilities of windows at the protocol's stride, each from a fit without its recording's fold.

    With `folds`, only the recordings of the first so many folds are scored. Returns those windows too. `fewer` folds
    after the scored one are left out of its fit as well.
    """
    count = int(windows.fold.max()) + 1
    folds = min(folds or count, count)
    graded = windows.every(system.protocol.stride)
    graded = graded[graded.fold < folds]
    scores = np.zeros((len(graded), len(windows.classes)), np.float32)
    for fold in range(folds):
        apart = [(fold + more) % count for more in range(fewer + 1)]
        known = windows[~np.isin(windows.fold, apart)].every(system.train_stride)
        held = graded.fold == fold
        if len(np.unique(known.target)) < len(windows.classes):
            raise DataError("Cross-validation needs two recordings of every substance", hint="--folds 0 leaves it out")
        scores[held] = fit(system, known, seed=seed, name=f"bench/{name}/fold={fold}")(graded[held].values)
    return scores, graded


def _average(members: Sequence[str], parts: list[NDArray]) -> Array:
    """Mean log-probabilities of equal members, then of different ones: each kind has the same weight."""
    kinds = [[part for other, part in zip(members, parts, strict=True) if other == member] for member in set(members)]
    return log_softmax(np.mean([np.mean(kind, axis=0) for kind in kinds], axis=0), axis=1).astype(np.float32)
