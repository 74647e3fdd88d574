"""Tables that took long to read, kept under data/work by the content of the files that they were made from.

A cached table is used only if every source file has the same name and the same bytes as when it was made (all of
them are hashed each time: 300 recordings take some 20 ms), and if the cached file itself is whole (it starts with its
own SHA-256). Anything else is rebuilt, never trusted.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from smellkit import paths
from smellkit.checks import Report

log = logging.getLogger(__name__)
KEEP = 24  # tables of one name; the oldest go first
NOTES = b"smellkit.report"


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return name -> SHA-256 of the bytes of each file; "" where it can't be read."""
    return {name: _digest(path) for name, path in files.items()}


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
    build noted in its report is kept with the table and told again.
    """
    report = report if report is not None else Report()
    key = hashlib.sha256(json.dumps([name, options, sorted(files.items())]).encode()).hexdigest()
    path = paths.work() / "tables" / f"{name}-{key[:32]}.parquet.checked"
    if (kept := _load(path)) is not None:
        result, notes = kept
    else:
        notes = Report()
        result = build(notes)
        _save(path, result, notes)
    report.files += notes.files
    report.notes += notes.notes
    report.skipped |= notes.skipped
    return result


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""  # whoever reads the file says why


def _load(path: Path) -> tuple[pd.DataFrame, Report] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        log.warning("Can't read the cached table %s: %s; reading the files again", path, why)
        return None
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        log.warning("The cached table %s is damaged; reading the files again", path)
        return None
    import pyarrow.parquet

    stored = pyarrow.parquet.read_table(pyarrow.BufferReader(data[32:]))
    notes = json.loads(stored.schema.metadata[NOTES])
    return stored.to_pandas(), Report(notes["files"], [tuple(note) for note in notes["notes"]], notes["skipped"])


def _save(path: Path, result: pd.DataFrame, notes: Report) -> None:
    """Keep the table; a full disk or a folder that can't be written costs time later, and no result now."""
    import pyarrow
    import pyarrow.parquet

    told = json.dumps({"files": notes.files, "notes": notes.notes, "skipped": notes.skipped})
    stored = pyarrow.Table.from_pandas(result, preserve_index=False)
    stored = stored.replace_schema_metadata({**(stored.schema.metadata or {}), NOTES: told.encode()})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(stored, buffer, compression="lz4")
    data = buffer.getvalue()
    try:
        with paths.replacing(path) as part:
            part.write_bytes(hashlib.sha256(data).digest() + data)
        name = path.name.rpartition("-")[0]
        kept = sorted(path.parent.glob(f"{name}-*"), key=lambda old: old.stat().st_mtime)
        for old in kept[:-KEEP]:
            old.unlink(missing_ok=True)
    except OSError as why:
        log.warning("Can't keep the table %s: %s", path, why)
