"""Frames that are a video: which are, what it tells of them, and that a single frame is answered as ever."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from smellkit import checkpoint
from smellkit.errors import DataError
from smellkit.plume import CLASSES, GAS, GASES, models, predict, video
from smellkit.plume import annotations as tables
from smellkit.plume.models import Sized
from smellkit.plume.predict import PlumePredictor
from smellkit.simulate import plume as simulate
from smellkit.study.plume import data, release, splits
from smellkit.study.plume.task import PlumeTask
from smellkit.train import Settings, fit

SIZE = (48, 64)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def predictor():
    torch.manual_seed(0)
    network = models.build("plumenet", videos=True).eval()
    for parameter in network.moving.parameters():  # as if it had learned from videos
        torch.nn.init.normal_(parameter, std=0.3)
    return PlumePredictor(Sized(network, SIZE, mirrored=True), videos=True)


@pytest.fixture
def packed(predictor, tmp_path):
    manifest = {"kind": "plume", "model": "plumenet", "size": SIZE, "videos": True, "classes": CLASSES}
    return checkpoint.save(tmp_path / "weights", predictor.model.state_dict(), manifest)


@pytest.fixture(scope="module")
def filmed():
    """Frames (5, 2, 48, 64) and masks of a simulated video."""
    (plan, *_) = simulate.plan(5, frames=5, missing="none", shares=(1, 0, 0))
    return simulate.film(plan, number=0, size=SIZE[::-1], seed=7)[1]


def wall(count, *, moving=0.0):
    """`count` frames (1, count, 48, 64) of a wall with a warm body; what is `moving` is at another place in each."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 64), indexing="ij")
    still = x + torch.exp(-((x - 0.3) ** 2 + (y - 0.5) ** 2) / 0.02)
    gas = [torch.exp(-((x - 0.7) ** 2 + (y - place) ** 2) / 0.01) for place in torch.linspace(0.2, 0.8, count)]
    return still.expand(1, count, 48, 64) + moving * torch.stack(gas)


def motion(frames):
    return video.motion(frames[:, :1], frames[:, 1:])


def test_the_other_frames_are_spread_over_the_video():
    others = video.spread(["a", "b", "a", "", "a", "a", "a", "a", "b", "b", ""])
    assert others[0].tolist() == [2, 4, 5, 6] and others[7].tolist() == [0, 2, 4, 5]
    assert others[1].tolist() == [8, 9, -1, -1] and (others[[3, 10]] == -1).all()
    assert video.spread(["a"] * 100)[[0, 50]].tolist() == [[20, 40, 60, 80], [70, 90, 10, 30]]
    for count in range(5, 30):  # never the frame itself, and each of the others once
        assert all(len({row, *others}) == 5 for row, others in enumerate(video.spread([1] * count).tolist()))


def test_two_frames_are_no_video():
    assert (video.spread(["a", "a", "b"]) == -1).all()


def test_a_warm_body_that_stands_still_does_not_move_and_gas_does():
    assert motion(wall(5)).abs().max() < 1e-4
    moved = motion(wall(5, moving=1.0))[0, 1]
    assert moved[:, 40:].max() > 0.3 and moved[:, :20].max() < 0.1 * moved.max()


def test_gain_level_and_polarity_of_each_frame_do_not_matter():
    frames = wall(5, moving=0.5)
    gain, level = torch.tensor([1.0, 0.5, -2.0, 3.0, -1.0]), torch.tensor([0.0, 1.0, -1.0, 0.3, 2.0])
    changed = frames * gain[:, None, None] + level[:, None, None]
    torch.testing.assert_close(motion(changed), motion(frames), atol=1e-3, rtol=1e-3)


def test_the_order_of_the_other_frames_does_not_matter_and_the_frame_itself_does():
    frames = wall(5, moving=1.0)
    torch.testing.assert_close(motion(frames[:, [0, 3, 1, 4, 2]]), motion(frames))
    assert (motion(frames[:, [1, 0, 2, 3, 4]]) - motion(frames)).abs().max() > 0.1


def test_frames_of_another_view_and_blank_ones_tell_nothing():
    torch.manual_seed(0)
    frames = wall(5, moving=1.0)
    elsewhere = torch.cat([frames[:, :1], torch.rand(1, 4, 48, 64)], dim=1)
    assert not motion(elsewhere).any()
    assert not motion(torch.cat([frames[:, :1], torch.zeros(1, 4, 48, 64)], dim=1)).any()
    some = motion(torch.cat([frames[:, :3], torch.zeros(1, 2, 48, 64)], dim=1))
    torch.testing.assert_close(some, motion(frames[:, :3]))


def test_a_single_frame_is_answered_as_if_there_were_no_videos(predictor, filmed):
    pairs = [tuple(frames) for frames in filmed.frames]
    alone = predictor.predict(pairs)
    for videos in ([""] * 5, ["a", "b", "c", "d", "d"]):
        for one, other in zip(alone, predictor.predict(pairs, videos=videos)[:3], strict=False):
            assert other.single and all((x == y).all() for x, y in zip(one.masks, other.masks, strict=True))
            np.testing.assert_allclose(one.probability, other.probability, atol=1e-6)
    with torch.no_grad():  # beside a row of a video, too
        batch = predictor._batch(pairs[:2])
        moved = {f"{gas}_motion": torch.zeros(2, 2, *SIZE).index_fill(0, torch.tensor([1]), 1.0) for gas in GASES}
        one, other = predictor.model(batch), predictor.model(batch | moved)
    torch.testing.assert_close(one["co2_logits"][0], other["co2_logits"][0])
    assert (one["co2_logits"][1] - other["co2_logits"][1]).abs().max() > 1e-3


def test_frames_of_a_video_are_seen_beside_others_and_have_one_class(predictor, filmed):
    pairs = [tuple(frames) for frames in filmed.frames]
    alone, seen = predictor.predict(pairs), predictor.predict(pairs, videos=["a"] * 5)
    assert not any(one.single for one in seen)
    agreed = np.exp(np.mean([np.log(one.probability) for one in alone], axis=0))
    assert np.abs(seen[0].probability - agreed / agreed.sum()).max() > 1e-5  # and not only averaged
    assert all((one.probability == seen[0].probability).all() for one in seen)
    assert seen[0].probability.sum() == pytest.approx(1, abs=1e-5)


def test_a_missing_frame_in_a_video_is_no_frame_of_it(predictor, filmed):
    pairs = [(co2, None) for co2, _ in filmed.frames]
    seen = predictor.predict(pairs, videos=["a"] * 5)
    assert all(one.masks[1] is None and not one.single for one in seen)


def test_a_video_of_two_sizes_is_refused_by_name(predictor, filmed):
    pairs = [tuple(frames) for frames in filmed.frames]
    pairs[2] = (pairs[2][0][:40], pairs[2][1])
    with pytest.raises(DataError, match=r"co2 frames of the video 'barn' .*\(48, 64\) and of \(40, 64\)"):
        predictor.predict(pairs, videos=["barn"] * 5)
    assert len(predictor.predict(pairs)) == 5


@pytest.fixture
def folder(tmp_path):
    simulate.write(tmp_path / "data", pairs=30, frames=5, size=SIZE[::-1], missing="even", seed=3, shares=(4, 1, 1))
    return tmp_path / "data"


def test_what_the_simulator_writes_says_which_frames_are_a_video_and_pairing_keeps_it(folder):
    written = tables.read_pairs(folder, "train")
    assert (written.groupby("video")["frame_number"].apply(sorted).map(len) == 5).all()
    splits.pair_folder(folder)
    pd.testing.assert_frame_equal(tables.read_pairs(folder, "train")[tables.VIDEO], written[tables.VIDEO])
    splits.pair_folder(folder, "random")
    both = tables.read_pairs(folder, "train")
    moments = both[["co2_frame", "ch4_frame"]].apply(lambda paths: paths.str.removesuffix(".png").str[:-4])
    assert ((both["video"] != "") == (moments["co2_frame"] == moments["ch4_frame"])).all()


def test_copies_of_an_original_are_no_video(folder):
    for file in folder.glob("*_annotations.csv"):
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        table.drop(columns=tables.VIDEO).to_csv(file, index=False)  # as published
    assert (tables.read(folder, "train")["video"] == "").all()
    splits.pair_folder(folder)
    assert not (folder / "paired_train_annotations.csv").read_text().count("video")
    assert {name for name, _ in predict.pairs(folder)[1]} == {""}
    shown = data.paired(folder, "train", size=SIZE, videos=1.0)
    assert not shown.__getitems__([0, 1])["co2_motion"].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="frame_number"), "the place of the frame in its video"),
        (lambda table: table.assign(frame_number="first"), "a whole number"),
    ],
)
def test_a_video_that_is_said_wrongly_is_refused(folder, change, words):
    for file in (folder / "train_annotations.csv", folder / "paired_train_annotations.csv"):
        change(pd.read_csv(file, dtype=str, keep_default_na=False)).to_csv(file, index=False)
        with pytest.raises(DataError, match=words):
            tables.read(folder, "train") if "paired" not in file.name else tables.read_pairs(folder, "train")


@pytest.mark.parametrize("word", ["nan", "NaN", "None", ""])
def test_a_cell_that_says_nothing_is_no_video(folder, word):
    for file in (folder / "train_annotations.csv", folder / "paired_train_annotations.csv"):
        pd.read_csv(file, dtype=str, keep_default_na=False).assign(video=word).to_csv(file, index=False)
    for table in (tables.read(folder, "train"), tables.read_pairs(folder, "train")):
        assert (table["video"] == "").all() and (table["frame_number"] == -1).all()


def test_a_moment_that_comes_twice_is_refused_in_annotations_and_seen_singly_in_pairs(folder):
    path = folder / "train_annotations.csv"
    pd.read_csv(path, dtype=str, keep_default_na=False).assign(frame_number="1").to_csv(path, index=False)
    with pytest.raises(DataError, match="each moment once a gas"):
        tables.read(folder, "train")
    path = folder / "paired_train_annotations.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    pd.concat([table, table[:1]]).to_csv(path, index=False)
    assert tables.read_pairs(folder, "train")["video"].iloc[[0, -1]].tolist() == [table["video"][0], ""]


def test_a_folder_with_videos_is_predicted_as_videos_unless_that_is_not_wanted(folder, packed, tmp_path):
    said = predict.plume(folder, weights=packed, out=tmp_path / "seen")
    alone = predict.plume(folder, weights=packed, out=tmp_path / "alone", videos=False)
    assert "30 of 30 pairs of videos" in said and "pairs of videos" not in alone
    seen, single = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("seen", "alone"))
    assert (seen["co2_frame"] == single["co2_frame"]).all()
    video_of = seen["co2_frame"].str[:-12]
    assert (seen.groupby(video_of)["p0"].nunique() == 1).all() and (single.groupby(video_of)["p0"].nunique() > 1).any()


def test_weights_that_have_learned_from_no_video_see_single_frames(predictor, filmed, tmp_path):
    network = predictor.model.model
    network.moving = None
    manifest = {"kind": "plume", "model": "plumenet", "size": SIZE, "classes": CLASSES}
    weights = checkpoint.save(tmp_path / "weights", predictor.model.state_dict(), manifest)
    single = PlumePredictor.load(weights).predict([tuple(frames) for frames in filmed.frames], videos=["a"] * 5)
    assert all(one.single for one in single) and len({one.probability[0] for one in single}) > 1


def test_rows_in_another_order_are_answered_alike(folder, packed, tmp_path):
    file = folder / "paired_test_annotations.csv"
    for name, turn in (("one", 1), ("other", -1)):
        pd.read_csv(file, dtype=str, keep_default_na=False)[::turn].to_csv(file, index=False)
        predict.plume(folder, weights=packed, out=tmp_path / name, split="test")
    one, other = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("one", "other"))
    pd.testing.assert_frame_equal(one, other.sort_values("co2_frame", ignore_index=True)[one.columns])


def test_training_sees_a_share_of_pairs_in_their_videos_and_frame_and_others_alike(folder):
    shown = data.paired(folder, "train", size=SIZE, videos=0.5, change=data.Augment(affine=1.0, elastic=1.0, spoil=0))
    torch.manual_seed(1)
    batch = shown.__getitems__(list(range(len(shown))))
    moved = batch["co2_motion"].flatten(1).any(dim=1)
    assert 0.2 < moved.float().mean() < 0.8
    wall, gas = (batch["co2_motion"][moved][:, 1][batch["co2_mask"][moved] == value].mean() for value in (0, GAS))
    assert gas > 1.5 * wall


def test_a_long_video_is_looked_at_in_parts(folder, monkeypatch):
    monkeypatch.setattr(predict, "LONGEST", 4)
    looks = predict.pairs(folder)[1]
    assert [len(rows) for _, rows in looks] == [4, 1] * 6
    assert Image.open(folder / predict.pairs(folder)[0][0][0]).size == SIZE[::-1]


def test_what_is_learned_from_videos_beside_finished_weights_changes_no_single_answer(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    models_of = {}
    for name, more in (("first", {}), ("second", {"start": "first", "videos": 1.0})):
        options = {"data": str(folder), "model": "plumenet", "height": 48, **more}
        run = fit(PlumeTask(**options), Settings(epochs=2, batch=5, learning_rate=1e-2), name=name, params=options)
        models_of[name] = release.from_run(run).model.eval()
    batch = data.paired(folder, "test", size=SIZE, videos=1.0).__getitems__([0, 1])
    single = {name: x for name, x in batch.items() if "motion" not in name}
    with torch.no_grad():
        one, other, seen = (models_of[n](b) for n, b in (("first", single), ("second", single), ("second", batch)))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all((seen[name] - one[name]).abs().max() > 1e-4 for name in ("co2_logits", "ch4_logits", "class_logits"))
