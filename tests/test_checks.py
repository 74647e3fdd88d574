"""Tables and documents: what is wrong is refused with its place, what does not matter is read the same."""

import json
import random
import time

import faults
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smellkit.checks import Report, read_json, read_picture, read_texts, read_yaml, readable, tables
from smellkit.errors import DataError, SmellkitError
from smellkit.noses import Column, Description
from smellkit.odour import readers
from smellkit.odour.scents import read_scents

COUNTS = Column("gas", "adc", (0.0, 1023.0))
NOSE = Description("known", {**dict.fromkeys(faults.COLUMNS[:-1], COUNTS),
                             "Temperature": Column("temperature", "celsius", (-40.0, 85.0))}, rate=1.0)  # fmt: skip
HALFWAY = ("short row", "blank line", "not a number")


def read_table(path, *, columns=None, report=None, nose=NOSE):
    """The readings of a nose whose files are known."""
    columns = list(columns or nose.columns)
    return readers.read_rows(path, nose, columns=columns, report=report or Report())[columns]


def write(path, data):
    path.write_bytes(faults.surrogate_safe(data))
    return path


def refusal(tmp_path, data):
    with pytest.raises(DataError) as error:
        read_table(write(tmp_path / "smell.csv", data), columns=["NO2", "CO"])
    return str(error.value)


def test_a_thousand_broken_files_are_each_refused_by_name_within_a_second(tmp_path):
    chance, slowest, seen = random.Random(7), 0.0, set()
    for number in range(1000):
        kind = chance.random()
        if kind < 0.6:
            fault, change = chance.choice(list(faults.REFUSED.items()))
            path, clean = tmp_path / f"table{number}.csv", faults.table(chance)
            data = change(clean, chance)
            while fault in HALFWAY and data.splitlines()[1] != clean.splitlines()[1]:
                data = change(clean, chance)  # a first row that was caught halfway is another matter: it is dropped
            read = lambda path: read_table(path)  # noqa: E731
        elif kind < 0.8:
            fault, change = chance.choice(list(faults.BROKEN_JSON.items()))
            path, data = tmp_path / str(number) / "smell_descriptions.json", change(faults.document(chance), chance)
            path.parent.mkdir()
            read = lambda path: read_scents(path.parent)  # noqa: E731
        else:
            fault, change = chance.choice(list(faults.BROKEN_PICTURES.items()))
            form = chance.choice(["jpeg", "png", "webp", "gif", "avif", "bmp", "tiff"])
            fault, path = f"{fault} {form}", tmp_path / f"picture{number}.{form}"
            data, read = change(faults.picture(chance, form=form), chance), read_picture
        seen.add(fault)
        write(path, data)
        start = time.perf_counter()
        with pytest.raises(SmellkitError) as error:
            read(path)
            pytest.fail(f"{fault} was accepted: {data[:200]!r}")
        slowest = max(slowest, time.perf_counter() - start)
        assert str(path) in str(error.value), fault
        assert "Try: " in str(error.value), fault
    assert slowest < 1.0
    assert set(faults.REFUSED) | set(faults.BROKEN_JSON) <= seen


@pytest.mark.parametrize("change", faults.ACCEPTED)
def test_what_does_not_matter_is_read_the_same(tmp_path, change):
    for seed in range(5):
        clean = faults.table(random.Random(seed))
        expected = read_table(write(tmp_path / "clean.csv", clean))
        changed = faults.ACCEPTED[change](clean, random.Random(seed))
        pd.testing.assert_frame_equal(read_table(write(tmp_path / "other.csv", changed)), expected)


def test_the_table_is_what_pandas_reads(tmp_path):
    path = write(tmp_path / "smell.csv", faults.table(random.Random(1)))
    expected = pd.read_csv(path)[["CO", "NO2", "Temperature"]].astype(float)
    pd.testing.assert_frame_equal(read_table(path, columns=["CO", "NO2", "Temperature"]), expected)


@pytest.mark.parametrize("change", ["as it was", "CRLF", "quoted header", "quoted number"])
def test_a_file_without_a_fault_is_split_at_once_and_never_row_by_row(change, tmp_path, monkeypatch):
    clean = faults.table(random.Random(1), rows=500)
    path = write(tmp_path / "smell.csv", faults.ACCEPTED[change](clean, random.Random(1)))
    monkeypatch.setattr(tables, "_split", None)
    table = read_table(path)
    assert table["CO"].tolist() == [float(line.split(b",")[3]) for line in clean.splitlines()[1:]]


@pytest.mark.parametrize("row", [b'"a ""b""",1,2', b'"a\nb",1,2', b'a"b,1,2', b'a,"1", 2', b'"a,b",1,2', b'"","1","2"'])
def test_quotes_are_read_as_the_standard_has_them(row, tmp_path):
    path = write(tmp_path / "smell.csv", b"note,NO2,CO\n" + row + b"\n")
    expected = pd.read_csv(path, dtype=str, keep_default_na=False).map(str.strip)
    table = read_texts(path, columns=["note", "NO2", "CO"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_others_are_read_when_broken_ones_are_to_be_skipped(tmp_path):
    chance = random.Random(3)
    for number in range(60):
        data = faults.table(chance)
        change = faults.REFUSED[chance.choice(list(faults.REFUSED))] if number % 2 else lambda data, chance: data
        write(tmp_path / f"{number:02d}.csv", change(data, chance))
    report, paths = Report(), sorted(tmp_path.glob("*.csv"))
    tables = dict(readable(paths, lambda path: read_table(path), skip=True, report=report))
    assert [path.name for path in tables] == [f"{number:02d}.csv" for number in range(0, 60, 2)]
    assert (report.files, len(report.skipped)) == (30, 30)
    assert all(path in why for path, why in report.skipped.items())
    with pytest.raises(DataError):
        list(readable(paths, lambda path: read_table(path)))


def test_a_bad_cell_is_named_by_line_and_column(tmp_path):
    assert ", line 3, column 'CO': " in refusal(tmp_path, b"NO2,CO\n1,2\n3,x\n")
    assert ", line 3, column 'NO2': " in refusal(tmp_path, b"NO2,CO\n1,2\n\0,4\n")
    message = refusal(tmp_path, b"NO2,CO\n1,2\n1,nan\n3,\n5,6\n7,inf\n")
    assert ", line 3, column 'CO': " in message
    assert "2 more cells" in message


def test_a_multi_line_cell_does_not_shift_the_line_of_the_next_fault(tmp_path):
    assert "line 4, column 'CO'" in refusal(tmp_path, b'note,NO2,CO\n"two\nlines",1,2\nok,3,x\n')


def test_a_missing_column_comes_with_the_nearest_names(tmp_path):
    assert "CO (near: co)" in refusal(tmp_path, b"NO2,co\n1,2\n")


def test_another_delimiter_is_recognised(tmp_path):
    message = refusal(tmp_path, b"NO2;CO\n1,5;2\n")
    assert "semicolon" in message
    assert "sep=';'" in message
    assert "'\\t'" in refusal(tmp_path, b"NO2,CO\n1,2\n1\t2\n")


def test_a_padded_header_is_trimmed_with_a_warning(tmp_path, caplog):
    report = Report()
    table = read_table(write(tmp_path / "smell.csv", b" NO2 ,CO\n1,2\n"), columns=["NO2"], report=report)
    assert table["NO2"].tolist() == [1.0]
    assert report.counts["header trimmed"] == 1
    assert "trimmed" in caplog.text


def test_an_overflow_of_the_firmware_is_replaced_and_counted(tmp_path):
    report, nose = Report(), Description("known", {"CO": Column("gas", "ppm", (0, 100), overflow=2.0**32 - 1)})
    path = write(tmp_path / "smell.csv", b"CO\n1\n4294967295\n4294967295\n")
    assert read_table(path, nose=nose, report=report)["CO"].tolist() == [1, 100, 100]
    assert list(report.counts.values()) == [2]


@pytest.mark.parametrize("row", [b"7", b"7,", b",", b"7,nan"])
def test_a_first_row_caught_halfway_is_dropped_and_told(tmp_path, row):
    path, report = write(tmp_path / "smell.csv", b"NO2,CO\n" + row + b"\n1,2\n3,4\n"), Report()
    table = read_table(path, columns=["NO2", "CO"], report=report)
    assert table.to_numpy().tolist() == [[1, 2], [3, 4]]
    assert report.counts["truncated first row dropped"] == 1


def test_only_the_first_row_is_dropped(tmp_path):
    assert "line 3, column 'NO2'" in refusal(tmp_path, b"NO2,CO\n7\n,1\n3,4\n")
    assert "line 2: expected 2 fields" in refusal(tmp_path, b"NO2,CO\n1,2,3\n3,4\n")
    assert "header only" in refusal(tmp_path, b"NO2,CO\n7\n")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            read_table(path, columns=["CO"])


def json_refusal(tmp_path, text):
    with pytest.raises(DataError) as error:
        read_json(write(tmp_path / "smell.json", text.encode("utf-8", "surrogatepass")))
    return str(error.value)


def test_a_fault_in_json_is_named_by_its_path_of_keys(tmp_path):
    assert "key $.a.b[1]: " in json_refusal(tmp_path, '{"a": {"b": [1, NaN]}}')
    assert "key $.a.b: expected each key once" in json_refusal(tmp_path, '{"a": {"b": 1, "b": 1}}')
    assert "key $.a[0]: " in json_refusal(tmp_path, r'{"a": ["\ud83d"]}')
    assert "line 2, column '6'" in json_refusal(tmp_path, '{\n"a": }')
    assert "found a list" in json_refusal(tmp_path, "[1]")
    assert "at most 100 levels" in json_refusal(tmp_path, '{"a":' * 150 + "1" + "}" * 150)


def test_a_key_that_comes_twice_in_yaml_is_named_by_its_line(tmp_path):
    with pytest.raises(DataError, match=r"line 3, column '1'.*the key seeds twice"):
        read_yaml(write(tmp_path / "plan.yaml", b"seeds: [1]\ntask: x\nseeds: [2]\n"))
    with pytest.raises(DataError, match=r"line 2, column '10'.*the key a twice"):
        read_yaml(write(tmp_path / "plan.yaml", b"task:\n  {a: 1, a: 2}\n"))


def test_a_pair_of_surrogates_is_a_character(tmp_path):
    assert read_json(write(tmp_path / "smell.json", rb'{"a": "\ud83c\udf4c"}')) == {"a": "🍌"}


def test_a_description_of_a_megabyte_is_cut_and_counted(tmp_path):
    entry = {"id": 1, "name": "banana", "long_description": "ripe and sweet " * 70_000}
    (tmp_path / "smell_descriptions.json").write_text(json.dumps({"odors": [entry]}))
    report = Report()
    assert len(read_scents(tmp_path, report=report)[0].long_description.split()) == 2000
    assert "2000 of 210000 words" in next(iter(report.counts))


def test_a_missing_description_is_named(tmp_path):
    entry = {"id": 1, "name": "banana", "longdescription": "sweet"}
    (tmp_path / "smell_descriptions.json").write_text(json.dumps({"odors": [entry]}))
    with pytest.raises(DataError, match=r"key \$\.odors\[0\] \(banana\)\.long_description.*near: longdescription"):
        read_scents(tmp_path)


CELLS = st.sampled_from(
    ["1", "2.5", "", "nan", "x", "1e999", '"', '"3"', ",", "\n", "\r", "\0", " ", "NO2", "CO", ";", "é", "0x1"]
)
BYTES = st.one_of(st.binary(max_size=80), st.lists(CELLS, max_size=40).map(lambda cells: ",".join(cells).encode()))
QUICK = settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(data=BYTES, header=st.sampled_from([b"", b"NO2,CO\n", b"NO2,CO,note\n"]))
def test_any_bytes_are_a_table_of_numbers_or_refused_by_name(tmp_path, data, header):
    path, low = tmp_path / "any.csv", Description("known", dict.fromkeys(("NO2", "CO"), Column("gas", "none", (0, 9))))
    path.write_bytes(header + data)
    try:
        table = read_table(path, nose=low)
    except DataError as why:
        assert str(path) in str(why)
    else:
        assert list(table.columns) == ["NO2", "CO"]
        assert table.to_numpy().min() >= 0
        assert table.to_numpy().max() <= 9


@QUICK
@given(data=st.one_of(st.binary(max_size=60), st.text(alphabet='{}[]":,1eN\\ud8a. ', max_size=60).map(str.encode)))
def test_any_bytes_are_an_object_or_refused_by_name(tmp_path, data):
    path = tmp_path / "any.json"
    path.write_bytes(data)
    try:
        assert isinstance(read_json(path), dict)
    except DataError as why:
        assert str(path) in str(why)
