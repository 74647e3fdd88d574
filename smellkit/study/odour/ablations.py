"""The encoder's ablations: the sweeps of notebooks/sweeps, in full or cut down to what a notebook has time for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smellkit import plots
from smellkit.study import sweep
from smellkit.study.metrics import over_seeds

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FACTORY = "smellkit.study.odour.encoder_task:task"
SCORES = {"test window": "test.accuracy", "test top-5": "test.top5", "other session": "other_session.accuracy"}
SWEEPS = ("technique", "sensors", "tricks", "sessions")


def run(name: str, *, fixed: dict[str, Any] | None = None, seeds: int = 5, workers: int = 2) -> pd.DataFrame:
    """Run the sweep notebooks/sweeps/<name>.yaml and return name, mean, low, high and seeds of each case.

    `fixed` overrides what the file fixes. A run that is finished is not run again.
    """
    table = sweep.run(sweep.shipped(name, seeds=seeds, **(fixed or {})), FACTORY, workers=workers)
    return sweep.summary(table).rename(columns={"case": "name"})


def measure(
    data: str = "", *, seeds: int = 5, workers: int = 2, progress: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """All of `SWEEPS` on the recordings in `data`: {"sweeps": {sweep: {case: {score: {value, low, high}}}}}.

    Intervals are over seeds, by Student's t: how much training varies, not how much other recordings would.
    """
    sweeps: dict[str, Any] = {}
    for name in SWEEPS:
        table = sweep.run(sweep.shipped(name, seeds=seeds, data=data), FACTORY, workers=workers)
        sweeps[name] = {
            case: {column: over_seeds(rows[score])._asdict() for column, score in SCORES.items()}
            | {"seeds": rows["seed"].nunique(), "runs": list(rows["run"])}
            for case, rows in table.groupby("case", sort=False)
        }
        best = max(sweeps[name], key=lambda case: sweeps[name][case]["test window"]["value"])
        progress(f"{name}: {len(sweeps[name])} cases, the highest {best}")
    return {"sweeps": sweeps}


def bars(table: pd.DataFrame, *, label: str = "accuracy") -> Figure:
    """The table of `run` as bars with their intervals, where more than one seed was run."""
    of = table.set_index("name")
    ends = {end: of[end].clip(0, 1) for end in ("low", "high")} if table["seeds"].min() > 1 else {}
    return plots.bars(of["mean"], **ends, label=label, limits=(0, 1.08))
