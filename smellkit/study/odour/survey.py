"""What a data folder holds: every fault in it, and in which session each recording was made."""

from pathlib import Path

import numpy as np
import pandas as pd

from smellkit.checks import Report, read_picture, readable
from smellkit.errors import DataError
from smellkit.odour.recordings import ALL, STUCK, base_of, find, read_recordings
from smellkit.odour.scents import list_pictures, read_scents
from smellkit.study.odour.mixture_data import read_mixtures

SESSION_GAP = {"Pressure": 0.8, "Humidity": 2.5}  # hPa and % between neighbours that start a new session


def survey(folder: str | Path | None = None) -> Report:
    """Read all recordings, mixtures, pictures and descriptions of a folder, not stopping at a fault; see `skipped`."""
    root, report = find(folder), Report()
    base = base_of(root)
    splits = [path.name for path in sorted(base.glob("*/"))] if base else [ALL] * (root / "smell_data").is_dir()
    for split in splits:
        place = base / split if base else root / "smell_data"
        _try(place, report, lambda split=split: read_recordings(root, split, skip=True, report=report))
    for path in sorted((root / "mixture").glob("*/")):
        _try(path, report, lambda split=path.name: read_mixtures(root, split, skip=True, report=report))
    if (root / "images").is_dir():
        files = [Path(file) for file in list_pictures(root)["file"]]
        for _ in readable(files, lambda file: read_picture(file, report=report), skip=True, report=report):
            pass
    if (path := root / "smell_descriptions.json").exists():
        _try(path, report, lambda: read_scents(root, report=report))
    return report


def other_sessions(data: str | Path, report: Report | None = None) -> pd.DataFrame | None:
    """All recordings of the splits called online_*, made at another time; None when there are none."""
    base = base_of(find(data))
    names = sorted(path.name for path in base.glob("online_*/")) if base else []
    tables = [read_recordings(data, name, report=report) for name in names]
    return pd.concat(tables, ignore_index=True) if tables else None


def number_sessions(table: pd.DataFrame) -> pd.Series:
    """Number of the session in which each file of a tidy table was recorded, counted from 0 for each substance.

    The recordings of a substance are put in order of pressure, then of humidity; a gap above `SESSION_GAP` starts
    another session. A stuck environment sensor differs from a working one and so counts as another.
    """
    means = table.groupby("file", sort=True).agg({"substance": "first", **dict.fromkeys(SESSION_GAP, "median")})
    number = pd.Series(0, index=means.index)
    for _, rows in means.groupby("substance"):
        for column, gap in SESSION_GAP.items():
            ordered = rows[column].sort_values()
            number[ordered.index] = number[ordered.index] * 10 + (ordered.diff() > gap).cumsum()
    return number.groupby(means["substance"]).transform(lambda part: pd.factorize(part, sort=True)[0])


def stuck(table: pd.DataFrame) -> pd.Series:
    """Return for each `file` of a tidy table whether its environment sensor did not answer (688.6 hPa and 100 %)."""
    at_default = np.isclose(table["Pressure"], STUCK[0]) & (table["Humidity"] == STUCK[1])
    return at_default.groupby(table["file"], sort=False).all()


def _try(path: Path, report: Report, read) -> None:
    try:
        read()
    except DataError as why:
        report.skip(path, why)
