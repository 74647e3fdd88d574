"""What plays, and the way to it from any thread: leave a job and wait for it, never longer than its bound."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

from smellkit.device import direct
from smellkit.device.clock import Clock
from smellkit.device.errors import Closed, LinkError, NoReply, PortLost, Refused
from smellkit.device.jobs import DIALECTS, NEVER, Job, Owed, Pulse, Request, Schedule, Sending, Stopped, Timing
from smellkit.device.link import Link, connector
from smellkit.device.worker import Worker

SHORTEST = 0.05  # seconds of a pulse that are still worth sending


class Engine(Worker):
    """The worker on its clock, which plays schedules: deadlines are absolute, a long play is renewed.

    Methods without an underscore are for any thread. `options` are those of `Worker`.
    """

    def __init__(self, connect: Callable[[], Link], *, clock: Clock, name: str, **options: Any):
        super().__init__(connect, clock=clock, name=name, **options)
        self._asking = threading.RLock()  # one request at a time
        self._runner = clock.run(self.step, inputs=self._inputs, name=f"smellkit {name}")

    def _do_schedule(self) -> float:
        return min(self._do_play(), self._do_again())

    def _do_play(self) -> float:
        request = self._exchange.current
        if request and request.retunes and not request.silences and not request.done:
            return NEVER  # no stop would reach what begins now
        while self.schedule and self.link and not self._stop.active:
            if self._now() >= self.kept_until:
                self._end_schedule("stopped: nobody is there any more")
                self._begin_stop()
                return self._now()
            due = self._advance(self.schedule, self._now())
            if due is not None:
                return min(due, self.kept_until)
        return NEVER

    def _advance(self, schedule: Schedule, now: float) -> float | None:
        """One move: begin, send the next frame, or end; when to go on, None for at once."""
        if schedule.began == NEVER:
            if (waited := now - schedule.asked) > self.wake_bound() + self.timing.asleep:
                return self._interrupt(schedule, waited)
            if self._asleep():
                return NEVER  # the wake comes first
            if now < self._free:
                return self._free
            schedule.began = now
            self.log.note(f"begins: {schedule.what}")
        guarded = not self._guard or self._guard.watches(self)
        if schedule.instead and not guarded:
            what = "The watchdog is gone, and a mixture on this link has no end of its own"
            self._fail_schedule(LinkError(what, port=self.name, remedy="stop was sent; play it again"))
            return NEVER
        if schedule.next == len(schedule.pulses):
            if now < schedule.began + schedule.seconds:
                return schedule.began + schedule.seconds
            if (sent := schedule.sending) and not sent.heard and sent.frame[5] == direct.PLAY:
                return NEVER  # `_do_again` waits for the answer, or gives up: only what was heard was played
            self._end_schedule("played")
            return None
        pulse = schedule.pulses[schedule.next]
        longest = self.timing.frame if guarded else min(self.timing.frame, self.timing.unguarded)
        if pulse.volumes:
            longest = NEVER
        start = schedule.began + pulse.start
        due, end = self._due(schedule, start, longest, now), start + pulse.seconds
        if now < due:
            return due
        if now - due > self.timing.asleep or due < schedule.covered < now:
            return self._interrupt(schedule, now - due)
        if end - now < SHORTEST:
            if schedule.covered == -NEVER:
                self.log.note(f"too late for scent {pulse.scent}, {pulse.seconds:g} s")
            schedule.next, schedule.covered = schedule.next + 1, -NEVER
        elif now < self._free:
            return self._free
        else:
            self._play(schedule, pulse, until=min(due + longest, end), end=end)
        return None

    def _due(self, schedule: Schedule, start: float, longest: float, now: float) -> float:
        """When the next frame of a pulse is due: absolute, so lateness never adds up."""
        if schedule.covered == -NEVER:
            return start
        if schedule.covered - now > longest:
            return now  # the watchdog is gone: a shorter frame takes the place of the one that is in the air
        return schedule.covered - min(self.timing.renew, longest / 2)

    def _play(self, schedule: Schedule, pulse: Pulse, *, until: float, end: float) -> None:
        now, before, seconds = self._now(), self.airs_until, until - self._now()
        if pulse.volumes:
            frame, lasts = direct.mix(pulse.volumes), NEVER  # it has no duration: only a stop ends it for certain
        else:
            frame, lasts = self.dialect.play(pulse.scent, max(1, round(seconds * 1000))), seconds
        self.airs_until = max(before, now + self.timing.write + lasts)  # even a write that fails may arrive
        how = "play" if schedule.covered == -NEVER else "renew"
        if not self._send(frame, f"{how} {pulse.scent or 'mixture'} for {seconds:.3f} s"):
            return
        self.airs_until = max(before, self._now() + lasts)  # the radio may lose it: the older one goes on
        schedule.played.append(pulse._replace(start=now - schedule.began, seconds=seconds))
        schedule.covered = until
        if self.dialect.answers:
            schedule.sending = Sending(frame, self._now(), until)
            self._expect(schedule, schedule.sending)
        if until >= end - 1e-9:
            schedule.next, schedule.covered = schedule.next + 1, -NEVER

    def _interrupt(self, schedule: Schedule, seconds: float) -> float:
        what = f"{schedule.what} was interrupted: nothing ran for {seconds:.1f} s"
        self.log.note(what)
        remedy = "the machine slept or was busy; what was left is not played by itself: play it again"
        self._fail_schedule(LinkError(what, port=self.name, remedy=remedy))
        return NEVER

    def _fail_schedule(self, error: Exception) -> None:
        self._end_schedule(error=error)
        self._begin_stop()

    # the link that answers

    def _expect(self, schedule: Schedule, sending: Sending) -> None:
        self._last_play = sent = self._now()
        then = partial(self._play_answered, schedule, sending, sent)
        self._exchange.owed.append(Owed(sent, (sending.frame[5], 0), then, group=sending.first))

    def _play_answered(self, schedule: Schedule, sending: Sending, sent: float, frame: Any, now: float) -> None:
        what = self._heard(frame, now - sent)
        if schedule is not self.schedule or sending is not schedule.sending:
            return
        sending.heard = True
        if frame.value == direct.DONE:
            return
        if frame.command == direct.MIX and schedule.instead:
            self.log.note("the player has no mixtures: slots instead")
            schedule.pulses, schedule.instead, schedule.next, schedule.began = schedule.instead, [], 0, now
            schedule.covered, self.airs_until = -NEVER, now
            return
        self._fail_schedule(Refused(f"{self.name} refused to play", port=self.name, frame=frame.raw, got=what))

    def _do_again(self) -> float:
        """A play that nobody has acknowledged is sent again, and given up after a while."""
        schedule, now = self.schedule, self._now()
        sending = schedule.sending if schedule else None
        if not schedule or not sending or sending.heard or not self.link or self._stop.active:
            return NEVER
        left, give_up = sending.until - now, sending.first + self.timing.late + self.timing.reply
        if now >= give_up:
            what = f"{self.name} does not acknowledge the play, sent {sending.tries} times"
            remedy, elapsed = "stop was sent; is the player switched on, and charged?", now - sending.first
            error = NoReply(what, port=self.name, frame=sending.frame, elapsed=elapsed, remedy=remedy)
            self._fail_schedule(error)
            return now
        if sending.tries >= self.timing.tries or left < SHORTEST:
            return give_up
        due = max(sending.first + sending.tries * self.timing.reply, self._free)
        if now < due:
            return due
        frame = sending.frame
        if frame[5] == direct.PLAY:
            frame = self.dialect.play(frame[7], max(1, round(left * 1000)))
        if self._send(frame, "again"):
            sending.tries += 1
            self._expect(schedule, sending)
        return self._now() + self.timing.gap

    # for any thread

    def play(self, schedule: Schedule) -> None:
        """Replace what plays or waits by `schedule`, and don't wait for it."""
        self._leave(schedule)
        self._runner.kick()

    def ask(self, request: Request) -> Any:
        """The reply to a request, and when it came; others wait for their turn."""
        bound = self.timing.late + self.timing.tries * (max(self.timing.reply, self.timing.gap) + self.timing.write)
        with self._asking:
            with self._lock:
                self._refuse_after_close()
                self._exchange.current = request
            return self._await(request, bound + self.wake_bound() + self.stop_bound())

    def wake(self) -> None:
        self._await(self._leave(Job("wake")), self.wake_bound() + self.stop_bound())

    def stop(self) -> Stopped:
        """Silence, before anything else that waits."""
        return self._await(self._leave(Job("stop")), self.stop_bound())

    def order(self, why: str, then: Callable[[Job], None] = lambda job: None) -> None:
        """Silence, because the watchdog was told so: by a signal, or by another process. Waits for nothing."""
        self.log.note(f"stop: {why}")
        with suppress(Closed):
            self._leave(Job("stop", then))
        self._runner.kick()

    def keep(self, seconds: float) -> None:
        self.kept_until = self._now() + seconds
        self._runner.kick()

    def guard_changed(self, why: str) -> None:
        self.log.note(why)
        self._runner.kick()

    def wait(self, job: Job, seconds: float) -> bool:
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
        bound = 2 * self.stop_bound() + self.timing.patience + 1.0
        if not self._runner.join(bound) and not job.done:
            self.last_resort()
            if self._guard:
                self._guard.leave(self, silent=False)
            self._on_end()
        return job.error

    def forked(self) -> None:
        """This is a child process: let go of what is the parent's, and send nothing."""
        link, self.link, self.ended = self.link, None, True
        self._closing = Job("close")
        self._lock, self._asking = threading.RLock(), threading.RLock()  # a thread of the parent's may hold them
        if link:
            link.close(silently=True)
        self._runner.forked()

    def wake_bound(self) -> float:
        return self.timing.wakes * (self.timing.wake_gap + self.timing.write) + 2 * self.timing.gap

    def stop_bound(self) -> float:
        """Seconds that a stop takes at most; on the link that answers, until it is confirmed or an error."""
        if self.dialect.answers:
            return self.timing.write * 4 + self.timing.late + 3 * self.timing.reply
        return self.timing.write * (self.timing.stops + 1) + self.timing.stop_gap * self.timing.stops

    def _leave(self, job: Job) -> Job:
        with self._lock:
            self._refuse_after_close()
            if isinstance(job, Schedule) and self.link is None:
                raise self._away()
            if job.what == "stop":
                self._last_stop = self._now()
            self._inbox.append(job)
        return job

    def _await(self, job: Job, seconds: float) -> Any:
        if not self.wait(job, seconds + 0.1):
            what = f"{self.name} keeps its worker from answering"
            remedy = "close it, unplug the handset and plug it in again; the device ends by its own timer"
            error = PortLost(what, port=self.name, expected=job.what, elapsed=seconds + 0.1, remedy=remedy)
            if job.what == "stop":
                self.last_resort()
            job.finish(error=error)
        if job.error:
            raise job.error
        return job.result

    def _refuse_after_close(self) -> None:
        if self._closing or self.ended:
            raise Closed(f"{self.name} was closed", port=self.name, remedy="open it again with NeckWear.open")

    def _inputs(self) -> int | None:
        link = self.link
        return link.fileno() if link and link.wakes else None


def find_link(url: str, *, timing: Timing) -> str:
    """Return which link answers on `url`, "handset" or "direct"; NoReply when nothing does. Plays nothing."""
    for dialect in DIALECTS.values():
        if url.startswith("ble:") and not dialect.answers:
            continue  # a handset is on a cable
        parser = dialect.parser()
        with closing(connector(url, baud=dialect.baud, write_timeout=timing.write)()) as link:
            for _ in range(timing.tries):
                link.write(dialect.question)
                until = Clock.now() + timing.reply
                while Clock.now() < until:
                    if [frame for frame in parser.feed(link.read()) if frame.raw != dialect.question]:  # no echo
                        return dialect.name
                    Clock.sleep(0.01)
                parser.expire()
    what = f"Nothing answered on {url}, neither as a handset nor as a player"
    remedy = "`smellkit neckwear ports` lists what is there; --blind plays on this port all the same"
    raise NoReply(what, port=url, remedy=remedy)
