"""Make the weights that come with the kit, substances, mixtures and fusion, and score them on the visible tests."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from smellkit import checkpoint, paths, runs, train
from smellkit.checks.ranges import Ranges
from smellkit.odour.confidence import Confidence, prediction_sets
from smellkit.odour.encoder import Encoder
from smellkit.odour.experts import Experts
from smellkit.odour.features import describe
from smellkit.odour.pipeline import loudest
from smellkit.odour.recordings import MIXTURE_GAS, STEPS, find, read_recordings
from smellkit.odour.scents import ODORANTS, category
from smellkit.odour.senses import Senses
from smellkit.odour.smell import SHIPPED, Fused, Limits, SubstanceSmell, board_ranges, load_hybrid
from smellkit.odour.windows import LabelledWindows, cut
from smellkit.study import score
from smellkit.study.evaluate import Outcome, summarise
from smellkit.study.odour import calibrated, sessions, smellnet, systems
from smellkit.study.odour.encoder_task import RECIPES
from smellkit.study.odour.fusion import (
    ALL,
    SUBSETS,
    by_experts,
    fit_experts,
    name_of,
    outcomes,
    posterior,
    untrained,
)
from smellkit.study.odour.hybrid import fit_classifier, fit_hybrid, save_hybrid, tensors_of
from smellkit.study.odour.mixture_data import known_mixtures, read_mixtures, read_windows, training_split
from smellkit.study.odour.mixture_task import load_encoder, mixture_measures, task
from smellkit.study.odour.scenes import Scenes, read_scenes
from smellkit.study.odour.survey import other_sessions

Progress = Callable[[str], object]
PRECISION = 0.9  # of what is answered at all: a scent that is a coin toss must not be played
DAY_PRECISION = 0.95  # on days that moved like pairs of sessions that were learnt from; like one that was not, less
DAY_OPTIONS: dict[str, Any] = {"least": 1e-2}  # of a count or a hundredth of a logarithm: no converter tells it
FOLDS = 5  # recordings of each substance
ANOTHER_DAY = "simulated days, curve and level"  # of `sessions.METHODS`: the weights that are taken by default
WHY_ANOTHER_DAY = (
    "Chosen on training recordings alone: best of the methods on recordings left out and moved as the sensors moved "
    "between two sessions of a substance, a pair that it did not learn from. Whoever measures is on another day."
)
TESTS = {"test": "official split", "other_session": "another session"}  # part of the figures -> name in `score`'s log
MIXTURES = {"test": "seen mixtures", "unseen": "unseen mixtures"}  # part of scenes -> name in the log
SYSTEM = "confounded/conductance"  # whose network comes with the kit for the session of training
WHY = (
    "Chosen on training recordings alone: best of the inputs tried on the second session of the four substances that "
    "have one, and on a held-out recording of the same session far better than inputs without levels. It sees the "
    "levels of four channels, so its test accuracy is recognition within a session; see other_session for another day."
)
RIGHT = 0.95  # of the fused answers that count, the share whose loudest scent is right
MISSED = 0.25  # of the fused mixtures that count, how much of the shares may be wrong, added up, on average


def odour(data: str | Path, folder: Path, *, seed: int = 1, progress: Progress = lambda _: None) -> str:
    """Train the network of `SYSTEM` on the training split of `data`, write it to `folder`, and return its scores.

    Calibrated on recordings of the training split that a second fit did not see; the test split is scored once, at the
    end, for the manifest.
    """
    chosen = systems.named(SYSTEM)
    (model,) = chosen.members
    training = read_recordings(data, "training")
    windows = cut(training, chosen.protocol, stride=chosen.stride)
    progress(f"calibrating {model} on held-out recordings")
    learnt = calibrated.learn(chosen, windows, name="ship", seed=seed, precision=PRECISION)
    progress(f"training {model} on all {training['file'].nunique()} recordings")
    known = windows.every(chosen.train_stride)
    network = systems.trained(model, known, seed=seed, name="ship", system=chosen)
    smell = SubstanceSmell(network, chosen.protocol, known.classes, learnt)  # type: ignore[arg-type]
    settings = asdict(replace(RECIPES[model], seed=seed))
    command = "smellkit bench smellnet-base --data DIR --save data/weights/odour-same-session"
    made_by = {"system": SYSTEM, "seed": seed, "settings": settings, "command": command}
    return _kept(smell, data, folder, model=model, options={}, why=WHY, made_by=made_by)


def another_day(data: str | Path, folder: Path, *, progress: Progress = lambda _: None) -> str:
    """Fit `ANOTHER_DAY` to the training split of `data`, write it to `folder`, and return its scores.

    Calibrated on simulated days of held-out recordings (see `sessions`); the test split and the other sessions are
    scored once, at the end, for the manifest.
    """
    system, training = sessions.METHODS[ANOTHER_DAY], read_recordings(data, "training")
    moved, classes = sessions.movements(training), tuple(sorted(training["substance"].unique()))
    learnt = day_confidence(system, training, moved, classes)
    progress(f"fitting {ANOTHER_DAY} to all {training['file'].nunique()} recordings")
    network = fit_day(system, training, moved)
    command = "smellkit bench smellnet-sessions --data DIR --save data/weights/odour"
    made_by = {"system": ANOTHER_DAY, "movements": list(moved.index), "command": command}
    smell = SubstanceSmell(network, system.protocol, classes, learnt)
    return _kept(smell, data, folder, model="linear", options=DAY_OPTIONS, why=WHY_ANOTHER_DAY, made_by=made_by)


def fit_day(system: systems.System, training: pd.DataFrame, moved: pd.DataFrame) -> Encoder:
    """What `sessions.fit` fits as one encoder: a discriminant of simulated days."""
    windows = sessions.moving_windows(training, system.protocol, moved)
    discriminant = systems.Discriminant.fit(describe(windows.values).numpy(), windows.target, **DAY_OPTIONS)
    return discriminant.network(windows.values, **DAY_OPTIONS)


def day_confidence(
    system: systems.System, training: pd.DataFrame, moved: pd.DataFrame, classes: Sequence[str]
) -> Confidence:
    """How sure fits of `system` may be on another day: learnt on held-out recordings on days of pairs left out."""
    parts: list[tuple] = []
    for scorer, table, pair in sessions.held_out(system, training, moved, folds=FOLDS, name="ship-another-day"):
        for sign in (1, -1):
            windows = cut(sessions.another_day(table, sign * pair), system.protocol, classes=classes)
            number = 1000 * len(parts) + windows.recording  # of a recording on a day
            parts.append((scorer(windows.values), windows.target, number))
    scores, target, counts = calibrated.growing(*map(np.concatenate, zip(*parts, strict=True)))
    pooling = calibrated.pooling(scores, target, counts)
    sharper = scores * counts[:, None] ** pooling
    learnt = calibrated.calibrate(sharper, target, np.arange(len(target)), precision=DAY_PRECISION)
    learnt = replace(learnt, pooling=pooling)
    return calibrated.with_categories(learnt, sharper, target, classes, precision=DAY_PRECISION)


def _kept(smell: SubstanceSmell, data: str | Path, folder: Path, *, made_by: dict, **network: Any) -> str:
    """Write the weights with their figures and return what these are; `network` is its model, options, and why."""
    figures = runs.plain(scores(smell, data))
    revision = "github.com/MIT-MI/SmellNet ea940d686c67e411c9cf396f844e7be8ca2b6424"
    manifest = {
        "kind": "odour",
        "name": Path(folder).name,
        **network,
        "protocol": asdict(smell.protocol),
        "classes": list(smell.classes),
        "calibration": smell.confidence.asdict(),
        "made_by": {**made_by, "data": f"SmellNet, training split, {revision}", "revision": runs.revision()},
        "scores": figures,
        "ranges": board_ranges(read_recordings(data, "training"), smell.columns).asdict(),
    }
    checkpoint.save(folder, smell.network.state_dict(), runs.plain(manifest))
    if Path(folder).resolve().parent == paths.weights().resolve():  # they ship, and have met the tests
        looks = {TESTS[name]: {measure: {"value": value} for measure, value in one["window"].items()}
                 for name, one in figures.items()}  # fmt: skip
        digest = checkpoint.manifest(folder)["sha256"]
        score.append(system="odour", weights=digest, command=made_by["command"], figures=looks)
    return f"{folder}: {figures}"


def tests(smell: SubstanceSmell, data: str | Path) -> dict[str, LabelledWindows]:
    """The windows of the test split and, where there are any, of other sessions."""
    tables = {"test": read_recordings(data, "testing"), "other_session": other_sessions(data)}
    return {name: cut(rows, smell.protocol, classes=smell.classes) for name, rows in tables.items() if rows is not None}


def scores(smell: SubstanceSmell, data: str | Path) -> dict[str, Any]:
    """Top-1, top-5 of windows and recordings on the test split and on other sessions, and how the calibration holds."""
    figures: dict[str, Any] = {}
    for name, windows in tests(smell, data).items():
        values = smell.scores(windows.values)
        levels = {"window": 1, "recording": 0}
        top = {level: summarise([smellnet.outcome(values, windows, count)]) for level, count in levels.items()}
        holds = calibrated.holds(values, windows, smell.confidence)
        held = {**summarise([holds]), **holds.extra}
        figures[name] = {
            **{level: {k: figure[k].value for k in ("top1", "top5")} for level, figure in top.items()},
            "category": _categories(smell, values, windows),
            **{k: held[k] for k in ("expected_calibration_error", "set_size")},
            "coverage": held["coverage"].value,
            "whole recordings": of_recordings(smell, values, windows),
            "selective": held["selective"],
        }
    return json.loads(json.dumps(runs.plain(figures)), parse_float=lambda digits: round(float(digits), 4))


def _categories(smell: SubstanceSmell, scores: NDArray, windows: LabelledWindows) -> dict[str, float]:
    """How often the category is right, how often it is sure, and how often right then."""
    kinds, p = zip(*(smell.category(row) for row in smell.calibrated(scores)), strict=True)
    right = np.array([category(smell.classes[i]) for i in windows.target]) == kinds
    sure = np.array(p) >= smell.confidence.category_least
    held = {"top1": right.mean(), "sure": sure.mean()}
    return held | ({"right where sure": right[sure].mean()} if sure.any() else {})


def of_recordings(smell: SubstanceSmell, scores: NDArray, windows: LabelledWindows) -> dict[str, float]:
    """How well the confidence holds where log-probabilities (windows, classes) are averaged over each recording."""
    pooled, target, _ = smellnet.combine(scores, windows, 0)
    p = smell.calibrated(pooled, np.unique(windows.recording, return_counts=True)[1])
    sets = prediction_sets(p, smell.confidence.quantile)
    held = {"coverage": sets[np.arange(len(sets)), target].mean(), "set_size": sets.sum(1).mean()}
    return held | calibrated.selective(p, target, smell.confidence.thresholds)


def mixture(data: str, out: Path, *, epochs: int = 25, seed: int = 7, progress: Progress = lambda _: None) -> Path:
    """Train the hybrid and the encoder of the alpha stage on the larger training split and keep them in `out`."""
    folder = find(data)
    settings = train.Settings(epochs=epochs, batch=128, learning_rate=3e-3, seed=seed)
    run = train.fit(task(data=str(folder), stage="joint"), settings, name="bench-mixture/weights")
    encoder = {f"encoder.{name}": tensor for name, tensor in load_encoder(str(run.folder)).state_dict().items()}
    split = training_split(folder)
    about = {"trained_on": f"mixture/{split}", "seed": seed, "encoder_epochs": epochs}
    ranges = Ranges.measure(read_mixtures(folder, split)[0], names=MIXTURE_GAS, unit=["counts"] * len(MIXTURE_GAS))
    ranges.still[:] = STEPS  # files of the set that were resampled hold a channel for as long as they last
    about |= {"ranges": ranges.asdict()}
    return save_hybrid(fit_hybrid(read_windows(folder, split), seed=seed), out, extra=encoder, about=about)


def fusion(data: str, out: Path, *, seed: int = 7, progress: Progress = lambda _: None) -> Path:
    """Fit to the training split, the pictures and the descriptions of a SmellNet folder, and keep it in `out`.

    Probes also learn from the sample's drawings and descriptions. Limits come from held-out recordings and days.
    """
    folder, split = find(data), training_split(data)
    windows = read_windows(folder, split)
    mixtures = known_mixtures(windows)
    classifier = fit_classifier(windows, mixtures.astype(float))
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    numbers: dict[str, Any] = {}
    for scene in SHIPPED:
        scenes = read_scenes(data, scene=scene, seed=seed)
        experts = fit_experts(scenes, seed=seed)
        senses = Senses.fit(*dict.fromkeys([folder, paths.sample() / "smellnet"]), scene=scene)
        for sense, probe in senses.probes.items():
            arrays = tensors_of(probe, f"{scene}.{sense}.").items()
            tensors |= {name: one.float() if one.dtype == torch.float64 else one for name, one in arrays}
        numbers[scene] = {name: dict(getattr(experts, name)) for name in ("concentration", "uncertainty", "tail")}
        numbers[scene]["limits"] = vars(fit_limits(experts, scenes, seed=seed))
        progress(f"{scene}: {numbers[scene]}")
    tensors |= {"mixtures": torch.from_numpy(mixtures), "prior": torch.from_numpy(experts.prior)}
    about = {"trained_on": f"mixture/{split}, images, smell_descriptions.json", "seed": seed, "made": runs.stamp()}
    manifest = {"kind": "fusion", "odorants": list(ODORANTS), "rate_hz": 10, "scenes": numbers, **about}
    return checkpoint.save(out, tensors, manifest)


def fit_limits(experts: Experts, scenes: Scenes, *, seed: int) -> Limits:
    """When an answer counts: over all subsets of the senses, on recordings and days that were held out."""
    rows = []
    for part in (part for part in ("valid", "valid-day") if part in scenes.smells):
        smells = scenes.smells[part]
        drawn = scenes.show(part, smells, seed=seed)
        rows += [_judged(experts, posterior(experts, scenes, smells, drawn, each), smells.ratios) for each in SUBSETS]
    sure, right, expected, missed = map(np.concatenate, zip(*rows, strict=True))
    return Limits(
        calibrated.least(sure, right, RIGHT, never=sure.max()),
        -calibrated.least(-expected, -missed, -MISSED, never=-expected.min()),
    )


def _judged(experts: Experts, believed: NDArray, truth: NDArray) -> tuple[NDArray, ...]:
    """How sure, whether right, how much is expected to be missed, and how much was: (n,) each."""
    beta, each = experts.decide(believed), np.arange(len(believed))
    best = beta.argmax(axis=1)
    sure = (believed[:, :-1] @ loudest(experts.compositions))[each, best]
    return sure, loudest(truth)[each, best], experts.expected_error(believed, beta), np.abs(beta - truth).sum(axis=1)


def odour_outcomes(data: str) -> dict[str, Outcome]:
    """What the shipped weights of substances score on windows of the official split and of other sessions."""
    smell = SubstanceSmell.load(paths.weights() / "odour")
    return {TESTS[name]: smellnet.outcome(smell.scores(one.values), one) for name, one in tests(smell, data).items()}


def mixture_outcomes(data: str) -> dict[str, Outcome]:
    """What the shipped hybrid scores on windows of seen and unseen mixtures."""
    hybrid, outcomes = load_hybrid(paths.weights() / "mixture"), {}
    for name in ("seen", "unseen"):
        if (find(data) / "mixture" / f"test_{name}").is_dir():
            test = read_windows(find(data), f"test_{name}", copies=True)
            ratios = hybrid.explain(test.counts, recording=test.recording)["ratios"]
            outcomes[f"{name} mixtures"] = Outcome(test.recording, mixture_measures(ratios, test.ratios))
    return outcomes


def fusion_outcomes(data: str) -> dict[str, Outcome]:
    """The shipped experts; pictures and sentences by probes that did not see them, and as those mistake them."""
    scenes = read_scenes(data, seed=1)
    experts = replace(Fused.load().experts, confusion=untrained(scenes).confusion)
    table = outcomes(by_experts(experts, scenes), scenes, seed=1, subsets=[ALL])
    tests = {f"{part}, {name_of(ALL)}": f"{words}, three senses" for part, words in MIXTURES.items()}
    return {words: table[name] for name, words in tests.items() if name in table}
