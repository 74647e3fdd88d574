"""Files as they come from the field: what is refused keeps its place and its remedy, what is forgiven is told."""

import io
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from smellkit import checkpoint, paths
from smellkit.cli import cli
from smellkit.errors import WeightsError

pytestmark = pytest.mark.usefixtures("own_folders")
HEADER = "NO2,C2H5OH,VOC,CO,Alcohol,LPG,Benzene,Temperature,Pressure,Humidity,Gas_Resistance,Altitude"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 40213\n"


@pytest.fixture
def lines(recording):
    return recording.read_text().splitlines()


@pytest.fixture
def answer(predict, tmp_path):
    """What `smellkit predict` says of a file with some content."""

    def run(data, *, name="a.csv", weights="odour"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return predict(tmp_path / "in", weights)

    return run


def zipped(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x" * 50)
    return out.getvalue()


REFUSED = {
    "a banner above": (lambda rows: ["BSEC library 1.4", *rows], "the header is in line 2"),
    "comments above": (lambda rows: ["# bench 2", "# firmware 1.3", *rows], "the header is in line 3"),
    "a line for a spreadsheet": (lambda rows: ["sep=,", *rows], "the header is in line 2"),
    "no header": (lambda rows: rows[1:], "write the names of all 12 columns"),
    "units below": (lambda rows: [rows[0], ",".join(["counts"] * 12), *rows[1:]], "line 2.*delete a row"),
    "the header again": (lambda rows: [*rows[:150], rows[0], *rows[150:]], "line 151.*repeats the header"),
    "a message in between": (lambda rows: [*rows[:99], "[no BME680]", *rows[99:]], "line 100.*a message"),
    "a blank line": (lambda rows: [*rows[:99], "", *rows[99:]], "line 100.*0 fields.*blank"),
    "a lost cell": (lambda rows: [*rows[:99], rows[99].rpartition(",")[0], *rows[100:]], "line 100.*11 fields"),
    "empty rows below": (lambda rows: [*rows, "," * 11, "," * 11], "a row that is empty"),
    "a semicolon": (lambda rows: [row.replace(",", ";") for row in rows], "separated by a comma"),
    "a point between thousands": (
        lambda rows: [rows[0], *("64,88,124,1.092,1,17,0,24.8,1019.3,20.9,267.7,-18.8" for _ in range(99)), *rows[1:]],
        "line 2, column 'CO'.*1.092 for 1092",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_file_keeps_its_place_and_its_remedy(answer, kind, lines, tmp_path):
    change, words = REFUSED[kind]
    code, said = answer("\n".join(change(lines)) + "\n")
    assert code == 1 and not (tmp_path / "out.csv").exists()
    assert re.search(words, said, re.DOTALL)


def test_columns_that_change_places_on_the_way_are_refused(answer, lines):
    rows = [line.split(",") for line in lines[1:]]
    later = [[*row[:2], row[3], row[2], *row[4:]] for row in rows[150:]]
    code, said = answer("\n".join([lines[0], *map(",".join, rows[:150] + later)]))
    assert code == 1 and "line 152" in said and "in another order" in said


def test_a_first_row_that_was_cut_is_dropped_and_told_once(answer, lines, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "bcd":
        (tmp_path / "in" / f"{name}.csv").write_text("\n".join([lines[0], "5,5,5", *lines[1:]]))
    code, said = answer("\n".join(lines))
    assert code == 0 and said.count("truncated first row dropped") == 1 and "3 x" in said
    table = pd.read_csv(tmp_path / "out.csv")
    assert table.groupby("file")["start"].apply(list).to_dict()["b.csv"][:2] == [1, 51]


def test_cells_that_moved_in_columns_that_are_not_used_are_told(answer, lines):
    moved = [",".join([*line.split(",")[:7], *line.split(",")[10:], "", "", ""]) for line in lines[1:]]
    code, said = answer("\n".join([lines[0], *moved]))
    assert code == 0 and "have cells moved?" in said and "line 2" in said


def test_the_other_reasons_stay_with_their_files(answer, lines, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.csv").write_text("\n".join(lines))
    code, said = answer(POINTER)
    assert code == 0 and "left out a.csv" in said and "git lfs pull" in said


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (POINTER, "Git LFS pointer"),
        ("<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
        (zipped(), "empty zip archive"),
        (zipped("a.csv"), "zip archive of 1 files"),
        (zipped("a.csv", "b.csv")[:80], "cut off"),
        (zipped("xl/workbook.xml"), "spreadsheet"),
    ],
)
@pytest.mark.parametrize(("name", "weights"), [("a.csv", "odour"), ("a.csv", "mixture"), ("face_001.parquet", "gcode")])
def test_what_is_no_data_is_named_as_what_it_is(answer, data, words, name, weights):
    code, said = answer(data, name=name, weights=weights)
    assert code == 1 and words in said and name in said


@pytest.mark.parametrize("file", [checkpoint.FILE, checkpoint.MANIFEST])
def test_weights_that_were_not_fetched_are_named_as_what_they_are(file, tmp_path):
    for name in (checkpoint.FILE, checkpoint.MANIFEST):
        (tmp_path / name).write_bytes((checkpoint.find("odour") / name).read_bytes())
    (tmp_path / file).write_text(POINTER)
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_with_their_place(value, tmp_path):
    tensors, manifest = checkpoint.load(checkpoint.find("odour"))
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim == 2)
    tensors[name][1, 2] = value
    checkpoint.save(tmp_path, tensors, manifest)
    with pytest.raises(WeightsError, match=rf"tensor {name}, \(1, 2\)"):
        checkpoint.load(tmp_path)


def test_a_machines_row_with_a_lost_field_is_refused_with_its_line(answer):
    table = pd.read_parquet(paths.sample() / "gcode/face_001.parquet")
    rows = table.to_csv(index=False).splitlines()
    rows[100] = rows[100].replace(",", "", 1)
    code, said = answer("\n".join(rows), name="face_001_aligned.csv", weights="gcode")
    assert code == 1 and "line 101" in said and "fields" in said


def test_the_check_says_of_a_file_in_another_unit_that_the_weights_do_not_know_it(lines, tmp_path):
    table = pd.read_csv(io.StringIO("\n".join(lines)))
    table[["NO2", "C2H5OH", "VOC", "CO"]] *= 3.3 / 1023
    table.to_csv(tmp_path / "a.csv", index=False)
    done = CliRunner().invoke(cli, ["data", "check", str(tmp_path / "a.csv")])
    assert done.exit_code == 0 and "1 files read" in done.output and "volts of 3.3" in done.output
