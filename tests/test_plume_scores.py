"""Scores of masks and classes, against torchmetrics', scikit-learn's and monai's."""

import numpy as np
import pytest
import torch

from smellkit.plume import GASES
from smellkit.study.plume import scores

ROWS = 24


@pytest.fixture(scope="module")
def split():
    torch.manual_seed(0)
    truth = {f"{gas}_mask": torch.randint(3, (ROWS, 20, 30)) for gas in GASES}
    present = torch.ones(ROWS, 2)
    present[:6, 1] = present[6:8, 0] = 0
    outputs = {f"{gas}_logits": torch.randn(ROWS, 3, 20, 30) for gas in GASES} | {"class_logits": torch.randn(ROWS, 3)}
    for gas in GASES:  # better than chance
        outputs[f"{gas}_logits"].scatter_add_(1, truth[f"{gas}_mask"][:, None], torch.ones(ROWS, 1, 20, 30))
    return outputs, truth | {"present": present, "label": torch.randint(3, (ROWS,)), "index": torch.arange(ROWS)}


@pytest.fixture(scope="module")
def scored(split):
    return scores.score(*scores.keep(*split))


def test_iou_is_torchmetrics_over_all_pixels_of_the_frames_that_are_there(split, scored):
    from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

    outputs, batch = split
    means = []
    for place, gas in enumerate(GASES):
        there = batch["present"][:, place] > 0
        pair = outputs[f"{gas}_logits"][there].argmax(1).flatten(), batch[f"{gas}_mask"][there].flatten()
        each = MulticlassJaccardIndex(3, average=None)(*pair)
        assert scored[f"iou_{gas}"] == pytest.approx(float(each.mean()), abs=1e-6)
        assert scored[f"plume_{gas}"] == pytest.approx(float(each[2]), abs=1e-6)
        dice, pixels = MulticlassF1Score(3, average="macro")(*pair), MulticlassAccuracy(3, average="micro")(*pair)
        means.append((float(each.mean()), float(dice), float(pixels)))
    assert [scored[name] for name in ("miou", "dice", "pixels")] == pytest.approx(np.mean(means, axis=0), abs=1e-6)


def test_class_scores_are_torchmetrics(split, scored):
    from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa, MulticlassF1Score

    pair = split[0]["class_logits"].argmax(1), split[1]["label"]
    assert scored["balanced"] == pytest.approx(float(MulticlassAccuracy(3, average="macro")(*pair)), abs=1e-6)
    assert scored["macro_f1"] == pytest.approx(float(MulticlassF1Score(3, average="macro")(*pair)), abs=1e-6)
    assert scored["weighted_f1"] == pytest.approx(float(MulticlassF1Score(3, average="weighted")(*pair)), abs=1e-6)
    assert scored["kappa"] == pytest.approx(float(MulticlassCohenKappa(3)(*pair)), abs=1e-6)
    assert scored["joint"] == pytest.approx((scored["miou"] + scored["balanced"]) / 2)


def test_what_is_said_of_a_missing_frame_does_not_count(split, scored):
    outputs, batch = split
    other = dict(outputs, ch4_logits=outputs["ch4_logits"].clone())
    other["ch4_logits"][:6] = torch.randn(6, 3, 20, 30)
    assert scores.score(*scores.keep(other, batch)) == scored


def test_scores_do_not_depend_on_the_batches(split, scored):
    outputs, batch = split
    kept = []
    for start in range(0, ROWS, 7):
        cut = slice(start, start + 7)
        kept.append(scores.keep({k: v[cut] for k, v in outputs.items()}, {k: v[cut] for k, v in batch.items()}))
    joined = [{name: torch.cat([part[side][name] for part in kept]) for name in kept[0][side]} for side in (0, 1)]
    assert scores.score(*joined) == scored


def test_what_is_kept_of_a_frame_does_not_grow_with_it(split):
    kept, rows = scores.keep(*split)
    assert sum(t.numel() for t in (*kept.values(), *rows.values())) < 40 * ROWS


def test_a_model_without_a_task_is_scored_on_the_other(split):
    outputs, batch = split
    masks = scores.score(*scores.keep({k: v for k, v in outputs.items() if k != "class_logits"}, batch))
    assert "balanced" not in masks and masks["joint"] == masks["miou"]
    classes = scores.score(*scores.keep({"class_logits": outputs["class_logits"]}, batch))
    assert "miou" not in classes and classes["joint"] == classes["balanced"]


def test_a_split_with_one_gas_is_scored_on_that_gas(split):
    outputs, batch = split
    present = torch.tensor([[1.0, 0.0]]).repeat(ROWS, 1)
    alone = scores.score(*scores.keep(outputs, batch | {"present": present}))
    assert alone["miou"] == alone["iou_co2"] and "iou_ch4" not in alone


def test_a_constant_answer_has_no_kappa_and_a_third_of_balanced_accuracy():
    scored = scores.of_class(np.zeros(9, int), np.repeat([0, 1, 2], 3))
    assert scored["kappa"] == 0 and scored["balanced"] == pytest.approx(1 / 3)
    assert scores.of_class(np.zeros(3, int), np.zeros(3, int))["kappa"] == 0


def test_outlines_two_pixels_apart_have_that_distance():
    pytest.importorskip("monai")
    target, answer = np.zeros((1, 24, 24), np.uint8), np.zeros((1, 24, 24), np.uint8)
    target[0, 4:12, 4:12] = answer[0, 4:12, 6:14] = 2
    scored = scores.surface(answer, target)
    assert scored["hd95"] == pytest.approx(2) and 0.5 < scored["asd"] < 2
    assert scores.surface(target, target) == {"hd95": 0, "asd": 0, "outlined": 1}
    missed = np.stack([target[0], np.zeros_like(target[0])])
    assert scores.surface(missed, np.stack([target[0]] * 2)) == {"hd95": 0, "asd": 0, "outlined": 0.5}
