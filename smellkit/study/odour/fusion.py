"""How much each modality is worth: all seven subsets, models trained without one, and modalities that disagree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from smellkit import checkpoint as weights
from smellkit import train
from smellkit.odour.fusion import MODALITIES, STRATEGIES, Fusion, correct, fusion_loss, fusion_scores
from smellkit.odour.mixture_task import joined
from smellkit.odour.scenes import Scenes, read_scenes
from smellkit.odour.scents import SCENTS
from smellkit.study.odour.hybrid import fit_hybrid
from smellkit.task import Task

SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(range(len(MODALITIES)), n)]
Progress = Callable[[str], object]


def name_of(subset: Sequence[int]) -> str:
    """Return a subset of the modalities in words: `smell + text`."""
    return " + ".join(MODALITIES[i] for i in subset)


@torch.no_grad()
def beta(model: nn.Module, scenes: Scenes, part: str, *, subset: Sequence[int] = (0, 1, 2), seed: int = 7) -> Tensor:
    """Return the model's beta (n, 12) for a split when only the modalities in `subset` are there."""
    samples = scenes.tensors(part, present=[i in subset for i in range(len(MODALITIES))], seed=seed).tensors
    return model.eval()(samples)["beta"]


def subsets(model: nn.Module, scenes: Scenes, part: str = "test", *, seed: int = 7) -> dict[str, dict[str, Any]]:
    """Return the scores of all seven subsets, each with its accuracy for every scent in "classes"."""
    ratios = scenes.smells[part][1]
    table = {}
    for subset in SUBSETS:
        predicted = beta(model, scenes, part, subset=subset, seed=seed)
        scores: dict[str, Any] = fusion_scores({"beta": predicted}, {"ratios": ratios})
        table[name_of(subset)] = scores | {"classes": by_class(predicted, ratios)}
    return table


def by_class(predicted: Tensor, ratios: Tensor) -> dict[str, float]:
    """Return for each scent the accuracy over the windows where it is (one of) the strongest."""
    good, strongest = correct(predicted, ratios), ratios >= ratios.max(dim=1, keepdim=True).values - 1e-6
    present = [(name, strongest[:, i]) for i, name in enumerate(SCENTS) if strongest[:, i].any()]
    return {name: float(good[rows].float().mean()) for name, rows in present}


def gain_over_best_single(table: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return for each scent how far all three modalities lie ahead of the best single one."""
    whole, single = table[name_of((0, 1, 2))]["classes"], [table[name]["classes"] for name in MODALITIES]
    return {scent: whole[scent] - max(one[scent] for one in single) for scent in whole}


@torch.no_grad()
def by_session(model: nn.Module, scenes: Scenes, part: str, *, seed: int = 7) -> dict[str, float]:
    """Return the accuracy with all three modalities, and with the smell masked where the session is not known.

    A smell from another day is sure and wrong. Whether a session is known, the hybrid of `odour.mixture` tells from the
    smell alone, fitted on all windows of the training split.
    """
    windows = scenes.smells[part][2]
    training = joined([scenes.smells[name][2] for name in ("train", "valid")])
    answer = fit_hybrid(training, trees=1).explain(windows.counts, recording=windows.recording)
    known = torch.from_numpy(answer["p_known_session"] >= 0.5)
    samples = dict(scenes.tensors(part, seed=seed).tensors)

    def accuracy() -> float:
        return float(correct(model.eval()(samples)["beta"], samples["ratios"]).float().mean())

    always = accuracy()
    samples["present"] = torch.stack([known, *torch.ones(2, len(known), dtype=torch.bool)], dim=1)
    share = float(known.float().mean())
    return {"smell always used": always, "smell used in known sessions": accuracy(), "share of known sessions": share}


@torch.no_grad()
def conflict(model: nn.Module, scenes: Scenes, part: str = "test", *, seed: int = 7) -> dict[str, Any]:
    """Return which modality the model follows when one shows another scent than the two others.

    Pure recordings only. For each modality: the share of windows in which beta's largest scent is the one that it
    shows alone ("follows it"), the one that the two others show ("follows the others"), or a third; and the mean margin
    between the two largest scents, which tells whether the device should stay silent.
    """
    z, ratios, _ = scenes.smells[part]
    pure = ratios.max(dim=1).values > 0.99
    z, ratios = z[pure], ratios[pure]
    if not len(z):
        return {}
    generator = torch.Generator().manual_seed(seed)
    own = ratios.argmax(dim=1)
    other = (own + torch.randint(1, ratios.shape[1], own.shape, generator=generator)) % ratios.shape[1]
    wrong = torch.eye(ratios.shape[1])[other]
    agreed = {"smell": z, **scenes.draw(part, ratios, generator=generator)}
    swapped = {"smell": _smell_of(z, own, other, generator), **scenes.draw(part, wrong, generator=generator)}
    present = torch.ones(len(z), len(MODALITIES), dtype=torch.bool)
    table: dict[str, Any] = {}
    for odd in ("none", *MODALITIES):
        batch = {name: swapped[name] if name == odd else agreed[name] for name in MODALITIES} | {"present": present}
        predicted = model.eval()(batch)["beta"]
        first, second = predicted.topk(2, dim=1).values.unbind(1)
        table[odd] = {
            "follows it": float((predicted.argmax(dim=1) == other).float().mean()),
            "follows the others": float((predicted.argmax(dim=1) == own).float().mean()),
            "margin": float((first - second).mean()),
        }
    return table


def _smell_of(z: Tensor, own: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each row a smell of the scent `other`, or its own smell where nobody recorded that scent."""
    rows = torch.arange(len(z))
    for scent in other.unique():
        asked, known = torch.nonzero(other == scent).ravel(), torch.nonzero(own == scent).ravel()
        if len(known):
            rows[asked] = known[torch.randint(len(known), asked.shape, generator=generator)]
    return z[rows]


def fit(
    scenes: Scenes,
    *,
    name: str,
    strategy: str = "attention",
    without: str = "",
    only: str = "",
    dropout: float = 0.2,
    epochs: int = 14,
    seed: int = 1,
) -> nn.Module:
    """Train a fusion on scenes that are read already and return the model; the run is called `name`."""
    present = [(not only or modality == only) and modality != without for modality in MODALITIES]
    sets: dict[str, Dataset] = {part: scenes.tensors(part, present=present) for part in ("train", "valid")}
    task = Task(
        "odour-fusion",
        lambda: sets,
        lambda: Fusion(scenes.sizes, strategy=strategy, dropout=dropout),
        fusion_loss,
        lambda outputs, batch: {"score": -float(fusion_loss(outputs, batch)), **fusion_scores(outputs, batch)},
        watch="score",
    )
    settings = train.Settings(epochs=epochs, batch=128, learning_rate=2e-3, seed=seed)
    params = {"strategy": strategy, "without": without, "dropout": dropout}
    run = train.fit(task, settings, name=name, params=params)
    model = Fusion(scenes.sizes, strategy=strategy, dropout=dropout)
    return weights.fill(model, weights.load(run.folder)[0], where=str(run.folder)).eval()


def study(
    data: str = "", *, seeds: Iterable[int] = (1,), epochs: int = 14, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Return the fusion's part of the bench, means over `seeds`, for "test" and (where there is one) "unseen".

    "subsets": for each strategy, all seven; "without": a model trained without a modality beside one that had it and
    now lacks it; "gain over best single": by scent; "conflict"; "session": smell always used, or in known sessions.
    """
    rows = []
    for seed in seeds:
        rows.append(_one_seed(read_scenes(data, seed=seed), epochs=epochs, seed=seed))
        for part, tables in rows[-1]["subsets"].items():
            for name, scores in tables["attention"].items():
                progress(f"  {part:7} {name:24} accuracy {scores['accuracy']:.3f} top-k {scores['dynamic_top_k']:.1f}")
    return _means(rows)


def _one_seed(scenes: Scenes, *, epochs: int, seed: int) -> dict[str, Any]:
    """All that `study` measures, with one seed."""
    parts = [part for part in ("test", "unseen") if part in scenes.smells]
    models = {s: fit(scenes, name=f"bench-fusion/{s}-{seed}", strategy=s, epochs=epochs, seed=seed) for s in STRATEGIES}
    model = models["attention"]
    tables = {part: {s: subsets(one, scenes, part, seed=seed) for s, one in models.items()} for part in parts}
    without: dict[str, Any] = {part: {} for part in parts}
    for modality in MODALITIES:
        never = fit(scenes, name=f"bench-fusion/no-{modality}-{seed}", without=modality, epochs=epochs, seed=seed)
        left = tuple(i for i, name in enumerate(MODALITIES) if name != modality)
        for part in parts:
            predicted = beta(never, scenes, part, subset=left, seed=seed)
            without[part][modality] = {
                "trained without it": float(correct(predicted, scenes.smells[part][1]).float().mean()),
                "masked in the test": tables[part]["attention"][name_of(left)]["accuracy"],
            }
    return {
        "subsets": tables,
        "gain over best single": {part: gain_over_best_single(tables[part]["attention"]) for part in parts},
        "without": without,
        "conflict": {part: conflict(model, scenes, part, seed=seed) for part in parts},
        "session": {part: by_session(model, scenes, part, seed=seed) for part in parts},
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Average dictionaries of one shape, leaf by leaf."""
    return {
        key: _means([row[key] for row in rows])
        if isinstance(value, dict)
        else float(np.mean([row[key] for row in rows]))
        for key, value in rows[0].items()
    }
