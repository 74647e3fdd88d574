"""`smellkit bench fusion`: how much each sense is worth, alone and together, missing, and in conflict.

rows   product of experts | network on evidence | network on embeddings (plain) | experts trained without one sense
splits seven subsets of smell, picture and text, on test and (where there is one) unseen; conflicts; single scents
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit.odour.experts import Experts
from smellkit.odour.mixture import dynamic_top_k, within_tolerance
from smellkit.odour.recordings import find
from smellkit.odour.scene_encoder import load_scene_encoder
from smellkit.odour.scents import SCENTS
from smellkit.study.evaluate import Outcome, evaluate, percent
from smellkit.study.odour import fusion_task
from smellkit.study.odour.experts import fit_experts
from smellkit.study.odour.fusion_task import MODALITIES, correct
from smellkit.study.odour.mixture_task import divergence
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


def posterior(
    experts: Experts, scenes: Scenes, smells: Smells, drawn: Batch, subset: Sequence[int], *, single: bool = False
) -> NDArray:
    """What the experts believe of each window, (n, m + 1), when only the senses numbered in `subset` are there."""
    likelihoods = [experts.seen(MODALITIES[i], drawn[MODALITIES[i]].numpy()) for i in subset if i]
    flat = experts.flat(len(smells), single=single)
    return experts.fuse(smells.belief(experts, scenes.mixtures) if 0 in subset else flat, *likelihoods)


def by_experts(experts: Experts, scenes: Scenes) -> Predict:
    """The product of experts as a prediction."""
    return lambda *given, single=False: experts.decide(posterior(experts, scenes, *given, single=single))


def by_network(network: Any, scenes: Scenes, *, plain: bool) -> Predict:
    """A trained network as a prediction."""

    def predict(smells: Smells, drawn: Batch, subset: Sequence[int], *, single: bool = False) -> NDArray:
        return fusion_task.beta(network, scenes.batch(smells, drawn, plain=plain), subset).numpy()

    return predict


def rightly(beta: NDArray, smells: Smells) -> NDArray[np.bool_]:
    """Whether the loudest scent of beta (n, 12) is one of the loudest in the air, (n,)."""
    return correct(torch.from_numpy(beta.astype(np.float32)), torch.from_numpy(smells.ratios)).numpy()


def outcome(beta: NDArray, smells: Smells, *, classes: bool = False) -> Outcome:
    """All measures of beta (n, 12), by recording; with `classes` the accuracy of the loudest scent for each scent."""
    truth, right = smells.ratios.astype(float), rightly(beta, smells)
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
    return Outcome(smells.recording, measures)


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
        drawn = scenes.show(part, smells, seed=seed)
        for subset in subsets:
            beta = predict(smells, drawn, subset)
            table[f"{part}, {name_of(subset)}"] = outcome(beta, smells, classes=part == "test")
    test = scenes.smells["test"]
    pure = test[np.flatnonzero(test.ratios.max(axis=1) > 0.99)]  # windows that hold one scent alone
    if len(subsets) == len(SUBSETS) and len(pure):
        table |= singles(predict, scenes, pure, seed=seed) | conflicts(predict, scenes, pure, seed=seed)
    return table


def singles(predict: Predict, scenes: Scenes, smells: Smells, *, seed: int) -> dict[str, Outcome]:
    """How often the scent of a scene of one scent comes first, by picture, by text and by both: one of each."""
    drawn = scenes.show("test", smells, seed=seed)
    betas = {subset: predict(smells, drawn, subset, single=True) for subset in ((1,), (2,), (1, 2), ALL)}
    return {
        f"single, {name_of(subset)}": Outcome(smells.recording, {"right": rightly(beta, smells)})
        for subset, beta in betas.items()
    }


def conflicts(predict: Predict, scenes: Scenes, smells: Smells, *, seed: int) -> dict[str, Outcome]:
    """Which sense is followed when one shows another scent than the two others; on recordings of one scent.

    For each odd sense: the share of windows in which beta's largest scent is the one that it shows alone, or the one
    that the two others show (of all, and of those in which each of them alone names it), and the margin between the
    two largest.
    """
    random = torch.Generator().manual_seed(seed)
    own = torch.from_numpy(smells.ratios.argmax(axis=1))
    other = (own + torch.randint(1, len(SCENTS), own.shape, generator=random)) % len(SCENTS)
    agreed, wrong = (scenes.draw("test", torch.eye(len(SCENTS))[shown], generator=random) for shown in (own, other))
    swapped = smells[smell_of(own, other, random).numpy()]
    table = {}
    for odd in ("none", *MODALITIES):
        drawn = {name: (wrong if name.startswith(odd) else agreed)[name] for name in agreed}
        shown = swapped if odd == "smell" else smells
        beta = predict(shown, drawn, ALL)
        others = [i for i, name in enumerate(MODALITIES) if name != odd]
        alone = [predict(shown, drawn, (i,), single=True).argmax(axis=1) == own.numpy() for i in others]
        follows, top = beta.argmax(axis=1) == own.numpy(), np.sort(beta, axis=1)
        measures: dict[str, Any] = {
            "follows the others": follows,
            "follows them where they agree": _share(follows, np.all(alone, axis=0)),
            "follows it": beta.argmax(axis=1) == other.numpy(),
            "margin": top[:, -1] - top[:, -2],
        }
        table[f"conflict, {odd}"] = Outcome(smells.recording, measures)
    return table


def smell_of(own: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each row one that smells of the scent `other`, or itself where nobody recorded that scent alone."""
    rows = torch.arange(len(own))
    for scent in other.unique():
        asked, known = torch.nonzero(other == scent).ravel(), torch.nonzero(own == scent).ravel()
        if len(known):
            rows[asked] = known[torch.randint(len(known), asked.shape, generator=generator)]
    return rows


def models(read: Callable[[int], Scenes]) -> dict[str, Callable[[int], dict[str, Outcome]]]:
    """Every row of the bench: a function from the seed to its outcomes; `read` gives the scenes of a seed."""

    def experts(seed: int) -> dict[str, Outcome]:
        scenes = read(seed)
        return outcomes(by_experts(fit_experts(scenes, seed=seed), scenes), scenes, seed=seed)

    def network(inputs: str, seed: int) -> dict[str, Outcome]:
        scenes, settings = read(seed), replace(SETTINGS, seed=seed)
        made = fusion_task.fitted(scenes, name=f"bench-fusion/{inputs}-{seed}", settings=settings, inputs=inputs)
        return outcomes(by_network(made, scenes, plain=inputs == "embeddings"), scenes, seed=seed)

    def without(missing: int, seed: int) -> dict[str, Outcome]:
        scenes, rest = read(seed), tuple(i for i in ALL if i != missing)
        made = fit_experts(scenes, seed=seed, senses=rest)
        return outcomes(by_experts(made, scenes), scenes, seed=seed, subsets=[rest])

    rows: dict[str, Callable[[int], dict[str, Outcome]]] = {"product of experts": experts}
    rows |= {f"network on {inputs}": functools.partial(network, inputs) for inputs in fusion_task.INPUTS}
    return rows | {f"experts without {name}": functools.partial(without, i) for i, name in enumerate(MODALITIES)}


def run(
    data: str | Path = "",
    *,
    scene: str = "",
    seeds: int = 3,
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure all rows on a SmellNet folder, the sample by default; rows measured before on the same are kept."""
    read = functools.lru_cache(maxsize=None)(lambda seed: read_scenes(str(data), scene=scene, seed=seed))
    about = {"data": "sample" if not data else find(data).name, "encoder": load_scene_encoder(scene).identity}
    return evaluate(models(read), seeds=seeds, about=about, earlier=earlier, progress=progress)


def report(result: Mapping[str, Any]) -> str:
    """The main figures as text."""
    lines = []
    for row, splits in result["rows"].items():
        for split, figures in splits.items():
            if isinstance(figures, Mapping) and "top1_at_0.1" in figures and split.startswith(("test", "unseen")):
                names = ("top1_at_0.1", "dynamic_top_k", "loudest")
                scores = "   ".join(f"{name} {percent(figures[name])}" for name in names)
                lines.append(f"{row:24} {split:34} {scores}   MAE {figures['mae']['value']:.4f}")
    return "\n".join(lines)


def means(table: Mapping[str, Outcome]) -> dict[str, dict[str, float]]:
    """The plain means of all measures of outcomes, for a picture: {split: {measure: mean}}."""
    return {
        split: {name: float(np.mean(np.asarray(each))) for name, each in one.measures.items() if not callable(each)}
        for split, one in table.items()
    }


def gain_over_best_single(table: Mapping[str, Outcome]) -> dict[str, float]:
    """How far all three senses lie ahead of the best single one on the test, for each scent, as shares of windows."""

    def by_scent(of: Outcome) -> dict[str, float]:
        rows = np.arange(len(np.asarray(of.groups)))
        return {name: score(rows) for name, score in of.measures.items() if callable(score)}

    whole, *single = (by_scent(table[f"test, {name}"]) for name in (name_of(ALL), *MODALITIES))
    return {scent: whole[scent] - max(one[scent] for one in single) for scent in whole}
