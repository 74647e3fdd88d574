"""Which recordings were made at another time: whole splits of them, and second sittings within a split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from smellkit.checks import Report
from smellkit.odour import recordings

GAP = {"Pressure": 0.8, "Humidity": 2.5}  # hPa and % between neighbours that start a new sitting of a substance


def other_sessions(data: str | Path, report: Report | None = None) -> pd.DataFrame | None:
    """All recordings of the splits called online_*, made at another time; None when there are none."""
    base = recordings.find(data) / "base"
    tables = [recordings.read_recordings(data, path.name, report=report) for path in sorted(base.glob("online_*/"))]
    return pd.concat(tables, ignore_index=True) if tables else None


def sittings(table: pd.DataFrame) -> pd.Series:
    """Number of the sitting of each file of a tidy table, counted for each substance.

    The recordings of a substance are put in order of pressure, then of humidity; a gap above `GAP` starts another
    sitting. A stuck environment sensor differs from a working one and so counts as another.
    """
    means = table.groupby("file", sort=True).agg({"substance": "first", **dict.fromkeys(GAP, "median")})
    number = pd.Series(0, index=means.index)
    for _, rows in means.groupby("substance"):
        for column, gap in GAP.items():
            ordered = rows[column].sort_values()
            number[ordered.index] = number[ordered.index] * 10 + (ordered.diff() > gap).cumsum()
    return number.groupby(means["substance"]).transform(lambda part: pd.factorize(part, sort=True)[0])
