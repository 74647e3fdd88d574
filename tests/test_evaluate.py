"""One evaluation for every study: intervals over groups, paired differences, resuming, the stamp."""

import json

import numpy as np
import pytest

from smellkit.errors import DataError
from smellkit.study import evaluate, metrics
from smellkit.study.evaluate import Outcome

GROUPS = np.repeat(np.arange(6), 5)


def outcome(seed: int, *, better: float = 0.0) -> Outcome:
    right = np.random.default_rng(seed).random(len(GROUPS)) < 0.5 + better
    return Outcome(GROUPS, {"accuracy": right.astype(float), "count": lambda rows: float(right[rows].sum())})


def test_the_interval_is_the_bootstrap_over_groups_of_the_mean_over_seeds():
    outcomes = [outcome(1), outcome(2)]
    mean = np.mean([one.measures["accuracy"] for one in outcomes], axis=0)
    assert evaluate.summarise(outcomes)["accuracy"] == metrics.bootstrap(mean, groups=GROUPS)
    assert evaluate.summarise(outcomes)["count"].value == pytest.approx(mean.sum())


def test_a_model_differs_from_itself_by_nothing():
    same = evaluate.paired_difference([outcome(1)], [outcome(1)])
    assert set(same) == {"accuracy", "count"}
    assert all(tuple(interval) == (0, 0, 0) for interval in same.values())


def test_a_clear_lead_on_the_same_units_is_above_zero():
    lead = evaluate.paired_difference([outcome(1, better=0.5)], [outcome(1)])["accuracy"]
    assert 0 < lead.low <= lead.value <= lead.high


def test_a_difference_of_other_units_is_refused():
    other = Outcome(GROUPS[:-1], {"accuracy": np.ones(len(GROUPS) - 1)})
    with pytest.raises(DataError, match="same units"):
        evaluate.paired_difference([outcome(1)], [other])


def test_a_row_about_the_same_data_is_not_measured_again():
    fits = []

    def fit(seed):
        fits.append(seed)
        return {"test": outcome(seed)}

    first = evaluate.evaluate({"a": fit}, seeds=2, about={"data": 1})
    again = evaluate.evaluate({"a": fit}, seeds=2, about={"data": 1}, earlier=json.loads(json.dumps(first)))
    assert fits == [1, 2]
    assert again["rows"] == first["rows"]
    evaluate.evaluate({"a": fit}, seeds=2, about={"data": 2}, earlier=first)
    evaluate.evaluate({"a": fit}, seeds=3, about={"data": 1}, earlier=first)
    assert fits == [1, 2, 1, 2, 1, 2, 3]


def test_a_row_without_its_library_is_left_out_with_a_word():
    def absent(seed):
        raise ImportError("no library")

    said = []
    result = evaluate.evaluate({"a": absent}, seeds=1, about={}, progress=said.append)
    assert result["rows"] == {}
    assert said == ["a: left out, no library"]


def test_a_published_result_says_what_made_it(tmp_path):
    path = evaluate.publish(tmp_path / "result.json", {"rows": {}}, command="smellkit bench x")
    kept = evaluate.earlier(path)
    assert kept["made_by"]["command"] == "smellkit bench x"
    assert kept["stamp"]["cores"] >= 1
    assert evaluate.earlier(tmp_path / "absent.json") == {}
