"""Public sets of other noses: tiny files of the same layout are read, or refused with what to write where."""

import numpy as np
import pytest

from smellkit import noses
from smellkit.errors import DataError
from smellkit.noses import Column, Description
from smellkit.odour import readers


def rows(count, columns, *, base=10.0, seed=0):
    """Slow walks (count, columns)."""
    return base + np.random.default_rng(seed).normal(0, 0.01, (count, columns)).cumsum(0)


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def joined(values, mark=","):
    return mark.join(f"{value:.4f}" for value in values)


def test_drift_270_is_a_table_of_features(tmp_path):
    values = rows(12, 128)
    lines = [
        f"{1 + i % 6};10.0 " + " ".join(f"{j + 1}:{v:.4f}" for j, v in enumerate(row)) for i, row in enumerate(values)
    ]
    write(tmp_path / "batch1.dat", lines)
    nose, table = readers.read_folder(tmp_path)
    assert nose.features and len(nose.columns) == 128
    assert table["substance"].nunique() == 6 and table["file"].nunique() == 12
    assert np.allclose(table[list(nose.columns)], values, atol=1e-4)


def test_turbulent_309_has_temperature_humidity_and_eight_sensors(tmp_path):
    for seed, name in enumerate(("Et_H_CO_n", "Et_L_Me_H")):
        header = "time,T,H," + ",".join(f"TGS{i}" for i in range(2600, 2608))
        lines = [f"{i * 0.02:.2f}," + joined(row) for i, row in enumerate(rows(60, 10, seed=seed))]
        write(tmp_path / name / f"000_{name}.csv", [header, *lines])
    nose, table = readers.read_folder(tmp_path)
    assert nose.rate == pytest.approx(50) and len(nose.gas) == 8
    assert nose.of(role="temperature") == ("T",) and nose.of(role="humidity") == ("H",)
    assert set(table["substance"]) == {"Et_H_CO_n", "Et_L_Me_H"}


@pytest.mark.parametrize(("first", "columns", "mark"), [("Time (seconds), CO conc (ppm)", 16, " "), ("", 8, "\t")])
def test_rows_without_names_322_and_361_ask_for_them_and_read_with_a_nose(tmp_path, first, columns, mark):
    lines = [mark.join([f"{i * 0.01:.2f}", joined(row, mark)]) for i, row in enumerate(rows(60, columns))]
    write(tmp_path / "ethylene" / "B1_1.txt", [first, *lines] if first else lines)
    with pytest.raises(DataError, match=r"(?s)no header.*names of the columns|nose\.toml"):
        readers.read_folder(tmp_path)
    names = [f"R{i}" for i in range(columns)]
    nose = Description("mine", {name: Column("gas", "none", (-1e3, 1e3)) for name in names}, clock="time")
    named = ["time" + mark + mark.join(names), *lines]
    write(tmp_path / "ethylene" / "B1_1.txt", named)
    described, table = readers.read_folder(tmp_path, nose)
    assert described.rate == pytest.approx(100) and len(table) == 60


def test_home_activity_362_has_blanks_and_a_clock_in_hours(tmp_path):
    header = "id  time       " + "   ".join(f"R{i}" for i in range(1, 9)) + "   Temp.   Humidity"
    lines = [f"0  {-1 + i / 3600:.6f}  {joined(row, '  ')}  26.2  59.0" for i, row in enumerate(rows(80, 8))]
    write(tmp_path / "banana" / "0.dat", [header, *lines])
    nose, table = readers.read_folder(tmp_path)
    assert nose.rate == pytest.approx(1, rel=0.01) and len(nose.gas) == 8 and nose.clock_unit == "hour"
    assert set(table["substance"]) == {"banana"}


def test_low_concentration_1081_is_rows_of_features_and_that_is_told_as_a_guess(tmp_path):
    lines = [f"{name},50," + joined(row) for name in ("ethanol", "acetone") for row in rows(4, 90)]
    write(tmp_path / "gsalc.csv", lines)
    nose, table = readers.read_folder(tmp_path)
    assert nose.features and len(table) == 8 and set(table["substance"]) == {"ethanol", "acetone"}
    assert any("an exposure of its own" in guess for guess in readers.guess(tmp_path)[1])


def test_beef_reads_with_a_nose_that_names_the_sensors_alone(tmp_path):
    names = ["MQ135", "MQ136", "MQ2", "MQ3"]
    lines = [f"{i + 1},3.1,{1 + i // 30}," + joined(row) for i, row in enumerate(rows(60, 4))]
    write(tmp_path / "TS1.csv", ["Minute,TVC,Label," + ",".join(names), *lines])
    text = noses.as_toml(Description("beef", {name: Column("gas", "none", (0, 1e3)) for name in names}, rate=1 / 60))
    write(tmp_path / noses.FILE, [text])
    nose, table = readers.read_folder(tmp_path)
    assert list(nose.columns) == names and set(table["substance"]) == {"1", "2"}
