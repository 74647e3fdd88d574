"""The electronic nose: rows of sensor values from the serial line of the sensor board, as they come.

    link --bytes--> Lines --rows--> queue (the newest 600) --> read(), rows()
          one driver on the same clock and link as the player: opens, reads, counts what it dropped, opens again

A board prints a line of numbers a row, with a header of names or without, or OpenSmell's `OSM,...`. There is no sum
to check: a digit lost on the way gives a wrong value that nobody can distinguish from a right one. What can be
recognised as wrong is dropped, and counted by reason; what the nose can't say, said again and again, is an error.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smellkit import noses
from smellkit.device.board import Board
from smellkit.device.clock import Clock
from smellkit.device.errors import Closed, LinkError, NoReply, PortLost
from smellkit.device.link import Link, connector, pauses
from smellkit.errors import OptionError
from smellkit.noses import Description

log = logging.getLogger(__name__)
LONGEST = 512  # bytes of a line; the longest that a board prints has about 150
PAUSE = 0.5  # seconds of silence inside a line after which it will not be completed
KEPT = 600  # rows that wait for a reader, ten minutes; when nobody comes they are dropped and a new run begins
NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?")
RECENT, AGAIN = 20, 5  # so many of the recent rows out of a span are no noise on the line, but another board


@dataclass(frozen=True)
class Row:
    """One sample: `time` in seconds since the port was opened first, `values` in the order of the columns.

    Rows with the same `run` follow each other; another number says that the board or the link began anew in between, or
    was silent for longer than the nose's pace allows.
    """

    time: float
    values: tuple[float, ...]
    run: int = 0


class Lines:
    """Bytes in any pieces to tuples of numbers; what is no complete row in the spans of `nose` is dropped and counted.

    The first line after a start is dropped: nobody knows how much of it is missing. A header line is recognised by its
    names, may give the columns in another order, and begins another `run`; rows come out in the order of the nose.
    `info` has what an OpenSmell board says of itself; `outside`, in words, what this nose can't say and the board does.
    """

    def __init__(self, nose: Description | str = "smellnet"):
        self.nose = noses.load(nose) if isinstance(nose, str) else nose
        self.columns = tuple(self.nose.columns)
        self.dropped: collections.Counter[str] = collections.Counter()
        self.info: dict[str, Any] = {}
        self.run = 0
        self._indices: list[int] = []  # of the columns, as a header gives them ...
        self._width = 0  # ... of so many names
        self.restart()

    def restart(self) -> None:
        """Forget the unfinished line: what comes next is the middle of some line. A board says its header once."""
        self.run += 1
        self.outside = ""
        self._recent: collections.deque[str] = collections.deque(maxlen=RECENT)
        self._line = b""
        self._whole = False  # the line that is being collected was seen from its beginning

    @property
    def waiting(self) -> int:
        """Bytes of a line that is not complete yet."""
        return len(self._line)

    def feed(self, data: bytes) -> list[tuple[float, ...]]:
        """Return the rows that `data` completes."""
        *finished, rest = (self._line + data).split(b"\n")
        self._line = rest[: LONGEST + 1]  # a line without an end takes no more memory than this
        rows = []
        for line in finished:
            rows.append(self._row(line.strip()))
            self._whole = True
        return [row for row in rows if row is not None]

    def expire(self) -> None:
        """Drop the unfinished line: the board fell silent inside it. What follows begins a line."""
        if self._line:
            self.dropped["unfinished"] += 1
            self._line, self._whole = b"", True

    def _row(self, line: bytes) -> tuple[float, ...] | None:
        mark = next((mark for mark in (b",", b";", b"\t") if mark in line), None)
        fields = [field.strip() for field in line.split(mark)]
        if not line or (len(line) <= LONGEST and (self._header(fields) or self._about_itself(fields))):
            return None
        if fields[0] == b"OSM":
            del fields[0]
        indices = self._indices or self._usual(len(fields))
        if not (reason := self._fault(line, fields, indices)):
            columns = zip(self.nose.columns.values(), indices, strict=True)
            values = [column.reading(float(fields[index])) for column, index in columns]
            self._watch(values, fields, indices)
            reason = "out of range" if math.inf in values else "no reading" if any(map(math.isnan, values)) else ""
        if reason:
            self.dropped[reason] += 1
            return None
        return tuple(values)

    def _usual(self, width: int) -> list[int]:
        """The places of the columns without a header: their order, behind the clock where the nose has one."""
        before = int(self.nose.clock is not None and width == len(self.columns) + 1)
        return [index + before for index in range(len(self.columns))]

    def _fault(self, line: bytes, fields: list[bytes], indices: list[int]) -> str:
        if len(line) > LONGEST:
            return "too long"
        if not self._whole:
            return "first"
        if not line.isascii() or any(byte < 32 and byte != 9 for byte in line):
            return "garbage"
        if len(fields) != (self._width if self._indices else indices[-1] + 1):
            return "columns"
        return "" if all(map(NUMBER.fullmatch, fields)) else "not a number"  # nan, inf, ovf among them

    def _header(self, fields: list[bytes]) -> bool:
        names = [field.decode("ascii", "replace") for field in fields]
        spelled = [[name, *column.also] for name, column in self.nose.columns.items()]
        indices = [next((names.index(name) for name in known if name in names), -1) for known in spelled]
        if -1 in indices:
            return False
        self._indices, self._width = indices, len(names)
        self.run += 1
        return True

    def _about_itself(self, fields: list[bytes]) -> bool:
        """Whether a line is one that an OpenSmell board says of itself; what it says is in `info`."""
        kind, *words = [field.decode("ascii", "replace") for field in fields]
        if kind == "INFO" and len(words) >= 3:
            self.info |= {"device": words[0], "version": words[1], "sensors": words[2]}
            interval = re.fullmatch(r"interval_ms=(\d+\.?\d*)", words[-1])
            if interval and float(interval[1]) > 0:
                self.info["rate"] = 1000 / float(interval[1])
            if words[2].isdecimal() and int(words[2]) != len(self.columns):
                self.outside = f"a board of {words[2]} sensors, and the nose {self.nose.name} has {len(self.columns)}"
        elif kind == "CAL" and len(words) == 2:
            self.info.setdefault("r0", {})[words[0]] = words[1]
        elif kind == "ERR":
            self.info["error"] = " ".join(words)
            self.dropped["error of the board"] += 1
        return kind in ("INFO", "CAL", "ERR", "PING")

    def _watch(self, values: list[float], fields: list[bytes], indices: list[int]) -> None:
        """Remember which column was out of its span: again and again, that is another board than the nose says."""
        far = next((number for number, value in enumerate(values) if value == math.inf), None)
        self._recent.append("" if far is None else self.columns[far])
        if far is None or self._recent.count(self.columns[far]) < AGAIN:
            self.outside = self.outside if any(self._recent) else ""
            return
        name, value = self.columns[far], float(fields[indices[far]])
        column = self.nose.columns[name]
        why = column.explain([value]) or "describe the board in a nose.toml"
        self.outside = f"{name} says {value:g}, {self.nose.name} allows {column.span[0]:g} to {column.span[1]:g}: {why}"


def record(nose: Nose, path: Path, *, seconds: float | None = None) -> int:
    """Write rows to a new CSV file until `seconds` are over or Ctrl-C; return how many.

    A warning says where rows are missing in between. OptionError if the file exists, NoReply when no row comes.
    """
    if seconds is not None and not seconds > 0:
        raise OptionError(f"seconds is {seconds}", hint="a number above 0; without, Ctrl-C ends it")
    until = math.inf if seconds is None else nose.clock.now() + seconds
    count, run = 0, 0
    try:
        file = path.open("x", encoding="utf-8", newline="", buffering=1)
    except OSError as why:
        raise OptionError(f"Could not write {path}: {why.strerror}", hint="a new file in a folder that exists") from why
    with file, contextlib.suppress(KeyboardInterrupt):
        file.write(",".join(nose.columns) + "\n")
        while (left := until - nose.clock.now()) > 0:
            try:
                row = nose.read(timeout=min(5.0, left))
            except NoReply:
                if left > 5.0 or not count:
                    raise
                break
            if run not in (0, row.run):
                log.warning("Rows are missing before row %d of %s: the board was silent or began anew", count + 1, path)
            run = row.run
            file.write(",".join(f"{value:.10g}" for value in row.values) + "\n")
            count += 1
    return count


class Nose(contextlib.AbstractContextManager):
    """A sensor board on a serial port, read by one thread; leaving the block closes the port and ends the thread.

    >>> with Nose.open("virtual") as nose:
    ...     row = nose.read(timeout=5)

    `port` is any address that pyserial knows, or `virtual` for a replayed recording. `nose` says what the board is; its
    `baud` holds unless you changed the firmware. A port that can't be opened is a PortError; one that goes away is
    opened again, with growing pauses, until `close`, and meanwhile `read` raises PortLost.
    """

    def __init__(self, port: str = "virtual", *, nose: Description | str = "smellnet", baud: int | None = None):
        self._lines = Lines(nose)
        self.description, self.columns = self._lines.nose, self._lines.columns
        self.port, self.baud = port, baud or self.description.baud
        self.connections = 0
        self.overrun = 0  # rows that were dropped because nobody read them
        self.lost = ""  # why the port is gone, or nothing
        self._rows: collections.deque[Row] = collections.deque()
        self._lock = threading.Lock()  # guards the rows
        self._closed = False
        self.clock = Clock()
        self._began = self._row_at = self._byte_at = self.clock.now()
        self._step_seconds = 0.0  # between the newest rows
        self._pauses, self._retry = pauses(), 0.0
        self._link: Link | None = None
        self._board = Board(nose=nose) if port == "virtual" else None
        try:
            self._connect = connector(self._board.port if self._board else port, baud=self.baud)
            self._open()  # here, not in the thread: a wrong name is an error at once
        except BaseException:
            self._close_board()
            raise
        self._runner = self.clock.run(self._step, inputs=self._inputs, name=f"nose {port}")

    @classmethod
    def open(cls, port: str = "virtual", *, nose: Description | str = "smellnet", baud: int | None = None) -> Nose:
        """Return a reader of the board on `port`, as `Nose` itself does. Raises PortError when it can't be opened."""
        return cls(port, nose=nose, baud=baud)

    def read(self, *, timeout: float = 5.0) -> Row:
        """Return the oldest row that was not read yet, waiting up to `timeout` seconds for one to come.

        LinkError when the board says what this nose can't; NoReply after `timeout`, PortLost when the board is gone.
        """
        self._runner.wait(lambda: bool(self._rows or self._lines.outside) or self._closed, timeout)
        with self._lock:
            if self._rows and not self._lines.outside:
                return self._rows.popleft()
        raise self._silence(timeout)

    def rows(self) -> list[Row]:
        """Return all rows that were not read yet, at once: none, one or more."""
        with self._lock:
            rows = list(self._rows)
            self._rows.clear()
        return rows

    def __iter__(self) -> Iterator[Row]:
        while not self._closed:
            yield self.read()

    def status(self) -> dict:
        """Return what is known: port, connected, connections, seconds since the last row, what was dropped and why.

        `waiting` rows were not read yet, and `lag` is how many seconds ago the oldest of them came.
        """
        with self._lock:
            waiting, oldest = len(self._rows), self._rows[0].time if self._rows else None
        now = self.clock.now()
        return {
            "port": self.port,
            "connected": not self.lost and not self._closed,
            "connections": self.connections,
            "silent": now - self._row_at,
            "waiting": waiting,
            "lag": 0.0 if oldest is None else now - self._began - oldest,
            "lost": self.lost,
            "outside": self._lines.outside,
            "info": dict(self._lines.info),
            "dropped": dict(self._lines.dropped) | ({"overrun": self.overrun} if self.overrun else {}),
        }

    def close(self) -> None:
        """Close the port and end the thread; a second time does nothing."""
        self._closed = True
        self._runner.kick()
        self._runner.join(5)
        self._close_board()

    def __exit__(self, *_) -> None:
        self.close()

    # the driver

    def _close_board(self) -> None:
        if self._board:
            self._board.close()

    def _inputs(self) -> int | None:
        return self._link.fileno() if self._link and self._link.wakes else None

    def _step(self) -> float | None:
        """Read what has come, or look for a lost port. Return when to be called next; None once closed."""
        if self._closed:
            self._let_go()
            return None
        try:
            if self._link is None:
                if self.clock.now() < self._retry:
                    return self._retry
                self._open()
            self._listen()
        except LinkError as why:
            self._let_go()
            self.lost = why.what
            self._retry = self.clock.now() + next(self._pauses)
            return self._retry
        return self._byte_at + PAUSE if self._lines.waiting else math.inf

    def _open(self) -> None:
        self._link = self._connect()
        self.connections += 1
        self.lost = ""
        self._lines.restart()

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link:
            link.close()

    def _listen(self) -> None:
        assert self._link is not None
        data, now = self._link.read(), self.clock.now()
        if data:
            self._byte_at = now
            if data.startswith(b"OSM,") and "device" not in self._lines.info:
                self._link.write(b"PING\n")  # whose rows are these, and how fast should they come?
            self._look_for_gap(now - self._row_at, data.count(b"\n"))
            for piece in data.splitlines(keepends=True):  # a header in between begins another run
                self._keep(self._lines.feed(piece), now)
        elif now >= self._byte_at + PAUSE:
            self._lines.expire()

    def _look_for_gap(self, silent: float, rows: int) -> None:
        """After a silence fewer rows come than it had: they begin another run. If we slept, the port kept them."""
        pace = self.description.pace
        if silent > max(pace.gap, 5 * self._step_seconds) and 0 < rows < 0.5 * silent * pace.rate:
            self._lines.run += 1
        self._step_seconds = silent / rows if rows else self._step_seconds

    def _keep(self, values: list[tuple[float, ...]], now: float) -> None:
        if not values:
            return
        self._row_at = now
        self._pauses = pauses()  # a port that opens and dies again is not fine: one that gives rows is
        with self._lock:
            if len(self._rows) + len(values) > KEPT:
                self.overrun += len(self._rows)
                self._rows.clear()
                self._lines.run += 1
            self._rows.extend(Row(now - self._began, each, self._lines.run) for each in values)

    def _silence(self, timeout: float) -> LinkError:
        if self._closed:
            return Closed("The reader is closed", port=self.port, remedy="open the board again")
        if self._lines.outside:
            remedy = f"open it as what it is (nose=...), a name of `smellkit nose list` or a {noses.FILE}"
            return LinkError("Another board than expected", port=self.port, got=self._lines.outside, remedy=remedy)
        if self.lost:
            remedy = "plug the board in again: it is looked for all the time"
            return PortLost("The sensor board is gone", port=self.port, got=self.lost, remedy=remedy)
        dropped = ", ".join(f"{count} lines dropped: {reason}" for reason, count in self._lines.dropped.items())
        expected = f"a line of {len(self.columns)} numbers"
        remedy = f"is it the sensor board, and does it speak at {self.baud} baud?"
        return NoReply("The sensor board is silent", port=self.port, expected=expected, got=dropped or "nothing",
                       elapsed=timeout, remedy=remedy)  # fmt: skip
