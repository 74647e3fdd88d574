"""Stop when sure: odds add up, a decision is the first that is sure, thresholds come from held-out recordings."""

import json

import numpy as np
from click.testing import CliRunner

from smellkit.study.odour import early


def recordings(count=40, answers=20, classes=4, sharp=0.25, seed=0):
    """Recordings that tell a little more with every answer: some from the start on, some hardly ever."""
    random = np.random.default_rng(seed)
    target = random.integers(classes, size=count)
    says = sharp * random.uniform(0, 2, count)[:, None, None] * np.eye(classes)[target][:, None]
    values = says + 0.5 * random.normal(size=(count, answers, classes))
    seconds = np.tile(125 + 5 * np.arange(answers), count)
    whole = np.repeat(np.arange(count), answers)
    return early.Sniffed(values.cumsum(1).reshape(-1, classes), np.repeat(target, answers), whole, seconds)


def test_a_decision_is_the_first_answer_that_is_sure_and_is_never_taken_back():
    sums = np.log([[0.6, 0.4], [0.05, 0.95], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    sniffed = early.Sniffed(sums, np.zeros(6, int), np.repeat([0, 1], 3), np.tile([125, 130, 135], 2))
    when, good = early.decided(sniffed, 1.0, np.log(9) - 1e-9)
    assert when.tolist() == [130, np.inf] and good.tolist() == [False, False]


def test_the_threshold_is_the_least_whose_decisions_are_right_often_enough():
    held, new = recordings(400), recordings(400, seed=1)
    weight, threshold = early.learn(held)
    when, good = early.decided(held, weight, threshold)
    assert good[np.isfinite(when)].mean() >= early.RIGHT
    assert early.decided(held, weight, 0.5 * threshold)[1].mean() < early.RIGHT  # sooner is wrong too often
    when, good = early.decided(new, weight, threshold)
    assert np.isfinite(when).mean() > 0.5 and abs(good[np.isfinite(when)].mean() - early.RIGHT) < 0.06


def test_more_seconds_decide_more_recordings_and_what_is_undecided_has_no_median():
    sniffed = recordings(60, answers=80)
    row = early.outcomes(sniffed, 1.0, 4.0)
    shares = [np.mean(row[f"{second} s"].measures["decided"]) for second in range(125, 501, 5)]
    assert shares == sorted(shares) and shares[-1] > shares[0]
    nothing = early.outcomes(sniffed, 1.0, 1e9)
    assert nothing["decision"].extra["median seconds to a decision"] is None and not nothing["500 s"].extra


def test_the_bench_measures_the_shipped_weights_on_the_sample(tmp_path, monkeypatch):
    from smellkit.cli import cli
    from smellkit.study.odour import sessions

    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    sat = lambda rows: rows.groupby("file").size() * 0 + np.arange(rows["file"].nunique()) % 2  # noqa: E731
    monkeypatch.setattr(sessions, "number_sessions", sat)
    out = tmp_path / "early.json"
    done = CliRunner().invoke(cli, ["bench", "early", "--model", "odour", "--folds", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    row = result["rows"]["odour, same session"]
    assert {"weight", "threshold"} <= set(row["decision"]) and "forced" in row[f"{early.SECONDS[0]} s"]
