"""Recordings to windows: what is missing, frozen, short or damaged is counted or refused, never guessed."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from smellkit import paths
from smellkit.checks import Report
from smellkit.errors import DataError, OptionError
from smellkit.gcode import data, recordings
from smellkit.simulate.gcode import machine
from smellkit.study.gcode import splits

REAL = Path(os.environ.get("SMELLKIT_DATA", "")) / "gcode_fingerprint"
real = pytest.mark.skipif(not REAL.is_dir(), reason="SMELLKIT_DATA has no gcode_fingerprint")
SAMPLE = paths.sample() / "gcode" / "face_001.parquet"


@pytest.fixture(autouse=True)
def own_work(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))


@pytest.fixture
def table():
    return pd.read_parquet(SAMPLE)


def read(table, tmp_path, name="face_001.parquet"):
    report, path = Report(), tmp_path / name
    table.to_csv(path, index=False) if name.endswith("csv") else table.to_parquet(path)
    return recordings.read_one(path, report=report), report


def test_the_155_channels_are_the_published_ones():
    assert len(recordings.CONTINUOUS) == 155 and recordings.channel_mask("no-position").sum() == 152
    assert (
        recordings.channel_mask(without="pressure").sum() == 143
        and recordings.channel_mask(without="current").sum() == 151
    )
    with pytest.raises(OptionError, match="proximiti"):
        recordings.channel_mask(without="proximiti")


def test_parquet_and_the_original_csv_are_the_same_recording(table, tmp_path):
    one, _ = read(table, tmp_path)
    other, _ = read(table, tmp_path, "face_001_aligned.csv")
    pd.testing.assert_frame_equal(one, other)


def test_two_files_of_one_recording_are_refused_and_not_read_as_one_of_twice_the_length(table, tmp_path):
    table.to_parquet(tmp_path / "face_001.parquet")
    table.to_csv(tmp_path / "face_001_aligned.csv", index=False)
    with pytest.raises(DataError, match=r"face_001.parquet.*found that of face_001_aligned.csv"):
        data.load(tmp_path)


def test_a_clock_that_is_the_index_of_a_parquet_file_is_read(table, tmp_path):
    begin = pd.Timestamp("2025-03-01")
    table["t_console"] = [str(begin + pd.Timedelta(seconds=second)) for second in np.arange(len(table)) / 39]
    wanted, _ = read(table, tmp_path)
    rows, report = read(table.set_index("t_console"), tmp_path)
    pd.testing.assert_frame_equal(rows, wanted)
    assert len(rows) < len(table) / 8 and any("thinned" in what for what in report.counts)


def test_a_number_that_no_sensor_says_is_refused_and_not_answered_with_nan(table, tmp_path):
    table["mpox"] = table["mpox"].astype(float)
    table.loc[70, "mpox"] = 1e300
    with pytest.raises(DataError, match="line 72, column 'mpox': expected a number"):
        read(table, tmp_path)


def test_a_recording_whose_sensors_all_are_empty_is_refused(table, tmp_path):
    empty = table.columns.intersection([*recordings.CONTINUOUS])
    with pytest.raises(DataError, match="none of the 155"):
        read(table.assign(**dict.fromkeys(empty, np.nan)), tmp_path)


def test_recordings_of_unknown_operations_are_not_trained_on_and_the_names_are_told(table, tmp_path):
    table.to_parquet(tmp_path / "mill_a_001.parquet")
    with pytest.raises(DataError, match=r"known operation \(here: mill_a\)"):
        splits.DataConfig(data=str(tmp_path)).load()


def test_recordings_that_share_only_a_clock_from_zero_are_no_repeats(table, tmp_path):
    table = table.drop(columns=list(recordings.POSITION)).assign(t_console=np.arange(len(table)) * 0.257)
    for number, change in enumerate((1.0, 1.1)):
        channels = table.columns.intersection([*recordings.CONTINUOUS])
        table.assign(**table[channels] * change).to_parquet(tmp_path / f"face_00{number}.parquet")
    rows = recordings.read(tmp_path)
    assert (rows["group"] == rows["recording"]).all()


def test_simulated_recordings_are_not_laid_among_others(table, tmp_path):
    table.to_parquet(tmp_path / "face_001.parquet")
    with pytest.raises(DataError, match="exists already"):
        machine(tmp_path, recordings=1, damaged=1)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "face_001.parquet"), table)


def test_a_missing_node_is_counted_and_empty(table, tmp_path):
    node = next(name for name in recordings.NODES if f"{name}.Ax" in table)
    rows, report = read(table.drop(columns=[c for c in table if c.startswith(node)]), tmp_path)
    assert f"missing node {node}" in report.counts and rows[f"{node}.Ax"].isna().all()


def test_a_missing_column_is_counted_and_a_missing_label_refused(table, tmp_path):
    _, report = read(table.drop(columns=["stat", "mpox"]), tmp_path)
    assert {"missing column stat", "missing channels of position"} <= set(report.counts)
    with pytest.raises(DataError, match="gcode_string"):
        read(table.drop(columns="gcode_string"), tmp_path)


def test_a_frozen_node_is_empty_from_the_eighth_still_row(table, tmp_path):
    node = next(name for name in recordings.NODES if f"{name}.Ax" in table)
    own = [c for c in table if c.startswith(node)]
    table.loc[50:, own] = table.loc[50, own].to_numpy()
    rows, report = read(table, tmp_path)
    assert report.counts[f"frozen {node}: rows taken as missing"] == len(table) - 58
    assert rows[f"{node}.Ax"][57] == table[f"{node}.Ax"][57] and np.isnan(rows[f"{node}.Pressure"][58])


def test_frozen_rows_are_the_same_in_a_stream(table, tmp_path):
    node = next(name for name in recordings.NODES if f"{name}.Ax" in table)
    own = [c for c in table if c.startswith(node)]
    table.loc[30:70, own] = table.loc[30, own].to_numpy()
    whole = table.reindex(columns=recordings.CONTINUOUS).to_numpy(np.float32)
    raw = whole.copy()
    recordings.mark_frozen(whole)
    for end in range(72, len(raw) + 1):
        window = raw[end - 72 : end].copy()
        recordings.mark_frozen(window)
        np.testing.assert_array_equal(window[8:], whole[end - 64 : end])


def test_rows_without_gcode_are_counted_and_give_no_label(table, tmp_path):
    table.loc[:, "gcode_string"] = None
    rows, report = read(table, tmp_path)
    assert report.counts["rows without G-code"] == len(table)
    machine = data.cut(rows.assign(group="face_001"))
    assert (machine.windows["line"] == -1).all() and len(machine.labelled()) == 0


def test_a_word_among_numbers_is_refused_with_its_place(table, tmp_path):
    table["mpoy"] = table["mpoy"].astype(str)
    table.loc[3, "mpoy"] = "far"
    with pytest.raises(DataError, match=r"line 5, column 'mpoy'.*far"):
        read(table, tmp_path)


def test_a_damaged_parquet_is_refused_or_skipped(tmp_path):
    shutil.copy(SAMPLE, tmp_path)
    (tmp_path / "face_002.parquet").write_bytes(SAMPLE.read_bytes()[:5000])
    with pytest.raises(DataError, match="face_002.parquet"):
        recordings.read(tmp_path)
    report = Report()
    assert recordings.read(tmp_path, skip=True, report=report)["recording"].unique() == ["face_001"]
    assert len(report.skipped) == 1


def test_another_sampling_rate_is_thinned_or_refused(table, tmp_path):
    clock = 36000 + 0.1 * np.arange(len(table))
    fast = table.assign(t_console=[f"10:{int(s - 36000) // 60:02d}:{(s - 36000) % 60:06.3f}" for s in clock])
    rows, report = read(fast, tmp_path)
    assert len(rows) == pytest.approx(len(table) / 2.57, abs=1) and "thinned" in str(report)
    slow = table.assign(t_console=[f"10:{row // 60:02d}:{row % 60:02d}.0" for row in range(len(table))])
    with pytest.raises(DataError, match="t_console"):
        read(slow, tmp_path)


def test_a_recording_shorter_than_a_window_is_counted(table, tmp_path):
    table.head(40).to_parquet(tmp_path / "face_009.parquet")
    shutil.copy(SAMPLE, tmp_path)
    report = Report()
    machine = data.load(tmp_path, report=report)
    assert set(machine.windows["recording"]) == {"face_001"} and "shorter than a window" in str(report)


def test_the_label_is_the_most_frequent_line_and_the_earliest_of_equals():
    codes = np.array([3, 1, 1, 2, 2, 0, -1, -1, -1, -1])
    assert data.modes(codes, starts=np.array([0]), length=6)[0] == 1
    assert data.modes(codes, starts=np.array([4]), length=6)[0] == 2
    assert data.modes(codes, starts=np.array([6]), length=4)[0] == -1


def test_scaling_is_from_training_rows_and_what_is_missing_is_the_median():
    random = np.random.default_rng(0)
    values = random.normal(5, 2, (200, 155)).astype(np.float32)
    values[:, 7], values[:10, 8] = np.nan, np.nan
    scaling = splits.fit_scaling(np.hstack([values, np.array([[5, 0, 0, 2], [3, 0, 0, np.nan]] * 100)]))
    rows = np.hstack([values, np.array([[5.0, 9.0, np.nan, 2.0]] * 200)])
    scaled, codes = (part.numpy() for part in scaling(torch.as_tensor(rows)))
    assert np.isfinite(scaled).all() and (scaled[:, 7] == 0).all() and abs(np.median(scaled[:, 0])) < 1e-6
    assert codes[0].tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("fold", range(splits.FOLDS))
def test_no_group_is_on_both_sides_of_an_honest_split(fold):
    table = data.load().labelled().windows
    groups = [set(table["group"].to_numpy()[part]) for part in splits.split(table, "G", fold=fold)]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


def test_the_five_folds_test_every_honest_window_once():
    table = data.load().labelled().windows
    tested = np.concatenate([splits.split(table, "G", fold=fold).test for fold in range(splits.FOLDS)])
    assert sorted(tested) == list(range(len(table)))


def test_the_unseen_session_is_the_damaged_tool():
    table = data.load().labelled().windows
    train, _, test = splits.split(table, "X")
    damaged = table["operation"].str.startswith("damage").to_numpy()
    assert damaged[test].all() and not damaged[train].any()


def test_a_machine_from_the_cache_is_the_one_that_was_read():
    reports = [Report(), Report()]
    first, second = (data.load("", report=report) for report in reports)
    assert reports[0].notes == reports[1].notes and reports[0].files == reports[1].files == 33
    assert first.lines == second.lines and np.array_equal(first.row_lines, second.row_lines)
    assert np.array_equal(first.values, second.values, equal_nan=True)
    pd.testing.assert_frame_equal(first.windows, second.windows, check_dtype=False)


@real
def test_what_is_wrong_with_real_recordings_is_counted():
    report = Report()
    machine = data.load(REAL, report=report)
    assert report.counts["repeats the status rows of face150025_008"] == 1
    honest = machine.labelled().windows
    assert len(honest[~splits.repeats(honest)]) == 3429  # of 3,880 with the recordings that are held back
