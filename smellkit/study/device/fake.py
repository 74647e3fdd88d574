"""What goes wrong on purpose: fake time, a fake port, a board with faults; the same again from its seed."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from smellkit.device.board import Board
from smellkit.device.clock import Step
from smellkit.device.errors import PortError
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


class FakeClock:
    """Time that passes only when somebody waits: one thread, no luck, a day in a second.

    `watch(due)` adds a source of deadlines that is not a driver, such as a virtual device. With `jitter` every
    waking is up to 20 ms late, as on a busy machine.
    """

    def __init__(self, start: float = 1000.0, *, jitter: random.Random | None = None):
        self.jitter = jitter
        self._now = start
        self._runners: list[FakeRunner] = []
        self._sources: list[Callable[[], float]] = []

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass, with everything that is due in them."""
        self.pass_until(lambda: False, seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass while nothing runs: what a blocked write does to its thread."""
        self._now += seconds

    def run(self, step: Step, *, inputs: Callable[[], int | None], name: str) -> FakeRunner:
        """A runner that steps whenever somebody waits."""
        self._runners.append(FakeRunner(self, step))
        return self._runners[-1]

    def watch(self, due: Callable[[], float]) -> None:
        """Never jump over the moment that `due()` names (inf: none)."""
        self._sources.append(due)

    def pass_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until `done()`, at most `seconds`; return whether it is done."""
        end = self._now + seconds
        still = 0
        while True:
            dues = [runner.step() for runner in self._runners if runner.alive]
            if any(due() <= self._now for due in self._sources):  # what a step made happen may be for the driver
                dues = [runner.step() for runner in self._runners if runner.alive]
            if done():
                return True
            if self._now >= end:
                return False
            dues += [when for when in (due() for due in self._sources) if when > self._now]  # the others had their turn
            late = self.jitter.uniform(0, 0.02) if self.jitter else 0.0
            before, self._now = self._now, max(self._now, min(end, min(dues, default=end) + late))
            still = still + 1 if self._now == before else 0
            if still > 1000:
                raise RuntimeError("a driver asks to be called at once for ever")


class FakeRunner:
    """What `Runner` is, without a thread."""

    def __init__(self, clock: FakeClock, step: Step):
        self._clock, self._step = clock, step
        self.alive = True

    def step(self) -> float:
        due = self._step()
        if due is None:
            self.alive = False
            return math.inf
        return due

    def kick(self) -> None:
        """Nothing to do: whoever waits steps first."""

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        return self._clock.pass_until(lambda: done() or not self.alive, seconds) and done()

    def join(self, seconds: float) -> bool:
        return self._clock.pass_until(lambda: not self.alive, seconds)


class MemoryPort:
    """What pyserial's Serial is to the driver, straight into a device: for the fake clock.

    `fail` makes the next call raise that exception, as a port that goes away does. `clock.advance` is called when
    a write blocks.
    """

    def __init__(self, device: Any, *, clock, write_timeout: float = 0.2):
        if not device.plugged:
            raise PortError("Could not open memory: it is not there", port="memory", remedy="plug it in")
        self._device, self._clock, self._timeout = device, clock, write_timeout
        self.fail: BaseException | None = None
        self.is_open, self._pending = True, b""

    def read(self, size: int = 1) -> bytes:
        self._check("read")
        self._pending += self._device.send()
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def write(self, data: bytes) -> int:
        """All of `data`, or SerialTimeoutException after the write timeout."""
        from serial import SerialTimeoutException

        self._check("write")
        if not self._device.takes_bytes:
            self._clock.advance(self._timeout)
            raise SerialTimeoutException("Write timeout")
        self._device.receive(data)
        return len(data)

    def reset_output_buffer(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self.is_open = False

    def _check(self, doing: str) -> None:
        from serial import SerialException

        self._device.tick()
        if self.fail:
            raise self.fail
        if not self._device.plugged:
            raise SerialException(f"{doing} failed: [Errno {errno.EIO}] Input/output error")


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
            line = next(self._replay())
            yield line[self._random.randrange(1, len(line)) :]
        for number, line in enumerate(self._replay(), 1):
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


def gone(kind: int) -> Exception:
    """What a port raises when it goes away: one of the families that pyserial lets through."""
    import termios

    from serial import SerialException

    what = "Input/output error"
    return [SerialException("no data"), OSError(5, what), termios.error(5, what), TypeError("'NoneType' object")][kind]
