"""Ablations: what stands apart from the first case over the seeds, and what is noise."""

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from smellkit.study import ablations


def table(**cases):
    rows = [{"case": case, "seed": seed, "score": value} for case, values in cases.items() for seed, value in values]
    return pd.DataFrame(rows)


def test_a_case_stands_apart_when_its_difference_is_the_same_for_every_seed():
    seeds = (1, 2, 3)
    base = [(seed, 0.9 - 0.1 * seed) for seed in seeds]  # seeds differ by far more than the cases
    worse = [(seed, value - 0.05 - 0.001 * seed) for seed, value in base]
    same = [(seed, value + (0.02 if seed == 2 else -0.01)) for seed, value in base]
    rows = ablations.compare(table(whole=base, less=worse, other=same), scores=["score"])
    assert rows["apart"].tolist() == [False, True, False]
    assert rows["difference"].tolist() == pytest.approx([0, -0.052, 0])
    assert ablations.says(rows) == (
        "Against 'whole', points: less (-5.2). Noise, within 3 seeds: other (differences of up to 0.0 points)."
    )


def test_a_single_seed_says_nothing():
    rows = ablations.compare(table(whole=[(1, 0.9)], less=[(1, 0.1)]), scores=["score"])
    assert not rows["apart"].any() and ablations.says(rows) == ""


def test_cases_share_an_encoder_and_the_first_is_blinded_in_testing(tmp_path, monkeypatch):
    small = "width: 32, layers: 1, epochs: 1, batch: 64"
    plans = {
        "gcode-modalities": "task: gcode-window-decoder\nvariants: {everything: {}}\n"
        f"fixed: {{protocol: G, path_knn: false, thin: 2, {small}}}\n",
        "gcode-frozen": f"task: gcode-decoder\nvariants: {{frozen: {{}}}}\nfixed: {{encoder: none, {small}}}\n",
    }
    for name, plan in plans.items():
        (tmp_path / f"{name}.yaml").write_text(plan)
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(ablations.sweep, "FOLDER", tmp_path)
    monkeypatch.setattr(ablations.sweep.cluster, "workers", lambda *_, count: ThreadPoolExecutor(1))
    monkeypatch.setattr(ablations, "MODALITIES", ("position",))
    old = {"about": {}, "rows": {f"{ablations.TOGETHER}/gone": {}, "Loss/x": {"seeds": []}}}
    result = ablations.run(system="gcode", only=list(plans), seeds=1, fixed={"epochs": "1"}, earlier=old)
    assert list(result["rows"]) == [
        "Loss/x",
        f"{ablations.AGAIN}/everything",
        f"{ablations.ZEROED}/nothing",
        f"{ablations.ZEROED}/position",
        f"{ablations.TOGETHER}/frozen",
    ]
    assert 0 <= result["rows"][f"{ablations.ZEROED}/position"]["test"]["TF"]["value"] <= 1
