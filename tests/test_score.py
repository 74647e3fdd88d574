"""The protocol against oneself: a test is scored once for each release, and every look is kept."""

import json
import threading

import numpy as np
import pytest

from smellkit import checkpoint, paths
from smellkit.errors import DataError, OptionError
from smellkit.odour.smell import SubstanceSmell
from smellkit.study import score
from smellkit.study.evaluate import Outcome
from smellkit.study.odour import release


@pytest.fixture
def log(tmp_path, monkeypatch):
    """An empty log, and a test of two recordings of which the shipped weights get three windows of four right."""
    monkeypatch.setitem(score.TESTED, "gcode", score.Tested("gcode", ("right",), f"{__name__}:outcomes"))
    return tmp_path / "scorings.jsonl"


def outcomes(data):
    return {"the test": Outcome(["a", "a", "b", "b"], {"right": np.array([1, 1, 1, 0])})}


def test_a_scoring_is_one_line_with_date_revision_weights_and_figures(log):
    line = score.score("gcode", "", file=log)
    assert [json.loads(text) for text in log.read_text().splitlines()] == [line]
    assert line["weights"] == checkpoint.manifest(paths.weights() / "gcode")["sha256"]
    assert line["figures"]["the test"]["right"]["value"] == 0.75 and line["figures"]["the test"]["right"]["low"] == 0.5


def test_the_same_weights_are_not_scored_twice_unless_told(log):
    score.score("gcode", "", file=log)
    with pytest.raises(OptionError, match="--again"):
        score.score("gcode", "", file=log)
    assert len(score.read(log)) == 1
    assert "--again" in score.score("gcode", "", again=True, file=log)["command"]
    assert "| gcode: the test | 2 | 2 | right 75.0 [50.0, 100.0] |" in score.table("gcode", log)


def test_a_system_that_does_not_ship_is_refused_before_anything_is_scored(log):
    with pytest.raises(OptionError, match="gcode"):
        score.score("gcoda", "", file=log)
    assert not log.exists()


def test_lines_that_are_appended_at_once_stay_whole(log):
    look = {"system": "gcode", "weights": "", "command": "x" * 5000, "figures": {}}
    threads = [threading.Thread(target=score.append, args=(log,), kwargs=look) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line | look for line in score.read(log)] == score.read(log) and len(score.read(log)) == 20


def test_a_line_that_is_no_scoring_is_named_with_its_number(log):
    score.score("gcode", "", file=log)
    with log.open("a") as file:
        file.write('{"system": "gcode"}\n')
    with pytest.raises(DataError, match="line 2"):
        score.read(log)


def test_every_look_in_the_published_log_names_its_command_and_revision():
    looks = score.read()
    assert looks and all(look["command"].startswith("smellkit ") and look["revision"] for look in looks)
    assert {look["system"] for look in looks} == set(score.TESTED)
    assert [look["date"] for look in looks] == sorted(look["date"] for look in looks)


def test_weights_that_are_saved_to_ship_are_a_look_and_others_are_none(monkeypatch, tmp_path):
    looks, smell = [], SubstanceSmell.load(paths.weights() / "odour")
    monkeypatch.setattr(score, "append", lambda **look: looks.append(look))
    monkeypatch.setattr(paths, "weights", lambda: tmp_path / "weights")
    how = {"model": "linear", "options": {"least": 1e-2}, "why": "", "made_by": {"command": "smellkit x"}}
    for folder in ("elsewhere", "weights/odour"):
        release._kept(smell, paths.sample() / "smellnet", tmp_path / folder, **how)
    (look,) = looks
    assert look["weights"] == checkpoint.manifest(tmp_path / "weights/odour")["sha256"]
    assert 0 <= look["figures"]["official split"]["top1"]["value"] <= 1
