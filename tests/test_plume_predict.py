"""From a folder of frames to masks and classes, through packed weights: sizes, a missing gas, faults with a place."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from smellkit import checkpoint as weights
from smellkit import cli, paths
from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError
from smellkit.plume import GASES, predict
from smellkit.plume.annotations import Rule
from smellkit.study.plume import data as samples
from smellkit.study.plume import release
from smellkit.study.plume import task as tasks
from smellkit.train import Settings, fit

SAMPLE = paths.sample() / "plume"
OPTIONS = {"model": "plumenet", "height": 48, "alpha": "1,1,1", "ph": 0.5}


@pytest.fixture(scope="module", autouse=True)
def own_runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMELLKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def run(own_runs):
    return fit(
        tasks.PlumeTask(**OPTIONS), Settings(epochs=1, batch=32, learning_rate=3e-3), name="small", params=OPTIONS
    )


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    return release.save(run, tmp_path_factory.mktemp("packed"))


@pytest.fixture
def folder(tmp_path):
    """Four pairs: both gases, the two frames of other sizes; CO2 alone; CH4 alone, said in two ways."""
    random = np.random.default_rng(0)
    (tmp_path / "data" / "frames").mkdir(parents=True)
    for name, size in {"a_co2": (60, 80), "a_ch4": (97, 131), "b_co2": (240, 320), "c_ch4": (48, 64)}.items():
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / "data/frames" / f"{name}.png")
    write(tmp_path / "data", ["a_co2,a_ch4,", "b_co2,,ch4", ",c_ch4,co2", "a_co2,c_ch4,co2"])
    return tmp_path / "data"


def many(folder, count):
    """`count` CO2 frames 00, 01, ... without a partner."""
    (folder / "frames").mkdir(parents=True)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (count, 48, 64), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / "frames" / f"{number:02d}.png")
    write(folder, [f"{number:02d},,ch4" for number in range(count)])
    return folder


def write(folder, rows):
    lines = []
    for row in rows:
        co2, ch4, gone = row.split(",")
        lines.append(",".join([*(f"frames/{name}.png" if name else "" for name in (co2, ch4)), gone]))
    write_paths(folder, lines)


def write_paths(folder, rows):
    lines = ["co2_frame,ch4_frame,missing_modality", *rows]
    (folder / "paired_test_annotations.csv").write_text("\n".join(lines) + "\n")


def files(folder):
    """Name -> content of every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def read(out):
    with (Path(out) / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_frame_gets_a_mask_of_its_own_size_and_every_pair_a_row(folder, packed, tmp_path):
    predict.plume(folder, weights=packed, out=tmp_path / "out")
    rows = read(tmp_path / "out")
    assert tuple(rows[0]) == predict.COLUMNS and len(rows) == 4
    for row in rows:
        for gas in ("co2", "ch4"):
            assert bool(row[f"{gas}_frame"]) == bool(row[f"{gas}_mask"])
            if row[f"{gas}_mask"]:
                mask = Image.open(tmp_path / "out" / row[f"{gas}_mask"])
                assert mask.size == Image.open(folder / row[f"{gas}_frame"]).size and mask.mode == "L"
                assert set(np.unique(mask)) <= {0, 1, 2}
        probabilities = [float(row[f"p{number}"]) for number in range(3)]
        assert sum(probabilities) == pytest.approx(1, abs=2e-4) and int(row["class"]) == int(np.argmax(probabilities))
    assert [bool(row["co2_frame"]) for row in rows] == [True, True, False, False]


def test_a_frame_that_is_said_to_be_missing_is_not_looked_at(folder, packed, tmp_path):
    predict.plume(folder, weights=packed, out=tmp_path / "out")
    third, fourth = read(tmp_path / "out")[2:]
    assert [third[f"p{number}"] for number in range(3)] == [fourth[f"p{number}"] for number in range(3)]


def test_the_files_say_what_the_model_says_of_the_same_pairs(run, packed, tmp_path):
    pairs = samples.paired(SAMPLE, "test", size=(72, 96))
    model = release.from_run(run).model
    model.mirrored = True  # as what ships
    with torch.no_grad():
        outputs = model(pairs.__getitems__(range(len(pairs))))
    predict.plume(SAMPLE, weights=packed, out=tmp_path / "out", split="test")
    for number, row in enumerate(read(tmp_path / "out")):
        assert int(row["class"]) == int(outputs["class_logits"][number].argmax())
        for gas in ("co2", "ch4"):
            if row[f"{gas}_mask"]:
                mask = np.asarray(Image.open(tmp_path / "out" / row[f"{gas}_mask"]))
                assert (mask == outputs[f"{gas}_logits"][number].argmax(dim=0).numpy()).mean() > 0.999


def test_mirrored_frames_are_looked_at_unless_that_is_not_wanted(packed, tmp_path):
    seen = {}
    for mirrored in (True, False):
        predict.plume(SAMPLE, weights=packed, out=tmp_path / f"{mirrored}", split="test", mirrored=mirrored)
        seen[mirrored] = read(tmp_path / f"{mirrored}")
    assert [row["p0"] for row in seen[True]] != [row["p0"] for row in seen[False]]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("nothing_co2,,ch4", ["line 2", "co2_frame", "nothing_co2.png"]),
        ("../../a_co2,,ch4", ["line 2", "co2_frame", "a path below this folder"]),
        (",,", ["line 2", "a frame of one gas"]),
        ("a_co2,a_ch4,oxygen", ["line 2", "missing_modality", "oxygen"]),
    ],
)
def test_a_fault_in_the_annotations_is_named_with_its_place(folder, packed, tmp_path, row, words):
    write(folder, [row])
    with pytest.raises(DataError) as error:
        predict.plume(folder, weights=packed, out=tmp_path / "out")
    assert all(word in str(error.value) for word in ["paired_test_annotations.csv", *words])
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_damaged_frame_is_named_and_no_table_is_left(folder, packed, tmp_path):
    (folder / "frames" / "b_co2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(SmellkitError, match="b_co2"):
        predict.plume(folder, weights=packed, out=tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_nothing_is_left_when_a_later_frame_is_damaged(packed, tmp_path):
    folder = many(tmp_path / "data", 20)
    (folder / "frames" / "18.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(SmellkitError, match=r"18\.png"):
        predict.plume(folder, weights=packed, out=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_an_earlier_prediction_is_replaced_only_when_all_is_done_and_other_files_stay(packed, tmp_path):
    folder, out = many(tmp_path / "data", 20), tmp_path / "out"
    predict.plume(folder, weights=packed, out=out)
    (out / "notes.txt").write_text("mine")
    before = files(out)
    assert len(before) == 22
    whole = (folder / "frames" / "18.png").read_bytes()
    (folder / "frames" / "18.png").write_bytes(whole[:50])
    with pytest.raises(SmellkitError, match=r"18\.png"):
        predict.plume(folder, weights=packed, out=out)
    assert files(out) == before
    write(folder, ["03,,ch4"])
    predict.plume(folder, weights=packed, out=out)
    assert set(files(out)) == {"notes.txt", "predictions.csv", "masks/frames/03.png"} and len(read(out)) == 1


def test_masks_stay_with_their_table_when_the_table_is_held_fast(folder, packed, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict.plume(folder, weights=packed, out=out)
    before = files(out)

    def held(self, target):
        raise PermissionError(f"{target} is open elsewhere")

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(PermissionError):
        predict.plume(folder, weights=packed, out=out)
    assert files(out) == before


def test_an_interrupted_exchange_loses_no_mask(folder, packed, tmp_path, monkeypatch):
    predict.plume(folder, weights=packed, out=tmp_path / "out")
    before = files(tmp_path / "out")

    def interrupted(path, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        predict.plume(folder, weights=packed, out=tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_one_file_as_the_frame_of_both_gases_is_refused(folder, packed, tmp_path):
    write(folder, ["a_co2,a_ch4,", "a_co2,a_co2,"])
    with pytest.raises(DataError, match="line 3, column 'ch4_frame': expected another frame than that of CO2"):
        predict.plume(folder, weights=packed, out=tmp_path / "out")


def test_frames_of_other_numbers_are_refused_and_none_are_answered_with_none(packed):
    predictor, frame = predict.PlumePredictor.load(packed), np.full((48, 64), 128, np.uint8)
    assert predictor.predict([]) == []
    for other in (frame / 255, frame.astype(np.uint16), np.dstack([frame] * 3), frame[:0]):
        with pytest.raises(DataError, match="uint8"):
            predictor.predict([(other, None)])


def test_the_folder_of_the_frames_is_not_written_into(folder, packed, tmp_path):
    truth = folder / "masks" / "frames" / "a_co2.png"
    truth.parent.mkdir(parents=True)
    truth.write_bytes(b"the true mask")
    before = files(folder)
    for out in (folder, folder / "frames" / ".."):
        with pytest.raises(OptionError, match="would overwrite"):
            predict.plume(folder, weights=packed, out=out)
    assert files(folder) == before
    folder.rename(tmp_path / "masks")
    with pytest.raises(OptionError, match="would overwrite"):
        predict.plume(tmp_path / "masks", weights=packed, out=tmp_path)
    assert files(tmp_path / "masks") == before


def test_files_that_no_prediction_has_written_are_not_replaced(folder, packed, tmp_path):
    for name in ("masks/mine.png", "masks", "predictions.csv"):
        mine = tmp_path / name.replace("/", "-") / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        with pytest.raises(OptionError, match="another folder"):
            predict.plume(folder, weights=packed, out=tmp_path / name.replace("/", "-"))
        assert mine.read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(folder, packed, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OptionError, match="is a file"):
            predict.plume(folder, weights=packed, out=out)


def test_two_frames_that_differ_in_their_ending_get_two_masks(packed, tmp_path):
    folder = many(tmp_path / "data", 2)
    Image.new("L", (80, 48)).save(folder / "frames" / "00.bmp")
    write_paths(folder, ["frames/00.png,frames/00.bmp,", "frames/01.png,,ch4"])
    predict.plume(folder, weights=packed, out=tmp_path / "out")
    one, two = read(tmp_path / "out")
    assert two["co2_mask"] == "masks/frames/01.png"
    sizes = [Image.open(tmp_path / "out" / one[f"{gas}_mask"]).size for gas in ("co2", "ch4")]
    assert sizes == [(64, 48), (80, 48)]


def test_a_frame_in_several_pairs_keeps_what_is_seen_in_each(packed, tmp_path):
    folder = many(tmp_path / "data", 3)
    write(folder, ["00,01,", "00,02,", "00,,ch4"])
    predict.plume(folder, weights=packed, out=tmp_path / "out")
    rows = read(tmp_path / "out")
    assert [row["co2_mask"] for row in rows] == [f"masks/frames/00_{number}_co2.png" for number in (1, 2, 3)]
    assert [row["ch4_mask"] for row in rows] == ["masks/frames/01.png", "masks/frames/02.png", ""]
    predictor = predict.PlumePredictor.load(packed)
    for row in rows:
        frames = [
            Rule(folder).read_frame(folder / row[f"{gas}_frame"]) if row[f"{gas}_frame"] else None for gas in GASES
        ]
        mask = np.asarray(Image.open(tmp_path / "out" / row["co2_mask"]))
        assert (mask == predictor.predict([(frames[0], frames[1])])[0].masks[0]).mean() > 0.999


def test_names_of_masks_are_changed_only_where_they_would_be_the_same():
    asked = [("f/a.png", "f/a.bmp"), ("f/b.png", "g/a.png"), ("f/A.tif", ""), ("f/a_1_co2.png", "f/c.v1.png")]
    names = predict.mask_names(asked)
    assert names[0] == ("masks/f/a_1_co2_.png", "masks/f/a_1_ch4.png")
    assert names[1] == ("masks/f/b.png", "masks/g/a.png")
    assert names[2] == ("masks/f/A_3_co2.png", "")
    assert names[3] == ("masks/f/a_1_co2.png", "masks/f/c.v1.png")


def test_a_folder_without_pairs_and_an_unknown_split_are_refused(packed, tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "val_annotations.csv").touch()
    with pytest.raises(DataError, match="paired_val_annotations.csv\n.*smellkit data pair"):
        predict.plume(tmp_path / "alone", weights=packed, out=tmp_path / "out")
    with pytest.raises(DataError, match="No annotations .train_annotations"):
        predict.plume(tmp_path, weights=packed, out=tmp_path / "out")
    with pytest.raises(OptionError, match="did you mean test"):
        predict.plume(SAMPLE, weights=packed, out=tmp_path / "out", split="tset")


def test_weights_of_another_kind_are_refused(packed, tmp_path):
    tensors, manifest = weights.load(packed)
    other = {key: value for key, value in manifest.items() if key != "sha256"}
    for change in ({"classes": ["one", "two", "three"]}, {"model": "fuem"}, {"size": "wide"}, {"model": "fume"}):
        weights.save(tmp_path / "w", tensors, other | change)
        with pytest.raises(WeightsError):
            predict.PlumePredictor.load(tmp_path / "w")


def test_weights_are_those_of_the_kit_or_of_a_folder_wherever_it_lies(packed, monkeypatch):
    monkeypatch.chdir(Path(packed).parent)
    assert weights.find(Path(packed).name) == Path(Path(packed).name)
    assert weights.find("plume") == paths.weights() / "plume"
    with pytest.raises(WeightsError, match="plume"):
        weights.find("plmue")


def test_only_a_model_with_a_name_can_be_packed(run, tmp_path):
    options = OPTIONS | {"model": "fume", "shared": False}
    other = fit(tasks.PlumeTask(**options), Settings(epochs=1, batch=64), name="separate", params=options)
    with pytest.raises(WeightsError, match="variant"):
        release.save(other, tmp_path)


def test_the_command_writes_the_table(folder, packed, tmp_path):
    asked = ["predict", str(folder), "--weights", str(packed), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.cli, asked, catch_exceptions=False)
    assert result.exit_code == 0 and "4 pairs" in result.output and (tmp_path / "out" / "predictions.csv").is_file()


def test_the_onnx_file_agrees_with_torch(packed, tmp_path):
    pytest.importorskip("onnxscript")
    assert "agrees with torch" in predict.onnx(packed, out=tmp_path / "plume.onnx")


@pytest.mark.skipif(not (paths.weights() / "plume").is_dir(), reason="no weights yet")
def test_the_weights_of_the_kit_are_small_and_find_the_plumes_of_the_sample(tmp_path):
    folder = paths.weights() / "plume"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
    predict.plume(SAMPLE, weights=folder, out=tmp_path / "out", split="test")
    same = []
    for row in read(tmp_path / "out"):
        for gas in ("co2", "ch4"):
            if row[f"{gas}_frame"]:
                name = Path(row[f"{gas}_frame"]).name
                mask, true = (
                    np.asarray(Image.open(p / "masks" / q))
                    for p, q in ((tmp_path / "out", f"frames/{name}"), (SAMPLE, name))
                )
                same.append(((mask == 2) & (true == 2)).sum() / max(((mask == 2) | (true == 2)).sum(), 1))
    assert np.mean(same) > 0.5
