"""Run folders and the way in which files get their names."""

import numpy as np
import pytest

from smellkit import paths, runs
from smellkit.errors import DataError, OptionError, WriteError


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))


def test_a_file_gets_its_name_only_when_it_is_whole(tmp_path):
    with pytest.raises(RuntimeError), paths.replacing(tmp_path / "out.csv") as part:
        part.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_survives_a_failed_write(tmp_path):
    paths.write_text(tmp_path / "out.csv", "old")
    with pytest.raises(RuntimeError), paths.replacing(tmp_path / "out.csv") as part:
        part.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


@pytest.mark.parametrize("name", ["folder", "file/out.csv", "file/more/out.csv"])
def test_a_folder_in_place_of_a_file_is_said_and_stays(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("here")
    with pytest.raises(WriteError, match="Can't write"):
        paths.write_text(tmp_path / name, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_run_is_finished_when_its_scores_are_there():
    run = runs.start("a/b", {"seed": 1})
    assert not run.finished
    run.finish({"accuracy": np.float32(0.5), "bad": float("nan")})
    assert runs.latest("a/b").scores == {"accuracy": 0.5, "bad": None}
    assert run.stamp["seconds"] >= 0


def test_a_run_that_is_missing_names_the_command_that_makes_it():
    with pytest.raises(DataError, match="smellkit train odour-encoder"):
        runs.latest("encoder", made_by="`smellkit train odour-encoder`")


def test_a_fresh_run_forgets_the_old_scores():
    runs.start("a").finish({})
    assert not runs.start("a").finished


@pytest.mark.parametrize("name", ["", "/etc", "../x", "a/../../x", ".", "a/.", "a/.earlier", "a//b", "a\\..\\b"])
def test_a_run_stays_in_a_folder_of_its_own_below_those_of_runs(name):
    with pytest.raises(OptionError):
        runs.start(name)


def test_metrics_grow_a_line_at_a_time():
    run = runs.start("a")
    run.log({"epoch": 0, "loss": 1.0})
    run.log({"epoch": 1, "loss": 0.5})
    assert list(run.metrics()["loss"]) == [1.0, 0.5]


def test_a_kept_file_is_written_by_rename():
    run = runs.start("a")
    assert run.keep("note.txt", lambda path: path.write_text("hello")).read_text() == "hello"
