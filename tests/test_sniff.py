"""`smellkit sniff`: a recording, a picture and a sentence, or a folder of all three, to a played scent."""

import json
import shutil

import pandas as pd
import pytest
from click.testing import CliRunner

from smellkit import paths
from smellkit.cli import cli
from smellkit.device.errors import PortLost
from smellkit.device.neckwear import NeckWear
from smellkit.odour import live
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.scents import SCENTS, list_pictures

FOLDER = paths.sample() / "scents"


def sniff(*arguments):
    return CliRunner().invoke(cli, ["sniff", *map(str, arguments)])


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.fit()


@pytest.fixture
def three(tmp_path):
    """Three odours of the twelve-scent layout."""
    for name in ("banana", "garlic", "mango"):
        for part in ("smell_data", "images"):
            shutil.copytree(FOLDER / part / name, tmp_path / "scents" / part / name)
    described = json.loads((FOLDER / "smell_descriptions.json").read_text())
    kept = [one for one in described["odors"] if one["name"] in ("banana", "garlic", "mango")]
    text = json.dumps({"odors": [{**one, "id": number} for number, one in enumerate(kept, 1)]})
    (tmp_path / "scents" / "smell_descriptions.json").write_text(text)
    return tmp_path / "scents"


def test_one_line_of_the_shell_recognises_plays_and_keeps_a_line_of_json(tmp_path):
    picture = list_pictures().query("scent == 'garlic'")["file"].iloc[0]
    done = sniff(
        "--picture", picture, "--text", "pungent bulb", "--play", "virtual", "--seconds", 0.3, "--json", tmp_path / "o"
    )
    assert done.exit_code == 0, done.output
    (line,) = map(json.loads, (tmp_path / "o").read_text().splitlines())
    assert line["name"] == line["played"] == "garlic" and line["error"] == ""
    assert list(line["beta"]) == list(SCENTS) and abs(sum(line["beta"].values()) - 1) < 1e-6
    assert "picture" in done.output and "trust" in done.output


def test_nothing_to_sniff_is_refused():
    assert "Nothing to recognise" in str(sniff().exception or sniff().output)


@pytest.mark.parametrize(
    "content, word",
    [(b"<!DOCTYPE html><html>", "picture"), (b"version https://git-lfs.github.com/spec/v1\n", "picture")],
)
def test_a_picture_that_is_none_is_refused_by_file_and_sense(tmp_path, content, word):
    (tmp_path / "pear.jpg").write_bytes(content)
    done = sniff("--picture", tmp_path / "pear.jpg")
    assert done.exit_code == 1
    said = str(done.exception) + done.output
    assert "picture" in said and "pear.jpg" in said


def test_a_text_of_a_megabyte_is_refused():
    with pytest.raises(Exception, match="text.*1,000,000 characters"):
        Pipeline.load()(text="a" * 1_000_000)


def test_a_folder_is_sniffed_odour_by_odour_and_goes_on_where_it_stopped(three, tmp_path, pipeline):
    items = live.read_items(three)
    assert [item.name.split("/")[0] for item in items] == ["banana", "mango", "garlic"]
    assert all(item.picture and item.text for item in items)
    log = tmp_path / "log.jsonl"
    first = list(live.run(pipeline, items[:1], log=log))
    assert first[0]["name"] == "banana"
    with log.open("a") as file:
        file.write('{"item": "mango/')  # the power went away in the middle of a line
    rest = list(live.run(pipeline, items, log=log))
    assert [line["item"] for line in rest] == [item.name for item in items[1:]]


def test_what_can_not_be_read_is_left_out_with_its_reason_and_the_loop_goes_on(three, tmp_path, pipeline):
    shutil.rmtree(three / "smell_data" / "banana")
    next((three / "images" / "mango").iterdir()).write_bytes(b"<html>no picture</html>")
    lines = list(live.run(pipeline, live.read_items(three), log=tmp_path / "log"))
    assert "no recordings" in lines[0]["error"] and lines[0]["item"] == "banana"
    assert "picture" in lines[1]["error"] or lines[1]["name"] == "mango"
    assert lines[2]["name"] == "garlic" and not lines[2]["error"]


def test_a_port_that_goes_away_is_opened_again_and_the_scent_is_played(three, pipeline):
    opened = []

    def player():
        neck = NeckWear.open("virtual")
        if not opened:
            neck.virtual.unplug()
        opened.append(neck)
        return neck

    (line,) = live.run(pipeline, live.read_items(three)[:1], player=player, seconds=0.2)
    assert line["played"] == "banana" and len(opened) == 2


def test_a_port_that_stays_away_is_an_error_and_the_loop_goes_on(three, pipeline):
    def player():
        raise PortLost("The port went away", port="COM9")

    lines = list(live.run(pipeline, live.read_items(three), player=player, seconds=0.2))
    assert len(lines) == 3 and all("COM9" in line["error"] and line["name"] for line in lines)


def test_a_recording_of_another_unit_is_left_out_of_the_fusion_and_said(tmp_path):
    file = next(FOLDER.glob("smell_data/garlic/*.csv"))
    table = pd.read_csv(file)
    table[["NO2", "C2H5OH", "VOC", "CO"]] *= 3.3 / 1023  # volts in columns of counts
    table.to_csv(tmp_path / "volts.csv", index=False)
    alone = sniff(tmp_path / "volts.csv")
    assert alone.exit_code == 0 and "outside what these weights know" in alone.output and "volts" in alone.output
    beside = sniff(tmp_path / "volts.csv", "--text", "a bulb of garlic", "--json", tmp_path / "out.jsonl")
    (line,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert line["name"] == "garlic" and line["evidence"]["smell"]["trust"] == 0
    assert "left out: outside" in beside.output


def test_a_folder_brings_its_own_pictures_and_texts(three):
    done = sniff(three, "--text", "a banana")
    assert done.exit_code == 1 and "beside a folder" in str(done.exception)


def test_items_of_the_same_name_in_another_folder_are_others(three, tmp_path, pipeline):
    log = tmp_path / "log.jsonl"
    assert len(list(live.run(pipeline, live.read_items(three)[:1], log=log))) == 1
    other = shutil.copytree(three, tmp_path / "other")
    assert len(list(live.run(pipeline, live.read_items(other)[:1], log=log))) == 1
    assert not list(live.run(pipeline, live.read_items(three)[:1], log=log))
    assert len(log.read_text().splitlines()) == 2


def test_after_a_port_that_stayed_away_the_next_item_is_played(three, pipeline):
    opened = []

    def player():
        neck = NeckWear.open("virtual")
        opened.append(neck)
        if len(opened) <= live.TRIES:
            neck.virtual.unplug()
        return neck

    first, second, _ = live.run(pipeline, live.read_items(three), player=player, seconds=0.2)
    assert first["error"] and not first["played"]
    assert second["played"] == "mango" and not second["error"]


def test_a_line_that_was_cut_does_not_swallow_the_next(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"item": "mango/')
    live.append(log, {"item": "garlic", "recording": "a.csv", "error": ""})
    assert live.finished(log) == {("garlic", "a.csv")}


def test_a_log_with_damaged_bytes_still_tells_what_is_done_and_a_folder_is_no_log(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'\xff\xfe{"item\n{"item": "garlic", "recording": "a.csv", "error": ""}\n')
    assert live.finished(log) == {("garlic", "a.csv")}
    told = CliRunner().invoke(cli, ["sniff", "--text", "garlic", "--json", str(tmp_path)])
    assert told.exit_code == 2 and "is a directory" in told.output
