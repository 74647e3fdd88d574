"""`smellkit bench fusion`: how much each sense is worth, alone and together, missing, and in conflict.

Here the product of experts learns its numbers, too: how concentrated each sense is, how uncertain it is, and the prior.

rows   product of experts | network on evidence | network on embeddings (plain) | experts trained without one sense
splits seven subsets of smell, picture and text, on test and (where there is one) unseen; conflicts; single scents
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from tqdm.auto import tqdm

from smellkit.odour.experts import Experts, compositions
from smellkit.odour.recordings import find
from smellkit.odour.scene_encoder import load_scene_encoder
from smellkit.odour.scents import ODORANTS, SCENTS, to_channels
from smellkit.odour.senses import SENSES
from smellkit.study.evaluate import Outcome, evaluate
from smellkit.study.odour import fusion_task
from smellkit.study.odour.fusion_task import MODALITIES, correct
from smellkit.study.odour.mixture_task import mixture_measures
from smellkit.study.odour.scenes import SWAPS, Scenes, Smells, read_scenes, swap_modality
from smellkit.task import Batch
from smellkit.train import Settings

SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(range(len(MODALITIES)), n)]
ALL = (0, 1, 2)
NONE = 0.02  # before any sense speaks, that the air holds none of the twelve: no data tells, a tenth of a rare pattern
MOST = 3000  # scenes that the numbers are fitted to
START = {  # where the search begins, and the bounds of each number
    "concentration": {"picture": 6.0, "text": 5.0, "smell": 1.0, "votes": 0.5, "network": 0.5},
    "uncertainty": {"picture": 1e-3, "text": 1e-3, "smell": 0.05},
    "tail": {"picture": 1.0, "text": 1.0},
}
# The uncertainty of smell has a higher floor: a look-up does not know air that nobody mixed before.
BOUNDS = [(0.05, 60.0)] * 5 + [(1e-4, 0.5), (1e-4, 0.5), (0.02, 0.5)] + [(0.05, 10.0)] * 2
SETTINGS = Settings(epochs=12, batch=128, learning_rate=2e-3)
Predict = Callable[..., NDArray]  # smells, what was drawn, which senses, single=False -> beta (n, 12)


def fit_experts(scenes: Scenes, *, seed: int = 7, senses: Sequence[int] = (0, 1, 2)) -> Experts:
    """Fit to training scenes: the mean log posterior of the true composition, over all subsets of the `senses`."""
    train = scenes.smells["train"]
    train = train[np.random.default_rng(seed).permutation(len(train))[:MOST]]
    expert = untrained(scenes)
    torch.manual_seed(seed)
    seen = scenes.draw("train", torch.from_numpy(train.ratios))
    drawn = {name: swap_modality(seen[name], SWAPS).numpy() for name in SENSES}
    subsets = [subset for subset in SUBSETS if set(subset) <= set(senses)]
    truth = np.arange(len(train)), expert.indices(train.ratios)
    options = {"maxfev": 150, "xtol": 0.05, "ftol": 1e-4}
    bar = tqdm(total=options["maxfev"], desc="experts", leave=False)

    def loss(numbers: NDArray) -> float:
        """Mean negative log posterior of the true compositions, over all `subsets` of the senses."""
        bar.update()
        tried = with_numbers(expert, numbers)
        every = [train.belief(tried, scenes.mixtures), *(tried.seen(name, drawn[name]) for name in SENSES)]
        flat, total = tried.flat(len(train)), 0.0
        for subset in subsets:
            likelihoods = [every[i] for i in subset if i]
            belief = every[0] if 0 in subset else flat
            posterior = tried.fuse(belief, *likelihoods) if likelihoods else belief
            total += np.log(posterior[truth] + 1e-12).mean()
        return -total / len(subsets)

    start = np.log([number for part in START.values() for number in part.values()])
    return with_numbers(expert, minimize(loss, start, method="Powell", options=options, bounds=np.log(BOUNDS)).x)


def with_numbers(expert: Experts, numbers: NDArray) -> Experts:
    """The experts with concentrations, uncertainties and tails from their logarithms."""
    values = iter(np.exp(numbers).tolist())
    learnt: Any = {part: {name: next(values) for name in names} for part, names in START.items()}
    return replace(expert, **learnt)


def kind(composition: NDArray) -> str:
    """A single scent is "1", a pair of tenths is known by its smaller share, even triples are "3", the rest "other"."""
    shares = np.sort(composition[composition > 0])
    tenths = 10 * shares
    if len(shares) == 2 and np.allclose(tenths, tenths.round()):
        return f"{shares[0]:.1f}"
    return str(len(shares)) if len(shares) in (1, 3) and np.ptp(shares) < 1e-9 else "other"


def untrained(scenes: Scenes) -> Experts:
    """Compositions and prior from the recordings of the training split, confusions from the probes."""
    recorded = to_channels(scenes.smells["train"].index[list(ODORANTS)].to_numpy(float))
    table = compositions(np.unique(np.round(recorded, 4), axis=0))
    kinds = [kind(row) for row in table]
    confusion = {name: np.asarray(probe.confusion, float) for name, probe in scenes.probes.items()}
    expert = Experts(table, np.ones(len(table) + 1), {}, {}, {}, confusion)
    count, kinds_there = Counter(kinds[index] for index in expert.indices(recorded)), Counter(kinds)
    weight = np.array([(count[kind] + 1) / kinds_there[kind] for kind in kinds])
    return replace(expert, prior=np.append((1 - NONE) * weight / weight.sum(), NONE))


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


def outcome(beta: NDArray, smells: Smells, *, classes: bool = False) -> Outcome:
    """All measures of beta (n, 12), by recording; with `classes` the accuracy of the loudest scent for each scent."""
    truth, right = smells.ratios.astype(float), correct(beta.astype(np.float32), smells.ratios)
    scores = mixture_measures(beta, truth)
    measures = {name: scores[name] for name in ("top1_at_0.1", "dynamic_top_k", "mae", "kl")} | {"loudest": right}
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
    if len(subsets) < len(SUBSETS) or not len(pure):
        return table
    drawn = scenes.show("test", pure, seed=seed)
    for subset in ((1,), (2,), (1, 2), ALL):  # one picture, one text, or one of each
        right = correct(predict(pure, drawn, subset, single=True).astype(np.float32), pure.ratios)
        table[f"single, {name_of(subset)}"] = Outcome(pure.recording, {"right": right})
    return table | conflicts(predict, scenes, pure, seed=seed)


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
        beta, others = predict(shown, drawn, ALL), [i for i, name in enumerate(MODALITIES) if name != odd]
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
