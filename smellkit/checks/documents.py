"""Read JSON and pictures strictly: what the standard forbids or leaves open is refused, and the place is named."""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smellkit.checks.report import Report, content, decoded, fault, nearest, short
from smellkit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)
JSON_LIMIT, PICTURE_LIMIT = 64_000_000, 200_000_000  # bytes
DEEPEST = 100  # levels
WORDS = 2_000  # of a description; the longest in SmellNet has 200
CHARACTERS = 20_000
KINDS: dict[type, str] = {dict: "an object {...}", list: "a list [...]"}
PNG = b"\x89PNG\r\n\x1a\n"
PIXELS = 25_000_000  # a picture with more is refused from its header, before it is unpacked
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")  # no format that runs another program
SUFFIXES = {"JPEG": ("jpg", "jpeg"), "MPO": ("jpg", "jpeg"), "TIFF": ("tif", "tiff"), "PPM": ("ppm", "pgm", "pbm")}
BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)
# ... are all raised by Pillow's readers on damaged files


class _Twice(dict):
    """An object in which a key came twice."""

    key = ""


def read_json(path: Path | str, *, root: type = dict) -> Any:
    """Return the value in a UTF-8 JSON file, an object at the root (or what `root` says).

    Refuses, with the path of keys: NaN and infinity, a duplicate key, half a surrogate pair, more than 100 levels.
    """
    path = Path(path)
    value = _parsed(path, decoded(path, content(path, limit=JSON_LIMIT)))
    for where, depth, item in _walk(value):
        if depth > DEEPEST:
            raise _too_deep(path, where)
        if isinstance(item, _Twice):
            hint = "delete one of them"
            raise fault(path, key=f"{where}.{item.key}", expected="each key once", found="it twice", hint=hint)
        if isinstance(item, float) and not math.isfinite(item):
            raise fault(path, key=where, expected="a number", found=short(item), hint="leave the key out or use null")
        if isinstance(item, str) and any("\ud800" <= letter <= "\udfff" for letter in item):
            half, hint = "half of a surrogate pair", "write the character itself"
            raise fault(path, key=where, expected="text", found=half, hint=hint)
    if not isinstance(value, root):
        kind, hint = f"a {type(value).__name__}", "compare with the file of the same name in data/sample"
        raise fault(path, key="$", expected=f"{KINDS[root]} at the root", found=kind, hint=hint)
    return value


def read_yaml(path: Path | str, *, root: type = dict) -> Any:
    """Return the value in a UTF-8 YAML file, an object at the root (or what `root` says); an empty file is `root()`.

    Refuses, with line and column, what is not YAML, a key that comes twice, and tags that would make objects.
    """
    import yaml

    path = Path(path)
    text = decoded(path, content(path, limit=JSON_LIMIT))
    try:
        if (node := yaml.compose(text, Loader=yaml.SafeLoader)) is not None:
            _refuse_twice(path, node)
        value = yaml.safe_load(text)
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        place = {"line": mark.line + 1, "column": str(mark.column + 1)} if mark else {}
        found = str(getattr(why, "problem", None) or why)[:120]
        raise fault(path, expected="YAML", found=found, hint="correct that line", **place) from why
    except (RecursionError, ValueError, OverflowError, TypeError) as why:
        raise fault(path, expected="YAML", found=str(why)[:120], hint="is it the right file?") from why
    value = root() if value is None else value
    if not isinstance(value, root):
        kind, hint = f"a {type(value).__name__}", "compare with a file of the same kind that came with the kit"
        raise fault(path, key="$", expected=f"{KINDS[root]} at the root", found=kind, hint=hint)
    return value


def _refuse_twice(path: Path, node: Any) -> None:
    """Refuse the first mapping of a YAML document that has a key twice: the later one would win without a word."""
    import yaml

    waiting, done = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in done:
            continue
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        mark, hint = key.start_mark, "delete one of them"
                        place = {"line": mark.line + 1, "column": str(mark.column + 1)}
                        raise fault(path, key=key.value, expected="each key once", found="it twice", hint=hint, **place)
                    seen.add(key.value)


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except json.JSONDecodeError as why:
        what, hint = f"{why.msg} at {text[why.pos : why.pos + 20]!r}", "the file is damaged or cut off: copy it again"
        raise fault(path, line=why.lineno, column=str(why.colno), expected="JSON", found=what, hint=hint) from why
    except RecursionError as why:
        raise _too_deep(path, "$") from why
    except ValueError as why:  # a number of thousands of digits
        raise fault(path, expected="JSON", found=str(why), hint="correct the number") from why


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    twice, seen = _Twice(pairs), set()
    for key, _ in pairs:
        twice.key = twice.key or (key if key in seen else "")
        seen.add(key)
    return twice


def _walk(value: Any) -> Iterator[tuple[str, int, Any]]:
    """Yield (path of keys, depth, value) for everything in `value`, without recursion."""
    waiting: list[tuple[str, int, Any]] = [("$", 0, value)]
    while waiting:
        where, depth, item = waiting.pop()
        yield where, depth, item
        if isinstance(item, dict):
            waiting += [(f"{where} (a key)", depth, key) for key in reversed(item)]
            waiting += [(f"{where}.{key}", depth + 1, below) for key, below in reversed(item.items())]
        elif isinstance(item, list):
            waiting += [(f"{where}[{index}]", depth + 1, below) for index, below in reversed(list(enumerate(item)))]


def _too_deep(path: Path, where: str) -> DataError:
    where = where if len(where) < 80 else f"{where[:80]}..."
    limit, hint = f"at most {DEEPEST} levels", "is it the right file?"
    return fault(path, key=where, expected=limit, found="more levels than that", hint=hint)


def long_text(entry: Mapping[str, Any], key: str, *, path: Path, where: str, report: Report | None = None) -> str:
    """Return the text `entry[key]`: refused when missing, no text, or empty; cut at 2,000 words, which is reported."""
    hint = f"give {where} a {key} of one or two sentences"
    if key not in entry:
        near = nearest(key, entry)
        others = f"only {', '.join(entry)[:200]}" + (f" (near: {', '.join(near)})" if near else "")
        raise fault(path, key=f"{where}.{key}", expected="a text", found=others, hint=hint)
    text = entry[key]
    if not isinstance(text, str) or not text.strip():
        raise fault(path, key=f"{where}.{key}", expected="a text that is not empty", found=short(text), hint=hint)
    words = text.split()
    if len(words) <= WORDS and len(text) <= CHARACTERS:
        return text.strip()
    cut = " ".join(words[:WORDS])[:CHARACTERS]
    (report or Report()).note(path, f"{where}.{key} cut to {len(cut.split())} of {len(words)} words")
    log.warning("%s, key %s.%s: cut to %d of %d words", path, where, key, len(cut.split()), len(words))
    return cut


def read_picture(path: Path | str, *, report: Report | None = None) -> Image:
    """Return the picture in `path` as an RGB image, upright, 8 bits a channel, on white where it was transparent.

    The whole file is unpacked here, so a damaged one fails here. The first frame of an animation is taken, and a
    name that does not fit the format is forgiven; both are counted. Raises `DataError`; so does anything above 25 Mpx.
    """
    return _read(Path(path), _rgb, report if report is not None else Report())


def read_upright(path: Path | str, *, report: Report | None = None) -> Image:
    """Return the picture in `path` as `read_picture` does, but with the depth and the mode that it has."""
    return _read(Path(path), lambda _, picture: picture, report if report is not None else Report())


def _read(path: Path, convert: Callable[[Path, Image], Image], report: Report) -> Image:
    from PIL import Image, UnidentifiedImageError

    data = content(path, limit=PICTURE_LIMIT)
    damaged = "open it in a picture viewer; replace or delete it"
    if at := _damage_of_png(data):
        raise fault(path, expected="a picture", found=f"a damaged one (byte {at} and on)", hint=damaged)
    try:
        return convert(path, _unpacked(path, data, report))
    except Image.DecompressionBombError as why:
        raise _too_large(path, str(why)) from why
    except BROKEN as why:
        unknown = isinstance(why, UnidentifiedImageError)
        what = f"bytes that start with {data[:12]!r}" if unknown else f"a damaged one ({why})"
        raise fault(path, expected="a picture (jpg, png, webp, avif, gif)", found=what, hint=damaged) from why


def _damage_of_png(data: bytes) -> int:
    """Where a PNG is not what was written, by the checksums of its chunks, which Pillow passes over; 0 if nowhere."""
    if not data.startswith(PNG):
        return 0
    at = len(PNG)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(data):
            return 0  # cut off, or too large: its reader says so
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return at
        if data[at + 4 : at + 8] == b"IEND":
            return 0
        at = end + 4
    return 0


def _unpacked(path: Path, data: bytes, report: Report) -> Image:
    """Return the first frame, upright; what is too large is refused from its header."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a lower limit of ours comes next
        picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
        if width * height > PIXELS:
            raise _too_large(path, f"{width} x {height} = {width * height / 1e6:.0f} megapixels")
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
        depth = "8 or 16 bits a pixel"
        raise fault(path, expected=depth, found="floating-point pixels", hint="save it as a png or jpg")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _too_large(path: Path, size: str) -> DataError:
    limit = f"at most {PIXELS // 1_000_000} megapixels"
    return fault(path, expected=limit, found=size, hint="make the picture smaller")
