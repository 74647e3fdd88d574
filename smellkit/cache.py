"""Tables that took long to read, kept under data/work while the files that they were made from are the same.

A file is the same while its name, size, inode and time stamps are, as for git; one that was written to within the last
seconds is known by its content instead. What is kept starts with its own checksum: anything damaged is rebuilt.
"""

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from smellkit import paths
from smellkit.checks import Report

log = logging.getLogger(__name__)
KEEP = 24  # tables of one name; the oldest go first
FORMAT = "arrow 4"  # of what is kept: another one is not read
SETTLED = 2e9  # ns: a file that was written to more recently could change again within the grain of its time stamp


def named(files: Iterable[Path], *, root: Path) -> dict[str, Path]:
    """Return name -> file, the name being the path below `root` with slashes; a file elsewhere keeps its whole path."""
    start = f"{root}{os.sep}"
    return {paths.text(str(file).removeprefix(start).replace(os.sep, "/")): file for file in files}


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
    key = hashlib.sha256(json.dumps([FORMAT, name, options, sorted(files.items())]).encode()).hexdigest()
    path, notes = paths.work() / "tables" / f"{name}-{key[:32]}.checked", Report()
    if (kept := _kept(path)) is not None:
        result, noted = _frame(kept), json.loads(kept.schema.metadata[b"report"])
        noted |= {kind: [tuple(note) for note in noted[kind]] for kind in ("notes", "warnings")}  # JSON has lists
        for note in noted["warnings"]:
            notes.tell(*note)  # a warning again, although nothing was read
        notes = Report(**noted)
    else:
        result = build(notes)
        _keep(path, result, notes)
    if report is not None:
        report.add(notes)
    return result


def _frame(kept: pa.RecordBatch) -> pd.DataFrame:
    """What `to_pandas` would make of it, but numbers are not copied, and may be written to."""
    columns = {}
    for name, values in zip(kept.schema.names, kept.columns, strict=True):
        if pa.types.is_run_end_encoded(values.type):
            columns[name] = pc.run_end_decode(values).to_pandas()
        elif (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)) and not values.null_count:
            columns[name] = np.frombuffer(values.buffers()[1], values.type.to_pandas_dtype(), len(values))
        else:
            columns[name] = values.to_pandas()
    return pd.DataFrame(columns, copy=False)


def _kept(path: Path) -> pa.RecordBatch | None:
    """Return the table in `path`, or None when it is not there, can't be read, or is not what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        log.warning("Can't read %s, so the files are read again: %s", path, why)
        return None
    if zlib.crc32(content := memoryview(data)[4:]).to_bytes(4, "big") == data[:4]:
        return pa.ipc.open_file(content).get_batch(0)
    log.warning("%s is damaged, so the files are read again", path)
    return None


def _keep(path: Path, table: pd.DataFrame, notes: Report) -> None:
    """Write the table and drop the oldest of its name; a folder that can't be written costs time later, no result."""
    columns = [one.combine_chunks() for one in pa.Table.from_pandas(table, preserve_index=False).columns]
    compact = [pc.run_end_encode(one) if pa.types.is_large_string(one.type) else one for one in columns]
    stored = pa.RecordBatch.from_arrays(compact, list(table.columns))
    stored = stored.replace_schema_metadata({"report": json.dumps(asdict(notes))})
    try:
        with paths.replacing(path) as part:
            stream, fast = pa.BufferOutputStream(), pa.ipc.IpcWriteOptions(compression="lz4")
            with pa.ipc.new_file(stream, stored.schema, options=fast) as file:
                file.write_batch(stored)
            content = stream.getvalue()
            part.write_bytes(zlib.crc32(content).to_bytes(4, "big") + content)
        same = path.parent.glob(f"{path.stem.rpartition('-')[0]}-*.checked")
        for old in sorted(same, key=lambda old: old.stat().st_mtime)[:-KEEP]:
            old.unlink(missing_ok=True)
    except OSError as why:
        log.warning("Can't keep %s: %s", path, why)
