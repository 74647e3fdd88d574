"""What a video knows of a frame: the wall behind the gas stands still, and the gas does not.

Which frames are a video is said in the annotations (`annotations.VIDEO`) and never guessed: copies of one original look
like a video and are none.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

OTHERS = 4  # frames that a frame is set against, spread over its video
FEWEST = 3  # frames that make a video
ALIKE = 0.7  # least correlation, by size, of two frames of a camera that stands still
FLAT = 0.02  # least deviation of grey levels (from -1 to 1)


def spread(videos: Sequence[Hashable]) -> NDArray[np.int64]:
    """For each frame the rows (n, OTHERS) of others, spread evenly over its video, -1 where there are no more.

    Rows of a video are in order of time; "" is a frame of none, and a video of fewer than FEWEST is single frames.
    The nearest ones would do at a few frames a second, but at 22 the gas has hardly moved in them, and looks like wall.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, video in enumerate(videos):
        rows_of.setdefault(video, []).append(row)
    others = np.full((len(videos), OTHERS), -1)
    for video, rows in rows_of.items():
        if video != "" and len(rows) >= FEWEST:
            count = min(len(rows) - 1, OTHERS)
            steps = np.arange(1, count + 1) * len(rows) // (count + 1)
            for index, row in enumerate(rows):
                others[row, :count] = np.take(rows, index + steps, mode="wrap")
    return others


def agreed(log_p: Tensor, videos: Sequence[Hashable]) -> Tensor:
    """Log-probabilities (n, classes) whose mean over each video stands for all of its rows; "" is a row alone."""
    keys = [("", row) if video == "" else (video, -1) for row, video in enumerate(videos)]
    number = torch.as_tensor(pd.factorize(pd.Series(keys))[0])
    total = torch.zeros(int(number.max()) + 1, log_p.shape[1]).index_add(0, number, log_p)
    return (total / number.bincount()[:, None])[number].log_softmax(dim=1)


def others_of(frames: Tensor, rows: Tensor) -> Tensor:
    """Frames (B, T, H, W) that `rows` (B, T) of `frames` (n, 1, H, W) name; blank for -1."""
    return frames[rows, 0] * (rows >= 0)[:, :, None, None]


def motion(frame: Tensor, others: Tensor) -> Tensor:
    """What moves in a frame (B, 1, H, W) of a video with `others` (B, T, H, W), which are in any order: (B, 2, H, W).

    The frame minus the mean of the others, and the deviation from frame to frame, in deviations of the frame. All 0
    where fewer than FEWEST frames show the same: frames that are blank, as a missing one is, or of another place.
    """
    fitted, used = matched(frame, others)
    count = used.sum(dim=1, keepdim=True)
    mean = (fitted * used).sum(dim=1, keepdim=True) / count.clamp(min=1)
    off = frame - mean  # the others deviate around their own mean, which lies off / (count + 1) from that of all
    squares = ((fitted - mean) ** 2 * used).sum(dim=1, keepdim=True) + off**2 * count / (count + 1)
    moved = torch.cat([off, (squares / (count + 1)).sqrt()], dim=1) / _spread(frame)[1]
    return moved * (count + 1 >= FEWEST)


def matched(frame: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """`others` in the grey levels of the frame, whatever level, gain and polarity each has; 1 for those that are alike.

    Level and gain are those of the places that agree, which are the wall if the gas is not most of the frame. Alike
    (B, T, 1, 1) are frames of one view, others 0.
    """
    (own, size), (level, spread) = _spread(frame), _spread(others)
    correlation = ((frame - own) * (others - level)).mean(dim=(2, 3), keepdim=True) / (size * spread)
    turned = others * torch.where(correlation < 0, -1.0, 1.0)
    off = (frame - own) / size - (turned - _spread(turned)[0]) / spread
    weight = 1 / (1 + (off / off.abs().mean(dim=(2, 3), keepdim=True).clamp(min=FLAT)) ** 4)
    (own, size), (level, spread) = _spread(frame, weight), _spread(turned, weight)
    return own + (turned - level) * (size / spread), (correlation.abs() >= ALIKE).to(frame)


def _spread(x: Tensor, weight: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation of each frame, (B, T, 1, 1)."""
    weight = weight * torch.ones_like(x)
    total = weight.sum(dim=(2, 3), keepdim=True)
    mean = (x * weight).sum(dim=(2, 3), keepdim=True) / total
    return mean, ((x - mean) ** 2 * weight).sum(dim=(2, 3), keepdim=True).div(total).sqrt().clamp(min=FLAT)
