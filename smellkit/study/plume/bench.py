"""All models on equal terms: train (or take up) the runs, score them on one test set, and set baselines beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset, Subset

from smellkit import options, paths
from smellkit.plume import GASES, models
from smellkit.plume import annotations as tables
from smellkit.runs import Run
from smellkit.study import evaluate
from smellkit.study.evaluate import Fit, Outcome
from smellkit.study.plume import baselines, release, scores
from smellkit.study.plume import data as samples
from smellkit.study.plume import task as tasks
from smellkit.study.plume.baselines import videos
from smellkit.study.plume.data import Pairs, four_to_three
from smellkit.task import Batch
from smellkit.train import Settings, fit, parameters, predict

TRAINING: dict[str, Any] = {"epochs": 12, "batch": 16, "learning_rate": 1e-3, "weight_decay": 1e-4, "warmup": 0.05}
FIRST, OURS = "FUME", "ours"
ROWS: dict[str, dict[str, Any]] = {  # name -> options of the task; all see the same pairs, size and epochs
    FIRST: {"model": "fume"},
    OURS: {"model": "plumenet-one-camera", "alpha": "1,1,1", "masks": 3, "ph": 0.5},
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
MEASURES: tuple[str, ...] = (
    *("miou", "balanced", "joint", "dice", "pixels", "accuracy", "macro_f1", "weighted_f1", "kappa"),
    *(f"{what}_{gas}" for gas in GASES for what in ("iou", "plume", "tube")),
    *(f"{what}_{name}" for what in ("f1", "recall", "precision") for name in scores.NAMES),
)
FEW = ("miou", "balanced", "accuracy", *(f"iou_{gas}" for gas in GASES))  # with a camera hidden
HEIGHT = 240  # rows of the test frames
INPUT_HEIGHT = 120  # rows that every model sees of them
PUBLISHED_SIZE = (480, 640)  # of the published counts


class Counts(NamedTuple):
    """Parameters, and multiply-accumulates for what the model takes at once: a pair of frames, or a single frame."""

    parameters: int
    macs: int


class Predictions(NamedTuple):
    """What `scores.keep` keeps of the test pairs: what a model predicts of them, and what is known of them."""

    kept: Batch
    known: Batch

    def of(self, rows: NDArray[np.int64]) -> Predictions:
        """The predictions of these rows; a row may come several times."""
        return Predictions(*({name: x[rows] for name, x in part.items()} for part in self))

    def score(self) -> dict[str, float]:
        """Every score."""
        return scores.score(*self)

    def outcome(self, groups: NDArray, *, measures: Iterable[str] = MEASURES, **extra: Any) -> Outcome:
        """The `measures` that there are, of rows that are resampled by `groups`; `extra` and the confusion beside."""
        drawn: dict[bytes, dict[str, float]] = {}  # every measure asks for the same draws

        def measure(rows: NDArray[np.int64], *, name: str) -> float:
            if (key := rows.tobytes()) not in drawn:
                drawn[key] = self.of(rows).score()
            return drawn[key].get(name, np.nan)  # a draw without any frame of a gas has no score of it

        if "class_logits" in self.kept:
            named = self.kept["class_logits"].argmax(dim=1).numpy()
            extra["confusion"] = scores.class_confusion(self.known["label"].numpy(), named)
        there = self.score()
        return Outcome(groups, {name: partial(measure, name=name) for name in measures if name in there}, extra)


@dataclass(frozen=True)
class Bench:
    """Train on `data` ("" is the sample) with `seeds` seeds, test on the test split of `test` or `data`.

    `surfaces` adds the distances between outlines of seed 1, `failing` what is left when either camera fails.
    """

    data: str = ""
    test: str = ""
    seeds: int = 3
    height: int = INPUT_HEIGHT
    surfaces: bool = True
    failing: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)  # what differs from TRAINING in all rows

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
        return {"data": data, "training": {**TRAINING, **self.training, **shown}}

    def run(self, row: str, seed: int) -> Run:
        """The finished run of a row."""
        return trained(row, data=self.data, test=self.test, seed=seed, height=self.height, **self.training)

    def fit(self, row: str, seed: int) -> dict[str, Outcome]:
        """The scores of a row, and those on pairs with both gases by what is left to see: both, or one alone."""
        gases, run = options_of(row).get("gases", "both"), self.run(row, seed)
        model, pairs = release.from_run(run).model, self.pairs(gases)
        predictions, groups = predictions_of(model, pairs), videos(self.folder, pairs)
        extra = counts(options_of(row)["model"])._asdict() | {"training_seconds": run.stamp.get("seconds", np.nan)}
        if self.surfaces and seed == 1 and gases == "both" and "counts" in predictions.kept:
            extra |= scores.outlines(model, pairs, groups)
        outcomes = {"test": predictions.outcome(groups, **extra)}
        if self.failing and row in FAILING:
            full = self.pairs("full").row.numpy()
            for left in ("both", *GASES) if gases == "both" else (gases,):
                pairs = self.pairs(left)
                rows = np.flatnonzero(np.isin(pairs.row.numpy(), full))
                part = predictions_of(model, pairs).of(rows)
                outcomes[f"seen: {left}"] = part.outcome(videos(self.folder, pairs)[rows], measures=FEW)
        return outcomes

    def baselines(self, *, masks: bool) -> dict[str, Fit]:
        """Rows without a trained network: which gases were filmed, the true emission, forests in masks."""
        train, truth = samples.paired(self.data, "train", size=four_to_three(INPUT_HEIGHT)), self.pairs()
        groups, table = videos(self.folder, truth), truth.table.iloc[truth.row.numpy()]
        known = {"present": truth.present[truth.row], "label": truth.label[truth.row]}

        def row(probability: Callable[[int], NDArray]) -> Fit:
            def fit(seed: int) -> dict[str, Outcome]:
                logits = torch.as_tensor(np.log(probability(seed) + 1e-12))
                return {"test": Predictions({"class_logits": logits}, known).outcome(groups)}

            return fit

        fits = {
            "pattern of missing gases": row(lambda _: baselines.pattern(train.table, table)),
            "pattern of missing gases, balanced": row(lambda _: baselines.pattern(train.table, table, even=True)),
        }
        given = baselines.emissions(self.data, train, split="train")
        asked = baselines.emissions(self.folder, truth, split="test")
        if given is not None and asked is not None:
            emitted = baselines.emission_probabilities(train, given, asked)
            fits["true emission, which no camera tells"] = row(lambda _: emitted)
        sources: dict[str, Callable[[Pairs], NDArray]] = {"true masks": baselines.true_masks}
        if masks:
            sources["FUME's masks"] = partial(scores.masks_of, release.from_run(self.run(FIRST, 1)).model)
        for name, source in sources.items():
            forest = partial(baselines.forest, train, source(train), truth, source(truth))
            fits[f"random forest, {name}"] = row(lambda seed, forest=forest: forest(seed=seed))  # type: ignore[misc]
        return fits


def run(
    data: str = "",
    *,
    names: Sequence[str] = (),
    epochs: int = 0,
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = print,
    **how: Any,
) -> dict[str, Any]:
    """Scores of every row in `names` (all without any); `how` are fields of `Bench`.

    `names` are rows, or models, which then train as FUME does. Runs that are there with the same parameters and pairs
    are taken up, and an unfinished one goes on where it stopped; so are rows of an `earlier` result.
    """
    shared = Bench(data, **how | ({"training": {"epochs": epochs}} if epochs else {}))
    names = rows_of(names) or list(ROWS)
    extent = {"surfaces": shared.surfaces, "failing": shared.failing}
    fits: dict[str, Fit] = {name: partial(shared.fit, name) for name in names}
    asked: dict[str, Any] = {"settings": dict.fromkeys(names, extent), "against": FIRST, "earlier": earlier}
    fits |= shared.baselines(masks=FIRST in names)
    return evaluate.evaluate(fits, seeds=shared.seeds, about=shared.about(), progress=progress, **asked)


def rows_of(names: Collection[str]) -> list[str]:
    """The rows called `names`, each also by its model; a model without a row is one. OptionError for another name."""
    row_of = dict(zip(models.MODELS, models.MODELS, strict=True))
    row_of |= {values["model"]: row for row, values in reversed(ROWS.items())} | dict(zip(ROWS, ROWS, strict=True))
    options.check(names, row_of, "There is no row or model")
    return [row_of[name] for name in names]


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
    task: Any = tasks.PlumeTask(**asked)
    asked["pairs_sha256"] = fingerprint(data)
    name = f"bench/plume-{row.replace(', ', '-').replace(' ', '-')}-{Path(data).name or 'sample'}-{seed}"
    old = Run(name, paths.runs() / name)
    before = old.params if (old.folder / "params.json").exists() else {}
    now = parameters(task, settings, asked)
    learned, before_that = ({**params, "test": "", "test_height": 0} for params in (now, before))
    if learned == before_that and old.finished:
        return old
    return fit(task, settings, name=name, params=asked, resume=before == now)


def predictions_of(model: nn.Module, pairs: Dataset) -> Predictions:
    """What a model predicts of these pairs."""
    return Predictions(*predict(model, pairs, batch=32, keep=scores.keep))


def failing(
    model: nn.Module, folder: str, *, shares: Sequence[float] = (0, 0.25, 0.5, 0.75, 1), rows: int = 120
) -> pd.DataFrame:
    """Scores on `rows` drawn pairs with both gases when one camera fails in a share of them: failing, share, scores.

    A mask counts only where there is a frame. Each pair is predicted three times, whole and with either gas hidden.
    """
    random, predictions = np.random.default_rng(0), {}
    chosen: NDArray | None = None
    for gases in ("full", *GASES):
        pairs = samples.paired(folder, "test", size=four_to_three(HEIGHT), gases=gases)
        if chosen is None:
            chosen = random.permutation(pairs.row.numpy())[:rows]  # the table lies in order of pH
        these = np.flatnonzero(np.isin(pairs.row.numpy(), chosen))
        predictions[gases] = predictions_of(model, Subset(pairs, these.tolist()))
    order = random.permutation(len(these))
    scores = []
    for gas, left in zip(GASES, GASES[::-1], strict=True):
        for share in shares:
            gone = torch.as_tensor(order[: round(share * len(order))])
            parts = zip(predictions["full"], predictions[left], strict=True)
            mixed = (
                {name: x.index_copy(0, gone, hidden[name][gone]) for name, x in whole.items()}
                for whole, hidden in parts
            )
            scores.append({"failing": gas, "share": share, **Predictions(*mixed).score()})
    return pd.DataFrame(scores)


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
