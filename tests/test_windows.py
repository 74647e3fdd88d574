"""Windows, against what numpy says by the long way."""

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


@pytest.mark.parametrize("how", [{"length": 0, "stride": 1}, {"length": 5, "stride": 0}])
def test_an_impossible_window_is_refused(how):
    with pytest.raises(DataError, match="at least 1"):
        windows.starts(10, **how)
