"""A second machine: seconds in no order, a number that says 2 once a second, whole experiments held out."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smellkit.errors import DataError
from smellkit.study import published
from smellkit.study.gcode import mill

REAL = Path(os.environ.get("SMELLKIT_DATA", "")) / "smart_mill"


@pytest.fixture
def folder(tmp_path):
    """Six experiments of 60 rows: the X current tells the line, and the number says 2 in every tenth row."""
    random = np.random.default_rng(1)
    for number in range(1, 7):
        line = np.repeat([7, 9, 12, 14, 0, 9], 10)
        table = pd.DataFrame(random.normal(0, 0.01, (60, len(mill.AXIS_CHANNELS))), columns=list(mill.AXIS_CHANNELS))
        table["X1_CurrentFeedback"] += line
        table[mill.PROGRAM], table[mill.PROCESS] = 1.0, np.where(line > 9, "end", "Prep")
        table[mill.LINE] = np.where(np.arange(60) % 10 == 0, mill.TICK, line).astype(float)
        table.to_csv(tmp_path / f"experiment_{number:02d}.csv")
    return tmp_path


def test_a_block_is_a_second_and_rows_that_tell_no_line_are_left_out(folder):
    blocks = mill.read(folder)
    assert blocks["line"].tolist() == [7, 9, 12, 14, 9] * 6
    assert set(blocks["process"]) == {"Prep", "End"}


def test_trees_name_the_line_of_an_experiment_that_they_never_saw(folder):
    result = mill.run(folder, seeds=1, trees=10)
    lines = {name: row["whole experiments"]["line"]["value"] for name, row in result["rows"].items()}
    assert lines["trees, drives alone"] > 0.9 and lines["most frequent"] == 0.4
    assert "drives alone" in published.text("smart-mill", result)


def test_what_is_hidden_is_not_seen(folder):
    blocks = mill.read(folder)
    assert mill.columns(blocks, "all").shape[1] == 4 * len(mill.AXIS_CHANNELS) == 176
    assert mill.columns(blocks, "no position").shape[1] == 176 - 4 * 8
    assert mill.columns(blocks, "drives alone").shape[1] == 4 * 20


def test_a_cell_that_is_no_line_is_named_with_its_place(folder):
    file = folder / "experiment_03.csv"
    table = pd.read_csv(file, index_col=0)
    table.loc[4, mill.LINE] = 7.5
    table.to_csv(file)
    with pytest.raises(DataError, match=r"experiment_03\.csv.*6"):
        mill.read(folder)
    file.unlink()
    with pytest.raises(DataError, match="18"):
        mill.read(folder)


@pytest.mark.skipif(not REAL.is_dir(), reason="SMELLKIT_DATA has no smart_mill")
def test_the_tool_jumps_only_where_the_number_says_two():
    table = pd.read_csv(REAL / "experiment_03.csv")
    jumps = np.abs(np.diff(table[["X1_ActualPosition", "Y1_ActualPosition"]], axis=0)).max(axis=1) > 5
    assert jumps.sum() > 100 and (table[mill.LINE].to_numpy()[1:][jumps] == mill.TICK).all()
