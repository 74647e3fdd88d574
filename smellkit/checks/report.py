"""One file, read strictly: how a fault is told, what was forgiven, and bytes, text, JSON, YAML and pictures.

What a standard forbids or leaves open is refused, and the place is named; a report counts what was forgiven.
"""

from __future__ import annotations

import io
import json
import logging
import math
import re
import reprlib
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from smellkit import paths
from smellkit.errors import DataError
from smellkit.options import alike

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)
Value = TypeVar("Value")
LIMIT = 200_000_000  # bytes; the longest real recording has 60 thousand
DEEPEST = 100  # levels
WORDS, CHARACTERS = 2_000, 20_000  # of a description; the longest in SmellNet has 200 words
TWICE = object()  # the key under which an object keeps the name that it has twice
PIXELS = 25_000_000  # a picture with more is refused from its header, before it is unpacked
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")  # no format that runs another program
SUFFIXES = {"JPEG": ("jpg", "jpeg"), "MPO": ("jpg", "jpeg"), "TIFF": ("tif", "tiff"), "PPM": ("ppm", "pgm", "pbm")}
BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)
ARCHIVES = (b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")


def fault(
    path: Path | str, expected: str, actual: str, hint: str, *, line: int | None = None, column: str | None = None,
    key: str | None = None,
) -> DataError:  # fmt: skip
    """Return the error for one fault: `file, line 3, column 'CO': expected a number, found 'abc'`, then what to try."""
    places = {"line": line, "column": None if column is None else repr(column), "key": key}
    where = ", ".join(
        [paths.text(str(path)), *(f"{name} {place}" for name, place in places.items() if place is not None)]
    )
    return DataError(f"{where}: expected {expected}, found {actual}", hint=hint)


def kind(what: str) -> str:
    """What was told less what is in brackets, which is of one file alone."""
    return re.sub(r"\s*\(.*?\)", "", what)


def summary(notes: Iterable[tuple[str, str, int]]) -> list[str]:
    """A line for each kind of what was told, over all files: `3 x header trimmed, in 3 files, first a.csv`."""
    kinds: dict[str, list[tuple[str, str, int]]] = {}
    for place in notes:
        kinds.setdefault(kind(place[1]), []).append(place)
    lines = []
    for what, places in kinds.items():
        path, full, count = places[0]
        files, total = len({place[0] for place in places}), sum(place[2] for place in places)
        lines.append(f"{total} x {what}, in {files} files, first {path}" if files > 1 else f"{path}: {full} ({count})")
    return lines


@dataclass
class Report:
    """What was forgiven or left out while files were read: (file, what, how many), in the order it was met."""

    files: int = 0
    notes: list[tuple[str, str, int]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # file -> why it was left out
    remarks: list[str] = field(default_factory=list)  # what is in the data, in words
    warnings: list[tuple[str, str, int]] = field(default_factory=list)  # notes that a command repeats to its user

    def note(self, path: Path | str, what: str, count: int = 1) -> None:
        """Count `what` in the file `path`, and log it."""
        self.notes.append((str(path), what, int(count)))
        log.info("%s: %s (%d)", path, what, count)

    def tell(self, path: Path | str, what: str, count: int = 1) -> None:
        """Count `what` as `note` does, as something that changes what is read: the first of its kind is a warning."""
        again = any(kind(what) == kind(other) for _, other, _ in self.warnings)
        self.notes.append((str(path), what, int(count)))
        self.warnings.append(self.notes[-1])
        log.log(logging.INFO if again else logging.WARNING, "%s: %s (%d)", path, what, count)

    def skip(self, path: Path | str, why: object) -> None:
        """Remember that `path` was left out because of `why`, and log it as a warning."""
        self.skipped[str(path)] = str(why)
        log.warning("Skipped %s", why)

    def add(self, other: Report) -> None:
        """Take over what another report holds."""
        self.files += other.files
        self.skipped |= other.skipped
        for name in ("notes", "remarks", "warnings"):
            getattr(self, name).extend(getattr(other, name))

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
    files: Iterable[Path], read: Callable[[Path], Value], *, skip: bool = False, report: Report | None = None
) -> Iterator[tuple[Path, Value]]:
    """Yield (path, read(path)) for every path; the first fault ends it, or with `skip` is reported and left out."""
    report = report if report is not None else Report()
    for path in files:
        try:
            result = read(path)
        except DataError as why:
            if not skip:
                raise
            report.skip(path, why)
        else:
            report.files += 1
            yield path, result


def content(path: Path, *, limit: int = LIMIT) -> bytes:
    """Return the bytes of the file `path`, which must exist, hold data, and be at most `limit` bytes long."""
    try:
        if (size := path.stat().st_size) > limit:
            raise fault(path, f"at most {limit} bytes", f"{size} bytes", "is it the right file?")
        data = path.read_bytes()
    except OSError as why:
        reason, hint = why.strerror or type(why).__name__, "check the name and that you may read it"
        raise fault(path, "a readable file", reason, hint) from why
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf"):
        empty = f"an empty file ({len(data)} bytes)"
        raise fault(path, "a file with something in it", empty, "copy or record it again")
    if not_data := disguise(data):
        raise fault(path, "data", *not_data)
    return data


def disguise(data: bytes) -> tuple[str, str] | None:
    """What a file is that only stands in the place of data, and what to try: a Git LFS pointer, a page, an archive."""
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "`git lfs pull` in that folder, or download the file again"
    if head[:15].lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) and b"<svg" not in head:
        return "a web page", "download the file itself again (the raw file, after logging in if the server asks for it)"
    if head.startswith(ARCHIVES):
        return "a compressed archive", "unpack it first"
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return f"a zip archive that was cut off ({len(data)} bytes)", "download or copy it again"
    if any(name.startswith("xl/") for name in names):
        return "a spreadsheet (xlsx)", "save it as CSV, with commas between columns and points in numbers"
    if names:
        return f"a zip archive of {len(names)} files", "unpack it first"
    return "an empty zip archive", "download or make it again"


def decoded(path: Path, data: bytes) -> str:
    """Return UTF-8 `data` (with or without byte order mark) as text; any other encoding is refused with its place."""
    expected, hint = "UTF-8 text", "save it as UTF-8"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:1000].count(0) > len(data[:1000]) // 4:
        raise fault(path, expected, "UTF-16 or UTF-32", hint, line=1, column="1")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as why:
        line, column = data.count(b"\n", 0, why.start) + 1, str(why.start - data.rfind(b"\n", 0, why.start))
        byte = f"the byte 0x{data[why.start]:02x} (Latin-1?)"
        raise fault(path, expected, byte, hint, line=line, column=column) from why


def read_json(path: Path | str) -> Any:
    """Return the value in a UTF-8 JSON file, an object at the root.

    Refuses, with the path of keys: NaN and infinity, a duplicate key, half a surrogate pair, more than 100 levels.
    """
    path = Path(path)
    text = decoded(path, content(path))
    try:
        value = json.loads(text, object_pairs_hook=_pairs)
        flaw = next(_flaws(value), None)
    except json.JSONDecodeError as why:
        what, hint = f"{why.msg} at {text[why.pos : why.pos + 20]!r}", "the file is damaged or cut off: copy it again"
        raise fault(path, "JSON", what, hint, line=why.lineno, column=str(why.colno)) from why
    except RecursionError as why:
        limit, deep = f"at most {DEEPEST} levels", "more levels than that"
        raise fault(path, limit, deep, "is it the right file?", key="$") from why
    except ValueError as why:  # a number of thousands of digits
        raise fault(path, "JSON", str(why), "correct the number") from why
    if flaw:
        raise fault(path, *flaw[1:], key=flaw[0])
    return _object(path, value)


def _pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """An object, and under `TWICE` a key that came twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        value[TWICE] = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return value


def _flaws(value: Any, where: str = "$", depth: int = 0) -> Iterator[tuple[str, str, str, str]]:
    """What JSON leaves open, in a value and below: (path of keys, what is expected, what was found, what to try)."""
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(value, float) and not math.isfinite(value):
        yield where, "a number", repr(value), "leave the key out or use null"
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        yield where, "text", "half of a surrogate pair", "write the character itself"
    elif isinstance(value, dict):
        if TWICE in value:
            yield f"{where}.{value[TWICE]}", "each key once", "it twice", "delete one of them"
        for key, below in value.items():
            yield from _flaws(key, f"{where} (a key)", depth)
            yield from _flaws(below, f"{where}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _flaws(below, f"{where}[{index}]", depth + 1)


def _object(path: Path, value: Any) -> Any:
    if not isinstance(value, dict):
        what, hint = f"a {type(value).__name__}", "compare with a file of the same kind that came with the kit"
        raise fault(path, "an object {...} at the root", what, hint, key="$")
    return value


def read_yaml(path: Path | str) -> Any:
    """Return the value in a UTF-8 YAML file, an object at the root; an empty file is an empty one.

    Refuses, with line and column, what is not YAML, a key that comes twice, and tags that would make objects.
    """
    import yaml

    path = Path(path)

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:  # the later one would win without a word
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        value = yaml.load(decoded(path, content(path)), Strict)
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        place = {"line": mark.line + 1, "column": str(mark.column + 1)} if mark else {}
        problem = str(getattr(why, "problem", None) or why)[:120]
        raise fault(path, "YAML", problem, "correct that line", **place) from why
    except (RecursionError, ValueError, OverflowError, TypeError) as why:
        raise fault(path, "YAML", str(why)[:120], "is it the right file?") from why
    return _object(path, {} if value is None else value)


def long_text(entry: Mapping[str, Any], key: str, *, path: Path, where: str, report: Report | None = None) -> str:
    """Return the text `entry[key]`: refused when missing, no text, or empty; cut at 2,000 words, which is told."""
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip():
        near = f" (near: {', '.join(alike(key, entry))})" if alike(key, entry) else ""
        got = reprlib.repr(text) if key in entry else f"only {', '.join(entry)[:200]}{near}"
        hint = f"give {where} a {key} of one or two sentences"
        raise fault(path, "a text that is not empty", got, hint, key=f"{where}.{key}")
    words = text.split()
    if len(words) <= WORDS and len(text) <= CHARACTERS:
        return text.strip()
    cut = " ".join(words[:WORDS])[:CHARACTERS]
    (report or Report()).tell(path, f"{where}.{key} cut to {len(cut.split())} of {len(words)} words")
    return cut


def read_picture(path: Path | str, *, rgb: bool = True, report: Report | None = None) -> Image:
    """Return the picture in `path` as an RGB image, upright, 8 bits a channel, on white where it was transparent.

    Without `rgb` it keeps its depth and mode. The whole file is unpacked here, so a damaged one fails here. The first
    frame of an animation is taken, and a name that does not fit the format is forgiven; both are counted. Raises
    `DataError`; so does anything above 25 Mpx.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    data = content(path)
    try:
        picture = _unpacked(path, data, report if report is not None else Report())
        return _rgb(path, picture) if rgb else picture
    except Image.DecompressionBombError as why:
        limit = f"at most {PIXELS // 1_000_000} megapixels"
        raise fault(path, limit, str(why), "make the picture smaller") from why
    except BROKEN as why:
        unknown = isinstance(why, UnidentifiedImageError)
        what = f"bytes that start with {data[:12]!r}" if unknown else f"a damaged one ({why})"
        known, hint = "a picture (jpg, png, webp, avif, gif)", "open it in a picture viewer; replace or delete it"
        raise fault(path, known, what, hint) from why


def _unpacked(path: Path, data: bytes, report: Report) -> Image:
    """Return the first frame, upright; what is too large is refused from its header."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):  # our limit is lower
        picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
        if width * height > PIXELS:
            raise Image.DecompressionBombError(f"{width} x {height} = {width * height / 1e6:.0f} megapixels")
        picture.verify()  # the checksums of a PNG, which loading passes over
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if (frames := getattr(picture, "n_frames", 1)) > 1 and picture.format != "MPO":
            report.note(path, f"first of {frames} frames taken")
            picture.seek(0)
        name = str(picture.format).upper()
        if path.suffix.lower().removeprefix(".") not in SUFFIXES.get(name, (name.lower(),)):
            report.note(path, f"is {name}, whatever its name says")
        picture.load()
        return ImageOps.exif_transpose(picture)


def _rgb(path: Path, picture: Image) -> Image:
    """Return `picture` in RGB: 16-bit grey scaled to 8, transparency on white, every other mode by its conversion."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I"):  # Pillow itself would clip 16 bits at 255: all white
        grey = np.clip(np.asarray(picture, dtype=np.float64), 0, 65535)
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise fault(path, "8 or 16 bits a pixel", "floating-point pixels", "save it as a png or jpg")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")
