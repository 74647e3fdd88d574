"""Tables and arrays that took long to read, kept under data/work by the content of the files that they were made from.

A cached table is used only if every source file has the same name and the same bytes as when it was made. A file is
hashed again whenever its size, inode or one of its time stamps has changed, as git does. What is kept starts with
its own SHA-256: anything damaged is rebuilt, never trusted.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import paths
from smellkit.checks import Report

log = logging.getLogger(__name__)
KEEP = 24  # tables of one name; the oldest go first
SETTLED = 2e9  # ns: a file that was written to more recently could change again within the grain of its time stamp
NOTES = b"smellkit.report"


@contextmanager
def empty() -> Iterator[None]:
    """Within it, an empty cache that is thrown away: what is read first is read from its source."""
    before = os.environ.get("SMELLKIT_WORK")
    with tempfile.TemporaryDirectory() as work:
        os.environ["SMELLKIT_WORK"] = work
        try:
            yield
        finally:
            os.environ.pop("SMELLKIT_WORK")
            if before is not None:
                os.environ["SMELLKIT_WORK"] = before


def named(files: Iterable[Path], *, root: Path) -> dict[str, Path]:
    """Return name -> file, the name being the path below `root` with slashes; a file elsewhere keeps its whole path."""
    start = f"{root}{os.sep}"
    return {str(file).removeprefix(start).replace(os.sep, "/"): file for file in files}


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return name -> SHA-256 of the bytes of each file; "" where it can't be read."""
    where = hashlib.sha256("|".join(map(str, files.values())).encode()).hexdigest()
    index = _folder() / f"digests-{where[:32]}.checked"
    try:
        known = dict(json.loads(bytes(_read(index) or b"{}")))
    except ValueError:
        known = {}
    result, fresh, now = {}, {}, time.time_ns()
    for name, path in files.items():
        try:
            stat = path.stat()
            stamp = f"{stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"
            if (before := known.get(name)) and before[0] == stamp:
                result[name] = before[1]
                continue
            result[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            result[name] = ""  # whoever reads the file says why
            continue
        if os.name == "posix" and now - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED:
            fresh[name] = [stamp, result[name]]
    if fresh:
        _write(index, json.dumps(known | fresh).encode())
    return result


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
    return _kept(name, build, _pack, _unpack, files=files, options=options, report=report)


def arrays(
    name: str,
    build: Callable[[Report], dict[str, NDArray]],
    *,
    files: Mapping[str, str],
    options: str = "",
    report: Report | None = None,
) -> dict[str, NDArray]:
    """The same for arrays by name, which are back faster than a table."""
    return _kept(name, build, _pack_arrays, _unpack_arrays, files=files, options=options, report=report)


def _kept(name: str, build: Callable, pack: Callable, unpack: Callable, *, files, options: str, report: Report | None):
    report = report if report is not None else Report()
    key = hashlib.sha256(json.dumps([name, options, sorted(files.items())]).encode()).hexdigest()
    path = _folder() / f"{name}-{key[:32]}.checked"
    data = _read(path)
    if data is not None:
        result, notes = unpack(data)
    else:
        notes = Report()
        result = build(notes)
        _write(path, pack(result, notes))
        _tidy(name)
    report.files += notes.files
    report.notes += notes.notes
    report.skipped |= notes.skipped
    return result


def _folder() -> Path:
    return paths.work() / "tables"


def _told(notes: Report) -> str:
    return json.dumps({"files": notes.files, "notes": notes.notes, "skipped": notes.skipped})


def _report(told: str | bytes) -> Report:
    known = json.loads(told)
    return Report(known["files"], [tuple(note) for note in known["notes"]], known["skipped"])


def _pack_arrays(result: dict[str, NDArray], notes: Report) -> bytes:
    """Return the arrays and their report as an NPZ file, not compressed."""
    sink = io.BytesIO()
    np.savez(sink, **{**result, "report": np.array(_told(notes))})  # type: ignore[arg-type]
    return sink.getvalue()


def _unpack_arrays(data: memoryview) -> tuple[dict[str, NDArray], Report]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        result = {name: file[name] for name in file}
    return result, _report(str(result.pop("report")))


def _pack(result: pd.DataFrame, notes: Report) -> bytes:
    """Return the table and its report in Arrow's file format."""
    import pyarrow

    told = _told(notes)
    stored = pyarrow.Table.from_pandas(result, preserve_index=False)
    stored = stored.replace_schema_metadata({**(stored.schema.metadata or {}), NOTES: told.encode()})
    for number, field in enumerate(stored.schema):
        if pyarrow.types.is_large_string(field.type):  # names repeat in every row
            stored = stored.set_column(number, field.name, stored[number].combine_chunks().dictionary_encode())
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, stored.schema, options=pyarrow.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(stored)
    return sink.getvalue().to_pybytes()


def _unpack(data: memoryview) -> tuple[pd.DataFrame, Report]:
    import pyarrow

    stored = pyarrow.ipc.open_file(pyarrow.py_buffer(data)).read_all()
    fields = [
        pyarrow.field(field.name, pyarrow.large_string()) if pyarrow.types.is_dictionary(field.type) else field
        for field in stored.schema
    ]
    result = stored.cast(pyarrow.schema(fields, stored.schema.metadata)).to_pandas(split_blocks=True)
    return result, _report(stored.schema.metadata[NOTES])


def _read(path: Path) -> memoryview | None:
    """Return what was written to `path`, or None when it is not there, can't be read, or is not what was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        log.warning("Can't read %s, so the files are read again: %s", path, why)
        return None
    content = memoryview(data)[32:]
    if hashlib.sha256(content).digest() != data[:32]:
        log.warning("%s is damaged, so the files are read again", path)
        return None
    return content


def _write(path: Path, data: bytes) -> None:
    """Keep the data; a full disk or a folder that can't be written costs time later, and no result now."""
    try:
        with paths.replacing(path) as part:
            part.write_bytes(hashlib.sha256(data).digest() + data)
    except OSError as why:
        log.warning("Can't keep %s: %s", path, why)


def _tidy(name: str) -> None:
    try:
        kept = sorted(_folder().glob(f"{name}-*.checked"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-KEEP]:
            path.unlink(missing_ok=True)
    except OSError as why:  # another process tidies at the same time
        log.info("Could not tidy %s: %s", _folder(), why)
