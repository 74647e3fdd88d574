"""One clock for every system: any time column is read or refused, and rows come out in order at the rate asked for."""

import warnings
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smellkit import Pipeline, paths
from smellkit.checks import Report
from smellkit.checks.clock import clock_columns, read_clock
from smellkit.device.board import Board
from smellkit.device.enose import Nose
from smellkit.errors import DataError
from smellkit.gcode import recordings
from smellkit.noses import Column, Description
from smellkit.odour import readers
from smellkit.odour.live import Recogniser, sniff
from smellkit.odour.recordings import read_mixture
from smellkit.odour.smell import load_smell
from smellkit.odour.windows import Protocol, cut
from smellkit.sensors import SENSORS

pytestmark = pytest.mark.usefixtures("own_folders")
BEGAN = datetime(2025, 3, 1, 12, 43, 56, 17_000)
SECONDS = np.arange(40) / 4  # 4 rows a second
MOMENTS = [BEGAN + timedelta(seconds=float(s)) for s in SECONDS]
EPOCH = np.array([moment.timestamp() for moment in MOMENTS])


def form(pattern):
    return [moment.strftime(pattern) for moment in MOMENTS]


def short(pattern):
    """To milliseconds."""
    return [text[:-3] for text in form(pattern)]


CLOCKS = {
    "ISO": ("time", short("%Y-%m-%dT%H:%M:%S.%f")),
    "ISO with a zone": ("time", [f"{text}Z" for text in short("%Y-%m-%d %H:%M:%S.%f")]),
    "ISO with a decimal comma": ("time", [text.replace(".", ",") for text in short("%Y-%m-%d %H:%M:%S.%f")]),
    "German": ("Zeit time", short("%d.%m.%Y %H:%M:%S.%f")),
    "American with AM and PM": ("date_time", [f"{text} PM" for text in short("%m/%d/%Y %I:%M:%S.%f")]),
    "time of day": ("t_console", short("%H:%M:%S.%f")),
    "time of day with a decimal comma": ("time", [text.replace(".", ",") for text in short("%H:%M:%S.%f")]),
    "minutes of an hour": ("time", short("%M:%S.%f")),
    "epoch in s": ("timestamp", EPOCH.tolist()),
    "epoch in ms": ("timestamp", (EPOCH * 1e3).round().tolist()),
    "epoch in us": ("timestamp", (EPOCH * 1e6).round().tolist()),
    "epoch in ns": ("timestamp", [int(e * 1e6) * 1000 for e in EPOCH]),
    "seconds": ("elapsed_s", SECONDS.tolist()),
    "seconds with a decimal comma": ("elapsed_s", [f"{s:.2f}".replace(".", ",") for s in SECONDS]),
    "millis()": ("millis", [4711 + round(1000 * s) for s in SECONDS]),
    "millis() that overflows": ("millis", [(2**32 - 3000 + round(1000 * s)) % 2**32 for s in SECONDS]),
    "micros() that overflows": ("micros", [(2**32 - 3_000_000 + round(1e6 * s)) % 2**32 for s in SECONDS]),
    "over midnight": ("time", [(m + timedelta(hours=11, minutes=16)).strftime("%H:%M:%S.%f") for m in MOMENTS]),
    "over noon, 12 hours": ("time", [(m + timedelta(minutes=16)).strftime("%I:%M:%S.%f") for m in MOMENTS]),
    "days of a spreadsheet": ("time", (45717.5 + SECONDS / 86400).tolist()),
    "datetime of parquet": ("time", pd.Series(MOMENTS)),
    "datetime of parquet, ms": ("time", pd.Series(MOMENTS).astype("datetime64[ms]")),
}


@pytest.mark.parametrize("kind", CLOCKS)
def test_a_clock_of_any_kind_says_the_same_seconds(kind, tmp_path):
    name, cells = CLOCKS[kind]
    assert clock_columns(["NO2", name, "CO"]) == [name]
    seconds = read_clock(pd.Series(cells), path=tmp_path / "a.csv", name=name, lines=range(2, 99))
    np.testing.assert_allclose(seconds - seconds[0], SECONDS, atol=1e-3)


def test_dates_are_read_without_a_warning_of_pandas():
    cells = pd.Series(["2025-03-01 12:43:56", "2025-03-13 00:00:00"])
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        seconds = read_clock(cells, path=Path(), name="t", lines=[2, 3])
    assert not heard
    assert seconds[1] - seconds[0] == 11 * 86400 + 40564


def test_a_date_and_a_time_are_one_clock_and_sensors_are_none():
    assert clock_columns(["Date", "Time", "NO2"]) == ["Date", "Time"]
    assert clock_columns([*SENSORS, *recordings.CONTINUOUS]) == []


def test_a_cell_that_is_no_time_is_refused_with_its_line(tmp_path):
    cells = [*short("%H:%M:%S.%f")[:20], "soon", *short("%H:%M:%S.%f")[21:]]
    with pytest.raises(DataError, match=r"line 22, column 'time'.*soon"):
        read_clock(pd.Series(cells), path=tmp_path / "a.csv", name="time", lines=range(2, 99))


def ramp(times, values=None):
    values = np.arange(len(times)) if values is None else values
    return "timestamp_ms,CO\n" + "".join(f"{t},{v}\n" for t, v in zip(times, values, strict=True))


def read(tmp_path, text, *, rate=1.0, columns=("CO",)):
    (tmp_path / "a.csv").write_text(text)
    report, nose = (
        Report(),
        Description("known", dict.fromkeys(columns, Column("gas", "adc", (0.0, 1023.0))), rate=rate),
    )
    return readers.read_rows(tmp_path / "a.csv", nose, columns=columns, report=report), str(report)


def test_faster_rows_are_resampled_and_say_which_rows_they_were(tmp_path):
    table, said = read(tmp_path, ramp(range(0, 10_000, 250)))
    assert table["CO"].tolist() == table["row"].tolist() == list(range(0, 40, 4))
    assert "4 rows a second resampled to 1" in said


def test_slower_rows_are_refused_with_both_rates(tmp_path):
    with pytest.raises(DataError, match=r"expected 10 rows a second, found 1 rows a second"):
        read(tmp_path, ramp(range(0, 40_000, 1000)), rate=10.0)


def test_a_gap_is_told_and_divides_the_recording(tmp_path):
    table, said = read(tmp_path, ramp([*range(0, 20_000, 1000), *range(3_600_000, 3_620_000, 1000)]))
    assert table["part"].tolist() == [0] * 20 + [1] * 20 and "before line 22" in said and "60 min" in said


def test_an_order_that_the_clock_proves_is_restored(tmp_path):
    times = np.arange(40) * 1000
    for order in (np.arange(40)[::-1], np.random.default_rng(0).permutation(40), np.roll(np.arange(40), 13)):
        table, said = read(tmp_path, ramp(times[order], order))
        assert table["CO"].tolist() == list(range(40)) and "put in its order" in said
        assert table["row"].tolist() == np.argsort(order).tolist()


def test_columns_that_change_places_are_seen_in_the_order_of_the_clock(tmp_path):
    order, rise = np.random.default_rng(0).permutation(60), np.arange(60)
    values = np.where(rise[:, None] < 30, [100, 500], [500, 100]) + rise[:, None]
    rows = "".join(f"{1000 * n},{values[n, 0]},{values[n, 1]}\n" for n in order)
    with pytest.raises(DataError, match=f"line {2 + np.argsort(order)[30]}: .*in another order"):
        read(tmp_path, "timestamp_ms,CO,VOC\n" + rows, columns=["CO", "VOC"])


def test_a_clock_that_starts_again_divides_the_recording_and_mixes_nothing(tmp_path):
    table, said = read(tmp_path, ramp([*range(0, 40_000, 1000), *range(400, 30_400, 1000)]))
    assert table["CO"].tolist() == list(range(70)) and "goes back (in line 42)" in said
    assert table["part"].tolist() == [0] * 40 + [1] * 30


def test_a_clock_without_order_is_refused(tmp_path):
    times = np.random.default_rng(0).integers(0, 10**6, 200)
    with pytest.raises(DataError, match="go back"):
        read(tmp_path, ramp(times))


def test_rows_that_came_twice_count_once(tmp_path):
    table, said = read(tmp_path, ramp(np.repeat(range(0, 40_000, 1000), 2), np.repeat(range(40), 2)))
    assert table["CO"].tolist() == list(range(40)) and "40" in said and "repeat the one before" in said


def test_a_clock_of_whole_seconds_is_spread(tmp_path):
    times = np.repeat(np.arange(20) * 1000, 4)[1:]
    table, said = read(tmp_path, ramp(times), rate=4.0)
    assert table["CO"].tolist() == list(range(79)) and "spread evenly" in said


def test_lost_rows_are_filled_in_by_the_clock(tmp_path):
    times = [t for t in range(0, 40_000, 1000) if t not in (7000, 8000)]
    table, said = read(tmp_path, ramp(times, [t // 1000 for t in times]))
    assert table["CO"].tolist() == list(range(40)) and "filled in" in said


def test_a_clock_that_stands_still_is_told(tmp_path):
    table, said = read(tmp_path, ramp([0] * 40))
    assert len(table) == 40 and "stands still" in said


def test_the_same_rows_with_and_without_a_clock_are_the_same(tmp_path):
    table, said = read(tmp_path, ramp(1_700_000_000_000 + np.arange(40) * 1000))
    other, _ = read(tmp_path, "CO\n" + "".join(f"{n}\n" for n in range(40)))
    pd.testing.assert_frame_equal(table, other)
    assert "0 skipped" in said and "\n" not in said


def smell(path, seconds, header=("timestamp_ms", *SENSORS)):
    rise = np.linspace(0, 40, len(seconds))
    base = [60, 90, 120, 790, 3, 17, 0, 25, 1010, 40, 250, 10]
    rows = [
        [round(1000 * s), *(np.array(base) + r * np.array([1] * 6 + [0] * 6))]
        for s, r in zip(seconds, rise, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(header), *(",".join(f"{c:.3f}" for c in row) for row in rows)]) + "\n")


def test_predict_counts_rows_of_the_file_and_says_once_what_was_forgiven(predict, tmp_path):
    for name in "abc":
        smell(tmp_path / "in" / f"{name}.csv", np.arange(0, 300, 0.25))
    code, said = predict(tmp_path / "in")
    assert code == 0 and said.count("4 rows a second resampled to 1") == 1 and "in 3 files" in said
    table = pd.read_csv(tmp_path / "out.csv")
    assert table.query("file == 'a.csv' and window >= 0")["start"].tolist() == [0, 200, 400, 600]


def test_a_window_never_lies_across_a_gap(tmp_path):
    smell(tmp_path / "a.csv", [*range(130), *range(4000, 4130)])
    parts = load_smell("odour").stretches(tmp_path / "a.csv")
    assert [part.row[0] for part in parts] == [0, 130]
    table = pd.concat([pd.DataFrame(part.values, columns=load_smell("odour").columns) for part in parts])
    steps = [*range(130), *range(140, 270)]
    windows = cut(table.assign(file="a", substance="x", step=steps), Protocol(columns=load_smell("odour").columns))
    assert windows.start.tolist() == [0, 130]


def test_mixtures_are_read_at_ten_rows_a_second(tmp_path):
    source = next((paths.sample() / "smellnet/mixture/test_seen").glob("*.csv"))
    table = pd.read_csv(source)
    table.to_csv(tmp_path / "a.csv", index=False)
    fast = pd.DataFrame(np.repeat(table.to_numpy(), 2, axis=0), columns=table.columns)
    fast["timestamp_ms"] = np.arange(len(fast)) * 50
    fast.to_csv(tmp_path / "b.csv", index=False)
    one, other = (read_mixture(tmp_path / name) for name in ("a.csv", "b.csv"))
    np.testing.assert_array_equal(one.values, other.values)
    assert other.row[:3].tolist() == [0, 2, 4]


@pytest.mark.parametrize("kind", ["iso", "datetime", "epoch", "whole seconds", "twice"])
def test_the_clock_of_a_machine_may_be_of_any_kind(kind, tmp_path):
    table = pd.read_parquet(paths.sample() / "gcode/face_001.parquet")
    path = tmp_path / "face_001.parquet"
    table.to_parquet(path)
    expected = recordings.read_one(path)
    times = pd.Timestamp(2025, 3, 1) + pd.to_timedelta(np.arange(len(table)) / recordings.RATE, unit="s")
    table = table.assign(t_console={"datetime": times, "epoch": times.astype("datetime64[ms]").astype("int64")}.get(
        kind, times.strftime("%H:%M:%S" if kind == "whole seconds" else "%Y-%m-%d %H:%M:%S.%f")))  # fmt: skip
    if kind == "twice":
        table = table.loc[np.repeat(table.index, 2)].reset_index(drop=True)
    table.to_parquet(path)
    table = recordings.read_one(path)
    drop = ["clock", "row"]
    pd.testing.assert_frame_equal(table.drop(columns=drop), expected.drop(columns=drop))


def test_a_table_with_a_clock_is_read_by_it(tmp_path):
    smell(tmp_path / "a.csv", np.arange(0, 200, 0.25))
    pipeline = Pipeline.load("odour")
    by_file, by_table = pipeline(tmp_path / "a.csv"), pipeline(pd.read_csv(tmp_path / "a.csv"))
    assert by_file.probabilities == pytest.approx(by_table.probabilities, abs=1e-6)


def test_rows_that_come_too_fast_from_a_live_board_are_said(recording, caplog):
    with Board(recording, rate=500) as board, Nose(board.port) as nose:
        sniff(nose, Recogniser(Pipeline.load("odour")), rows=10)
    assert "the weights know 1" in caplog.text
