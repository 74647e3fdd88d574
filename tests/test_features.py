"""Summary features: what they say, and what they must not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smellkit.odour.features import BANDS, LAGS, QUANTILES, SEGMENTS, QuantileNormalizer, summarise

GAS = ("NO2", "C2H5OH", "VOC", "CO", "Alcohol", "LPG")


def names(steps: int, channels: tuple[str, ...]) -> list[str]:
    """Return the name of each feature of windows of `steps` steps, "channel: what" or "channel, channel: what"."""
    each = [f"quantile {q:g}" for q in QUANTILES]
    each += ["mean", "slope", "curvature", "cubic", *[f"segment {i + 1}" for i in range(SEGMENTS)], "first", "last"]
    each += ["deviation", "noise", "mean change", "rms change", "largest change", "still"]
    each += [f"change in quarter {i + 1}" for i in range(4)]
    each += [f"autocorrelation {lag}" for lag in LAGS] + [f"band {i + 1}" for i in range(BANDS)]
    pairs = [(a, b) for i, a in enumerate(channels) for b in channels[i + 1 :]]
    called = [f"{channel}: {what}" for channel in channels for what in each]
    called += [f"{a}, {b}: correlation" for a, b in pairs] + [f"{a}, {b}: correlation of changes" for a, b in pairs]
    return called + [f"{c}: share of {what}" for what in ("mean", "slope", "deviation") for c in channels]


def windows(count=8, steps=100, channels=6, seed=0):
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(size=(count, steps, channels)).cumsum(1).astype(np.float32))


@pytest.mark.parametrize(("steps", "channels"), [(100, 6), (125, 6), (125, 4), (60, 1)])
def test_every_feature_has_a_name(steps, channels):
    features = summarise(windows(steps=steps, channels=channels))
    called = names(steps, GAS[:channels])
    assert features.shape == (8, len(called))
    assert len(set(called)) == len(called)
    assert torch.isfinite(features).all()


def test_features_say_what_their_names_say():
    x = windows()
    features = dict(zip(names(100, GAS), summarise(x).T, strict=True))
    assert torch.allclose(features["VOC: mean"], x[:, :, 2].mean(1), atol=1e-4)
    assert torch.allclose(features["CO: quantile 1"], x[:, :, 3].amax(1))
    assert torch.allclose(features["LPG: deviation"], x[:, :, 5].std(1, unbiased=False), atol=1e-4)
    pair = np.corrcoef(x[0, :, 0], x[0, :, 4])[0, 1]
    assert float(features["NO2, Alcohol: correlation"][0]) == pytest.approx(pair, abs=1e-4)
    line = torch.linspace(0, 5, 100).reshape(1, 100, 1).expand(1, 100, 6)
    assert dict(zip(names(100, GAS), summarise(line)[0], strict=True))["VOC: noise"] < 1e-3


def test_a_window_is_described_alone():
    x = windows(16)
    assert torch.allclose(summarise(x)[3:5], summarise(x[3:5]), atol=1e-4)


def test_a_dead_sensor_gives_numbers():
    assert torch.isfinite(summarise(torch.zeros(2, 100, 6))).all()


def test_normal_features_are_normal_in_the_training_windows():
    x = torch.from_numpy(np.random.default_rng(0).exponential(size=(4000, 3)).astype(np.float32))
    z = QuantileNormalizer(3).fit(x)(x)
    assert z.mean(0).abs().max() < 0.05
    assert (z.std(0) - 1).abs().max() < 0.05
    assert z.abs().max() <= 3


def test_a_constant_feature_becomes_zero():
    x = torch.full((50, 2), 7.0)
    assert torch.allclose(QuantileNormalizer(2).fit(x)(x), torch.zeros(50, 2), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50))
def test_the_normal_map_keeps_order_and_forgets_units(seed, unit):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(200, 1)).astype(np.float32)).sort(0).values
    z = QuantileNormalizer(1).fit(x)(x)
    assert (z.diff(dim=0) >= -1e-5).all()
    assert torch.allclose(QuantileNormalizer(1).fit(unit * x)(unit * x), z, atol=0.02)
