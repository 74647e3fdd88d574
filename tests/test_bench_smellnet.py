"""The benchmark: what is pooled with what, what an interval is drawn from, and that it runs on the sample."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from test_encoder import table

from smellkit.errors import OptionError
from smellkit.odour import scents
from smellkit.odour.windows import Protocol, cut
from smellkit.study import evaluate
from smellkit.study.odour import calibrated, systems
from smellkit.study.odour import smellnet as bench


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))


def test_pooling_never_crosses_a_recording():
    windows = cut(table(2, 2, rows=275), Protocol())  # four windows a recording
    scores = np.log(np.eye(2)[windows.target] * 0.8 + 0.1)
    for count, expected in ((1, 16), (2, 12), (3, 8), (0, 4), (9, 4)):
        pooled, target, recording = bench.combine(scores, windows, count)
        assert len(pooled) == len(target) == len(recording) == expected
        assert (pooled.argmax(1) == target).all()


def test_test_time_windows_average_near_ones_of_the_same_recording():
    windows = cut(table(2, 2, rows=275), Protocol(), stride=10)
    scores = windows.start[:, None] + 1000.0 * windows.recording[:, None]
    result = bench.around(scores, windows)
    inner = (windows.start >= 20) & (windows.start <= windows.start.max() - 20)
    assert np.allclose(result[inner], scores[inner])
    assert np.allclose(result[windows.start == 0] - scores[windows.start == 0], 10)  # of 0, 10 and 20


def test_calibration_leaves_a_recording_more_out_of_the_lesser_fit(monkeypatch):
    windows = cut(table(3, 5), Protocol())
    seen = []

    def spy(system, train, **_):
        seen.append(set(train.fold))
        return lambda values: np.random.default_rng(0).normal(size=(len(values), 3))

    monkeypatch.setattr(systems, "fit", spy)
    calibrated.learn(systems.named("lda"), windows)
    every = set(range(5))
    greater, lesser = seen[:5], seen[5:]
    assert greater == [every - {fold} for fold in range(5)]
    assert lesser == [every - {fold, (fold + 1) % 5} for fold in range(5)]


def test_figures_have_intervals_around_their_value():
    windows = cut(table(3, 4), Protocol())
    random = np.random.default_rng(0)
    scores = [np.log(random.dirichlet(np.ones(3), len(windows))) for _ in range(2)]
    for count in bench.LEVELS.values():
        figures = evaluate.scores([bench.outcome(part, windows, count) for part in scores])
        top = figures["top1"]
        assert top["low"] <= top["value"] <= top["high"]
        assert figures["top5"]["value"] == 1.0  # of three classes
        assert top["value"] == pytest.approx(np.mean(figures["by_seed"]["top1"]))
    assert set(bench.by_kind(scores[0], windows)["per_substance"]) == {"s0", "s1", "s2"}


def test_categories_hold_ten_substances_each():
    assert [len(members.split()) for members in scents.CATEGORIES.values()] == [10] * 5
    assert scents.category("nutmeg") == "spices" and scents.category("paint") == "other"


def test_cross_validation_never_scores_what_it_learnt_from(monkeypatch):
    windows = cut(table(3, 4), Protocol())
    seen = []

    def spy(system, train, **_):
        seen.append(set(train.recording))
        return lambda values: np.zeros((len(values), 3))

    monkeypatch.setattr(systems, "fit", spy)
    scores, graded = systems.cross_validate(systems.named("lda"), windows)
    assert len(scores) == len(graded) and len(seen) == 4
    for fold, learnt in enumerate(seen):
        assert not learnt & set(graded.recording[graded.fold == fold])


def test_every_system_names_what_exists():
    from smellkit.odour.encoder import BACKBONES
    from smellkit.study.odour.systems import BASELINES

    for system in systems.SYSTEMS.values():
        assert set(system.members) <= set(BACKBONES) | set(BASELINES)
        assert system.table in {"strict", "level-free", "confounded"}
    assert all("confounded" in name for name, s in systems.SYSTEMS.items() if s.table == "confounded")
    with pytest.raises(OptionError, match="extratrees"):
        systems.named("extratree")


@pytest.mark.parametrize("name", ["lda", "extratrees", "extratrees-lda", "lightgbm"])
def test_each_baseline_separates_what_is_apart(name):
    pytest.importorskip("lightgbm") if name == "lightgbm" else None
    windows = cut(table(3, 6, rows=500), Protocol())
    train, test = windows[windows.fold > 1], windows[windows.fold <= 1]
    scores = systems.fit(systems.named(name), train)(test.values)
    assert scores.shape == (len(test), 3)
    assert (scores.argmax(1) == test.target).mean() > 0.9


def test_the_command_measures_the_sample_and_keeps_other_models(tmp_path):
    from smellkit.cli import cli

    out = tmp_path / "base.json"
    for model in ("lda", "extratrees-lda"):
        done = CliRunner().invoke(
            cli, ["bench", "smellnet-base", "--model", model, "--seeds", "1", "--folds", "0", "--json", str(out)]
        )
        assert done.exit_code == 0, done.output
        assert "Top-1" in done.output and model in done.output
    result = json.loads(out.read_text())
    assert set(result["rows"]) == {"lda", "extratrees-lda"}
    assert result["about"]["substances"] == 14
    assert set(result["about"]["faults"]) >= {"notes", "recordings_too_short", "substances_missing_from_a_split"}
    assert "other_session" in result["rows"]["lda"]
