"""Simulated days: how sensors moved between two sessions of a substance, and windows moved like that.

On another day a sensor rests elsewhere and answers more or less. All that the training split knows about it are the
substances with a second session. Who learns from such days must not be judged by them: `sessions` judges by the
movement of a pair of sessions that was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.errors import DataError
from smellkit.odour.windows import LabelledWindows, Protocol, cut
from smellkit.sensors import FULL, GAS, GROVE
from smellkit.study.odour.survey import number_sessions

COPIES, STRIDE = 2, 50  # windows that are moved for each as it was recorded, and the rows between two
SPREAD = 0.1  # of a movement that no pair of sessions showed, in logarithms
COUNTS = np.array([name in GROVE for name in GAS])


def movements(training: pd.DataFrame) -> pd.DataFrame:
    """How each channel's log amplitude and log level moved between two sessions of a substance, one row a pair.

    Columns "gain NO2", ..., "level NO2", ...; DataError when no substance has a second session.
    """
    by_file = training.groupby("file", sort=True)
    changes = by_file[list(GAS)].apply(lambda rows: rows.diff(25).abs().mean())
    levels = by_file[list(GAS)].first()
    known = pd.concat([np.log(changes + 0.5).add_prefix("gain "), np.log(levels + 1).add_prefix("level ")], axis=1)
    substance = by_file["substance"].first()
    means = known.groupby([substance, number_sessions(training)]).mean()
    moves = {}
    for name, rows in means.groupby(level=0):
        for later in range(1, len(rows)):
            moves[f"{name}, session {later + 1}"] = rows.iloc[later] - rows.iloc[0]
    if not moves:
        raise DataError("No substance has a second session", hint="a simulated day needs one to learn from")
    return pd.DataFrame(moves).T


def move(rows: NDArray, by: NDArray) -> NDArray[np.float32]:
    """Counts `rows` (..., rows, 6) from sensors that have moved `by` (..., 12: log gains, then log levels)."""
    first, gain, level = rows[..., :1, :], np.exp(by[..., None, :6]), np.exp(by[..., None, 6:])
    moved = (first + 1) * level - 1 + gain * (rows - first)
    return np.clip(moved, 0, np.where(COUNTS, FULL, np.inf)).round().astype(np.float32)


def drawn(moved: pd.DataFrame, count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """`count` movements (count, 12): random mixes of those in `moved`, as large as they are."""
    mixes = random.normal(size=(count, len(moved))) @ moved.to_numpy() / np.sqrt(len(moved))
    return mixes + SPREAD * random.normal(size=mixes.shape)


def moving_windows(
    table: pd.DataFrame, protocol: Protocol, moved: pd.DataFrame, *, classes: Sequence[str] = (), seed: int = 0
) -> LabelledWindows:
    """Windows of the recordings in `table` as they are, and `COPIES` times more, each of a simulated day of its own."""
    if tuple(protocol.columns) != GAS:
        raise DataError("A simulated day moves the six gas channels", hint="a protocol with these columns")
    as_recorded = replace(protocol, representation="absolute")
    known, random = cut(table, as_recorded, stride=STRIDE, classes=classes), np.random.default_rng(seed)
    copies = [known.values, *(move(known.values, drawn(moved, len(known), random)) for _ in range(COPIES))]
    whole = known[np.tile(np.arange(len(known)), len(copies))]
    return replace(whole, values=protocol.represent(np.concatenate(copies)))


def another_day(table: pd.DataFrame, by: NDArray) -> pd.DataFrame:
    """The recordings of `table` on a day on which the sensors had moved `by` (12,), for all of them alike."""
    parts = [rows.assign(**dict(zip(GAS, move(rows[list(GAS)].to_numpy(float), by).T, strict=True)))
             for _, rows in table.groupby("file", sort=False)]  # fmt: skip
    return pd.concat(parts)
