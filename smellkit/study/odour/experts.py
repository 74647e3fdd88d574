"""Learn the numbers of the product of experts: how concentrated each sense is, how far to doubt it, and the prior."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from tqdm.auto import tqdm

from smellkit.odour.experts import Experts, compositions
from smellkit.odour.scents import ODORANTS, to_channels
from smellkit.odour.senses import SENSES
from smellkit.study.odour.scenes import SWAPS, Scenes, swap_modality

NONE = 0.02  # before any sense speaks, that the air holds none of the twelve: no data tells, a tenth of a rare pattern
MOST = 3000  # scenes that the numbers are fitted to
START = {  # where the search begins, and the bounds of each number
    "concentration": {"picture": 6.0, "text": 5.0, "smell": 1.0, "votes": 0.5, "network": 0.5},
    "doubt": {"picture": 1e-3, "text": 1e-3, "smell": 0.05},
    "tail": {"picture": 1.0, "text": 1.0},
}
BOUNDS = [(0.05, 60.0)] * 5 + [(1e-4, 0.5), (1e-4, 0.5), (0.02, 0.5)] + [(0.05, 10.0)] * 2
# The doubt of smell has a higher floor: a look-up does not know air that nobody mixed before.
SUBSETS = ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,))  # of smell, picture and text, each counts alike


def fit_experts(scenes: Scenes, *, seed: int = 7, senses: Sequence[int] = (0, 1, 2)) -> Experts:
    """Fit to training scenes: the mean log posterior of the true composition, over all subsets of the `senses`."""
    train = scenes.smells["train"]
    train = train[np.random.default_rng(seed).permutation(len(train))[:MOST]]
    expert = untrained(scenes)
    torch.manual_seed(seed)
    seen = scenes.draw("train", torch.from_numpy(train.ratios))
    drawn = {name: swap_modality(seen[name], SWAPS).numpy() for name in SENSES}
    subsets = [subset for subset in SUBSETS if set(subset) <= set(senses)]
    truth = np.arange(len(train)), expert.places(train.ratios)

    options = {"maxfev": 150, "xtol": 0.05, "ftol": 1e-4}
    bar = tqdm(total=options["maxfev"], desc="experts", leave=False)

    def loss(numbers: NDArray) -> float:
        """Mean negative log posterior of the true compositions, over all `subsets` of the senses."""
        bar.update()
        tried = with_numbers(expert, numbers)
        said = [train.belief(tried, scenes.mixtures), *(tried.seen(name, drawn[name]) for name in SENSES)]
        flat, total = tried.flat(len(train)), 0.0
        for subset in subsets:
            likelihoods = [said[i] for i in subset if i]
            belief = said[0] if 0 in subset else flat
            posterior = tried.fuse(belief, *likelihoods) if likelihoods else belief
            total += np.log(posterior[truth] + 1e-12).mean()
        return -total / len(subsets)

    start = np.log([number for part in START.values() for number in part.values()])
    return with_numbers(expert, minimize(loss, start, method="Powell", options=options, bounds=np.log(BOUNDS)).x)


def with_numbers(expert: Experts, numbers: NDArray) -> Experts:
    """The experts with concentrations, doubts and tails from their logarithms."""
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
    count, kinds_there = Counter(kinds[place] for place in expert.places(recorded)), Counter(kinds)
    weight = np.array([(count[kind] + 1) / kinds_there[kind] for kind in kinds])
    return replace(expert, prior=np.append((1 - NONE) * weight / weight.sum(), NONE))
