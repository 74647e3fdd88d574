"""The focal loss, against torch's cross-entropy and the formula of its paper."""

import pytest
import torch
from torch.nn import functional as F

from smellkit.study.losses import focal

torch.manual_seed(0)
LOGITS, TARGET = torch.randn(64, 5), torch.randint(5, (64,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gamma_zero_is_cross_entropy_and_nearly_zero_is_near_it(smoothing):
    expected = F.cross_entropy(LOGITS, TARGET, label_smoothing=smoothing)
    assert torch.allclose(focal(LOGITS, TARGET, smoothing=smoothing), expected, atol=1e-6)
    assert torch.allclose(focal(LOGITS, TARGET, smoothing=smoothing, gamma=1e-6), expected, atol=1e-4)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0])
def test_gamma_weighs_each_sample_as_in_the_paper(gamma):
    p = LOGITS.softmax(1).gather(1, TARGET[:, None])[:, 0]
    assert torch.allclose(focal(LOGITS, TARGET, gamma=gamma), (-((1 - p) ** gamma) * p.log()).mean(), atol=1e-6)


def test_a_sure_and_right_answer_costs_less_with_a_larger_gamma():
    sure = torch.tensor([[8.0, 0.0]])
    losses = [focal(sure, torch.tensor([0]), gamma=gamma).item() for gamma in (0, 1, 2)]
    assert losses[0] > losses[1] > losses[2]


def test_pixels_are_classes_in_the_second_dimension():
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    one_by_one = torch.movedim(logits, 1, -1).reshape(-1, 3), target.reshape(-1)
    assert torch.allclose(focal(logits, target, gamma=2.0), focal(*one_by_one, gamma=2.0), atol=1e-6)


def test_the_gradient_stays_finite_when_the_answer_is_certain():
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
    focal(logits, torch.tensor([0, 0]), gamma=2.0).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_distribution_as_target_is_as_good_as_a_class():
    hard = F.one_hot(TARGET, 5).float()
    assert torch.allclose(focal(LOGITS, hard, gamma=2.0), focal(LOGITS, TARGET, gamma=2.0))
