"""A virtual sensor board that replays recordings, line by line as the real one prints them.

`Board` has no thread and no port of its own: `serve.py` gives it both, as it does for the virtual player.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smellkit import paths
from smellkit.device.clock import Clock
from smellkit.device.serve import serve_here
from smellkit.errors import DataError, OptionError
from smellkit.sensors import SENSORS


class Board:
    """A board that prints `source` over and over, with a header in between, until `close`.

    `source` is a recording: a CSV file, a table, or lines of text; a sample recording when there is none. `rate` is in
    lines a second, `port` is the address to open. `printed` has the last 10,000 lines that went out whole, with times.
    """

    takes_bytes = True

    def __init__(self, source: Any = None, *, rate: float = 1.0, columns: tuple[str, ...] = SENSORS):
        if not 0 < rate <= 1000:
            raise OptionError(f"rate is {rate!r}", hint="lines a second, above 0 and at most 1000")
        self.columns, self.rate = columns, rate
        self.printed: collections.deque[tuple[float, str]] = collections.deque(maxlen=10_000)
        self.plugged = True
        self._lines = lines(source, columns=columns)
        self._header = ",".join(columns).encode() + b"\r\n"
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
        """Yield what goes out at each tick."""
        return self._replay()

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


def lines(source: Any, *, columns: tuple[str, ...] = SENSORS) -> list[str]:
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
