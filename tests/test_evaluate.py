"""One evaluation for every study: intervals over groups, paired differences, resuming, the stamp."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from smellkit.cli import cli
from smellkit.errors import DataError
from smellkit.study import evaluate, metrics
from smellkit.study.evaluate import Outcome
from smellkit.study.odour import reproduce

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


def test_a_number_for_a_fit_has_an_interval_over_seeds():
    fits = [Outcome(None, {"accuracy": value}) for value in (0.5, 0.6, 0.7)]
    assert evaluate.summarise(fits)["accuracy"] == metrics.over_seeds([0.5, 0.6, 0.7])
    assert evaluate.scores(fits[:1])["accuracy"] == {"value": 0.5, "low": None, "high": None}


def test_some_of_the_units_have_the_same_measures():
    whole, some = outcome(1), outcome(1).of(GROUPS < 2)
    assert len(some.groups) == 10
    assert some.measures["count"](np.arange(10)) == whole.measures["accuracy"][:10].sum()


def test_every_split_says_how_much_it_differs_from_the_row_that_is_compared_with():
    rows = {"a": lambda seed: {"test": outcome(seed)}, "b": lambda seed: {"test": outcome(seed, better=0.5)}}
    other = {"c": lambda seed: {"test": Outcome(GROUPS[:-1], {"accuracy": np.ones(len(GROUPS) - 1)})}}
    result = evaluate.evaluate(rows | other, seeds=2, about={}, against="a")["rows"]
    assert result["b"]["test"]["difference"]["accuracy"]["low"] > 0
    assert "difference" not in result["a"]["test"] and "difference" not in result["c"]["test"]


def test_a_row_that_was_fitted_otherwise_is_measured_again_and_others_are_kept():
    asked = {"seeds": 1, "about": {"data": 1}}
    rows = {name: lambda seed: {"test": outcome(seed)} for name in "ab"}
    first = evaluate.evaluate(rows, **asked, settings={"a": {"folds": 2}})
    said = []
    again = evaluate.evaluate(
        {"a": rows["a"]}, **asked, settings={"a": {"folds": 3}}, earlier=first, progress=said.append
    )
    assert again["rows"]["a"]["settings"] == {"folds": 3} and again["rows"]["b"] == first["rows"]["b"]
    assert "measured before" not in said[0]


def test_a_split_of_the_first_seed_alone_stands_beside_those_of_all_and_what_differs_is_its_mean():
    def fit(seed):
        one = outcome(seed)
        beside = Outcome(one.groups, one.measures, {"size": seed, "same": "x", "each": {"a": 2.0 * seed}})
        return {"test": beside} | ({"once": one} if seed == 1 else {})

    row = evaluate.evaluate({"a": fit}, seeds=3, about={})["rows"]["a"]
    assert len(row["test"]["by_seed"]["accuracy"]) == 3 and len(row["once"]["by_seed"]["accuracy"]) == 1
    assert (row["test"]["size"], row["test"]["same"], row["test"]["each"]) == (2, "x", {"a": 4})


def test_earlier_rows_about_other_data_go_and_that_is_said():
    told = []
    fit = lambda seed: {"test": Outcome(np.arange(3), {"right": np.ones(3)})}  # noqa: E731
    before = evaluate.evaluate({"first": fit}, seeds=1, about={"files": 1})
    after = evaluate.evaluate({"second": fit}, seeds=1, about={"files": 2}, earlier=before, progress=told.append)
    assert list(after["rows"]) == ["second"] and told[0] == "not of the same data, so left out: first"


def test_rows_that_were_measured_before_a_bench_was_interrupted_are_kept(tmp_path, monkeypatch):
    def interrupted(seed):
        raise KeyboardInterrupt

    def bench(last, about):
        def run(*, seeds, progress, earlier):
            fits = {"first": lambda seed: {"test": outcome(seed)}, "last": last}
            return evaluate.evaluate(fits, seeds=seeds, about=about, earlier=earlier, progress=progress)

        monkeypatch.setattr(reproduce, "run", run)
        return CliRunner().invoke(cli, ["bench", "reproduce", "--json", str(tmp_path / "out.json"), "--seeds", "1"])

    assert bench(interrupted, {"files": 1}).exit_code == 1  # while the second row is measured
    assert list(evaluate.earlier(tmp_path / "out.json")["rows"]) == ["first"]
    assert "first: measured before" in bench(lambda seed: {"test": outcome(seed)}, {"files": 1}).output
    whole = evaluate.earlier(tmp_path / "out.json")
    assert bench(interrupted, {"files": 2}).exit_code == 1  # of other data, it takes the place of nothing
    assert evaluate.earlier(tmp_path / "out.json") == whole and list(whole["rows"]) == ["first", "last"]
