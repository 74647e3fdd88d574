"""No recording stands on both sides of a split, in any loader of the kit."""

import shutil

import pytest
from click.testing import CliRunner

from smellkit import paths
from smellkit.checks import Report
from smellkit.cli import cli
from smellkit.errors import DataError
from smellkit.gcode import data as machine
from smellkit.odour import recordings
from smellkit.study.gcode import splits
from smellkit.study.odour import mixture_data
from smellkit.study.odour.scenes import picture_banks
from smellkit.study.plume import splits as pairing


@pytest.fixture(autouse=True)
def own_work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))


@pytest.fixture
def scents(tmp_path):
    """The twelve-scent layout with four recordings a scent, one of them a copy."""
    root = tmp_path / "scents/smell_data"
    sample = paths.sample() / "smellnet/base"
    for name in ("garlic", "banana"):
        (root / name).mkdir(parents=True)
        files = sorted(sample.glob(f"*/{name}/*.csv"))[:3]
        for place, file in enumerate([*files, files[0]]):
            shutil.copy(file, root / name / f"{place}.csv")
    return root.parent


def contents(table):
    return {rows.drop(columns=["file", "recording"]).to_csv() for _, rows in table.groupby("file")}


def test_a_layout_without_splits_is_split_by_recording_and_says_so(scents):
    report = Report()
    training, testing = (recordings.read_recordings(scents, split, report=report) for split in ("training", "testing"))
    assert set(training["substance"]) == set(testing["substance"]) == {"garlic", "banana"}
    assert not contents(training) & contents(testing) and "by recording" in str(report)
    everything = recordings.read_recordings(scents, recordings.ALL)
    assert set(training["file"]) | set(testing["file"]) == set(everything["file"])


def test_one_recording_a_substance_leaves_nothing_to_test(scents):
    for file in scents.glob("smell_data/*/[123].csv"):
        file.unlink()
    assert recordings.read_recordings(scents)["file"].nunique() == 2
    with pytest.raises(DataError, match="at least twice"):
        recordings.read_recordings(scents, "testing")


def test_the_folder_of_the_hub_is_read(tmp_path):
    shutil.copytree(paths.sample() / "smellnet/base", tmp_path / "base_data")
    one, other = recordings.read_recordings(tmp_path, "testing"), recordings.read_recordings(None, "testing")
    assert len(one) == len(other)
    done = CliRunner().invoke(cli, ["data", "check", str(tmp_path)])
    assert done.exit_code == 0 and "0 skipped" in done.output


def test_recordings_of_substances_stand_on_one_side():
    training, testing = (recordings.read_recordings(None, split) for split in ("training", "testing"))
    assert not contents(training) & contents(testing)


@pytest.mark.parametrize("by", ["recording", "combination", "day"])
def test_recordings_of_mixtures_stand_on_one_side(by):
    windows = mixture_data.read_windows(None, "training_new")
    held = mixture_data.held_out(windows.index, by=by)
    groups = mixture_data.groups(windows.index, by)
    assert not set(groups[held]) & set(groups[~held]) and held.any() and not held.all()
    sides = [
        {value.tobytes() for value in mixture_data.read_mixtures(None, name)[0]}
        for name in ("training_new", "test_seen")
    ]
    assert not sides[0] & sides[1]


class Seen(Exception):
    """Both sides were asked for."""


class Looker:
    """Remembers which pictures it was shown, and stops once it has seen both sides."""

    def __init__(self):
        self.sides = []

    def vision(self, files):
        self.sides.append({path.read_bytes() for path in files})
        if len(self.sides) == 2:
            raise Seen
        return []


def test_pictures_stand_on_one_side():
    looker = Looker()
    with pytest.raises(Seen):
        picture_banks(recordings.find(), looker, seed=7)
    assert looker.sides[0] and looker.sides[1] and not looker.sides[0] & looker.sides[1]


@pytest.mark.parametrize("protocol", ["G", "X"])
def test_recordings_of_a_machine_stand_on_one_side(protocol):
    table = machine.load().labelled().windows
    parts = splits.split(table, protocol)
    train, valid, test = (set(table["group"].iloc[rows]) for rows in (parts.train, parts.valid, parts.test))
    assert train and test and not train & test and not train & valid and not valid & test


def test_originals_of_plumes_stand_on_one_side():
    assert pairing.shared_originals(pairing.read_all("")) == 0
