"""Each part of the augmentation alone: what it changes, by how much, and what it leaves as it was."""

import numpy as np
import pytest
import torch

from smellkit.study.plume.data import KERNEL, Augment

OFF = {"flip": 0, "affine": 0, "elastic": 0, "spoil": 0, "light": 0, "gamma": 0}
MOVED = {"shift": 0, "scale": 0, "rotate": 0}


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


def places(**chosen):
    """Where the pixels of 60 frames come from, as complex numbers of pixels from the centre: without a change, with."""
    frames = torch.zeros(60, 2, 30, 40)
    half = torch.tensor([20.0, 15.0])
    grids = [Augment(**{**OFF, **more}).grid(frames) * half for more in ({}, {"affine": 1, **MOVED, **chosen})]
    return [torch.view_as_complex(grid.contiguous()) for grid in grids]


def the_same_everywhere(after):
    """One number a frame, which all its places share."""
    assert torch.allclose(after, after[:, :1, :1].expand_as(after), atol=1e-3)
    return after[:, 0, 0]


def test_a_rotation_turns_the_frame_either_way_and_keeps_its_shape():
    before, after = places(rotate=15)
    turned = the_same_everywhere(after / before)
    assert torch.allclose(turned.abs(), torch.ones(60), atol=1e-3)
    degrees = turned.angle().rad2deg()
    assert -15.01 < degrees.min() < -8 and 8 < degrees.max() < 15.01


def test_a_scale_makes_the_frame_larger_or_smaller_about_its_centre():
    before, after = places(scale=0.15)
    scale = the_same_everywhere(before / after)
    assert scale.imag.abs().max() < 1e-3
    assert 0.849 < scale.real.min() < 0.92 and 1.08 < scale.real.max() < 1.151


def test_a_shift_moves_the_frame_by_a_tenth_at_most():
    before, after = places(shift=0.1)
    off = the_same_everywhere(after - before)
    for part, length in ((off.real, 40), (off.imag, 30)):
        assert 0.06 * length < part.max() <= 0.1 * length + 1e-3 and -0.1 * length - 1e-3 <= part.min() < -0.06 * length


def test_a_moved_mask_has_no_class_that_was_not_there():
    masks = torch.zeros(20, 2, 48, 64, dtype=torch.long)
    masks[:, :, 10:30, 12:40] = 2  # between 0 and 2 a smooth warp would find 1
    _, moved = Augment(**{**OFF, "affine": 1, "elastic": 1})(torch.zeros(20, 2, 48, 64), masks)
    assert not torch.equal(moved, masks) and set(moved.unique().tolist()) == {0, 2}


def test_a_spoiled_frame_is_noisy_blurred_evenly_or_blurred_in_one_direction():
    frames = torch.zeros(60, 2, 21, 21)
    frames[:, :, 10, 10] = 1
    after = Augment(**{**OFF, "spoil": 1}).smear(frames)
    assert (after != frames).flatten(1).any(dim=1).all()
    noisy = (after < 0).flatten(1).any(dim=1)
    deviation = (after - frames)[noisy].flatten(1).std(dim=1) * 255
    assert deviation.min() > 10**0.5 * 0.9 and deviation.max() < 50**0.5 * 1.1
    blurred = after[~noisy]
    assert torch.allclose(blurred.sum(dim=(2, 3)), torch.ones(len(blurred), 2), atol=1e-4)  # as bright as before
    assert blurred[:, :, 10, 10].max() < 0.9
    far = torch.ones(21, 21, dtype=torch.bool)
    far[10 - KERNEL // 2 : 11 + KERNEL // 2, 10 - KERNEL // 2 : 11 + KERNEL // 2] = False
    assert not blurred[:, :, far].any() and torch.equal(blurred[:, 0], blurred[:, 1])
    round_ = (blurred - blurred.rot90(dims=(2, 3))).abs().flatten(1).amax(dim=1) < 1e-5
    kinds = np.array([noisy.sum(), round_.sum(), (~round_).sum()])
    assert kinds.sum() == 60 and (kinds > 8).all()


def test_noise_is_not_the_same_in_both_gases():
    frames = torch.full((30, 2, 16, 16), 0.5)
    after = Augment(**{**OFF, "spoil": 1}).smear(frames)
    noisy = after.flatten(1).std(dim=1) > 1e-4
    assert noisy.any() and not torch.isclose(after[noisy][:, 0], after[noisy][:, 1]).all()


LEVELS = torch.tensor([0.3, 0.4, 0.6]).view(1, 1, 1, 3).expand(80, 2, 4, 3)


def shaded(**chosen):
    """Grey levels of 80 frames after a change of light: (80, 3), and the same in all rows and both gases."""
    after = Augment(**{**OFF, **chosen}).shade(LEVELS)
    assert torch.equal(after, after[:, :1, :1].expand_as(after))
    return after[:, 0, 0], LEVELS[:, 0, 0]


def test_brightness_adds_the_same_to_every_level():
    after, before = shaded(light=1, brightness=0.2, contrast=0)
    added = after - before
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-6)
    assert -0.201 < added.min() < -0.12 and 0.12 < added.max() < 0.201


def test_contrast_multiplies_every_level():
    after, before = shaded(light=1, brightness=0, contrast=0.2)
    gain = after / before
    assert torch.allclose(gain, gain[:, :1].expand_as(gain), atol=1e-6)
    assert 0.799 < gain.min() < 0.88 and 1.12 < gain.max() < 1.201


def test_gamma_raises_every_level_to_one_power():
    after, before = shaded(gamma=1, gammas=(0.8, 1.2))
    power = after.log() / before.log()
    assert torch.allclose(power, power[:, :1].expand_as(power), atol=1e-4)
    assert 0.799 < power.min() < 0.88 and 1.12 < power.max() < 1.201


@pytest.mark.parametrize("part", ["flip", "affine", "elastic", "spoil", "light", "gamma", "invert"])
def test_a_chance_is_the_share_of_frames_that_are_changed(part):
    frames = torch.rand(400, 1, 12, 16) * 0.5 + 0.2
    options = {**OFF, part: 0.3}
    after, _ = Augment(**options)(frames, torch.zeros_like(frames, dtype=torch.long))
    changed = ((after - frames).abs() > 2e-3).flatten(1).any(dim=1).float().mean()
    assert 0.2 < changed < 0.4
