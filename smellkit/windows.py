"""From a recording to sliding windows."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from smellkit.errors import DataError

Array = NDArray[np.float32]


def starts(steps: int, *, length: int, stride: int) -> NDArray[np.int64]:
    """First step of every full window in a recording of `steps` steps; empty when the recording is too short."""
    if length < 1 or stride < 1:
        raise DataError(f"A window of {length} steps every {stride} steps", hint="both must be at least 1")
    return np.arange(0, steps - length + 1, stride)


def sliding(values: NDArray, *, length: int, stride: int) -> Array:
    """Windows (windows, length, channels) of a recording (steps, channels), as a copy; none when it is too short."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if len(values) < length:
        return np.empty((0, length, values.shape[1]), np.float32)
    view = sliding_window_view(values, length, axis=0)[::stride]  # (windows, channels, length)
    return np.ascontiguousarray(view.transpose(0, 2, 1))
