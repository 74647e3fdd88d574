"""The bench of speed: its arithmetic on work whose speed is known, and what is said where a peer is absent."""

import sys
import time

import pytest

from smellkit.errors import OptionError
from smellkit.study import speed


def test_a_ratio_is_the_peers_time_by_the_kits_and_the_first_round_is_not_counted():
    calls = []
    kit, peer = (lambda: time.sleep(0.01)), (lambda: (calls.append(1), time.sleep(0.05)))
    row = speed.versus(kit, peer, rounds=5)
    assert len(calls) == 6 and row["rounds"] == 5
    assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
    assert 2 < row["ratio"]["value"] < 5.5 and row["peer"] > row["seconds"] >= 0.01


def test_an_absent_peer_is_said_and_the_rows_before_it_stay(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmell", None)
    kept = {"rows": {"mine": {"seconds": 1.0}}, "absent": {"features": "old"}}
    result = speed.run(["features"], kept=kept)
    assert {"mine", "features of an hour / window by window"} == set(result["rows"])
    assert "opensmell" in result["absent"]["features"] and result["machine"]["threads"] == 1


def test_an_unknown_part_is_refused():
    with pytest.raises(OptionError, match="reading"):
        speed.run(["readin"])
