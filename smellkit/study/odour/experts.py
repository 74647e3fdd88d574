"""Learn the numbers of the product of experts: how concentrated each sense is, how far to doubt it, and the prior."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from smellkit.odour.experts import Experts, compositions
from smellkit.odour.scents import ODORANTS, to_channels
from smellkit.odour.senses import SENSES
from smellkit.study.odour.scenes import SWAPS, Scenes, Smells, swap_modality

NONE = 0.02  # before any sense speaks, that the air holds none of the twelve: no data tells, a tenth of a rare pattern
MOST = 3000  # scenes that the numbers are fitted to
CONCENTRATION = {"picture": 6.0, "text": 5.0, "smell": 1.0, "votes": 0.5, "network": 0.5}  # where the search begins
DOUBT = {"picture": 1e-3, "text": 1e-3, "smell": 0.05}
LEAST = {"picture": 1e-4, "text": 1e-4, "smell": 0.02}  # a look-up does not know air that nobody mixed before
BOUNDS = [(0.05, 60.0)] * len(CONCENTRATION) + [(low, 0.5) for low in LEAST.values()] + [(0.05, 10.0)] * 2
TAIL = {"picture": 1.0, "text": 1.0}
SUBSETS = ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,))  # of smell, picture and text, each counts alike


def fit_experts(scenes: Scenes, *, seed: int = 7, senses: Sequence[int] = (0, 1, 2)) -> Experts:
    """Fit to training scenes: the mean log posterior of the true composition, over all subsets of the `senses`."""
    train = scenes.smells["train"]
    rows = np.random.default_rng(seed).permutation(len(train))[:MOST]
    smells, ratios = take(train, rows), train.ratios[rows]
    expert = untrained(scenes)
    torch.manual_seed(seed)
    seen = scenes.draw("train", torch.from_numpy(ratios))
    drawn = {name: swap_modality(seen[name], SWAPS).numpy() for name in SENSES}
    subsets = [subset for subset in SUBSETS if set(subset) <= set(senses)]
    truth = expert.places(ratios)

    def loss(numbers: NDArray) -> float:
        return -log_posterior(with_numbers(expert, numbers), scenes, smells, drawn, truth, subsets)

    start = np.log([*CONCENTRATION.values(), *DOUBT.values(), *TAIL.values()])
    found = minimize(
        loss, start, method="Powell", options={"maxfev": 150, "xtol": 0.05, "ftol": 1e-4}, bounds=np.log(BOUNDS)
    )
    return with_numbers(expert, found.x)


def with_numbers(expert: Experts, numbers: NDArray) -> Experts:
    """The experts with concentrations, doubts and tails from their logarithms."""
    values = iter(np.exp(numbers).tolist())
    first, second, third = ({name: next(values) for name in names} for names in (CONCENTRATION, DOUBT, TAIL))
    return replace(expert, concentration=first, doubt=second, tail=third)


def untrained(scenes: Scenes) -> Experts:
    """Compositions and prior from the recordings of the training split, confusions from the probes."""
    index = scenes.smells["train"].windows.index
    recorded = to_channels(index[list(ODORANTS)].to_numpy(float))
    table, kinds = compositions(np.unique(np.round(recorded, 4), axis=0))
    confusion = {name: np.asarray(probe.confusion, float) for name, probe in scenes.probes.items()}
    expert = Experts(table, np.ones(len(table) + 1), {}, {}, {}, confusion)
    count = Counter(kinds[place] for place in expert.places(recorded))
    kinds_there = Counter(kinds)
    weight = np.array([(count[kind] + 1) / kinds_there[kind] for kind in kinds])
    return replace(expert, prior=np.append((1 - NONE) * weight / weight.sum(), NONE))


def log_posterior(
    expert: Experts,
    scenes: Scenes,
    smells: Smells,
    drawn: dict[str, NDArray],
    truth: NDArray,
    subsets: Sequence[Sequence[int]] = SUBSETS,
) -> float:
    """Mean log posterior of the true compositions (rows of the table), over all `subsets` of the senses."""
    senses = [smells.belief(expert, scenes.mixtures)]
    senses += [expert.seen(name, drawn[name]) for name in SENSES]
    total, flat = 0.0, expert.flat(len(truth))
    for subset in subsets:
        smell = senses[0] if 0 in subset else flat
        rest = [senses[i] for i in subset if i]
        posterior = expert.fuse(smell, *rest) if rest else smell
        total += np.log(posterior[np.arange(len(truth)), truth] + 1e-12).mean()
    return total / len(subsets)


def take(smells: Smells, rows: NDArray) -> Smells:
    """The windows `rows` of `smells`; the recordings stay those of all."""
    names = ("votes", "network", "posterior_mean", "known", "z", "ratios")
    windows = smells.windows
    cut = replace(
        windows, **{name: getattr(windows, name)[rows] for name in ("counts", "ratios", "recording", "start")}
    )
    return replace(smells, windows=cut, **{name: getattr(smells, name)[rows] for name in names})
