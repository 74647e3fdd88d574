"""How a fault is told: one error that names the place, and a report that counts what was forgiven."""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from smellkit.errors import DataError

log = logging.getLogger(__name__)
Result = TypeVar("Result")
LONGEST = 60  # characters of a wrong value that an error repeats


def fault(
    path: Path | str,
    *,
    expected: str,
    found: str,
    line: int | None = None,
    column: str | None = None,
    key: str | None = None,
    hint: str,
) -> DataError:
    """Return the error for one fault: `file, line 3, column 'CO': expected a number, found 'abc'`, then what to try."""
    place = [str(path)]
    place += [f"line {line}"] if line is not None else []
    place += [f"column {column!r}"] if column is not None else []
    place += [f"key {key}"] if key is not None else []
    return DataError(f"{', '.join(place)}: expected {expected}, found {found}", hint=hint)


def short(value: object) -> str:
    """Return a wrong value for an error, in quotes if it is text, cut to `LONGEST` characters."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def kind(what: str) -> str:
    """What was told less what is in brackets, which is of one file alone."""
    return re.sub(r"\s*\(.*?\)", "", what)


def summary(told: Iterable[tuple[str, str, int]]) -> list[str]:
    """A line for each kind of what was told, over all files: `3 x header trimmed, in 3 files, first a.csv`."""
    kinds: dict[str, list[tuple[str, str, int]]] = {}
    for place in told:
        kinds.setdefault(kind(place[1]), []).append(place)
    lines = []
    for what, places in kinds.items():
        path, full, count = places[0]
        files = len({path for path, _, _ in places})
        total = sum(count for _, _, count in places)
        lines.append(f"{total} x {what}, in {files} files, first {path}" if files > 1 else f"{path}: {full} ({count})")
    return lines


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return up to `count` names of `known` that look like `name`, whatever their capitals."""
    by_key = {candidate.casefold(): candidate for candidate in known}
    return [by_key[key] for key in difflib.get_close_matches(name.casefold(), by_key, count, cutoff=0.5)]


@dataclass
class Report:
    """What was forgiven or left out while files were read: (file, what, how many), in the order it was met.

    `counts` sums over files; `skipped` maps a file to why it was left out.
    """

    files: int = 0
    notes: list[tuple[str, str, int]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)  # what is in the data, in words
    told: list[tuple[str, str, int]] = field(default_factory=list)  # those notes that a command repeats to its user

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report of which `values` is `dataclasses.asdict`, be it after a way through JSON."""
        notes, told = ([tuple(note) for note in values.get(name, [])] for name in ("notes", "told"))
        return cls(values["files"], notes, dict(values["skipped"]), list(values.get("remarks", [])), told)

    def note(self, path: Path | str, what: str, count: int = 1) -> None:
        """Count `what` in the file `path`, and log it."""
        self.notes.append((str(path), what, int(count)))
        log.info("%s: %s (%d)", path, what, count)

    def tell(self, path: Path | str, what: str, count: int = 1) -> None:
        """Count `what` as `note` does, as something that changes what is read: the first of its kind is a warning."""
        again = any(kind(what) == kind(other) for _, other, _ in self.told)
        self.notes.append((str(path), what, int(count)))
        self.told.append((str(path), what, int(count)))
        log.log(logging.INFO if again else logging.WARNING, "%s: %s (%d)", path, what, count)

    def repeat(self) -> None:
        """Log what was told once more: it was read from a cache."""
        again = Report()
        for place in self.told:
            again.tell(*place)

    def skip(self, path: Path | str, why: object) -> None:
        """Remember that `path` was left out because of `why`, and log it as a warning."""
        self.skipped[str(path)] = str(why)
        log.warning("Skipped %s", why)

    def add(self, other: Report) -> None:
        """Take over what another report holds."""
        self.files += other.files
        self.notes += other.notes
        self.skipped |= other.skipped
        self.remarks += other.remarks
        self.told += other.told

    @property
    def counts(self) -> Counter[str]:
        """How often each thing was met, over all files."""
        total: Counter[str] = Counter()
        for _, what, count in self.notes:
            total[what] += count
        return total

    def __str__(self) -> str:
        lines = [f"{self.files} files read, {len(self.skipped)} skipped"]
        lines += [f"  {count:6d}  {what}" for what, count in self.counts.most_common()]
        lines += [f"  {remark}" for remark in self.remarks]
        return "\n".join(lines + [f"  skipped: {why}" for why in self.skipped.values()])


def readable(
    paths: Iterable[Path], read: Callable[[Path], Result], *, skip: bool = False, report: Report | None = None
) -> Iterator[tuple[Path, Result]]:
    """Yield (path, read(path)) for every path; the first fault ends it.

    With `skip` a file with a fault is reported and left out instead.
    """
    report = report if report is not None else Report()
    for path in paths:
        try:
            result = read(path)
        except DataError as why:
            if not skip:
                raise
            report.skip(path, why)
            continue
        report.files += 1
        yield path, result


def content(path: Path, *, limit: int) -> bytes:
    """Return the bytes of the file `path`, which must exist, hold something, and be at most `limit` bytes long."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > limit:
            raise fault(path, expected=f"at most {limit} bytes", found=f"{size} bytes", hint="is it the right file?")
        data = path.read_bytes()
    except OSError as why:
        reason, hint = why.strerror or type(why).__name__, "check the name and that you may read it"
        raise fault(path, expected="a readable file", found=reason, hint=hint) from why
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf"):
        empty = f"an empty file ({len(data)} bytes)"
        raise fault(path, expected="a file with something in it", found=empty, hint="copy or record it again")
    if not_data := disguise(data):
        raise fault(path, expected="data", found=not_data[0], hint=not_data[1])
    return data


def disguise(data: bytes) -> tuple[str, str] | None:
    """What a file is that only stands in the place of data, and what to try: a Git LFS pointer, a page, an archive."""
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "`git lfs pull` in that folder, or download the file again"
    if head[:15].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) and b"<svg" not in head:
        return "a web page", "download the file itself again (the raw file, after logging in if the server asks for it)"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(data)
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")):
        return "a compressed archive", "unpack it first"
    return None


def _archive(data: bytes) -> tuple[str, str]:
    """What a zip archive is: cut off, empty, a spreadsheet, or whole."""
    import io
    import zipfile

    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return f"a zip archive that was cut off ({len(data)} bytes)", "download or copy it again"
    if not names:
        return "an empty zip archive", "download or make it again"
    if any(name.startswith("xl/") for name in names):
        return "a spreadsheet (xlsx)", "save it as CSV, with commas between columns and points in numbers"
    return f"a zip archive of {len(names)} files", "unpack it first"


def decoded(path: Path, data: bytes) -> str:
    """Return UTF-8 `data` (with or without byte order mark) as text; any other encoding is refused with its place."""
    hint = "save it as UTF-8"
    zeros = data[:1000].count(0)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or zeros > len(data[:1000]) // 4:
        raise fault(path, line=1, column="1", expected="UTF-8 text", found="UTF-16 or UTF-32", hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as why:
        line = data.count(b"\n", 0, why.start) + 1
        column = str(why.start - data.rfind(b"\n", 0, why.start))
        byte = f"the byte 0x{data[why.start]:02x} (Latin-1?)"
        raise fault(path, line=line, column=column, expected="UTF-8 text", found=byte, hint=hint) from why
