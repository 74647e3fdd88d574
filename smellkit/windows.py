"""From a recording to sliding windows, and a scaler that has seen training data only."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Standard:
    """Zero mean and unit deviation for every channel. Fit it on training windows only.

    >>> scaler = Standard.fit(train_windows)
    >>> test = scaler(test_windows)
    """

    mean: Array  # (channels,)
    scale: Array  # (channels,), never zero

    @classmethod
    def fit(cls, values: NDArray) -> Standard:
        """Measure mean and deviation over all axes but the last; a constant channel keeps the scale 1."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1, np.shape(values)[-1])
        if not len(flat):
            hint = "recordings shorter than one window? Use a shorter one"
            raise DataError("No windows to fit a scaler on", hint=hint)
        scale = flat.std(axis=0)
        scale[scale < 1e-9] = 1.0
        return cls(flat.mean(axis=0).astype(np.float32), scale.astype(np.float32))

    def __call__(self, values: NDArray) -> Array:
        """Return `values` (..., channels) in standard units."""
        return ((np.asarray(values, dtype=np.float32) - self.mean) / self.scale).astype(np.float32)
