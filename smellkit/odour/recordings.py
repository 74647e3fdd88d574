"""Recordings of smells: one tidy table from SmellNet's folders or from the twelve-scent folders.

SmellNet (Feng et al., arXiv 2506.00239) has base/training/<substance>/*.csv at about 1 Hz; the twelve-scent layout has
smell_data/<odour>/*.csv with the same columns. Names of mixtures are read in `blends`, scents and pictures in `scents`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from smellkit import cache, paths
from smellkit.checks import Report, Span, fault, nearest, read_table, readable
from smellkit.errors import DataError

log = logging.getLogger(__name__)
RATE = 1.0  # Hz, about: the files have no time column
GAS = ("NO2", "C2H5OH", "VOC", "CO", "Alcohol", "LPG")
ENVIRONMENT = ("Temperature", "Pressure", "Humidity", "Gas_Resistance", "Altitude")
OVERFLOW = 2.0**32 - 1  # what the firmware writes when its estimate does not fit an unsigned integer
SPANS = {  # the column -> what it may hold, in the order of the files
    **{name: Span(0, 1023) for name in ("NO2", "C2H5OH", "VOC", "CO")},  # 10-bit counts, Grove multichannel v2
    "Alcohol": Span(0, 65535, overflow=OVERFLOW),  # "ppm" of an uncalibrated regression: MQ-135
    "LPG": Span(0, 65535, overflow=OVERFLOW),  # MQ-9
    "Benzene": Span(0, 65535, overflow=OVERFLOW),  # MQ-3: overflows in a third of the rows; not one of GAS
    "Temperature": Span(-150, 150),  # degrees Celsius, BME680; wide enough for what a stuck sensor says
    "Pressure": Span(0, 1200),  # hPa
    "Humidity": Span(0, 100),  # %
    "Gas_Resistance": Span(0, 1e6),  # kOhm
    "Altitude": Span(-2000, 50000),  # m, from the pressure
}
SENSORS = tuple(SPANS)
STUCK = (688.6, 100.0)  # hPa and % of a BME680 that does not answer
_VERSION = "recordings 1"


def find(folder: str | Path | None = None) -> Path:
    """Return the data folder to use: the sample for None or "", `folder`, or the smellnet/ inside of it."""
    if not folder:
        return paths.sample() / "smellnet"
    folder = Path(folder).expanduser()
    for candidate in (folder, folder / "smellnet"):
        if any((candidate / part).is_dir() for part in ("base", "mixture", "smell_data")):
            return candidate
    what = "has no base/, mixture/ or smell_data/" if folder.is_dir() else "is not a folder"
    raise DataError(
        f"No recordings in {folder}: it {what}",
        hint="`smellkit data get smellnet` fetches the real ones; leave the folder away to use data/sample/smellnet",
    )


def read_recordings(
    folder: str | Path | None = None, split: str = "training", *, skip: bool = False, report: Report | None = None
) -> pd.DataFrame:
    """Return every recording of `split` as one tidy table.

    One row per second: `substance`, `recording` (the file's stem), `step`, `file` (relative to the folder), then the
    twelve `SENSORS` as float64, no NaN. `split` is training, testing or online_*; the twelve-scent layout has none.
    With `skip`, a file with a fault is reported and left out.
    """
    folder, report = find(folder), report if report is not None else Report()
    base = folder / "base" if (folder / "base").is_dir() else folder
    root = base / split if base.name == "base" else folder / "smell_data"
    if not root.is_dir():
        known = sorted(path.name for path in base.glob("*/") if any(path.glob("*/*.csv")))
        near = nearest(split, known) or known
        hint = f"splits here: {', '.join(near)}" if near else "`smellkit data get smellnet`, or data/sample/smellnet"
        raise DataError(f"No recordings in {root}", hint=hint)
    table = read_files(_listed(root, skip=skip, report=report), root=folder, skip=skip, report=report)
    if split == "testing" and base.name == "base" and (base / "training").is_dir():
        other = {path.name for path in (base / "training").glob("*/")}
        for name in sorted(other ^ set(table["substance"].unique())):
            where = "training" if name in other else "testing"
            report.note(root / name, f"substance only in {where}")
            log.warning("%s: %s is a substance of the %s split alone", root, name, where)
    return table


def read_files(files: Iterable[Path], *, root: Path, skip: bool = False, report: Report | None = None) -> pd.DataFrame:
    """Return any recordings with the twelve columns as a table like that of `read_recordings`; substance = folder."""
    names = cache.named(files, root=root)
    if not names:
        raise DataError(f"No recordings in {root}", hint="expected .csv files in a folder for each substance")

    def build(notes: Report) -> pd.DataFrame:
        def read(file: Path) -> pd.DataFrame:
            return read_table(file, columns=SPANS, first_row="drop", report=notes)

        back = {path: name for name, path in names.items()}
        tables = []
        for file, values in readable(names.values(), read, skip=skip, report=notes):
            if (values["Pressure"] == STUCK[0]).all() and (values["Humidity"] == STUCK[1]).all():
                notes.note(file, f"environment sensor stuck at {STUCK[0]} hPa, {STUCK[1]:.0f} %")
            tables.append(
                values.assign(substance=file.parent.name, recording=file.stem, step=range(len(values)), file=back[file])
            )
        if not tables:
            raise DataError(f"No recording in {root} can be read", hint="see the faults of each, logged above")
        return _checked(pd.concat(tables, ignore_index=True)[["substance", "recording", "step", "file", *SENSORS]])

    digests = cache.digests(names)
    return cache.table("recordings", build, files=digests, options=f"{_VERSION} skip={skip}", report=report)


def stuck(table: pd.DataFrame) -> pd.Series:
    """Return for each `file` of a tidy table whether its environment sensor did not answer (688.6 hPa and 100 %)."""
    at_default = np.isclose(table["Pressure"], STUCK[0]) & (table["Humidity"] == STUCK[1])
    return at_default.groupby(table["file"], sort=False).all()


def schema():
    """Return the pandera schema of the tidy table: the twelve sensors in their spans, each step of a file once."""
    import pandera.pandas as pandera

    words = {name: pandera.Column(str) for name in ("substance", "recording", "file")}
    sensors = {name: pandera.Column(float, pandera.Check.in_range(span.low, span.high)) for name, span in SPANS.items()}
    step = pandera.Column("int64", pandera.Check.ge(0))
    return pandera.DataFrameSchema({**words, "step": step, **sensors}, unique=["file", "step"], strict=True)


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    import pandera.errors

    try:
        return schema().validate(table)
    except pandera.errors.SchemaError as why:
        raise DataError(f"The table of recordings is wrong: {why}", hint="report this set of files") from why


def _listed(root: Path, *, skip: bool, report: Report) -> list[Path]:
    """Return the recordings of the substances in `root`, sorted; what lies there under a wrong name is refused."""
    found: list[Path] = []
    for folder in sorted(os.scandir(root), key=lambda entry: entry.name):
        if _hidden(folder.name):
            continue
        inside = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
        names = [name for name in inside if not _hidden(name)] or [""]  # "" is the folder, or a file in its place
        for name in names:
            path = Path(folder.path, name)
            if name.lower().endswith(".csv"):
                found.append(path)
                continue
            why = fault(
                path,
                expected="recordings called <substance>/*.csv",
                found=repr(path.name) if name or folder.is_file() else "an empty folder",
                hint="rename, move or delete it",
            )
            if not skip:
                raise why
            report.skip(path, why)
    return found


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini")
