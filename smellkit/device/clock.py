"""Time for a driver: a thread that steps it when it is due, when somebody asks, or when bytes have come.

A driver is a `step()` that does what is due and says when it wants to be called next (inf: when something happens;
None: never again). It never sleeps, so a clock without a thread can run it too: `smellkit.study.device.fake`.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

Step = Callable[[], float | None]
# that counts the seconds of a sleep too: Linux, macOS; elsewhere `time.monotonic` does
_COUNTER = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC_RAW", None))
POLL = 0.01  # seconds between looks at a port that can't wake us (loop://, rfc2217://, Windows)


def readable(descriptors: list[int], seconds: float) -> list[int]:
    """Wait until one of the descriptors (Windows: sockets) has something to read; return those that have."""
    if not descriptors:
        time.sleep(seconds)
        return []
    if not hasattr(select, "poll"):
        return select.select(descriptors, [], [], seconds)[0]
    poller = select.poll()  # select knows no number above 1023
    for number in descriptors:
        poller.register(number, select.POLLIN)
    return [number for number, _ in poller.poll(1000 * seconds)]


class Clock:
    """Real time that never steps back, and goes on while the machine sleeps."""

    sleep = staticmethod(time.sleep)

    @staticmethod
    def now() -> float:
        """Seconds since the machine started, those of its sleep too."""
        return time.monotonic() if _COUNTER is None else time.clock_gettime(_COUNTER)

    def run(self, step: Step, *, inputs: Callable[[], int | None], name: str) -> Runner:
        """Start a thread that calls `step` when it is due, when kicked, or when `inputs()` has bytes to read."""
        return Runner(self, step, inputs, name)


class Runner:
    """A thread that steps a driver, and the way to wait for it."""

    def __init__(self, clock: Clock, step: Step, inputs: Callable[[], int | None], name: str):
        self._clock, self._step, self._inputs = clock, step, inputs
        self._changed = threading.Condition()  # its lock is re-entrant: a signal handler may wait too
        self._bell, self._ring = socket.socketpair()  # what wakes the thread out of its waiting
        self._bell.setblocking(False)
        self._ring.setblocking(False)
        self._pipe = threading.RLock()  # re-entrant: a signal handler may kick while its thread does
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """Have the driver stepped at once; from any thread."""
        with self._pipe, suppress(OSError):  # a full pipe kicks as well, a closed one has nobody to kick
            self._ring.send(b"k")

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until `done()`, at most `seconds`; return whether it is done."""
        deadline = self._clock.now() + seconds
        with self._changed:
            while not done() and (left := deadline - self._clock.now()) > 0 and self._thread.is_alive():
                self._changed.wait(min(left, 1.0))  # a second at most, should the thread die without a word
        return done()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread, at most `seconds`; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def forked(self) -> None:
        """The thread is a parent's and we are its child: what it held there, nobody lets go of here."""
        self._pipe, self._changed = threading.RLock(), threading.Condition()
        self.abandon()

    def abandon(self) -> None:
        """Let go of what kicks the thread."""
        with self._pipe:
            self._ring.close()
            self._bell.close()

    def _loop(self) -> None:
        try:
            while (due := self._step()) is not None:
                with self._changed:
                    self._changed.notify_all()
                self._pause(max(0.0, due - self._clock.now()))
        finally:
            with self._changed:
                self._changed.notify_all()
            self.abandon()

    def _pause(self, seconds: float) -> None:
        port = self._inputs()
        seconds = min(seconds, 1.0 if port is not None else POLL)  # a machine that slept is noticed within a second
        try:
            readable([self._bell.fileno()] + ([] if port is None else [port]), seconds)
            self._bell.recv(4096)
        except BlockingIOError:
            return
        except (OSError, ValueError):  # the port was closed under us, or is none that can be waited for: look soon
            self._clock.sleep(min(seconds, POLL))
