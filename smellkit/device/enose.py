"""The electronic nose: rows of sensor values from the serial line of the sensor board, as they come.

    port --bytes--> Lines --rows--> queue (the newest 600) --> read(), for
          one worker thread: opens, reads, counts what it dropped, opens again

The board prints one comma-separated line about once a second and answers nothing. The line has no checksum: a digit
lost on the way gives a wrong value that nobody can tell from a right one. What can be told is dropped, and counted by
reason.
"""

from __future__ import annotations

import collections
import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smellkit.device.errors import Closed, LinkError, NoReply, PortError, PortLost
from smellkit.device.link import GONE
from smellkit.sensors import SENSORS as COLUMNS

if TYPE_CHECKING:
    from smellkit.device.board import Board

LONGEST = 512  # bytes of a line; the longest that the firmware can print has about 150
PAUSE = 0.5  # seconds of silence inside a line after which it will not be completed
KEPT = 600  # rows that wait for a reader, ten minutes; when nobody comes they are dropped and a new run begins
BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts to open a lost port; the last one repeats
NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?")


@dataclass(frozen=True)
class Row:
    """One sample: `time` in seconds since the port was opened first, `values` in the order of the columns.

    Rows with the same `run` follow each other; another number says that the board or the link began anew in between.
    """

    time: float
    values: tuple[float, ...]
    run: int = 0


class Lines:
    """Bytes in any pieces to tuples of numbers; what is not a complete row of finite numbers is dropped and counted.

    The first line after a start is dropped: nobody knows how much of it is missing. A header line is recognised by its
    names, may give the columns in another order, and begins another `run`; rows come out in the order of `columns`.
    """

    def __init__(self, columns: tuple[str, ...] = COLUMNS):
        self.columns = columns
        self.dropped: collections.Counter[str] = collections.Counter()
        self.run = 0
        self.restart()

    def restart(self) -> None:
        """Forget the unfinished line and the header: what comes next is the middle of some line."""
        self.run += 1
        self._line = bytearray()
        self._whole = False  # the line that is being collected was seen from its beginning
        self._places = list(range(len(self.columns)))
        self._width = len(self.columns)

    def feed(self, data: bytes) -> list[tuple[float, ...]]:
        """Return the rows that `data` completes."""
        rows = []
        *finished, rest = data.split(b"\n")
        for piece in finished:
            self._collect(piece)
            row = self._row(bytes(self._line).strip())
            if row is not None:
                rows.append(row)
            self._line.clear()
            self._whole = True
        self._collect(rest)
        return rows

    def expire(self) -> None:
        """Drop the unfinished line: the board fell silent inside it. What follows begins a line."""
        if self._line:
            self.dropped["unfinished"] += 1
            self._line.clear()
            self._whole = True

    def _collect(self, piece: bytes) -> None:
        self._line += piece[: LONGEST + 1 - len(self._line)]  # a line without an end takes no more memory than this

    def _row(self, line: bytes) -> tuple[float, ...] | None:
        fields = [field.strip() for field in line.split(b",")]
        if not line or self._header(fields):
            return None
        if reason := self._fault(line, fields):
            self.dropped[reason] += 1
            return None
        return tuple(float(fields[place]) for place in self._places)

    def _fault(self, line: bytes, fields: list[bytes]) -> str:
        if len(self._line) > LONGEST:
            return "too long"
        if not self._whole:
            return "first"
        if not line.isascii() or any(byte < 32 and byte != 9 for byte in line):
            return "garbage"
        if len(fields) != self._width:
            return "columns"
        return "" if all(NUMBER.fullmatch(field) for field in fields) else "not a number"  # nan, inf, ovf among them

    def _header(self, fields: list[bytes]) -> bool:
        names = [field.decode("ascii", "replace") for field in fields]
        if set(self.columns) <= set(names):
            self._places = [names.index(name) for name in self.columns]
            self._width = len(names)
            self.run += 1
            return True
        return False


class Nose:
    """A sensor board on a serial port, read by one thread; leaving the block closes the port and ends the thread.

    >>> with Nose.open("virtual") as nose:
    ...     row = nose.read(timeout=5)

    A port that goes away is opened again, with growing pauses, until `close`. Meanwhile `read` raises PortLost.
    """

    def __init__(self, port: str, *, baud: int = 9600, columns: tuple[str, ...] = COLUMNS, board: Board | None = None):
        self.port = port
        self.baud = baud
        self.columns = columns
        self.connections = 0
        self.overrun = 0  # rows that were dropped because nobody read them
        self.lost: str = ""  # why the port is gone, or nothing
        self._lines = Lines(columns)
        self._rows: collections.deque[Row] = collections.deque()
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._board = board
        self._began = self._last = self._heard = time.monotonic()
        self._serial: Any = _open(port, baud)  # here, not in the thread: a wrong name is an error at once
        self._thread = threading.Thread(target=self._work, name=f"nose {port}", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, port: str = "virtual", *, baud: int = 9600, columns: tuple[str, ...] = COLUMNS) -> Nose:
        """Return a reader of the board on `port`: any pyserial address, or `virtual` for a replayed recording.

        `baud` is 9600 unless you changed the firmware. Raises PortError when the port can't be opened.
        """
        if port != "virtual":
            return cls(port, baud=baud, columns=columns)
        from smellkit.device.board import Board

        board = Board()
        try:
            return cls(board.port, baud=baud, columns=columns, board=board)
        except BaseException:
            board.close()
            raise

    def read(self, *, timeout: float = 5.0) -> Row:
        """Return the oldest row that was not read yet, waiting up to `timeout` seconds for one to come."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not self._rows:
                left = deadline - time.monotonic()
                if self._stop.is_set() or left <= 0:
                    raise self._silence(timeout)
                self._news.wait(left)
            return self._rows.popleft()

    def rows(self) -> list[Row]:
        """Return all rows that were not read yet, at once: none, one or more."""
        with self._news:
            rows = list(self._rows)
            self._rows.clear()
        return rows

    def __iter__(self) -> Iterator[Row]:
        while not self._stop.is_set():
            yield self.read()

    def status(self) -> dict:
        """Return what is known: port, connected, connections, seconds since the last row, what was dropped and why."""
        return {
            "port": self.port,
            "connected": not self.lost and not self._stop.is_set(),
            "connections": self.connections,
            "silent": time.monotonic() - self._last,
            "lost": self.lost,
            "dropped": dict(self._lines.dropped) | ({"overrun": self.overrun} if self.overrun else {}),
        }

    def close(self) -> None:
        """Close the port and end the thread; a second time does nothing."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Nose:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _work(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if self._serial is None:
                    self._serial = _open(self.port, self.baud)
                self.connections += 1
                self.lost = ""
                self._lines.restart()
                self._listen()
            except LinkError as why:
                self.lost = why.what
            except GONE as why:
                self.lost = f"{type(why).__name__}: {why}"
            _shut(self._serial)
            self._serial = None
            attempt = 0 if self._last > began else attempt  # a port that opens and dies again is not a success
            if not self._stop.is_set():
                self._stop.wait(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
                attempt += 1

    def _listen(self) -> None:
        while not self._stop.is_set():
            data = self._serial.read(max(1, min(4096, self._serial.in_waiting)))
            now = time.monotonic()
            if data:
                self._heard = now
                for piece in data.splitlines(keepends=True):  # a header in between begins another run
                    self._put(self._lines.feed(piece), now)
            elif now - self._heard > PAUSE:
                self._lines.expire()

    def _put(self, values: list[tuple[float, ...]], now: float) -> None:
        if not values:
            return
        self._last = now
        with self._news:
            if len(self._rows) + len(values) > KEPT:
                self.overrun += len(self._rows)
                self._rows.clear()
                self._lines.run += 1
            self._rows.extend(Row(now - self._began, each, self._lines.run) for each in values)
            self._news.notify_all()

    def _silence(self, timeout: float) -> LinkError:
        if self._stop.is_set():
            return Closed("The reader is closed", port=self.port, remedy="open the board again")
        if self.lost:
            remedy = "plug the board in again: it is looked for all the time"
            return PortLost("The sensor board is gone", port=self.port, got=self.lost, remedy=remedy)
        dropped = ", ".join(f"{count} lines dropped: {reason}" for reason, count in self._lines.dropped.items())
        return NoReply(
            "The sensor board is silent",
            port=self.port,
            expected=f"a line of {len(self.columns)} numbers",
            got=dropped or "nothing",
            elapsed=timeout,
            remedy=f"is it the sensor board, and does it speak at {self.baud} baud?",
        )


def _open(port: str, baud: int) -> Any:
    """Return the open port, for this process alone, with reads that end after 0.1 s."""
    import serial

    if not isinstance(port, str) or not port:
        raise PortError(f"No port {port!r}", remedy="a name such as COM3 or /dev/ttyACM0, or `virtual`")
    alone = {} if "://" in port else {"exclusive": True}
    try:
        return serial.serial_for_url(port, baudrate=baud, timeout=0.1, **alone)
    except GONE as why:
        raise PortError("Could not open the sensor board", port=port, got=str(why), remedy=_remedy(why)) from why


def _shut(port: Any) -> None:
    if port is not None:
        with contextlib.suppress(*GONE):
            port.close()


def _remedy(why: Exception) -> str:
    text = str(why).lower()
    if "permission" in text or "access is denied" in text:
        return "close the program that uses it (Arduino's serial monitor?), or join the group dialout and log in again"
    if "exclusively lock" in text or "busy" in text:
        return "another program or notebook has it open: close that one"
    return "plug the board in and look for its name: `smellkit neckwear ports`"
