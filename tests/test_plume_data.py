"""Annotations to batches: no frame is lost or repeated, a missing gas is blank and marked, faults have a place."""

import random
import shutil
from pathlib import Path

import faults as mutations
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smellkit import paths
from smellkit.checks import Report
from smellkit.cli import cli
from smellkit.errors import DataError, OptionError
from smellkit.plume import CLASSES, GASES
from smellkit.plume import annotations as tables
from smellkit.plume.annotations import COLUMNS, VIDEO
from smellkit.simulate import plume as simulate
from smellkit.study.plume import baselines, splits, survey
from smellkit.study.plume import data as samples
from smellkit.study.plume.masks import MaskRule
from smellkit.study.plume.splits import PAIRINGS
from smellkit.task import Task
from smellkit.train import Settings, fit

SAMPLE = paths.sample() / "plume"
PH = {6.5: 0, 6.2: 0, 5.9: 1, 5.6: 2, 5.3: 2}


@pytest.fixture
def folder(tmp_path):
    """A copy of the sample that may be damaged."""
    return shutil.copytree(SAMPLE, tmp_path / "plume")


@pytest.fixture
def only_pairs(folder):
    """A copy of the sample with its pairs, but without the annotations of single frames."""
    for split in tables.SPLITS:
        tables.annotation_file(folder, split).unlink()
    return folder


def files_in(pairs) -> set[str]:
    """The frames of a table of pairs."""
    return {*pairs["co2_frame"], *pairs["ch4_frame"]} - {""}


def videos_in(pairs) -> set[str]:
    """The videos of the sample that a table of pairs has frames of."""
    return {Path(name).name[:5] for name in files_in(pairs)}


def frames_of(rows) -> pd.DataFrame:
    """A table of annotations from (gas, pH, original, augmentation), of which each original is a video."""
    return pd.DataFrame(
        [
            (f"f/{gas}-{o}-{a}.png", f"m/{gas}-{o}-{a}.png", gas, ph, PH[ph], CLASSES[PH[ph]], f"o{o}", a, f"v{o}", a)
            for gas, ph, o, a in rows
        ],
        columns=[*COLUMNS, *VIDEO],
    )


ROWS = st.lists(
    st.tuples(st.sampled_from(GASES), st.sampled_from(sorted(PH)), st.integers(0, 8), st.integers(0, 3)),
    unique_by=lambda row: (row[0], row[2], row[3]),
    max_size=60,
)


@given(ROWS, st.sampled_from(sorted(PAIRINGS)), st.integers(0, 3))
def test_every_frame_is_in_exactly_one_pair_of_its_own_ph(rows, how, seed):
    table = frames_of(rows)
    pairs = splits.pair(table, how, seed=seed)
    for gas in GASES:
        there = pairs[pairs["missing_modality"] != gas]
        frames = table[table["gas_type"] == gas].set_index("frame_path")
        assert sorted(there[f"{gas}_frame"]) == sorted(frames.index)
        assert (there["ph_value"].to_numpy() == frames.loc[there[f"{gas}_frame"], "ph_value"].to_numpy()).all()
        assert (there[f"{gas}_mask"].str.removeprefix("m") == there[f"{gas}_frame"].str.removeprefix("f")).all()
        assert (pairs.loc[pairs["missing_modality"] == gas, [f"{gas}_frame", f"{gas}_mask"]] == "").all(axis=None)


@given(ROWS, st.integers(0, 3))
def test_random_pairing_makes_as_many_pairs_as_the_rarer_gas_has_frames(rows, seed):
    table = frames_of(rows)
    count = table.groupby(["ph_value", "gas_type"]).size().unstack(fill_value=0).reindex(columns=GASES, fill_value=0)
    assert splits.pair(table, "random", seed=seed)["is_paired"].sum() == count.min(axis=1).sum()


@given(ROWS)
def test_pairs_by_original_are_of_one_moment(rows):
    pairs = splits.pair(frames_of(rows))
    both = pairs[pairs["is_paired"]]
    assert (both["co2_frame"].str.removeprefix("f/co2") == both["ch4_frame"].str.removeprefix("f/ch4")).all()


@given(ROWS, st.integers(0, 3))
def test_grouped_splits_share_no_original_and_lose_no_frame(rows, seed):
    table = frames_of(rows).drop_duplicates(["original_sample_id", "augmentation_id", "gas_type"])
    parts = splits.grouped(table, shares={"train": 0.7, "valid": 0.15, "test": 0.15}, seed=seed)
    assert splits.shared_originals(parts) == 0
    assert sorted(pd.concat(parts.values())["frame_path"]) == sorted(table["frame_path"])


NAME = st.text(st.characters(codec="ascii", exclude_characters='/\\:*?"<>|', exclude_categories=["Cc"]), min_size=1)


@given(st.lists(NAME.filter(lambda name: name.strip() == name and name.strip(".")), min_size=1, max_size=4))
def test_windows_paths_and_ours_are_the_same(parts):
    plain = "/".join(parts)
    if parts[0].lower() == "mmseg_dataset":
        return
    for other in ("\\".join(parts), "mmseg_dataset\\" + "\\".join(parts), f"./{plain}", f"mmseg_dataset/{plain}"):
        assert tables.clean_path(other) == plain
    assert tables.clean_path(plain) == plain


@pytest.mark.parametrize(
    "path", ["", "  ", "C:\\data\\a.png", "/etc/passwd", "\\\\server\\a.png", "..\\a.png", "a/../../b"]
)
def test_a_path_that_leaves_the_folder_is_none(path):
    assert tables.clean_path(path) == ""


def test_the_published_spelling_of_paths_reads_as_the_sample(folder):
    before = tables.read(folder, "train")
    file = folder / "train_annotations.csv"
    text = file.read_text().replace("frames/", "mmseg_dataset\\frames\\").replace("masks/", "mmseg_dataset\\masks\\")
    file.write_text("\ufeff" + text.replace("\n", "\r\n"), newline="")
    pd.testing.assert_frame_equal(tables.read(folder, "train"), before)
    (folder / "mmseg_dataset").mkdir()
    for name in ("frames", "masks"):
        (folder / name).rename(folder / "mmseg_dataset" / name)
    pd.testing.assert_frame_equal(tables.read(folder, "train"), before)


CELLS = {
    "gas_type": ["n2o", ""],
    "ph_value": ["", "5,9", "abc", "nan", "1e999", "15", "-1", "４２"],
    "class_id": ["3", "1.5", "", "-1", "true"],
    "class_name": ["Sick", "", "Transitional"],
    "original_sample_id": ["", "  "],
    "augmentation_id": ["", "  "],
    "frame_path": ["", "frames/none.png", "/frames/v0000_f00_co2.png", "frames/../../a.png"],
    "mask_path": ["", "masks/none.png", "C:\\masks\\a.png"],
}


@pytest.mark.parametrize(("column", "cell"), [(column, cell) for column, cells in CELLS.items() for cell in cells])
def test_a_wrong_cell_is_refused_with_file_line_and_column(folder, column, cell):
    path = folder / "train_annotations.csv"
    table = pd.read_csv(path, dtype=str)
    at = table.index[table["class_id"] == "2"][3]
    table.loc[at, column] = cell
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"train_annotations.csv, line {at + 2}, column '{column}'"):
        tables.read(folder, "train")


ANY_TEXT = ("text", "not a number", "infinite", "out of range", "decimal comma in quotes", "thousands")  # may be a name
BROKEN = [name for name in mutations.REFUSED if name not in ANY_TEXT]


@pytest.mark.parametrize("fault", BROKEN)
def test_a_damaged_file_is_refused_by_name(folder, fault):
    for number in range(5):
        path = folder / "train_annotations.csv"
        clean = (SAMPLE / path.name).read_bytes()
        path.write_bytes(mutations.surrogate_safe(mutations.REFUSED[fault](clean, random.Random(number))))
        with pytest.raises(DataError, match="train_annotations.csv"):
            tables.read(folder, "train")


@pytest.mark.parametrize("change", list(mutations.ACCEPTED))
def test_harmless_changes_of_a_file_do_not_matter(folder, change):
    before, path = tables.read(folder, "train"), folder / "train_annotations.csv"
    path.write_bytes(mutations.ACCEPTED[change](path.read_bytes(), random.Random(1)))
    pd.testing.assert_frame_equal(tables.read(folder, "train"), before)


@pytest.mark.parametrize("how", ["line", "augmentation"])
def test_a_frame_that_comes_twice_is_refused_with_both_lines(folder, how):
    path = folder / "train_annotations.csv"
    lines = path.read_text().splitlines()
    again = lines[3] if how == "line" else lines[3].replace(lines[3].split(",")[0], lines[4].split(",")[0])
    path.write_text("\n".join([*lines[:4], again, *lines[5:]]) + "\n")
    with pytest.raises(DataError, match="line 5.*line 4 too"):
        tables.read(folder, "train")


def test_pairs_that_contradict_themselves_are_refused(folder):
    path = folder / "paired_train_annotations.csv"
    for column, value in {"is_paired": "maybe", "missing_modality": "n2o", "co2_frame": "frames/none.png"}.items():
        table = pd.read_csv(SAMPLE / path.name, dtype=str, keep_default_na=False)
        at = table.index[table["missing_modality"] == "ch4"][0]
        table.loc[at, column] = value
        table.to_csv(path, index=False)
        with pytest.raises(DataError, match=rf"line {at + 2}, column '{column}'"):
            tables.read_pairs(folder, "train")
    table = pd.read_csv(SAMPLE / path.name, dtype=str, keep_default_na=False)
    table.loc[at, "ch4_frame"] = "frames/v0000_f00_co2.png"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match="since the gas is missing"):
        tables.read_pairs(folder, "train")


def test_frames_in_several_pairs_are_counted(folder):
    path = folder / "paired_train_annotations.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    report = Report()
    tables.read_pairs(folder, "train", report=report)
    assert any("in several pairs" in what for what in report.counts)


def test_a_missing_file_names_the_command_that_makes_it(folder):
    (folder / "paired_train_annotations.csv").unlink()
    with pytest.raises(DataError, match="smellkit data pair"):
        samples.paired(folder, "train")
    with pytest.raises(DataError, match="smellkit data simulate plume"):
        tables.find(folder / "frames")
    with pytest.raises(OptionError, match="did you mean valid"):
        tables.read(folder, "val")
    with pytest.raises(OptionError, match="original_based, random"):
        splits.pair(tables.read(folder, "test"), "nearest")


def test_the_command_pairs_and_regroups(folder):
    done = CliRunner().invoke(cli, ["data", "pair", str(folder), "--how", "random"])
    assert done.exit_code == 0 and "co2 only" in done.output
    pairs = {split: tables.read_pairs(folder, split) for split in tables.splits_in(folder, paired=True)}
    assert tables.statistics(pairs)["both"].sum() > 0
    test, train = (folder / f"{split}_annotations.csv" for split in ("test", "train"))
    moved = pd.concat([pd.read_csv(train), pd.read_csv(test).iloc[:1]])  # a copy of an original crosses
    moved.to_csv(train, index=False)
    pd.read_csv(test).iloc[1:].to_csv(test, index=False)
    assert "1 originals have copies in several splits" in CliRunner().invoke(cli, ["data", "pair", str(folder)]).output
    done = CliRunner().invoke(cli, ["data", "pair", str(folder), "--regroup"])
    assert done.exit_code == 0
    seen = {}
    for split in tables.splits_in(folder, paired=True):
        pairs = tables.read_pairs(folder, split)
        seen[split] = set(pairs["co2_frame"].str[7:12]) | set(pairs["ch4_frame"].str[7:12])
    assert not (seen["train"] - {""}) & (seen["test"] - {""}) and not (seen["train"] - {""}) & (seen["valid"] - {""})


@pytest.fixture
def regrouped(folder):
    """A copy of the sample whose originals are dealt out anew."""
    splits.pair_folder(folder, regroup=True, seed=3)
    return folder


def test_a_regrouped_folder_keeps_its_annotations_and_each_pair_its_video_and_emission(regrouped):
    for split in tables.SPLITS:
        name = tables.annotation_file("", split).name
        assert (regrouped / name).read_bytes() == (SAMPLE / name).read_bytes()
    pairs = samples.paired(regrouped, "test")
    assert set(baselines.videos(str(regrouped), pairs)) == videos_in(pairs.table)
    emitted = baselines.emissions(str(regrouped), pairs, split="test")
    assert ((emitted[:, :2] != 0) == (emitted[:, 2:] > 0)).all()


@pytest.mark.parametrize("how", sorted(PAIRINGS))
def test_frames_paired_anew_stay_in_the_split_that_they_were_dealt_to(regrouped, how):
    filed = tables.read_pairs(regrouped, "train")
    anew = samples.paired(regrouped, "train", pairing=how).table
    assert files_in(anew) == files_in(filed)
    assert not videos_in(anew) & videos_in(tables.read_pairs(regrouped, "test"))


def test_the_emission_of_a_pair_at_random_is_that_of_each_of_its_frames(folder):
    splits.pair_folder(folder, "random")
    pairs = samples.paired(folder, "train")
    emitted = baselines.emissions(str(folder), pairs, split="train")
    known = pd.read_csv(folder / "emission.csv").groupby(["original_sample_id", "gas_type"])["log_emission"].first()
    for place, gas in enumerate(GASES):
        frames = pairs.table[f"{gas}_frame"]
        want = [known[Path(name).name[:5], gas] if name else 0 for name in frames]
        assert np.allclose(emitted[:, place], want)


def test_a_frame_that_no_annotation_knows_has_no_video_and_is_refused_by_name(folder):
    pairs = samples.paired(folder, "test")
    path = folder / "test_annotations.csv"
    gone = next(name for name in pairs.table["co2_frame"] if name)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if gone not in line))
    with pytest.raises(DataError, match=rf"paired_test_annotations.csv: .*{gone}.*\n.*smellkit data pair"):
        baselines.videos(str(folder), pairs)
    with pytest.raises(DataError, match=gone):
        samples.paired(folder, "test", pairing="random")


def test_an_emission_that_is_not_told_is_refused_by_name(folder):
    pairs = samples.paired(folder, "test")
    path = folder / "emission.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "v0061" not in line))
    with pytest.raises(DataError, match="emission.csv: .*v0061"):
        baselines.emissions(str(folder), pairs, split="test")


def test_in_a_folder_of_pairs_alone_each_pair_is_its_own_original(only_pairs):
    pairs = samples.paired(only_pairs, "test")
    assert len(set(baselines.videos(str(only_pairs), pairs))) == len(pairs)
    assert baselines.emissions(str(only_pairs), pairs, split="test") is None


def test_a_folder_of_pairs_alone_has_nothing_to_pair_or_to_measure(only_pairs):
    done = CliRunner().invoke(cli, ["data", "pair", str(only_pairs)])
    assert done.exit_code and "only pairs" in str(done.exception) and "train_annotations.csv" in str(done.exception)
    with pytest.raises(DataError, match="only pairs"):
        survey.amounts(only_pairs)


def test_splits_that_would_be_empty_are_refused_and_nothing_is_written(tmp_path):
    simulate.write(tmp_path / "few", pairs=12, size=(32, 24), frames=3, missing="none")
    before = {path: path.read_bytes() for path in (tmp_path / "few").glob("*.csv")}
    with pytest.raises(
        DataError, match=r"originals in .* too few for 3 splits: (valid|test) would be empty\n.*annotate"
    ):
        splits.pair_folder(tmp_path / "few", regroup=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "few").glob("*.csv")}


def test_a_split_without_annotations_is_not_said_to_be_paired_by_a_command(tmp_path):
    simulate.write(tmp_path / "train", pairs=6, size=(32, 24), frames=2, shares=(100, 0, 0))
    with pytest.raises(DataError, match="no val_annotations.csv to pair either") as error:
        samples.paired(tmp_path / "train", "valid")
    assert "smellkit data pair" not in str(error.value)


def test_copies_with_one_number_in_two_splits_are_refused_instead_of_lost(folder):
    path = folder / "test_annotations.csv"
    path.write_text(path.read_text().replace(",v0057,", ",v0000,"))
    with pytest.raises(DataError, match="Several frames are of v0000 0 co2"):
        splits.pair_folder(folder, regroup=True)


def test_pairing_a_folder_again_is_seen_at_once(folder):
    before = samples.paired(folder, "train").table
    splits.pair_folder(folder, "random")
    after = samples.paired(folder, "train").table
    assert not after.equals(before) and after.equals(tables.read_pairs(folder, "train"))


def test_the_word_empty_says_that_no_gas_is_missing(folder):
    before, path = tables.read_pairs(folder, "train"), folder / "paired_train_annotations.csv"
    for word in ("empty", "Empty"):
        path.write_text((SAMPLE / path.name).read_text().replace(",True,\n", f",True,{word}\n"))
        pd.testing.assert_frame_equal(tables.read_pairs(folder, "train"), before)


def test_an_augmentation_may_have_a_name_and_numbers_may_have_points(folder):
    pairs, amounts = splits.pair(tables.read(folder, "train")), survey.amounts(folder)
    for split in tables.SPLITS:
        path = tables.annotation_file(folder, split)
        table = pd.read_csv(path, dtype=str).replace({"augmentation_id": {"1": "01.0"}})
        table.to_csv(path, index=False)
    pd.testing.assert_frame_equal(survey.amounts(folder), amounts)
    for path in [folder / "emission.csv", *(tables.annotation_file(folder, split) for split in tables.SPLITS)]:
        table = pd.read_csv(path, dtype=str)
        table["augmentation_id"] = "flip-" + table["augmentation_id"].replace("01.0", "1")
        table.to_csv(path, index=False)
    pd.testing.assert_frame_equal(splits.pair(tables.read(folder, "train")), pairs)
    pd.testing.assert_frame_equal(survey.amounts(folder), amounts)


def test_a_missing_gas_is_blank_and_marked_and_the_other_is_not():
    data = samples.paired(SAMPLE, "train", change=samples.Augment())
    batch = data.__getitems__(range(len(data)))
    missing = data.table["missing_modality"].to_numpy()
    for place, gas in enumerate(GASES):
        gone = torch.tensor(missing == gas)
        assert (batch["present"][:, place] == (~gone).float()).all()
        assert not batch[gas][gone].any() and not batch[f"{gas}_mask"][gone].any()
        assert batch[gas][~gone].std(dim=(1, 2, 3)).min() > 0.001
    assert batch["co2"].shape[1:] == (1, *samples.SIZE) and batch["co2_mask"].dtype == torch.int64
    assert set(batch["co2_mask"].unique().tolist()) == {0, 1, 2}


def test_modality_dropout_hides_one_gas_of_full_pairs_only_and_each_as_often():
    torch.manual_seed(1)
    present = torch.tensor([[1.0, 1.0]] * 6000 + [[1.0, 0.0]] * 500 + [[0.0, 1.0]] * 500)
    hidden = samples.hide(present, probability=0.2)
    assert (hidden[6000:] == present[6000:]).all() and (hidden.sum(dim=1) >= 1).all()
    gone = 1 - hidden[:6000].mean(dim=0)
    assert torch.allclose(gone, torch.tensor([0.1, 0.1]), atol=0.015)


def test_what_was_dropped_out_is_blank_too():
    data = samples.paired(SAMPLE, "train", gases="full", dropout=1.0)
    batch = data.__getitems__(range(len(data)))
    assert (batch["present"].sum(dim=1) == 1).all()
    for place, gas in enumerate(GASES):
        assert not batch[gas][batch["present"][:, place] == 0].any()


def test_one_gas_can_be_asked_for_and_the_other_is_hidden():
    everything = samples.paired(SAMPLE, "train")
    for place, gas in enumerate(GASES):
        data = samples.paired(SAMPLE, "train", gases=gas)
        batch = data.__getitems__(range(len(data)))
        assert (batch["present"] == torch.eye(2)[place]).all() and not batch[GASES[1 - place]].any()
        assert len(data) == int(everything.present[:, place].sum())
    with pytest.raises(OptionError, match="n2o"):
        samples.paired(SAMPLE, "train", gases="n2o")


def test_weights_make_the_classes_equally_frequent():
    data = samples.paired(SAMPLE, "train", balance=True)
    share = torch.bincount(data.label, weights=data.weights)
    assert torch.allclose(share, torch.ones(3, dtype=torch.float64))


class Counted(torch.utils.data.Dataset):
    """A data set that remembers what was drawn from it."""

    def __init__(self, weights=None):
        self.drawn = []
        if weights is not None:
            self.weights = weights

    def __len__(self):
        return 400

    def __getitem__(self, index):
        self.drawn.append(int(index))
        return {"x": torch.ones(1), "index": torch.tensor(index)}


def test_the_trainer_draws_by_weight_where_a_data_set_has_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    weighted, plain = Counted(torch.tensor([1.0] * 200 + [3.0] * 200)), Counted()
    for name, data in (("weighted", weighted), ("plain", plain)):
        task = Task(
            name=name,
            load=lambda data=data: {"train": data, "valid": Counted()},
            build=lambda: Line(),
            loss=lambda outputs, batch: outputs["y"].square().mean(),
            score=lambda outputs, batch: {"accuracy": 0.0},
        )
        fit(task, Settings(epochs=3, batch=50))
    assert sorted(plain.drawn) == sorted([*range(400)] * 3)
    assert 0.68 < np.mean(np.array(weighted.drawn) >= 200) < 0.82


class Line(torch.nn.Module):
    """The smallest model."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, batch):
        return {"y": self.layer(batch["x"])}


def checker():
    """Frames whose grey levels say what their masks are, the same for both gases."""
    mask = torch.zeros(6, 2, 48, 64, dtype=torch.long)
    mask[:, :, 10:30, 12:40], mask[:, :, 30:44, 30:60] = 1, 2
    return mask.float() / 2, mask


@pytest.mark.parametrize("seed", range(5))
def test_frames_and_masks_of_both_gases_move_together(seed):
    torch.manual_seed(seed)
    frames, masks = checker()
    moved, labels = samples.Augment(affine=1, elastic=1, spoil=0, light=0, gamma=0)(frames, masks)
    assert torch.equal(labels[:, 0], labels[:, 1]) and torch.allclose(moved[:, 0], moved[:, 1])
    assert labels.dtype == masks.dtype and set(labels.unique().tolist()) <= {0, 1, 2}
    assert ((moved * 2 - labels).abs() < 0.5).float().mean() > 0.97  # all but the borders
    assert not torch.equal(labels, masks)


def test_without_any_chance_nothing_changes_and_all_chances_keep_the_range():
    frames, masks = checker()
    none = samples.Augment(flip=0, affine=0, elastic=0, spoil=0, light=0, gamma=0)
    same, labels = none(frames, masks)
    assert torch.allclose(same, frames, atol=1e-4) and torch.equal(labels, masks)
    every = samples.Augment(flip=1, affine=1, elastic=1, spoil=1, light=1, gamma=1, invert=0.5)
    predicted, _ = every(frames, masks)
    assert predicted.isfinite().all() and predicted.min() >= 0 and predicted.max() <= 1


def test_a_flip_alone_is_a_flip():
    frames, masks = checker()
    moved, labels = samples.Augment(flip=1, affine=0, elastic=0, spoil=0, light=0, gamma=0)(frames, masks)
    assert torch.allclose(moved, frames.flip(-1), atol=1e-4) and torch.equal(labels, masks.flip(-1))


def read_mask(path):
    rule = MaskRule(path.parent)
    return rule.classes(rule.read(path))


def test_a_mask_of_one_bit_shows_gas_as_one_of_eight_bits_does(tmp_path):
    gas = np.random.default_rng(1).random((20, 30)) < 0.3
    for mode in ("1", "L"):
        Image.fromarray(gas.astype(np.uint8) * 255).convert(mode).save(tmp_path / f"{mode}.png")
        assert (read_mask(tmp_path / f"{mode}.png") == 2 * gas).all()


@pytest.mark.parametrize("codes", [(0, 127, 255), (0, 128, 255)])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16"])
def test_masks_of_other_codes_and_modes_are_the_same_mask(tmp_path, codes, mode):
    want = np.random.default_rng(1).integers(0, 3, (20, 30)).astype(np.uint8)
    if mode == "P":
        picture = Image.fromarray(want, "L")
        picture = picture.convert("P")
        picture.putpalette([120, 120, 120, 6, 230, 230, 4, 200, 3])  # the indices count, not the colours
    elif mode == "I;16":
        picture = Image.fromarray(want.astype(np.uint16))
    else:
        picture = Image.fromarray(np.array(codes, np.uint8)[want]).convert(mode)
    picture.save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == want).all()


@pytest.mark.parametrize("shade", [lambda mask: mask > 0, lambda mask: mask >= 0])
def test_masks_of_nothing_above_one_are_asked_about_and_not_taken_for_tube(folder, shade):
    for file in (folder / "masks").iterdir():
        Image.fromarray(shade(np.asarray(Image.open(file))).astype(np.uint8)).save(file)
    with pytest.raises(DataError, match="values whose meaning is known"):
        samples.read(folder, "test")


def test_a_meaning_of_what_no_mask_can_hold_is_refused(tmp_path, folder):
    (folder / "mask_values.json").write_text('{"0": "background", "300": "gas"}')
    with pytest.raises(DataError, match="mask_values.json, key 300"):
        MaskRule.of(folder)


@pytest.mark.parametrize("values", [(0, 60, 255), (0, 1, 3), (7,)])
def test_a_mask_of_unknown_values_is_refused_with_them(tmp_path, values):
    Image.fromarray(np.resize(np.array(values, np.uint8), (8, 8))).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=f"mask.png.*found {values[0]}"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("fault", list(mutations.BROKEN_PICTURES))
def test_a_broken_picture_is_refused_by_name(folder, fault):
    table = tables.read_pairs(folder, "test")
    path = folder / next(name for name in table["co2_frame"] if name)
    chance = random.Random(3)
    path.write_bytes(mutations.BROKEN_PICTURES[fault](mutations.picture(chance, form="PNG"), chance))
    with pytest.raises(DataError, match=path.name):
        samples.read(folder, "test")


def test_frames_are_resized_and_masks_keep_their_classes():
    _, frames, masks = samples.read(SAMPLE, "test", size=(36, 50))
    assert frames.shape == masks.shape == (30, 2, 36, 50) and set(np.unique(masks)) == {0, 1, 2}


def test_the_pattern_of_missing_gases_alone_tells_the_published_share():
    cells = {  # solved from the published counts: see simulate.MISSING
        ("", 0): 1911,
        ("ch4", 0): 126,
        ("co2", 0): 84,
        ("ch4", 1): 231,
        ("", 2): 798,
        ("ch4", 2): 3108,
    }
    table = pd.DataFrame([cell for cell, count in cells.items() for _ in range(count)])
    table.columns = ["missing_modality", "class_id"]
    predicted = baselines.pattern(table, table).argmax(axis=1)
    assert (predicted == table["class_id"]).mean() == pytest.approx(0.815, abs=0.0005)
    even = baselines.pattern(table, table, even=True).argmax(axis=1)
    recalls = [(even[table["class_id"] == label] == label).mean() for label in range(3)]
    assert recalls[1] == 1 and np.mean(recalls) > 0.6


def test_an_unseen_pattern_gets_the_shares_of_training():
    train = pd.DataFrame({"missing_modality": ["", "", "ch4"], "class_id": [0, 0, 2]})
    other = pd.DataFrame({"missing_modality": ["co2"], "class_id": [1]})
    assert np.allclose(baselines.pattern(train, other), [[2 / 3, 0, 1 / 3]])


def test_the_check_command_lists_every_fault_of_a_folder(folder):
    done = CliRunner().invoke(cli, ["data", "check", str(SAMPLE)])
    assert done.exit_code == 0 and "0 skipped" in done.output
    (folder / "frames" / "v0000_f00_co2.png").write_bytes(b"")
    Image.new("L", (96, 72), 7).save(folder / "masks" / "v0001_f00_co2.png")
    (folder / "val_annotations.csv").write_text("frame_path;mask_path\n")
    done = CliRunner().invoke(cli, ["data", "check", str(folder)])
    assert done.exit_code == 1 and "3 skipped" in done.output
    for name in ("v0000_f00_co2.png", "v0001_f00_co2.png", "val_annotations.csv"):
        assert name in done.output


def test_the_check_opens_the_pictures_of_a_folder_of_pairs_alone(only_pairs):
    assert survey.check(only_pairs).skipped == {}
    (only_pairs / "frames" / "v0000_f00_co2.png").write_bytes(b"broken")
    Image.new("L", (96, 72), 7).save(only_pairs / "masks" / "v0001_f00_co2.png")
    names = {Path(name).name for name in survey.check(only_pairs).skipped}
    assert names == {"v0000_f00_co2.png", "v0001_f00_co2.png"}


def test_a_mask_of_another_size_than_its_frame_is_refused_with_both(folder):
    name = next(name for name in tables.read_pairs(folder, "test")["co2_mask"] if name)
    Image.new("L", (90, 40)).save(folder / name)
    words = rf"{name}: expected 96 x 72 pixels, as .*{name.replace('masks', 'frames')} has, found 90 x 40"
    with pytest.raises(DataError, match=words):
        samples.read(folder, "test")
    done = CliRunner().invoke(cli, ["data", "check", str(folder)])
    assert done.exit_code == 1 and "1 skipped" in done.output and "found 90 x 40" in done.output


def test_frames_can_be_paired_at_random_without_a_new_file():
    as_filed, same, anew = (samples.paired(SAMPLE, "train", pairing=how) for how in ("", "original_based", "random"))
    columns = ["co2_frame", "ch4_frame"]
    assert set(map(tuple, as_filed.table[columns].to_numpy())) == set(map(tuple, same.table[columns].to_numpy()))
    both = anew.table[anew.table["is_paired"]]
    assert len(both) >= as_filed.table["is_paired"].sum()
    assert (both["co2_frame"].str[7:16] != both["ch4_frame"].str[7:16]).mean() > 0.8
