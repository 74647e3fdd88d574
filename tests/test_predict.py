"""Predicting folders: the right columns, honest probabilities, and a reason for whatever is left out."""

import csv
import shutil
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from smellkit import checkpoint as weights
from smellkit import paths
from smellkit.cli import cli
from smellkit.errors import DataError, WeightsError, WriteError
from smellkit.odour import predict
from smellkit.odour.confidence import Confidence, Thresholds
from smellkit.odour.encoder import make
from smellkit.odour.export import example
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.recordings import SENSORS
from smellkit.odour.smell import SubstanceSmell, load_smell
from smellkit.odour.windows import Protocol

HEADER = "file,window,start,top1,top2,top3,top4,top5,p1,p2,p3,p4,p5"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of a small network that has learnt nothing: reading and writing need no more."""
    folder = tmp_path_factory.mktemp("weights")
    protocol = Protocol()
    torch.manual_seed(0)
    network = make("summary-mlp", (protocol.steps, 6), classes=8)
    network.prepare(torch.from_numpy(protocol.represent(example(protocol, windows=64).numpy())))
    manifest = {
        "kind": "odour",
        "model": "summary-mlp",
        "protocol": asdict(protocol),
        "classes": [f"smell {i}" for i in range(8)],
        "calibration": Confidence(2.0, 0.9, Thresholds(0.1, 0.95)).asdict(),
    }
    return weights.save(folder, network.state_dict(), manifest)


def recording(path, rows=300, columns=SENSORS, seed=0):
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = random.integers(40, 60, (rows, len(columns)))
    path.write_text(",".join(columns) + "\n" + "\n".join(",".join(map(str, row)) for row in values) + "\n")
    return path


def test_every_window_and_the_recording_get_a_row(trained, tmp_path):
    recording(tmp_path / "in" / "nuts" / "deep" / "a.csv")
    recording(tmp_path / "in" / "b.CSV", rows=125, seed=1)
    said = predict.odour(tmp_path / "in", weights=trained, out=tmp_path / "out.csv")
    assert "2 without a clock: taken at 1 Hz" in said
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == HEADER
    rows = list(csv.DictReader(lines))
    assert [(r["file"], r["window"], r["start"]) for r in rows] == [
        ("b.CSV", "0", "0"), ("b.CSV", "-1", "0"),
        *[("nuts/deep/a.csv", str(i), str(50 * i)) for i in range(4)], ("nuts/deep/a.csv", "-1", "0"),
    ]  # fmt: skip
    for row in rows:
        p = [float(row[f"p{i}"]) for i in range(1, 6)]
        assert p == sorted(p, reverse=True) and 0 < sum(p) <= 1.0001
        assert len({row[f"top{i}"] for i in range(1, 6)}) == 5
    assert "5 windows of 2 recordings" in said


def test_predictions_beside_the_recordings_are_no_recording_the_next_time_and_a_folder_is_no_file(trained, tmp_path):
    recording(tmp_path / "in" / "a.csv")
    first = predict.odour(tmp_path / "in", weights=trained, out=tmp_path / "in" / "out.csv")
    assert predict.odour(tmp_path / "in", weights=trained, out=tmp_path / "in" / "out.csv") == first
    for system in (predict.odour, predict.mixture, predict.fusion):
        with pytest.raises(WriteError, match="Is a directory"):
            system(tmp_path / "in", weights=trained, out=tmp_path)


def test_a_file_called_like_a_formula_is_text_in_a_spreadsheet(trained, tmp_path):
    recording(tmp_path / "in" / "=cmd.csv", rows=125)
    predict.odour(tmp_path / "in", weights=trained, out=tmp_path / "out.csv")
    files = [row["file"] for row in csv.DictReader((tmp_path / "out.csv").read_text().splitlines())]
    assert set(files) == {"'=cmd.csv"}


@pytest.mark.skipif(sys.platform != "linux", reason="names there are any bytes")
@pytest.mark.parametrize("name", ["odour", "mixture", "fusion"])
def test_a_name_in_latin_1_is_written_as_text(tmp_path, name):
    place = "base/testing" if name == "odour" else "mixture/test_seen"
    file = min((paths.sample() / "smellnet" / place).rglob("*.csv"))
    shutil.copy(file, tmp_path / "caf\udce9.csv")
    (tmp_path / "th\udce9.csv").write_text("nothing")
    skip = [] if name == "odour" else ["--set", "skip=true"]
    words = ["predict", str(tmp_path), "--weights", name, "--out", str(tmp_path / "named.txt"), *skip]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0 and r"th\udce9.csv" in done.output
    with (tmp_path / "named.txt").open(encoding="utf-8") as table:
        assert {row["file"] for row in csv.DictReader(table)} == {r"caf\udce9.csv"}


def test_an_answer_may_be_none(trained, tmp_path):
    recording(tmp_path / "a.csv")
    predict.odour(tmp_path / "a.csv", weights=trained, out=tmp_path / "out.csv", answer=True)
    assert {row["answer"] for row in csv.DictReader((tmp_path / "out.csv").open())} <= {
        "abstain", *(f"smell {i}" for i in range(8))
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\x00\x01\x02", "a.csv"),
        (b"NO2,C2H5OH\n1,2\n", "VOC"),
        ((",".join(SENSORS) + "\n" + ("5," * 11 + "5\n") * 60).encode(), "fewer than the 125"),
        ((",".join(SENSORS) + "\n" + ("5," * 11 + "5\n") * 200 + "nan," * 11 + "1\n").encode(), "line 202"),
    ],
)
def test_a_bad_file_is_left_out_with_a_reason(trained, tmp_path, content, why):
    folder = tmp_path / "in"
    recording(folder / "good.csv")
    (folder / "a.csv").write_bytes(content)
    said = predict.odour(folder, weights=trained, out=tmp_path / "out.csv")
    assert "left out a.csv" in said and why in said
    assert {row["file"] for row in csv.DictReader((tmp_path / "out.csv").open())} == {"good.csv"}


def test_a_truncated_first_line_is_dropped(trained, tmp_path):
    whole = recording(tmp_path / "whole.csv", rows=126)
    lines = whole.read_text().splitlines()
    broken = tmp_path / "broken.csv"
    broken.write_text("\n".join([lines[0], ",,,,,5,5,5,5,5,5,5", *lines[1:]]) + "\n")
    for path in (whole, broken):
        predict.odour(path, weights=trained, out=path.with_suffix(".out"))
    first, second = (list(csv.DictReader(p.with_suffix(".out").open())) for p in (whole, broken))
    assert [r["p1"] for r in first] == [r["p1"] for r in second]


def test_nothing_to_predict_is_an_error_and_leaves_no_file(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("nothing")
    for source in (tmp_path / "empty", tmp_path / "absent", tmp_path / "bad.csv"):
        with pytest.raises(DataError):
            predict.odour(source, weights=trained, out=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("place", ["folder", "file/out.csv"])
@pytest.mark.parametrize("name", ["odour", "mixture", "fusion"])
def test_a_place_that_can_not_be_written_is_refused_before_anything_is_read(tmp_path, name, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    function, folder = getattr(predict, name), weights.find(name)
    with pytest.raises(WriteError, match="Can't write"):
        function(tmp_path / "nowhere", weights=folder, out=tmp_path / place)


def test_a_manifest_that_says_too_little_is_refused(trained, tmp_path):
    tensors, _ = weights.load(trained)
    weights.save(tmp_path, tensors, {"kind": "odour"})
    with pytest.raises(WeightsError, match="does not describe"):
        SubstanceSmell.load(tmp_path)


@pytest.mark.parametrize("temperature", [0, -1, "warm"])
def test_a_temperature_that_would_turn_answers_round_is_refused(trained, tmp_path, temperature):
    shutil.copytree(trained, tmp_path / "weights")
    manifest = weights.manifest(trained)
    manifest["calibration"]["temperature"] = temperature
    paths.write_json(tmp_path / "weights" / "manifest.json", manifest)
    with pytest.raises(WeightsError, match="manifest.json"):
        SubstanceSmell.load(tmp_path / "weights")


def test_the_command_line_predicts_with_the_shipped_weights(tmp_path):
    if not (paths.weights() / "odour").is_dir():
        pytest.skip("no data/weights/odour here")

    folder = paths.sample() / "smellnet" / "base" / "testing" / "banana"
    done = CliRunner().invoke(cli, ["predict", str(folder), "--weights", "odour", "--out", str(tmp_path / "o.csv")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "o.csv").read_text().startswith(HEADER + ",category,p_category")
    smell = load_smell()
    assert smell.channels(smell.windows(np.full((200, 6), 50.0))).shape == (2, 50)


def food(sums, least=0.8):
    """A smell of six substances of three categories, whose windows all have the probabilities `sums`."""
    confidence = Confidence(thresholds=Thresholds(0.1, 0.95), category_least=least)
    smell = SubstanceSmell(None, Protocol(), ("almond", "pecans", "walnuts", "mint", "garlic", "apple"), confidence)
    return smell, np.asarray(sums)


def test_a_category_is_named_with_the_sum_of_its_substances():
    smell, p = food([0.3, 0.3, 0.3, 0.05, 0.03, 0.02])
    assert smell.category(p) == ("nuts", pytest.approx(0.9))
    assert SubstanceSmell(None, Protocol(), ("smell 1", "smell 2"), Confidence()).category(np.array([0.9, 0.1])) == (
        "",
        0,
    )


def test_a_category_that_is_sure_is_told_where_no_substance_is():
    smell, p = food([0.31, 0.3, 0.3, 0.05, 0.03, 0.01])
    answer = Pipeline(smell).judge(p)
    assert (answer.reason, answer.category) == ("not sure which of the nuts", "nuts")
    assert answer.category_confidence == pytest.approx(0.91)
    unsure, p = food([0.3, 0.1, 0.1, 0.25, 0.05, 0.2], least=0.8)
    assert Pipeline(unsure).judge(p, 1.0).reason != "not sure which of the nuts"


def test_where_no_substance_is_sure_the_few_that_it_may_be_are_told():
    smell, p = food([0.41, 0.4, 0.1, 0.05, 0.03, 0.01])
    few = replace(smell, confidence=replace(smell.confidence, quantile=0.7))
    answer = Pipeline(few).judge(p)
    assert answer.among == ("almond", "pecans") and answer.reason == "not sure: almond or pecans"
    many = Pipeline(replace(smell, confidence=replace(smell.confidence, quantile=0.99))).judge(p)
    assert len(many.among) == 5 and many.reason == "not sure which of the nuts"


def test_a_longer_recording_is_surer_where_its_calibration_says_so(tmp_path):
    smell, path = load_smell(), recording(tmp_path / "a.csv")
    flat, sharp = (replace(smell, ranges=None, confidence=replace(smell.confidence, pooling=a)) for a in (0.0, 0.5))
    (*once, first), (*again, second) = (predict.recording_rows("a.csv", path, one) for one in (flat, sharp))
    assert len(once) > 1 and once == again  # a window alone is as sure as before
    assert second[8] > first[8]  # the likeliest of the whole recording


def test_the_answer_of_a_recording_may_be_its_category(tmp_path):
    smell = load_smell()
    flat = replace(smell.confidence, thresholds=Thresholds(1.0, 0.0), category_least=0.0)
    smell = replace(smell, confidence=flat, ranges=None)
    rows = predict.recording_rows("a.csv", recording(tmp_path / "a.csv"), smell)
    assert {row[-1] for row in rows} <= {"nuts", "spices", "herbs", "fruits", "vegetables"}
    assert all(row[-1] == row[-3] and 0.2 <= row[-2] <= 1 for row in rows)
