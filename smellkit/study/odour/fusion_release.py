"""Fit the fusion that ships: probes of all pictures and texts there are, the experts' numbers, and when they count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smellkit import paths, runs
from smellkit.odour.experts import Experts
from smellkit.odour.fused import SHIPPED, Fused, Limits
from smellkit.odour.mixture_task import read_windows, training_split
from smellkit.odour.pipeline import loudest
from smellkit.odour.recordings import find
from smellkit.odour.senses import Senses
from smellkit.study.odour.classifier import fit_classifier
from smellkit.study.odour.experts import fit_experts
from smellkit.study.odour.fusion import SUBSETS, draw
from smellkit.study.odour.fusion_network import MODALITIES
from smellkit.study.odour.scenes import Scenes, read_scenes

RIGHT = 0.95  # of the answers that count, the share whose loudest scent is right
MISSED = 0.25  # of the mixtures that count, how much of the shares may be wrong, added up, on average


def make_weights(data: str, out: Path, *, seed: int = 7, progress: Callable[[str], object] = lambda _: None) -> Path:
    """Fit to the training split, the pictures and the descriptions of a SmellNet folder, and keep it in `out`.

    Probes also learn from the sample's drawings and descriptions. Limits come from held-out recordings and days.
    """
    folder = find(data)
    windows = read_windows(folder, training_split(folder))
    mixtures = np.unique(np.round(windows.ratios, 4), axis=0).astype(float)
    classifier = fit_classifier(windows, mixtures)
    made: dict[str, Fused] = {}
    for scene in SHIPPED:
        scenes = read_scenes(data, scene=scene, seed=seed)
        experts = fit_experts(scenes, seed=seed)
        limits = fit_limits(experts, scenes, seed=seed)
        senses = Senses.fit(*dict.fromkeys([folder, paths.sample() / "smellnet"]), scene=scene)
        confusion = {sense: np.asarray(probe.confusion, float) for sense, probe in senses.probes.items()}
        made[scene] = Fused(replace(experts, confusion=confusion), senses, classifier, mixtures, limits)
        progress(f"{scene}: {dict(experts.concentration)} {dict(experts.doubt)} {limits}")
    about = {"trained_on": f"mixture/{training_split(folder)}, images, smell_descriptions.json", "seed": seed}
    first, *others = made.values()
    return first.save(out, {fused.senses.scene: fused for fused in others}, {**about, "made": runs.stamp()})


def fit_limits(experts: Experts, scenes: Scenes, *, seed: int) -> Limits:
    """When an answer counts: over all subsets of the senses, on recordings and days that were held out."""
    sure, right, expected, missed = map(np.concatenate, zip(*_held_out(experts, scenes, seed), strict=True))
    return Limits(_least(sure, right.astype(float), RIGHT), -_least(-expected, -missed, -MISSED))


def _held_out(experts: Experts, scenes: Scenes, seed: int) -> list[tuple[NDArray, ...]]:
    rows = []
    for part in (part for part in ("valid", "valid-day") if part in scenes.smells):
        smells = scenes.smells[part]
        drawn, belief = draw(scenes, part, smells, seed), smells.belief(experts, scenes.mixtures)
        for subset in SUBSETS:
            likelihoods = [experts.seen(MODALITIES[i], drawn[MODALITIES[i]].numpy()) for i in subset if i]
            first = belief if 0 in subset else experts.flat(len(belief))
            rows.append(_judged(experts, experts.fuse(first, *likelihoods), smells.ratios))
    return rows


def _judged(experts: Experts, posterior: NDArray, truth: NDArray) -> tuple[NDArray, ...]:
    """How sure, whether right, how much is expected to be missed, and how much was: (n,) each."""
    beta, each = experts.decide(posterior), np.arange(len(posterior))
    best = beta.argmax(axis=1)
    sure = (posterior[:, :-1] @ loudest(experts.compositions))[each, best]
    return sure, loudest(truth)[each, best], experts.expected_error(posterior, beta), np.abs(beta - truth).sum(axis=1)


def _least(score: NDArray, good: NDArray, wanted: float) -> float:
    """The least score from which on `good` is at least `wanted` on average."""
    order = np.argsort(-score, kind="stable")
    mean = np.cumsum(good[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(mean >= wanted)
    return float(score[order][enough[-1]]) if len(enough) else float(score.max())
