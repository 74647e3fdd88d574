"""What `smellkit data check` reads: any folder or file of any system, as `predict` and `train` read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from smellkit import checkpoint
from smellkit.checks import Report, read_json, read_picture, readable
from smellkit.checks.ranges import Ranges, outside
from smellkit.errors import DataError, SmellkitError
from smellkit.gcode import recordings as machine
from smellkit.odour import mixtures, predict, recordings
from smellkit.plume import annotations as tables
from smellkit.sensors import GAS, SENSORS
from smellkit.study.odour.survey import survey
from smellkit.study.plume import survey as plumes

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")


def check(folder: Path | None = None, *, mask_values: str = "") -> Report:
    """Read everything in a folder or a file (None: the sample), not stopping at a fault; see `skipped` of the report.

    `mask_values` are kept in a folder of plumes first. DataError where there is nothing that the kit reads.
    """
    if folder is None:
        return survey()
    folder = Path(folder)
    if not folder.exists():
        raise DataError(f"There is no {folder}", hint="a folder of recordings or pictures, or one file")
    if mask_values:
        plumes.keep_values(folder, mask_values)
    report = Report()
    readers = [*_systems(folder)] if folder.is_dir() else []
    for read in readers:
        report.add(read())
    if not readers:
        _files(folder, report)
    return report


def _systems(folder: Path) -> list[Callable[[], Report]]:
    """The readers of the layouts that a folder has."""
    found: list[Callable[[], Report]] = []
    for place in (folder, folder / "plume"):
        if tables.holds(place):
            found.append(lambda place=place: plumes.check(place))  # type: ignore[misc]
    try:
        recordings.find(folder)
        found.append(lambda: survey(folder))
    except DataError:
        pass
    places = [folder / name for name in ("", *machine.FOLDERS, "gcode", "recordings", "aligned")]
    recorded = [place for place in places if place.is_dir() and machine.files(place)]
    if recorded:
        found.append(lambda: _machine(recorded[0]))
    return found


def _machine(place: Path) -> Report:
    report = Report()
    read = partial(machine.read_one, labels=False, report=report)
    for _ in readable(machine.files(place), read, skip=True, report=report):
        pass
    return report


def _files(folder: Path, report: Report) -> None:
    """Single files and folders without a layout: each file by what it is."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if not path.name.startswith(".") and _reader(path) is not None]
    if not files:
        hint = "recordings (*.csv, *.parquet), pictures, descriptions (*.json), or weights"
        raise DataError(f"Nothing in {folder} that the kit reads", hint=hint)
    for path in files:
        reader = _reader(path)
        assert reader is not None
        try:
            reader(path, report)
            report.files += 1
        except SmellkitError as why:
            report.skip(path, why)


def _reader(path: Path) -> Callable[[Path, Report], object] | None:
    suffix = path.suffix.lower()
    if suffix == ".parquet" or path.name.endswith("_aligned.csv"):
        return lambda path, report: machine.read_one(path, labels=False, report=report)
    if suffix == ".csv":
        return _csv
    if suffix in PICTURES:
        return lambda path, report: read_picture(path, report=report)
    if path.name == checkpoint.FILE:
        return lambda path, report: checkpoint.load(path.parent)
    if suffix == ".json":
        return lambda path, report: read_json(path)
    return None


def _csv(path: Path, report: Report) -> None:
    """A CSV file of a nose, by its columns: the twelve, the six of gas, or the four of the mixture board."""
    header = path.open(encoding="utf-8-sig", errors="replace").readline()
    if predict.is_index(path, report):
        return
    if "Alcohol" not in header and ("C2H5CH" in header or "timestamp_ms" in header):
        kind, columns, parts = "mixture", mixtures.MIXTURE_GAS, [mixtures.read_mixture(path, report=report)]
    else:
        kind, columns = "odour", SENSORS if "Altitude" in header else GAS
        parts = recordings.read_stretches(path, columns=columns, report=report)
    if ranges := Ranges.of(checkpoint.manifest(checkpoint.find(kind))):
        places = [list(columns).index(name) for name in ranges.names]
        if why := outside(np.concatenate([part.values for part in parts])[:, places], ranges):
            report.remarks.append(f"{path}: {why} (data/weights/{kind})")
