"""The simulated nose: its physics in numbers, and that the committed sample is what it writes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from smellkit import noses, paths
from smellkit.errors import OptionError, SmellkitError
from smellkit.odour import recordings
from smellkit.simulate import nose as simulate
from smellkit.simulate.boards import write_recordings
from smellkit.simulate.drawings import draw
from smellkit.simulate.odour import Size, write_sample


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample"))


def tree(folder: Path) -> dict[str, Path]:
    """Every file of the two layouts in `folder`."""
    files = [path for part in ("smellnet", "scents") for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in sorted(files)}


def test_the_committed_sample_is_what_the_simulator_writes(written):
    committed, fresh = tree(paths.sample()), tree(written)
    assert list(committed) == list(fresh)
    for name, path in committed.items():
        if path.suffix in (".csv", ".json"):
            assert path.read_bytes() == fresh[name].read_bytes(), name
        else:  # encoders differ by a level or two from version to version
            ours, theirs = (np.asarray(Image.open(file).convert("RGB"), dtype=int) for file in (path, fresh[name]))
            assert np.abs(ours - theirs).mean() < 2, name


def test_the_sample_is_small():
    assert sum(path.stat().st_size for path in tree(paths.sample()).values()) < 3_000_000


def test_another_seed_gives_other_recordings_and_the_same_seed_the_same(tmp_path):
    size = Size(training=1, rows=30, mixtures=0, pictures=1, scent_rows=30)
    one, same, other = (
        {name: path.read_bytes() for name, path in tree(write_sample(tmp_path / name, seed=seed, size=size)).items()}
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same
    assert not {name for name in one if name.endswith(".csv") and "/base/" in name} & set(other)


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path, monkeypatch):
    size = Size(training=1, rows=30, mixtures=0, pictures=1, scent_rows=30)
    write_sample(tmp_path, size=size)
    with pytest.raises(SmellkitError, match="exists already"):
        write_sample(tmp_path, size=size)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smellkit.simulate.odour._pictures", full)
    with pytest.raises(OSError, match="No space"):
        write_sample(tmp_path / "other", size=size)
    assert not list((tmp_path / "other").iterdir())


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(SmellkitError, match="rows is 0"):
        Size(rows=0)
    with pytest.raises(SmellkitError, match="sessions"):
        write_sample(tmp_path, sessions="day")


def response(ratios, *, strength=1.0, seed=1, **options):
    """Log conductance of a recording with the odour less that without, (steps, 8): weather and drift are the same."""
    at = simulate.session(np.random.default_rng(9))
    runs = [
        simulate.conductance(
            ratios, at, np.random.default_rng(seed), seconds=200, rate=1.0, onset=20.0, strength=level, **options
        )[0]
        for level in (strength, 0.0)
    ]
    return runs[0] - runs[1]


def test_conductance_rises_with_concentration_by_a_power_below_one():
    low, high, higher = (response({"banana": 1.0}, strength=level)[-1] for level in (1, 4, 16))
    assert (low > 0).all()
    assert (high > low).all()
    assert (higher - high < simulate.BETA * np.log(4)).all()
    np.testing.assert_allclose(higher - high, simulate.BETA * np.log(4), rtol=0.25)


def test_nothing_is_smelled_before_the_odour_is_there():
    assert np.abs(response({"garlic": 1.0})[:20]).max() == 0


def test_leaving_takes_longer_than_arriving():
    air = np.zeros((400, 6))
    air[:100] = 1
    film = simulate.coverage(air, rate=1.0)[:, 0, 0]
    rise = np.argmax(film > 0.5 * film[99])
    fall = np.argmax(film[100:] < 0.5 * film[99])
    assert 0 < rise < fall


def test_heavy_compounds_are_slow():
    film = simulate.coverage(np.ones((60, 6)), rate=1.0)[-1, 0]
    assert film[simulate.COMPOUNDS.index("phenols")] < film[simulate.COMPOUNDS.index("esters")]


def test_the_rate_of_sampling_does_not_change_the_film():
    slow = simulate.coverage(np.ones((30, 6)), rate=1.0)[-1]
    quick = simulate.coverage(np.ones((300, 6)), rate=10.0)[-1]
    np.testing.assert_allclose(slow, quick, rtol=1e-9)


def test_a_mixture_lies_between_its_parts():
    one, other, both = (
        response(ratios, variety=0.0)[-1]
        for ratios in ({"banana": 1.0}, {"garlic": 1.0}, {"banana": 0.5, "garlic": 0.5})
    )
    assert (both > np.minimum(one, other) - 0.05).all()
    assert (both < np.maximum(one, other) + 0.15).all()


def test_every_odorant_is_told_apart_by_its_pattern():
    patterns = np.array([response({name: 1.0}, variety=0.0)[-1] for name in simulate.SUBSTANCES])
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    cosine = patterns @ patterns.T - np.eye(len(patterns))
    assert cosine.max() < 0.9995


def test_counts_are_whole_numbers_of_ten_bits():
    rng = np.random.default_rng(1)
    table = simulate.recording({"mint": 1.0}, simulate.session(rng), rng)
    gas = table[["NO2", "C2H5OH", "VOC", "CO"]].to_numpy()
    assert gas.dtype == np.int64
    assert gas.min() >= 0
    assert gas.max() <= 1023


def test_a_simulated_mixture_is_told_from_a_resampled_one():
    from smellkit.study.odour.mixture_data import origin

    rng = np.random.default_rng(1)
    table = simulate.mixture_recording({"banana": 1.0}, simulate.session(rng), rng)
    assert len(table) == 600
    assert origin("banana.csv", table.iloc[:, 1:].to_numpy()) == "recording"
    assert origin("banana.csv", simulate.bootstrap(table, rng).iloc[:, 1:].to_numpy()) == "bootstrap"


def nearest_substance(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Accuracy of one nearest neighbour on the first row of each recording: what a session gives away."""

    def first(table):
        rows = table.groupby("file", sort=False).first()
        return rows[["Temperature", "Pressure", "Humidity", *recordings.GAS]].to_numpy(), rows["substance"].to_numpy()

    (x, y), (other, truth) = first(train), first(test)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    distance = (((other - mean) / scale)[:, None] - ((x - mean) / scale)[None]) ** 2
    return float((y[distance.sum(axis=2).argmin(axis=1)] == truth).mean())


def test_one_session_a_substance_gives_it_away_and_one_a_recording_does_not(own_folders, tmp_path):
    size = Size(training=3, rows=40, mixtures=0, pictures=1, scent_rows=30)
    folder = write_sample(tmp_path / "free", size=size, sessions="recording")
    confounded = nearest_substance(recordings.read_recordings(None), recordings.read_recordings(None, "testing"))
    free = nearest_substance(recordings.read_recordings(folder), recordings.read_recordings(folder, "testing"))
    assert confounded > 0.9
    assert free < 0.5


def test_no_two_drawings_are_alike():
    rng = np.random.default_rng(1)
    one, other = np.asarray(draw("pear", rng), dtype=int), np.asarray(draw("pear", rng), dtype=int)
    assert one.shape == (96, 96, 3)
    assert np.abs(one - other).mean() > 5


def test_the_command_writes_a_sample(tmp_path):
    from smellkit.cli.data import data as command

    out = tmp_path / "out"
    result = CliRunner().invoke(
        command, ["simulate", "odour", "--out", str(out), "--recordings", "1", "--rows", "30", "--pictures", "1"]
    )
    assert result.exit_code == 0, result.output
    assert len(list((out / "smellnet/base/training").glob("*/*.csv"))) == 14


@pytest.mark.parametrize(
    "wrong", [{"days": 0}, {"recordings": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"classes": 15}]
)
def test_recordings_that_no_board_can_make_are_refused_by_name(wrong, tmp_path):
    with pytest.raises(OptionError, match=f"{next(iter(wrong))} is"):
        write_recordings(tmp_path / "new", noses.load("mq-array"), **wrong)
    assert not (tmp_path / "new").exists()
