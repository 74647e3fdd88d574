"""What a part of the system is worth: trained again without it, or a camera that fails more and more often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import Subset

from smellkit import paths, runs, sweep
from smellkit.checks import read_json
from smellkit.plume import data as samples
from smellkit.plume.fume import GASES, Sized
from smellkit.study.plume import bench
from smellkit.study.plume.bench import Told

FOLDER = paths.HOME / "notebooks" / "sweeps"
SWEEPS = {
    "plume-fusion": "How the gases meet",
    "plume-gases": "Which gases there are",
    "plume-tasks": "Which tasks are learned",
    "plume-dropout": "How often a gas is hidden in training",
    "plume-training": "Classes and augmentation",
}


def swept(
    folder: str, *, names: Sequence[str] = tuple(SWEEPS), seeds: int = 3, workers: int = 1, **fixed: Any
) -> dict[str, pd.DataFrame]:
    """Run the sweeps `names` on `folder`: title -> mean, low and high of mIoU and of balanced accuracy by case.

    `fixed` overrides what the files say for all their cases. What is finished is not run again.
    """
    found = {}
    for name in names:
        plan = sweep.read(FOLDER / f"{name}.yaml")
        plan = replace(plan, seeds=list(range(1, seeds + 1)), fixed=plan.fixed | fixed | {"data": folder})
        ran = sweep.run(plan, "smellkit.plume.task:plume", workers=workers)
        scores = [f"test.{score}" for score in ("miou", "balanced") if f"test.{score}" in ran]
        tables = [sweep.summary(ran.dropna(subset=[score]), score=score).assign(score=score) for score in scores]
        found[SWEEPS[name]] = pd.concat(tables, ignore_index=True)
    return found


def added(file: Path, found: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What a file of ablations holds once the tables of `swept` are in it; sweeps of the same title are replaced."""
    tables: dict[str, Any] = {title: {} for title in found}
    for title, table in found.items():
        for row in table.itertuples():
            figure = {"value": row.mean, "low": row.low, "high": row.high}
            tables[title].setdefault(row.case, {"seeds": row.seeds})[row.score.removeprefix("test.")] = figure
    old = read_json(file) if Path(file).exists() else {}
    command = "smellkit bench plume-ablations --data TRAIN --test TEST"
    return runs.plain(
        {"made_by": {"command": command}, "tables": old.get("tables", {}) | tables, "stamp": runs.stamp()}
    )


def failing(
    model: Sized, folder: str, *, shares: Sequence[float] = (0, 0.25, 0.5, 0.75, 1), rows: int = 120, seed: int = 0
) -> pd.DataFrame:
    """Scores on `rows` drawn pairs with both gases when one camera fails in a share of them: failing, share, scores.

    A mask counts only where there is a frame. Each pair is looked at three times, whole and with either gas hidden.
    """
    random = np.random.default_rng(seed)
    size = (bench.HEIGHT, bench.HEIGHT * 4 // 3)
    full = samples.paired(folder, "test", size=size, gases="full").row.numpy()
    chosen = random.permutation(full)[:rows]  # the table lies in order of pH
    told = {gases: _seen(model, folder, gases, chosen) for gases in ("both", *GASES)}
    order = random.permutation(len(chosen))
    found = []
    for place, gas in enumerate(GASES):
        for share in shares:
            gone = np.zeros(len(order), bool)
            gone[order[: round(share * len(order))]] = True
            mixed = _mixed(told["both"], told[GASES[1 - place]], gone)
            found.append({"failing": gas, "share": share, **mixed.score(np.arange(len(order)))})
    return pd.DataFrame(found)


def _seen(model: Sized, folder: str, gases: str, rows: np.ndarray) -> Told:
    """What the model says of the pairs `rows` of the table when it sees only `gases`."""
    size = (bench.HEIGHT, bench.HEIGHT * 4 // 3)
    pairs = samples.paired(folder, "test", size=size, gases=gases)
    return bench.say(model, Subset(pairs, np.flatnonzero(np.isin(pairs.row.numpy(), rows)).tolist()))


def _mixed(one: Told, other: Told, choose: np.ndarray) -> Told:
    """`other` where `choose`, else `one`."""

    def pick(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
        if a is None or b is None:
            return None
        return np.where(choose.reshape(-1, *[1] * (a.ndim - 1)), b, a)

    return Told(*(pick(a, b) for a, b in zip(one, other, strict=True)))  # type: ignore[arg-type]
