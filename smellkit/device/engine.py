"""The way to the worker, from any thread: leave a job and wait for it, never longer than its bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smellkit.device.clock import Clock
from smellkit.device.errors import Closed, NoReply, PortLost
from smellkit.device.jobs import DIALECTS, Job, Request, Schedule, Stopped, Timing
from smellkit.device.link import Link, connector
from smellkit.device.worker import Worker


class Engine(Worker):
    """The worker on its clock: every method here is for any thread. `options` are those of `Worker`."""

    def __init__(self, connect: Callable[[], Link], *, clock: Clock, name: str, **options: Any):
        super().__init__(connect, clock=clock, name=name, **options)
        self._runner = clock.run(self.step, inputs=self._inputs, name=f"smellkit {name}")

    @property
    def connected(self) -> bool:
        """Whether the port is open."""
        return self._link is not None

    @property
    def ended(self) -> bool:
        """Whether the worker is gone."""
        return self._ended

    def play(self, schedule: Schedule) -> Schedule:
        """Replace what plays or waits by `schedule`, and don't wait for it."""
        with self._lock:
            self._refuse_after_close()
            if self._link is None:
                raise self._away()
            if self._next:
                self._next.finish("replaced")
            self._next = schedule
        self._runner.kick()
        return schedule

    def ask(self, request: Request) -> Any:
        """Send a request after those before it, and return its result."""
        with self._lock:
            self._refuse_after_close()
            ahead = self._requests.put(request)
        each = self.timing.late + self.timing.tries * (max(self.timing.reply, self.timing.gap) + self.timing.write)
        return self._await(request, ahead * each + self.wake_bound() + self._stop_bound())

    def wake(self) -> None:
        """Send the wake burst and wait for its end."""
        job = Job("wake")
        with self._lock:
            self._refuse_after_close()
            self._wakes.append(job)
        self._await(job, self.wake_bound() + self._stop_bound())

    def stop(self) -> Stopped:
        """Silence, before anything else that waits."""
        job = Job("stop")
        with self._lock:
            self._refuse_after_close()
            self._want_silence(job)
        return self._await(job, self._stop_bound())

    def order(self, why: str) -> None:
        """Silence, because the watchdog was told so: by a signal, or by another process. Waits for nothing."""
        self.log.note(f"stop: {why}")
        with self._lock:
            if not self._closing and not self._ended:
                self._want_silence(Job("stop"))
        self._runner.kick()

    def _want_silence(self, job: Job) -> None:
        self._stops.append(job)
        self._last_stop = self._now()
        if self._next:
            self._next.finish("stopped")
            self._next = None

    def keep(self, seconds: float) -> None:
        """What plays ends after `seconds`, unless this is called again before."""
        self.kept_until = self._now() + seconds
        self._runner.kick()

    def guard_changed(self, why: str) -> None:
        """The watchdog came or went."""
        self.log.note(why)
        self._runner.kick()

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait for a job; return whether it is done."""
        self._runner.kick()
        return self._runner.wait(lambda: job.done, seconds)

    def begin_close(self) -> Job:
        """Have the worker stop, let go of the port and end, and don't wait for it."""
        with self._lock:
            self._closing = self._closing or Job("close")
        self._runner.kick()
        return self._closing

    def close(self) -> Exception | None:
        """Stop, let go of the port and end the worker; twice is once. Return why no stop could be sent."""
        job = self.begin_close()
        bound = 2 * self._stop_bound() + self.timing.patience + 1.0
        if not self._runner.join(bound) and not job.done:
            self.last_resort()
            self._on_end(False)
        return job.error

    def forked(self) -> None:
        """This is a child process: let go of what is the parent's, and send nothing."""
        link, self._link, self._ended = self._link, None, True
        self._closing = Job("close")
        if link:
            link.abandon()
        self._runner.abandon()

    def wake_bound(self) -> float:
        """Seconds that a wake burst takes at most."""
        return self.timing.wakes * (self.timing.wake_gap + self.timing.write) + 2 * self.timing.gap

    def _stop_bound(self) -> float:
        if self.dialect.answers:
            return self.timing.write * 4 + self.timing.late + 3 * self.timing.reply
        return self.timing.write * (self.timing.stops + 1) + self.timing.stop_gap * self.timing.stops

    def _await(self, job: Job, seconds: float) -> Any:
        if not self.wait(job, seconds + 0.1):
            error = PortLost(
                f"{self.name} keeps its worker from answering",
                port=self.name,
                expected=job.what,
                elapsed=seconds + 0.1,
                remedy="close it, unplug the handset and plug it in again; the device ends by its own timer",
            )
            if job.what == "stop":
                self.last_resort()
            job.finish(error=error)
        if job.error:
            raise job.error
        return job.result

    def _refuse_after_close(self) -> None:
        if self._closing or self._ended:
            raise Closed(f"{self.name} was closed", port=self.name, remedy="open it again with NeckWear.open")

    def _inputs(self) -> int | None:
        link = self._link
        return link.fileno() if link and link.wakes else None


def find_link(url: str, *, timing: Timing) -> str:
    """Return which link answers on `url`, "handset" or "direct"; NoReply when nothing does. Plays nothing."""
    for dialect in DIALECTS.values():
        link, parser = connector(url, baud=dialect.baud, write_timeout=timing.write)(), dialect.parser()
        try:
            for _ in range(timing.tries):
                link.write(dialect.question)
                until = Clock.now() + timing.reply
                while Clock.now() < until:
                    if [frame for frame in parser.feed(link.read()) if frame.raw != dialect.question]:  # no echo
                        return dialect.name
                    Clock.sleep(0.01)
                parser.expire()
        finally:
            link.close()
    raise NoReply(
        f"Nothing answered on {url}, neither as a handset nor as a player",
        port=url,
        remedy="`smellkit neckwear ports` lists what is there; --blind plays on this port all the same",
    )
