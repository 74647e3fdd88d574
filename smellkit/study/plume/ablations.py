"""What a part of the system is worth: trained again without it, or a camera that fails more and more often."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Subset

from smellkit.plume import GASES
from smellkit.plume.models import Sized
from smellkit.study import evaluate, sweep
from smellkit.study.plume import bench
from smellkit.study.plume import data as samples
from smellkit.study.plume.data import four_to_three

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
    swept_tables = {}
    for name in names:
        plan = sweep.shipped(name, seeds=seeds, **fixed, data=folder)
        ran = sweep.run(plan, "smellkit.study.plume.task:PlumeTask", workers=workers)
        scores = [f"test.{score}" for score in ("miou", "balanced") if f"test.{score}" in ran]
        tables = [sweep.summary(ran.dropna(subset=[score]), score=score).assign(score=score) for score in scores]
        swept_tables[SWEEPS[name]] = pd.concat(tables, ignore_index=True)
    return swept_tables


def publish(file: Path, swept: dict[str, pd.DataFrame]) -> Path:
    """Write the tables of `swept` into a file of ablations; sweeps of the same title are replaced, others kept."""
    tables: dict[str, Any] = {title: {} for title in swept}
    for title, table in swept.items():
        for row in table.itertuples():
            figure = {"value": row.mean, "low": row.low, "high": row.high}
            tables[title].setdefault(row.case, {"seeds": row.seeds})[row.score.removeprefix("test.")] = figure
    kept = evaluate.earlier(file).get("tables", {})
    command = "smellkit bench plume-ablations --data TRAIN --test TEST"
    return evaluate.publish(file, {"tables": kept | tables}, command=command)


def failing(
    model: Sized, folder: str, *, shares: Sequence[float] = (0, 0.25, 0.5, 0.75, 1), rows: int = 120, seed: int = 0
) -> pd.DataFrame:
    """Scores on `rows` drawn pairs with both gases when one camera fails in a share of them: failing, share, scores.

    A mask counts only where there is a frame. Each pair is predicted three times, whole and with either gas hidden.
    """
    random, predictions = np.random.default_rng(seed), {}
    chosen: np.ndarray | None = None
    for gases in ("full", *GASES):
        pairs = samples.paired(folder, "test", size=four_to_three(bench.HEIGHT), gases=gases)
        if chosen is None:
            chosen = random.permutation(pairs.row.numpy())[:rows]  # the table lies in order of pH
        these = np.flatnonzero(np.isin(pairs.row.numpy(), chosen))
        predictions[gases] = bench.predictions_of(model, Subset(pairs, these.tolist()))
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
            scores.append({"failing": gas, "share": share, **bench.Predictions(*mixed).score()})
    return pd.DataFrame(scores)
