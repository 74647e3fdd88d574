"""Fetch a public data set: files at a pinned revision, resumed where they stopped, kept only with the right SHA-256."""

import errno
import hashlib
import logging
import shutil
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from smellkit import paths
from smellkit.errors import DataError, OptionError
from smellkit.options import check

log = logging.getLogger(__name__)
ATTEMPTS = 5
PATIENCE = 30  # s without a byte
CHUNK = 1 << 14  # bytes; what is less than that when the line is cut is fetched again
_local = threading.local()


@dataclass(frozen=True)
class File:
    """One file of a source: where it lies below the data set's folder, its address, SHA-256 and size in bytes."""

    path: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Source:
    """A public data set: what it is, whose it is, and its files."""

    name: str
    title: str
    home: str
    licence: str
    folder: str
    files: tuple[File, ...]
    by_hand: str = ""  # how to get one whose checksums nobody knows


def sources(table: Path | None = None, *, mirror: str = "") -> dict[str, Source]:
    """Return name -> source for all in data/sources.toml (or another `table`); files come from `mirror` if given."""
    table = table or paths.HOME / "data" / "sources.toml"
    try:
        entries = tomllib.loads(table.read_text("utf-8"))
    except (OSError, ValueError) as why:
        raise DataError(f"Can't read the list of sources {table}: {why}", hint="restore data/sources.toml") from why
    return {name: _source(name, entry, table=table, mirror=mirror) for name, entry in entries.items()}


def get(
    name: str,
    *,
    folder: Path | None = None,
    mirror: str = "",
    table: Path | None = None,
    workers: int = 8,
    progress: bool = True,
    pause: float = 1.0,
) -> tuple[Path, int]:
    """Fetch the source `name` and return (its folder, how many files were new); files that are there and right stay.

    `folder` is the data root (paths.raw()); `pause` the seconds before a first retry, doubled each time. A file gets
    its name only when its SHA-256 is right; what an interruption left (`*.part`) is resumed.
    """
    from tqdm.auto import tqdm

    known = sources(table, mirror=mirror)
    check([name], known, "There is no data set")
    if not known[name].files:
        what = f"{name} is not fetched: nobody here has its checksums"
        raise DataError(what, hint=f"{known[name].home}: {known[name].by_hand}")
    root = Path(folder or paths.raw()) / known[name].folder
    targets = {file: _inside(root, file.path) for file in known[name].files}
    wanted = [file for file, target in targets.items() if _sha256(target) != file.sha256]
    size = sum(file.size for file in wanted)
    there = next(parent for parent in (root, *root.absolute().parents) if parent.exists())
    if size * 1.05 > (free := shutil.disk_usage(there).free):
        what = f"{size / 1e6:.0f} MB don't fit into {there}, where {free / 1e6:.0f} MB are free"
        raise DataError(what, hint="free some space, or choose another folder with --out or SMELLKIT_DATA")
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=not progress or not size)
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        jobs = [pool.submit(_fetch, file, targets[file], pause=pause, progress=bar.update) for file in wanted]
        for job in as_completed(jobs):
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    return root, len(wanted)


def _source(name: str, entry: Mapping, *, table: Path, mirror: str) -> Source:
    """Return the source of one table in the list, each of its checksums joined with its address."""
    files, line = [], ""
    try:
        about, by_hand = {key: entry[key] for key in ("title", "home", "licence", "folder")}, entry.get("by_hand", "")
        listed = "" if by_hand else (table.parent / entry["checksums"]).read_text("utf-8")
        for line in listed.splitlines():
            if line.strip() and not line.startswith("#"):
                sha256, size, path = line.split(" ", 2)
                files.append(File(path, _url(entry["from"], path, mirror=mirror), sha256, int(size)))
        return Source(name, **about, files=tuple(files), by_hand=by_hand)
    except (KeyError, ValueError, OSError) as why:
        place = f", checksums, {line!r}" if line else ""
        hint = "restore data/sources.toml and data/checksums"
        raise DataError(f"{table}, {name}{place}: {type(why).__name__}: {why}", hint=hint) from why


def _url(origins: list[Mapping], path: str, *, mirror: str) -> str:
    """The address of a file, pinned to a revision, from the first of `origins` that has a place for it."""
    for origin in origins:
        for here, there in origin["files"].items():
            if path == here or (here.endswith("/") and path.startswith(here)):
                address = (mirror or origin["address"]).rstrip("/")
                parts = urlsplit(address)
                if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
                    raise OptionError(f"The address {address} is not safe", hint="use one that starts with https://")
                return f"{address}/{origin['revision']}/{quote(there + path.removeprefix(here))}"
    raise KeyError(f"a place for {path}")


def _inside(root: Path, path: str) -> Path:
    """Return root/path, which must not lead out of `root`, not even over a link."""
    target = root / PurePosixPath(path)
    if "\\" in path or ":" in path or ".." in path.split("/") or not target.resolve().is_relative_to(root.resolve()):
        raise DataError(f"The path {path!r} leads out of {root}", hint="restore data/checksums, or remove the link")
    return target


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(file: File, target: Path, *, pause: float, progress: Callable[[int], object]) -> None:
    """Fetch one file: tried again after a stop or a server's fault, resumed, checked, then given its name."""
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    progress(part.stat().st_size)
    for attempt in range(1, ATTEMPTS + 1):
        resumed = part.stat().st_size > 0
        try:
            _download(file, part, progress=progress)
            if (sha256 := _sha256(part)) == file.sha256:
                part.replace(target)
                return
            what = f"expected SHA-256 {file.sha256[:16]}... ({file.size} bytes), found {sha256[:16]}..."
            why, forever = OSError(what), not resumed  # a resumed file may have been begun with another revision
            progress(-part.stat().st_size)
            part.write_bytes(b"")
        except OSError as error:  # those of requests are OSErrors
            status = getattr(getattr(error, "response", None), "status_code", 0)
            refused = 400 <= status < 500 and status not in (408, 425, 429)
            why, forever = error, refused or error.errno == errno.ENOSPC
        if forever or attempt == ATTEMPTS:
            if not part.stat().st_size:
                part.unlink()
            hint = f"is {file.url} still public, and unchanged?" if forever else "run it again to resume"
            raise DataError(f"Could not fetch {file.path}: {why}", hint=hint) from why
        log.info("%s: %s; trying again", file.path, why)
        time.sleep(pause * 2 ** (attempt - 1))


def _download(file: File, part: Path, *, progress: Callable[[int], object]) -> None:
    """Append to `part` what is missing of the file; a server that can't resume sends all of it again."""
    import requests

    if not hasattr(_local, "session"):
        _local.session = requests.Session()  # one a thread, so that connections are kept
    have = part.stat().st_size
    if have == file.size:
        return
    start = have if have < file.size else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with _local.session.get(file.url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        answer.raise_for_status()
        if answer.status_code != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0
        progress(start - have)
        with part.open("ab" if start else "wb") as out:
            for block in answer.iter_content(CHUNK):
                out.write(block)
                progress(len(block))
                if out.tell() > file.size:  # the checksum can't be right any more
                    return
            if out.tell() < file.size:
                raise requests.ConnectionError(f"the connection ended after {out.tell()} of {file.size} bytes")
