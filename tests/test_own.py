"""An own nose from a folder to weights: what is understood, how good it is, prediction, references of today."""

import json
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from smellkit import checkpoint, noses, panel, paths
from smellkit.cli import cli
from smellkit.errors import DataError, OptionError
from smellkit.odour import calibration, readers
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.recordings import read_recordings
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import cut
from smellkit.simulate.boards import write_recordings
from smellkit.study.odour import figures, own, own_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes on two days, six recordings each, of an array of MQ sensors."""
    place = tmp_path_factory.mktemp("own") / "array"
    return write_recordings(place, noses.load("mq-array"), classes=3, recordings=6, seconds=60, days=2, seed=3)


@pytest.fixture(scope="module")
def learnt(folder, tmp_path_factory):
    """Everything that `learn` computes, with one network, and the weights."""
    mine = own.understand(folder)
    protocol = mine.protocol()
    windows = mine.windows(protocol)
    fold = own.folds_of(windows, 2)
    trial = own.validate(windows, protocol, fold, networks=1)
    place = tmp_path_factory.mktemp("learnt") / "weights"
    own_report.weights(mine, protocol, windows, trial, folder=place)
    return mine, protocol, windows, fold, trial, place


@pytest.mark.slow
def test_no_recording_is_scored_by_a_fit_that_saw_it(learnt):
    mine, protocol, windows, fold, trial, _ = learnt
    for number in np.unique(windows.recording):
        assert len(set(fold[windows.recording == number])) == 1
    session = mine.sessions(windows)
    assert set(session) == {0, 1}
    names = mine.files["session"].to_numpy()[windows.recording]
    assert len(set(zip(session, names, strict=True))) == 2


@pytest.mark.slow
def test_two_noses_are_learnt_at_the_same_time(learnt, own_folders):
    """Side by side in one folder of runs: neither refuses the other, and neither leaves a run behind."""
    windows = learnt[2]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        other = pool.submit(own.network, "curve-mlp", windows, seed=1)
        while not (list(paths.runs().glob("own/*")) or other.done()):
            time.sleep(0.005)  # until it trains
        both = own.network("curve-mlp", windows, seed=2), other.result()
    one_window = {"window": torch.from_numpy(windows.values[:1])}
    assert all(network(one_window)["logits"].shape == (1, 3) for network in both)
    assert not list(paths.runs().glob("own/*"))


def test_learners_beat_the_null_on_recordings_left_out(learnt):
    trial = learnt[4]
    assert trial.accuracy("null").value == pytest.approx(1 / 3)
    assert trial.accuracy(trial.kept).value > 0.4
    assert list(trial.table()["learner"]) == ["null", "lda", "network", "ensemble"]


def test_the_report_has_everything_as_plain_numbers(learnt):
    mine, protocol, windows, fold, trial, _ = learnt
    audit = own_report.audit(mine, windows, fold, trial)
    sniffing = trial.sniffing(protocol, mine.nose.rate)
    curve = own.learning_curve(windows, protocol, fold)
    report = own_report.report(
        mine, protocol, trial, audit, by_session=None, sniffing=sniffing, curve=curve, seconds=1.0, kept=trial.kept
    )
    asked = {"recordings", "classes", "columns", "rate", "folds", "accuracy", "by_session", "null", "audit", "seconds"}
    assert asked <= set(json.loads(json.dumps(report, allow_nan=False)))
    assert report["recordings"] == 18 and set(report["accuracy"]) == {"value", "low", "high"}
    assert np.sum(report["confusion"]) == 18 and report["too_short"] == []
    assert "2 recordings are shorter than a window" in own_report.summary(report | {"too_short": ["a.csv", "b.csv"]})


def test_weights_know_their_nose_and_name_recordings_from_the_command_line(learnt, folder, tmp_path):
    place = learnt[-1]
    manifest = checkpoint.manifest(place)
    assert manifest["nose"]["name"] == "mq-array" and "mq-array" in (place / "README.md").read_text(encoding="utf-8")
    out = tmp_path / "p.csv"
    done = CliRunner().invoke(cli, ["predict", str(folder), "--weights", str(place), "--out", str(out)])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    whole = table[table["window"] == -1]
    truth = whole["file"].str.split("/").str[0]
    assert len(whole) == 18 and (whole["top1"] == truth).mean() > 0.8


def test_the_kept_discriminant_is_the_same_as_a_network(learnt):
    _, _, windows, _, _, _ = learnt
    linear = own.Discriminant.fit(own.features(windows.values), windows.target)
    scores = linear.scores(own.features(windows.values))
    assert np.abs(own.network_scores(linear.network(windows.values), windows.values) - scores).max() < 1e-3


def test_references_of_today_repair_a_nose_that_drifted(learnt, folder, tmp_path):
    place = learnt[-1]
    for file in folder.rglob("*.csv"):
        table = pd.read_csv(file)
        gas = table.columns.drop("timestamp_ms")
        table[gas] = (table[gas] * np.linspace(0.45, 1, len(gas))).round()
        target = tmp_path / ("today" if file.stem[-1] in "12" else "later") / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(target, index=False)
    text = calibration.repair(tmp_path / "today", out=tmp_path / "fixed", using=place)
    assert "6 references of 3 classes" in text and "now" in text
    right = {}
    for name, weights in {"before": place, "after": tmp_path / "fixed"}.items():
        smell = SubstanceSmell.load(weights)
        _, table = readers.read_folder(tmp_path / "later", smell.nose)
        windows = cut(table, smell.protocol, classes=smell.classes)
        right[name] = (smell.scores(windows.values).argmax(1) == windows.target).mean()
    assert right["after"] > right["before"]


def test_a_reference_of_an_unknown_class_is_refused_by_name(learnt, folder, tmp_path):
    source = next(folder.glob("*/*.csv"))
    (tmp_path / "coffee").mkdir()
    shutil.copy(source, tmp_path / "coffee" / "coffee_1.csv")
    with pytest.raises(DataError, match="know no 'coffee'"):
        calibration.repair(tmp_path, out=tmp_path / "out", using=learnt[-1])
    with pytest.raises(OptionError, match="--labels"):
        calibration.repair(tmp_path, labels=tmp_path / "l.csv", out=tmp_path / "out", using=learnt[-1])
    assert not (tmp_path / "out").exists()


def test_one_class_one_recording_or_a_short_one_is_told_with_the_remedy(folder, tmp_path):
    first, second = sorted(folder.glob("*/*.csv"))[:2]
    alone = tmp_path / "alone" / first.parent.name
    alone.mkdir(parents=True)
    shutil.copy(first, alone)
    shutil.copy(second, alone)
    with pytest.raises(DataError, match="all recordings are of one class"):
        own.understand(tmp_path / "alone", nose="mq-array")
    other = tmp_path / "alone" / "zinc"
    other.mkdir()
    shutil.copy(sorted(folder.glob("*/*.csv"))[-1], other)
    with pytest.raises(DataError, match="a single recording of zinc"):
        own.understand(tmp_path / "alone", nose="mq-array")


@pytest.mark.parametrize("option", ["out=elsewhere", "data=elsewhere", "netwroks=1"])
def test_learn_takes_no_parameter_that_would_leave_its_report_elsewhere(folder, option):
    with pytest.raises(OptionError, match="-p has no"):
        CliRunner().invoke(cli, ["learn", str(folder), "-p", option], catch_exceptions=False)


def shortened(folder, place, **rows):
    """A copy of `folder` of which some classes' first recordings hold so many rows alone."""
    shutil.copytree(folder, place)
    for name, lengths in rows.items():
        for file, count in zip(sorted((place / name).glob("*.csv")), lengths, strict=False):
            file.write_text("".join(file.read_text().splitlines(keepends=True)[: count + 1]))
    return own.understand(place)


def test_a_recording_that_is_shorter_than_a_window_is_left_out_and_counts_in_no_fold(folder, learnt, tmp_path):
    protocol, name = learnt[1], learnt[0].files["substance"].iloc[0]
    windows = shortened(folder, tmp_path / "some", **{name: [9, 300, 9]}).windows(protocol)
    assert len(windows.short) == 2 and set(windows.fold[windows.target == 0]) == {0, 1, 2, 3}


def test_a_class_without_two_recordings_as_long_as_a_window_is_refused_by_name(folder, learnt, tmp_path):
    name = learnt[0].files["substance"].iloc[0]
    with pytest.raises(DataError, match=f"{name} has 1 recordings of {learnt[1].span} rows"):
        shortened(folder, tmp_path / "one", **{name: 5 * [9]}).windows(learnt[1])


def test_sessions_come_from_a_file_or_are_refused_by_line(folder, tmp_path):
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv"))
    path = tmp_path / "sessions.csv"
    path.write_text("file,session\n" + "".join(f"{name},s{i % 3}\n" for i, name in enumerate(files)), encoding="utf-8")
    assert set(own.understand(folder, sessions=str(path)).files["session"]) == {"s0", "s1", "s2"}
    path.write_text("file,session\nnowhere.csv,a\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        own.understand(folder, sessions=str(path))


def test_smellnet_reads_the_same_through_the_way_of_any_nose():
    from smellkit import paths

    base = paths.sample() / "smellnet" / "base" / "training"
    nose, table = readers.read_folder(base, noses.load("smellnet"))
    special = read_recordings(paths.sample() / "smellnet", "training")
    protocol = own.Protocol("level-free")
    mine, theirs = cut(table, protocol), cut(special, protocol)
    assert mine.classes == theirs.classes
    assert np.array_equal(mine.values, theirs.values) and np.array_equal(mine.fold, theirs.fold)


def test_a_run_folder_of_train_is_weights(tmp_path):
    from smellkit import paths
    from smellkit.study.odour.encoder_task import task
    from smellkit.train import Settings, fit

    options = {"model": "summary-mlp", "train_stride": 50}
    run = fit(task(**options), Settings(epochs=1), name="own-test", params=options)
    recordings = paths.sample() / "smellnet" / "base" / "testing"
    done = CliRunner().invoke(
        cli, ["predict", str(recordings), "--weights", str(run.folder), "--out", str(tmp_path / "p.csv")]
    )
    assert done.exit_code == 0, done.output
    assert set(pd.read_csv(tmp_path / "p.csv")["top1"]) <= set(checkpoint.manifest(run.folder)["classes"])


def test_the_live_panel_takes_own_weights_and_names_what_its_board_smells(learnt, folder):
    weights = learnt[-1]
    recording = min((folder / learnt[2].classes[0]).glob("*.csv"))
    with panel.Session(recogniser=lambda: Recogniser(Pipeline.load(weights))) as session:
        session.connect(source=recording, rate=300)
        until = time.monotonic() + 60
        while not (session.answer and session.answer.probabilities) and time.monotonic() < until:
            time.sleep(0.05)
        assert session.recogniser.nose.name == "mq-array"
        assert session.answer.name in learnt[2].classes
        assert session.answer.among[0] == session.answer.name


def test_curves_of_an_own_nose_are_drawn_over_its_seconds_and_over_rows_where_no_rate_is_known(learnt):
    mine, _, windows, *_ = learnt
    rows = mine.table.groupby("file").size().max()
    for rate, label in ((mine.nose.rate, "seconds"), (None, "rows")):
        figure = figures.responses(mine.table, substances=windows.classes, columns=mine.nose.gas, rate=rate)
        axes = figure.axes[0]
        assert axes.lines[0].get_xdata().max() <= rows / (rate or 1)
        assert label in {one.get_xlabel() for one in figure.axes}


def quiet(folder, *, rows, sensors, seed):
    """Two classes, three recordings each, of a nose whose counts hardly move."""
    random = np.random.default_rng(seed)
    for number in range(6):
        often = random.random((rows, sensors)) < 0.03 * (1 + number // 3)
        counts = 300 + np.cumsum(often, axis=0) * random.choice([-1, 1], sensors) + (random.random(often.shape) < 0.02)
        path = folder / ("rice", "tea")[number // 3] / f"{number}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(counts, columns=[f"MQ{one}" for one in range(sensors)]).to_csv(path, index=False)
    return own.understand(folder)


def test_what_weights_of_a_quiet_nose_say_does_not_hang_on_how_a_window_was_rounded(tmp_path):
    for seed in (0, 5):
        mine = quiet(tmp_path / f"{seed}", rows=80, sensors=1, seed=seed)
        protocol = mine.protocol()
        windows = mine.windows(protocol)
        even = np.zeros((len(windows), 2), np.float32)
        trial = own.Trial(windows, dict.fromkeys(("null", "lda", "network"), even), 3)
        own_report.weights(mine, protocol, windows, trial, folder=tmp_path / f"weights {seed}")
        network = SubstanceSmell.load(tmp_path / f"weights {seed}").network
        later = cut(quiet(tmp_path / f"{seed} later", rows=80, sensors=1, seed=100 + seed).table, protocol).values
        said = network.run(later).softmax(1).double()
        with torch.no_grad():
            precisely = network.double()({"window": torch.from_numpy(later).double()})["logits"].softmax(1)
        assert (said - precisely).abs().max() < 1e-3  # 0.03 and 0.06 where knots lay closer than that


def test_as_many_windows_as_classes_are_too_few_to_learn_from_and_it_is_said(tmp_path):
    mine = quiet(tmp_path / "short", rows=26, sensors=2, seed=1)
    windows = mine.windows(mine.protocol())[[0, 3]]
    with pytest.raises(DataError, match="2 windows of 2 classes") as told:
        own._fit_all(windows, seed=7, networks=1)
    assert "record longer" in str(told.value)
