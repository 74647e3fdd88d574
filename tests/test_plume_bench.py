"""The task, the bench and its baselines without a network: on the sample, one short training."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from smellkit import cli
from smellkit.errors import OptionError
from smellkit.plume import GASES, annotations, models
from smellkit.plume.models import Sized
from smellkit.plume.plumenet import ordered
from smellkit.simulate import plume as simulate
from smellkit.study import ablations, evaluate
from smellkit.study.plume import baselines, bench, release, scores
from smellkit.study.plume import data as samples
from smellkit.study.plume import task as tasks
from smellkit.study.plume.bench import Predictions

QUICK = {"epochs": 1, "batch": 32, "learning_rate": 3e-3}


@pytest.fixture(scope="module", autouse=True)
def own_runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMELLKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("TQDM_DISABLE", "1")
        patch.setattr(bench, "HEIGHT", 72)
        patch.setitem(bench.ROWS, bench.OURS, bench.ROWS[bench.OURS] | {"height": 48})
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def result(own_runs):
    lines = []
    measured = bench.run("", names=["ours"], seeds=1, surfaces=False, progress=lines.append, training=QUICK)
    assert len(lines) == len(measured["rows"]) and lines[0].startswith("ours: test ")
    return measured


def model_of(run):
    return release.from_run(run).model


def predicted(label, probability):
    known = {"present": torch.ones(len(label), 2), "label": torch.tensor(label)}
    return Predictions({"class_logits": torch.tensor(probability).log()}, known)


def test_the_rule_without_pictures_and_the_forest_stand_beside_every_result(result):
    rows = result["rows"]
    assert {"ours", "pattern of missing gases", "random forest, true masks"} <= set(rows)
    for row in rows.values():
        test = row["test"]
        for name in ("miou", "balanced"):
            if name in test:
                assert test[name]["low"] <= test[name]["value"] <= test[name]["high"]
        if "confusion" in test:
            assert np.sum(test["confusion"]) == pytest.approx(result["about"]["data"]["test"]["pairs"])
            right = np.diagonal(test["confusion"]) / np.sum(test["confusion"], axis=1)
            assert np.mean(right) == pytest.approx(test["balanced"]["value"])
    ours = rows["ours"]["test"]
    assert "confusion" in ours and ours["parameters"] == bench.counts("plumenet-one-camera").parameters
    json.dumps(result, allow_nan=False)


def test_a_finished_row_is_not_trained_again(result, monkeypatch):
    monkeypatch.setattr(bench, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert bench.trained("ours", data="", seed=1, **QUICK).finished
    assert bench.trained("ours", data="", test=str(annotations.find()), seed=1, **QUICK).finished


def test_the_pairs_with_both_gases_are_scored_whole_and_with_either_hidden(result):
    gone = result["rows"]["ours"]
    assert {"seen: both", "seen: co2", "seen: ch4"} <= set(gone)
    assert "iou_ch4" not in gone["seen: co2"] and "iou_co2" in gone["seen: co2"]


def test_a_camera_that_never_fails_or_always_does_is_what_the_bench_says(result):
    run = bench.trained("ours", data="", seed=1, **QUICK)
    table = bench.failing(model_of(run), "", shares=(0, 1)).set_index(["failing", "share"])
    gone = result["rows"]["ours"]
    for gas, other in zip(GASES, GASES[::-1], strict=True):
        assert table.loc[(gas, 0), "miou"] == pytest.approx(gone["seen: both"]["miou"]["value"])
        assert table.loc[(gas, 1), "accuracy"] == pytest.approx(gone[f"seen: {other}"]["accuracy"]["value"])


def test_a_file_of_results_takes_up_rows_of_the_same_bench_only(result):
    asked = {"names": ["ours"], "seeds": 1, "surfaces": False, "failing": False, "progress": len, "training": QUICK}
    earlier = json.loads(json.dumps(result | {"rows": {"other": {}}}))
    assert {"ours", "other"} <= set(bench.run("", earlier=earlier, **asked)["rows"])
    other = earlier | {"about": earlier["about"] | {"training": earlier["about"]["training"] | {"epochs": 99}}}
    assert "other" not in bench.run("", earlier=other, **asked)["rows"]


def test_pairs_that_changed_in_their_folder_are_trained_on_anew_and_not_set_beside_the_old(tmp_path):
    simulate.write(tmp_path / "one", pairs=30, size=(64, 48), frames=1, seed=1)
    simulate.write(tmp_path / "two", pairs=30, size=(64, 48), frames=1, seed=2)
    one, two = (bench.about(str(tmp_path / name), "test") for name in ("one", "two"))
    assert one | {"sha256": ""} == two | {"sha256": ""} and one != two
    same = {"seed": 1, "height": 48, **QUICK}
    assert bench.trained("gas-aware", data=str(tmp_path / "one"), **same).finished
    (tmp_path / "one").rename(tmp_path / "old")
    (tmp_path / "two").rename(tmp_path / "one")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="trained again"):
        patch.setattr(bench, "fit", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("trained again")))
        bench.trained("gas-aware", data=str(tmp_path / "one"), **same)


def test_an_unfinished_fit_with_another_test_set_begins_anew(tmp_path):
    run = bench.trained("classification only", data="", seed=1, height=48, **QUICK)
    (run.folder / "scores.json").unlink()
    again = bench.trained("classification only", data="", test=str(annotations.find()), seed=1, height=48, **QUICK)
    assert again.finished and again.params["test"] == str(annotations.find())


def test_a_drawn_part_of_the_pairs_has_more_than_the_lowest_ph(tmp_path, result):
    simulate.write(tmp_path / "many", pairs=60, size=(64, 48), frames=1, missing="none", shares=(0, 0, 100), seed=3)
    pairs = samples.paired(tmp_path / "many", "test", size=(72, 96), gases="full")
    model = model_of(bench.trained("ours", data="", seed=1, **QUICK))
    with pytest.MonkeyPatch.context() as patch:
        asked, say = [], bench.predictions_of
        patch.setattr(
            bench,
            "predictions_of",
            lambda model, some: asked.append(pairs.label[pairs.row[some.indices]]) or say(model, some),
        )
        bench.failing(model, str(tmp_path / "many"), shares=(0, 1), rows=20)
    assert all(len(label) == 20 and {0, 2} <= set(label.tolist()) for label in asked)


def test_an_interval_is_a_bootstrap_over_videos_not_over_frames():
    label = np.tile([0, 2], 40)
    predictions = predicted(label, np.eye(3)[np.where(np.arange(80) < 40, label, 1)])
    alone, few = (
        evaluate.summarise([predictions.outcome(groups, measures=("accuracy",))])["accuracy"]
        for groups in (np.arange(80), np.arange(80) // 10)
    )
    assert alone.value == few.value == 0.5
    assert few.high - few.low > 2 * (alone.high - alone.low)


def test_a_difference_on_the_same_pairs_is_surer_than_two_scores_beside_each_other():
    random = np.random.default_rng(1)
    label = random.integers(0, 3, 120)
    first = np.where(random.random(120) < 0.6, label, (label + 1) % 3)
    better = np.where(random.random(120) < 0.3, label, first)
    one, other = (
        [predicted(label, np.eye(3)[answer]).outcome(np.arange(120), measures=("balanced",))]
        for answer in (better, first)
    )
    measured = evaluate.measured([{"test": one[0]}], [{"test": other[0]}])
    difference = measured["test"]["difference"]["balanced"]
    two = [evaluate.summarise(each)["balanced"] for each in (one, other)]
    assert difference["value"] == pytest.approx(two[0].value - two[1].value)
    assert difference["low"] > 0
    assert difference["high"] - difference["low"] < sum(interval.high - interval.low for interval in two)


def test_a_row_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(OptionError, match="early fusion"):
        bench.rows_of(["early fusoin"])
    assert bench.rows_of(["plumenet-one-camera", "FUME", "fume"]) == ["ours", "FUME", "FUME"]


def test_the_command_counts_without_training():
    said = CliRunner().invoke(cli.cli, ["bench", "plume", "--counts", "--model", "fume"], catch_exceptions=False)
    assert "1,278,681 parameters" in said.output and "1.862 G" in said.output


def test_ours_is_smaller_than_the_published_headline():
    ours, published = bench.counts("plumenet"), bench.counts("fume")
    assert ours.parameters <= published.parameters and ours.macs <= published.macs


def test_a_forest_sees_size_brightness_and_shape():
    frame, mask = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    mask[10:20, 5:25], frame[10:20, 5:15], frame[10:20, 15:25] = 2, 51, 102
    mask[0:5, 0:5] = 1  # the tube is no gas
    measured = dict(zip(baselines.SHAPE, baselines.describe(frame, mask), strict=True))
    assert measured["area"] == pytest.approx(200 / 2400) and measured["mean"] == pytest.approx(0.3)
    assert measured["aspect"] == 2 and measured["extent"] == 1
    assert measured["compactness"] == pytest.approx(4 * np.pi * 200 / 60**2)
    assert not baselines.describe(frame, np.zeros_like(mask)).any()


def test_a_forest_names_the_class_of_pairs_with_one_frame_or_two():
    train = samples.paired("", "train", size=(72, 96))
    masks = baselines.true_masks(train)
    probability = baselines.forest(train, masks, train, masks)
    assert probability.shape == (len(train), 3) and np.allclose(probability.sum(axis=1), 1)
    assert (probability.argmax(axis=1) == train.label.numpy()).mean() > 0.9


def test_ordered_classes_are_sure_between_their_thresholds_and_add_up_to_one():
    ph = torch.tensor([0.6, 0.0, -0.6])
    sharp = ordered(ph, torch.tensor([0.15, 0.15]), scale=torch.full((3,), 0.01))
    assert sharp.exp().argmax(dim=1).tolist() == [0, 1, 2] and torch.isfinite(sharp).all()
    soft = ordered(torch.linspace(-3, 3, 50), torch.tensor([0.2, 0.3]), scale=torch.full((50,), 0.4))
    torch.testing.assert_close(soft.exp().sum(dim=1), torch.ones(50))


def test_a_model_answers_at_the_size_of_the_frame_whatever_size_it_sees():
    model = Sized(models.build("plumenet"), (48, 64)).eval()
    batch = bench.blank(2, size=(90, 120))
    with torch.no_grad():
        outputs = model(batch)
    assert outputs["co2_logits"].shape == (2, 3, 90, 120) and outputs["class_logits"].shape == (2, 3)


def test_a_mirrored_model_says_the_same_of_mirrored_frames_and_learns_from_them_as_they_are():
    torch.manual_seed(0)
    model = Sized(models.build("plumenet"), (48, 64), mirrored=True).eval()
    alone = Sized(model.model, (48, 64))
    batch = bench.blank(2, size=(90, 120)) | {gas: torch.randn(2, 1, 90, 120) for gas in ("co2", "ch4")}
    flipped = batch | {gas: batch[gas].flip(-1) for gas in ("co2", "ch4")}
    with torch.no_grad():
        one, other, once = model(batch), model(flipped), alone(batch)
    torch.testing.assert_close(one["co2_logits"], other["co2_logits"].flip(-1))
    torch.testing.assert_close(one["class_logits"], other["class_logits"])
    assert not torch.allclose(one["co2_logits"], once["co2_logits"])
    torch.manual_seed(1)
    learning = model.train()(batch)["class_logits"]
    torch.manual_seed(1)
    torch.testing.assert_close(learning, alone(batch)["class_logits"])


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": "1,2"},
        {"alpha": "a,b,c"},
        {"height": 8},
        {"dropout": 3},
        {"masks": 0, "health": 0},
        {"model": "plumenet", "fusion": "full"},
        {"model": "early-fusion", "shared": False},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options):
    with pytest.raises(OptionError):
        tasks.PlumeTask(**options).build()


def test_a_loss_that_the_model_has_not_is_refused_by_name():
    task = tasks.PlumeTask(model="segmentation-only", height=48, masks=0)
    batch = task.load()["train"].__getitems__(range(2))
    with pytest.raises(OptionError, match="segmentation-only"):
        task.loss(task.build()(batch), batch)


@pytest.mark.parametrize(("options", "scored"), [({"masks": 0}, "balanced"), ({"health": 0}, "miou")])
def test_what_is_not_learned_is_not_scored_and_has_no_say_in_the_best_epoch(options, scored):
    task = tasks.PlumeTask(height=48, **options)
    valid = task.load()["valid"].__getitems__(range(4))
    with torch.no_grad():
        measured = task.score(*task.keep(task.build().eval()(valid), valid))
    assert {"balanced", "miou"} & measured.keys() == {scored} and np.isfinite(measured["selection_score"])


def test_training_on_pairs_with_both_gases_is_tested_on_all():
    full, every = (tasks.PlumeTask(height=48, gases=gases).load() for gases in ("full", "both"))
    assert len(full["train"]) < len(every["train"])
    assert len(full["valid"]) == len(every["valid"]) and len(full["test"]) == len(every["test"])


def test_a_task_can_be_left_out():
    task = tasks.PlumeTask(height=48)
    model = task.build().train()
    batch = task.load()["train"].__getitems__(range(8))
    alone = tasks.PlumeTask(height=48, masks=0)
    alone.loss(model(batch), batch).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.model.heads.parameters())


def test_a_sweep_is_published_by_case_and_one_run_again_takes_its_place(tmp_path, monkeypatch):
    plan = "task: plume\nvariants: {both tasks: {}, class only: {masks: 0}}\n"
    (tmp_path / "plume-tasks.yaml").write_text(plan + "fixed: {model: fume, height: 32, epochs: 1, batch: 32}\n")
    monkeypatch.setattr(ablations.sweep, "FOLDER", tmp_path)
    # a pool that starts at once; sweeps on dask's own workers are tested in test_sweep.py
    monkeypatch.setattr(ablations.sweep.cluster, "workers", lambda *_, count: ThreadPoolExecutor(count))
    out, was = tmp_path / "ablations.json", {"test": {"by_seed": {}}, "seeds": [1, 2, 3]}
    out.write_text(
        json.dumps({"about": {}, "rows": {"Which tasks are learned/both tasks": {}, "Classes and augmentation/x": was}})
    )
    asked = ["bench", "plume-ablations", "--only", "plume-tasks", "--seeds", "1", "--json", str(out)]
    said = CliRunner().invoke(cli.cli, asked, catch_exceptions=False)
    rows = json.loads(out.read_text())["rows"]
    assert "class only" in said.output and rows.pop("Classes and augmentation/x") == was
    assert list(rows) == ["Which tasks are learned/both tasks", "Which tasks are learned/class only"]
    row = rows["Which tasks are learned/both tasks"]
    assert row["seeds"] == [1] and 0 < row["test"]["miou"]["value"] < 1 and 0 < row["test"]["balanced"]["value"] <= 1


def test_classes_are_drawn_equally_often_unless_that_is_not_wanted():
    train = tasks.PlumeTask(height=48).load()["train"]
    label = train.label[train.row]
    shares = torch.zeros(3, dtype=torch.double).index_add(0, label, train.weights)
    torch.testing.assert_close(shares / shares.sum(), torch.full((3,), 1 / 3, dtype=torch.double))
    assert len(label.bincount().unique()) > 1
    assert tasks.PlumeTask(height=48, balance=False).load()["train"].weights is None


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_dropout_hides_one_gas_of_full_pairs_in_training_alone(split):
    shown = {}
    for dropout in (0.0, 1.0):
        data = tasks.PlumeTask(height=48, augment=False, dropout=dropout).load()[split]
        shown[dropout] = data.__getitems__(range(len(data)))["present"].sum(dim=1)
    assert (shown[0.0] == 2).any()
    assert (shown[1.0] == (1 if split == "train" else shown[0.0])).all()


def test_alpha_weighs_each_class_in_the_loss():
    plain, weighed = (tasks.PlumeTask(masks=0, alpha=alpha).loss for alpha in ("1,1,1", "2,3,5"))
    outputs = {"class_logits": torch.tensor([[0.3, -0.2, 0.5]])}
    for label, weight in enumerate((2, 3, 5)):
        known = {"label": torch.tensor([label])}
        torch.testing.assert_close(weighed(outputs, known), weight * plain(outputs, known))


def test_a_model_that_says_the_true_ph_has_no_loss_of_it():
    loss = tasks.PlumeTask(ph=2.0).loss
    known = {"ph": torch.tensor([5.2, 6.6])}
    assert loss({"ph": known["ph"] - tasks.PH}, known) == 0
    assert loss({"ph": tasks.PH - known["ph"]}, known) > 1
    off = loss({"ph": known["ph"] - tasks.PH + 1}, known)
    assert off == pytest.approx(2 * (1 - 0.3 / 2))  # linear from 0.3 on


def test_another_folder_is_tested_on_and_not_trained_on(tmp_path):
    folder = annotations.find()
    for kind in ("", "paired_"):
        rows = (folder / f"{kind}test_annotations.csv").read_text().splitlines()
        (tmp_path / f"{kind}test_annotations.csv").write_text("\n".join(rows[:4]) + "\n")
    for name in ("frames", "masks"):
        (tmp_path / name).symlink_to(folder / name)
    own, other = (tasks.PlumeTask(height=48, test=test).load() for test in ("", str(tmp_path)))
    assert len(other["test"]) == 3 < len(own["test"])
    assert [len(other[split]) for split in ("train", "valid")] == [len(own[split]) for split in ("train", "valid")]


class Moved(torch.nn.Module):
    """Says the true masks, so many rows too low."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, batch):
        above = (torch.arange(batch["co2_mask"].shape[1]) - self.rows).clamp(min=0)
        masks = {gas: batch[f"{gas}_mask"][:, above] for gas in GASES}
        return {f"{gas}_logits": torch.movedim(torch.eye(3)[mask], -1, 1) for gas, mask in masks.items()}


def test_outlines_that_lie_some_rows_too_low_are_as_far_from_the_true_ones():
    pytest.importorskip("monai")
    pairs = samples.paired("", "test", size=(72, 96))
    groups = baselines.videos("", pairs)
    assert scores.outlines(Moved(0), pairs, groups) == {"hd95": 0, "asd": 0, "outlined": 1}
    distances = scores.outlines(Moved(2), pairs, groups)
    assert distances["hd95"] == pytest.approx(2) and 1.2 < distances["asd"] < 1.6  # the sides have not moved


def test_the_distances_between_outlines_stand_in_the_row(result, monkeypatch):
    pytest.importorskip("monai")
    monkeypatch.setattr(bench.Bench, "baselines", lambda *_, **__: {})
    row = bench.run("", names=["ours"], seeds=1, failing=False, progress=len, training=QUICK)["rows"]["ours"]["test"]
    run, pairs = bench.trained("ours", data="", seed=1, **QUICK), samples.paired("", "test", size=(72, 96))
    expected = scores.outlines(model_of(run), pairs, baselines.videos("", pairs))
    assert {name: row[name] for name in ("hd95", "asd", "outlined")} == expected
    assert 0 < expected["asd"] < expected["hd95"] < 120 and "hd95" not in result["rows"]["ours"]["test"]


@pytest.mark.parametrize("gases", ["both", "co2"])
def test_what_was_emitted_is_known_of_each_gas_that_was_filmed(gases):
    lines = (annotations.find() / "emission.csv").read_text().splitlines()
    names = lines[0].split(",")
    known = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    true = {(row["original_sample_id"], row["gas_type"]): float(row["log_emission"]) for row in known}
    pairs = samples.paired("", "test", size=(72, 96), gases=gases)
    measured = baselines.emissions("", pairs, split="test")
    assert measured.shape == (len(pairs), 4) and len(pairs) > 10
    for row, place in zip(measured, pairs.row.tolist(), strict=True):
        frames = {gas: pairs.table[f"{gas}_frame"][place] for gas in GASES if gases in ("both", gas)}
        videos = {gas: Path(frame).name.split("_")[0] for gas, frame in frames.items() if frame}
        expected = [true[videos[gas], gas] if gas in videos else 0 for gas in GASES]
        assert row.tolist() == [*expected, *(float(gas in videos) for gas in GASES)]
