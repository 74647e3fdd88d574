"""FUME, its variants and its baselines: published sizes, shapes, gradients, and what a missing gas may change."""

import pytest
import torch

from smellkit import checkpoint as weights
from smellkit.errors import OptionError
from smellkit.plume import GASES, layers, models
from smellkit.study.plume import bench

SMALL = [name for name in models.MODELS if "resnet" not in name]

PARTS = {  # the published counts
    "ResNet-50": (layers.ResNet, 23_501_760),
    "Fast-SCNN": (layers.FastSCNN, 1_071_888),
    "self-attention": (lambda: layers.Attention(128, 16), 20_641),
    "cross-modal attention": (lambda: layers.Attention(128, 64), 33_025),
    "channel attention": (lambda: layers.ChannelAttention(256), 8_464),
    "fusion": (lambda: models.Fusion(128, "cross").join[1:], 295_296),
    "DeepLabV3+ head": (lambda: layers.DeepLabHead(256, 2048), 16_841_619),
    "classifier of ResNet-50": (lambda: layers.Classifier(2048, (512, 256)), 1_181_187),
    "classifier of Fast-SCNN": (lambda: layers.Classifier(128, (256, 128)), 66_307),
}

WHOLE = {  # parameters, and 10^9 multiply-accumulates at 640 x 480
    "fume-attention": (1_656_236, 2.033),
    "fume-separate": (2_728_124, None),
    "fume": (1_278_681, 1.862),
    "segmentation-only": (1_141_875, 0.926),
    "classification-only": (1_138_195, 0.635),
    "gas-aware": (1_154_707, 0.635),
    "early-fusion": (1_175_958, 0.948),
}

EXTRA = ("each_class_logits", "ph")  # for losses
MILLIONS = {"fume-resnet": 175.2, "fume-resnet-shared": 151.7, "fume-resnet-plain": 90.3}


def pair(count=2, size=(64, 96), present=((1, 1), (1, 1))):
    torch.manual_seed(0)
    there = torch.tensor(present, dtype=torch.float32)[:count]
    frames = {gas: torch.randn(count, 1, *size) * there[:, i, None, None, None] for i, gas in enumerate(GASES)}
    return frames | {"present": there}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_the_published_number_of_parameters(part):
    builder, expected = PARTS[part]
    with torch.device("meta"):
        assert sum(p.numel() for p in builder().parameters()) == expected


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_has_the_published_parameters_and_multiply_accumulates(name):
    parameters, giga = WHOLE[name]
    counted = bench.counts(name)
    assert counted.parameters == parameters
    assert giga is None or round(counted.macs / 1e9, 3) == giga


@pytest.mark.parametrize("name", MILLIONS)
def test_a_model_on_resnet_has_the_published_millions_of_parameters(name):
    assert round(bench.counts(name).parameters / 1e6, 1) == MILLIONS[name]


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_says_what_its_tasks_ask_for(name):
    with torch.device("meta"):
        outputs = models.build(name).eval()(bench.blank(2, size=(96, 128)))
    said = {key: tuple(value.shape) for key, value in outputs.items() if key not in EXTRA}
    masks = {f"{gas}_logits": (2, 3, 96, 128) for gas in GASES}
    assert said.items() <= (masks | {"class_logits": (2, 3)}).items()
    assert masks.keys() <= said.keys() or "classification" in name or "gas-aware" in name
    assert "class_logits" in said or "segmentation" in name


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    model = models.build(name).train()
    outputs = model(pair())
    sum(value.square().mean() for value in outputs.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_model_says_the_same(name, tmp_path):
    model = models.build(name).eval()
    weights.save(tmp_path, model.state_dict(), {})
    other = weights.fill(models.build(name), weights.load(tmp_path)[0]).eval()
    with torch.no_grad():
        one, two = model(pair()), other(pair())
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(48, 64), (97, 61)])
def test_masks_are_as_large_as_the_frames(name, size):
    with torch.no_grad():
        outputs = models.build(name).eval()(pair(1, size))
    assert all(outputs[f"{gas}_logits"].shape[-2:] == size for gas in GASES if f"{gas}_logits" in outputs)


@pytest.mark.parametrize("name", SMALL)
def test_what_stands_in_a_missing_frame_changes_nothing(name):
    model = models.build(name).eval()
    for parameter in model.parameters():  # attention begins at zero, which would hide a leak
        parameter.data.add_(0.01)
    batch = pair(2, present=((1, 0), (0, 1)))
    noise = {
        gas: batch[gas] + torch.randn(2, 1, 64, 96) * (1 - batch["present"])[:, i, None, None, None]
        for i, gas in enumerate(GASES)
    }
    with torch.no_grad():
        one, two = model(batch), model(batch | noise)
    for key in ("co2_logits", "ch4_logits", "class_logits"):
        if key in one:
            torch.testing.assert_close(one[key], two[key])
    if "co2_logits" in one:
        assert (one["co2_logits"][1].argmax(dim=0) == 0).all() and (one["ch4_logits"][0].argmax(dim=0) == 0).all()


def test_a_single_frame_gives_what_the_pair_says_of_it():
    model, batch = models.build("segmentation-only").eval(), pair()
    with torch.no_grad():
        single = model.look(batch["ch4"], torch.ones(2, dtype=torch.long))["logits"]
        torch.testing.assert_close(model(batch)["ch4_logits"], single)


def test_an_unknown_model_or_fusion_is_refused_with_the_nearest_name():
    with pytest.raises(OptionError, match="early-fusion"):
        models.build("early-fusoin")
    with pytest.raises(OptionError, match="concat"):
        models.FUME(fusion="glue")


def test_each_stream_attends_to_the_other_gas_and_not_itself():
    torch.manual_seed(0)
    cross = layers.Attention(16, 64)
    cross.gamma.data.fill_(1)
    co2, ch4 = torch.randn(2, 1, 16, 1, 1)  # at one place the mean over places is what the other says there
    with torch.no_grad():
        torch.testing.assert_close(cross(co2, ch4), co2 + cross.value(ch4))
        torch.testing.assert_close(cross(co2, ch4, torch.zeros(1, 1, 1, 1)), co2)
        fusion = models.Fusion(16, "cross").eval()
        fusion.cross = cross
        mixed = fusion(co2, ch4, torch.tensor([[1.0, 0.0]]))[0]  # there is no CH4
        torch.testing.assert_close(mixed, (co2, ch4 + cross.value(co2)))


def test_a_stream_looks_where_the_other_gas_answers_it():
    torch.manual_seed(0)
    cross = layers.Attention(16, 64)
    cross.gamma.data.fill_(1)
    co2, ch4 = torch.randn(2, 1, 16, 3, 4)
    answers = torch.einsum("bcq,bck->bqk", cross.query(co2).flatten(2), cross.key(ch4).flatten(2)).softmax(dim=2)
    expected = torch.einsum("bqk,bck->bcq", answers, cross.value(ch4).flatten(2)).view_as(co2)
    torch.testing.assert_close(cross(co2, ch4), co2 + expected)


@pytest.mark.parametrize("name", ["fume-resnet-shared", "gas-aware-resnet", "early-fusion-resnet"])  # all of the parts
def test_a_model_on_resnet_learns_with_every_parameter(name):
    pytest.importorskip("transformers")
    model = models.build(name).train()
    batch = pair(2, (48, 64))
    outputs = model(batch)
    sum(value.square().mean() for value in outputs.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    assert all(p.isfinite().all() for p in model.parameters())
    assert {gas: outputs[f"{gas}_logits"].shape for gas in GASES if f"{gas}_logits" in outputs} == (
        {} if "gas-aware" in name else dict.fromkeys(GASES, (2, 3, 48, 64))
    )
