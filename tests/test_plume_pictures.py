"""One rule for the pictures of a folder: depth, false colours, turns, and what the values of masks mean."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from smellkit import paths
from smellkit.checks import Report
from smellkit.cli import cli
from smellkit.errors import DataError
from smellkit.plume import annotations
from smellkit.study.plume import data

HEADER = "co2_frame,co2_mask,ch4_frame,ch4_mask,ph_value,class_id,class_name,is_paired,missing_modality"


@pytest.fixture
def folder(tmp_path):
    """Three CO2 frames of the sample with their masks, as pairs of the test split."""
    sample = paths.sample() / "plume"
    table = pd.read_csv(sample / "paired_test_annotations.csv", dtype=str, keep_default_na=False)
    rows = table[table["co2_frame"] != ""].head(3)
    lines = [HEADER]
    for place, row in enumerate(rows.itertuples()):
        for kind, name in (("frames", row.co2_frame), ("masks", row.co2_mask)):
            (tmp_path / kind).mkdir(exist_ok=True)
            shutil.copy(sample / name, tmp_path / kind / f"{place}.png")
        lines.append(f"frames/{place}.png,masks/{place}.png,,,{row.ph_value},{row.class_id},{row.class_name},False,ch4")
    (tmp_path / "paired_test_annotations.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def change(folder, kind, how):
    for path in sorted((folder / kind).glob("*.png")):
        picture = how(np.asarray(Image.open(path)))
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path)


def read(folder, report=None):
    return data.read(folder, "test", size=(72, 96), report=report)[1:]


@pytest.mark.parametrize(("low", "step"), [(28815, 10), (0, 64), (100, 3)])
def test_deep_frames_are_stretched_over_the_range_of_their_folder(folder, low, step):
    pixels = [np.asarray(Image.open(path)) for path in sorted((folder / "frames").glob("*.png"))]
    ends = min(p.min() for p in pixels), max(p.max() for p in pixels)
    change(folder, "frames", lambda grey: (low + step * grey.astype(np.uint16)).astype(np.uint16))
    report = Report()
    frames, _ = read(folder, report)
    expected = [np.round((p.astype(float) - ends[0]) * 255 / (ends[1] - ends[0])) for p in pixels]
    np.testing.assert_allclose(frames[:, 0], expected, atol=1)
    assert "stretched over the folder's range" in str(report)


def test_a_dead_pixel_does_not_squash_a_folder(folder):
    change(folder, "frames", lambda grey: 30000 + 10 * grey.astype(np.uint16))
    before, _ = read(folder)
    path = folder / "frames/0.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0], pixels[0, 1] = 0, 65535
    Image.fromarray(pixels).save(path)
    after, _ = read(folder)
    assert (before != after).sum() <= 2


def test_frames_of_two_depths_in_one_folder_are_refused(folder):
    path = folder / "frames/1.png"
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(path)
    with pytest.raises(DataError, match=r"1\.png.*8 bits"):
        read(folder)


def test_false_colours_are_refused(folder):
    palette = Image.open(folder / "frames/0.png").convert("P")
    palette.putpalette([channel for level in range(256) for channel in (level, 255 - level, 120)])
    palette.save(folder / "frames/0.png")
    with pytest.raises(DataError, match="colours"):
        read(folder)


def test_masks_of_0_and_1_alone_are_asked_about(folder):
    frames, before = read(folder)
    change(folder, "masks", lambda mask: (mask == 2).astype(np.uint8))
    with pytest.raises(DataError, match="--mask-values"):
        read(folder)
    done = CliRunner().invoke(cli, ["data", "check", str(folder)])
    assert done.exit_code == 1 and "--mask-values" in done.output
    done = CliRunner().invoke(cli, ["data", "check", str(folder), "--mask-values", "0=background,1=gas"])
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(read(folder)[1], np.where(before == 2, 2, 0))


def test_a_mask_without_gas_is_read_as_the_others_of_its_folder(folder):
    path = folder / "masks/0.png"
    tube = (np.asarray(Image.open(path)) == 1).astype(np.uint8)
    Image.fromarray(tube).save(path)
    np.testing.assert_array_equal(read(folder)[1][0, 0], tube)


def test_masks_that_mean_different_things_in_one_folder_are_refused(folder):
    path = folder / "masks/1.png"
    Image.fromarray(np.asarray(Image.open(path)) * np.uint8(127)).save(path)
    with pytest.raises(DataError, match=r"masks.1\.png.*as all masks"):
        read(folder)


@pytest.mark.parametrize("text", ["0=air", "0", "300=gas", "0=gas,0=tube"])
def test_a_meaning_that_says_nothing_is_refused(folder, text):
    done = CliRunner().invoke(cli, ["data", "check", str(folder), "--mask-values", text])
    assert done.exit_code == 1 and "0=background,1=tube,2=gas" in str(done.exception)


def turned(path: Path, turn: int, *, stored: bool):
    """Store the upright picture as a camera would that was held `turn`, EXIF included."""
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[turn]
    picture = Image.open(path)
    picture.load()
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = picture.transpose(back)
    picture.save(path, exif=exif) if stored else picture.save(path)


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_frame_and_mask_are_turned_alike(folder, turn):
    frames, masks = read(folder)
    for kind in ("frames", "masks"):
        turned(folder / kind / "0.png", turn, stored=True)
    again = read(folder)
    np.testing.assert_array_equal(again[0], frames)
    np.testing.assert_array_equal(again[1], masks)


@pytest.mark.parametrize("turn", [6, 8])
def test_a_mask_without_a_turn_of_its_own_follows_its_frame(folder, turn):
    frames, masks = read(folder)
    turned(folder / "frames/0.png", turn, stored=True)
    np.testing.assert_array_equal(read(folder)[1], masks)  # drawn on the upright frame
    turned(folder / "masks/0.png", turn, stored=False)
    np.testing.assert_array_equal(read(folder)[1], masks)  # drawn on the stored pixels


def test_a_half_turn_that_the_mask_does_not_say_is_refused(folder):
    turned(folder / "frames/0.png", 3, stored=True)
    with pytest.raises(DataError, match="EXIF"):
        read(folder)


def test_the_check_says_which_levels_and_classes_there_are(folder):
    done = CliRunner().invoke(cli, ["data", "check", str(folder)])
    assert done.exit_code == 0 and "grey levels, from" in done.output and "% background" in done.output
    assert annotations.Rule.of(folder).scale is None
