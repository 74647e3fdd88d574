"""A virtual sensor board that goes wrong on purpose, the same again from its seed."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

from smellkit.device.board import Board
from smellkit.errors import OptionError

BOARD_FAULTS = {  # name -> what the board does about every tenth line
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


class FaultyBoard(Board):
    """A virtual sensor board with `faults`, names out of BOARD_FAULTS; `seed` decides when they come."""

    def __init__(self, source: Any = None, *, faults: Iterable[str], seed: int = 0, **options: Any):
        self.faults = frozenset([faults] if isinstance(faults, str) else faults)
        if unknown := sorted(self.faults - BOARD_FAULTS.keys()):
            raise OptionError(f"No fault {', '.join(unknown)}", hint=f"one of {', '.join(BOARD_FAULTS)}")
        self._random = random.Random(seed)
        super().__init__(source, **options)

    def _print(self) -> Iterator[bytes]:
        """Yield what goes out at each tick: mostly a line, sometimes what a fault makes of it."""
        timed = sorted(self.faults - ONCE)
        if "header" in self.faults:
            yield self._header
        if "truncated" in self.faults:
            line = next(super()._print())
            yield line[self._random.randrange(1, len(line)) :]
        for number, line in enumerate(super()._print(), 1):
            fault = self._random.choice(timed) if timed and number % EVERY == 0 else ""
            yield from self._spoil(line, fault)

    def _spoil(self, line: bytes, fault: str) -> Iterator[bytes]:
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
