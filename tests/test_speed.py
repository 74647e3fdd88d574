"""The bench of speed: its arithmetic on work whose speed is known, and what is said where a peer is absent."""

import sys
import time

import pytest
import torch

from smellkit.errors import OptionError, SmellkitError
from smellkit.study import speed, timing


def test_a_ratio_is_the_peers_time_by_the_kits_and_the_first_round_is_not_counted():
    calls = []
    kit, peer = (lambda: time.sleep(0.01)), (lambda: (calls.append(1), time.sleep(0.05)))
    row = timing.versus(kit, peer, rounds=5)
    assert len(calls) == 6 and row["rounds"] == 5
    assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
    assert 2 < row["ratio"]["value"] < 5.5 and row["peer"] > row["seconds"] >= 0.01


def test_an_absent_peer_is_said_and_the_rows_before_it_stay(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmell", None)
    kept = {"rows": {"mine": {"seconds": 1.0}}, "absent": {"features": "old"}}
    result = speed.run(["features"], earlier=kept)
    assert {"mine", "features of an hour / window by window"} == set(result["rows"])
    assert "opensmell" in result["absent"]["features"] and result["machine"]["threads"] == 1


def test_rows_of_another_machine_do_not_become_rows_of_this_one(monkeypatch):
    monkeypatch.setitem(speed.PARTS, "known", lambda _: iter([("a / b", timing.once(0.002, 0.1))]))
    here, said = timing.machine(), []
    for other, left in (({}, {"mine", "a / b"}), ({"processor": "another"}, {"a / b"})):
        kept = {"rows": {"mine": {"seconds": 1.0}}, "machine": here | other}
        assert set(speed.run(["known"], earlier=kept, progress=said.append)["rows"]) == left
    assert said[-2] == "measured on another machine, so left out: mine"


def test_what_is_known_without_rounds_is_told_without_an_interval(monkeypatch):
    said = []
    monkeypatch.setitem(speed.PARTS, "known", lambda _: iter([("a / b", timing.once(0.002, 0.1, score=0.5))]))
    result = speed.run(["known"], progress=said.append)
    assert said == ["a / b: 50.00 times, 2 ms"] and result["rows"]["a / b"]["score"] == 0.5


def test_the_memory_that_a_program_takes_is_its_own():
    little, much = (timing.peak("-c", f"b'x' * {size} * 1_000_000") for size in (1, 200))
    assert 150 < much - little < 250
    with pytest.raises(SmellkitError, match="ended with 3"):
        timing.peak("-c", "raise SystemExit(3)")


def test_the_least_that_operators_take_is_the_longer_of_arithmetic_and_bytes_and_a_view_is_free(monkeypatch):
    for name in ("arithmetic", "traffic"):
        monkeypatch.setattr(timing, name, lambda count: count)  # an operation or a byte a second
    x = torch.ones(10, 10)
    assert timing.roofline(lambda: x @ x) == 2 * 10**3
    assert timing.roofline(lambda: x + x) == 3 * 400
    assert timing.roofline(lambda: x.T) == 0


def test_an_unknown_part_is_refused():
    with pytest.raises(OptionError, match="reading"):
        speed.run(["readin"])
