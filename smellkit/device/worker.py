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

from contextlib import suppress

from smellkit.device import direct
from smellkit.device.errors import Closed, LinkError, NoReply
from smellkit.device.jobs import NEVER, Burst, Pulse, Schedule, Stopped
from smellkit.device.wire import SHORTEST, Wire


class Worker(Wire):
    """What happens on the link. Everything here runs inside `step` only, but for what `Engine` does under `_lock`."""

    def step(self) -> float | None:
        """Do what is due. Return when to be called next; None once closed."""
        if self._ended:
            return None
        try:
            self._take()
            self._read()
            due = min(self._do_stop(), self._do_link(), self._do_wake(), self._do_schedule(), self._do_request())
            due = min(due, self._do_again())
            # whatever failed on the way may have made other things due
            if self._link is None:
                due = min(due, self._retry)
            elif self._stop.active:
                due = min(due, self._stop.due)
            if self._parser.waiting:
                due = min(due, self._last_byte + self.timing.inter_byte)
        except Exception as why:  # a fault of ours must not leave a scent in the air
            self._crash(why)
            raise
        return None if self._ended else due

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
            self._begin_stop(*stops)
        if wakes:
            self._wake.start(self.timing.wakes, now)
            self._wake.jobs += wakes
        if schedule and schedule.asked < self._last_stop:
            schedule.finish("stopped")
        elif schedule:
            self._end_schedule("replaced")
            self.schedule = schedule
        if self._link is None:
            self._fail_all()

    # 1

    def _do_stop(self) -> float:
        stop = self._stop
        if not self._link or not stop.active:
            return NEVER
        answers = self.dialect.answers
        gap = self.timing.again if answers else self.timing.stop_gap
        due = self._fire(stop, self.dialect.stop(self._channel), "stop", gap=gap)
        if due is not None:
            return due
        if answers and not stop.confirmed and self._now() < stop.due:
            return stop.due
        self._back_off.reset()
        if answers and not stop.confirmed:
            stop.finish(error=self._unconfirmed(stop))
        else:
            stop.finish(Stopped(stop.sent, self.bound(), stop.confirmed))
        if self._closing and self._closing.done:
            self._end()
        return NEVER

    def _unconfirmed(self, stop: Burst) -> NoReply:
        return NoReply(
            f"Stop is not confirmed by {self.name}, sent {stop.sent} times",
            port=self.name,
            frame=self.dialect.stop(self._channel),
            expected="00 with 0",
            got="; ".join(dict.fromkeys(self._requests.heard)) or "nothing",
            remedy=f"switch the player off; if it heard nothing, its own timer ends it in {self.bound():.1f} s at most",
        )

    def _fire(self, burst: Burst, frame: bytes, what: str, *, gap: float, wait: bool = False) -> float | None:
        """Send what is due of a burst, after other commands with `wait`; when to go on, None once it is over."""
        while burst.left:
            due = max(burst.due, self._free) if wait else burst.due
            if self._now() < due:
                return due
            if not self._send(frame, what):
                return NEVER
            if burst is self._stop and self.dialect.answers:
                self._owed.append((self._now(), direct.STOP, None))
            burst.left -= 1
            burst.sent += 1
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
        self._stop.active = False
        self._begin_stop()
        if self._closing and self._closing not in self._stop.jobs:
            self._stop.jobs.append(self._closing)
        if self.dialect.wake:
            self._stop.due += self.timing.stop_gap
            self._send(self.dialect.wake(self._channel), "wake")  # a device asleep would not hear the stop
        self._last_forward = -NEVER  # before the next play it is woken properly
        return self._now()

    # 3

    def _asleep(self) -> bool:
        if not self.dialect.wake:
            return False
        return self._now() - self._last_forward >= self.timing.idle or self._wake.left > 0

    def _do_wake(self) -> float:
        if not self._link or self._stop.active:
            return NEVER
        if not self.dialect.wake:
            self._wake.finish()
            return NEVER
        request = self._requests.current
        needed = (self.schedule is not None and self.schedule.began is None) or (request is not None and request.wakes)
        if needed and self._asleep():
            self._wake.start(self.timing.wakes, self._now())
        due = self._fire(self._wake, self.dialect.wake(self._channel), "wake", gap=self.timing.wake_gap, wait=True)
        if due is not None:
            return due
        self._wake.finish()
        return NEVER

    # 4

    def _do_schedule(self) -> float:
        while self.schedule and self._link and not self._stop.active and not self._retuning():
            if self._now() >= self.kept_until:
                self._end_schedule("stopped: nobody is there any more")
                self._begin_stop()
                return self._now()
            due = self._advance(self.schedule, self._now())
            if due is not None:
                return min(due, self.kept_until)
        return NEVER

    def _retuning(self) -> bool:
        """A change of channel is on its way: what would be played now, a stop might not reach."""
        request = self._requests.current
        return request is not None and request.retunes and request.tries > 0 and not request.done

    def _advance(self, schedule: Schedule, now: float) -> float | None:
        """One move: begin, send the next frame, or end; when to go on, None for at once."""
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
        longest = self.timing.frame if self._guarded() else min(self.timing.frame, self.timing.unguarded)
        due = self._due(schedule, pulse, longest, now)
        if now < due:
            return due
        if now - due > self.timing.asleep or due < schedule.covered < now:
            self._interrupted(schedule, now - due)
            return NEVER
        end = schedule.began + pulse.start + pulse.seconds
        if end - now < SHORTEST:
            if schedule.covered == -NEVER:
                self.log.note(f"too late for scent {pulse.scent}, {pulse.seconds:g} s")
            schedule.next, schedule.covered = schedule.next + 1, -NEVER
            return None
        if now < self._free:
            return self._free
        self._play(schedule, pulse, end if pulse.volumes else min(due + longest, end))
        return None

    def _due(self, schedule: Schedule, pulse: Pulse, longest: float, now: float) -> float:
        """When the next frame of a pulse is due: absolute, so lateness never adds up."""
        if schedule.covered == -NEVER:
            return schedule.began + pulse.start  # type: ignore[operator]
        if schedule.covered - now > longest and not pulse.volumes:
            return now  # the watchdog is gone: a shorter frame takes the place of the one that is in the air
        return schedule.covered - min(self.timing.renew, longest / 2)

    def _play(self, schedule: Schedule, pulse: Pulse, until: float) -> None:
        now, before, again = self._now(), self.airs_until, schedule.covered > -NEVER
        seconds = until - now
        if pulse.volumes:
            frame, lasts = (
                direct.mix(pulse.volumes),
                NEVER,
            )  # it has no duration: nothing but a stop ends it for certain
        else:
            frame, lasts = self.dialect.play(pulse.scent, max(1, round(seconds * 1000)), self._channel), seconds
        self.airs_until = max(before, now + self.timing.write + lasts)  # even a write that fails may arrive
        if not self._send(frame, f"{'renew' if again else 'play'} {pulse.scent or 'mixture'} for {seconds:.3f} s"):
            return
        self.airs_until = max(before, self._now() + lasts)  # the radio may lose it: the older one goes on
        schedule.played.append(Pulse(now - (schedule.began or now), pulse.scent, seconds, pulse.volumes))
        schedule.covered = until
        if self.dialect.answers:
            schedule.last, schedule.first_sent, schedule.until, schedule.tries = frame, self._now(), until, 1
            schedule.number += 1
            self._last_play = self._now()
            self._owed.append((self._last_play, frame[5], (id(schedule), schedule.number)))
        if until >= (schedule.began or now) + pulse.start + pulse.seconds - 1e-9:
            schedule.next, schedule.covered = schedule.next + 1, -NEVER

    def _interrupted(self, schedule: Schedule, late: float) -> None:
        error = LinkError(
            f"{schedule.what} was interrupted: nothing ran for {late:.1f} s",
            port=self.name,
            remedy="the machine slept or was busy; what was left is not played by itself: play it again",
        )
        self.log.note(error.what)
        self._fail_schedule(error)

    def _end_schedule(self, how: str) -> None:
        schedule, self.schedule = self.schedule, None
        if schedule is None:
            return
        self.log.note(f"{how}: {schedule.what}")
        if how == "played" and schedule.stop_after:
            self._begin_stop(schedule)
            self._do_stop()
        else:
            schedule.finish(how)

    # 5

    def _do_request(self) -> float:
        while self._link and not self._stop.active and (request := self._requests.head(self._now())):
            now = self._now()
            if request.tries and now < request.last + self.timing.reply:
                return request.last + self.timing.reply
            if request.wakes and self._asleep():
                return now if self._wake.left == 0 else NEVER
            due = max(self._requests.due(request, now), self._free)
            if now < due:
                return due
            if request.silences and (self.schedule or self.airs_until > now):
                self._end_schedule("stopped: the channel changes")
                request.silences = False
                self._begin_stop()
                return now
            if not self._send(request.frame, request.what):
                return NEVER
            self._requests.sent(request, self._now())
        return NEVER

    # the end

    def _end(self) -> None:
        self._end_schedule("stopped")
        self._requests.fail(Closed(f"{self.name} was closed", port=self.name))
        silent = self._closing is None or self._closing.error is None
        if self._link:
            self._link.close()
        with self._lock:
            self._link = None
            self._ended = True
            left = [*self._stops, *self._wakes, *([self._next] if self._next else [])]
        for job in left:
            job.finish("closed")
        self._on_end(silent)

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
        with suppress(Exception):
            self._on_end(False)  # the watchdog sends stop too
        if self._link:
            self._link.close()
        self._link, self._ended = None, True
