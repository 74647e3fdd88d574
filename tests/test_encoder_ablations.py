"""The encoder's sweeps: every case names options that exist, and what is published is what was run."""

import pandas as pd
import pytest

from smellkit import options, paths
from smellkit.study import sweep
from smellkit.study.odour import ablations
from smellkit.train import Settings


@pytest.mark.parametrize("name", ablations.SWEEPS)
def test_every_case_of_a_sweep_can_be_run(name):
    plan = sweep.read(paths.HOME / "notebooks" / "sweeps" / f"{name}.yaml")
    build = options.resolve(ablations.FACTORY)
    for values in plan.cases().values():
        asked, _ = options.split(plan.fixed | values, build, Settings)
        build(**asked)
    assert len(plan.seeds) == 5


def test_published_cases_are_means_over_their_runs(monkeypatch):
    def run(plan, factory, *, workers):
        rows = [
            {"case": case, "seed": seed, "run": f"{case}/{seed}"} | dict.fromkeys(ablations.SCORES.values(), seed / 10)
            for case in plan.cases()
            for seed in plan.seeds
        ]
        return pd.DataFrame(rows)

    monkeypatch.setattr(sweep, "run", run)
    found = ablations.measure(seeds=3)["sweeps"]
    assert set(found) == {"technique", "sensors", "tricks", "sessions"}
    assert len(found["sensors"]) == 7
    one = found["technique"]["cross-entropy"]
    assert one["test window"]["value"] == pytest.approx(0.2)
    assert one["test window"]["low"] < 0.2 < one["test window"]["high"]
    assert one["seeds"] == 3 and one["runs"] == ["cross-entropy/1", "cross-entropy/2", "cross-entropy/3"]
