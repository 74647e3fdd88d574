"""All models on equal terms: train (or take up) the runs, score them on one test set, and set baselines beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from smellkit import evaluate, options, paths, runs
from smellkit.errors import OptionError
from smellkit.evaluate import Outcome
from smellkit.plume import GASES, models
from smellkit.plume import annotations as tables
from smellkit.plume import data as samples
from smellkit.plume.data import Pairs, four_to_three
from smellkit.runs import Run
from smellkit.study.plume import baselines, release, scores
from smellkit.study.plume import task as tasks
from smellkit.study.plume.baselines import videos
from smellkit.task import Batch
from smellkit.train import Settings, fit, parameters, predict

TRAINING: dict[str, Any] = {"epochs": 12, "batch": 16, "learning_rate": 1e-3, "weight_decay": 1e-4, "warmup": 0.05}
FIRST, OURS = "FUME", "ours"
ROWS: dict[str, dict[str, Any]] = {  # name -> options of the task; all see the same pairs, size and epochs
    FIRST: {"model": "fume"},
    OURS: {"model": "plumenet", "alpha": "1,1,1", "masks": 3, "ph": 0.5},
    "FUME, attention": {"model": "fume-attention"},
    "FUME, separate encoders": {"model": "fume-separate"},
    "segmentation only": {"model": "segmentation-only"},
    "classification only": {"model": "classification-only"},
    "gas-aware": {"model": "gas-aware"},
    "gas-aware, 128": {"model": "gas-aware-128"},
    "early fusion": {"model": "early-fusion"},
    "FUME, CO2 only": {"model": "fume", "gases": "co2"},
    "FUME, CH4 only": {"model": "fume", "gases": "ch4"},
}
RECIPES: dict[str, dict[str, Any]] = {OURS: {"learning_rate": 3e-3, "batch": 8}}  # what differs from TRAINING
FAILING = (FIRST, OURS, "FUME, CO2 only", "FUME, CH4 only")  # rows that are also scored with a camera hidden
MEASURES: tuple[str, ...] = ("miou", "balanced", "joint", "dice", "pixels", "accuracy")
MEASURES += ("macro_f1", "weighted_f1", "kappa")
MEASURES += (
    *(f"{what}_{gas}" for gas in GASES for what in ("iou", "plume", "tube")),
    *(f"{what}_{n}" for what in ("f1", "recall", "precision") for n in scores.NAMES),
)
FEW = ("miou", "balanced", "accuracy", *(f"iou_{gas}" for gas in GASES))  # with a camera hidden
HEIGHT = 240  # rows of the test frames
INPUT_HEIGHT = 120  # rows that every model sees of them
PUBLISHED_SIZE = (480, 640)  # of the published counts
COMMAND = "smellkit bench plume --data DIR"
Fit = Callable[[int], Mapping[str, Outcome]]


class Counts(NamedTuple):
    """Parameters, and multiply-accumulates for what the model takes at once: a pair of frames, or a single frame."""

    parameters: int
    macs: int


class Predictions(NamedTuple):
    """What a model predicts of the test pairs, beside what is true: all that scores need."""

    counts: NDArray[np.int64] | None  # (pairs, 2, 3, 3)
    probability: NDArray[np.float64] | None  # (pairs, 3)
    present: NDArray[np.float32]
    label: NDArray[np.int64]
    row: NDArray[np.int64]

    def of(self, rows: NDArray[np.int64]) -> Predictions:
        """The predictions of these rows."""
        return Predictions(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]

    def score(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Every score of these rows, all without any; a row may come several times."""
        chosen = self if rows is None else self.of(rows)
        kept: Batch = {}
        if chosen.counts is not None:
            kept["counts"] = torch.as_tensor(chosen.counts)
        if chosen.probability is not None:
            kept["class_logits"] = torch.as_tensor(np.log(chosen.probability + 1e-12))
        known = {"present": torch.as_tensor(chosen.present), "label": torch.as_tensor(chosen.label)}
        return scores.score(kept, known)

    def outcome(self, groups: NDArray, *, measures: Iterable[str] = MEASURES, **extra: Any) -> Outcome:
        """The `measures` that there are, of rows that are resampled by `groups`; `extra` and the confusion beside."""
        drawn: dict[bytes, dict[str, float]] = {}  # every measure asks for the same draws

        def measure(rows: NDArray[np.int64], *, name: str) -> float:
            if (key := rows.tobytes()) not in drawn:
                drawn[key] = self.score(rows)
            return drawn[key].get(name, np.nan)  # a draw without any frame of a gas has no score of it

        there = self.score()
        if self.probability is not None:
            extra["confusion"] = scores.class_confusion(self.label, self.probability.argmax(axis=1))
        return Outcome(groups, {name: partial(measure, name=name) for name in measures if name in there}, extra)


@dataclass(frozen=True)
class Bench:
    """Train on `data` ("" is the sample), test on the test split of `test` or `data`; see `bench` for the rest."""

    data: str = ""
    test: str = ""
    seeds: int = 3
    height: int = INPUT_HEIGHT
    surfaces: bool = True
    failing: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where the test pairs are."""
        return self.test or self.data

    def pairs(self, gases: str = "both") -> Pairs:
        """The test pairs."""
        return samples.paired(self.folder, "test", size=four_to_three(HEIGHT), gases=gases)

    def about(self) -> dict[str, Any]:
        """The data and the training: rows of another bench are not set beside these."""
        shown = {"recipes": RECIPES, "seeds": self.seeds, "height": self.height, "test_height": HEIGHT}
        parts = {"train": self.data, "valid": self.data, "test": self.folder}
        data = {split: about(folder, split) for split, folder in parts.items()}
        return runs.plain({"data": data, "training": {**TRAINING, **self.training, **shown}})

    def run(self, row: str, seed: int) -> Run:
        """The finished run of a row."""
        return trained(row, data=self.data, test=self.test, seed=seed, height=self.height, **self.training)

    def predictions(self, row: str, seed: int, gases: str = "both") -> Predictions:
        """What the run of a row predicts of the pairs that have `gases`."""
        return predictions_of(self.model(row, seed), self.pairs(gases))

    def model(self, row: str, seed: int) -> nn.Module:
        """The trained model of a row."""
        return release.from_run(self.run(row, seed)).model

    def fit(self, row: str, seed: int) -> dict[str, Outcome]:
        """The scores of a row, and those on pairs with both gases by what is left to see: both, or one alone."""
        gases = options_of(row).get("gases", "both")
        predictions, pairs = self.predictions(row, seed, gases), self.pairs(gases)
        extra: dict[str, Any] = {}
        if self.surfaces and seed == 1 and gases == "both" and predictions.counts is not None:
            extra = scores.outlines(self.model(row, seed), pairs, videos(self.folder, pairs))
        outcomes = {"test": predictions.outcome(videos(self.folder, pairs), **extra)}
        if self.failing and row in FAILING:
            full = self.pairs("full").row.numpy()
            for left in ("both", *GASES) if gases == "both" else (gases,):
                rows = np.flatnonzero(np.isin(self.pairs(left).row.numpy(), full))
                groups = videos(self.folder, self.pairs(left))[rows]
                outcomes[left] = self.predictions(row, seed, left).of(rows).outcome(groups, measures=FEW)
        return outcomes


def bench(
    data: str = "",
    *,
    names: Sequence[str] = (),
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = print,
    test: str = "",
    seeds: int = 3,
    height: int = INPUT_HEIGHT,
    surfaces: bool = True,
    failing: bool = True,
    **training: Any,
) -> dict[str, Any]:
    """Scores of every row in `names` (all without any) on the test split of `test` (or `data`), over `seeds` seeds.

    `names` are rows, or models, which then train as FUME does. Runs that are there with the same parameters and pairs
    are taken up, and an unfinished one goes on where it stopped; so are rows of an `earlier` result. `surfaces` adds
    the distances between outlines of seed 1, `failing` what is left when either camera fails.
    """
    shared = Bench(data, test, seeds, height, surfaces, failing, training)
    names, about = rows_of(names) or list(ROWS), shared.about()
    old = earlier if earlier and {key: earlier.get(key) for key in about} == about else {}
    fits: dict[str, Fit] = {name: cache(partial(shared.fit, name)) for name in names}
    fits |= {name: cache(fit) for name, fit in baseline_fits(shared, masks=FIRST in names).items()}
    measured = evaluate.evaluate(fits, seeds=seeds, about=about, progress=progress)
    result: dict[str, Any] = {key: dict(old.get(key, {})) for key in ("rows", "missing", "paired_differences")}
    for name, row in measured["rows"].items():
        outcomes = [fits[name](seed)["test"] for seed in range(1, seeds + 1)]
        result["rows"][name] = published(row["test"], outcomes)
        if name in names:
            seconds = [shared.run(name, seed).stamp.get("seconds", np.nan) for seed in range(1, seeds + 1)]
            result["rows"][name] |= counts(options_of(name)["model"])._asdict() | {"seconds": np.mean(seconds)}
            if left := {gases: published(row[gases], []) for gases in ("both", *GASES) if gases in row}:
                result["missing"][name] = left
            if FIRST in names and name != FIRST and options_of(name).get("gases", "both") == "both":
                result["paired_differences"][name] = difference(fits[name], fits[FIRST], seeds)
    return runs.plain({"made_by": {"command": COMMAND}, **about, **result, "stamp": measured["stamp"]})


def published(split: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One split of a row of `evaluate` in the published shape, with what only the `outcomes` of its seeds know.

    `confusion` (3, 3) is a mean over seeds; distances between outlines are those of seed 1.
    """
    row = {name: split[name] for name in split if name in MEASURES or name == "by_seed"}
    for outcome in outcomes[:1]:
        row |= {name: value for name, value in outcome.extra.items() if name != "confusion"}
    confusions = [outcome.extra["confusion"] for outcome in outcomes if "confusion" in outcome.extra]
    return row | ({"confusion": np.mean(confusions, axis=0)} if confusions else {})


def difference(first: Fit, second: Fit, seeds: int) -> dict[str, Any]:
    """By how much `first` is better than `second` on the same pairs, in mean IoU and balanced accuracy."""
    one, other = ([fit(seed)["test"] for seed in range(1, seeds + 1)] for fit in (first, second))
    intervals = evaluate.paired_difference(one, other)
    return {name: intervals[name]._asdict() for name in ("miou", "balanced") if name in intervals}


def baseline_fits(shared: Bench, *, masks: bool) -> dict[str, Fit]:
    """Rows without a trained network: which gases were filmed, the true emission, forests in true or FUME's masks."""
    train = samples.paired(shared.data, "train", size=four_to_three(INPUT_HEIGHT))
    truth = shared.pairs()
    groups, table = videos(shared.folder, truth), truth.table.iloc[truth.row.numpy()]
    known = truth.present.numpy()[truth.row], truth.label.numpy()[truth.row], truth.row.numpy()
    pattern = baselines.Pattern.fit(train.table)

    def row(probability: Callable[[int], NDArray]) -> Fit:
        return lambda seed: {"test": Predictions(None, probability(seed), *known).outcome(groups)}

    fits = {
        "pattern of missing gases": row(lambda _: pattern.probabilities(table)),
        "pattern of missing gases, balanced": row(lambda _: pattern.probabilities(table, even=True)),
    }
    given = baselines.emissions(shared.data, train, split="train")
    asked = baselines.emissions(shared.folder, truth, split="test")
    if given is not None and asked is not None:
        emitted = baselines.emission_probabilities(train, given, asked)
        fits["true emission, which no camera tells"] = row(lambda _: emitted)
    sources: dict[str, Callable[[Pairs], NDArray]] = {"true masks": baselines.true_masks}
    if masks:
        sources["FUME's masks"] = partial(scores.masks_of, shared.model(FIRST, 1))
    for name, source in sources.items():
        fits[f"random forest, {name}"] = row(partial(_forest, train, truth, source(train), source(truth)))
    return fits


def _forest(train: Pairs, truth: Pairs, given: NDArray, asked: NDArray, seed: int) -> NDArray[np.float64]:
    return baselines.forest_probabilities(baselines.fit_forest(train, given, seed=seed), truth, asked)


def rows_of(names: Iterable[str]) -> list[str]:
    """The rows called `names`, each also by its model; a model without a row is one. OptionError for another name."""
    models_of = {name: name for name in models.MODELS} | {
        values["model"]: row for row, values in reversed(ROWS.items())
    }
    for name in names:
        if name not in ROWS and name not in models_of:
            raise OptionError(f"There is no row or model {name!r}", hint=options.nearest(name, [*ROWS, *models_of]))
    return [name if name in ROWS else models_of[name] for name in names]


def options_of(row: str) -> dict[str, Any]:
    """The options of the task that make a row."""
    return ROWS.get(row) or {"model": row}


def trained(row: str, *, data: str, test: str = "", seed: int = 1, height: int = INPUT_HEIGHT, **training: Any) -> Run:
    """The finished run of a row, made now unless it is there with the same parameters and pairs.

    What it was tested on does not matter, but for an unfinished one, which goes on only as it began.
    """
    asked = {"data": data, "test": test, "test_height": HEIGHT, **options_of(row)}
    asked |= {"height": height} if height != INPUT_HEIGHT else {}
    settings = Settings(**{**TRAINING, **RECIPES.get(row, {}), "seed": seed, **training})
    task = tasks.plume(**asked)
    asked["pairs_sha256"] = fingerprint(data)
    name = f"bench/plume-{row.replace(', ', '-').replace(' ', '-')}-{Path(data).name or 'sample'}-{seed}"
    old = Run(name, paths.runs() / name)
    before = old.params if (old.folder / "params.json").exists() else {}
    now = parameters(task, settings, asked)
    if _learned(before) == _learned(now) and old.finished:
        return old
    return fit(task, settings, name=name, params=asked, resume=before == now)


def predictions_of(model: nn.Module, pairs: Dataset) -> Predictions:
    """What a model predicts of these pairs."""
    kept, batch = predict(model, pairs, batch=32, keep=scores.keep)
    counts = kept["counts"].numpy() if "counts" in kept else None
    probability = kept["class_logits"].softmax(dim=1).double().numpy() if "class_logits" in kept else None
    return Predictions(counts, probability, *(batch[name].numpy() for name in ("present", "label", "index")))


@cache
def counts(name: str, *, size: tuple[int, int] = PUBLISHED_SIZE) -> Counts:
    """Count the model `name` at frames of `size`, without memory for its weights; for models of one frame, of one."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = models.build(name).eval()
        batch = blank(1, size=size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(batch)
    frames = len(GASES) if isinstance(model, models.OneFrame) else 1  # that are seen one by one
    return Counts(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2 // frames)


def blank(count: int, *, size: tuple[int, int]) -> Batch:
    """A batch of grey frames, both gases present."""
    frames = torch.zeros(count, 1, *size)
    return {"co2": frames, "ch4": frames, "present": torch.ones(count, 2)}


def about(folder: str, split: str) -> dict[str, Any]:
    """How many pairs a split has, by gases, class and pH, and which they are, by the fingerprint of their folder."""
    pairs = tables.statistics({split: tables.read_pairs(folder, split, pictures=False)}).iloc[0].to_dict()
    return pairs | {"sha256": fingerprint(folder)}


def fingerprint(folder: str) -> str:
    """SHA-256 of what tells one set of frames from another: its tables, and the name and length of every file."""
    root = tables.find(folder)
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes() if path.suffix == ".csv" else b"")
    return digest.hexdigest()


def _learned(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a run that decide what is learned: not what it is tested on."""
    return {name: value for name, value in params.items() if name not in ("test", "test_height")}
