"""A virtual sensor board that replays recordings, line by line as the real one prints them.

`Board` has no thread and no port of its own: `serve.py` gives it both, as it does for the virtual player.
"""

import collections
import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smellkit import noses, paths
from smellkit.device.clock import Clock
from smellkit.device.serve import serve_here
from smellkit.errors import DataError, OptionError
from smellkit.noses import Description
from smellkit.options import check

WIRES = ("csv", "bare", "osm")  # numbers with a header, without one, or OpenSmell's lines


class Board(contextlib.AbstractContextManager):
    """A board that prints `source` over and over, with a header in between, until `close`.

    `source` is a recording of `nose`: a CSV file, a table, or lines of text; a sample when there is none. `rate` is in
    lines a second, `wire` one of WIRES, `port` the address to open. `printed` has the last 10,000 lines that went out
    whole, with times. The port vanishes while it is not `plugged`.
    """

    takes_bytes = plugged = True

    def __init__(
        self, source: Any = None, *, rate: float | None = None, nose: Description | str = "smellnet", wire: str = ""
    ):
        self.nose = noses.load(nose) if isinstance(nose, str) else nose
        self.wire = wire or ("osm" if self.nose.name == "opensmell" else "csv")
        self.rate = (self.nose.rate or 2.0) if rate is None else rate
        if not 0 < self.rate <= 1000:
            raise OptionError(f"rate is {rate!r}", hint="lines a second, above 0 and at most 1000")
        check([self.wire], WIRES, "There is no wire")
        self.printed: collections.deque[tuple[float, str]] = collections.deque(maxlen=10_000)
        self.change(source)
        info = f"INFO,virtual,1.0.0,{len(self.nose.columns)},interval_ms={1000 / self.rate:g}"
        headers = {"csv": ",".join(self.nose.columns), "bare": "", "osm": info}
        self._header = headers[self.wire].encode() + b"\r\n"
        self._pieces = self._print()
        self._began, self._count = Clock.now(), 0
        self._out = self._header if self.wire == "osm" else b""
        self._server = serve_here(self, name="board")
        self.port = self._server.port

    def change(self, source: Any) -> None:
        """Replay `source` from its beginning on, from the next line on."""
        self._lines = lines(source, self.nose)

    def unplug(self) -> None:
        """Make the port vanish, as when the cable is pulled: whoever reads it gets an error."""
        self.plugged = False

    def plug(self) -> None:
        """Make the port appear."""
        self.plugged = True

    def close(self) -> None:
        """End the thread and take the port away; a second time does nothing."""
        self._server.close()

    def __exit__(self, *_) -> None:
        self.close()

    # the link's side, for the server

    def receive(self, data: bytes) -> None:
        """An OpenSmell board answers PING; others listen to nobody."""
        if self.wire == "osm" and b"PING" in data:
            self._out += self._header

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

    def _print(self) -> Iterator[bytes]:
        """What goes out at each tick: the lines of the recording, and when it begins again the header before."""
        recording: list[str] = []
        while True:
            if recording:  # here the series breaks
                yield self._header
            recording = self._lines
            for line in recording:
                if recording is not self._lines:
                    break
                yield (f"OSM,{line}" if self.wire == "osm" else line).encode() + b"\r\n"


def lines(source: Any, nose: Description) -> list[str]:
    """Return the lines that a board prints for `source`: a CSV file, a table or lines of text, without the header."""
    source = _example(nose) if source is None else source
    if isinstance(source, (str, Path)):
        import pandas as pd

        try:
            source = pd.read_csv(source, dtype=str, keep_default_na=False).rename(columns=str.strip)
        except (OSError, ValueError) as why:
            raise DataError(f"No recording in {source}: {why}", hint="a CSV file with a header and rows") from why
    if hasattr(source, "loc"):
        if missing := [name for name in nose.columns if name not in source.columns]:
            hint = f"columns {', '.join(nose.columns)}"
            raise DataError(f"The recording has no column {', '.join(missing)}", hint=hint)
        source = source.loc[:, list(nose.columns)].to_csv(index=False, header=False).splitlines()
    if not (rows := [str(line).strip() for line in source]):
        raise DataError("The recording has no rows", hint="choose another one")
    return rows


def _example(nose: Description) -> Path | list[str]:
    """A sample recording of SmellNet's board; of any other nose, a minute in which every column swings a little."""
    files = sorted((paths.sample() / "smellnet" / "base" / "testing").glob("*/*.csv"))
    if nose.name == "smellnet" and files:
        return files[0]
    spans = [column.span for column in nose.columns.values()]
    middles = [(index, (low + min(high, low + 1000)) / 2) for index, (low, high) in enumerate(spans)]
    return [
        ",".join(f"{middle * (1 + 0.1 * math.sin(row / 10 + index)):.4g}" for index, middle in middles)
        for row in range(60)
    ]
