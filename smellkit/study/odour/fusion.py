"""`smellkit bench fusion`: how much each sense is worth, alone and together, missing, and in conflict.

rows   product of experts | network on evidence | network on embeddings (plain) | experts trained without one sense
splits seven subsets of smell, picture and text, on test and (where there is one) unseen; conflicts; single scents
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit.odour.experts import Experts
from smellkit.odour.mixture import dynamic_top_k, within_tolerance
from smellkit.odour.mixture_task import divergence
from smellkit.odour.recordings import find
from smellkit.odour.scents import SCENTS
from smellkit.study.evaluate import Outcome, evaluate, percent
from smellkit.study.odour import fusion_task
from smellkit.study.odour.experts import fit_experts, take
from smellkit.study.odour.fusion_network import MODALITIES
from smellkit.study.odour.fusion_task import correct
from smellkit.study.odour.scenes import Scenes, Smells, read_scenes
from smellkit.task import Batch
from smellkit.train import Settings

SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(range(len(MODALITIES)), n)]
ALL = (0, 1, 2)
SETTINGS = Settings(epochs=12, batch=128, learning_rate=2e-3)
Predict = Callable[..., NDArray]  # smells, what was drawn, which senses, single=False -> beta (n, 12)


def name_of(subset: Sequence[int]) -> str:
    """Return a subset of the senses in words: `smell + text`."""
    return " + ".join(MODALITIES[i] for i in subset)


def by_experts(experts: Experts, scenes: Scenes) -> Predict:
    """The product of experts as a prediction."""

    def predict(smells: Smells, drawn: Batch, subset: Sequence[int], *, single: bool = False) -> NDArray:
        likelihoods = [experts.seen(MODALITIES[i], drawn[MODALITIES[i]].numpy()) for i in subset if i]
        flat = experts.flat(len(smells), single=single)
        belief = smells.belief(experts, scenes.mixtures) if 0 in subset else flat
        return experts.decide(experts.fuse(belief, *likelihoods))

    return predict


def by_network(network: Any, scenes: Scenes, *, plain: bool) -> Predict:
    """A trained network as a prediction."""

    def predict(smells: Smells, drawn: Batch, subset: Sequence[int], *, single: bool = False) -> NDArray:
        return fusion_task.beta(network, scenes.batch(smells, drawn, plain=plain), subset).numpy()

    return predict


def outcome(beta: NDArray, smells: Smells, *, classes: bool = False) -> Outcome:
    """All measures of beta (n, 12), by recording; with `classes` the accuracy of the loudest scent for each scent."""
    truth = smells.ratios.astype(float)
    right = correct(torch.from_numpy(beta.astype(np.float32)), torch.from_numpy(smells.ratios)).numpy()
    measures: dict[str, Any] = {
        "top1_at_0.1": within_tolerance(beta, truth),
        "dynamic_top_k": dynamic_top_k(beta, truth),
        "mae": np.abs(beta - truth).mean(axis=1),
        "kl": divergence(beta, truth),
        "loudest": right,
    }
    if classes:
        strongest = truth >= truth.max(axis=1, keepdims=True) - 1e-6
        measures |= {name: _share(right, strongest[:, i]) for i, name in enumerate(SCENTS) if strongest[:, i].any()}
    return Outcome(smells.windows.recording, measures)


def _share(right: NDArray, where: NDArray) -> Callable[[NDArray], float]:
    def share(rows: NDArray) -> float:
        chosen = rows[where[rows]]
        return float(right[chosen].mean()) if len(chosen) else float(right[where].mean())

    return share


def outcomes(predict: Predict, scenes: Scenes, *, seed: int, subsets: Sequence = SUBSETS) -> dict[str, Outcome]:
    """Score a prediction on every subset of the senses: "test, smell + text"; "single" are scenes of one scent."""
    table = {}
    for part in (part for part in ("valid", "valid-day", "test", "unseen") if part in scenes.smells):
        smells = scenes.smells[part]
        drawn = draw(scenes, part, smells, seed)
        for subset in subsets:
            beta = predict(smells, drawn, subset)
            table[f"{part}, {name_of(subset)}"] = outcome(beta, smells, classes=part == "test")
    if len(subsets) == len(SUBSETS):
        table |= singles(predict, scenes, seed=seed) | conflicts(predict, scenes, seed=seed)
    return table


def draw(scenes: Scenes, part: str, smells: Smells, seed: int) -> Batch:
    return scenes.draw(part, torch.from_numpy(smells.ratios), generator=torch.Generator().manual_seed(seed))


def pure(scenes: Scenes) -> Smells:
    """The windows of the test that hold one scent alone."""
    return take(scenes.smells["test"], np.flatnonzero(scenes.smells["test"].ratios.max(axis=1) > 0.99))


def singles(predict: Predict, scenes: Scenes, *, seed: int) -> dict[str, Outcome]:
    """How often the scent of a scene of one scent comes first, by picture, by text and by both: one of each."""
    smells = pure(scenes)
    if not len(smells):
        return {}
    drawn, ratios = draw(scenes, "test", smells, seed), torch.from_numpy(smells.ratios)
    table = {}
    for subset in ((1,), (2,), (1, 2), ALL):
        beta = torch.from_numpy(predict(smells, drawn, subset, single=True).astype(np.float32))
        table[f"single, {name_of(subset)}"] = Outcome(
            smells.windows.recording, {"right": correct(beta, ratios).numpy()}
        )
    return table


def conflicts(predict: Predict, scenes: Scenes, *, seed: int) -> dict[str, Outcome]:
    """Which sense is followed when one shows another scent than the two others; on recordings of one scent.

    For each odd sense: the share of windows in which beta's largest scent is the one that it shows alone, or the one
    that the two others show (of all, and of those in which each of them alone names it), and the margin between the
    two largest.
    """
    smells = pure(scenes)
    if not len(smells):
        return {}
    random = torch.Generator().manual_seed(seed)
    own = torch.from_numpy(smells.ratios.argmax(axis=1))
    other = (own + torch.randint(1, len(SCENTS), own.shape, generator=random)) % len(SCENTS)
    agreed = scenes.draw("test", torch.eye(len(SCENTS))[own], generator=random)
    wrong = scenes.draw("test", torch.eye(len(SCENTS))[other], generator=random)
    swapped = take(smells, smell_of(own, other, random).numpy())
    table = {}
    for odd in ("none", *MODALITIES):
        drawn = {name: (wrong if name.startswith(odd) else agreed)[name] for name in agreed}
        shown = swapped if odd == "smell" else smells
        beta = predict(shown, drawn, ALL)
        others = [i for i, name in enumerate(MODALITIES) if name != odd]
        alone = [predict(shown, drawn, (i,), single=True).argmax(axis=1) == own.numpy() for i in others]
        top = np.sort(beta, axis=1)
        measures: dict[str, Any] = {
            "follows the others": beta.argmax(axis=1) == own.numpy(),
            "follows them where they agree": _share(beta.argmax(axis=1) == own.numpy(), np.all(alone, axis=0)),
            "follows it": beta.argmax(axis=1) == other.numpy(),
            "margin": top[:, -1] - top[:, -2],
        }
        table[f"conflict, {odd}"] = Outcome(smells.windows.recording, measures)
    return table


def smell_of(own: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each row one that smells of the scent `other`, or itself where nobody recorded that scent alone."""
    rows = torch.arange(len(own))
    for scent in other.unique():
        asked, known = torch.nonzero(other == scent).ravel(), torch.nonzero(own == scent).ravel()
        if len(known):
            rows[asked] = known[torch.randint(len(known), asked.shape, generator=generator)]
    return rows


def models(read: Callable[[int], Scenes], *, epochs: int = SETTINGS.epochs) -> dict[str, Callable[[int], dict]]:
    """Every row of the bench: a function from the seed to its outcomes; `read` gives the scenes of a seed."""

    def experts(seed: int) -> dict[str, Outcome]:
        scenes = read(seed)
        return outcomes(by_experts(fit_experts(scenes, seed=seed), scenes), scenes, seed=seed)

    def network(inputs: str, seed: int) -> dict[str, Outcome]:
        scenes = read(seed)
        settings = Settings(**{**vars(SETTINGS), "epochs": epochs, "seed": seed})
        made = fusion_task.fitted(scenes, name=f"bench-fusion/{inputs}-{seed}", settings=settings, inputs=inputs)
        return outcomes(by_network(made, scenes, plain=inputs == "embeddings"), scenes, seed=seed)

    def without(missing: int, seed: int) -> dict[str, Outcome]:
        scenes, rest = read(seed), [i for i in range(len(MODALITIES)) if i != missing]
        made = fit_experts(scenes, seed=seed, senses=rest)
        return outcomes(by_experts(made, scenes), scenes, seed=seed, subsets=[tuple(rest)])

    rows: dict[str, Callable[[int], dict]] = {"product of experts": experts}
    rows |= {f"network on {inputs}": functools.partial(network, inputs) for inputs in fusion_task.INPUTS}
    rows |= {f"experts without {name}": functools.partial(without, i) for i, name in enumerate(MODALITIES)}
    return rows


def run(
    data: str | Path = "",
    *,
    scene: str = "",
    seeds: int = 3,
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure all rows on a SmellNet folder, the sample by default; rows measured before on the same are kept."""
    from smellkit.odour.senses import load_scene_encoder

    read = functools.lru_cache(maxsize=None)(lambda seed: read_scenes(str(data), scene=scene, seed=seed))
    about = {"data": "sample" if not data else find(data).name, "encoder": load_scene_encoder(scene).identity}
    return evaluate(models(read), seeds=seeds, about=about, earlier=earlier, progress=progress)


def report(result: Mapping[str, Any]) -> str:
    """The main figures as text."""
    lines = []
    for row, splits in result["rows"].items():
        for split, figures in splits.items():
            if isinstance(figures, Mapping) and "top1_at_0.1" in figures and split.startswith(("test", "unseen")):
                scores = "   ".join(
                    f"{name} {percent(figures[name])}" for name in ("top1_at_0.1", "dynamic_top_k", "loudest")
                )
                lines.append(f"{row:24} {split:34} {scores}   MAE {figures['mae']['value']:.4f}")
    return "\n".join(lines)


def means(table: Mapping[str, Outcome]) -> dict[str, dict[str, float]]:
    """The plain means of all measures of outcomes, for a picture: {split: {measure: mean}}."""
    return {
        split: {name: float(np.mean(np.asarray(each))) for name, each in one.measures.items() if not callable(each)}
        for split, one in table.items()
    }


def by_scent(outcome: Outcome) -> dict[str, float]:
    """The share of windows whose loudest scent is right, for each scent."""
    rows = np.arange(len(np.asarray(outcome.groups)))
    return {name: score(rows) for name, score in outcome.measures.items() if callable(score)}


def gain_over_best_single(table: Mapping[str, Outcome], part: str = "test") -> dict[str, float]:
    """How far all three senses lie ahead of the best single one, for each scent, as shares of windows."""
    whole, *single = (by_scent(table[f"{part}, {name}"]) for name in (name_of(ALL), *MODALITIES))
    return {scent: whole[scent] - max(one[scent] for one in single) for scent in whole}
