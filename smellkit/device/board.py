"""A virtual sensor board: it replays recordings on a serial line of its own, as fast as asked, with faults by name.

The line is a pseudo-terminal behind a link, so that the board keeps its name when it is unplugged and plugged in again.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from smellkit import paths
from smellkit.device.enose import COLUMNS
from smellkit.errors import DataError, DeviceError, OptionError

FAULTS = {  # name -> what the board does about every tenth line
    "truncated": "the first line lacks its beginning",
    "header": "the names of the columns come first",
    "garbage": "random bytes between the lines",
    "partial": "a line lacks its middle",
    "long": "ten thousand bytes without an end",
    "nan": "a sensor answers nan",
    "reset": "the board starts again inside a line",
    "split": "a line comes in pieces",
    "silence": "nothing comes for thirty lines",
    "unplug": "the port goes away and comes back two lines later",
}
EVERY = 10


class Board:
    """A board that prints `source` over and over, with a header in between, until `close`.

    `source` is a recording: a CSV file, a table, or lines of text; a sample recording when there is none. `rate` is in
    lines a second, `faults` are names out of FAULTS, `seed` says when they come. `port` is the address to open.
    `printed` has the last 10,000 lines that went out whole, with their times.
    """

    def __init__(
        self,
        source: Any = None,
        *,
        rate: float = 1.0,
        faults: Iterable[str] = (),
        seed: int = 0,
        columns: tuple[str, ...] = COLUMNS,
    ):
        self.faults = frozenset([faults] if isinstance(faults, str) else faults)
        if unknown := sorted(self.faults - FAULTS.keys()):
            raise OptionError(f"No fault {', '.join(unknown)}", hint=f"one of {', '.join(FAULTS)}")
        if not 0 < rate <= 1000:
            raise OptionError(f"rate is {rate!r}", hint="lines a second, above 0 and at most 1000")
        self.columns = columns
        self.rate = rate
        self.printed: collections.deque[tuple[float, str]] = collections.deque(maxlen=10_000)
        self._lines = lines(source, columns=columns)
        self._header = ",".join(columns).encode() + b"\r\n"
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="smellkit-board-")
        self.port = str(Path(self._folder.name) / "board")
        self._ends: tuple[int, int] | None = None
        self._plugging = threading.Lock()
        self.plug()
        self._thread = threading.Thread(target=self._work, name="virtual board", daemon=True)
        self._thread.start()

    def change(self, source: Any) -> None:
        """Replay `source` from its beginning on, from the next line on."""
        self._lines = lines(source, columns=self.columns)

    def plug(self) -> None:
        """Make the port appear; nothing happens when it is there."""
        with self._plugging:
            if self._ends is None and not self._stop.is_set():
                self._ends = _terminal()
                Path(self.port).symlink_to(os.ttyname(self._ends[1]))

    def unplug(self) -> None:
        """Make the port vanish, as when the cable is pulled: whoever reads it gets an error."""
        with self._plugging:
            if self._ends is not None:
                Path(self.port).unlink()
                for end in self._ends:
                    os.close(end)
                self._ends = None

    def close(self) -> None:
        """End the thread and take the port away; a second time does nothing."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self.unplug()
        self._folder.cleanup()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _work(self) -> None:
        began = time.monotonic()
        number = 0
        for number, piece in enumerate(self._pieces()):
            if self._stop.wait(max(0.0, began + number / self.rate - time.monotonic())):
                return
            self._print(piece)

    def _pieces(self) -> Iterator[bytes]:
        """Yield what goes out at each tick: mostly a line, sometimes what a fault makes of it."""
        dice = self._random
        timed = sorted(self.faults & {"garbage", "partial", "long", "nan", "reset", "split", "silence", "unplug"})
        if "header" in self.faults:
            yield self._header
        if "truncated" in self.faults:
            line = next(self._next())
            yield line[dice.randrange(1, len(line)) :]
        for number, line in enumerate(self._next(), 1):
            fault = dice.choice(timed) if timed and number % EVERY == 0 else ""
            cut = dice.randrange(1, max(2, len(line) - 2))
            if fault == "garbage":
                yield dice.randbytes(dice.randrange(1, 100)).replace(b"\n", b"") + b"\n" + line
            elif fault == "partial":
                yield line[: cut // 2] + line[cut // 2 + line[cut // 2 :].index(b",") + 1 :]
            elif fault == "long":
                yield bytes(dice.choices(b"0123456789,", k=10_000)) + b"\r\n"
            elif fault == "nan":
                yield b",".join([b"nan", *line.split(b",")[1:]])
            elif fault == "reset":
                yield line[:cut] + b"ets Jul 29 2019 12:21:46\r\n" + self._header
            elif fault == "split":
                yield line[:cut]
                yield line[cut:]
            elif fault == "silence":
                yield from [b""] * 30
            elif fault == "unplug":
                self.unplug()
                yield from [b""] * 2
                self.plug()
            else:
                yield line

    def _next(self) -> Iterator[bytes]:
        """Yield the lines of the recording, and from the second time on the header before: here the series breaks."""
        lines: list[str] = []
        while True:
            if lines:
                yield self._header
            lines = self._lines
            for line in lines:
                if lines is not self._lines:
                    break
                yield line.encode() + b"\r\n"

    def _print(self, piece: bytes) -> None:
        with self._plugging:
            if self._ends is None or not piece:
                return
            with contextlib.suppress(BlockingIOError):  # nobody reads: the bytes are lost, as on a real line
                for start in range(0, len(piece), 1024):
                    os.write(self._ends[0], piece[start : start + 1024])
            self.printed.append((time.monotonic(), piece.decode("ascii", "replace").rstrip()))


def lines(source: Any, *, columns: tuple[str, ...] = COLUMNS) -> list[str]:
    """Return the lines that a board prints for `source`: a CSV file, a table or lines of text, without the header."""
    if source is None:
        source = _example()
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            names, *found = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as why:
            raise DataError(f"No recording in {path}: {why}", hint="a CSV file with a header and rows") from why
        found = _chosen(names, found, columns, path)
    elif hasattr(source, "loc"):
        if missing := [name for name in columns if name not in source.columns]:
            raise DataError(f"The table has no column {', '.join(missing)}", hint=f"columns {', '.join(columns)}")
        found = source.loc[:, list(columns)].to_csv(index=False, header=False).splitlines()
    else:
        found = [str(line).strip() for line in source]
    if not found:
        raise DataError("The recording has no rows", hint="choose another one")
    return found


def _chosen(names: str, found: list[str], columns: tuple[str, ...], path: Path) -> list[str]:
    """Return the lines with the columns in the order that the board prints; as they are when it is that already."""
    here = [name.strip() for name in names.split(",")]
    if missing := [name for name in columns if name not in here]:
        raise DataError(f"{path} has no column {', '.join(missing)}", hint=f"columns {', '.join(columns)}")
    if tuple(here) == columns:
        return found
    places = [here.index(name) for name in columns]
    return [",".join(line.split(",")[place] for place in places) for line in found]


def _example() -> Path:
    files = sorted((paths.sample() / "smellnet" / "base" / "testing").glob("*/*.csv"))
    if not files:
        raise DataError("No sample recordings to replay", hint="`smellkit data sample`, or name a recording")
    return files[0]


def _terminal() -> tuple[int, int]:
    """Return both ends of a pseudo-terminal, raw: a fresh one would echo and translate."""
    try:
        import tty
    except ImportError as why:
        raise DeviceError(
            "There are no pseudo-terminals on Windows", hint="use a real board, or run this under WSL"
        ) from why
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave
