"""Recordings of any nose: every usual way to write them is read the same, and a fault is named with its place."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from smellkit import noses
from smellkit.checks import Report
from smellkit.cli.data import nose as nose_commands
from smellkit.errors import DataError, OptionError
from smellkit.odour import recordings
from smellkit.odour.formats import write_exchange
from smellkit.odour.readers import guess, read_folder, read_stretches
from smellkit.sensors import GAS, SMELLNET
from smellkit.simulate.boards import write_recordings
from smellkit.study import survey

NOSE = """
rate = 2.0
[columns.MQ3]
role = "gas"
unit = "adc"
span = [0, 1023]
fault = [-1]
[columns.MQ135]
role = "gas"
unit = "adc"
span = [0, 1023]
[columns.Pressure]
role = "pressure"
unit = "hectopascal"
span = [300, 1100]
"""
ROWS = np.column_stack([300 + np.arange(60), 500 - np.arange(60), np.full(60, 1013.25)])


@pytest.fixture
def nose(tmp_path):
    file = tmp_path / "described.toml"
    file.write_text(NOSE)
    return noses.load(file)


def text(rows=ROWS, *, names="time_ms,MQ3,MQ135,Pressure", mark=".", sep=",", clock=lambda row: 500 * row):
    lines = [names.replace(",", sep)] if names else []
    for number, row in enumerate(rows):
        cells = ([] if clock is None else [str(clock(number))]) + [f"{value:g}".replace(".", mark) for value in row]
        lines.append(sep.join(cells))
    return "\n".join(lines) + "\n"


def put(folder, name, content):
    path = folder / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return folder / "mine"


def same(table):
    assert np.allclose(table[["MQ3", "MQ135", "Pressure"]], ROWS)
    assert list(table["step"]) == list(range(60))


@pytest.mark.parametrize(
    "content",
    [
        text(),
        text(sep=";", mark=","),
        text(sep="\t"),
        text(sep="   "),
        text().replace("\n", "\r\n"),
        text().replace("\n", "\r"),
        "\ufeff" + text(),
        "# my nose\nwarming up\n" + text(),
        text().replace("Pressure\n", "Pressure\nms,counts,counts,hPa\n"),
        text(names="time_ms,Pressure,MQ135,mq3", rows=ROWS[:, ::-1]),
        text(names="MQ3,MQ135,Pressure", clock=None),
        text(names="", clock=None),
        text(names="Zeit,MQ3,MQ135,Pressure", clock=lambda row: f"01.03.2026 12:00:{row / 2:06.3f}"),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text().split()),
        text(names="time,MQ3,MQ135,Pressure", clock=lambda row: f"2026-03-01 12:00:{row / 2:06.3f}"),
        text(names="MQ3,MQ135,Pressure,note", clock=None).replace("1013.25", "1013.25,ok"),
        text().replace("20000,", "debug: wifi lost\n20000,"),
        text().replace("20000,", "time_ms,MQ3,MQ135,Pressure\n20000,"),
        text().replace("\n", "\n\n"),
    ],
)
def test_every_usual_way_to_write_a_recording_is_read_the_same(tmp_path, nose, content):
    _, table = read_folder(put(tmp_path, "tea.csv", content), nose)
    same(table)


def test_the_tidy_table_has_the_words_first_and_then_the_columns_of_the_nose(tmp_path, nose):
    _, table = read_folder(put(tmp_path, "green tea/01.csv", text()), nose)
    assert list(table) == ["substance", "recording", "file", "session", "step", *nose.columns]
    assert table.iloc[0, :5].tolist() == ["green tea", "green tea/01.csv", "green tea/01.csv", "", 0]


@pytest.mark.parametrize(
    ("name", "substance"),
    [
        ("tea/01.csv", "tea"),
        ("base/training/tea/01.csv", "tea"),
        ("red_large_3.csv", "red_large"),
        ("training/red-large (2).csv", "red-large"),
        ("tea.txt", "tea"),
    ],
)
def test_the_class_is_the_folder_or_the_name_without_its_number(tmp_path, nose, name, substance):
    _, table = read_folder(put(tmp_path, name, text()), nose)
    assert set(table["substance"]) == {substance}


def test_a_label_column_is_the_class_and_a_file_of_two_is_two_recordings(tmp_path, nose):
    labelled = [line + (",label" if n == 0 else ",air" if n < 30 else ",tea") for n, line in enumerate(text().split())]
    _, table = read_folder(put(tmp_path, "day.csv", "\n".join(labelled)), nose)
    assert table.groupby("substance")["recording"].unique().explode().to_dict() == {
        "air": "day.csv#1",
        "tea": "day.csv#2",
    }


def test_rows_of_a_class_each_are_a_table_of_features(tmp_path):
    rows = "\n".join(f"0.{n},0.{n + 1},{'fresh' if n % 3 else 'stale'}" for n in range(30))
    folder = put(tmp_path, "food.csv", f"MQ3,MQ4,Label\n{rows}\n")
    nose, table = read_folder(folder)
    assert nose.features and nose.rate is None
    assert len(table) == table["recording"].nunique() == 30 and set(table["step"]) == {0}


def test_a_copy_is_left_out_and_told(tmp_path, nose):
    put(tmp_path, "tea_1.csv", text())
    report = Report()
    _, table = read_folder(put(tmp_path, "tea_2.csv", text()), nose, report=report)
    assert table["file"].unique().tolist() == ["tea_1.csv"]
    assert "a copy of a recording (tea_1.csv)" in report.warnings[0][1]


def test_faster_rows_are_resampled_slower_ones_refused_and_a_gap_is_a_jump(tmp_path, nose):
    report = Report()
    _, table = read_folder(put(tmp_path, "tea.csv", text(clock=lambda row: 250 * row)), nose, report=report)
    assert len(table) == 30 and np.allclose(table["MQ3"], ROWS[::2, 0])
    assert "4 rows a second resampled to 2" in report.warnings[0][1]
    with pytest.raises(DataError, match=r"expected 2 rows a second, found 1 rows a second"):
        read_folder(put(tmp_path, "tea.csv", text(clock=lambda row: 1000 * row)), nose)
    _, table = read_folder(put(tmp_path, "tea.csv", text(clock=lambda row: 500 * row + 90_000 * (row > 20))), nose)
    assert np.flatnonzero(np.diff(table["step"]) != 1).tolist() == [20]


def test_readings_that_mean_none_are_filled_in_or_cut(tmp_path, nose):
    rows, report = ROWS.copy(), Report()
    rows[10:12, 0] = rows[30:40, 0] = -1
    _, table = read_folder(
        put(tmp_path, "tea.csv", text(rows, names="MQ3,MQ135,Pressure", clock=None)), nose, report=report
    )
    assert np.allclose(table["MQ3"], np.delete(ROWS[:, 0], np.s_[30:40]))
    assert np.flatnonzero(np.diff(table["step"]) != 1).tolist() == [29]
    assert [count for _, what, count in report.warnings if "reading" in what] == [2, 10]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        (
            "1013.25",
            "101325",
            r"line 2, column 'Pressure': expected a number.*hectopascal\), found 101325 \(and(.|\n)*multiply by 0.01",
        ),
        (
            ",310,",
            ",3100,",
            r"line 12, column 'MQ3': expected a number.*adc\), found 3100(.|\n)*a 12-bit converter: multiply",
        ),
        (",310,", ",abc,", "line 12, column 'MQ3': expected a number, found 'abc'"),
        ("MQ135", "MQ136", r"line 1, column 'MQ135': expected the columns of the nose described(.|\n)*near: MQ136"),
        ("time_ms,MQ3,", "time_ms,MQ3,extra,", "line 1: expected 4 names, found 5 names above rows of 4 fields"),
        ("time_ms,MQ3,MQ135", "time_ms,MQ3,MQ3", "line 1, column 'MQ3': expected each column once"),
        (",1013.25\n", "\n", "line 1: expected 3 names, found 4 names above rows of 3 fields"),
        (
            "20000,",
            "time_ms,MQ135,MQ3,Pressure\n20000,",
            "line 42: expected columns in one order, found another header",
        ),
        (",310,", ",310\x1e,", "line 12, column 'MQ3': expected a number, found '310"),
        (",310,", ",,", ""),
    ],
)
def test_what_can_not_be_right_is_refused_with_its_place_and_a_remedy(tmp_path, nose, old, new, place):
    folder = put(tmp_path, "tea.csv", text().replace(old, new))
    if not place:  # an empty cell alone is no reading: filled in, and told
        same(read_folder(folder, nose)[1])
        return
    with pytest.raises(DataError, match=place):
        read_folder(folder, nose)


def test_a_point_between_thousands_is_refused_and_other_broken_counts_are_told(tmp_path, nose):
    rows, report = ROWS.copy(), Report()
    rows[:, 1] = np.where(np.arange(60) % 2, 1.012, 990)
    with pytest.raises(DataError, match="line 3, column 'MQ135': expected whole counts, found 1.012 among counts"):
        read_folder(put(tmp_path, "tea.csv", text(rows)), nose)
    rows[:, 1] = 3.3 * ROWS[:, 1] / 1023
    read_folder(put(tmp_path, "tea.csv", text(rows)), nose, report=report)
    assert "counts that are no whole numbers (MQ135)" in report.warnings[0][1]


def test_columns_that_change_places_on_the_way_are_refused(tmp_path, nose):
    rows = ROWS.copy()
    rows[40:, [0, 1]] = rows[40:, [1, 0]] + [60, 0]
    rows[:, 1] = 700
    rows[40:, [0, 1]] = [700, 341]
    rows[:, 0] = np.where(np.arange(60) < 40, 340, 700)
    with pytest.raises(DataError, match="line 42: expected rows that follow each other"):
        read_folder(put(tmp_path, "tea.csv", text(rows)), nose)


def test_a_file_with_a_fault_can_be_left_out(tmp_path, nose):
    put(tmp_path, "tea_1.csv", text())
    report = Report()
    _, table = read_folder(put(tmp_path, "tea_2.csv", text().replace(",310,", ",x,")), nose, skip=True, report=report)
    assert table["file"].unique().tolist() == ["tea_1.csv"] and len(report.skipped) == 1


def test_many_torn_rows_are_refused_and_a_few_are_told(tmp_path, nose):
    report = Report()
    torn = text().replace("5000,310,490,1013.25", "5000,310,4")
    _, table = read_folder(put(tmp_path, "tea.csv", torn), nose, report=report)
    assert len(table) == 60 and "torn rows (the first: line 12): left out" in report.warnings[0][1]
    for row in range(20, 30):
        torn = torn.replace(f"{500 * row},{300 + row},", f"{500 * row},")
    with pytest.raises(DataError, match="line 12: expected 4 fields, found 3 in '5000,310,4', and 10 more"):
        read_folder(put(tmp_path, "tea.csv", torn), nose)


def test_a_date_that_is_none_is_refused_with_its_line(tmp_path, nose):
    dated = text(names="time,MQ3,MQ135,Pressure", clock=lambda row: f"2026-03-01 12:00:{row / 2:06.3f}")
    with pytest.raises(DataError, match=r"line 12, column 'time': expected a time, found '2026-93-01"):
        read_folder(put(tmp_path, "tea.csv", dated.replace("2026-03-01 12:00:05.000", "2026-93-01 12:00:05.000")), nose)


def test_an_unnamed_clock_of_hours_needs_its_unit(tmp_path):
    folder = put(tmp_path, "tea.csv", text(names="time,MQ3,MQ135,Pressure", clock=lambda row: f"{row / 3600:.7f}"))
    nose, words = guess(folder)
    assert nose.rate == pytest.approx(1, rel=0.01) and any("unit guessed hour" in word for word in words)
    (folder / "nose.toml").write_text(NOSE.replace("rate = 2.0", 'clock = "time"'))
    with pytest.raises(DataError, match=r'clock_unit = "hour"'):
        read_folder(folder)


# guesses


def test_every_guess_is_named(tmp_path):
    rows = np.column_stack([ROWS[:, 0], ROWS[:, 1] * 4, np.full(60, 101325.0), np.full(60, 21.5)])
    rows[7, 0] = -999
    nose, words = guess(put(tmp_path, "tea.csv", text(rows, names="time_ms,MQ3,A1,Pressure,temp (°C)")))
    columns = nose.columns
    assert (columns["MQ3"].unit, columns["MQ3"].span, columns["MQ3"].fault) == ("adc", (0, 1023), (-999.0,))
    assert columns["A1"].span == (0, 4095) and columns["Pressure"].unit == "pascal"
    assert columns["temp (°C)"].role == "temperature" and nose.rate == 2
    said = "; ".join(words)
    assert "MQ3: unit guessed adc from 300 to 359" in said and "MQ3: -999 taken as no reading" in said
    assert "temp (°C): unit" not in said  # the file tells it


def test_a_column_that_is_not_everywhere_or_holds_no_number_is_left_out_and_told(tmp_path):
    put(tmp_path, "a_1.csv", "MQ3,MQ4,MQ7\n" + "\n".join(f"{300 + n},{n + 50},nan" for n in range(20)))
    nose, words = guess(
        put(tmp_path, "b_1.csv", "MQ3,MQ5,MQ7\n" + "\n".join(f"{300 + n},{n + 50},nan" for n in range(20)))
    )
    assert list(nose.columns) == ["MQ3"] and "MQ4: left out, not every recording has it" in words
    assert "MQ7: left out, it looks like no sensor" in words


def test_of_two_rates_the_slower_is_taken_and_the_faster_resampled(tmp_path, nose):
    put(tmp_path, "a_1.csv", text())
    report = Report()
    described, table = read_folder(
        put(tmp_path, "b_1.csv", text(clock=lambda row: 2000 * row)), replace(nose, rate=None), report=report
    )
    assert described.rate == 0.5 and table.groupby("file").size().tolist() == [15, 60]
    assert "2 rows a second resampled to 0.5" in report.warnings[0][1]


def test_smellnets_board_is_known_by_its_columns(sample):
    nose, words = guess(sample / "smellnet")
    assert nose.name == "smellnet" and not words


def test_smellnet_reads_the_same_as_any_nose_and_by_its_own_reader(sample):
    from smellkit.odour.recordings import read_recordings

    _, table = read_folder(sample / "smellnet" / "base" / "training", noses.load("smellnet"))
    own = read_recordings(sample / "smellnet", "training")
    columns = list(noses.load("smellnet").columns)
    assert np.array_equal(table[columns], own[columns]) and list(table["substance"]) == list(own["substance"])


# formats, and the layouts of public sets


def test_a_list_of_ids_beside_a_file_says_what_each_stretch_is_of(tmp_path):
    rows = [f"{n // 30}  {n % 30 / 3600 - 1:.6f}  12.{n % 10}  10.3  26.22  59.0" for n in range(90)]
    put(
        tmp_path,
        "HT_metadata.dat",
        "id\tdate\tclass\tt0\tdt\n0\t07-04-15\tbanana\t13.49\t1.64\n1\t07-05-15\twine\t19.61\t0.5\n2\t07-06-15\twine\t1\t1\n",
    )
    folder = put(tmp_path, "HT_dataset.dat", "id time       R1         R2   Temp.      Humidity\n" + "\n".join(rows))
    nose, table = read_folder(folder)
    assert nose.rate == pytest.approx(1, rel=0.01) and nose.gas == ("R1", "R2")
    assert table.groupby("file")["substance"].first().tolist() == ["banana", "wine", "wine"]


def test_rows_of_minutes_with_a_label_that_seldom_changes(tmp_path):
    rows = [f"{n + 1},{2 + n / 50:.2f},{'good' if n < 40 else 'spoiled'},{300 + n},{500 - n}" for n in range(80)]
    nose, table = read_folder(put(tmp_path, "sirloin.csv", "Minute,TVC,Label,MQ135,MQ136\n" + "\n".join(rows)))
    assert (nose.clock, nose.clock_unit, nose.rate) == ("Minute", "minute", pytest.approx(1 / 60, rel=0.01))
    assert table.groupby("substance").size().to_dict() == {"good": 40, "spoiled": 40}


def test_wide_rows_that_begin_with_a_class_are_features(tmp_path):
    rows = [",".join([name, *(f"{k * n:.3f}" for k in range(90))]) for n, name in enumerate(["ethanol", "acetone"] * 4)]
    nose, table = read_folder(put(tmp_path, "low.csv", "\n".join(rows)))
    assert nose.features and len(nose.columns) == 90 and set(table["substance"]) == {"ethanol", "acetone"}


def test_a_text_among_features_is_refused_and_so_is_a_file_without_a_whole_cycle(tmp_path):
    rows = ["ethanol," + ",".join("1:2.5" if k == 40 else str(k) for k in range(90))] * 3
    with pytest.raises(DataError, match="line 1, column 'column 42': expected numbers, found '1:2.5'"):
        read_folder(put(tmp_path, "low.csv", "\n".join(rows)))
    torn = json.loads(bme(cycles=1))
    del torn["rawDataBody"]["dataBlock"][0]
    del torn["rawDataBody"]["dataBlock"][2:]
    (tmp_path / "mine" / "low.csv").unlink()
    with pytest.raises(DataError, match="No rows in .*mine"):
        read_folder(put(tmp_path, "coffee.bmerawdata", json.dumps(torn)))


def test_a_file_without_header_and_with_a_clock_in_front_takes_the_noses_columns(tmp_path, nose):
    timed = replace(nose, clock="t_ms")
    _, table = read_folder(put(tmp_path, "B1_R1.txt", text(names="", sep="\t")), timed)
    same(table)


def bme(sensors=2, cycles=4, label=0, **change):
    rows = []
    for cycle in range(cycles):
        for step in range(10):
            for sensor in range(sensors):
                time = 1000 + 1400 * cycle + 140 * step + 5 * sensor
                rows.append([sensor, time, 1760000000 + time // 1000, 25.0, 1013.0, 40.0, 1e5 + step, step, label, 0])
    names = {
        "Sensor Index": "", "Time Since PowerOn": "Milliseconds", "Real time clock": "Unix Timestamp",
        "Temperature": "DegreesCelcius", "Pressure": "Hectopascals", "Relative Humidity": "Percent",
        "Resistance Gassensor": "Ohms", "Heater Profile Step Index": "", "Label Tag": "", "Error Code": "",
    }  # fmt: skip
    columns = [{"name": name, "unit": unit, "format": "float", "key": name} for name, unit in names.items()]
    return json.dumps({"rawDataBody": {"dataColumns": columns, "dataBlock": rows}} | change)


def test_a_bme688_cycle_is_a_row_and_each_sensor_a_part_of_one_recording(tmp_path):
    nose, table = read_folder(put(tmp_path, "coffee.bmerawdata", bme()))
    assert (nose.name, nose.rate) == ("bme688", pytest.approx(1 / 1.4, rel=0.01))
    assert table.groupby("file").size().tolist() == [4, 4] and table["recording"].unique().tolist() == [
        "coffee.bmerawdata"
    ]
    assert table["heater_9"].eq(1e5 + 9).all() and set(table["session"]) == {"2025-10-09"}


def test_a_torn_row_of_a_bme688_file_is_refused_with_its_number(tmp_path):
    torn = json.loads(bme())
    torn["rawDataBody"]["dataBlock"][0].pop()
    with pytest.raises(DataError, match=r"9 values in dataBlock\[0\] for 10 columns"):
        read_folder(put(tmp_path, "coffee.bmerawdata", json.dumps(torn)))


def test_bme688_tags_have_the_names_of_their_label_file(tmp_path):
    names = {"labelInformation": [{"labelTag": 7, "labelName": "tea"}]}
    put(tmp_path, "x.bmelabelinfo", json.dumps(names))
    _, table = read_folder(put(tmp_path, "x.bmerawdata", bme(label=7)))
    assert set(table["substance"]) == {"tea"}


def test_a_bme688_logger_that_writes_pascal_is_converted_and_told(tmp_path):
    names = (
        "TimeStamp(ms),Sensor Index,Temperature(deg C),Pressure(Pa),Humidity(%),Gas Resistance(ohm),Gas Index,Gas Valid"
    )
    rows = [f"{1400 * c + 140 * s},0,25,101325,40,{1e5 + s:g},{s},1" for c in range(3) for s in range(10)]
    report = Report()
    _, table = read_folder(put(tmp_path, "tea.csv", "\n".join([names, *rows])), report=report)
    assert table["Pressure"].eq(1013.25).all() and len(table) == 3
    assert any("Pressure: pascal, as the file says, taken as hectopascal" in what for _, what, _ in report.warnings)


def test_libsvm_rows_are_features_and_a_file_is_a_session(tmp_path):
    rows = [f"{1 + n % 2};10.000000 " + " ".join(f"{i}:{i * n + 0.5}" for i in range(1, 129)) for n in range(6)]
    nose, table = read_folder(put(tmp_path, "batch1.dat", "\n".join(rows)))
    assert nose.features and list(nose.columns) == [f"f{i}" for i in range(1, 129)]
    assert table["substance"].tolist() == ["ethanol", "ethylene"] * 3 and set(table["session"]) == {"batch1"}
    assert table.loc[2, "f3"] == 6.5


def test_opensmells_json_tells_substance_session_and_units(tmp_path):
    described = {"substance": "green-tea", "session_date": "2026-06-15", "sampling_rate_hz": 2.0,
            "sensor_units": {"sensor_1": "voltage", "sensor_2": "adc"}}  # fmt: skip
    rows = "\n".join(f"{1 + n / 100:.2f},{500 + n}" for n in range(20))
    folder = put(tmp_path, "green-tea_rig_2026-06-15.csv", f"sensor_1,sensor_2\n{rows}\n")
    put(tmp_path, "green-tea_rig_2026-06-15.json", json.dumps(described))
    nose, table = read_folder(folder)
    assert nose.rate == 2 and nose.columns["sensor_1"].unit == "volt"
    assert set(table["substance"]) == {"green-tea"} and set(table["session"]) == {"2026-06-15"}


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_read_or_refused_by_name_and_nothing_else_happens(tmp_path, seed):
    dice = random.Random(seed)
    libsvm = "\n".join(f"{1 + n % 2};10.0 1:{n}.5 2:7 3:{n}" for n in range(9))
    files = {"tea_1.csv": text(), "de_1.csv": text(sep=";", mark=","), "x.bmerawdata": bme(), "batch1.dat": libsvm}
    name = dice.choice(list(files))
    damaged = bytearray(files[name].encode())
    for _ in range(dice.choice([1, 2, 5])):
        start = dice.randrange(len(damaged) + 1)
        end = start + dice.choice([0, 1, 3, 20, 200])
        damaged[start:end] = dice.choice(
            [b"", damaged[start:end] * 2, dice.randbytes(2), b"\n", b",", b"nan", b'"', b"\0"]
        )
    put(tmp_path, name, "")
    (tmp_path / "mine" / name).write_bytes(damaged)
    try:
        assert len(read_folder(tmp_path / "mine")[1])
    except DataError as why:
        assert why.hint and "mine" in why.what


@pytest.mark.parametrize("units", [{"MQ3": "ohms per second"}, {"MQ3": ["adc"]}, ["adc"], "adc?"])
def test_a_unit_that_opensmell_does_not_know_is_refused_by_its_key(tmp_path, nose, units):
    put(tmp_path, "tea_rig_1.json", json.dumps({"substance": "tea", "sensor_units": units}))
    with pytest.raises(DataError, match=r"tea_rig_1.json, key \$.sensor_units.*: expected a known unit"):
        read_folder(put(tmp_path, "tea_rig_1.csv", text()), nose)


# OpenSmell's pairs, and the command line


def test_opensmells_pairs_written_are_read_back_the_same(tmp_path, nose):
    rows = ROWS.copy()
    put(tmp_path, "green tea/01.csv", text(rows))
    rows[:, 0] += 3
    read, table = read_folder(put(tmp_path, "green tea/02.csv", text(rows)), nose)
    assert write_exchange(tmp_path / "out", read, table, device="my rig") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"green-tea_my-rig_unknown{again}.{kind}" for again in ("-2", "") for kind in ("csv", "json")
    ]
    described = json.loads((tmp_path / "out" / "green-tea_my-rig_unknown.json").read_text())
    assert described["sensor_units"] == {"MQ3": "adc", "MQ135": "adc"} and described["sampling_rate_hz"] == 2
    _, back = read_folder(tmp_path / "out", nose)
    columns = list(nose.columns)
    assert sorted(map(tuple, back[columns].to_numpy())) == sorted(map(tuple, table[columns].to_numpy()))
    assert set(back["substance"]) == {"green-tea"}
    with pytest.raises(OptionError, match="is not empty"):
        write_exchange(tmp_path / "out", read, table)


def test_a_gap_is_one_in_opensmells_pairs_too(tmp_path, nose):
    fast = replace(nose, rate=10.0)
    folder = put(tmp_path, "tea/1.csv", text(clock=lambda row: 100 * row + 3_600_000 * (row >= 30)))
    _, table = read_folder(folder, fast)
    write_exchange(tmp_path / "out", fast, table)
    report = Report()
    _, back = read_folder(tmp_path / "out", fast, report=report)
    assert back["MQ3"].tolist() == table["MQ3"].tolist() and back["step"].tolist() == table["step"].tolist()
    assert "gaps in the clock" in report.warnings[0][1]


def test_what_the_json_beside_a_recording_leaves_open_is_no_name_and_no_rate(tmp_path, nose):
    put(tmp_path, "tea/1.json", json.dumps({"substance": None, "sampling_rate_hz": None}))
    _, table = read_folder(put(tmp_path, "tea/1.csv", text()), nose)
    assert set(table["substance"]) == {"tea"}
    put(tmp_path, "tea/1.json", json.dumps({"substance": "tea", "sampling_rate_hz": "10 Hz"}))
    with pytest.raises(DataError, match=r"key \$.sampling_rate_hz: expected rows a second, found '10 Hz'"):
        read_folder(tmp_path / "mine", nose)


@pytest.mark.parametrize("name", ["Höhe", "µV", "日本", "MQ-3", "a.b", "MQ 3"])
def test_a_description_of_columns_in_any_script_is_read_back(tmp_path, name):
    path = put(tmp_path, "tea/1.csv", text(names=f"{name},MQ135,Pressure", clock=None))
    CliRunner().invoke(nose_commands, ["new", str(path)], catch_exceptions=False)
    assert list(noses.load(path).columns) == [name, "MQ135", "Pressure"]


def test_a_rate_that_the_clock_contradicts_is_told_and_the_measured_one_counts(tmp_path, nose):
    folder = put(tmp_path, "tea_rig_1.csv", text())
    put(tmp_path, "tea_rig_1.json", json.dumps({"substance": "tea", "sampling_rate_hz": 2000}))
    report = Report()
    described, _ = read_folder(folder, replace(nose, rate=None), report=report)
    assert described.rate == 2 and "2000 rows a second declared, 2 measured" in report.warnings[0][1]


def test_a_new_description_marks_every_guess_and_is_read_back(tmp_path):
    folder = put(tmp_path, "tea_1.csv", text(names="time_ms,MQ3,MQ135,Pressure (hPa)"))
    done = CliRunner().invoke(nose_commands, ["new", str(folder)], catch_exceptions=False)
    assert "MQ3: unit guessed adc" in done.output
    written = (folder / "nose.toml").read_text()
    assert 'unit = "adc"  # unit guessed adc from 300 to 359: confirm' in written
    assert 'unit = "hectopascal"\n' in written  # the file tells it
    assert read_folder(folder)[0] == noses.load(folder)
    with pytest.raises(OptionError, match="exists already"):
        CliRunner().invoke(nose_commands, ["new", str(folder)], catch_exceptions=False)


def test_noses_are_listed_shown_and_converted(tmp_path, nose):
    run = CliRunner().invoke
    assert "bme688" in run(nose_commands, ["list"]).output
    assert run(nose_commands, ["show", "mq-array"]).output == noses.as_toml(noses.load("mq-array"))
    folder = put(tmp_path, "tea_1.csv", text())
    done = run(
        nose_commands,
        ["convert", str(folder), "--out", str(tmp_path / "pairs"), "--nose", str(tmp_path / "described.toml")],
    )
    assert "1 recordings of described" in done.output


def test_the_check_of_an_own_folder_says_what_was_understood_and_of_another_file_what_to_do(tmp_path):
    folder = put(tmp_path, "tea_1.csv", text())
    put(tmp_path, "air_1.csv", text(ROWS + [1, 1, 0]))
    assert "smellkit nose new" in next(iter(survey.check(folder).skipped.values()))
    (folder / "nose.toml").write_text(NOSE)
    assert survey.check(folder).remarks == ["2 recordings of 2 classes, 2 rows a second, of the nose mine"]


@pytest.fixture
def sample():
    from smellkit import paths

    return paths.sample()


@pytest.mark.parametrize("name", noses.names())
def test_simulated_recordings_of_every_nose_are_read_with_their_days(tmp_path, name):
    nose = noses.load(name)
    how = {"classes": 2, "recordings": 3, "seconds": 20 / (nose.rate or 1), "days": 3}
    read, table = read_folder(write_recordings(tmp_path / "own", nose, **how))
    assert read.name == name and read.rate == (nose.rate or 1) and table["file"].nunique() == 6
    assert sorted(set(table["session"])) == ["2026-03-02", "2026-03-03", "2026-03-04"]
    again = write_recordings(tmp_path / "again", nose, **how)
    assert all(
        file.read_bytes() == (tmp_path / "own" / file.relative_to(again)).read_bytes() for file in again.rglob("*.csv")
    )


def test_rows_without_a_clock_are_taken_at_the_rate_of_the_nose_and_it_is_said_once(tmp_path, nose, caplog):
    report = Report()
    for number in range(3):
        put(tmp_path, f"tea_{number}.csv", text(ROWS + number, names="MQ3,MQ135,Pressure", clock=None))
    read_folder(tmp_path, replace(nose, rate=5.0), report=report)
    assert [what for _, what, _ in report.warnings] == 3 * ["no clock: taken at 5 Hz, as the nose says"]
    assert sum("no clock" in record.getMessage() for record in caplog.records if record.levelname == "WARNING") == 1


def test_smellnets_own_files_have_no_clock_and_say_so_without_a_warning(tmp_path):
    report, path = Report(), next(recordings.find().glob("base/testing/banana/*.csv"))
    read_stretches(path, SMELLNET, columns=GAS, report=report)
    assert [what for _, what, _ in report.notes] == ["no clock: taken at 1 Hz, as the nose says"]
    assert not report.warnings
