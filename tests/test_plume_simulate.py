"""Simulated plumes: physics in numbers, the same scene at every resolution, a sample that the command makes again."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smellkit import paths
from smellkit.cli import cli
from smellkit.errors import DataError, OptionError
from smellkit.plume import CLASSES, GAS, TUBE
from smellkit.plume import annotations as tables
from smellkit.simulate import plume as simulate
from smellkit.simulate import plume_physics as physics
from smellkit.study.plume import data as samples
from smellkit.study.plume import figures, splits, survey

SAMPLE = paths.sample() / "plume"
CO2, CH4 = 0, 1


def scene(number=0, *, ph=6.2, frames=2, wide=False, **changes):
    drawn = physics.scene(ph, frames=frames, random=np.random.default_rng([5, number]), wide=wide)
    return dataclasses.replace(drawn, chosen=drawn.chosen | changes)


def render(drawn, size=(160, 120), seed=1, **options):
    return physics.render(drawn, size=size, random=np.random.default_rng(seed), **options)


def halved(pixels):
    rows, columns = pixels.shape[-2] // 2, pixels.shape[-1] // 2
    return pixels.reshape(*pixels.shape[:-2], rows, 2, columns, 2).astype(float).mean(axis=(-3, -1))


@pytest.mark.parametrize("wide", [False, True])
def test_a_seed_is_the_same_scene_at_every_resolution(wide):
    for number in range(6):
        small, large = (render(scene(number, wide=wide), size=size) for size in ((160, 120), (320, 240)))
        agree = np.array([(a == b[..., ::2, ::2]).mean() for a, b in zip(small.masks, large.masks, strict=True)])
        assert agree.min() > 0.95
        assert small.contrast == pytest.approx(large.contrast, rel=0.02, abs=1e-4)
        seen = (
            np.corrcoef(a.ravel(), halved(b).ravel())[0, 1] for a, b in zip(small.frames, large.frames, strict=True)
        )
        assert min(seen) > (0.5 if wide else 0.8)  # the noise of the pixels is another one


def test_the_same_seed_gives_the_same_pixels_and_another_one_does_not():
    one, same, other = render(scene(1)), render(scene(1)), render(scene(2))
    assert (one.frames == same.frames).all() and (one.masks == same.masks).all()
    assert (one.frames != other.frames).any()
    noise = render(scene(1), seed=2)
    assert (noise.masks == one.masks).all() and (noise.frames != one.frames).any()


def test_one_gas_alone_is_what_it_is_beside_the_other():
    both, alone = render(scene(1)), render(scene(1), gases=("ch4",))
    assert (alone.masks[:, CH4] == both.masks[:, CH4]).all() and not alone.masks[:, CO2].any()
    assert not alone.frames[:, CO2].any()


def test_acid_means_more_carbon_dioxide_and_less_methane():
    carbon, methane = physics.emission(np.array([6.5, 5.9, 5.0])).T
    assert carbon == pytest.approx([-0.3, 0.0, 0.45]) and methane == pytest.approx([0.493, 0, -0.499], abs=1e-3)


def test_emissions_of_vessels_vary_as_specified():
    drawn = physics.emission(np.full(20_000, 5.9), random=np.random.default_rng(1))
    slope = 0.5 * physics.JITTER
    assert drawn[:, CO2].std() == pytest.approx(np.sqrt(0.45**2 + 0.15**2 + slope**2), rel=0.03)
    assert np.corrcoef(drawn.T)[0, 1] > 0.7  # the vessel's factor is shared


def centre(mask):
    """Mean row and column of the gas, in heights from the top left."""
    return np.argwhere(mask == GAS).mean(axis=0) / len(mask)


def test_methane_rises_and_carbon_dioxide_sinks():
    higher = []
    for number in range(12):
        still = scene(number, eddies=0.0, meander=0.0, buoyancy=0.06, tube_angle=0.0, tube_place=0.5, depth=0.02)
        masks = render(dataclasses.replace(still, angles=0 * still.angles), size=(80, 60)).masks[0]
        higher.append(centre(masks[CO2])[0] - centre(masks[CH4])[0])
    assert np.mean(higher) > 0.02 and np.mean(np.array(higher) > 0) > 0.8


def test_twice_the_gas_is_more_contrast_but_less_than_twice():
    drawn = scene(3)
    more = dataclasses.replace(drawn, depth=2 * drawn.depth)
    ratio = render(more).contrast / render(drawn).contrast
    assert (ratio > 1.5).all() and (ratio < 2).all()  # Beer and Lambert: what is opaque can't get more so


def test_gas_as_warm_as_the_wall_can_not_be_seen():
    drawn = dataclasses.replace(scene(3, clutter=0.02, patches=0.0, slope=0.0), kelvin=0.0, panels=np.empty((0, 5)))
    assert not (render(drawn).masks == GAS).any()


def test_gas_colder_than_the_wall_is_darker_and_belongs_to_the_mask_all_the_same():
    drawn = scene(3, slope=0.0, patches=0.0)
    warm, cold = render(drawn), render(dataclasses.replace(drawn, kelvin=-drawn.kelvin))
    both = (warm.masks == GAS) & (cold.masks == GAS)
    assert both.sum() > 500
    assert warm.frames[both].mean() > cold.frames[both].mean() + 5


def test_the_mask_is_the_visible_contrast():
    quiet = scene(4, clutter=0.001)
    loud = scene(4, clutter=0.3)
    assert (render(quiet).masks == GAS).sum() > 1.5 * (render(loud).masks == GAS).sum()


def test_the_tube_is_drawn_where_its_class_says():
    for number in range(5):
        video = render(scene(number, tube_kelvin=1.5, slope=0.0, patches=0.0))
        tube = video.masks == TUBE
        assert 0.002 < tube.mean() < 0.08
        assert video.frames[tube].mean() > video.frames[video.masks == 0].mean() + 20


def test_a_video_moves_little_from_frame_to_frame():
    masks = render(scene(2, frames=9)).masks[:, CH4] == GAS
    near = np.mean([(a ^ b).mean() for a, b in zip(masks[:-1], masks[1:], strict=True)])
    assert 0 < near < (masks[0] ^ masks[-1]).mean()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(lambda shares: sum(shares) > 1), st.integers(0, 500))
def test_quotas_add_up_and_are_near_their_shares(shares, total):
    counts = simulate.quotas(shares, total)
    assert sum(counts) == total and min(counts) >= 0
    assert np.abs(np.array(counts) - total * np.array(shares) / sum(shares)).max() < 1 + 1e-9


def test_the_published_pattern_of_missing_gases_and_classes_is_reproduced():
    plans = pd.DataFrame(simulate.plan(6258, frames=1, shares=(1, 0, 0)))
    assert plans["health"].value_counts().to_dict() == {"Acidotic": 3906, "Healthy": 2121, "Transitional": 231}
    gases = plans["gases"].map("+".join).value_counts().to_dict()
    assert gases == {"co2": 3465, "co2+ch4": 2709, "ch4": 84}
    assert gases["co2"] + gases["co2+ch4"] == 6174 and gases["ch4"] + gases["co2+ch4"] == 2793


@pytest.mark.parametrize("missing", list(simulate.MISSING))
def test_each_split_has_each_class_and_no_video_of_another(missing):
    plans = simulate.plan(240, missing=missing, shares=(70, 15, 15))
    assert sum(video.frames for video in plans) == 240
    table = pd.DataFrame(plans)
    assert table["name"].is_unique
    assert (table.groupby("split")["health"].nunique() == 3).all()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "plume"
    options = ["--pairs", "200", "--size", "96x72", "--frames", "3", "--out", str(folder)]
    done = CliRunner().invoke(cli, ["data", "simulate", "plume", *options])
    assert done.exit_code == 0 and "200 pairs" in done.output
    return folder


def test_the_committed_sample_is_what_the_command_writes(written):
    names = sorted(path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(SAMPLE).as_posix() for path in SAMPLE.rglob("*") if path.is_file())
    for name in names:
        if name.endswith("png"):  # another processor may round a last bit differently
            ours, theirs = (np.asarray(Image.open(folder / name), int) for folder in (SAMPLE, written))
            assert np.mean(ours != theirs) < 0.001, name
        elif name != "emission.csv":
            assert (SAMPLE / name).read_bytes() == (written / name).read_bytes(), name
    ours, theirs = (pd.read_csv(folder / "emission.csv") for folder in (SAMPLE, written))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)


def test_the_sample_is_small_and_whole():
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 2_000_000
    frames = {split: tables.read(SAMPLE, split) for split in tables.splits_in(SAMPLE)}
    pairs = {split: tables.read_pairs(SAMPLE, split) for split in tables.splits_in(SAMPLE, paired=True)}
    assert list(frames) == list(pairs) == ["train", "valid", "test"]
    assert splits.shared_originals(frames) == 0
    counts = tables.statistics(pairs)
    assert counts["pairs"].sum() == 200 and (counts[list(CLASSES)] > 0).all(axis=None)


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path, monkeypatch):
    simulate.write(tmp_path / "one", pairs=5, size=(32, 24))
    with pytest.raises(DataError, match="exists already"):
        simulate.write(tmp_path / "one", pairs=5, size=(32, 24))

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(OSError, match="No space"):
        simulate.write(tmp_path / "two", pairs=5, size=(32, 24))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--size", "160", "160x120"),
        ("--size", "4x4", "16 to 4096"),
        ("--size", "99999x10", "16 to 4096"),
        ("--shares", "70,30", "70,15,15"),
        ("--shares", "0,0,0", "70,15,15"),
        ("--missing", "all", "fume"),
        ("--pairs", "0", "1 or more"),
        ("--variety", "2", "from 0"),
    ],
)
def test_an_option_out_of_range_is_refused_with_an_example(tmp_path, option, value, said):
    done = CliRunner().invoke(cli, ["data", "simulate", "plume", "--out", str(tmp_path / "x"), option, value])
    assert isinstance(done.exception, OptionError) and said in str(done.exception)
    assert not (tmp_path / "x").exists()


def test_a_wide_variety_of_cameras_is_wider_than_the_task():
    assert set(physics.WIDE) == set(physics.STANDARD)
    for name, (low, high) in physics.STANDARD.items():
        assert physics.WIDE[name][0] <= low, name
        assert physics.WIDE[name][1] >= high, name
    drawn = [scene(number, wide=True) for number in range(40)]
    assert {one.edge for one in drawn} == {"left", "right", "top", "bottom"}
    assert 0.05 < np.mean([one.kelvin < 0 for one in drawn]) < 0.5


def test_thresholds_find_what_is_bright_and_a_surface_forgives_a_slope():
    frame = np.full((60, 80), 60, np.uint8)
    frame[20:40, 30:50] = 140
    true = frame == 140
    assert (survey.otsu(frame) == true).all()
    noise = np.random.default_rng(1).normal(0, 2, frame.shape)
    sloped = (frame * 0.5 + noise + np.linspace(0, 90, 80)).astype(np.uint8)
    above = survey.surface(sloped)
    assert (above & true).sum() / (above | true).sum() > 0.65  # its blur reaches a pixel over the edge
    assert (survey.otsu(sloped) & true).sum() / (survey.otsu(sloped) | true).sum() < 0.5


def test_the_task_is_as_hard_as_specified_and_two_gases_tell_more_than_one():
    hard = survey.difficulty(videos=200)
    assert all(0.2 < value < 0.5 for value in hard["iou"].values())
    accuracy = hard["accuracy"]
    assert accuracy["majority"] < accuracy["co2"] < accuracy["ch4"] < accuracy["both"] - 0.04
    assert 0.7 < accuracy["both"] < 0.9 and accuracy["emission"] > 0.93


def test_amounts_are_those_of_the_masks_and_of_the_truth():
    table = survey.amounts("")
    frames = {split: tables.read(SAMPLE, split) for split in tables.splits_in(SAMPLE)}
    assert len(table) == sum(map(len, frames.values())) and table["log_emission"].notna().all()
    assert np.corrcoef(np.log(table["contrast"]), table["log_emission"])[0, 1] > 0.3


def test_amounts_do_without_the_truth_where_it_is_not_known(tmp_path):
    folder = shutil.copytree(SAMPLE, tmp_path / "plume")
    (folder / "emission.csv").unlink()
    table = survey.amounts(folder)
    assert "log_emission" not in table
    assert len(figures.emission(table).axes) == 1


def test_a_figure_shows_every_frame_that_there_is():
    table, pictures, masks = samples.read(SAMPLE, "test", size=(36, 48))
    present = samples.present_in(table)
    figure = figures.frames(pictures[:4], masks[:4], present=present[:4], predicted=masks[:4], titles=["a"] * 4)
    assert sum(bool(axes.images) for axes in figure.axes) == present[:4].sum()
    assert sum(text.get_text() == "no frame" for axes in figure.axes for text in axes.texts) == (~present[:4]).sum()


def test_long_videos_of_any_camera_hold_numbers_to_their_end():
    with np.errstate(all="raise", under="ignore"):
        for number, plan in enumerate(simulate.plan(3 * 40, frames=40, missing="none", variety=1.0)):
            frames = simulate.film(plan, number=number, size=(40, 30), seed=3)[1].frames
            assert frames[-1].std() > 1
