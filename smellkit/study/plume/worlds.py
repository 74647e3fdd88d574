"""Does it travel? Weights on pairs of even classes of every simulator, whether they have learned from it or not.

A choice is made on a simulator that is kept back: small weights that learned from the others are scored on it alone.

smellkit data simulate plume --out DIR --pairs 1100 --frames 1 --size 96x72 --shares 20,1,1 --seed 31
    --missing none --variety 0.7 --world own,own,particles,advected
smellkit train plume --name small --set data=DIR --set model=plumenet --set height=60 --set alpha=1,1,1 --set ph=0.5
    --set masks=2 --set invert=0.1 --set dropout=0.3 --set epochs=5 --set batch=16 --set learning_rate=0.003
    --set weight_decay=0.0001 --set warmup=0.05
python -m smellkit.study.plume.release small WEIGHTS
smellkit bench plume-worlds --weights WEIGHTS --world cone
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from smellkit import checkpoint, paths
from smellkit.plume import CLASSES
from smellkit.plume.predict import PlumePredictor
from smellkit.plume.video import agreed
from smellkit.simulate import plume as simulate
from smellkit.simulate import plume_physics
from smellkit.simulate.plume_worlds import WORLDS
from smellkit.study import evaluate
from smellkit.study.evaluate import Outcome
from smellkit.study.plume import baselines, bench
from smellkit.study.plume import data as samples

PAIRS, SEED = 300, 61  # of a test set
DRAWN = 5000  # vessels a class
VIDEOS, FRAMES = 100, 5  # of a test set of videos, and of each of them
OWN = ("own", "own, CO2 often alone")  # the second has the missing gases of the published set
EMISSION = "true emission, without what a missing gas tells"  # the most that can be known of the class
MEASURES = ("miou", "balanced", "accuracy", "plume_co2", "plume_ch4", "tube_co2", "tube_ch4")


def travel(
    weights: str = "plume", *, worlds: Sequence[str] = tuple(WORLDS), progress: Callable[[str], object] = print
) -> dict[str, Any]:
    """Scores with intervals of the `weights`, and of who knows the true emission, on our simulator and on `worlds`.

    `videos` are by how much the weights are better on frames that they see in their videos than singly.
    """
    model = PlumePredictor.load(checkpoint.find(weights)).model
    tests, films = (*OWN, *worlds), (OWN[0], *worlds)
    alone, seen = ({world: filmed(model, world, videos=videos) for world in films} for videos in (False, True))
    rows: dict[str, Callable[[int], dict[str, Outcome]]] = {
        "shipped weights": lambda _: {world: scored(model, world) for world in tests},
        "shipped weights, frames of videos": lambda _: alone,
        "shipped weights, videos": lambda _: seen,
        EMISSION: lambda _: {world: emission_known(world) for world in tests},
    }
    about = {"pairs": PAIRS, "seed": SEED}
    measured = evaluate.evaluate(rows, seeds=1, about=about, progress=progress)["rows"]
    kept = {name: {world: row[world] for world in tests if world in row} for name, row in measured.items()}
    better = {world: evaluate.paired_difference([seen[world]], [alone[world]]) for world in films}
    gained = {world: {name: part._asdict() for name, part in gain.items()} for world, gain in better.items()}
    return {"about": about, "rows": kept, "videos": gained}


def scored(model: nn.Module, world: str) -> Outcome:
    """What a model answers on the test pairs of a simulator; see OWN."""
    return answered(model, tested(world))


def filmed(model: nn.Module, world: str, *, videos: bool) -> Outcome:
    """What a model answers on videos of a simulator: to each as one, or to all frames singly."""
    folder = tested(world, frames=FRAMES)
    shown = samples.paired(folder, "test", videos=float(videos))
    groups, predictions = baselines.videos(folder, shown), bench.predictions_of(model, shown)
    if videos:
        predictions.kept["class_logits"] = agreed(predictions.kept["class_logits"].log_softmax(dim=1), groups.tolist())
    return predictions.outcome(groups, measures=MEASURES)


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
    shown = samples.paired(folder := tested(world), "test")
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


def tested(world: str, *, frames: int = 1) -> str:
    """The folder of the test pairs of a simulator, made where it is not there; see OWN and FRAMES."""
    how: dict[str, Any] = {"pairs": PAIRS if frames == 1 else VIDEOS * frames, "missing": "even", "world": world}
    if world == OWN[1]:
        how = {"pairs": 3 * PAIRS, "missing": "fume", "world": "own"}
    name = f"test-{'fume' if world == OWN[1] else world}-{how['pairs']}-{SEED}{f'-{frames}' if frames > 1 else ''}"
    folder = paths.work() / "plume-worlds" / name
    if not folder.exists():
        simulate.write(folder, frames=frames, size=(160, 120), shares=(0, 0, 1), seed=SEED, **how)
    return str(folder)
