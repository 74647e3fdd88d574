"""Today's session from a few references: the index that names them, the law that mixes them, the command."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from smellkit import checkpoint as weights
from smellkit import paths
from smellkit.cli import cli
from smellkit.errors import DataError, SmellkitError, WeightsError
from smellkit.odour import predict
from smellkit.odour.calibration import (
    POWER,
    SessionCalibration,
    calibrate,
    extrapolated,
    power_law,
    predicted_mixtures,
    read_labels,
    read_references,
    reference_file,
)
from smellkit.odour.mixture import dynamic_top_k, within_tolerance
from smellkit.odour.scents import ODORANTS
from smellkit.odour.smell import load_hybrid
from smellkit.study.odour.mixture_data import read_windows
from smellkit.study.odour.mixtures import draw_references

SAMPLE = paths.sample() / "smellnet" / "mixture"
LABELS = [f"label_{name}" for name in ODORANTS]


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))


@pytest.fixture
def unseen():
    return read_windows(None, "test_unseen")


def write_index(path, index, rows):
    table = index.loc[rows, list(ODORANTS)].set_axis(LABELS, axis=1)
    table.insert(0, "filepath", [file.removeprefix("mixture/") for file in index.loc[rows, "file"]])
    table.to_csv(path, index=False)
    return path


def test_a_mixture_of_one_scent_is_that_scent():
    pure = np.random.default_rng(0).normal(size=(2, 4))
    assert np.allclose(power_law(pure, np.array([1.0, 1e-300])), pure[0], atol=1e-6)


def test_a_tenth_of_a_strong_scent_hides_a_weak_one_on_all_sensors_but_the_last():
    weak, strong = np.zeros(4), np.full(4, 1.6)
    mixed = power_law(np.stack([weak, strong]), np.array([0.9, 0.1]))
    assert (mixed[:3] > 1.2).all()
    assert mixed[3] < 0.6
    assert POWER.tolist() == [8, 8, 6, 1]


def test_two_base_scents_give_themselves_and_nine_mixtures():
    pure = np.repeat([[0.0] * 4, [1.0] * 4], 5, axis=0)
    truth = np.repeat(np.eye(12)[[1, 7]], 5, axis=0)
    features, ratios = predicted_mixtures(pure, truth, each=2)
    assert len(np.unique(ratios.round(3), axis=0)) == 11
    assert np.allclose(ratios.sum(1), 1)
    assert features.shape == (len(ratios), 4)


def test_a_recording_that_is_still_rising_is_followed_further_up():
    features = np.zeros((11, 8), np.float32)
    features[:, :4] = np.arange(11)[:, None]
    ahead, of = extrapolated(features, np.zeros(11, int))
    assert (ahead[:, :4] > 10).all() and (ahead[:, 4:] == 0).all()
    assert (of == 0).all()


def test_one_reference_of_each_mixture_helps_on_another_day(unseen):
    model = load_hybrid(paths.weights() / "mixture")
    chosen = draw_references(unseen.index, count=1, seed=1)
    rest = unseen.of(~chosen)
    calibrated = SessionCalibration.fit(unseen.of(chosen), model).predict(rest.counts)
    alone = model.explain(rest.counts, recording=rest.recording)["ratios"]
    assert within_tolerance(calibrated, rest.ratios).mean() > within_tolerance(alone, rest.ratios).mean() + 0.3
    assert dynamic_top_k(calibrated, rest.ratios).mean() > 0.6


def test_base_scents_alone_tell_their_mixtures_by_the_power_law():
    random = np.random.default_rng(1)
    banana, orange = np.array([0.0, 0.3, -0.4, -1.2]), np.array([1.6, 2.5, 1.9, 1.6])
    counts = lambda level: np.repeat((1023 / (1 + np.exp(-level)))[:, None], 100, axis=1)  # noqa: E731
    truth = np.zeros((40, 12))
    share = np.repeat([0.2, 0.8], 20)
    truth[:, 2], truth[:, 3] = share, 1 - share
    mixed = np.stack([power_law(np.stack([banana, orange]), np.array([s, 1 - s])) for s in share])
    pure = np.concatenate([np.tile(banana, (20, 1)), np.tile(orange, (20, 1))]) + random.normal(0, 0.03, (40, 4))
    features = np.concatenate([pure, np.zeros((40, 4))], axis=1).astype(np.float32)
    made = SessionCalibration(features, np.repeat(np.eye(12)[[2, 3]], 20, axis=0), np.repeat([0, 1], 20), np.eye(8))
    assert within_tolerance(made.predict(counts(mixed)), truth).mean() > 0.8


def test_the_commands_calibrate_and_predict_work_together(unseen, tmp_path):
    chosen = draw_references(unseen.index, count=1, seed=1)
    index = write_index(tmp_path / "index.csv", unseen.index, chosen)
    made = CliRunner().invoke(
        cli, ["calibrate", str(SAMPLE), "--labels", str(index), "--out", str(tmp_path / "calibration")]
    )
    assert made.exit_code == 0, made.output
    assert f"{chosen.sum()} references" in made.output
    options = ["--weights", "mixture", "--calibration", str(tmp_path / "calibration"), "--out", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(cli, ["predict", str(SAMPLE / "test_unseen"), *options])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "p.csv")
    assert (table["window"] == -1).sum() == len(list((SAMPLE / "test_unseen").rglob("*.csv")))
    assert weights.manifest(tmp_path / "calibration")["kind"] == "mixture-calibration"


def test_a_reference_is_found_wherever_the_index_counts_from():
    file = sorted((SAMPLE / "test_unseen").rglob("*.csv"))[0]
    name = file.relative_to(SAMPLE).as_posix()
    for folder in (SAMPLE, SAMPLE / "test_unseen", file.parent):
        assert reference_file(folder, name) == file
    with pytest.raises(DataError, match="nowhere.csv"):
        reference_file(SAMPLE, "test_unseen/nowhere.csv")
    with pytest.raises(DataError):
        reference_file(SAMPLE / "test_seen", "../test_unseen/nowhere.csv")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid CSV"),
        ("file,label_peach\na.csv,1\n", "filepath"),
        ("filepath,label_peach\n", "rows"),
        ("filepath,label_banan\na.csv,1\n", "did you mean label_banana"),
        ("filepath,label_peach,label_clove\na.csv,0.5,0.2\n", "0.7"),
        ("filepath,label_peach,label_clove\na.csv,50,50\n", "shares of 1, not percent"),
        ("filepath,label_peach\na.csv,much\n", "'much'"),
        ("filepath,label_peach\na.csv,nan\n", "'nan'"),
        ("filepath,label_peach,label_clove\na.csv,-1,2\n", "'-1'"),
        ("filepath,label_peach\nmissing.csv,1\n", "missing.csv"),
    ],
)
def test_a_wrong_index_is_refused_with_its_place(tmp_path, text, reason):
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(SmellkitError, match=reason):
        read_references(tmp_path, tmp_path / "index.csv")


def test_labels_may_leave_out_absent_odorants_and_write_thirds_as_33(tmp_path):
    (tmp_path / "index.csv").write_text(
        "filepath,label_peach,label_cloves,label_mandarin_orange\na.csv,.33,.33,.33\nb.csv,1,0,0\n"
    )
    table = read_labels(tmp_path / "index.csv")
    assert np.allclose(table[list(ODORANTS)].sum(axis=1), 1)
    assert table["clove"].iloc[0] == pytest.approx(1 / 3)
    assert table["orange"].iloc[1] == 0


def test_a_reference_listed_twice_and_a_short_one_are_refused(tmp_path):
    table = pd.DataFrame({"NO2": 500.0, "C2H5CH": 600.0, "VOC": 550.0, "CO": 300.0}, index=range(60))
    table.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "index.csv").write_text("filepath,label_peach\na.csv,1\na.csv,1\n")
    with pytest.raises(DataError, match="more than once"):
        read_references(tmp_path, tmp_path / "index.csv")
    (tmp_path / "index.csv").write_text("filepath,label_peach\na.csv,1\n")
    with pytest.raises(DataError, match="fewer than 100 rows"):
        read_references(tmp_path, tmp_path / "index.csv")


def test_something_else_than_a_calibration_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="smellkit calibrate"):
        SessionCalibration.load(tmp_path)
    with pytest.raises(WeightsError, match="not a calibration"):
        SessionCalibration.load(paths.weights() / "mixture")


def test_references_in_another_unit_are_refused_with_the_factor(tmp_path):
    file = sorted((paths.sample() / "smellnet/mixture/test_unseen").rglob("*.csv"))[0]
    table = pd.read_csv(file)
    (table * [1, *[3.3 / 1023] * 4]).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "index.csv").write_text("filepath,label_peach\na.csv,1\n")
    with pytest.raises(DataError, match=r"outside what these weights know.*volts of 3\.3"):
        calibrate(tmp_path, labels=tmp_path / "index.csv", out=tmp_path / "out", using=weights.find("mixture"))


def test_recordings_far_from_every_reference_are_said(tmp_path):
    files = sorted((paths.sample() / "smellnet/mixture/test_unseen").rglob("*.csv"))[:2]
    (tmp_path / "index.csv").write_text(f"filepath,label_peach\n{files[0].name},1\n")
    calibrate(files[0].parent, labels=tmp_path / "index.csv", out=tmp_path / "cal", using=weights.find("mixture"))
    answers = {}
    for name, factor in (("near", 1.0), ("far", 0.62)):
        (tmp_path / name).mkdir()
        table = pd.read_csv(files[0])
        (table * [1, *[factor] * 4]).round(1).to_csv(tmp_path / name / "a.csv", index=False)
        answers[name] = predict.mixture(
            tmp_path / name, weights=weights.find("mixture"), out=tmp_path / "x.csv", calibration=str(tmp_path / "cal")
        )
    assert "far from every reference" not in answers["near"] and "a.csv" in answers["far"]
    assert "1 of 1 recordings lie far from every reference" in answers["far"]
