"""Many runs of one task: a grid, named variants or leave-one-out, each with several seeds, on dask.

One code path for this machine (a LocalCluster on localhost) and for a cluster (`--scheduler tcp://...`, where all
workers see the same folder of runs). What is finished is not run again, so an interrupted sweep goes on.
"""

from __future__ import annotations

import itertools
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smellkit import cluster, options, paths
from smellkit.checks import fault, read_yaml
from smellkit.errors import DataError, OptionError
from smellkit.runs import Run
from smellkit.study.metrics import over_seeds

if TYPE_CHECKING:
    import pandas as pd

FOLDER = paths.HOME / "notebooks" / "sweeps"


@dataclass(frozen=True)
class Sweep:
    """What to run. A YAML file has these keys; `grid`, `variants` and `leave_one_out` may stand together.

    >>> Sweep("losses", task="odour-encoder", grid={"gamma": [0, 1, 2]}, fixed={"epochs": 3}, seeds=[1, 2])
    """

    name: str
    task: str
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    fixed: dict[str, Any] = field(default_factory=dict)  # options and training settings shared by all
    grid: dict[str, list] = field(default_factory=dict)  # every combination
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> options
    leave_one_out: dict[str, list] = field(default_factory=dict)  # option -> its list: "all", then each item removed

    def cases(self) -> dict[str, dict[str, Any]]:
        """Name -> options of every variant, in order; OptionError where two share a name, and so a folder."""
        cases = [(name, dict(values or {})) for name, values in self.variants.items()]
        for values in itertools.product(*self.grid.values()) if self.grid else []:
            case = dict(zip(self.grid, values, strict=True))
            cases.append((",".join(f"{name}={value}" for name, value in case.items()), case))
        for name, items in self.leave_one_out.items():
            cases.append(("all", {name: items}))
            cases += [(f"without {item}", {name: [other for other in items if other != item]}) for item in items]
        names = [name.replace("/", "-") for name, _ in cases]
        if twice := [name for name in names if names.count(name) > 1]:
            raise OptionError(f"Two cases of {self.name} are called {twice[0]!r}", hint="a sweep of its own for each")
        return dict(cases) or {"base": {}}


SHAPES: dict[str, tuple[type, type, str]] = {  # key -> what it is, what is in it, and that in words
    "name": (str, object, "a text"),
    "task": (str, object, "a text"),
    "seeds": (list, int, "a list of whole numbers"),
    "grid": (dict, list, "names with lists of values"),
    "leave_one_out": (dict, list, "names with lists of values"),
    "fixed": (dict, object, "names with their values"),
    "variants": (dict, object, "names with their values"),
}


def read(path: Path) -> Sweep:
    """Read a sweep from a YAML file; OptionError for an unknown key, DataError for an unreadable file."""
    values = read_yaml(path)
    if "task" not in values:
        raise DataError(f"{path} has no `task:`", hint="name the task, for example `task: odour-encoder`")
    options.check(values, SHAPES, f"{path} has an unknown key")
    for key, value in values.items():
        kind, inside, expected = SHAPES[key]
        items = value.values() if isinstance(value, dict) else value
        right = isinstance(value, kind) and all(isinstance(item, inside) for item in items)
        if not right or [] in (value, *items):
            hint = "see notebooks/sweeps for examples"
            raise fault(path, key=key, expected=expected, actual=repr(value)[:60], hint=hint)
    return Sweep(**{"name": Path(path).stem, **values})


def shipped(name: str, /, *, seeds: int, **fixed: Any) -> Sweep:
    """A sweep of notebooks/sweeps with the seeds 1, 2, ...; `fixed` overrides what its file says for all cases."""
    plan = read(FOLDER / f"{name}.yaml")
    return replace(plan, seeds=list(range(1, seeds + 1)), fixed=plan.fixed | fixed)


def run(sweep: Sweep, factory: str, *, scheduler: str = "", workers: int = 2, fresh: bool = False) -> pd.DataFrame:
    """Run what is not finished and return one row a run: case, seed, options, scores as `valid.accuracy`, run.

    `factory` is the task's "module:function"; `fresh` runs again what is finished. The same table lies in
    data/runs/sweep/<name>/runs.parquet.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    jobs = _jobs(sweep, factory, fresh=fresh)
    with cluster.workers(scheduler, count=min(workers, len(jobs))) as pool:
        futures = [pool.submit(partial(_one, **job)) for job in jobs]
        done = tqdm(as_completed(futures), total=len(jobs), desc=sweep.name, unit="run", dynamic_ncols=True)
        rows = [future.result() for future in done]
    table = pd.DataFrame(rows).sort_values(["order", "seed"], ignore_index=True).drop(columns="order")
    with paths.replacing(folder(sweep.name) / "runs.parquet") as part:
        table.to_parquet(part)
    return table


def summary(table: pd.DataFrame, *, score: str = "test.accuracy") -> pd.DataFrame:
    """Mean of `score` over the seeds of each case, 95 % interval by Student's t: case, mean, low, high, seeds."""
    import pandas as pd

    options.check([score], table.columns, "The sweep has no score")
    rows = [(case, *over_seeds(one), len(one)) for case, one in table.groupby("case", sort=False)[score]]
    return pd.DataFrame(rows, columns=["case", "mean", "low", "high", "seeds"])


def folder(name: str) -> Path:
    """Where the sweep `name` keeps its table and its runs."""
    return paths.runs() / "sweep" / name


def _jobs(sweep: Sweep, factory: str, *, fresh: bool) -> list[dict[str, Any]]:
    """Check every option before anything runs."""
    from smellkit.train import Settings

    build = options.resolve(factory)
    jobs = []
    for order, (case, values) in enumerate(sweep.cases().items()):
        task_options, settings = options.split(sweep.fixed | values, build, Settings)
        for seed in sweep.seeds:
            name = f"sweep/{sweep.name}/{case.replace('/', '-')}/seed={seed}"
            row = {"case": case, "order": order, "seed": seed, **task_options, "run": name}
            how = {"task_options": task_options, "settings": settings | {"seed": seed}}
            jobs.append({"row": row, "factory": factory, "fresh": fresh, **how})
    return jobs


def _one(*, row: dict, factory: str, task_options: dict, settings: dict, fresh: bool) -> dict[str, Any]:
    """One run, on a worker; a finished one with the same parameters is not run again."""
    import torch

    from smellkit.train import Settings, fit, parameters

    torch.set_num_threads(1)  # the workers share the machine's cores
    task, how, name = options.resolve(factory)(**task_options), Settings(**settings), row["run"]
    done = Run(name, paths.runs() / name)
    if fresh or not done.finished or done.params != parameters(task, how, task_options):
        done = fit(task, how, name=name, params=task_options)
    splits = {split: scores for split, scores in done.scores.items() if isinstance(scores, dict)}
    return row | {f"{split}.{score}": value for split, scores in splits.items() for score, value in scores.items()}
