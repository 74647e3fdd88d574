"""Read everything in a data folder and list what is wrong, instead of stopping at the first fault."""

from __future__ import annotations

from pathlib import Path

from smellkit.checks import Report, read_picture, readable
from smellkit.errors import DataError
from smellkit.odour.mixtures import read_mixtures
from smellkit.odour.recordings import find, read_recordings
from smellkit.odour.scents import list_pictures, read_scents


def survey(folder: str | Path | None = None) -> Report:
    """Return a report on all recordings, mixtures, pictures and descriptions of a folder; faults are in `skipped`."""
    root, report = find(folder), Report()
    splits = [path.name for path in sorted((root / "base").glob("*/"))] or ["smell_data"] * (
        root / "smell_data"
    ).is_dir()
    for split in splits:
        _try(root / split, report, lambda split=split: read_recordings(root, split, skip=True, report=report))
    for path in sorted((root / "mixture").glob("*/")):
        _try(path, report, lambda split=path.name: read_mixtures(root, split, skip=True, report=report))
    if (root / "images").is_dir():
        files = [Path(file) for file in list_pictures(root)["file"]]
        for _ in readable(files, lambda file: read_picture(file, report=report), skip=True, report=report):
            pass
    if (path := root / "smell_descriptions.json").exists():
        _try(path, report, lambda: read_scents(root, report=report))
    return report


def _try(path: Path, report: Report, read) -> None:
    try:
        read()
    except DataError as why:
        report.skip(path, why)
