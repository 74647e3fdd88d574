"""The encoder's sweeps: every case names options that exist, and what is published is what was run."""

import pandas as pd
import pytest

from smellkit import options, paths
from smellkit.study import ablations, sweep
from smellkit.train import Settings

STUDIES = {name: study for studies in ablations.STUDIES.values() for name, study in studies.items()}


@pytest.mark.parametrize("name", STUDIES)
def test_every_case_of_a_sweep_can_be_run(name):
    plan = sweep.read(paths.HOME / "notebooks" / "sweeps" / f"{name}.yaml")
    build = options.resolve(STUDIES[name].task)
    for values in plan.cases().values():
        asked, _ = options.split(plan.fixed | values, build, Settings)
        build(**asked)
    assert len(plan.seeds) == (5 if name in ablations.STUDIES["smellnet"] else 3)


def test_published_cases_are_means_over_their_runs(monkeypatch):
    def run(plan, factory, *, workers):
        rows = [
            {"case": case, "seed": seed, "run": f"{case}/{seed}"} | dict.fromkeys(scores, seed / 10)
            for case in plan.cases()
            for seed in plan.seeds
        ]
        return pd.DataFrame(rows)

    scores = ablations.STUDIES["smellnet"]["technique"].scores
    monkeypatch.setattr(sweep, "run", run)
    result = ablations.run(system="smellnet", seeds=3)["rows"]
    assert {name.split("/")[0] for name in result} == {"technique", "sensors", "tricks", "sessions"}
    assert sum(name.startswith("sensors/") for name in result) == 7
    one = result["technique/cross-entropy"]["test"]
    assert one["accuracy"]["value"] == pytest.approx(0.2)
    assert one["accuracy"]["low"] < 0.2 < one["accuracy"]["high"]
    assert one["by_seed"]["accuracy"] == [0.1, 0.2, 0.3]
    assert result["technique/+ focal gamma 1"]["test"]["difference"]["accuracy"]["value"] == 0
