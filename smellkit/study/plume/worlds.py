"""Does it travel? Weights, and small networks that have seen more or fewer simulators, on one that they never saw.

own, cone, particles, advected --> pairs of even classes --> shipped weights, and fits with one simulator left out
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from smellkit import checkpoint, paths
from smellkit.plume import CLASSES
from smellkit.plume.predict import PlumePredictor
from smellkit.simulate import plume as simulate
from smellkit.simulate import plume_physics
from smellkit.simulate.plume_worlds import WORLDS
from smellkit.study import evaluate
from smellkit.study.evaluate import Outcome
from smellkit.study.plume import baselines, bench, release, task
from smellkit.study.plume import data as samples
from smellkit.train import Settings, fit

PAIRS, SEED = 300, 61  # of a test set
TRAIN_PAIRS, VARIETY = 1100, 0.7
DRAWN = 5000  # vessels a class
RECIPE: dict[str, Any] = {"model": "plumenet", "alpha": "1,1,1", "ph": 0.5, "masks": 2, "invert": 0.1, "dropout": 0.3}
SMALL: dict[str, Any] = {"epochs": 5, "batch": 16, "learning_rate": 3e-3, "weight_decay": 1e-4, "warmup": 0.05}
HEIGHT = 60  # rows that the small networks see
OWN = ("own", "own, CO2 often alone")  # the second has the missing gases of the published set
ONE, MORE = "own simulator alone", "own and two others, never the tested one"
EMISSION = "true emission, without what a missing gas tells"  # the most that can be known of the class
MEASURES = ("miou", "balanced", "accuracy", "plume_co2", "plume_ch4", "tube_co2", "tube_ch4")


def travel(
    weights: str = "",
    *,
    worlds: Sequence[str] = tuple(WORLDS),
    seeds: int = 1,
    progress: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Scores with intervals of the `weights` on every simulator, and of small fits with `seeds` seeds on all but ours.

    Without weights only the fits are made, with 0 seeds only the weights are scored.
    """
    rows: dict[str, Any] = {}
    about = {"pairs": PAIRS, "seed": SEED, "training": {**RECIPE, **SMALL, "pairs": TRAIN_PAIRS, "variety": VARIETY}}
    if weights:
        model = PlumePredictor.load(checkpoint.find(weights)).model
        tests = (*OWN, *worlds)
        shipped = {
            "shipped weights": lambda seed: {world: scored(model, world) for world in tests},
            EMISSION: lambda seed: {world: emission_known(world) for world in tests},
        }
        rows |= evaluate.evaluate(shipped, seeds=1, about=about, progress=progress)["rows"]
    if seeds:
        one = cache(lambda seed: trained("own", seed))
        fits: dict[str, Callable[[int], dict[str, Outcome]]] = {
            ONE: lambda seed: {world: scored(one(seed), world) for world in worlds},
            MORE: lambda seed: {world: scored(trained(others(world), seed), world) for world in worlds},
        }
        rows |= evaluate.evaluate(fits, seeds=seeds, about=about, progress=progress)["rows"]
    shown = {name: {world: row[world] for world in (*OWN, *WORLDS) if world in row} for name, row in rows.items()}
    return {"about": about | {"seeds": seeds}, "rows": shown}


def others(world: str) -> str:
    """What takes turns in training where `world` is left out: every second video is our simulator's."""
    return ",".join(["own", "own", *(name for name in WORLDS if name != world)])


def trained(names: str, seed: int) -> nn.Module:
    """A small network that has learned from the simulators `names`."""
    folder = _simulated(f"train-{names.replace(',', '-')}", pairs=TRAIN_PAIRS, seed=31, size=(96, 72), variety=VARIETY,
                        missing="none", shares=(20, 1, 1), world=names)  # fmt: skip
    options = {"data": folder, "height": HEIGHT, **RECIPE}
    learned: Any = task.PlumeTask(**options)
    run = fit(learned, Settings(**SMALL, seed=seed), params=options, name=f"worlds/{names}-{seed}")
    return release.from_run(run).model


def scored(model: nn.Module, world: str) -> Outcome:
    """What a model answers on the test pairs of a simulator; see OWN."""
    return answered(model, tested(world))


def answered(model: nn.Module, folder: str) -> Outcome:
    """What a model answers on the test pairs of a folder."""
    shown = samples.paired(folder, "test")
    return bench.predictions_of(model, shown).outcome(baselines.videos(folder, shown), measures=MEASURES)


def emission_known(world: str) -> Outcome:
    """What a rule on the true emission of the gases that were filmed names, to which all classes are as likely.

    A camera tells less than this. Who learns which gases were filmed in which class names more, where that repeats.
    """
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

    ph = np.array([[simulate.PH[name][row % len(simulate.PH[name])] for row in range(DRAWN)] for name in CLASSES])
    label, drawn = np.repeat(np.arange(len(CLASSES)), DRAWN), np.random.default_rng(SEED)
    vessels = plume_physics.emission(ph.ravel(), random=drawn)
    folder = tested(world)
    shown = samples.paired(folder, "test")
    emitted = baselines.emissions(folder, shown, split="test")
    assert emitted is not None  # the simulator tells it
    asked, there = np.split(emitted, 2, axis=1)
    logits = np.zeros((len(asked), len(CLASSES)))
    for seen in np.unique(there, axis=0):
        rows, gases = (there == seen).all(axis=1), seen > 0
        rule = QuadraticDiscriminantAnalysis(priors=[1 / 3] * 3).fit(vessels[:, gases], label)
        logits[rows] = rule.predict_log_proba(asked[rows][:, gases])
    known = {"present": torch.as_tensor(there), "label": shown.label[shown.row]}
    answers = bench.Predictions({"class_logits": torch.as_tensor(logits)}, known)
    return answers.outcome(baselines.videos(folder, shown), measures=MEASURES)


def tested(world: str) -> str:
    """The folder of the test pairs of a simulator; see OWN."""
    published = world == OWN[1]
    return _simulated(
        f"test-{'fume' if published else world}",
        pairs=PAIRS * 3 if published else PAIRS,
        missing="fume" if published else "even",
        world="own" if published else world,
        size=(160, 120),
        shares=(0, 0, 1),
        seed=SEED,
    )


def _simulated(name: str, **how: Any) -> str:
    folder = paths.work() / "plume-worlds" / f"{name}-{how['pairs']}-{how['seed']}"
    if not folder.exists():
        simulate.write(folder, frames=1, **how)
    return str(folder)
