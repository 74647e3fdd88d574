"""What the driver's worker does for a caller: jobs to wait for, the times that the link keeps, replies to requests."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smellkit.device import direct, frames
from smellkit.device.errors import LinkError, NoReply
from smellkit.device.frames import Frame
from smellkit.device.log import Latency, Log

NEVER = math.inf
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


class Job:
    """What a caller waits for: `done`, then `result` or `error`."""

    def __init__(self, what: str):
        self.what = what
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def finish(self, result: Any = None, error: Exception | None = None) -> None:
        """Done, once; later calls change nothing."""
        if not self.done:
            self.result, self.error = result, error
            self.done = True


@dataclass
class Burst:
    """A frame to send `left` more times, the next time at `due`, and who waits for its end."""

    left: int = 0
    due: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    active: bool = False
    sent: int = 0
    confirmed: bool = False

    def start(self, count: int, now: float) -> None:
        """Begin, unless it has begun before."""
        if not self.active:
            self.left, self.due, self.active = count, now, True
            self.sent, self.confirmed = 0, False

    def finish(self, result: Any = None, error: Exception | None = None, *, keep: Job | None = None) -> None:
        """Over: tell everybody who waits, but for `keep`, which goes on waiting."""
        self.left, self.active = 0, False
        jobs, self.jobs = self.jobs, [job for job in self.jobs if job is keep]
        for job in jobs:
            if job is not keep:
                job.finish(result, error)


class Pulse(NamedTuple):
    """One scent, or a mixture by its `volumes` (one a channel), of a schedule."""

    start: float  # seconds after the first frame
    scent: int
    seconds: float
    volumes: tuple[int, ...] = ()


class Schedule(Job):
    """What to play at absolute offsets, and when it is over. `asked` is when somebody wanted it."""

    def __init__(
        self,
        what: str,
        pulses: list[Pulse],
        *,
        seconds: float,
        asked: float,
        stop_after: bool = False,
        instead: list[Pulse] | None = None,
    ):
        super().__init__(what)
        self.pulses, self.seconds, self.stop_after, self.asked = pulses, seconds, stop_after, asked
        self.instead = instead  # what to play when the player has no mixtures
        self.next = 0
        self.began: float | None = None
        self.covered = -NEVER  # the last frame of the present pulse ends then; later frames renew it
        self.played: list[Pulse] = []  # what was really sent: start and seconds as sent
        # the newest frame while nobody has acknowledged it
        self.last, self.first_sent, self.until, self.tries, self.number = b"", 0.0, 0.0, 0, 0

    def current(self, now: float) -> Pulse | None:
        """The pulse that was due to play at `now`, if any."""
        if self.began is None or self.done:
            return None
        begun = [pulse for pulse in self.pulses if self.began + pulse.start <= now]
        return begun[-1] if begun and now < self.began + begun[-1].start + begun[-1].seconds else None


class Request(Job):
    """A frame that has a reply: `matches` knows the right one, `read` gives the result or raises Refused."""

    def __init__(
        self,
        what: str,
        frame: bytes,
        kind: Kind,
        *,
        matches: Callable[[Frame], bool] = lambda frame: True,
        read: Callable[[Frame], Any],
        wakes: bool = False,
        retunes: bool = False,
    ):
        super().__init__(what)
        self.frame, self.kind, self.matches, self.read, self.wakes = frame, kind, matches, read, wakes
        self.retunes = self.silences = retunes  # afterwards no stop reaches what plays: it is sent before
        self.tries = 0
        self.first = self.last = 0.0
        self.troubles: list[str] = []


class Requests:
    """Requests one after the other, each with its reply.

    Replies carry no number: an older request of the same kind has to be answered, or too old to be, before the next
    one is sent. `put` is for any thread, the rest for the worker.
    """

    def __init__(self, *, timing: Timing, log: Log, name: str):
        self.current: Request | None = None
        self._timing, self._log, self._name = timing, log, name
        self._waiting: deque[Request] = deque()
        self._unanswered: dict[Kind, deque[float]] = {}  # when requests were sent that nothing has answered
        self._last_frame, self._last_frame_at = b"", -NEVER
        self.heard: deque[str] = deque(maxlen=5)  # what came that answered nothing, for the error of a stop

    def put(self, request: Request) -> int:
        """Add a request at the end; return how many are ahead of its end, itself included."""
        ahead = len(self._waiting) + (self.current is not None) + 1
        self._waiting.append(request)
        return ahead

    def head(self, now: float) -> Request | None:
        """The request whose turn it is; those that ran out of tries fail here."""
        while True:
            if self.current is None:
                if not self._waiting:
                    return None
                self.current = self._waiting.popleft()
            request = self.current
            expired = request.tries == self._timing.tries and now >= request.last + self._timing.reply
            if not request.done and not expired:  # done: its caller gave up
                return request
            self.current = None
            if expired:
                request.finish(error=self._no_reply(request, now))

    def due(self, request: Request, now: float) -> float:
        """When the current request may be sent, as far as replies are concerned."""
        older = self._unanswered.setdefault(request.kind, deque())
        while older and now >= older[0] + self._timing.late:
            older.popleft()
        if request.tries:
            return request.last + self._timing.reply
        quiet = self._last_frame_at + min(self._timing.inter_byte, self._timing.gap)  # the last reply may come twice
        return max(quiet, older[0] + self._timing.late) if older else quiet

    def sent(self, request: Request, now: float) -> None:
        """The current request went out."""
        request.last = now
        request.first = request.first or now
        request.tries += 1
        self._unanswered.setdefault(request.kind, deque()).append(now)

    def trouble(self, raw: bytes, what: str) -> None:
        """Bytes came that answer nothing: for the log, and for the error of who waits in vain."""
        self._log.got(raw, what)
        if self.current and len(self.current.troubles) < 5:
            self.current.troubles.append(what)

    def reply(self, frame: Frame, now: float) -> None:
        """Give a sound frame to the request that it answers, if any."""
        kind = (frame.command, frame.inner.function if frame.inner else 0)
        request, open_since = self.current, self._unanswered.get(kind)
        fresh = bool(open_since) and open_since[-1] >= self._last_frame_at  # type: ignore[index]
        soon = now - self._last_frame_at < self._timing.inter_byte
        if frame.raw == self._last_frame and soon and not fresh:
            self._log.got(frame.raw, "duplicate")
            return
        self._last_frame, self._last_frame_at = frame.raw, now
        if request and request.kind == kind and not request.matches(frame):
            self.trouble(frame.raw, "reply to somebody else")
            return
        sent = open_since.popleft() if open_since else None
        if sent is None or request is None or request.kind != kind or not request.tries or sent < request.first:
            self._log.got(frame.raw, "unrequested" if sent is None else "late")
            return
        self._log.got(frame.raw, f"reply to {request.what}", latency=now - sent)
        self.current = None
        try:
            request.finish(request.read(frame))
        except LinkError as why:
            why.port, why.elapsed = self._name, now - request.first
            request.finish(error=why)

    def fail(self, error: Exception) -> None:
        """Nobody waits any more."""
        current, self.current = self.current, None
        if current:
            current.finish(error=error)
        while self._waiting:
            self._waiting.popleft().finish(error=error)

    def forget(self) -> None:
        """The link is another one: what was sent over the old one is never answered."""
        self._unanswered.clear()

    def _no_reply(self, request: Request, now: float) -> NoReply:
        command = f"{request.kind[0]:02X}" + (f" with {request.kind[1]:02X} inside" if request.kind[1] else "")
        return NoReply(
            f"No reply from {self._name} to {request.what!r}, sent {request.tries} times",
            port=self._name,
            frame=request.frame,
            expected=command,
            got="; ".join(dict.fromkeys(request.troubles)) or "nothing",
            elapsed=now - request.first,
            remedy="check that this is the handset's port (`smellkit neckwear ports`) and that its light is on",
        )


@dataclass(frozen=True)
class Stopped:
    """A stop that was sent `sent` times, and whether the player confirmed it.

    The handset's link confirms nothing: if the radio lost every one, silence comes in `bound` seconds.

    `missed(p)` is the chance that it lost every one, when it loses a frame with probability `p`.
    """

    sent: int
    bound: float
    confirmed: bool = False

    def missed(self, p: float) -> float:
        """Chance that no stop arrived; 0.3 ** 3 = 2.7 % for p = 0.3."""
        return p**self.sent


@dataclass(frozen=True)
class Dialect:
    """One link: its speed, its frames, and whether the player answers and has to be woken."""

    name: str
    baud: int
    parser: Callable[[], Any]
    stop: Callable[[int], bytes]  # of the radio channel
    play: Callable[[int, int, int], bytes]  # scent, milliseconds, radio channel
    wake: Callable[[int], bytes] | None  # None: it never sleeps
    question: bytes  # has an answer, and changes nothing
    answers: bool  # stop, play and mixture are acknowledged


HANDSET = Dialect(
    "handset",
    115200,
    frames.Parser,
    lambda channel: frames.stop(channel=channel),
    lambda scent, milliseconds, channel: frames.play(scent, milliseconds, channel=channel),
    lambda channel: frames.wake(channel=channel),
    frames.read_channel(),
    answers=False,
)
DIRECT = Dialect(
    "direct",
    19200,
    direct.Parser,
    lambda channel: direct.stop(),
    lambda scent, milliseconds, channel: direct.play(scent, milliseconds),
    None,
    direct.status(),
    answers=True,
)
DIALECTS = {dialect.name: dialect for dialect in (HANDSET, DIRECT)}


UNKNOWN = "unknown"


@dataclass(frozen=True)
class Status:
    """What is known, and only that.

    `requested` is the scent that the driver plays now (None for none) and `left` its seconds; `bound` is how long a
    scent may still be in the air if no stop arrives. The handset's link has no query for battery, cartridges or what is
    emitted: there `emitting` is never more than "unconfirmed". On the direct link `probe` asks, and `battery` (per
    cent), `cartridges` (scent ids by channel) and `state` are what the player said at `said_at`.
    """

    port: str
    link: str
    connected: bool
    guarded: bool
    channel: int | str
    requested: int | None
    left: float
    bound: float
    emitting: str
    battery: float | str
    cartridges: tuple[int, ...] | str
    state: str
    said_at: str
    latency: Latency
    warning: str
    trouble: str


@dataclass(frozen=True)
class Probe:
    """The handset answered with its radio channel, or the player itself, and the seconds that it took."""

    channel: int | str
    seconds: float
