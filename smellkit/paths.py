"""Where things lie, and how a file gets its final name: all at once or not at all."""

import errno
import json
import os
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from smellkit.errors import OptionError, WriteError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)  # nothing can be written
TAKEN = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)  # a folder in place of a file, or a file of one
LOCK, TRIES = ".lock", 50
HOME = Path(__file__).resolve().parent.parent  # the checkout


def raw() -> Path:
    """Folder of real recordings, one folder a data set: `SMELLKIT_DATA`, or data/raw. Never written but by `fetch`."""
    return Path(os.environ.get("SMELLKIT_DATA") or HOME / "data" / "raw")


def sample() -> Path:
    """Folder of the small simulated recordings that come with the kit."""
    return HOME / "data" / "sample"


def weights() -> Path:
    """Folder of the trained weights that come with the kit."""
    return HOME / "data" / "weights"


def work() -> Path:
    """Folder for what can be computed again (caches, embeddings): `SMELLKIT_WORK`, or data/work."""
    return Path(os.environ.get("SMELLKIT_WORK") or HOME / "data" / "work")


def runs() -> Path:
    """Folder of run folders: `SMELLKIT_RUNS`, or data/runs."""
    return Path(os.environ.get("SMELLKIT_RUNS") or HOME / "data" / "runs")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make a WriteError of what the block raises where `path` can't be written: no room, not allowed, or no file."""
    try:
        yield
    except OSError as why:
        if isinstance(why, WriteError) or why.errno not in FULL + TAKEN:
            raise
        hint = "make room, or write to another place; what was there before is unchanged"
        raise WriteError(f"Can't write {path}: {why.strerror}", hint=hint) from why


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name only when the block succeeds.

    >>> with replacing(out) as part:
    ...     part.write_text("all or nothing")
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def lock(folder: Path, *, what: str) -> None:
    """Say that this process writes in `folder`, until `unlock`; OptionError where another one does.

    The lock is a file with process, host and start; one whose process is gone is taken over, by one process alone.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    own = {"pid": os.getpid(), "host": socket.gethostname(), "began": _began(os.getpid())}
    file, taking, who = folder / LOCK, folder / f"{LOCK}.taking", ""
    for _ in range(TRIES):
        try:
            with file.open("x", encoding="utf-8") as new:
                json.dump(own | {"since": time.ctime()}, new)
            return
        except FileExistsError:
            holder = read_json(file)
        if own.items() <= holder.items():
            return
        if not {*own, "since"} <= holder.keys():
            who = "it does not say who"  # yet, perhaps
        elif holder["host"] != own["host"] or _began(holder["pid"]) == holder["began"]:
            who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
            break
        else:
            with suppress(FileExistsError):
                taking.mkdir()
                if read_json(file) == holder:
                    file.unlink()
                taking.rmdir()
        time.sleep(0.02)
    hint = f"wait for it, use another name, or delete {file} (and {taking.name}) if that process is gone"
    raise OptionError(f"Another run is writing here: {what} in {folder} ({who or 'it begins'})", hint=hint)


def _began(pid: int) -> str:
    """When a process began, so that another one with its number is not taken for it; "" when it is gone."""
    from psutil import Error, Process

    try:
        if sys.platform != "linux":
            return str(Process(pid).create_time())
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]  # no clock moves it
    except (OSError, Error):
        return ""


def unlock(folder: Path) -> None:
    """Give `folder` free, if it is this process that holds it."""
    if read_json(folder / LOCK).get("pid") == os.getpid():
        (folder / LOCK).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, *, what: str) -> Iterator[None]:
    """Hold the lock of `folder` while the block lasts."""
    lock(folder, what=what)
    try:
        yield
    finally:
        unlock(folder)


def text(name: str) -> str:
    """Names of files as text that can be written: a byte that is no UTF-8, as from an old archive, as `\\udce9`."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def cell(name: str) -> str:
    """A file's name as a cell of a CSV for spreadsheets, too: what would be a formula there begins with a quote."""
    return f"'{text(name)}" if name.startswith(("=", "+", "-", "@", "\t")) else text(name)


def check_writable(path: Path) -> None:
    """WriteError where `replacing` could not write the file `path`: before hours of work rather than after them."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        tempfile.TemporaryFile(dir=path.parent).close()


def write_text(path: Path, text: str) -> Path:
    """Write `text` to `path` by rename and return the path."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path, value: object) -> Path:
    """Write `value` as indented JSON by rename and return the path; NaN is refused."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of the kit's own holds; empty where there is none, or nothing that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
