"""The two small pretrained networks: the right bytes, the published answers, and no others."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from smellkit import paths
from smellkit.checks import read_picture
from smellkit.errors import SmellkitError, WeightsError
from smellkit.odour.scene_encoder import PICTURES, TEXTS, CompactScene, installed, load_scene_encoder, verified, views
from smellkit.odour.scents import list_pictures

pytestmark = pytest.mark.skipif(not installed(), reason="pip install 'smellkit[senses]'")
REAL = paths.raw() / "smellnet" / "images"
IMAGENET = {"banana": 954, "strawberry": 949, "mandarin_orange": 950}  # banana, strawberry, orange of the 1,000 classes


@pytest.fixture(scope="module")
def encoder():
    return CompactScene()


def test_it_is_the_encoder_where_it_is_installed():
    assert isinstance(load_scene_encoder(), CompactScene)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs pictures of fruit")
@pytest.mark.parametrize("scent", IMAGENET)
def test_pictures_of_fruit_get_the_answer_of_imagenet(encoder, scent):
    files = sorted((REAL / scent).iterdir())[:3]
    for file in files:
        scores = encoder.embed_pictures([read_picture(Path(file))])
        assert scores.shape == (1, 1000) and scores[0].argmax() == IMAGENET[scent], file


def test_four_views_of_a_drawing_have_the_networks_shape_and_range(encoder):
    seen = views(read_picture(Path(list_pictures()["file"].iloc[0])))
    assert seen.shape == (4, 3, 224, 224) and seen.min() >= -1 and seen.max() <= 1
    assert torch.equal(seen[1], seen[0].flip(-1))


def test_sentences_that_mean_the_same_lie_closer_than_those_that_share_words(encoder):
    dentist, clove, water = encoder.embed_texts(
        ["smells like the dentist", "clove oil against toothache", "like water"]
    )
    assert dentist @ clove > dentist @ water
    np.testing.assert_allclose(np.linalg.norm(dentist), 1, atol=1e-5)


def test_a_text_is_embedded_alone_as_in_a_batch(encoder):
    alone = encoder.embed_texts(["green"])
    batch = encoder.embed_texts(["green", "a much longer description of something that smells of grass and rain"])
    np.testing.assert_allclose(alone[0], batch[0], atol=1e-5)


@pytest.mark.parametrize("package", [PICTURES, TEXTS])
def test_other_bytes_than_the_known_ones_are_refused(package):
    assert verified(*package).is_file()
    with pytest.raises(WeightsError, match="SHA-256"):
        verified(*package[:2], "0" * 64)
    with pytest.raises(WeightsError, match="not there"):
        verified(package[0], "models/other.pth", package[2])


def test_the_rest_of_a_text_of_more_tokens_is_left_unread_and_that_is_said(encoder, caplog):
    encoder.embed_texts(["sweet and ripe"])
    assert not caplog.records
    encoder.embed_texts(["sweet and ripe " * 100])
    assert "first 256 tokens" in caplog.text


def test_a_package_that_is_absent_is_named_with_what_to_install():
    with pytest.raises(SmellkitError, match="not installed"):
        verified("no_such_package_of_models", "a", "b")


def test_no_code_of_the_packages_is_run(encoder):
    import sys

    encoder.embed_texts(["green"])
    encoder.embed_pictures([read_picture(Path(list_pictures()["file"].iloc[0]))])
    assert not {PICTURES[0], TEXTS[0]} & set(sys.modules)
    assert importlib.util.find_spec(PICTURES[0]) is not None and installed()
