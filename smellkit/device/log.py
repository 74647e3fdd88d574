"""A log of what went over a link: in memory, and in a file that can neither grow without end nor hold anybody up."""

import json
import logging
import os
import statistics
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LIMIT = 20_000_000  # bytes of a log file in one run
_KEEP = 5000  # entries and latencies that stay in memory


@dataclass(frozen=True)
class Latency:
    """Seconds from a request to its reply; None before the first one."""

    count: int
    median: float | None = None
    p95: float | None = None
    worst: float | None = None


class LineFile:
    """A file that lines are added to and that never makes its writer wait: one that would block is an OSError.

    `limit` bytes of one run, twice that for lines to `keep`: a noisy port must not fill the disk.
    """

    def __init__(self, path: Path | str, *, limit: int = LIMIT):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, name, 0)
        self._file = os.open(path, flags, 0o666)
        self._limit, self._written = limit, 0

    def write(self, line: str, *, keep: bool = False) -> bool:
        """Add a line; whether there was room for it."""
        data = line.encode()
        if self._written + len(data) > self._limit * (2 if keep else 1):
            return False
        if os.write(self._file, data) != len(data):
            raise BlockingIOError("it takes no more")
        self._written += len(data)
        return True

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):  # what a full disk still owes was warned about
                os.close(file)


class Log:
    """One run's frames and notes.

    A line has `time` (UTC), `at` (seconds of the clock), `run`, `direction` (out, in, note), `hex`, `what` and
    `latency` (seconds). A disk that is full or read-only costs one warning, never a frame: `entries` goes on.
    """

    def __init__(self, path: Path | str | None = None, *, now: Callable[[], float]):
        self.run = uuid.uuid4().hex[:12]
        self.entries: deque[dict[str, Any]] = deque(maxlen=_KEEP)
        self.warning = ""
        self._now, self._path = now, path
        self._latencies: deque[float] = deque(maxlen=_KEEP)
        self._file: LineFile | None = None
        try:
            self._file = LineFile(path) if path is not None else None
        except (OSError, ValueError) as why:
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
        """Something happened."""
        self._write("note", b"", what, None)

    def latency(self) -> Latency:
        """Statistics of the newest requests that were answered."""
        values = sorted(self._latencies.copy())
        if not values:
            return Latency(0)
        return Latency(len(values), statistics.median(values), values[int(0.95 * (len(values) - 1))], values[-1])

    def close(self) -> None:
        """Close the file; entries stay."""
        if self._file:
            self._file.close()
        self._file = None

    def _write(self, direction: str, frame: bytes, what: str, latency: float | None) -> None:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds"), "at": round(self._now(), 6), "run": self.run,
            "direction": direction, "hex": frame.hex().upper(), "what": what,
            "latency": None if latency is None else round(latency, 6),
        }  # fmt: skip
        self.entries.append(entry)
        try:
            if self._file and not self._file.write(json.dumps(entry) + "\n", keep=direction != "in"):
                self._warn("it is full: what comes in is left out from now on, and in the end what is sent, too")
        except (OSError, ValueError) as why:
            self.close()  # and go on without a file: a log must never keep a stop from the device
            self._warn(why)

    def _warn(self, why: object) -> None:
        """Say it once."""
        warning = f"Can't write the device log {self._path}: {why}; the newest {_KEEP} entries are in memory"
        if warning != self.warning:
            logging.getLogger("smellkit.device").warning(warning)
        self.warning = warning
