"""Seeded ways to go wrong. Ten thousand of them: `smellkit bench neckwear`."""

from dataclasses import replace

from smellkit.device import engine, frames
from smellkit.device.jobs import DIALECTS
from smellkit.study.device import scenarios


def test_a_thousand_seeded_scenarios_break_no_rule():
    summary = scenarios.run_all(1000)
    assert summary.broken == []
    assert summary.run == 1000 and summary.errors > 100
    assert (summary.threads_left, summary.descriptors_left) == (0, 0)


def test_twenty_of_them_on_a_real_terminal_break_none_either():
    summary = scenarios.run_all(20, first=5000, pty=True)
    assert summary.broken == []
    assert (summary.threads_left, summary.descriptors_left) == (0, 0)


def test_a_thousand_on_the_link_that_answers_break_none_either():
    summary = scenarios.run_all(1000, link="direct")
    assert summary.broken == []
    assert summary.run == 1000 and summary.errors > 100
    assert (summary.threads_left, summary.descriptors_left) == (0, 0)


def test_a_scenario_is_the_same_again_from_its_seed():
    for seed in range(20):
        first, second = scenarios.run(seed), scenarios.run(seed)
        assert (first.acts, first.errors) == (second.acts, second.errors)
        assert [(e["at"], e["hex"], e["what"]) for e in first.log] == [
            (e["at"], e["hex"], e["what"]) for e in second.log
        ]


def test_the_rules_notice_a_driver_that_never_stops(monkeypatch):
    monkeypatch.setitem(DIALECTS, "handset", replace(DIALECTS["handset"], stop=frames.wake))
    assert any(scenarios.run(seed).broken for seed in range(40))


def test_the_rules_notice_a_driver_that_plays_on_after_a_loss(monkeypatch):
    monkeypatch.setattr(engine.Engine, "_fail_all", lambda self, error: None)
    assert any(scenarios.run(seed).broken for seed in range(100))
