"""One way from a recording, a picture and a text to a mixture, and from there to the player."""

import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from smellkit import checkpoint
from smellkit.device.neckwear import NeckWear
from smellkit.errors import DataError, OptionError, WeightsError
from smellkit.odour import recordings
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Evidence, Pipeline, as_mixture, named
from smellkit.odour.predict import mixture
from smellkit.odour.scents import SCENTS, list_pictures
from smellkit.odour.smell import MixtureSmell, load_smell


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.fit()


@pytest.fixture(scope="module")
def table():
    return recordings.read_recordings(None, "testing")


def of(table, substance):
    return table[table["substance"] == substance]


def test_a_table_a_file_and_an_array_are_the_same_recording(pipeline, table):
    rows = of(table, "garlic")
    file = recordings.find() / rows["file"].iloc[0]
    answers = [pipeline(rows), pipeline(file), pipeline(rows[list(pipeline.smell.columns)].to_numpy())]
    assert {answer.name for answer in answers} == {"garlic"}
    for answer in answers[1:]:
        np.testing.assert_allclose(answer.probabilities, answers[0].probabilities, atol=1e-9)


def test_a_table_goes_by_the_times_in_its_index(pipeline, table):
    rows = of(table, "garlic")
    times = pd.date_range("2025-03-01 12:43", periods=len(rows), freq="100ms")
    with pytest.raises(DataError, match="rows are fewer than the 125 of one window"):
        pipeline(rows.set_index(times))
    assert pipeline(rows.set_index(times[0] + 10 * (times - times[0]))).name == "garlic"


def test_fifty_channels_become_an_odour_vector_that_is_their_weighted_sum(pipeline, table):
    smell = pipeline.smell
    windows = smell.windows(of(table, "mango")[list(smell.columns)].to_numpy())
    z = smell.channels(windows)
    assert z.shape == (len(windows), 50)
    alpha, offset = (value.detach().numpy() for value in (smell.network.head.weight.T, smell.network.head.bias))
    np.testing.assert_allclose(smell.odour(z), z @ alpha + offset, atol=1e-3)
    np.testing.assert_allclose(smell.odour(z).argmax(1), smell.scores(windows).argmax(1))


def test_beta_has_the_twelve_scents_in_the_order_of_the_player(pipeline, table):
    answer = pipeline(of(table, "mango"))
    assert tuple(answer.beta) == SCENTS
    assert abs(sum(answer.shares) - 1) < 1e-6
    assert max(answer.beta, key=answer.beta.get) == answer.name == "mango"


def test_three_senses_say_more_than_one(pipeline, table):
    picture = list_pictures().query("scent == 'mango'")["file"].iloc[0]
    alone, fused = pipeline(picture=picture), pipeline(of(table, "mango"), picture=picture, text="tropical and ripe")
    vague = pipeline(text="fruity")
    assert vague.confidence < fused.confidence
    assert list(alone.evidence) == ["picture"]
    assert list(fused.evidence) == ["smell", "picture", "text"]
    assert fused.name == "mango" and fused.confidence > 0.9
    assert abs(sum(fused.shares) - 1) < 1e-6 and not fused.reason


def test_shipped_weights_take_a_recording_a_picture_and_a_text():
    answer = Pipeline.load()(
        picture=list_pictures().query("scent == 'pear'")["file"].iloc[0], text="green and watery, a pear"
    )
    assert answer.name == "pear" and not answer.abstains
    assert answer.evidence["text"].shares["pear"] > 0.5 and 0 < answer.evidence["text"].trust <= 1


def test_several_pictures_of_one_scene_are_taken_together():
    pipeline = Pipeline.load()
    pictures = [list_pictures().query("scent == @name")["file"].iloc[0] for name in ("banana", "garlic")]
    answer = pipeline(picture=pictures)
    assert {name for name, share in answer.beta.items() if share > 0.1} == {"banana", "garlic"}
    assert not answer.mixture_reason


def test_a_text_that_is_like_nothing_known_is_left_out():
    answer = Pipeline.load()(text="1234 5678 9999")
    assert answer.evidence["text"].trust == 0
    assert "like nothing" in answer.reason and answer.mixture_reason


def test_nothing_to_recognise_is_refused(pipeline):
    with pytest.raises(OptionError, match="a recording, a picture or a text"):
        pipeline()


def test_the_mixture_board_has_a_pipeline_too():
    smell = load_smell("mixture")
    assert isinstance(smell, MixtureSmell)
    counts = np.random.default_rng(7).uniform(100, 900, (200, 4))
    answer = Pipeline(smell)(counts)
    assert smell.windows(counts).shape == (3, 100, 4)
    assert abs(sum(answer.shares) - 1) < 1e-6


def test_weights_of_another_kind_are_refused():
    with pytest.raises(WeightsError, match="plume"):
        load_smell("plume")


@pytest.mark.parametrize("rows", [np.zeros((10, 6)), np.zeros((200, 5)), np.zeros(200)])
def test_a_recording_that_is_too_short_or_of_another_nose_is_refused(pipeline, rows):
    with pytest.raises(DataError, match="rows"):
        pipeline(rows)


def test_a_table_without_a_column_is_refused_by_its_name(pipeline, table):
    with pytest.raises(DataError, match="LPG"):
        pipeline(of(table, "mango").drop(columns="LPG"))


shares = arrays.arrays(float, 12, elements=st.floats(0, 1))


@given(shares=shares)
def test_beta_is_a_mixture_whatever_the_shares(shares):
    answer = as_mixture(shares)
    assert min(answer.shares) >= 0
    assert abs(sum(answer.shares) - 1) < 1e-6


@settings(max_examples=20, deadline=None)
@given(first=shares, second=shares, trust=st.sampled_from([0.0, 0.9]))
def test_fused_evidence_is_a_mixture_whatever_the_senses_say(pipeline, first, second, trust):
    answer = pipeline.fuse(shown={"picture": Evidence(named(first), trust), "text": Evidence(named(second), 0.9)})
    assert min(answer.shares) >= 0
    assert abs(sum(answer.shares) - 1) < 1e-6


def test_a_sense_that_is_not_trusted_changes_nothing(pipeline):
    text = Evidence(named(np.eye(12)[3]), 0.9)
    alone = pipeline.fuse(shown={"text": text})
    beside = pipeline.fuse(shown={"picture": Evidence(named(np.eye(12)[7]), trust=0.0), "text": text})
    np.testing.assert_allclose(alone.shares, beside.shares)


def test_a_substance_that_the_player_has_not_is_none_of_the_twelve_beside_a_text_too(pipeline, table):
    answer = pipeline(of(table, "mint"), text="cool and fresh")
    assert answer.reason and answer.mixture_reason


def test_a_recording_says_by_its_columns_which_board_it_is_of():
    pipeline = Pipeline.load()
    file = sorted((recordings.find() / "mixture/test_seen").rglob("*.csv"))[0]
    np.testing.assert_allclose(pipeline(file).shares, Pipeline.load("mixture")(file).shares)
    counts = np.random.default_rng(7).uniform(100, 900, (200, 4))
    np.testing.assert_allclose(pipeline(counts).shares, Pipeline.load("mixture")(counts).shares)
    with pytest.raises(OptionError, match="no nose"):
        pipeline(counts, nose="dog")


def test_what_is_refused_is_not_played(pipeline, table):
    refused = pipeline(of(table, "mint"))
    assert "mint is not one of" in refused.reason
    with NeckWear.open("virtual") as neck:
        assert not refused.play(neck) and not refused.mix(neck)
        assert neck.virtual.air == []


def test_the_loudest_scent_is_played(pipeline, table):
    answer = pipeline(of(table, "mango"))
    with NeckWear.open("virtual") as neck:
        played = answer.play(neck, seconds=0.3, wait=True)
        assert played.scent == SCENTS.index("mango") + 1
        assert [piece.scent for piece in neck.virtual.air] == [played.scent]


def test_a_recording_of_the_mixture_board_is_read_as_prediction_reads_it(tmp_path):
    file = sorted((recordings.find() / "mixture/test_seen").rglob("*.csv"))[0]
    mixture(file.parent, weights=checkpoint.find("mixture"), out=tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv").query("file == @file.name and window >= 0")
    smell = load_smell("mixture")
    answer = Pipeline(smell)(file)
    assert len(smell.windows(smell.stretches(file)[0].values)) == len(table)
    assert abs(sum(answer.shares) - 1) < 1e-6


@pytest.mark.parametrize("weights", ["odour", "mixture"])
@pytest.mark.parametrize("cell", [np.nan, np.inf])
def test_a_cell_that_is_not_a_finite_number_is_refused_with_its_place(weights, cell):
    pipeline = Pipeline.load(weights)
    rows = np.full((200, len(pipeline.smell.columns)), 100.0)
    rows[50, 2] = cell
    with pytest.raises(DataError, match="Row 50, column VOC"):
        pipeline(rows)


def test_after_a_reading_that_is_no_number_a_live_nose_begins_again(pipeline, table):
    rows = table[[*pipeline.smell.nose.columns]].to_numpy(float)
    recogniser = Recogniser(pipeline)
    first = [answer for row in rows if (answer := recogniser.add(row))]
    lost = recogniser.add(np.where(np.arange(rows.shape[1]) == 1, np.nan, rows[0]))
    again = [answer for row in rows if (answer := recogniser.add(row))]
    assert lost.abstains and "no number" in lost.reason
    assert [answer.beta for answer in again] == [answer.beta for answer in first]


def test_text_in_a_table_is_refused(pipeline, table):
    with pytest.raises(DataError, match="not a number"):
        pipeline(of(table, "mango").assign(LPG="much"))


@pytest.mark.parametrize("given", [{"text": ""}, {"text": "  "}, {"picture": []}])
def test_an_empty_text_or_no_picture_at_all_is_refused(given):
    with pytest.raises((DataError, OptionError), match="description|Nothing to recognise"):
        Pipeline.load()(**given)


@pytest.mark.parametrize("rows", [{"garlic": [300, 300]}, {"garlic": [300, 300], "mint": [30, 30]}])
def test_a_read_out_is_not_fitted_to_one_substance_or_to_one_without_a_window(tmp_path, rows):
    for name, lengths in rows.items():
        files = sorted((recordings.find() / "base" / "training" / name).glob("*.csv"))
        for file, count in zip(files, lengths, strict=False):
            place = tmp_path / "base" / "training" / name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("".join(file.read_text().splitlines(keepends=True)[: count + 1]))
    with pytest.raises(DataError, match="too little to fit a read-out to"):
        Pipeline.fit(tmp_path)


def test_weights_of_ones_own_judge_no_other_board_whatever_their_folder_is_called(tmp_path, monkeypatch):
    shutil.copytree(checkpoint.find("odour"), tmp_path / "odour-mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="not of the nose"):
        Pipeline.load("odour-mine")(np.full((200, 4), 400.0), nose="mixture")
    Pipeline.load(checkpoint.find("odour")).board(np.full((200, 4), 400.0), nose="mixture")


def test_a_nose_that_the_weights_are_not_of_is_refused():
    with pytest.raises(OptionError, match="not of the nose"):
        Pipeline.load("mixture")(np.full((200, 4), 400.0), nose="odour")


def test_a_mixture_board_in_an_unknown_session_is_trusted_less_than_in_a_known_one():
    pipeline, folder = Pipeline.load(), recordings.find() / "mixture"
    file = sorted((folder / "test_seen").rglob("*.csv"))[0]
    assert pipeline(file).evidence["smell"].trust < 0.5  # a simulated nose, which the weights never met
    assert pipeline(file, text="a ripe banana").evidence["smell"].trust < 0.5
