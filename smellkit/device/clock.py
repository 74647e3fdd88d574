"""Two kinds of time for the same driver: the real one with a thread, and a fake one that tests can replay.

A driver is a `step()` that does what is due and says when it wants to be called next (inf: when something happens;
None: never again). A `Runner` calls it: `Clock` makes one with a thread, `FakeClock` one without.
"""

from __future__ import annotations

import math
import os
import random
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

Step = Callable[[], float | None]
POLL = 0.01  # seconds between looks at a port that can't wake us (loop://, rfc2217://, Windows)


class Clock:
    """Real, monotonic time."""

    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    def run(self, step: Step, *, inputs: Callable[[], int | None], name: str) -> Runner:
        """Start a thread that calls `step` when it is due, when kicked, or when `inputs()` has bytes to read."""
        return Runner(self, step, inputs, name)


class Runner:
    """A thread that steps a driver, and the way to wait for it."""

    def __init__(self, clock: Clock, step: Step, inputs: Callable[[], int | None], name: str):
        self._clock, self._step, self._inputs = clock, step, inputs
        self._changed = threading.Condition()  # its lock is re-entrant: a signal handler may wait too
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._mouth, False)
        self._pipe = threading.RLock()  # re-entrant: a signal handler may kick while its thread does
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the driver still runs."""
        return self._thread.is_alive()

    def kick(self) -> None:
        """Have the driver stepped at once; from any thread."""
        with self._pipe, suppress(OSError):  # a full pipe kicks as well, a closed one has nobody to kick
            os.write(self._mouth, b"k")

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until `done()`, at most `seconds`; return whether it is done."""
        deadline = self._clock.now() + seconds
        with self._changed:
            while not done():
                left = deadline - self._clock.now()
                if left <= 0 or not self.alive:
                    return done()
                self._changed.wait(min(left, 1.0))  # a second at most, should the thread die without a word
        return True

    def join(self, seconds: float) -> bool:
        """Wait for the end of the driver; return whether it came."""
        self._thread.join(seconds)
        return not self.alive

    def _loop(self) -> None:
        try:
            while (due := self._step()) is not None:
                with self._changed:
                    self._changed.notify_all()
                self._pause(max(0.0, due - self._clock.now()))
        finally:
            with self._changed:
                self._changed.notify_all()
            with self._pipe:
                os.close(self._mouth)
                os.close(self._ear)
                self._mouth = self._ear = -1

    def _pause(self, seconds: float) -> None:
        port = self._inputs()
        watched = [self._ear] if port is None else [self._ear, port]
        seconds = min(seconds, 60.0 if port is not None else POLL)
        if os.name == "nt":  # select knows only sockets there
            self._clock.sleep(min(seconds, POLL))
            return
        try:
            ready, _, _ = select.select(watched, [], [], seconds)
        except (OSError, ValueError):  # the port was closed under us, or its number is beyond select: look again soon
            self._clock.sleep(min(seconds, POLL))
            ready = [self._ear]
        if self._ear in ready:
            with suppress(BlockingIOError):
                os.read(self._ear, 4096)


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
        """Seconds."""
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
        """One step; its next deadline."""
        due = self._step()
        if due is None:
            self.alive = False
            return math.inf
        return due

    def kick(self) -> None:
        """Nothing to do: whoever waits steps first."""

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let fake time pass until `done()`, at most `seconds`."""
        return self._clock.pass_until(lambda: done() or not self.alive, seconds) and done()

    def join(self, seconds: float) -> bool:
        """Let fake time pass until the driver has ended."""
        return self._clock.pass_until(lambda: not self.alive, seconds)
