"""What `smellkit data check` reads: any folder or file of any system, as `predict` and `train` read it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from smellkit import checkpoint, noses
from smellkit.checks import Report, fault, read_json, read_picture, readable
from smellkit.checks.ranges import Ranges, outside
from smellkit.errors import DataError, SmellkitError
from smellkit.gcode import recordings as machine
from smellkit.odour import predict, readers, recordings
from smellkit.odour.scents import PICTURES
from smellkit.plume import annotations as tables
from smellkit.sensors import GAS, SENSORS, SMELLNET
from smellkit.study.odour.survey import survey
from smellkit.study.plume import survey as plumes


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
    report, reports = Report(), [*_systems(folder)] if folder.is_dir() else []
    for one in reports or [_files(folder)]:
        report.add(one)
    return report


def _systems(folder: Path) -> Iterator[Report]:
    """A report of each layout that a folder has."""
    if (folder / noses.FILE).is_file():
        report = Report()
        nose, table = readers.read_folder(folder, skip=True, report=report)
        count, classes = table["recording"].nunique(), table["substance"].nunique()
        rate = f"{nose.rate:g} rows a second" if nose.rate else "of unknown rate"
        report.remarks.append(f"{count} recordings of {classes} classes, {rate}, of the nose {nose.name}")
        yield report
    for place in (folder, folder / "plume"):
        if tables.holds(place):
            yield plumes.check(place)
    try:
        place = recordings.find(folder)
    except DataError:
        pass  # no folders of smells
    else:
        yield survey(place)
    places = [folder / name for name in ("", *machine.FOLDERS, "gcode", "recordings", "aligned")]
    if files := next(filter(None, (machine.files(place) for place in places if place.is_dir())), None):
        report = Report()
        [*readable(files, partial(machine.read_one, labels=False, report=report), skip=True, report=report)]
        yield report


def _files(folder: Path) -> Report:
    """Single files and folders without a layout: each file by what it is."""
    report = Report()
    for path in [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            report.files += not path.name.startswith(".") and _read(path, report)
        except SmellkitError as why:
            report.skip(path, why)
    if not report.files and not report.skipped:
        hint = "recordings (*.csv, *.parquet), pictures, descriptions (*.json), or weights"
        raise DataError(f"Nothing in {folder} that the kit reads", hint=hint)
    return report


def _read(path: Path, report: Report) -> bool:
    """Read one file by what it is; False where it is nothing that the kit reads."""
    suffix = path.suffix.lower()
    if suffix == ".parquet" or path.name.endswith("_aligned.csv"):
        machine.read_one(path, labels=False, report=report)
    elif suffix == ".csv":
        _csv(path, report)
    elif suffix in PICTURES:
        read_picture(path, report=report)
    elif path.name == checkpoint.FILE:
        checkpoint.load(path.parent)
    elif suffix == ".json":
        read_json(path)
    else:
        return False
    return True


def _csv(path: Path, report: Report) -> None:
    """A CSV file of a nose, by its columns: the twelve, the six of gas, or the four of the mixture board."""
    header = path.open(encoding="utf-8-sig", errors="replace").readline()
    if predict.is_index(path, report):
        return
    if not any(name in header for name in GAS):
        hint = "another nose? `smellkit nose new` describes it; then check its folder"
        raise fault(path, "columns of SmellNet's boards", repr(header[:80]), hint, line=1)
    if "Alcohol" not in header and ("C2H5CH" in header or "timestamp_ms" in header):
        kind, columns, parts = "mixture", recordings.MIXTURE_GAS, [recordings.read_mixture(path, report=report)]
    else:
        kind, columns = "odour", SENSORS if "Altitude" in header else GAS
        parts = readers.read_stretches(path, SMELLNET, columns=columns, report=report)
    if ranges := Ranges.of(checkpoint.manifest(checkpoint.find(kind))):
        places = [list(columns).index(name) for name in ranges.names]
        if why := outside(np.concatenate([part.values for part in parts])[:, places], ranges):
            report.remarks.append(f"{path}: {why} (data/weights/{kind})")
