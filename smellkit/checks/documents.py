"""Read JSON strictly: what the standard forbids or leaves open is refused, with the path of keys to it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smellkit.checks.report import Report, content, decoded, fault, nearest, short

log = logging.getLogger(__name__)
LIMIT = 64_000_000  # bytes
DEEPEST = 100  # levels
WORDS = 2_000  # of a description; the longest in SmellNet has 200
CHARACTERS = 20_000
KINDS: dict[type, str] = {dict: "an object {...}", list: "a list [...]"}


class _Twice(dict):
    """An object in which a key came twice."""

    key = ""


def read_json(path: Path | str, *, root: type = dict) -> Any:
    """Return the value in a UTF-8 JSON file, an object at the root (or what `root` says).

    Refuses, with the path of keys: NaN and infinity, a duplicate key, half a surrogate pair, more than 100 levels.
    """
    path = Path(path)
    text = decoded(path, content(path, limit=LIMIT))
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
    except json.JSONDecodeError as why:
        raise fault(
            path,
            line=why.lineno,
            column=str(why.colno),
            expected="JSON",
            found=f"{why.msg} at {text[why.pos : why.pos + 20]!r}",
            hint="the file is damaged or cut off: copy it again",
        ) from why
    except RecursionError as why:
        deep = "[" if text.lstrip().startswith("[") else "{"
        raise _too_deep(path, f"$ and below, from {deep!r}") from why
    except ValueError as why:  # a number of thousands of digits
        raise fault(path, expected="JSON", found=str(why), hint="correct the number") from why
    for where, depth, item in _walk(value):
        if depth > DEEPEST:
            raise _too_deep(path, where)
        if isinstance(item, _Twice):
            raise fault(
                path,
                key=f"{where}.{item.key}",
                expected="each key once",
                found="it twice",
                hint="delete one of them",
            )
        if isinstance(item, float) and not math.isfinite(item):
            raise fault(path, key=where, expected="a number", found=short(item), hint="leave the key out or use null")
        if isinstance(item, str) and any("\ud800" <= letter <= "\udfff" for letter in item):
            raise fault(
                path,
                key=where,
                expected="text",
                found="half of a surrogate pair",
                hint="write the character itself",
            )
    if not isinstance(value, root):
        raise fault(
            path,
            key="$",
            expected=f"{KINDS[root]} at the root",
            found=f"a {type(value).__name__}",
            hint="compare with the file of the same name in data/sample",
        )
    return value


def long_text(entry: Mapping[str, Any], key: str, *, path: Path, where: str, report: Report | None = None) -> str:
    """Return the text `entry[key]`: refused when missing, no text, or empty; cut at 2,000 words, which is reported."""
    hint = f"give {where} a {key} of one or two sentences"
    if key not in entry:
        near = nearest(key, entry)
        found = f"only {', '.join(entry)[:200]}" + (f" (near: {', '.join(near)})" if near else "")
        raise fault(path, key=f"{where}.{key}", expected="a text", found=found, hint=hint)
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


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    twice = _Twice(pairs)
    twice.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return twice


def _constant(name: str) -> float:
    return float(name.replace("Infinity", "inf"))  # found again, with its path, by the walk


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


def _too_deep(path: Path, where: str) -> Exception:
    return fault(
        path,
        key=where if len(where) < 80 else f"{where[:80]}...",
        expected=f"at most {DEEPEST} levels",
        found="more levels than that",
        hint="is it the right file?",
    )
