"""What goes wrong on purpose: fake time and a fake port; the same again from its seed."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Callable
from typing import Any

from serial import SerialException, SerialTimeoutException

from smellkit.device.clock import Step
from smellkit.device.errors import PortError


class FakeClock:
    """Time that passes only when somebody waits: one thread, no luck, a day in a second.

    `watch(due)` adds a source of deadlines that is not a driver, such as a virtual device: time never jumps over one.
    With `jitter` every waking is up to 20 ms late, as on a busy machine.
    """

    def __init__(self, start: float = 1000.0, *, jitter: random.Random | None = None):
        self.jitter = jitter
        self._now = start
        self._runners: list[FakeRunner] = []
        self._sources: list[Callable[[], float]] = []
        self.watch = self._sources.append

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

    def pass_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until `done()`, at most `seconds`; return whether it is done."""
        end = self._now + seconds
        still = 0
        while True:
            dues = [runner.step() for runner in self._runners]
            if any(due() <= self._now for due in self._sources):  # what a step made happen may be for the driver
                dues = [runner.step() for runner in self._runners]
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
        """Seconds at which the driver wants to be called next; inf once it has ended."""
        due = self._step() if self.alive else None
        self.alive = due is not None
        return math.inf if due is None else due

    def kick(self) -> None:
        """Nothing to do: whoever waits steps first."""

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        return self._clock.pass_until(lambda: done() or not self.alive, seconds) and done()

    def join(self, seconds: float) -> bool:
        return self._clock.pass_until(lambda: not self.alive, seconds)


class MemoryPort:
    """What pyserial's Serial is to the driver, straight into a device: for the fake clock.

    `fail` makes the next call raise that exception, as a port that goes away does. A write that blocks lets its timeout
    pass and raises SerialTimeoutException.
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
        self._device.tick()
        if self.fail:
            raise self.fail
        if not self._device.plugged:
            raise SerialException(f"{doing} failed: [Errno {errno.EIO}] Input/output error")


def gone() -> list[Exception]:
    """What a port raises when it goes away: one of each family that pyserial lets through."""
    import termios

    what = "Input/output error"
    return [SerialException("no data"), OSError(5, what), termios.error(5, what), TypeError("'NoneType' object")]
