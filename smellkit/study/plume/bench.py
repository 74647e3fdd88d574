"""All models on equal terms: train (or take up) the runs, score them on one test set, and set baselines beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset, Subset

from smellkit import checkpoint as weights
from smellkit import options, paths, runs
from smellkit.checks import fault, read_json
from smellkit.errors import OptionError
from smellkit.plume import annotations as tables
from smellkit.plume import data as samples
from smellkit.plume import models, scores
from smellkit.plume import task as tasks
from smellkit.plume.data import Pairs
from smellkit.plume.fume import GASES, Sized
from smellkit.runs import Run
from smellkit.study.plume import forest
from smellkit.study.plume.pattern import Pattern
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
ALONE = {"co2": "FUME, CO2 only", "ch4": "FUME, CH4 only"}  # what has never had the other gas
MEASURES: tuple[str, ...] = ("miou", "balanced", "joint", "dice", "pixels", "accuracy")
MEASURES += ("macro_f1", "weighted_f1", "kappa")
MEASURES += (
    *(f"{what}_{gas}" for gas in GASES for what in ("iou", "plume", "tube")),
    *(f"{what}_{n}" for what in ("f1", "recall", "precision") for n in scores.NAMES),
)
ROUNDS = 300
HEIGHT = 240  # rows of the test frames
ROWS_SEEN = 120  # rows that every model sees of them


class Told(NamedTuple):
    """What a model said of the test pairs, beside what is true: all that scores need."""

    counts: NDArray[np.int64] | None  # (pairs, 2, 3, 3)
    chance: NDArray[np.float64] | None  # (pairs, 3)
    present: NDArray[np.float32]
    label: NDArray[np.int64]
    row: NDArray[np.int64]

    def of(self, rows: NDArray[np.int64]) -> Told:
        """What was said of these rows."""
        counts = None if self.counts is None else self.counts[rows]
        chance = None if self.chance is None else self.chance[rows]
        return Told(counts, chance, self.present[rows], self.label[rows], self.row[rows])

    def score(self, rows: NDArray[np.int64]) -> dict[str, float]:
        """Every score of these rows; a row may come several times."""
        kept: Batch = {}
        if self.counts is not None:
            kept["counts"] = torch.as_tensor(self.counts[rows])
        if self.chance is not None:
            kept["class_logits"] = torch.as_tensor(np.log(self.chance[rows] + 1e-12))
        known = {"present": torch.as_tensor(self.present[rows]), "label": torch.as_tensor(self.label[rows])}
        return scores.score(kept, known)


def bench(
    data: str = "",
    *,
    test: str = "",
    names: Sequence[str] = (),
    seeds: int = 3,
    height: int = ROWS_SEEN,
    surfaces: bool = True,
    failing: bool = True,
    tell: Callable[[str], object] = print,
    **training: Any,
) -> dict[str, Any]:
    """Scores of every row in `names` (all without any) on the test split of `test` (or `data`), over `seeds` seeds.

    `names` are rows, or models, which then train as FUME does. Runs that are there with the same parameters and pairs
    are taken up, and an unfinished one goes on where it stopped. `surfaces` adds the distances between outlines of seed
    1, `failing` what is left when either camera fails.
    """
    names = rows_of(names) or list(ROWS)
    truth = samples.paired(test or data, "test", size=_size(HEIGHT))
    groups = videos(test or data, truth)
    rows: dict[str, Any] = {}
    gone: dict[str, Any] = {}
    said: dict[str, list[Told]] = {}
    for name in names:
        count = models.counts(options_of(name)["model"])
        tell(f"{name}: {count.parameters:,} parameters, {count.macs / 1e9:.3f} G MACs at 640x480")
        fits = [
            trained(name, data=data, test=test, seed=seed, height=height, **training) for seed in range(1, seeds + 1)
        ]
        gases = options_of(name).get("gases", "both")
        pairs = truth if gases == "both" else _only(test or data, gases)
        told = [say_of(run, pairs) for run in fits]
        said |= {name: told} if gases == "both" else {}
        rows[name] = summary(told, groups=videos(test or data, pairs))
        rows[name] |= count._asdict() | {"seconds": _seconds(fits)}
        if surfaces and told[0].counts is not None and gases == "both":
            rows[name] |= outlines(fits[0], truth, groups)
        if failing and name in (FIRST, OURS, *ALONE.values()):
            gone[name] = missing(fits, test or data, ("both", *GASES) if gases == "both" else (gases,))
        tell(line(name, rows[name]))
    mask = trained(FIRST, data=data, test=test, height=height, **training) if FIRST in rows else None
    floor = baselines(data, test, truth, groups, seeds=seeds, mask=mask)
    for name, row in floor.items():
        tell(line(name, row))
    return runs.plain(
        {
            "data": {
                "train": about(data, "train"),
                "valid": about(data, "valid"),
                "test": about(test or data, "test"),
            },
            "training": {
                **TRAINING,
                **training,
                "recipes": RECIPES,
                "seeds": seeds,
                "height": height,
                "test_height": HEIGHT,
            },
            "rows": rows | floor,
            "missing": gone,
            "leads": {name: lead(told, said[FIRST], groups=groups) for name, told in said.items() if name != FIRST}
            if FIRST in said
            else {},
            "stamp": runs.stamp(),
        }
    )


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


def trained(row: str, *, data: str, test: str = "", seed: int = 1, height: int = ROWS_SEEN, **training: Any) -> Run:
    """The finished run of a row, made now unless it is there with the same parameters and pairs.

    What it was tested on does not matter, but for an unfinished one, which goes on only as it began.
    """
    asked = {"data": data, "test": test, "test_height": HEIGHT, **options_of(row)}
    asked |= {"height": height} if height != ROWS_SEEN else {}
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


def model_of(run: Run) -> Sized:
    """The trained model of a finished run of the task `plume`."""
    own = {name: value for name, value in run.params.items() if name in options.accepted(tasks.plume)}
    model = tasks.plume(**own).build()
    return cast(Sized, weights.fill(model, weights.load(run.folder)[0], where=str(run.folder)).eval())


def say_of(run: Run, pairs: Pairs) -> Told:
    """What the model of `run` says of these pairs."""
    return say(model_of(run), pairs)


def say(model: nn.Module, pairs: Dataset) -> Told:
    """What a model says of these pairs."""
    kept, batch = predict(model, pairs, batch=32, keep=scores.keep)
    counts = kept["counts"].numpy() if "counts" in kept else None
    chance = kept["class_logits"].softmax(dim=1).double().numpy() if "class_logits" in kept else None
    return Told(counts, chance, *(batch[name].numpy() for name in ("present", "label", "index")))


def summary(told: Sequence[Told], *, groups: NDArray, measures: Iterable[str] = MEASURES) -> dict[str, Any]:
    """Each measure as value, low, high: mean over the seeds, 95 % interval from drawing videos again.

    `by_seed` has the values alone, `confusion` (3, 3) the pairs by true class and answer, as a mean over the seeds.
    """
    found: dict[str, Any] = _interval(lambda rows: _means(told, rows), groups=groups, measures=measures)
    found["by_seed"] = {name: [one.score(np.arange(len(groups)))[name] for one in told] for name in found}
    answers = [(one.label, one.chance.argmax(axis=1)) for one in told if one.chance is not None]
    if answers:
        found["confusion"] = np.mean([scores.crossed(*pair) for pair in answers], axis=0)
    return found


def lead(
    told: Sequence[Told], than: Sequence[Told], *, groups: NDArray, measures: Iterable[str] = ("miou", "balanced")
) -> dict[str, Any]:
    """By how much `told` is better `than` the other on the same pairs: value, low, high of each measure that both have.

    Both are drawn together, so what makes a draw of videos hard for both of them does not widen the interval.
    """

    def difference(rows: NDArray[np.int64]) -> dict[str, float]:
        one, other = _means(told, rows), _means(than, rows)
        return {name: one[name] - other[name] for name in one.keys() & other.keys()}

    return _interval(difference, groups=groups, measures=measures)


def missing(fits: Sequence[Run], folder: str, left: Sequence[str] = ("both", *GASES)) -> dict[str, Any]:
    """Scores on the pairs that have both gases, by what is `left` to see: both, or one with the other hidden."""
    full = samples.paired(folder, "test", size=_size(HEIGHT), gases="full").row
    found = {}
    for gases in left:
        pairs = _only(folder, gases)
        rows = np.flatnonzero(np.isin(pairs.row.numpy(), full.numpy()))
        told = [say_of(run, pairs).of(rows) for run in fits]
        measures = ("miou", "balanced", "accuracy", *(f"iou_{gas}" for gas in GASES))
        found[gases] = summary(told, groups=videos(folder, pairs)[rows], measures=measures)
    return found


def outlines(run: Run, pairs: Pairs, groups: NDArray) -> dict[str, Any]:
    """HD95 and mean surface distance in pixels, on the first pair of every video."""
    cut = Subset(pairs, np.unique(groups, return_index=True)[1].tolist())

    def keep(outputs: Batch, batch: Batch) -> tuple[Batch, Batch]:
        said = {f"{gas}_mask": outputs[f"{gas}_logits"].argmax(dim=1).byte() for gas in GASES}
        return said, {"present": batch["present"], **{name: batch[name].byte() for name in said}}

    said, true = predict(model_of(run), cut, batch=32, keep=keep)
    there = true["present"] > 0
    answer = torch.cat([said[f"{g}_mask"][there[:, i]] for i, g in enumerate(GASES)])
    target = torch.cat([true[f"{g}_mask"][there[:, i]] for i, g in enumerate(GASES)])
    return scores.surface(answer.numpy(), target.numpy())


def baselines(
    data: str, test: str, truth: Pairs, groups: NDArray, *, seeds: int, mask: Run | None
) -> dict[str, dict[str, Any]]:
    """Rows without a trained network: which gases were filmed, the most frequent class, and the forests."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = samples.paired(data, "train", size=_size(120))
    pattern = Pattern.fit(train.table)
    known = truth.present.numpy()[truth.row], truth.label.numpy()[truth.row], truth.row.numpy()

    def of(chance: NDArray) -> Told:
        return Told(None, chance, *known)

    rows = truth.table.iloc[truth.row.numpy()]
    found = {
        "pattern of missing gases": [of(pattern.probabilities(rows))],
        "pattern of missing gases, balanced": [of(pattern.probabilities(rows, even=True))],
    }
    given, asked = emissions(data, train, split="train"), emissions(test or data, truth, split="test")
    if given is not None and asked is not None:
        rule = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        rule.fit(given, train.label.numpy()[train.row])
        found["true emission, which no camera tells"] = [of(rule.predict_proba(asked))]
    sources: dict[str, Callable[[Pairs], NDArray]] = {"true masks": forest.true_masks}
    if mask is not None:
        sources["FUME's masks"] = partial(said_masks, model_of(mask))
    for name, source in sources.items():
        one, other = source(train), source(truth)
        trees = [forest.fit(train, one, seed=seed) for seed in range(1, seeds + 1)]
        found[f"random forest, {name}"] = [of(forest.predict(tree, truth, other)) for tree in trees]
    return {name: summary(told, groups=groups) for name, told in found.items()}


def emissions(folder: str, pairs: Pairs, *, split: str) -> NDArray[np.float64] | None:
    """What only a simulator knows, (pairs, 4): ln Q of each gas, 0 where it was not filmed, and whether it was.

    None where there is no emission.csv, or only pairs, whose originals nobody knows.
    """
    file = tables.find(folder) / "emission.csv"
    if not file.is_file() or not tables.splits_in(file.parent):
        return None
    known = pd.read_csv(file, dtype={"original_sample_id": str}).drop_duplicates(["original_sample_id", "gas_type"])
    table, there = pairs.table.iloc[pairs.row.numpy()], pairs.present[pairs.row].numpy()
    found = np.zeros(there.shape)
    for place, gas in enumerate(GASES):
        rows = there[:, place] > 0
        originals = tables.annotated(folder, table.loc[rows, f"{gas}_frame"], split=split)["original_sample_id"]
        own = known[known["gas_type"] == gas].set_index("original_sample_id")["log_emission"].reindex(originals)
        if own.isna().any():
            found_none = f"none of {own.index[own.isna()][0]}"
            hint = "take the file that came with these annotations, or delete it"
            raise fault(file, expected=f"log_emission of every {gas} video", found=found_none, hint=hint)
        found[rows, place] = own
    return np.hstack([found, there])


def said_masks(model: nn.Module, pairs: Pairs) -> NDArray[np.uint8]:
    """The masks that a model says of these pairs, (pairs, 2, H, W)."""

    def keep(outputs: Batch, batch: Batch) -> tuple[Batch, Batch]:
        masks = [outputs[f"{gas}_logits"].argmax(dim=1).byte() for gas in GASES]
        return {"masks": torch.stack(masks, dim=1)}, {"index": batch["index"]}

    return predict(model, pairs, batch=32, keep=keep)[0]["masks"].numpy()


def videos(folder: str, pairs: Pairs, *, split: str = "test") -> NDArray[np.object_]:
    """The original (a video) of every pair: what is drawn anew for an interval.

    In a folder that has only pairs nobody knows it, and each pair is its own. A frame that is not annotated is refused.
    """
    table = pairs.table.iloc[pairs.row.numpy()]
    first = table["co2_frame"].where(table["co2_frame"] != "", table["ch4_frame"])
    if tables.splits_in(tables.find(folder)):
        first = tables.annotated(folder, first, split=split)["original_sample_id"]
    return first.to_numpy(object)


def added(file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """What a file of results holds once `result` is in it; rows of the same name are replaced."""
    old = read_json(file) if Path(file).exists() else {}
    if old.get("data") != result["data"] or old.get("training") != result["training"]:
        old = {}
    joined = {key: old.get(key, {}) | result[key] for key in ("rows", "missing", "leads")}
    return {"made_by": {"command": "smellkit bench plume --data DIR"}} | result | joined


def line(name: str, row: dict[str, Any]) -> str:
    """One row as a line to read: per cent, with intervals, parameters and multiply-accumulates."""

    def cell(measure: str) -> str:
        figure = row.get(measure)
        return (
            "-"
            if figure is None
            else f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
        )

    size = f"{row['parameters']:>10,} parameters {row['macs'] / 1e9:6.3f} G MACs" if "parameters" in row else ""
    told = "  ".join(f"{measure} {cell(measure):>19}" for measure in ("miou", "balanced", "accuracy"))
    return f"{name:36} {told}  {size}"


def _interval(
    scores_of: Callable[[NDArray[np.int64]], dict[str, float]], *, groups: NDArray, measures: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Value, low and high of what `scores_of` finds in all rows, and in rows of videos drawn again."""
    names, which = np.unique(groups, return_inverse=True)
    own = [np.flatnonzero(which == number) for number in range(len(names))]
    random = np.random.default_rng(0)
    draws = [np.concatenate([own[i] for i in random.integers(0, len(own), len(own))]) for _ in range(ROUNDS)]
    everything = scores_of(np.arange(len(groups)))
    table = pd.DataFrame([scores_of(draw) for draw in draws])
    low, high = table.quantile(0.025), table.quantile(0.975)
    return {
        name: {"value": everything[name], "low": low[name], "high": high[name]}
        for name in measures
        if name in everything
    }


def _learned(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a run that decide what is learned: not what it is tested on."""
    return {name: value for name, value in params.items() if name not in ("test", "test_height")}


def _means(told: Sequence[Told], rows: NDArray[np.int64]) -> dict[str, float]:
    each = [one.score(rows) for one in told]
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def _only(folder: str, gases: str) -> Pairs:
    return samples.paired(folder, "test", size=_size(HEIGHT), gases=gases)


def about(folder: str, split: str) -> dict[str, Any]:
    """How many pairs a split has, by gases, class and pH, and which they are, by the fingerprint of their folder."""
    counts = tables.statistics({split: tables.read_pairs(folder, split, pictures=False)}).iloc[0].to_dict()
    return counts | {"sha256": fingerprint(folder)}


def fingerprint(folder: str) -> str:
    """SHA-256 of what tells one set of frames from another: its tables, and the name and length of every file."""
    root = tables.find(folder)
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes() if path.suffix == ".csv" else b"")
    return digest.hexdigest()


def _seconds(fits: Sequence[Run]) -> float:
    return float(np.mean([cast(float, run.stamp.get("seconds", np.nan)) for run in fits]))


def _size(height: int) -> tuple[int, int]:
    return height, height * 4 // 3
