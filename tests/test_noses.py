"""A nose is a description: shipped ones have names, an owner's is a TOML file, and a wrong one says which key."""

from dataclasses import replace

import pytest

from smellkit import noses
from smellkit.device.board import Board
from smellkit.device.enose import Nose
from smellkit.errors import DataError, WeightsError
from smellkit.odour.live import Recogniser, sniff
from smellkit.odour.pipeline import Pipeline
from smellkit.sensors import ENVIRONMENT, GAS, GROVE, PPM, SENSORS

MINE = """
rate = 5
[columns.MQ3]
role = "gas"
unit = "adc"
span = [0, 1023]
fault = [-1]
[columns.P]
role = "pressure"
unit = "hectopascal"
span = [300, 1100]
"""


@pytest.mark.parametrize("name", noses.names())
def test_a_shipped_nose_comes_back_from_a_manifest_and_from_toml(name, tmp_path):
    nose = noses.load(name)
    assert noses.Description.from_dict(nose.to_dict()) == nose
    (tmp_path / f"{name}.toml").write_text(noses.as_toml(nose))
    assert noses.load(tmp_path / f"{name}.toml") == nose


def test_smellnets_columns_are_those_of_its_description():
    assert GAS == (*GROVE, "Alcohol", "LPG") == SENSORS[:6]
    assert SENSORS[4:7] == PPM and ENVIRONMENT[0] == "Temperature" and len(SENSORS) == 12
    assert noses.load("smellnet").columns["Alcohol"].overflow == 2**32 - 1


def test_a_folder_with_a_nose_toml_is_a_nose_of_that_name(tmp_path):
    folder = tmp_path / "my-nose"
    folder.mkdir()
    (folder / noses.FILE).write_text(MINE)
    nose = noses.load(folder)
    assert (nose.name, nose.gas, nose.rate) == ("my-nose", ("MQ3",), 5)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("rate = 5", "rate = 0", "key rate: expected rows a second"),
        ("rate = 5", "speed = 5", "key speed: expected one of name, columns, rate"),
        ("rate = 5", "clock_unit = 'fortnight'", "key clock_unit: expected one of second"),
        ('unit = "adc"', 'unit = "counts"', "key columns.MQ3.unit: expected one of adc, volt"),
        ('role = "gas"', "", "key columns.MQ3.role: expected one of gas.*found nothing"),
        ("[0, 1023]", "[1023, 0]", r"key columns.MQ3.span: expected \[lowest, highest\]"),
        ("[-1]", "-1", "key columns.MQ3.fault: expected a list"),
        ('role = "gas"', 'role = "other"', "key columns: expected at least one column of role"),
        ("rate = 5", "rate =", "not valid TOML"),
        ("rate = 5", "rate = true", "key rate: expected rows a second"),
        ("rate = 5", "baud = 'fast'", "key baud: expected the speed"),
        ("rate = 5", "clock = 7", "key clock: expected the name of a column"),
        ("fault = [-1]", "overflow = 'much'", "key columns.MQ3.overflow: expected a number"),
        ("fault = [-1]", "also = 'MQ-3'", "key columns.MQ3.also: expected a list of names"),
    ],
)
def test_a_wrong_description_names_its_key(tmp_path, old, new, place):
    file = tmp_path / "nose.toml"
    file.write_text(MINE.replace(old, new))
    with pytest.raises(DataError, match=place):
        noses.load(file)


def test_an_unknown_nose_is_refused_with_those_near():
    with pytest.raises(DataError, match=r"no nose 'bme689'(.|\n)*bme688"):
        noses.load("bme689")


def test_the_first_difference_between_two_noses_is_named_and_order_is_none(tmp_path):
    (tmp_path / "nose.toml").write_text(MINE)
    mine = noses.load(tmp_path)

    def other(old, new):
        (tmp_path / "nose.toml").write_text(MINE.replace(old, new))
        return noses.difference(mine, noses.load(tmp_path))

    assert other("", "") is None
    assert "no column MQ3" in other("MQ3", "MQ5")
    assert "MQ3 of" in other('unit = "adc"', 'unit = "volt"') and "in volt" in other('unit = "adc"', 'unit = "volt"')
    assert "counts to 4095" in other("[0, 1023]", "[0, 4095]")
    assert "10 rows a second" in other("rate = 5", "rate = 10")
    assert noses.difference(mine, noses.load("smellnet")).startswith("smellnet has no column MQ3")


def test_another_unit_is_named_with_its_factor(tmp_path):
    (tmp_path / "nose.toml").write_text(MINE)
    columns = noses.load(tmp_path).columns
    assert "pascal: multiply by 0.01" in columns["P"].explain([101325.0])
    assert "a 12-bit converter: multiply by 0.2498" in columns["MQ3"].explain([2210.0])
    assert columns["P"].explain([1e9]) == ""


def test_weights_from_before_descriptions_know_smellnets_boards():
    assert noses.of_manifest({"kind": "odour"}).name == "smellnet"
    assert noses.of_manifest({"kind": "mixture"}).rate == 10
    assert noses.of_manifest({"kind": "gcode"}) is None


def test_a_nose_with_its_columns_in_another_order_is_listened_to_by_their_names():
    nose, listening = noses.load("smellnet"), Recogniser(Pipeline.load())
    listening.listen(replace(nose, columns=dict(reversed(nose.columns.items()))))
    row = dict(zip(nose.columns, range(12), strict=True))
    listening.add([row[name] for name in reversed(nose.columns)])
    assert listening._rows[0] == [row[name] for name in listening.pipeline.smell.columns]


def test_weights_refuse_the_rows_of_another_nose_by_the_first_difference():
    with Board(nose="mq-array", rate=100) as board, Nose(board.port, nose="mq-array") as nose:
        listening = Recogniser(Pipeline.load())
        with pytest.raises(WeightsError, match="another nose: mq-array has no column NO2"):
            sniff(nose, listening)
