"""Every model of the odour encoder: shapes, gradients, and the same answers after saving."""

import pytest
import torch

from smellkit import checkpoint as weights
from smellkit.errors import OptionError, WeightsError
from smellkit.odour.encoder import BACKBONES, Z_CHANNELS, make

SHAPE = (60, 6)


def model(name, **options):
    torch.manual_seed(0)
    made = make(name, SHAPE, classes=7, **options)
    return made.prepare(torch.randn(64, *SHAPE).cumsum(1))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_window_becomes_fifty_channels_and_logits(name):
    outputs = model(name).eval()({"window": torch.randn(3, *SHAPE)})
    assert outputs["z"].shape == (3, Z_CHANNELS) == (3, 50)
    assert outputs["logits"].shape == (3, 7)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_learns(name):
    made = model(name).train()
    made({"window": torch.randn(8, *SHAPE).cumsum(1)})["logits"].square().sum().backward()
    still = [n for n, p in made.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not still
    assert sum(float(p.grad.abs().sum()) > 0 for p in made.parameters()) > len(list(made.parameters())) // 2


@pytest.mark.parametrize("name", BACKBONES)
def test_saved_weights_give_the_same_answers(name, tmp_path):
    made = model(name).eval()
    weights.save(tmp_path, made.state_dict(), {})
    again = weights.fill(make(name, SHAPE, classes=7), weights.load(tmp_path)[0]).eval()
    window = {"window": torch.randn(4, *SHAPE)}
    assert torch.equal(made(window)["logits"], again(window)["logits"])


@pytest.mark.parametrize("name", BACKBONES)
def test_an_answer_does_not_depend_on_the_other_windows(name):
    made = model(name).eval()
    windows = torch.randn(6, *SHAPE)
    alone = made({"window": windows[2:3]})["logits"]
    assert torch.allclose(made({"window": windows})["logits"][2:3], alone, atol=1e-4)


@pytest.mark.parametrize("options", [{"positions": "learned"}, {"pool": "cls"}])
def test_the_transformer_has_its_variants(options):
    assert model("scentformer", **options)({"window": torch.randn(2, *SHAPE)})["logits"].shape == (2, 7)


def test_summaries_known_before_change_nothing():
    from smellkit.odour.features import summarise

    made, window = model("curve-mlp").eval(), torch.randn(4, *SHAPE)
    known = made({"window": window, "summary": made.backbone.normalizer(summarise(window, lag=25))})["logits"]
    assert torch.allclose(known, made({"window": window})["logits"], atol=1e-5)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(OptionError, match="scentformer"):
        make("scentformr", SHAPE, classes=3)


def test_weights_of_another_shape_are_refused(tmp_path):
    weights.save(tmp_path, model("lstm").state_dict(), {})
    with pytest.raises(WeightsError, match="do not fit"):
        weights.fill(make("lstm", SHAPE, classes=8), weights.load(tmp_path)[0])
