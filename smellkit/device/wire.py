"""The driver's end of the link: one frame out, bytes in, and what becomes of everybody when the port goes away."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from smellkit.device import direct
from smellkit.device.clock import Clock
from smellkit.device.errors import LinkError, NoReply, PortLost, Refused
from smellkit.device.jobs import HANDSET, NEVER, Burst, Dialect, Job, Requests, Schedule, Timing
from smellkit.device.link import BackOff, Link
from smellkit.device.log import Log

SHORTEST = 0.05  # seconds of a pulse that are still worth sending


class Wire:
    """Port, parser and what waits for either. The worker does the rest; all of it runs inside its `step` only."""

    def __init__(
        self,
        connect: Callable[[], Link],
        *,
        clock: Clock,
        timing: Timing,
        log: Log,
        name: str,
        channel: int = 0,
        dialect: Dialect = HANDSET,
        on_link: Callable[[Link | None], None] = lambda link: None,
        on_end: Callable[[bool], None] = lambda silent: None,
        guarded: Callable[[], bool] = lambda: True,
    ):
        self.name, self.log, self.timing, self.dialect = name, log, timing, dialect
        self._connect, self._clock, self._on_link, self._channel = connect, clock, on_link, channel
        self._on_end, self._guarded = on_end, guarded
        self._lock = threading.RLock()  # guards the jobs left by others; re-entrant: a signal handler may leave one
        self._stops: list[Job] = []
        self._wakes: list[Job] = []
        self._next: Schedule | None = None
        self._closing: Job | None = None
        self._ended = False
        self._last_stop = -NEVER  # when somebody wanted silence for the last time: older plays are dropped
        # the worker's own
        self._requests = Requests(timing=timing, log=log, name=name)
        self._parser = dialect.parser()
        self._last_byte = -NEVER
        self.kept_until = NEVER  # nothing plays after that
        self._owed: deque[tuple[float, int, Any]] = deque()  # stops and plays without an answer: when, command, whose
        self._last_play = -NEVER  # an answer to a stop that went before it says nothing about it
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

    def bound(self) -> float:
        """Seconds until the air is clear even if no stop arrives."""
        return max(0.0, self.airs_until - self._now())

    def _now(self) -> float:
        return self._clock.now()

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
        if frame[1] == 0x51 and (what == "wake" or now - self._last_forward < self.timing.idle):
            self._last_forward = now  # a device asleep hears nothing but a wake
        return True

    def _lose(self, why: LinkError) -> None:
        """The port is gone: one error for everybody who waits, then look for it."""
        self.log.note(f"lost: {why.what} ({why.got})")
        self.trouble = why
        self._use(None)
        self._parser = self.dialect.parser()
        self._requests.forget()
        self._owed.clear()
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
        replies: list[Any] = []
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
            if self.dialect.answers and frame.raw[1:5] == direct.OURS:
                self._requests.trouble(frame.raw, "echo")
            elif self.dialect.answers and frame.command in (direct.STOP, direct.PLAY, direct.MIX):
                self._acknowledge(frame, now)
            else:
                self._requests.reply(frame, now)

    # stop, and what the player says

    def _begin_stop(self, *jobs: Job) -> None:
        """Silence: three times, or until it is confirmed."""
        count = self.timing.stops
        if self.dialect.answers:  # answers to stops that went before may be on their way: outlast those
            count = round((self.timing.late + 2 * self.timing.reply) / self.timing.again)
        self._stop.start(count, self._now())
        self._stop.jobs += jobs

    def _fail_schedule(self, error: Exception) -> None:
        schedule, self.schedule = self.schedule, None
        if schedule:
            schedule.finish(error=error)
        self._begin_stop()

    def _acknowledge(self, frame: direct.Frame, now: float) -> None:
        """An answer to a stop or a play belongs to the oldest of its kind that has none."""
        while self._owed and now > self._owed[0][0] + self.timing.late:
            self._owed.popleft()
        mine = next((owed for owed in self._owed if owed[1] == frame.command), None)
        if frame.command != direct.STOP and frame.value in (1, 2):
            self.log.got(frame.raw, "over, says the player")
        elif mine is None:
            self.log.got(frame.raw, "unrequested")
        else:
            self._owed.remove(mine)
            of, what = (
                mine[2],
                "done" if frame.value == direct.DONE else f"refused with {frame.data.hex() or 'nothing'}",
            )
            self.log.got(frame.raw, what, latency=now - mine[0])
            if frame.command == direct.STOP and self._stop.active and mine[0] > self._last_play:
                self._stop_answered(frame.value == direct.DONE, what)
            elif self.schedule and of == (id(self.schedule), self.schedule.number):
                self._play_answered(self.schedule, frame, what)

    def _stop_answered(self, done: bool, what: str) -> None:
        if not done:
            self._requests.heard.append(f"stop was {what}")
            return
        self._stop.left, self._stop.confirmed = 0, True
        self.airs_until = -NEVER

    def _play_answered(self, schedule: Schedule, frame: direct.Frame, what: str) -> None:
        schedule.last = b""
        if frame.value == direct.DONE:
            return
        if frame.command == direct.MIX and schedule.instead:
            self.log.note("the player has no mixtures: slots instead")
            schedule.pulses, schedule.instead, schedule.next, schedule.began = schedule.instead, None, 0, self._now()
            schedule.covered, self.airs_until = -NEVER, self._now()
            return
        self._fail_schedule(Refused(f"{self.name} refused to play", port=self.name, frame=frame.raw, got=what))

    def _do_again(self) -> float:
        """A play that nobody has acknowledged is sent again, and given up after a while."""
        schedule = self.schedule
        if not schedule or not schedule.last or not self._link or self._stop.active:
            return NEVER
        now, left = self._now(), schedule.until - self._now()
        if now >= schedule.first_sent + self.timing.late + self.timing.reply:
            error = NoReply(
                f"{self.name} does not acknowledge the play, sent {schedule.tries} times",
                port=self.name,
                frame=schedule.last,
                elapsed=now - schedule.first_sent,
                remedy="stop was sent; is the player switched on, and charged?",
            )
            self._fail_schedule(error)
            return self._now()
        due = schedule.first_sent + schedule.tries * self.timing.reply
        if schedule.tries >= self.timing.tries or left < SHORTEST:
            return schedule.first_sent + self.timing.late + self.timing.reply
        if now < max(due, self._free):
            return max(due, self._free)
        frame = schedule.last
        if frame[5] == direct.PLAY:
            frame = self.dialect.play(frame[7], max(1, round(left * 1000)), self._channel)
        if self._send(frame, "again"):
            schedule.tries += 1
            self._last_play = self._now()
            self._owed.append((self._last_play, frame[5], (id(schedule), schedule.number)))
        return self._now() + self.timing.gap

    def last_resort(self) -> None:
        """The worker hangs or died: send stop from this thread, past it."""
        link = self._link
        if link:
            try:
                link.write(self.dialect.stop(self._channel))
            except LinkError as why:
                self.log.note(f"last-resort stop failed: {why.what}")
