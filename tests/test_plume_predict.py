"""From a folder of frames to masks and classes, through packed weights: sizes, a missing gas, faults with a place."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from smellkit import cli, paths, weights
from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError
from smellkit.plume import bench, export, predict, samples, shipping, tasks
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
    return fit(tasks.plume(**OPTIONS), Settings(epochs=1, batch=32, learning_rate=3e-3), name="small", params=OPTIONS)


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    return shipping.pack(run, tmp_path_factory.mktemp("packed"))


@pytest.fixture
def folder(tmp_path):
    """Four pairs: both gases, the two frames of other sizes; CO2 alone; CH4 alone, said in two ways."""
    random = np.random.default_rng(0)
    (tmp_path / "data" / "frames").mkdir(parents=True)
    for name, size in {"a_co2": (60, 80), "a_ch4": (97, 131), "b_co2": (240, 320), "c_ch4": (48, 64)}.items():
        Image.fromarray(random.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / "data/frames" / f"{name}.png")
    write(tmp_path / "data", ["a_co2,a_ch4,", "b_co2,,ch4", ",c_ch4,co2", "a_co2,c_ch4,co2"])
    return tmp_path / "data"


def write(folder, rows):
    lines = ["co2_frame,ch4_frame,missing_modality"]
    for row in rows:
        co2, ch4, gone = row.split(",")
        lines.append(",".join([*(f"frames/{name}.png" if name else "" for name in (co2, ch4)), gone]))
    (folder / "paired_test_annotations.csv").write_text("\n".join(lines) + "\n")


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
        chances = [float(row[f"p{number}"]) for number in range(3)]
        assert sum(chances) == pytest.approx(1, abs=2e-4) and int(row["class"]) == int(np.argmax(chances))
    assert [bool(row["co2_frame"]) for row in rows] == [True, True, False, False]


def test_a_frame_that_is_said_to_be_missing_is_not_looked_at(folder, packed, tmp_path):
    predict.plume(folder, weights=packed, out=tmp_path / "out")
    third, fourth = read(tmp_path / "out")[2:]
    assert [third[f"p{number}"] for number in range(3)] == [fourth[f"p{number}"] for number in range(3)]


def test_the_files_say_what_the_model_says_of_the_same_pairs(run, packed, tmp_path):
    pairs = samples.paired(SAMPLE, "test", size=(72, 96))
    with torch.no_grad():
        outputs = bench.model_of(run)(pairs.__getitems__(range(len(pairs))))
    predict.plume(SAMPLE, weights=packed, out=tmp_path / "out", split="test")
    for number, row in enumerate(read(tmp_path / "out")):
        assert int(row["class"]) == int(outputs["class_logits"][number].argmax())
        for gas in ("co2", "ch4"):
            if row[f"{gas}_mask"]:
                mask = np.asarray(Image.open(tmp_path / "out" / row[f"{gas}_mask"]))
                assert (mask == outputs[f"{gas}_logits"][number].argmax(dim=0).numpy()).mean() > 0.999


def test_averaging_over_views_changes_little(folder, packed, tmp_path):
    predict.plume(folder, weights=packed, out=tmp_path / "one")
    predict.plume(folder, weights=packed, out=tmp_path / "three", steady=True)
    one, three = read(tmp_path / "one"), read(tmp_path / "three")
    assert one != three
    assert all(abs(float(a["p0"]) - float(b["p0"])) < 0.5 for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("nothing_co2,,ch4", ["line 2", "co2_frame", "nothing_co2.png"]),
        ("../../a_co2,,ch4", ["line 2", "co2_frame", "leaves the folder"]),
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


def test_a_folder_without_pairs_and_an_unknown_split_are_refused(packed, tmp_path):
    with pytest.raises(DataError, match="paired_train_annotations"):
        predict.plume(tmp_path, weights=packed, out=tmp_path / "out")
    with pytest.raises(OptionError, match="train"):
        predict.plume(SAMPLE, weights=packed, out=tmp_path / "out", split="tset")


def test_weights_of_another_kind_are_refused(packed, tmp_path):
    tensors, manifest = weights.load(packed)
    other = {key: value for key, value in manifest.items() if key != "sha256"}
    for change in ({"classes": ["one", "two", "three"]}, {"model": "fuem"}, {"size": "wide"}, {"model": "fume"}):
        weights.save(tmp_path / "w", tensors, other | change)
        with pytest.raises(WeightsError):
            shipping.unpack(tmp_path / "w")


def test_only_a_model_with_a_name_can_be_packed(run, tmp_path):
    options = OPTIONS | {"uncertainty": True}
    other = fit(tasks.plume(**options), Settings(epochs=1, batch=64), name="uncertain", params=options)
    with pytest.raises(WeightsError, match="variant"):
        shipping.pack(other, tmp_path)


def test_the_command_writes_the_table(folder, packed, tmp_path):
    asked = ["predict", str(folder), "--weights", str(packed), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.cli, asked, catch_exceptions=False)
    assert result.exit_code == 0 and "4 pairs" in result.output and (tmp_path / "out" / "predictions.csv").is_file()


def test_the_onnx_file_agrees_with_torch(packed, tmp_path):
    pytest.importorskip("onnxscript")
    assert "agrees with torch" in export.plume(packed, out=tmp_path / "plume.onnx")


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
