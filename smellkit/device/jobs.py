"""What the driver's worker does for a caller: jobs, the times that the link keeps, replies to what was sent."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from smellkit.device import direct, frames
from smellkit.device.errors import NoReply
from smellkit.device.log import Log

NEVER = math.inf  # as a moment that has passed: -NEVER
Kind = tuple[int, int]  # command, and the inner function of a forwarded frame (else 0)


@dataclass(frozen=True)
class Timing:
    """Seconds and counts of the link, as the specification of the NeckWear has them."""

    gap: float = 0.2  # at least between two commands; a stop does not wait for it
    reply: float = 0.5  # until a request is repeated
    tries: int = 3
    inter_byte: float = 0.05
    stops: int = 3
    stop_gap: float = 0.05
    wakes: int = 3
    wake_gap: float = 1.0
    idle: float = 240.0  # the device sleeps after 300 s without a command
    frame: float = 10.0  # the longest single play frame: the device falls silent by itself after it
    renew: float = 1.0  # a longer play is renewed this long before its frame ends
    write: float = 0.2  # bound of one write
    late: float = 2.0  # a reply may come this late and is still known as one to an older request
    back_off: float = 0.1  # the second look for a lost port; doubles up to the cap
    cap: float = 2.0
    unguarded: float = 2.0  # the longest play frame while no watchdog watches
    again: float = 0.2  # until a stop is repeated that nothing has confirmed, on the link that answers
    asleep: float = 3.0  # nothing that is due is this late, unless the machine slept: then it is dropped
    patience: float = 1.0  # how long closing looks for a lost port while a scent may be in the air


@dataclass(frozen=True)
class Dialect:
    """One link: its speed, its frames, and whether the player answers and has to be woken."""

    name: str
    baud: int
    parser: Callable[[], Any]
    stop: Callable[[], bytes]
    play: Callable[[int, int], bytes]  # scent, milliseconds
    wake: Callable[[], bytes] | None  # None: it never sleeps
    question: bytes  # has an answer, and changes nothing
    answers: bool  # stop, play and mixture are acknowledged


DIALECTS = {
    "handset": Dialect("handset", 115200, frames.Parser, frames.stop, frames.play, frames.wake, frames.read_channel(),
                       answers=False),
    "direct": Dialect("direct", 19200, direct.Parser, direct.stop, direct.play, None, direct.status(), answers=True),
}  # fmt: skip


class Job:
    """What a caller waits for: `done`, then `result` or `error`; `then` is called with it once."""

    done = False
    result: Any = None
    error: Exception | None = None

    def __init__(self, what: str, then: Callable[[Any], None] = lambda job: None):
        self.what, self._then = what, then

    def finish(self, result: Any = None, error: Exception | None = None) -> None:
        """Done, once; later calls change nothing."""
        if not self.done:
            self.result, self.error, self.done = result, error, True
            self._then(self)


@dataclass
class Burst:
    """A frame to send `left` more times, the next time at `due`, and who waits for its end."""

    left: int = 0
    due: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    active: bool = False
    sent: int = 0
    confirmed: bool = False
    refusals: list[str] = field(default_factory=list)

    def start(self, count: int, now: float, *jobs: Job) -> None:
        """Begin, unless it has begun before; either way `jobs` wait for the end."""
        self.jobs += jobs
        if not self.active:
            self.left, self.due, self.active = count, now, True
            self.sent, self.confirmed, self.refusals = 0, False, []

    def finish(self, result: Any = None, error: Exception | None = None) -> None:
        self.left, self.active = 0, False
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job.finish(result, error)


class Pulse(NamedTuple):
    """One scent, or a mixture by its `volumes` (one a channel), of a schedule."""

    start: float  # seconds after the first frame
    scent: int
    seconds: float
    volumes: tuple[int, ...] = ()


@dataclass
class Sending:
    """The newest play frame on the link that answers: sent again until it is `heard`, which says what came."""

    frame: bytes
    first: float
    until: float
    tries: int = 1
    heard: bool = False


class Schedule(Job):
    """What to play at absolute offsets, and when it is over.

    `asked` is when somebody wanted it, `instead` what to play where the player has no mixtures, `played` what was
    really sent, with start and seconds as sent.
    """

    def __init__(self, what: str, pulses: list[Pulse], *, asked: float, stop_after: bool = False):
        super().__init__(what)
        self.pulses, self.asked, self.stop_after = pulses, asked, stop_after
        self.instead: list[Pulse] = []
        self.seconds = max(pulse.start + pulse.seconds for pulse in pulses)
        self.next = 0
        self.began = NEVER
        self.covered = -NEVER  # the last frame of the present pulse ends then; later frames renew it
        self.played: list[Pulse] = []
        self.sending: Sending | None = None

    def current(self, now: float) -> Pulse | None:
        """The pulse that was asked for at this moment."""
        at = now - self.began
        return next((p for p in self.pulses if not self.done and p.start <= at < p.start + p.seconds), None)


class Request(Job):
    """A frame that has a reply, which `matches` knows. The result is that, and when it came."""

    def __init__(self, what: str, frame: bytes, kind: Kind, *, matches: Callable[[Any], bool] = lambda frame: True,
                 wakes: bool = False, retunes: bool = False):  # fmt: skip
        super().__init__(what)
        self.frame, self.kind, self.matches, self.wakes = frame, kind, matches, wakes
        self.retunes = self.silences = retunes  # afterwards no stop reaches what plays: it is sent before
        self.tries = 0
        self.first = self.last = 0.0
        self.troubles: list[str] = []


class Owed(NamedTuple):
    """A frame went out, and its reply is owed: `then` takes that, and when it came. A `group` is sent repeatedly."""

    at: float
    kind: Kind
    then: Callable[[Any, float], None]
    matches: Callable[[Any], bool] = lambda frame: True
    group: float | None = None


class Exchange:
    """One request at a time, the `current` one, and for every reply what it answers.

    Replies carry no number: one belongs to the oldest frame of its kind that has none, and no request is sent while an
    older frame of its kind may still be answered.
    """

    def __init__(self, *, timing: Timing, log: Log, name: str):
        self.current: Request | None = None
        self._timing, self._log, self._name = timing, log, name
        self.owed: list[Owed] = []
        self._last, self._last_at = b"", -NEVER  # the newest frame that came
        self._last_group: float | None = None

    def open(self, now: float) -> Request | None:
        """The current request, unless its caller gave up; one that ran out of tries fails here."""
        request = self.current
        if request and request.tries == self._timing.tries and now >= request.last + self._timing.reply:
            self.current = None
            request.finish(error=self._no_reply(request, now))
        return request if request and not request.done else None

    def due(self, request: Request, now: float) -> float:
        """When the current request may be sent, as far as replies are concerned."""
        if request.tries:
            return request.last + self._timing.reply
        quiet = self._last_at + min(self._timing.inter_byte, self._timing.gap)  # the last reply may come twice
        return max([quiet, *(owed.at + self._timing.late for owed in self._open(request.kind, now)[:1])])

    def sent(self, request: Request, now: float) -> None:
        """It went out at this moment."""
        request.last = now
        request.first = request.first or now
        request.tries += 1
        self.owed.append(Owed(now, request.kind, partial(self._answer, request, now), request.matches))

    def _open(self, kind: Kind, now: float) -> list[Owed]:
        self.owed = [owed for owed in self.owed if now < owed.at + self._timing.late]
        return [owed for owed in self.owed if owed.kind == kind]

    def trouble(self, raw: bytes, what: str) -> None:
        """Bytes came that answer nothing: for the log, and for the error of who waits in vain."""
        self._log.got(raw, what)
        if self.current and len(self.current.troubles) < 5:
            self.current.troubles.append(what)

    def reply(self, frame: Any, now: float) -> None:
        """Give a sound frame to what it answers, if anything."""
        mine = self._open((frame.command, frame.inner.function if frame.inner else 0), now)
        again = frame.raw == self._last and now - self._last_at < self._timing.inter_byte
        expected = bool(mine) and (mine[-1].at >= self._last_at or mine[0].group == self._last_group is not None)
        if again and not expected:
            self._log.got(frame.raw, "duplicate")
            return
        self._last, self._last_at = frame.raw, now
        if not mine:
            self._log.got(frame.raw, "unrequested")
        elif not mine[0].matches(frame):
            self.trouble(frame.raw, "reply to somebody else")
        else:
            self.owed.remove(mine[0])
            self._last_group = mine[0].group
            mine[0].then(frame, now)

    def _answer(self, request: Request, sent: float, frame: Any, now: float) -> None:
        if request is not self.current:
            self._log.got(frame.raw, "late")
            return
        self._log.got(frame.raw, f"reply to {request.what}", latency=now - sent)
        self.current = None
        request.finish((frame, now))

    def fail(self, error: Exception) -> None:
        """The error of whoever waits for a reply."""
        request, self.current = self.current, None
        if request:
            request.finish(error=error)

    def _no_reply(self, request: Request, now: float) -> NoReply:
        return NoReply(
            f"No reply from {self._name} to {request.what!r}, sent {request.tries} times",
            port=self._name,
            frame=request.frame,
            expected=f"{request.kind[0]:02X}" + (f" with {request.kind[1]:02X} inside" if request.kind[1] else ""),
            got="; ".join(dict.fromkeys(request.troubles)) or "nothing",
            elapsed=now - request.first,
            remedy="check that this is the handset's port (`smellkit neckwear ports`) and that its light is on",
        )


@dataclass(frozen=True)
class Stopped:
    """A stop that was sent `sent` times, and whether the player confirmed it.

    The handset's link confirms nothing: if the radio lost every one (2.7 % where it loses a frame in three), silence
    comes in `bound` seconds.
    """

    sent: int
    bound: float
    confirmed: bool = False
