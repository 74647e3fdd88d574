"""Windows and the scaler, against what numpy says by the long way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smellkit import windows
from smellkit.errors import DataError


@given(steps=st.integers(0, 60), length=st.integers(1, 20), stride=st.integers(1, 9))
def test_every_window_is_a_slice_of_its_recording(steps, length, stride):
    values = np.arange(steps * 2, dtype=np.float32).reshape(steps, 2)
    cut = windows.sliding(values, length=length, stride=stride)
    first = windows.starts(steps, length=length, stride=stride)
    assert len(cut) == len(first)
    assert all((cut[i] == values[s : s + length]).all() for i, s in enumerate(first))


def test_a_window_longer_than_its_recording_gives_none():
    assert windows.sliding(np.zeros((9, 3)), length=10, stride=5).shape == (0, 10, 3)


def test_a_scaler_knows_only_what_it_was_fitted_on():
    random = np.random.default_rng(0)
    train, test = random.normal(3, 2, (50, 10, 4)), random.normal(9, 5, (20, 10, 4))
    scaler = windows.Standard.fit(train)
    scaled = scaler(train)
    assert np.allclose(scaled.mean((0, 1)), 0, atol=1e-5) and np.allclose(scaled.std((0, 1)), 1, atol=1e-5)
    assert not np.allclose(scaler(test).mean((0, 1)), 0, atol=0.5)


def test_a_constant_channel_becomes_zero_and_not_infinite():
    assert (windows.Standard.fit(np.full((5, 8, 1), 7.0))(np.full((2, 8, 1), 7.0)) == 0).all()


@pytest.mark.parametrize("how", [{"length": 0, "stride": 1}, {"length": 5, "stride": 0}])
def test_an_impossible_window_is_refused(how):
    with pytest.raises(DataError, match="at least 1"):
        windows.starts(10, **how)


def test_no_windows_can_fit_no_scaler():
    with pytest.raises(DataError, match="shorter"):
        windows.Standard.fit(np.empty((0, 10, 4)))
