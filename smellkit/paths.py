"""Where things lie, and how a file gets its final name: all at once or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name only when the block succeeds.

    >>> with replacing(out) as part:
    ...     part.write_text("all or nothing")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write `text` to `path` by rename and return the path."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path, value: object) -> Path:
    """Write `value` as indented JSON by rename and return the path; NaN is refused."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
