"""The driver's core: one worker owns the port and does what is due. Everybody else leaves orders and waits.

        orders (any thread)                 worker: step()                             port
    stop ------------------------->  1 stop burst       (pre-empts all below)  ---->
                                     2 reconnect        (stop first, no replay) --->
    wake ------------------------->  3 wake, 3 x 1 s    (first use, after idle) --->
    play, playlist --------------->  4 the score        (absolute deadlines)   ---->
    probe, set channel ----------->  5 one request      (reply matched)        <--->

One writer, so frames never interleave; no sleeping inside, so the same code runs under a thread and a fake clock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smellkit.device import frames
from smellkit.device.clock import Clock, FakeClock
from smellkit.device.errors import Closed, LinkError, NoReply, PortLost
from smellkit.device.frames import Frame, Parser
from smellkit.device.jobs import NEVER, Job, Kind, Note, Request, Score, Stopped, Timing
from smellkit.device.link import Link
from smellkit.device.log import Log


@dataclass
class _Burst:
    """Frames to send `left` more times, the next one at `due`."""

    left: int = 0
    due: float = 0.0
    jobs: list[Job] = field(default_factory=list)


class Engine:
    """The worker. Methods without an underscore are for any thread; the others run inside `step` only."""

    def __init__(
        self,
        connect: Callable[[], Link],
        *,
        clock: Clock | FakeClock,
        timing: Timing,
        log: Log,
        name: str,
        channel: int = 0,
        on_link: Callable[[Link | None], None] = lambda link: None,
    ):
        self.name, self.log, self.timing = name, log, timing
        self._connect, self._clock, self._on_link, self._channel = connect, clock, on_link, channel
        self._lock = threading.RLock()  # guards the orders; re-entrant, since a signal handler may leave one
        self._stops: list[Job] = []
        self._wakes: list[Job] = []
        self._asked: Score | None = None
        self._requests: deque[Request] = deque()
        self._closing: Job | None = None
        self._ended = False
        # the worker's own
        self._link: Link | None = connect()
        on_link(self._link)
        self.trouble: LinkError | None = None  # why the link is away
        self._parser = Parser()
        self._last_byte = self._last_frame_at = -NEVER
        self._last_frame = b""
        self._last_sent = b""
        self._free = -NEVER  # no command before
        self._last_forward = -NEVER  # the device itself heard something
        self._stop, self._wake = _Burst(), _Burst()
        self.score: Score | None = None
        self._request: Request | None = None
        self._unanswered: dict[Kind, deque[float]] = {}
        self.airs_until = -NEVER  # a scent may be in the air until then, if no stop arrives
        self._retry, self._back_off = NEVER, 0.0
        self._give_up = NEVER
        self._runner = clock.run(self.step, inputs=self._inputs, name=f"smellkit {name}")

    # orders, from any thread

    def play(self, score: Score) -> Score:
        """Replace what plays or waits by `score`."""
        with self._lock:
            self._refuse_after_close()
            if self._link is None:
                raise self._away()
            if self._asked:
                self._asked.finish("replaced")
            self._asked = score
        self._runner.kick()
        return score

    def ask(self, request: Request) -> Any:
        """Send a request after those before it, and return its result."""
        with self._lock:
            self._refuse_after_close()
            ahead = len(self._requests) + (self._request is not None) + 1
            self._requests.append(request)
        each = self.timing.late + self.timing.tries * (max(self.timing.reply, self.timing.gap) + self.timing.write)
        return self._await(request, ahead * each + self._wake_bound() + self._stop_bound())

    def wake(self) -> None:
        """Send the wake burst and wait for its end."""
        job = Job("wake")
        with self._lock:
            self._refuse_after_close()
            self._wakes.append(job)
        self._await(job, self._wake_bound() + self._stop_bound())

    def stop(self) -> Stopped:
        """Silence, before anything else that waits."""
        job = self.order_stop()
        return self._await(job, self._stop_bound())

    def order_stop(self) -> Job:
        """Leave the order to stop, and don't wait for it."""
        job = Job("stop")
        with self._lock:
            self._refuse_after_close()
            self._stops.append(job)
            if self._asked:
                self._asked.finish("stopped")
                self._asked = None
        self._runner.kick()
        return job

    def wait(self, job: Job, seconds: float) -> bool:
        """Wait for a job; return whether it is done."""
        self._runner.kick()
        return self._runner.wait(lambda: job.done, seconds)

    def close(self) -> Exception | None:
        """Stop, let go of the port and end the worker; twice is once. Return why no stop could be sent."""
        with self._lock:
            self._closing = self._closing or Job("close")
            job = self._closing
        self._runner.kick()
        bound = 2 * self._stop_bound() + self.timing.patience + 1.0
        if not self._runner.join(bound) and not job.done:
            self._last_resort()
        return job.error

    @property
    def connected(self) -> bool:
        """Whether the port is open."""
        return self._link is not None

    @property
    def ended(self) -> bool:
        """Whether the worker is gone."""
        return self._ended

    def bound(self) -> float:
        """Seconds until the air is clear even if no stop arrives."""
        return max(0.0, self.airs_until - self._clock.now())

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
                self._last_resort()
            job.finish(error=error)
        if job.error:
            raise job.error
        return job.result

    def _last_resort(self) -> None:
        """The worker hangs or died: send stop from this thread, past it."""
        link = self._link
        if link:
            try:
                link.write(frames.stop(channel=self._channel))
            except LinkError as why:
                self.log.note(f"last-resort stop failed: {why.what}")

    def _stop_bound(self) -> float:
        return self.timing.write * (self.timing.stops + 1) + self.timing.stop_gap * self.timing.stops

    def _wake_bound(self) -> float:
        return self.timing.wakes * (self.timing.wake_gap + self.timing.write) + self.timing.gap

    def _refuse_after_close(self) -> None:
        if self._closing or self._ended:
            raise Closed(f"{self.name} was closed", port=self.name, remedy="open it again with NeckWear.open")

    def _away(self) -> PortLost:
        why = self.trouble
        return PortLost(
            f"{self.name} is away",
            port=self.name,
            got=why.got if why else "",
            remedy="plug the handset in again: the driver looks for it and sends stop first. "
            f"A device that still plays ends by its own timer, in {self.bound():.1f} s at most",
        )

    def _inputs(self) -> int | None:
        link = self._link
        return link.fileno() if link and link.wakes else None

    # the worker

    def step(self) -> float | None:
        """Do what is due. Return when to be called next; None once closed."""
        if self._ended:
            return None
        try:
            self._take()
            self._read()
            due = min(self._do_stop(), self._do_link(), self._do_wake(), self._do_score(), self._do_request())
            # whatever failed on the way may have made other things due
            if self._link is None:
                due = min(due, self._retry)
            if self._stop.left and self._link:
                due = min(due, self._stop.due)
            if self._parser.waiting:
                due = min(due, self._last_byte + self.timing.inter_byte)
        except Exception as why:  # a fault of ours must not leave a scent in the air
            self._crash(why)
            raise
        return None if self._ended else due

    def _now(self) -> float:
        return self._clock.now()

    def _take(self) -> None:
        """Orders become the worker's own."""
        now = self._now()
        with self._lock:
            stops, self._stops = self._stops, []
            wakes, self._wakes = self._wakes, []
            asked, self._asked = self._asked, None
            closing = self._closing
        if closing and self._give_up == NEVER:
            self._give_up = now + self.timing.patience
            stops.append(closing)
            self._drop(Closed(f"{self.name} was closed", port=self.name, remedy="open it again"))
        if stops:
            self._end_score("stopped")
            for job in self._wake.jobs:
                job.finish("stopped")
            self._wake = _Burst()
            if self._stop.left == 0:
                self._stop = _Burst(self.timing.stops, now)
            self._stop.jobs += stops
        if wakes:
            if self._wake.left == 0:
                self._wake = _Burst(self.timing.wakes, now)
            self._wake.jobs += wakes
        if asked:
            self._end_score("replaced")
            self.score = asked
        if self._link is None:
            self._fail_all()

    def _fail_all(self) -> None:
        """The link is away: nobody waits for it, except closing, for a while."""
        away = self._away()
        for burst in (self._stop, self._wake):
            for job in burst.jobs:
                if job is not self._closing:
                    job.finish(error=away)
            burst.jobs = []
        self._wake.left = 0
        if self.score:
            self.score.finish(error=away)
            self.score = None
        self._drop(away)

    def _drop(self, error: LinkError) -> None:
        with self._lock:
            waiting = [self._request, *self._requests]
            self._requests.clear()
        self._request = None
        for request in waiting:
            if request:
                request.finish(error=error)

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
        if self._link:
            self._link.close()
        with self._lock:
            self._link = None
        self._on_link(None)
        self._parser = Parser()
        self._unanswered.clear()
        self._last_forward = -NEVER
        for job in (*self._stop.jobs, *self._wake.jobs, self.score, self._request):
            if job and job is not self._closing:
                job.finish(error=why)
        self._retry = self._now() + max(self._back_off, 0.01)  # first let those know who wait
        self._back_off = min(self.timing.cap, max(self.timing.back_off, 2 * self._back_off))
        self._fail_all()

    # 1

    def _do_stop(self) -> float:
        burst = self._stop
        while burst.left and self._link:
            if self._now() < burst.due:
                return burst.due
            if not self._send(frames.stop(channel=self._channel), "stop"):
                return NEVER
            burst.left -= 1
            burst.due = self._now() + self.timing.stop_gap
        if self._link and not burst.left:
            self._back_off = 0.0
            if burst.jobs:
                for job in burst.jobs:
                    job.finish(Stopped(self.timing.stops, self.bound()))
                self._stop = _Burst()
            if self._closing and self._closing.done:
                self._end()
        return NEVER

    # 2

    def _do_link(self) -> float:
        if self._link or self._ended:
            return NEVER
        now = self._now()
        if self._closing and (now >= min(self._give_up, self.airs_until)):
            self._closing.finish(error=self._away() if now < self.airs_until else None)
            self._end()
            return NEVER
        if now < self._retry:
            return min(self._retry, self._give_up, max(now, self.airs_until) if self._closing else NEVER)
        try:
            link = self._connect()
        except LinkError as why:
            self.trouble = why
            self._retry = self._now() + self._back_off
            self._back_off = min(self.timing.cap, max(self.timing.back_off, 2 * self._back_off))
            return self._retry
        with self._lock:
            self._link = link
        self._on_link(link)
        self.log.note(f"connected again: {link.name}")
        self._stop = _Burst(self.timing.stops, self._now() + self.timing.stop_gap, self._stop.jobs)
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
        fresh_score = self.score is not None and self.score.began is None
        needed = fresh_score or (self._request is not None and self._request.wakes)
        burst = self._wake
        if burst.left == 0 and needed and self._asleep():
            self._wake = burst = _Burst(self.timing.wakes, self._now())
        while burst.left:
            due = max(burst.due, self._free)
            if self._now() < due:
                return due
            if not self._send(frames.wake(channel=self._channel), "wake"):
                return NEVER
            burst.left -= 1
            burst.due = self._now() + self.timing.wake_gap
        for job in burst.jobs:
            job.finish()
        burst.jobs = []
        return NEVER

    # 4

    def _do_score(self) -> float:
        while self.score and self._link and not self._stop.left:
            score, now = self.score, self._now()
            if score.began is None:
                if self._asleep():
                    return NEVER  # the wake comes first
                if now < self._free:
                    return self._free
                score.began = now
                self.log.note(f"begins: {score.what}")
            if score.next == len(score.notes):
                if now < score.began + score.seconds:
                    return score.began + score.seconds
                self._end_score("played")
                continue
            note = score.notes[score.next]
            due = score.began + note.start  # absolute: lateness never adds up
            left = due + note.seconds - now
            if now < due:
                return due
            if left < 0.05:
                self.log.note(f"too late for scent {note.scent}, {note.seconds:g} s")
                score.next += 1
                continue
            if now < self._free:
                return self._free
            score.next += 1
            self._play(score, note, min(left, note.seconds), now)
        return NEVER

    def _play(self, score: Score, note: Note, seconds: float, now: float) -> None:
        frame = frames.play(note.scent, max(1, round(seconds * 1000)), channel=self._channel)
        before = self.airs_until
        self.airs_until = max(before, now + self.timing.write + seconds)  # even a write that fails may arrive
        if self._send(frame, f"{'renew' if note.renewal else 'play'} {note.scent} for {seconds:.3f} s"):
            assert score.began is not None
            self.airs_until = max(before, self._now() + seconds)  # the radio may lose it: the older one goes on
            score.played.append(Note(now - score.began, note.scent, seconds, note.renewal))

    def _end_score(self, how: str) -> None:
        score, self.score = self.score, None
        if score is None:
            return
        self.log.note(f"{how}: {score.what}")
        if how == "played" and score.stop_after:
            if self._stop.left == 0:
                self._stop = _Burst(self.timing.stops, self._now())
            self._stop.jobs.append(score)
            self._do_stop()
        else:
            score.finish(how)

    # 5

    def _do_request(self) -> float:
        if not self._link or self._stop.left:
            return NEVER
        timing = self.timing
        while True:
            if self._request is None:
                with self._lock:
                    self._request = self._requests.popleft() if self._requests else None
                if self._request is None:
                    return NEVER
            request, now = self._request, self._now()
            if request.done:  # its caller gave up
                self._request = None
                continue
            if request.tries and now < request.last + timing.reply:
                return request.last + timing.reply
            if request.tries == timing.tries:
                self._request = None
                request.finish(error=self._silence(request))
                continue
            if request.wakes and self._asleep():
                return self._now() if self._wake.left == 0 else NEVER
            older = self._unanswered.setdefault(request.kind, deque())
            while older and now >= older[0] + timing.late:
                older.popleft()
            if request.tries == 0 and older:  # replies carry no number: the older ones have to come or be late first
                return older[0] + timing.late
            quiet = self._last_frame_at + min(timing.inter_byte, timing.gap)
            if request.tries == 0 and now < quiet:  # the last reply may come twice
                return quiet
            if now < self._free:
                return self._free
            if not self._send(request.frame, request.what):
                return NEVER
            request.last = self._now()
            request.first = request.first or request.last
            request.tries += 1
            older.append(request.last)

    def _silence(self, request: Request) -> NoReply:
        command = f"{request.kind[0]:02X}" + (f" with {request.kind[1]:02X} inside" if request.kind[1] else "")
        return NoReply(
            f"No reply from {self.name} to {request.what!r}, asked {request.tries} times",
            port=self.name,
            frame=request.frame,
            expected=command,
            got="; ".join(dict.fromkeys(request.troubles)) or "nothing",
            elapsed=self._now() - request.first,
            remedy="check that this is the handset's port (`smellkit neckwear ports`) and that its light is on",
        )

    # what comes in

    def _read(self) -> None:
        if self._link is None:
            return
        try:
            data = self._link.read()
        except LinkError as why:
            self._lose(why)
            return
        now = self._now()
        found: list[Frame] = []
        if data:
            if self._last_sent and self._last_sent in data:
                self._hear(self._last_sent, "echo")
            found = self._parser.feed(data)
            self._last_byte = now
        elif self._parser.waiting and now >= self._last_byte + self.timing.inter_byte:
            found = self._parser.expire()
        for fault in self._parser.errors:
            self._hear(fault.raw, f"{fault.kind}: {fault.detail}")
        self._parser.errors.clear()
        for frame in found:
            self._reply(frame, now)

    def _hear(self, raw: bytes, what: str) -> None:
        self.log.got(raw, what)
        if self._request and len(self._request.troubles) < 5:
            self._request.troubles.append(what)

    def _reply(self, frame: Frame, now: float) -> None:
        kind = (frame.command, frame.inner.function if frame.inner else 0)
        request = self._request
        asked = self._unanswered.get(kind)
        asked_since = asked is not None and len(asked) > 0 and asked[-1] >= self._last_frame_at
        soon = now - self._last_frame_at < self.timing.inter_byte
        if frame.raw == self._last_frame and soon and not asked_since:
            self.log.got(frame.raw, "duplicate")
            return
        self._last_frame, self._last_frame_at = frame.raw, now
        if request and request.kind == kind and not request.matches(frame):
            self._hear(frame.raw, "reply to somebody else")
            return
        sent = asked.popleft() if asked else None
        if sent is None or request is None or request.kind != kind or not request.tries or sent < request.first:
            self.log.got(frame.raw, "unasked" if sent is None else "late")
            return
        self.log.got(frame.raw, f"reply to {request.what}", latency=now - sent)
        self._request = None
        try:
            request.finish(request.read(frame))
        except LinkError as why:
            why.port, why.elapsed = self.name, now - request.first
            request.finish(error=why)

    # the end

    def _end(self) -> None:
        self._end_score("stopped")
        self._drop(Closed(f"{self.name} was closed", port=self.name))
        if self._link:
            self._link.close()
        with self._lock:
            self._link = None
            self._ended = True
            left = [*self._stops, *self._wakes, *([self._asked] if self._asked else [])]
        for job in left:
            job.finish("closed")

    def _crash(self, why: Exception) -> None:
        self.log.note(f"worker failed: {why!r}")
        self._last_resort()
        error = LinkError(f"The driver of {self.name} failed: {why!r}", port=self.name, remedy="open it again")
        with self._lock:
            jobs = [*self._stops, *self._stop.jobs, *self._wakes, *self._wake.jobs, self._asked, self.score]
        for job in jobs:
            if job:
                job.finish(error=error)
        self._drop(error)
        if self._closing:
            self._closing.finish(error=error)
        self.trouble = error
        if self._link:
            self._link.close()
        self._link, self._ended = None, True
