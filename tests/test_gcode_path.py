"""Lines of G-code as a path: arcs, distances to the true path, and two texts of one path."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smellkit.study.gcode import path

SQUARE = ["G0 X0. Y0. Z0.", "G1 X1.", "Y1.", "X0.", "Y0."]
ARCS = ["G1 X1.", "G3 X0. Y1. R1.", "G2 X-1. Y0. R1."]


def chords(lines):
    """The same path in straight lines alone."""
    points = np.concatenate(path.draw(lines)) / path.INCH
    return [f"G1 X{x:.4f} Y{y:.4f} Z{z:.4f}" for x, y, z in points]


def test_an_arc_has_its_radius_and_turns_as_told():
    for code, side in (("G3", -1), ("G2", 1)):
        (arc,) = path.draw([f"{code} X1. R0.5"])
        radius = np.linalg.norm(arc[:, :2] - [path.INCH / 2, 0], axis=1)
        assert radius == pytest.approx(np.full(len(arc), path.INCH / 2)) and side * arc[:, 1].sum() > 0


def test_a_square_of_the_same_corners_is_the_same_path_in_any_text():
    merged = ["G1 X0.5", "G0 X1. Y0.", "G1 Y1.", "X0. Y1.", "Y0.5", "Y0."]
    assert path.same(SQUARE, merged) and path.same(merged, SQUARE)


def test_another_order_another_end_and_another_side_are_other_paths():
    assert not path.same(SQUARE, ["X0.", "Y1.", "X1.", "Y0.", "X0."])
    assert not path.same(SQUARE, SQUARE[:-1]) and not path.same(SQUARE[:-1], SQUARE)
    assert not path.same(ARCS, [ARCS[0], "G2 X0. Y1. R1.", ARCS[2]])


def test_arcs_as_chords_and_by_their_centres_are_the_same_path():
    assert path.same(ARCS, chords(ARCS))
    assert path.same(ARCS, ["G1 X1.", "G3 X0. Y1. I-1. J0.", "G2 X-1. Y0. I-1. J0."])


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=6), st.integers(1, 4))
def test_a_line_in_pieces_is_the_same_line_and_is_no_distance_away(corners, pieces):
    whole = [f"X{x}. Y{y}." for x, y in corners]
    points = np.concatenate([[[0, 0]], corners])
    cut = [a + (b - a) * n / pieces for a, b in zip(points[:-1], points[1:], strict=True) for n in range(1, pieces + 1)]
    assert path.same(whole, [f"X{x:.4f} Y{y:.4f}" for x, y in cut])
    assert path.errors(whole, whole)[0] == pytest.approx(np.zeros(len(whole)), abs=1e-6)


def test_a_wrong_number_costs_its_millimetres_where_it_is_drawn():
    off, direction, length = path.errors(SQUARE, [*SQUARE[:2], "Y1.1", *SQUARE[3:]])
    assert off[:2] == pytest.approx([0, 0], abs=1e-6) and off[2:] == pytest.approx([2.54] * 3)
    assert np.nanmax(direction) == pytest.approx(0) and length == pytest.approx(0.05)


def test_a_line_that_was_left_out_is_missed_although_all_that_is_drawn_is_true():
    off, direction, _ = path.errors(SQUARE, [*SQUARE[:3], "Y1.", "X0."])
    assert off[-1] == pytest.approx(path.INCH / 2)  # the middle of the last side is that far from both of its ends
    assert np.isnan(direction[0]) and direction[4] == pytest.approx(90)


def test_measures_are_drawn_recording_by_recording():
    lines = SQUARE + SQUARE
    wrong = [*SQUARE, *SQUARE[:2], "Y1.1", *SQUARE[3:]]
    measures = path.measures(np.repeat(["a", "b"], 5), lines, wrong)
    rows = np.arange(10)
    assert measures["path_worst"](rows) == pytest.approx(2.54) and measures["path_worst"](rows[:5]) < 1e-6
    assert measures["within_2_mm"].tolist() == [True] * 7 + [False] * 3
    assert measures["length"](rows) == pytest.approx(2.5)


def test_lines_in_machine_coordinates_draw_nothing():
    assert [len(move) for move in path.draw(["G1 X1.", "G53 G0 Z0.", "M30"])] == [2, 1, 1]
