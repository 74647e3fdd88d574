"""The sensor board: the twelve columns that it prints, and a virtual one that replays recordings, with faults by name.

`Board` has no thread and no port of its own: `serve.py` gives it both, as it does for the virtual player.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from smellkit import paths
from smellkit.device.clock import Clock
from smellkit.device.serve import serve_here
from smellkit.errors import DataError, OptionError

COLUMNS = (
    "NO2", "C2H5OH", "VOC", "CO", "Alcohol", "LPG", "Benzene",
    "Temperature", "Pressure", "Humidity", "Gas_Resistance", "Altitude",
)  # fmt: skip
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
ONCE = {"truncated", "header"}  # faults of the start


class Board:
    """A board that prints `source` over and over, with a header in between, until `close`.

    `source` is a recording: a CSV file, a table, or lines of text; a sample recording when there is none. `rate` is in
    lines a second, `faults` are names out of FAULTS, `seed` decides when they come. `port` is the address to open.
    `printed` has the last 10,000 lines that went out whole, with their times.
    """

    takes_bytes = True

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
        self.columns, self.rate = columns, rate
        self.printed: collections.deque[tuple[float, str]] = collections.deque(maxlen=10_000)
        self.plugged = True
        self._lines = lines(source, columns=columns)
        self._header = ",".join(columns).encode() + b"\r\n"
        self._random = random.Random(seed)
        self._pieces = self._print()
        self._began, self._count = Clock.now(), 0
        self._out = b""
        self._server = serve_here(self, name="board")
        self.port = self._server.port

    def change(self, source: Any) -> None:
        """Replay `source` from its beginning on, from the next line on."""
        self._lines = lines(source, columns=self.columns)

    def plug(self) -> None:
        """Make the port appear."""
        self.plugged = True

    def unplug(self) -> None:
        """Make the port vanish, as when the cable is pulled: whoever reads it gets an error."""
        self.plugged = False

    def close(self) -> None:
        """End the thread and take the port away; a second time does nothing."""
        self._server.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # the link's side, for the server

    def receive(self, data: bytes) -> None:
        """The board listens to nobody."""

    def due(self) -> float:
        """When the next line is printed."""
        return self._began + self._count / self.rate  # a product: lateness never adds up

    def tick(self) -> None:
        """Print what is due, up to the moment when the plug is pulled or put back."""
        before = self.plugged
        while self.due() <= Clock.now() and self.plugged == before:
            self._count += 1
            piece = next(self._pieces)
            if piece and self.plugged:
                self._out += piece
                self.printed.append((Clock.now(), piece.decode("ascii", "replace").rstrip()))

    def send(self) -> bytes:
        """Bytes that are due for the host."""
        self.tick()
        data, self._out = self._out, b""
        return data

    # what is printed

    def _print(self) -> Iterator[bytes]:
        """Yield what goes out at each tick: mostly a line, sometimes what a fault makes of it."""
        timed = sorted(self.faults - ONCE)
        if "header" in self.faults:
            yield self._header
        if "truncated" in self.faults:
            line = next(self._replay())
            yield line[self._random.randrange(1, len(line)) :]
        for number, line in enumerate(self._replay(), 1):
            fault = self._random.choice(timed) if timed and number % EVERY == 0 else ""
            yield from self._spoil(line, fault)

    def _spoil(self, line: bytes, fault: str) -> Iterator[bytes]:
        """Yield what `fault` makes of a line."""
        cut = self._random.randrange(1, max(2, len(line) - 2))
        if fault == "garbage":
            yield self._random.randbytes(self._random.randrange(1, 100)).replace(b"\n", b"") + b"\n" + line
        elif fault == "partial":
            yield line[: cut // 2] + line[cut // 2 + line[cut // 2 :].index(b",") + 1 :]
        elif fault == "long":
            yield bytes(self._random.choices(b"0123456789,", k=10_000)) + b"\r\n"
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

    def _replay(self) -> Iterator[bytes]:
        """Yield the lines of the recording, and from the second time on the header before: here the series breaks."""
        recording: list[str] = []
        while True:
            if recording:
                yield self._header
            recording = self._lines
            for line in recording:
                if recording is not self._lines:
                    break
                yield line.encode() + b"\r\n"


def lines(source: Any, *, columns: tuple[str, ...] = COLUMNS) -> list[str]:
    """Return the lines that a board prints for `source`: a CSV file, a table or lines of text, without the header."""
    if source is None:
        source = _example()
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            names, *rows = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as why:
            raise DataError(f"No recording in {path}: {why}", hint="a CSV file with a header and rows") from why
        rows = _in_order(names, rows, columns, path)
    elif hasattr(source, "loc"):
        if missing := [name for name in columns if name not in source.columns]:
            raise DataError(f"The table has no column {', '.join(missing)}", hint=f"columns {', '.join(columns)}")
        rows = source.loc[:, list(columns)].to_csv(index=False, header=False).splitlines()
    else:
        rows = [str(line).strip() for line in source]
    if not rows:
        raise DataError("The recording has no rows", hint="choose another one")
    return rows


def _in_order(names: str, rows: list[str], columns: tuple[str, ...], path: Path) -> list[str]:
    """Return the lines with the columns in the order that the board prints; as they are when it is that already."""
    here = [name.strip() for name in names.split(",")]
    if missing := [name for name in columns if name not in here]:
        raise DataError(f"{path} has no column {', '.join(missing)}", hint=f"columns {', '.join(columns)}")
    if tuple(here) == columns:
        return rows
    places = [here.index(name) for name in columns]
    return [",".join(line.split(",")[place] for place in places) for line in rows]


def _example() -> Path:
    files = sorted((paths.sample() / "smellnet" / "base" / "testing").glob("*/*.csv"))
    if not files:
        raise DataError("No sample recordings to replay", hint="`smellkit data sample`, or name a recording")
    return files[0]
