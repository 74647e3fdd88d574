"""The encoder's ablations: the sweeps of notebooks/sweeps, in full or cut down to what a notebook has time for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smellkit import paths, plots, sweep
from smellkit.errors import OptionError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FACTORY = "smellkit.odour.encoder.task:task"


def run(
    name: str,
    *,
    fixed: dict[str, Any] | None = None,
    seeds: int = 5,
    workers: int = 2,
    cases: Sequence[str] = (),
    score: str = "test.accuracy",
) -> pd.DataFrame:
    """Run the sweep notebooks/sweeps/<name>.yaml and return name, mean, low, high and seeds of each case.

    `fixed` overrides what the file fixes; `cases` keeps some of its variants. A run that is finished is not run again.
    """
    plan = sweep.read(paths.HOME / "notebooks" / "sweeps" / f"{name}.yaml")
    unknown = [case for case in cases if case not in plan.variants]
    if unknown:
        raise OptionError(f"The sweep {name} has no case {unknown[0]!r}", hint="one of " + ", ".join(plan.variants))
    chosen = {case: plan.variants[case] for case in cases} or plan.variants
    plan = replace(plan, fixed=plan.fixed | (fixed or {}), seeds=list(range(1, seeds + 1)), variants=chosen)
    table = sweep.run(plan, FACTORY, workers=workers)
    return sweep.summary(table, score=score).rename(columns={"case": "name"})


def bars(table: pd.DataFrame, *, label: str = "accuracy") -> Figure:
    """The table of `run` as bars with their intervals, where more than one seed was run."""
    means = table.set_index("name")["mean"]
    known = table["seeds"].min() > 1
    low, high = (table.set_index("name")[column].clip(0, 1) if known else None for column in ("low", "high"))
    return plots.bars(means, low=low, high=high, label=label, limits=(0, 1.08))
