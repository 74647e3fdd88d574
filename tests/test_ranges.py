"""What weights know: another unit, a dead channel or a squashed picture is refused with its reason, never answered."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from smellkit import Pipeline, checkpoint, paths
from smellkit.checks.ranges import Ranges, outside
from smellkit.errors import WeightsError
from smellkit.gcode import recordings as machine
from smellkit.odour.live import Recogniser
from smellkit.odour.recordings import SENSORS, read_recordings
from smellkit.odour.smell import board_ranges
from smellkit.sensors import GROVE

pytestmark = pytest.mark.usefixtures("own_folders")
SAMPLE = paths.sample() / "smellnet"
RANGES = {
    name: Ranges.of(checkpoint.manifest(checkpoint.find(name))) for name in ("odour", "mixture", "gcode", "plume")
}


def test_every_manifest_of_the_kit_holds_ranges():
    for name, ranges in RANGES.items():
        assert ranges is not None and np.isfinite(ranges.low).all() and (ranges.high >= ranges.low).all(), name
        assert (ranges.activity >= 0).all()


def test_weights_without_ranges_are_read_and_broken_ranges_are_refused(tmp_path):
    tensors, manifest = checkpoint.load(checkpoint.find("odour"))
    del manifest["ranges"]
    assert Ranges.of(manifest) is None and outside(np.zeros((9, 6)), None) == ""
    with pytest.raises(WeightsError, match="ranges"):
        Ranges.of({"ranges": {"channels": {"CO": {"low": "far"}}, "groups": {}, "strict": True}})


def test_ranges_survive_their_manifest():
    for ranges in RANGES.values():
        again = Ranges.of(json.loads(json.dumps({"ranges": ranges.asdict()})))
        assert again.asdict() == ranges.asdict()


UNITS = {
    "volts": (3.3 / 1023, "volts of 3.3, so multiply by 310"),
    "volts of 5": (5 / 1023, "volts of 5, so multiply by 204.6"),
    "per cent": (100 / 1023, "per cent of full scale"),
    "shares": (1 / 1023, "shares of full scale, so multiply by 1023"),
    "12 bits": (4095 / 1023, "12-bit converter"),
    "16 bits": (65535 / 1023, "16-bit converter"),
}


@pytest.mark.parametrize("unit", UNITS)
def test_counts_in_another_unit_are_refused_with_the_factor(unit, board, predict, tmp_path):
    factor, words = UNITS[unit]
    table = board.copy()
    table[list(GROVE)] = table[list(GROVE)] * factor
    table.to_csv(tmp_path / "a.csv", index=False)
    code, said = predict(tmp_path / "a.csv")
    assert code == 1 and not (tmp_path / "out.csv").exists() and words in said


def test_a_point_between_thousands_is_recognised(board):
    values = board[list(RANGES["odour"].names)].to_numpy(float)
    values[:, 3] = 1.003
    assert "point between thousands" in outside(values, RANGES["odour"])


@pytest.mark.parametrize("level", [0, 1023, None])
def test_a_dead_channel_is_refused_by_name(board, level, predict, tmp_path):
    table = pd.concat([board] * 2, ignore_index=True)
    table["VOC"] = table["VOC"][0] if level is None else level
    table.to_csv(tmp_path / "a.csv", index=False)
    code, said = predict(tmp_path / "a.csv")
    assert code == 1 and "VOC" in said


def test_a_stuck_environment_sensor_is_outside_for_weights_that_look_at_it(board):
    table = read_recordings(None, "training")
    ranges = board_ranges(table, SENSORS)
    table = pd.concat([board] * 2, ignore_index=True)
    assert outside(table[list(SENSORS)].to_numpy(), ranges) == ""
    table[["Pressure", "Humidity"]] = 688.6, 100.0
    assert "Pressure" in outside(table[list(SENSORS)].to_numpy(), ranges)


def test_the_other_files_of_a_folder_are_still_answered(board, predict, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    board.to_csv(folder / "good.csv", index=False)
    board.assign(CO=board["CO"] / 310).to_csv(folder / "bad.csv", index=False)
    code, said = predict(folder)
    assert code == 0 and "left out bad.csv" in said and "outside what these weights" in said
    assert set(pd.read_csv(tmp_path / "out.csv")["file"]) == {"good.csv"}


def test_a_mixture_in_volts_is_refused(predict, tmp_path):
    file = sorted((SAMPLE / "mixture/test_seen").glob("*.csv"))[0]
    table = pd.read_csv(file)
    (table * [1, *[3.3 / 1023] * 4]).to_csv(tmp_path / "a.csv", index=False)
    code, said = predict(tmp_path, "mixture")
    assert code == 1 and "volts of 3.3" in said


def test_a_live_board_of_12_bits_is_answered_outside_and_nothing_may_be_played(board):
    recogniser = Recogniser(Pipeline.load("odour"))
    answers = [
        recogniser.add(row) for row in board.assign(**{n: 4 * board[n] for n in GROVE}).to_numpy()[:140].tolist()
    ]
    answer = next(filter(None, answers))
    assert answer.abstains and "outside what these weights know" in answer.reason and answer.mixture_reason
    recogniser.restart()
    answers = [recogniser.add(row) for row in board.to_numpy()[:140].tolist()]
    assert "outside" not in next(filter(None, answers)).reason


def test_the_pipeline_answers_outside_with_its_reason(board, tmp_path):
    board.assign(**{name: board[name] / 310 for name in GROVE}).to_csv(tmp_path / "a.csv", index=False)
    answer = Pipeline.load("odour")(tmp_path / "a.csv")
    assert answer.abstains and "volts of 3.3" in answer.reason and answer.name == ""


GROUPS = {
    "accelerometer": (9.80665, "m/s²"),
    "gyroscope": (np.pi / 180, "rad/s"),
    "position": (1 / 25.4, "inches"),
    "pressure": (10, "hPa"),
    "current": (1000, "mA"),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_channels_of_a_machine_in_another_unit_are_named(kind):
    table = machine.read(None)
    names = list(machine.CONTINUOUS)
    unit = list(map(machine.modality, names))
    parts = [rows[names].to_numpy(float) for _, rows in table.groupby("recording")]
    ranges = Ranges.measure(parts, names=names, unit=unit, strict=False)
    factor, words = GROUPS[kind]
    own = np.array(unit) == kind
    for part in parts[:6]:
        assert outside(part, ranges) == ""
        other = part.copy()
        other[:, own] *= factor
        assert words in outside(other, ranges)


def test_a_frame_squashed_into_a_few_grey_levels_is_refused(predict, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    source = sorted((paths.sample() / "plume/frames").glob("*co2*"))[0]
    grey = np.asarray(Image.open(source).convert("L"), float)
    Image.fromarray((112 + grey / 28).astype(np.uint8)).save(frames / "a.png")
    text = "co2_frame,ch4_frame,missing_modality\nframes/a.png,,ch4\n"
    (tmp_path / "paired_test_annotations.csv").write_text(text)
    code, said = predict(tmp_path, "plume")
    assert code == 1 and "contrast" in said


@pytest.mark.parametrize("name", ["odour", "mixture", "gcode", "plume"])
def test_the_sample_lies_within_what_the_weights_know(name, predict):
    folder = {"odour": SAMPLE / "base", "mixture": SAMPLE / "mixture"}.get(name, paths.sample() / name)
    code, said = predict(folder, name)
    assert code == 0 and "outside" not in said and "Forgiven" not in said
