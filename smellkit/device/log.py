"""What went over the link and when: JSON lines in a file, the newest entries in memory, latencies as numbers."""

from __future__ import annotations

import json
import logging
import statistics
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

_KEEP = 5000


@dataclass(frozen=True)
class Latency:
    """Seconds from a request to its reply; None before the first one."""

    count: int
    median: float | None = None
    p95: float | None = None
    worst: float | None = None


class Log:
    """One run's frames and notes.

    A line has `time` (UTC), `at` (seconds of the clock), `run`, `direction` (out, in, note), `hex`, `what` and
    `latency` (seconds). A disk that is full or read-only costs one warning, never a frame: `entries` goes on.
    """

    def __init__(self, path: Path | str | None = None, *, now: Callable[[], float], run: str = ""):
        self.run = run or uuid.uuid4().hex[:12]
        self.entries: deque[dict[str, Any]] = deque(maxlen=_KEEP)
        self.warning = ""
        self._now = now
        self._latencies: deque[float] = deque(maxlen=_KEEP)
        self._file: TextIO | None = None
        self._path = path
        if path is not None:
            try:
                self._file = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
            except OSError as why:
                self._warn(why)

    def sent(self, frame: bytes, what: str, *, latency: float) -> None:
        """A frame went out; `latency` is how long the write took."""
        self._write("out", frame, what, latency)

    def got(self, frame: bytes, what: str, *, latency: float | None = None) -> None:
        """Bytes came in; `latency` since the request, if they answer one."""
        if latency is not None:
            self._latencies.append(latency)
        self._write("in", frame, what, latency)

    def note(self, what: str) -> None:
        """Something happened that is no frame."""
        self._write("note", b"", what, None)

    def latency(self) -> Latency:
        """Statistics of the newest requests that were answered."""
        values = sorted(self._latencies.copy())
        if not values:
            return Latency(0)
        return Latency(len(values), statistics.median(values), values[int(0.95 * (len(values) - 1))], values[-1])

    def close(self) -> None:
        """Close the file; entries stay."""
        file, self._file = self._file, None
        if file:
            with suppress(OSError):  # what a full disk still owes was warned about
                file.close()

    def _write(self, direction: str, frame: bytes, what: str, latency: float | None) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            "at": round(self._now(), 6),
            "run": self.run,
            "direction": direction,
            "hex": frame.hex().upper(),
            "what": what,
            "latency": None if latency is None else round(latency, 6),
        }
        self.entries.append(entry)
        if self._file:
            try:
                self._file.write(json.dumps(entry) + "\n")
            except (OSError, ValueError) as why:
                self._warn(why)

    def _warn(self, why: Exception) -> None:
        """Say it once, and go on without a file: a log must never keep a stop from the device."""
        self.close()
        self.warning = f"Can't write the device log {self._path}: {why}; the newest {_KEEP} entries are in memory"
        logging.getLogger("smellkit.device").warning(self.warning)
