"""Scores against scikit-learn and torchmetrics, and intervals against what they promise."""

import numpy as np
import pytest
import torch

from smellkit.study import metrics

random = np.random.default_rng(0)
TARGET = random.integers(0, 6, 300)
SCORES = random.normal(size=(300, 6)) + 2 * np.eye(6)[TARGET]
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_is_the_one_of_scikit_learn(k):
    from sklearn.metrics import top_k_accuracy_score

    assert metrics.hits(SCORES, TARGET, k=k).mean() == pytest.approx(top_k_accuracy_score(TARGET, SCORES, k=k))


def test_a_constant_score_is_never_right():
    assert not metrics.hits(np.zeros((10, 6)), np.zeros(10, int), k=5).any()


def test_calibration_error_is_the_one_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    expected = functional.multiclass_calibration_error(
        torch.tensor(PROBABILITIES), torch.tensor(TARGET), num_classes=6, n_bins=15
    )
    assert metrics.expected_calibration_error(PROBABILITIES, TARGET) == pytest.approx(expected.item(), abs=1e-6)


def test_f1_counts_only_classes_that_occur():
    assert metrics.macro_f1([0, 0, 1], [0, 0, 0]) == pytest.approx(0.8)


def test_resampling_recordings_is_wider_than_resampling_windows():
    values = np.repeat(random.integers(0, 2, 30), 10).astype(float)  # ten equal windows a recording
    groups = np.repeat(np.arange(30), 10)
    windows, recordings = metrics.bootstrap(values), metrics.bootstrap(values, groups=groups)
    assert recordings.high - recordings.low > 2.5 * (windows.high - windows.low)
    assert recordings.low < recordings.value == windows.value < recordings.high


def test_any_score_gets_the_interval_of_the_mean_when_it_is_the_mean():
    groups = np.repeat(np.arange(30), 10)
    values = random.normal(size=300)
    one = metrics.bootstrap(values, groups=groups, rounds=4000)
    other = metrics.bootstrap_of(lambda rows: values[rows].mean(), groups, rounds=4000)
    assert other == pytest.approx(one, abs=0.02)


def test_an_interval_over_seeds_covers_the_truth_as_often_as_it_says():
    samples = random.normal(5, 2, (2000, 5))
    inside = [i.low <= 5 <= i.high for i in map(metrics.over_seeds, samples)]
    assert 0.93 < np.mean(inside) < 0.97


def test_one_seed_says_nothing_about_the_spread():
    assert np.isinf(metrics.over_seeds([0.7]).high)
