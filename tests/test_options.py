"""Options by name: what is accepted, what is refused, and what the refusal says."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smellkit import options
from smellkit.errors import OptionError


@dataclass
class Settings:
    epochs: int = 3
    rate: float = 0.1


def task(*, model: str = "lstm", deep: bool = False, folder: Path | None = None):
    return model, deep, folder


def test_names_find_their_function_and_values_their_type():
    given = {"epochs": "5", "model": "cnn", "deep": "yes", "rate": "1e-3", "folder": "a/b"}
    mine, settings = options.split(given, task, Settings)
    assert mine == {"model": "cnn", "deep": True, "folder": Path("a/b")} and settings == {"epochs": 5, "rate": 0.001}


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(OptionError, match="did you mean epochs"):
        options.split({"epoch": "5"}, task, Settings)


def test_names_set_apart_by_commas_are_all_without_any_and_an_unknown_one_is_refused():
    known = {"gcode-losses": 1, "gcode-parts": 2}
    assert options.listed("", known, what="sweep") == ["gcode-losses", "gcode-parts"]
    assert options.listed(" gcode-parts, ", known, what="sweep") == ["gcode-parts"]
    with pytest.raises(OptionError, match="no sweep 'gcode-loss'"):
        options.listed("gcode-parts,gcode-loss", known, what="sweep")


@pytest.mark.parametrize("name, value", [("epochs", "many"), ("epochs", "2.5"), ("rate", True), ("deep", "maybe")])
def test_a_value_of_another_type_is_refused_by_name(name, value):
    with pytest.raises(OptionError, match=name):
        options.split({name: value}, task, Settings)


def test_a_pair_without_an_equals_sign_is_refused():
    with pytest.raises(OptionError, match="not name=value"):
        options.parse(["epochs"])


@given(st.integers(-(10**12), 10**12))
def test_any_integer_survives_its_text(number):
    assert options.convert(str(number), int, name="n") == number


def test_a_list_for_a_text_option_is_joined():
    assert options.convert(["NO2", "CO"], str, name="sensors") == "NO2,CO"
