"""Calibration: honest confidence, sets that hold the truth, and silence where nothing is known."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from smellkit.errors import DataError
from smellkit.odour.confidence import (
    ABSTAIN,
    Confidence,
    Thresholds,
    decide,
    entropy,
    fit_temperature,
    margin,
    prediction_sets,
)
from smellkit.study.metrics import expected_calibration_error
from smellkit.study.odour.calibrated import (
    abstention,
    calibrate,
    conformal_quantile,
    growing,
    pooling,
    selective,
    with_categories,
)

softmax = partial(special.softmax, axis=-1)


def answers(recordings=400, windows=5, classes=10, sharpness=3.0, seed=0):
    """Scores drawn so that softmax(scores) is the true probability; windows of a recording share the target."""
    random = np.random.default_rng(seed)
    scores = sharpness * random.normal(size=(recordings, classes))
    target = np.array([random.choice(classes, p=softmax(row)) for row in scores])
    return np.repeat(scores, windows, 0), np.repeat(target, windows), np.repeat(np.arange(recordings), windows)


def test_the_temperature_undoes_overconfidence():
    scores, target, _ = answers()
    fitted = fit_temperature(4 * scores, target)
    assert 3.3 < fitted < 4.8
    before = expected_calibration_error(softmax(4 * scores), target)
    assert expected_calibration_error(softmax(4 * scores / fitted), target) < before / 2


def test_sets_hold_the_truth_in_nine_of_ten_new_recordings():
    scores, target, group = answers(6000, windows=2)
    half = group < 3000
    quantile = conformal_quantile(softmax(scores[half]), target[half], group[half])
    sets = prediction_sets(softmax(scores[~half]), quantile)
    assert 0.88 < sets[np.arange(len(sets)), target[~half]].mean() < 0.92


def test_a_recording_counts_once_however_long_it_is():
    scores, target, group = answers(60, windows=1)
    probabilities = softmax(scores)
    longer = np.repeat(np.arange(60), np.where(np.arange(60) == 3, 50, 1))
    alone = conformal_quantile(probabilities, target, group)
    assert conformal_quantile(probabilities[longer], target[longer], group[longer]) == pytest.approx(alone)


def test_a_coin_toss_is_not_answered():
    toss = np.array([[0.5, 0.5, 0.0], [0.9, 0.05, 0.05]])
    assert decide(toss, Thresholds(margin=0.2)).tolist() == [ABSTAIN, 0]
    assert decide(toss, Thresholds(entropy=0.5)).tolist() == [ABSTAIN, 0]
    assert decide(toss).tolist() == [0, 0]


def test_no_answer_from_numbers_that_are_none():
    assert decide(np.array([[np.nan, np.nan]])).tolist() == [ABSTAIN]


def test_abstention_reaches_the_precision_that_was_asked_for():
    scores, target, _ = answers()
    limits = abstention(softmax(scores), target, precision=0.9)
    got = selective(softmax(scores), target, limits)
    everything = selective(softmax(scores), target, Thresholds())
    assert everything["accuracy"] < 0.9 <= got["accuracy"]
    assert got["answered"] >= 0.2


def test_abstention_does_its_best_where_the_precision_is_out_of_reach():
    random = np.random.default_rng(0)
    probabilities, target = softmax(random.normal(size=(300, 5))), random.integers(0, 5, 300)
    assert selective(probabilities, target, abstention(probabilities, target, precision=0.99))["answered"] >= 0.2


def test_a_calibration_is_learnt_for_a_fit_on_all_recordings():
    one, target, group = answers(2000, sharpness=3.0)
    two = one + 0.5 * np.eye(10)[target]  # knows a bit more
    few, many = calibrate(one, target, group), calibrate(two, target, group)
    fitted = calibrate(two, target, group, few=(one, target, group), ahead=0.6)
    assert fitted.temperature < many.temperature < few.temperature
    alike = calibrate(two, target, group, few=(two, target, group), ahead=0.6)
    assert alike.quantile == pytest.approx(many.quantile)


def test_a_calibration_survives_its_manifest():
    scores, target, group = answers(100)
    made = calibrate(scores, target, group)
    assert Confidence.of(made.asdict()) == made


def test_the_mean_of_windows_is_surer_as_far_as_they_err_apart():
    alike, target, group = answers(300, windows=8, sharpness=1.0)
    apart = alike + 2 * np.random.default_rng(1).normal(size=alike.shape)
    fitted = [pooling(*growing(scores, target, group)) for scores in (alike, apart)]
    assert fitted[0] == pytest.approx(0, abs=0.02) and fitted[1] > 0.3
    means, targets, windows = growing(apart, target, group)
    assert set(windows) == {1, 2, 4, 8} and len(means) == len(targets) == 4 * 300
    assert np.allclose(means[windows == 8], apart.reshape(300, 8, -1).mean(1))
    sure = Confidence(2.0, pooling=0.5).calibrated(means[:1], 4)
    assert np.allclose(sure, softmax(means[:1])) and not np.allclose(sure, Confidence(2.0).calibrated(means[:1], 4))


def test_nothing_to_calibrate_on_is_refused():
    with pytest.raises(DataError, match="No rows"):
        fit_temperature(np.zeros((0, 3)), [])


@settings(max_examples=50, deadline=None)
@given(arrays(float, (4, 6), elements=st.floats(-30, 30)), st.floats(0, 1))
def test_sets_are_never_empty_and_hold_the_likeliest(scores, quantile):
    probabilities = softmax(scores)
    sets = prediction_sets(probabilities, quantile)
    assert sets.any(1).all()
    held = np.where(sets, probabilities, -1).max(1)
    assert np.allclose(held, probabilities.max(1))


@settings(max_examples=50, deadline=None)
@given(arrays(float, (4, 6), elements=st.floats(-300, 300)))
def test_margin_and_entropy_stay_in_their_range(scores):
    probabilities = softmax(scores)
    assert ((margin(probabilities) >= 0) & (margin(probabilities) <= 1)).all()
    assert ((entropy(probabilities) >= -1e-9) & (entropy(probabilities) <= 1 + 1e-9)).all()


def test_a_category_is_named_where_no_class_is_and_is_right_as_often_as_was_asked():
    classes = ("almond", "pecans", "walnuts", "mint", "garlic", "dill", "apple", "pear", "kiwi", "mango")
    scores, target, _ = answers(sharpness=2.0)
    silent = Confidence(thresholds=Thresholds(0.99, 0.0))
    fitted = with_categories(silent, 3 * scores, target, classes, precision=0.8)
    kinds = np.repeat([0, 1, 2], [3, 3, 4])
    sums = np.log(softmax(3 * scores) @ np.eye(3)[kinds])
    p = softmax(sums / fitted.category_temperature)
    named = p.max(1) >= fitted.category_least
    assert 0.05 < named.mean() < 1 and (p.argmax(1) == kinds[target])[named].mean() >= 0.8
    assert fitted.category_temperature > 1.5  # the scores were three times too sharp
    assert Confidence.of(fitted.asdict()) == fitted
