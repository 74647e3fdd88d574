"""Sweeps: what is asked for is what is run, once, on a real dask cluster."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from smellkit import cluster, options, paths
from smellkit.cli.commands import TASKS
from smellkit.errors import DataError, OptionError
from smellkit.study import sweep
from smellkit.task import Task, Tensors
from smellkit.train import Settings


def line(*, width: int = 1, channels: str = "a,b,c") -> Task:
    """A task that the workers can import: learn the sign of the first channel that is left."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y, kept = (x[:, 0] > 0).long(), [["a", "b", "c"].index(name) for name in channels.split(",")]
    data = Tensors(x=x[:, kept], y=y)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(len(kept), 4 * width), nn.ReLU(), nn.Linear(4 * width, 2))

        def forward(self, batch):
            return {"logits": self.layers(batch["x"])}

    return Task(
        name="line",
        load=lambda: {"train": data, "valid": data, "test": data},
        build=Net,
        loss=lambda out, batch: nn.functional.cross_entropy(out["logits"], batch["y"]),
        score=lambda out, batch: {"accuracy": (out["logits"].argmax(1) == batch["y"]).float().mean().item()},
    )


@pytest.fixture
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_sweep_runs_every_case_and_seed_once_and_goes_on_where_it_stopped(own_runs, monkeypatch):
    fixed = {"epochs": 8, "learning_rate": 0.05, "batch": 16}
    plan = sweep.Sweep("removal", task="line", seeds=[1, 2], fixed=fixed, leave_one_out={"channels": ["a", "b", "c"]})
    table = sweep.run(plan, f"{__name__}:line", workers=2)
    assert list(table["case"].unique()) == ["all", "without a", "without b", "without c"] and len(table) == 8
    means = sweep.summary(table).set_index("case")
    assert means.loc["without a", "mean"] < 0.75 < means.loc["all", "mean"]
    assert (means["low"] <= means["mean"]).all() and (means["seeds"] == 2).all()
    stamps = {path: path.stat().st_mtime_ns for path in own_runs.rglob("scores.json")}
    (own_runs / table["run"][3] / "scores.json").unlink()  # as if it had been interrupted there
    monkeypatch.setattr(sweep.cluster, "workers", lambda *_, count: ThreadPoolExecutor(count))  # starts at once
    again = sweep.run(plan, f"{__name__}:line", workers=1)
    fresh = [path for path in own_runs.rglob("scores.json") if path.stat().st_mtime_ns != stamps[path]]
    assert [path.parent for path in fresh] == [own_runs / table["run"][3]]
    assert again.equals(table)
    assert (sweep.folder("removal") / "runs.parquet").exists()


def test_a_grid_is_every_combination_in_order():
    plan = sweep.Sweep("g", task="line", grid={"width": [1, 2], "channels": ["a", "b"]})
    assert list(plan.cases()) == [
        "width=1,channels=a",
        "width=1,channels=b",
        "width=2,channels=a",
        "width=2,channels=b",
    ]


def test_a_wrong_option_is_refused_before_anything_runs(own_runs):
    plan = sweep.Sweep("g", task="line", grid={"widht": [1, 2]})
    with pytest.raises(OptionError, match="did you mean width"):
        sweep.run(plan, f"{__name__}:line")
    assert not list(own_runs.iterdir())


@pytest.mark.parametrize("text", ["", "- a", "name: x", "task: [", "\0"])
def test_a_file_that_is_no_sweep_is_refused_by_name(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match="plan.yaml"):
        sweep.read(path)


@pytest.mark.parametrize("lines", ["seeds: []", "grid: {width: []}", "leave_one_out: {sensors: []}"])
def test_an_empty_list_is_no_sweep_of_nothing(tmp_path, lines):
    path = tmp_path / "plan.yaml"
    path.write_text(f"task: line\n{lines}\n")
    with pytest.raises(DataError, match=r"found .*\[\]"):
        sweep.read(path)


@pytest.mark.parametrize(
    "cases",
    [
        {"leave_one_out": {"sensors": ["CO"], "lags": ["CO"]}},
        {"variants": {"all": {}}, "leave_one_out": {"sensors": ["CO"]}},
        {"variants": {"a/b": {"width": 1}, "a-b": {"width": 2}}},
    ],
)
def test_two_cases_of_one_name_are_refused_and_none_is_lost(cases):
    with pytest.raises(OptionError, match="Two cases of g are called"):
        sweep.Sweep("g", task="line", **cases).cases()


def test_a_sweep_without_a_worker_is_refused_and_does_not_wait(own_runs):
    with pytest.raises(OptionError, match="0 workers"):
        sweep.run(sweep.Sweep("g", task="line"), f"{__name__}:line", workers=0)


def test_an_unknown_key_in_the_file_is_refused_with_the_nearest_one(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("task: line\nseed: [1]")
    with pytest.raises(OptionError, match="did you mean seeds"):
        sweep.read(path)


def test_a_file_names_its_sweep(tmp_path):
    path = tmp_path / "losses.yaml"
    path.write_text("task: line\nseeds: [1, 2]\nvariants: {plain: , wide: {width: 2}}")
    assert sweep.read(path).name == "losses" and sweep.read(path).cases() == {"plain": {}, "wide": {"width": 2}}


def test_the_name_of_an_unknown_task_is_answered_with_the_known_ones():
    with pytest.raises(OptionError, match="odour-encoder"):
        options.find({"odour-encoder": "x:y"}, "odor-encoder", what="task")


@pytest.mark.parametrize(
    "file", sorted((paths.HOME / "notebooks" / "sweeps").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_sweep_that_is_shipped_can_be_run_with_three_seeds_and_a_case_to_compare_with(file):
    plan = sweep.read(file)
    assert len(plan.seeds) >= 3 and len(plan.cases()) >= 2
    for values in plan.cases().values():
        options.split(plan.fixed | values, options.find(TASKS, plan.task, what="task"), Settings)


def test_workers_keep_the_memory_that_the_next_step_will_ask_for():
    with cluster.workers(count=1) as pool:
        assert pool.submit(os.getenv, "MALLOC_TRIM_THRESHOLD_").result() is None
