"""Tables that took long to read, kept under data/work while the files that they were made from are the same.

A file is the same while its name, size, inode and time stamps are, as for git; one that was written to within the last
seconds is known by its content instead. What is kept starts with its own SHA-256: anything damaged is rebuilt.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from smellkit import paths
from smellkit.checks import Report

log = logging.getLogger(__name__)
KEEP = 24  # tables of one name; the oldest go first
SETTLED = 2e9  # ns: a file that was written to more recently could change again within the grain of its time stamp


def named(files: Iterable[Path], *, root: Path) -> dict[str, Path]:
    """Return name -> file, the name being the path below `root` with slashes; a file elsewhere keeps its whole path."""
    start = f"{root}{os.sep}"
    return {str(file).removeprefix(start).replace(os.sep, "/"): file for file in files}


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return name -> a text that is another one once the file has changed; "" where it can't be read."""
    now = time.time_ns()
    return {name: _digest(path, now=now) for name, path in files.items()}


def _digest(path: Path, *, now: int) -> str:
    try:
        stat = path.stat()
        if os.name == "posix" and now - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED:
            return f"{stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""  # whoever reads the file says why


def table(
    name: str,
    build: Callable[[Report], pd.DataFrame],
    *,
    files: Mapping[str, str],
    options: str = "",
    report: Report | None = None,
) -> pd.DataFrame:
    """Return what `build(report)` returns, from the cache when it was built before from the same `files` (`digests`).

    `options` is everything else that the result depends on, the version of the code that builds it included. What the
    build noted in its report is kept with the table and noted again.
    """
    key = hashlib.sha256(json.dumps([name, options, sorted(files.items())]).encode()).hexdigest()
    path = paths.work() / "tables" / f"{name}-{key[:32]}.checked"
    if (result := _kept(path)) is not None:
        notes = Report.from_dict(json.loads(result.attrs.pop("report")))
        notes.repeat()
    else:
        result = build(notes := Report())
        stored = result.copy(deep=False)
        stored.attrs = {"report": json.dumps(asdict(notes))}
        _keep(path, stored)
    if report is not None:
        report.add(notes)
    return result


def _kept(path: Path) -> pd.DataFrame | None:
    """Return the table in `path`, or None when it is not there, can't be read, or is not what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        log.warning("Can't read %s, so the files are read again: %s", path, why)
        return None
    if hashlib.sha256(content := data[32:]).digest() == data[:32]:
        return pd.read_parquet(io.BytesIO(content))
    log.warning("%s is damaged, so the files are read again", path)
    return None


def _keep(path: Path, stored: pd.DataFrame) -> None:
    """Write the table and drop the oldest of its name; a folder that can't be written costs time later, no result."""
    try:
        with paths.replacing(path) as part:
            content = stored.to_parquet(compression="zstd", index=False)
            part.write_bytes(hashlib.sha256(content).digest() + content)
        same = path.parent.glob(f"{path.stem.rpartition('-')[0]}-*.checked")
        for old in sorted(same, key=lambda old: old.stat().st_mtime)[:-KEEP]:
            old.unlink(missing_ok=True)
    except OSError as why:
        log.warning("Can't keep %s: %s", path, why)
