"""The driver's core: one worker owns the port and does what is due. Everybody else leaves jobs (`engine.py`) and waits.

        jobs (any thread)                   worker: step()                             port
    stop ------------------------->  1 stop burst       (pre-empts all below)  ---->
                                     2 reconnect        (stop first, no replay) --->
    wake ------------------------->  3 wake, 3 x 1 s    (first use, after idle) --->
    play, playlist --------------->  4 the schedule     (absolute deadlines)   ---->
    probe, set channel ----------->  5 one request      (reply matched)        <--->

One writer, so frames never interleave; no sleeping inside, so the same code runs under a thread and a fake clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from smellkit.device import frames
from smellkit.device.clock import Clock
from smellkit.device.errors import Closed, LinkError, PortLost
from smellkit.device.frames import Frame, Parser
from smellkit.device.jobs import NEVER, Burst, Job, Pulse, Requests, Schedule, Stopped, Timing
from smellkit.device.link import BackOff, Link, Log

SHORTEST = 0.05  # seconds of a pulse that are still worth sending


class Worker:
    """What happens on the link. Everything here runs inside `step` only, but for what `Engine` does under `_lock`."""

    def __init__(
        self,
        connect: Callable[[], Link],
        *,
        clock: Clock,
        timing: Timing,
        log: Log,
        name: str,
        channel: int = 0,
        on_link: Callable[[Link | None], None] = lambda link: None,
    ):
        self.name, self.log, self.timing = name, log, timing
        self._connect, self._clock, self._on_link, self._channel = connect, clock, on_link, channel
        self._lock = threading.RLock()  # guards the jobs left by others; re-entrant: a signal handler may leave one
        self._stops: list[Job] = []
        self._wakes: list[Job] = []
        self._next: Schedule | None = None
        self._closing: Job | None = None
        self._ended = False
        # the worker's own
        self._requests = Requests(timing=timing, log=log, name=name)
        self._parser = Parser()
        self._last_byte = -NEVER
        self._last_sent = b""
        self._free = -NEVER  # no command before
        self._last_forward = -NEVER  # the device itself heard something
        self._stop, self._wake = Burst(), Burst()
        self.schedule: Schedule | None = None
        self.airs_until = -NEVER  # a scent may be in the air until then, if no stop arrives
        self._retry, self._back_off = NEVER, BackOff(first=timing.back_off, cap=timing.cap)
        self._give_up = NEVER
        self.trouble: LinkError | None = None  # why the link is away
        self._link: Link | None = connect()
        on_link(self._link)

    def step(self) -> float | None:
        """Do what is due. Return when to be called next; None once closed."""
        if self._ended:
            return None
        try:
            self._take()
            self._read()
            due = min(self._do_stop(), self._do_link(), self._do_wake(), self._do_schedule(), self._do_request())
            # whatever failed on the way may have made other things due
            if self._link is None:
                due = min(due, self._retry)
            elif self._stop.left:
                due = min(due, self._stop.due)
            if self._parser.waiting:
                due = min(due, self._last_byte + self.timing.inter_byte)
        except Exception as why:  # a fault of ours must not leave a scent in the air
            self._crash(why)
            raise
        return None if self._ended else due

    def bound(self) -> float:
        """Seconds until the air is clear even if no stop arrives."""
        return max(0.0, self.airs_until - self._now())

    def _now(self) -> float:
        return self._clock.now()

    def _take(self) -> None:
        """Jobs that others left become the worker's own."""
        now = self._now()
        with self._lock:
            stops, self._stops = self._stops, []
            wakes, self._wakes = self._wakes, []
            schedule, self._next = self._next, None
            closing = self._closing
        if closing and self._give_up == NEVER:
            self._give_up = now + self.timing.patience
            stops.append(closing)
            self._requests.fail(Closed(f"{self.name} was closed", port=self.name, remedy="open it again"))
        if stops:
            self._end_schedule("stopped")
            self._wake.finish("stopped")
            self._wake = Burst()
            self._stop.start(self.timing.stops, now)
            self._stop.jobs += stops
        if wakes:
            self._wake.start(self.timing.wakes, now)
            self._wake.jobs += wakes
        if schedule:
            self._end_schedule("replaced")
            self.schedule = schedule
        if self._link is None:
            self._fail_all()

    # the link: writing, losing, reading

    def _send(self, frame: bytes, what: str) -> bool:
        """Write one frame; False when the link broke over it."""
        assert self._link is not None
        began = self._now()
        try:
            self._link.write(frame)
        except LinkError as why:
            why.elapsed = self._now() - began
            self.log.sent(frame, f"{what}: failed", latency=why.elapsed)
            self._lose(why)
            return False
        now = self._now()
        self.log.sent(frame, what, latency=now - began)
        self._last_sent = frame
        self._free = now + self.timing.gap
        if frame[1] == 0x51:
            self._last_forward = now
        return True

    def _lose(self, why: LinkError) -> None:
        """The port is gone: one error for everybody who waits, then look for it."""
        self.log.note(f"lost: {why.what} ({why.got})")
        self.trouble = why
        self._use(None)
        self._parser = Parser()
        self._requests.forget()
        self._last_forward = -NEVER
        self._stop.finish(error=why, keep=self._closing)
        for job in (*self._wake.jobs, self.schedule, self._requests.current):
            if job:
                job.finish(error=why)
        self._retry = self._now() + self._back_off.next()
        self._fail_all()

    def _use(self, link: Link | None) -> None:
        if self._link:
            self._link.close()
        with self._lock:
            self._link = link
        self._on_link(link)

    def _fail_all(self) -> None:
        """The link is away: nobody waits for it, except closing, for a while."""
        away = self._away()
        self._stop.finish(error=away, keep=self._closing)
        self._wake.finish(error=away)
        self._wake.left = 0
        if self.schedule:
            self.schedule.finish(error=away)
            self.schedule = None
        self._requests.fail(away)

    def _away(self) -> PortLost:
        why = self.trouble
        return PortLost(
            f"{self.name} is away",
            port=self.name,
            got=why.got if why else "",
            remedy="plug the handset in again: the driver looks for it and sends stop first. "
            f"A device that still plays ends by its own timer, in {self.bound():.1f} s at most",
        )

    def _read(self) -> None:
        if self._link is None:
            return
        try:
            data = self._link.read()
        except LinkError as why:
            self._lose(why)
            return
        now = self._now()
        replies: list[Frame] = []
        if data:
            if self._last_sent and self._last_sent in data:
                self._requests.trouble(self._last_sent, "echo")
            replies = self._parser.feed(data)
            self._last_byte = now
        elif self._parser.waiting and now >= self._last_byte + self.timing.inter_byte:
            replies = self._parser.expire()
        for fault in self._parser.errors:
            self._requests.trouble(fault.raw, f"{fault}: {fault.detail}")
        self._parser.errors.clear()
        for frame in replies:
            self._requests.reply(frame, now)

    # 1

    def _do_stop(self) -> float:
        if not self._link:
            return NEVER
        stop = frames.stop(channel=self._channel)
        due = self._fire(self._stop, stop, "stop", gap=self.timing.stop_gap)
        if due is not None:
            return due
        self._back_off.reset()
        self._stop.finish(Stopped(self.timing.stops, self.bound()))
        if self._closing and self._closing.done:
            self._end()
        return NEVER

    def _fire(self, burst: Burst, frame: bytes, what: str, *, gap: float, wait: bool = False) -> float | None:
        """Send what is due of a burst, after other commands with `wait`; when to go on, None once it is over."""
        while burst.left:
            due = max(burst.due, self._free) if wait else burst.due
            if self._now() < due:
                return due
            if not self._send(frame, what):
                return NEVER
            burst.left -= 1
            burst.due = self._now() + gap
        return None

    # 2

    def _do_link(self) -> float:
        if self._link or self._ended:
            return NEVER
        now = self._now()
        if self._closing and now >= min(self._give_up, self.airs_until):
            self._closing.finish(error=self._away() if now < self.airs_until else None)
            self._end()
            return NEVER
        if now < self._retry:
            return min(self._retry, self._give_up, max(now, self.airs_until) if self._closing else NEVER)
        try:
            link = self._connect()
        except LinkError as why:
            self.trouble = why
            self._retry = self._now() + self._back_off.next()
            return self._retry
        self._use(link)
        self.log.note(f"connected again: {link.name}")
        self._stop = Burst(self.timing.stops, self._now() + self.timing.stop_gap, self._stop.jobs)
        if self._closing and self._closing not in self._stop.jobs:
            self._stop.jobs.append(self._closing)
        self._send(frames.wake(channel=self._channel), "wake")  # a device asleep would not hear the stop
        self._last_forward = -NEVER  # before the next play it is woken properly
        return self._now()

    # 3

    def _asleep(self) -> bool:
        return self._now() - self._last_forward >= self.timing.idle or self._wake.left > 0

    def _do_wake(self) -> float:
        if not self._link or self._stop.left:
            return NEVER
        request = self._requests.current
        needed = (self.schedule is not None and self.schedule.began is None) or (request is not None and request.wakes)
        if needed and self._asleep():
            self._wake.start(self.timing.wakes, self._now())
        wake = frames.wake(channel=self._channel)
        due = self._fire(self._wake, wake, "wake", gap=self.timing.wake_gap, wait=True)
        if due is not None:
            return due
        self._wake.finish()
        return NEVER

    # 4

    def _do_schedule(self) -> float:
        while self.schedule and self._link and not self._stop.left:
            due = self._advance(self.schedule, self._now())
            if due is not None:
                return due
        return NEVER

    def _advance(self, schedule: Schedule, now: float) -> float | None:
        """One move: begin, send the next pulse, or end; when to go on, None for at once."""
        if schedule.began is None:
            if self._asleep():
                return NEVER  # the wake comes first
            if now < self._free:
                return self._free
            schedule.began = now
            self.log.note(f"begins: {schedule.what}")
        if schedule.next == len(schedule.pulses):
            if now < schedule.began + schedule.seconds:
                return schedule.began + schedule.seconds
            self._end_schedule("played")
            return None
        pulse = schedule.pulses[schedule.next]
        due = schedule.began + pulse.start  # absolute: lateness never adds up
        left = due + pulse.seconds - now
        if now < due:
            return due
        if left < SHORTEST:
            self.log.note(f"too late for scent {pulse.scent}, {pulse.seconds:g} s")
        elif now < self._free:
            return self._free
        schedule.next += 1
        if left >= SHORTEST:
            self._play(schedule, pulse, min(left, pulse.seconds), began=schedule.began)
        return None

    def _play(self, schedule: Schedule, pulse: Pulse, seconds: float, *, began: float) -> None:
        frame = frames.play(pulse.scent, max(1, round(seconds * 1000)), channel=self._channel)
        now, before = self._now(), self.airs_until
        self.airs_until = max(before, now + self.timing.write + seconds)  # even a write that fails may arrive
        if self._send(frame, f"{'renew' if pulse.renewal else 'play'} {pulse.scent} for {seconds:.3f} s"):
            self.airs_until = max(before, self._now() + seconds)  # the radio may lose it: the older one goes on
            schedule.played.append(Pulse(now - began, pulse.scent, seconds, pulse.renewal))

    def _end_schedule(self, how: str) -> None:
        schedule, self.schedule = self.schedule, None
        if schedule is None:
            return
        self.log.note(f"{how}: {schedule.what}")
        if how == "played" and schedule.stop_after:
            self._stop.start(self.timing.stops, self._now())
            self._stop.jobs.append(schedule)
            self._do_stop()
        else:
            schedule.finish(how)

    # 5

    def _do_request(self) -> float:
        while self._link and not self._stop.left and (request := self._requests.head(self._now())):
            now = self._now()
            if request.tries and now < request.last + self.timing.reply:
                return request.last + self.timing.reply
            if request.wakes and self._asleep():
                return now if self._wake.left == 0 else NEVER
            due = max(self._requests.due(request, now), self._free)
            if now < due:
                return due
            if not self._send(request.frame, request.what):
                return NEVER
            self._requests.sent(request, self._now())
        return NEVER

    # the end

    def _end(self) -> None:
        self._end_schedule("stopped")
        self._requests.fail(Closed(f"{self.name} was closed", port=self.name))
        if self._link:
            self._link.close()
        with self._lock:
            self._link = None
            self._ended = True
            left = [*self._stops, *self._wakes, *([self._next] if self._next else [])]
        for job in left:
            job.finish("closed")

    def _crash(self, why: Exception) -> None:
        self.log.note(f"worker failed: {why!r}")
        self.last_resort()
        error = LinkError(f"The driver of {self.name} failed: {why!r}", port=self.name, remedy="open it again")
        with self._lock:
            jobs = [*self._stops, *self._stop.jobs, *self._wakes, *self._wake.jobs, self._next, self.schedule]
        for job in (*jobs, self._closing):
            if job:
                job.finish(error=error)
        self._requests.fail(error)
        self.trouble = error
        if self._link:
            self._link.close()
        self._link, self._ended = None, True

    def last_resort(self) -> None:
        """The worker hangs or died: send stop from this thread, past it."""
        link = self._link
        if link:
            try:
                link.write(frames.stop(channel=self._channel))
            except LinkError as why:
                self.log.note(f"last-resort stop failed: {why.what}")
