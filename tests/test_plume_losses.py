"""The losses of masks and classes, against monai's and against torch's."""

import pytest
import torch
from torch.nn import functional as F

from smellkit.plume import GASES
from smellkit.study.losses import focal
from smellkit.study.plume import task as losses


@pytest.fixture(scope="module")
def monai():
    """Its losses; whoever only collects the tests does not wait for the import."""
    return pytest.importorskip("monai.losses")


torch.manual_seed(0)
LOGITS, MASK = torch.randn(3, 3, 12, 16), torch.randint(3, (3, 12, 16))
CLASS_LOGITS, CLASS = torch.randn(8, 3), torch.randint(3, (8,))
ALPHA = torch.tensor([1.0, 8.0, 1.2])


def outputs():
    return {f"{gas}_logits": torch.randn(3, 3, 12, 16, requires_grad=True) for gas in GASES} | {
        "class_logits": torch.randn(3, 3, requires_grad=True)
    }


def batch(present):
    masks = {f"{gas}_mask": torch.randint(3, (3, 12, 16)) for gas in GASES}
    return masks | {"present": torch.tensor(present, dtype=torch.float32), "label": torch.tensor([0, 1, 2])}


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_the_focal_loss_of_classes_is_monais(monai, gamma):
    theirs = monai.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=gamma, weight=ALPHA, reduction="none")
    expected = theirs(CLASS_LOGITS, CLASS[:, None]).sum(dim=1).mean()  # monai averages over classes too
    torch.testing.assert_close(losses.alpha_focal(CLASS_LOGITS, CLASS, alpha=ALPHA, gamma=gamma), expected)


@pytest.mark.parametrize("smooth", [1.0, 1e-5])
def test_dice_is_monais(monai, smooth):
    theirs = monai.DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=smooth, smooth_dr=smooth)
    torch.testing.assert_close(losses.dice(LOGITS, MASK, smooth=smooth), theirs(LOGITS, MASK[:, None]))


def test_focal_dice_is_half_of_each_of_monais(monai):
    dice = monai.DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=1, smooth_dr=1)
    focal = monai.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0)  # averaged over the three classes too
    expected = 0.5 * dice(LOGITS, MASK[:, None]) + 0.5 * 3 * focal(LOGITS, MASK[:, None])
    torch.testing.assert_close(losses.focal_dice(LOGITS, MASK), expected)


def test_a_weighted_cross_entropy_is_torchs_but_for_its_divisor():
    expected = F.cross_entropy(CLASS_LOGITS, CLASS, weight=ALPHA, reduction="sum") / len(CLASS)
    torch.testing.assert_close(losses.alpha_focal(CLASS_LOGITS, CLASS, alpha=ALPHA, gamma=0), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_certain_answer_has_a_loss_of_nothing_and_a_finite_slope(gamma):
    certain = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    losses.alpha_focal(certain, torch.tensor([0]), alpha=ALPHA, gamma=gamma).backward()
    shared = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    focal(shared, torch.tensor([0]), gamma=gamma).backward()
    assert torch.isfinite(certain.grad).all() and torch.isfinite(shared.grad).all()


def test_only_samples_that_have_the_gas_are_asked_for_its_mask():
    said, known = outputs(), batch([[1, 1], [1, 0], [0, 1]])
    losses.of_masks(said, known).backward()
    asked = {gas: (said[f"{gas}_logits"].grad != 0).any(dim=(1, 2, 3)).tolist() for gas in GASES}
    assert asked == {"co2": [True, True, False], "ch4": [True, False, True]}


def test_both_gases_weigh_the_same_however_often_each_is_there():
    said, known = outputs(), batch([[1, 1], [1, 0], [1, 0]])
    parts = [
        losses.focal_dice(said["co2_logits"], known["co2_mask"]),
        losses.focal_dice(said["ch4_logits"][:1], known["ch4_mask"][:1]),
    ]
    torch.testing.assert_close(losses.of_masks(said, known), sum(parts) / 2)


def test_a_batch_without_any_gas_has_no_loss_of_masks():
    loss = losses.of_masks(outputs(), batch([[0, 0]] * 3))
    loss.backward()
    assert loss.item() == 0


def test_a_model_of_single_frames_answers_for_those_that_are_there():
    each = torch.randn(3, 2, 3)
    known = batch([[1, 1], [1, 0], [0, 1]])
    frames, labels = torch.stack([each[0, 0], each[0, 1], each[1, 0], each[2, 1]]), torch.tensor([0, 0, 1, 2])
    torch.testing.assert_close(
        losses.of_class({"each_class_logits": each}, known, alpha=ALPHA),
        losses.alpha_focal(frames, labels, alpha=ALPHA),
    )


def test_a_task_of_weight_zero_is_left_out_even_if_it_is_not_finite():
    said = {"class_logits": torch.full((3, 3), float("nan")), "ph": torch.zeros(3)}
    known = {"label": torch.tensor([0, 1, 2]), "ph": torch.full((3,), losses.PH)}
    assert losses.PlumeTask(health=0, ph=1).loss(said, known) == 0
