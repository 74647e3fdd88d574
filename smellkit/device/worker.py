"""The driver's core: one worker owns the port and does what is due. Everybody else leaves jobs (`engine.py`) and waits.

        jobs (any thread)                   worker: step()                             port
    stop ------------------------->  1 stop burst       (pre-empts all below)  ---->
                                     2 reconnect        (stop first, no replay) --->
    wake ------------------------->  3 wake, 3 x 1 s    (first use, after idle) --->
    play, playlist --------------->  4 the schedule     (absolute deadlines)   ---->
    probe, set channel ----------->  5 one request      (reply matched)        <--->

One writer, so frames never interleave; no sleeping inside, so the same code runs under a thread and a fake clock.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from smellkit.device import direct
from smellkit.device.clock import Clock
from smellkit.device.errors import Closed, LinkError, NoReply, PortLost
from smellkit.device.guard import Guard
from smellkit.device.jobs import NEVER, Burst, Dialect, Exchange, Job, Owed, Schedule, Stopped, Timing
from smellkit.device.link import Link, pauses
from smellkit.device.log import Log


class Worker:
    """What happens on the link, but for what plays. Everything here runs inside `step`, or under `_lock`."""

    def __init__(self, connect: Callable[[], Link], *, clock: Clock, timing: Timing, log: Log, name: str,
                 dialect: Dialect, guard: Guard | None, watched: bool, on_end: Callable[[], None]):  # fmt: skip
        self.name, self.log, self.timing, self.dialect = name, log, timing, dialect
        self._connect, self._clock, self._guard, self._on_end = connect, clock, guard, on_end
        self.watched, self.key = watched, 0  # the guard's number of it
        self._lock = threading.RLock()  # guards what others leave; re-entrant: a signal handler may leave a job
        self._inbox: list[Job] = []
        self._closing: Job | None = None
        self._last_stop = -NEVER  # when somebody wanted silence for the last time: older plays are dropped
        self.ended = False
        # the worker's own
        self.schedule: Schedule | None = None
        self.kept_until = NEVER  # nothing plays after that
        self.airs_until = -NEVER  # a scent may be in the air until then, if no stop arrives
        self.trouble: LinkError | None = None  # why the link is away
        self._exchange = Exchange(timing=timing, log=log, name=name)
        self._parser = dialect.parser()
        self._stop, self._wake = Burst(), Burst()
        self._last_byte, self._last_sent = -NEVER, b""
        self._last_play = -NEVER  # an answer to a stop that went before it says nothing about it
        self._last_forward = -NEVER  # the device itself heard something
        self._free = -NEVER  # no command before
        self._pauses = pauses(timing.back_off, timing.cap)
        self._retry = self._give_up = NEVER
        self.link: Link | None = None
        self._use(connect())

    def step(self) -> float | None:
        """Do what is due. Return when to be called next; None once closed."""
        if self.ended:
            return None
        try:
            self._take()
            self._read()
            due = min(self._do_stop(), self._do_link(), self._do_wake(), self._do_schedule(), self._do_request())
            # whatever failed on the way may have made other things due
            if self.link is None:
                due = min(due, self._retry)
            elif self._stop.active:
                due = min(due, self._stop.due)
            if self._parser.waiting:
                due = min(due, self._last_byte + self.timing.inter_byte)
        except Exception as why:  # a fault of ours must not leave a scent in the air
            self._crash(why)
            raise
        return None if self.ended else due

    def bound(self) -> float:
        """Seconds until the air is clear even if no stop arrives."""
        return max(0.0, self.airs_until - self._now())

    def _now(self) -> float:
        return self._clock.now()

    def _take(self) -> None:
        with self._lock:
            jobs, self._inbox = self._inbox, []
        if self._closing and self._give_up == NEVER:
            self._give_up = self._now() + self.timing.patience
            jobs.append(Job("stop"))
            self._exchange.fail(Closed(f"{self.name} was closed", port=self.name, remedy="open it again"))
        for job in jobs:
            if isinstance(job, Schedule) and job.asked < self._last_stop:
                self.log.note(f"not begun, a stop came after it: {job.what}")
                job.finish("stopped")
            elif isinstance(job, Schedule):
                self._end_schedule("replaced")
                self.schedule = job
            elif job.what == "wake":
                self._wake.start(self.timing.wakes, self._now(), job)
            else:
                self._end_schedule("stopped")
                if self._wake.left:  # it may have slept through the few that went out
                    self._last_forward = -NEVER
                self._wake.finish("stopped")
                self._begin_stop(job)
        if self.link is None:
            self._fail_all(self._away())

    # the port: writing, reading, losing

    def _send(self, frame: bytes, what: str) -> bool:
        """Write one frame; False when the link broke over it."""
        assert self.link is not None
        began = self._now()
        try:
            self.link.write(frame)
        except LinkError as why:
            why.elapsed = self._now() - began
            self.log.sent(frame, f"{what}: failed", latency=why.elapsed)
            self._lose(why)
            return False
        now = self._now()
        self.log.sent(frame, what, latency=now - began)
        self._last_sent = frame
        self._free = now + self.timing.gap
        if frame[1] == 0x51 and (what == "wake" or now - self._last_forward < self.timing.idle):
            self._last_forward = now  # a device asleep hears nothing but a wake
        return True

    def _read(self) -> None:
        try:
            data = self.link.read() if self.link else b""
        except LinkError as why:
            self._lose(why)
            return
        now, replies = self._now(), []
        if data:
            if self._last_sent and self._last_sent in data:
                self._exchange.trouble(self._last_sent, "echo")
            replies = self._parser.feed(data)
            self._last_byte = now
        elif self._parser.waiting and now >= self._last_byte + self.timing.inter_byte:
            replies = self._parser.expire()
        for fault in self._parser.errors:
            self._exchange.trouble(fault.raw, f"{fault}: {fault.detail}")
        self._parser.errors.clear()
        for frame in replies:
            if self.dialect.answers and frame.raw[1:5] == direct.OURS:
                self._exchange.trouble(frame.raw, "echo")
            elif self.dialect.answers and self._over(frame):
                self.log.got(frame.raw, "over, says the player")
            else:
                self._exchange.reply(frame, now)

    def _over(self, frame: Any) -> bool:
        """Whether a player says by itself that a play is over; a refused mixture has the same number."""
        asked = frame.command == direct.MIX and any(owed.kind[0] == direct.MIX for owed in self._exchange.owed)
        return frame.command in (direct.PLAY, direct.MIX) and frame.value in (1, 2) and not asked

    def _use(self, link: Link | None) -> None:
        with self._lock:
            former, self.link = self.link, link
        if self._guard:
            self._guard.follow(self)
        if former:
            former.close()

    def _lose(self, why: LinkError) -> None:
        """The port is gone: one error for everybody who waits, then look for it."""
        self.log.note(f"lost: {why.what} ({why.got})")
        self.trouble = why
        self._use(None)
        self._parser = self.dialect.parser()
        self._exchange.owed.clear()  # what was sent over this link is never answered over another
        self._last_forward = -NEVER
        self._retry = self._now() + next(self._pauses)
        self._fail_all(why)

    def _fail_all(self, error: LinkError) -> None:
        self._stop.finish(error=error)
        self._wake.finish(error=error)
        self._end_schedule(error=error)
        self._exchange.fail(error)

    def _away(self) -> PortLost:
        remedy = "plug the handset in again: the driver looks for it and sends stop first. "
        remedy += f"A device that still plays ends by its own timer, in {self.bound():.1f} s at most"
        got = self.trouble.got if self.trouble else ""
        return PortLost(f"{self.name} is away", port=self.name, got=got, remedy=remedy)

    # 1

    def _begin_stop(self, *jobs: Job) -> None:
        """Silence: three times, or until it is confirmed."""
        count = self.timing.stops
        if self.dialect.answers:  # answers to stops that went before may be on their way: outlast those
            count = round((self.timing.late + 2 * self.timing.reply) / self.timing.again)
        self._stop.start(count, self._now(), *jobs)

    def _do_stop(self) -> float:
        stop, answers = self._stop, self.dialect.answers
        if not self.link or not stop.active:
            return NEVER
        due = self._fire(stop, self.dialect.stop(), "stop", self.timing.again if answers else self.timing.stop_gap)
        if due is None and answers and not stop.confirmed and self._now() < stop.due:
            due = stop.due
        if due is not None:
            return due
        self._pauses = pauses(self.timing.back_off, self.timing.cap)
        error = None
        if answers and not stop.confirmed:
            what = f"Stop is not confirmed by {self.name}, sent {stop.sent} times"
            got = "; ".join(dict.fromkeys(stop.refusals)) or "nothing"
            remedy = f"switch it off; if it heard nothing, its own timer ends it in {self.bound():.1f} s at most"
            frame = self.dialect.stop()
            error = NoReply(what, port=self.name, frame=frame, expected="00 with 0", got=got, remedy=remedy)
        stop.finish(Stopped(stop.sent, self.bound(), stop.confirmed), error)
        if self._closing:
            self._closing.finish(error=error)
            self._end()
        return NEVER

    def _stop_answered(self, sent: float, frame: Any, now: float) -> None:
        what = self._heard(frame, now - sent)
        if not self._stop.active or sent <= self._last_play:
            return
        if frame.value == direct.DONE:
            self._stop.left, self._stop.confirmed = 0, True
            self.airs_until = -NEVER
        else:
            self._stop.refusals.append(f"stop was {what}")

    def _heard(self, frame: Any, latency: float) -> str:
        what = "done" if frame.value == direct.DONE else f"refused with {frame.data.hex() or 'nothing'}"
        self.log.got(frame.raw, what, latency=latency)
        return what

    def _fire(self, burst: Burst, frame: bytes, what: str, gap: float) -> float | None:
        """Send what is due of a burst, a wake after other commands; when to go on, None once it is over."""
        while burst.left:
            due = max(burst.due, self._free) if what == "wake" else burst.due
            if self._now() < due:
                return due
            if not self._send(frame, what):
                return NEVER
            burst.left, burst.sent, burst.due = burst.left - 1, burst.sent + 1, self._now() + gap
            if what == "stop" and self.dialect.answers:
                then = partial(self._stop_answered, self._now())
                self._exchange.owed.append(Owed(self._now(), (direct.STOP, 0), then, group=self._last_play))
        return None

    # 2

    def _do_link(self) -> float:
        if self.link or self.ended:
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
            self._retry = self._now() + next(self._pauses)
            return self._retry
        self._use(link)
        self.log.note(f"connected again: {link.name}")
        self._begin_stop()
        if self.dialect.wake:
            self._stop.due += self.timing.stop_gap
            self._send(self.dialect.wake(), "wake")  # a device asleep would not hear the stop
        self._last_forward = -NEVER  # before the next play it is woken properly
        return self._now()

    # 3

    def _asleep(self) -> bool:
        idle = self._now() - self._last_forward >= self.timing.idle
        return self.dialect.wake is not None and (idle or self._wake.left > 0)

    def _do_wake(self) -> float:
        if not self.link or self._stop.active:
            return NEVER
        request = self._exchange.current
        needed = (self.schedule and self.schedule.began == NEVER) or (request and request.wakes)
        if needed and self._asleep():
            self._wake.start(self.timing.wakes, self._now())
        if self.dialect.wake:
            due = self._fire(self._wake, self.dialect.wake(), "wake", self.timing.wake_gap)
            if due is not None:
                return due
        self._wake.finish()
        return NEVER

    # 4, of which `engine.py` has the rest

    def _do_schedule(self) -> float:
        raise NotImplementedError

    def _end_schedule(self, how: str = "", *, error: Exception | None = None) -> None:
        schedule, self.schedule = self.schedule, None
        if schedule is None:
            return
        if how:
            self.log.note(f"{how}: {schedule.what}")
        if how == "played" and schedule.stop_after:
            self._begin_stop(Job("stop", lambda job: schedule.finish(how, job.error)))
            self._do_stop()
        else:
            schedule.finish(how, error)

    # 5

    def _do_request(self) -> float:
        while self.link and not self._stop.active and (request := self._exchange.open(self._now())):
            now = self._now()
            if request.wakes and self._asleep():
                return now if self._wake.left == 0 else NEVER
            due = max(self._exchange.due(request, now), self._free)
            if now < due:
                return due
            if request.silences and (self.schedule or self.airs_until > now):
                self._end_schedule("stopped: the channel changes")
                request.silences = False
                self._begin_stop()
                return now
            request.silences = False
            if not self._send(request.frame, request.what):
                return NEVER
            self._exchange.sent(request, self._now())
        return NEVER

    # the end

    def _end(self, fault: LinkError | None = None) -> None:
        """Let go of the port and of everybody who waits: closed, or for a `fault` of our own."""
        if fault is None:
            self._end_schedule("stopped")
        self._fail_all(fault or Closed(f"{self.name} was closed", port=self.name))
        with self._lock:
            link, self.link, self.ended = self.link, None, True
            left, self._inbox = self._inbox, []
        for job in [*left, *([self._closing] if self._closing else [])]:
            job.finish("closed", fault)
        if self._guard:  # before the port is closed, and its number another file's
            self._guard.leave(self, silent=fault is None and not (self._closing and self._closing.error))
        if link:
            link.close()
        self._on_end()

    def _crash(self, why: Exception) -> None:
        self.log.note(f"worker failed: {why!r}")
        self.last_resort()
        self.trouble = LinkError(f"The driver of {self.name} failed: {why!r}", port=self.name, remedy="open it again")
        with suppress(Exception):
            self._end(self.trouble)

    def last_resort(self) -> None:
        """The worker hangs or died: send stop from this thread, past it."""
        try:
            if link := self.link:
                link.write(self.dialect.stop())
        except LinkError as why:
            self.log.note(f"last-resort stop failed: {why.what}")
