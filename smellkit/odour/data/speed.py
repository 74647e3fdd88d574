"""How fast recordings are read, as a ratio to pandas in the same run: seconds alone say little on a shared machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from smellkit import cache
from smellkit.odour import data


def reading(folder: str | Path = "", *, rounds: int = 7) -> dict[str, float]:
    """Milliseconds to read all of base/training and base/testing: first, again, and by pandas file by file (medians).

    `ratio` is pandas' time over the one for reading again. The cache is a fresh one, thrown away at the end.
    """
    home = data.find(folder)
    files = [path for split in ("training", "testing") for path in sorted((home / "base" / split).glob("*/*.csv"))]

    def ours() -> None:
        for split in ("training", "testing"):
            data.read_recordings(home, split)

    def theirs() -> None:
        pd.concat([pd.read_csv(path) for path in files])

    with cache.empty():
        first = _milliseconds(ours)
        pairs = [(_milliseconds(ours), _milliseconds(theirs)) for _ in range(rounds)]  # in turn: the load is shared
    again, pandas = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    return {"files": len(files), "first_ms": first, "again_ms": again, "pandas_ms": pandas, "ratio": ratio}


def _milliseconds(read: Callable[[], None]) -> float:
    start = time.perf_counter()
    read()
    return 1000 * (time.perf_counter() - start)
