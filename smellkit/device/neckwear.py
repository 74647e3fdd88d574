"""NeckWear: play scents on the neck-worn device, and never leave one playing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smellkit.device import frames, playlist
from smellkit.device.clock import Clock
from smellkit.device.engine import Engine
from smellkit.device.errors import ArgumentError, LinkError, Refused
from smellkit.device.frames import Frame
from smellkit.device.jobs import Pulse, Request, Schedule, Stopped, Timing
from smellkit.device.link import Latency, Link, Log, connector
from smellkit.device.playlist import Playlist
from smellkit.device.watchdog import Watchdog, close_at_end, forget

if TYPE_CHECKING:
    from smellkit.device.virtual import VirtualNeckWear

LONGEST = 3600.0  # seconds of one play: a typing error shall not become a day of scent
UNKNOWN = "unknown"
UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True)
class Status:
    """What is known, and only that: the link has no query for battery, cartridges or what is emitted.

    `requested` is the scent that the driver plays now (None for none) and `left` its seconds; `emitting` is never more
    than "unconfirmed". `bound` is how long a scent may still be in the air if no stop arrives.
    """

    port: str
    connected: bool
    channel: int | str
    requested: int | None
    left: float
    bound: float
    emitting: str
    battery: str
    cartridges: str
    latency: Latency
    warning: str
    trouble: str


@dataclass(frozen=True)
class Probe:
    """The handset answered: its radio channel, and the seconds that it took."""

    channel: int
    seconds: float


class NeckWear:
    """The neck-worn scent player: 12 scents, one at a time.

    >>> with NeckWear.open("virtual") as neck:
    ...     neck.play(5, seconds=10)
    ...     neck.wait()

    `play` returns at once; `stop` works from any thread and goes before all else; leaving the block is silence.
    Every failure of device and link is a `DeviceError`. `NeckWear(connect, clock=...)` takes anything that makes a
    `Link`, and for tests a clock of `smellkit.study.device.fake`.
    """

    scents = frames.SCENTS

    def __init__(
        self,
        connect: Callable[[], Link],
        *,
        name: str = "",
        clock: Clock | None = None,
        timing: Timing | None = None,
        log: Log | Path | str | None = None,
        watchdog: bool = False,
        channel: int = 0,
        virtual: VirtualNeckWear | None = None,
        on_close: Callable[[], None] = lambda: None,
    ):
        self._clock = clock or Clock()
        self.timing = timing or Timing()
        self.virtual = virtual  # the device itself, where it is a virtual one of this program
        self._owns_log = not isinstance(log, Log)
        self.log = log if isinstance(log, Log) else Log(log, now=self._clock.now)
        self._on_close = on_close
        self._process = os.getpid()
        self._closed = False
        self._unsilenced: Exception | None = None
        self._channel: int | str = UNKNOWN
        self._schedule: Schedule | None = None
        self._watchdog: Watchdog | None = None
        try:
            if watchdog:
                self._watchdog = Watchdog.start(frames.stop(channel=channel), note=self.log.note)
            self._engine = Engine(
                connect,
                clock=self._clock,
                timing=self.timing,
                log=self.log,
                name=name or "the port",
                channel=channel,
                on_link=self._point_watchdog,
            )
        except BaseException:
            self._let_go()
            raise
        if isinstance(self._clock, Clock):
            close_at_end(self)

    @classmethod
    def open(
        cls,
        port: str = "virtual",
        *,
        log: Log | Path | str | None = None,
        watchdog: bool = True,
        timing: Timing | None = None,
        channel: int = 0,
        virtual: VirtualNeckWear | None = None,
    ) -> NeckWear:
        """Open COM3, /dev/ttyUSB0, socket://host:port, rfc2217://host:port, loop://, or "virtual".

        "virtual" starts a device of this program on a pty and talks to it as to a real one; `neck.virtual.air` is
        what it emitted. `virtual` gives that device, with faults for instance. `log` is a file for JSON lines.
        `watchdog` starts the process that sends stop if this one is killed. Raises PortError.
        """
        timing = timing or Timing()
        url, close = port, lambda: None
        if port == "virtual":
            from smellkit.device.serve import serve_here
            from smellkit.device.virtual import VirtualNeckWear

            virtual = virtual or VirtualNeckWear()
            server = serve_here(virtual, name="neckwear")
            url, close = server.port, server.close
        return cls(
            connector(url, write_timeout=timing.write),
            name=port,
            timing=timing,
            log=log,
            watchdog=watchdog,
            channel=channel,
            virtual=virtual,
            on_close=close,
        )

    # playing

    def play(self, scent: int, *, seconds: float) -> None:
        """Start `scent` (1 to 12) for `seconds` (at most an hour) and return at once; `wait()` is until it is over.

        It replaces what plays. The first play, and one after four quiet minutes, wakes the device before: 2.2 s.
        """
        seconds = _seconds(seconds)
        frames.play(scent, 1)  # says what is wrong with the scent
        self._schedule = self._engine.play(self._compose(int(scent), seconds))

    def play_mixture(self, beta: Sequence[float], *, seconds: float = 60.0, **options: Any) -> Playlist:
        """Start the rendered sequence of a mixture (12 shares, sum 1) and return it at once; see `playlist.render`."""
        plan = playlist.render(beta, seconds=_seconds(seconds), **options)
        pulses = [Pulse(start, scent, seconds) for start, scent, seconds in plan.slots]
        shares = {scent: round(share, 4) for scent, share in enumerate(plan.planned, 1) if share}
        self.log.note(f"planned shares {shares}, lost {plan.lost:.4f}")
        length = max((pulse.start + pulse.seconds for pulse in pulses), default=0.0)
        self._schedule = self._engine.play(Schedule(f"{len(pulses)} slots", pulses, seconds=length, stop_after=True))
        return plan

    def wait(self) -> None:
        """Wait until what plays is over or stopped; raises what went wrong with it."""
        schedule = self._schedule
        if schedule is None:
            return
        stops = self.timing.stops * self.timing.stop_gap
        bound = self._engine.wake_bound() + schedule.seconds + stops + 2.0
        if not self._engine.wait(schedule, bound):
            self._engine.stop()
            raise LinkError("The play did not end in time", port=self._engine.name, elapsed=bound, remedy="probe it")
        if schedule.stop_after and schedule.began is not None:
            self.log.note(f"achieved shares {self.achieved()}")
        if schedule.error:
            self._schedule = None
            raise schedule.error

    def achieved(self) -> dict[int, float]:
        """Shares of the seconds that were sent so far for what plays, or played last, by scent."""
        played = self._schedule.played if self._schedule else []
        total = sum(pulse.seconds for pulse in played) or 1.0
        return {
            scent: round(sum(pulse.seconds for pulse in played if pulse.scent == scent) / total, 4)
            for scent in sorted({pulse.scent for pulse in played})
        }

    def stop(self) -> Stopped:
        """Silence now, from any thread: three stop frames before anything that waits.

        Nothing confirms a stop on this link. `bound` of the answer is when a device that heard none is silent.
        """
        return self._engine.stop()

    # asking

    def wake(self) -> None:
        """Wake the device, three times at one second, and return when that is done."""
        self._engine.wake()

    def probe(self) -> Probe:
        """Ask the handset for its radio channel: whether somebody is there, and how fast. Wakes and plays nothing."""
        request = Request(
            "read channel", frames.read_channel(), (0xA7, 0), read=lambda frame: (frame.value, self._clock.now())
        )
        channel, at = self._engine.ask(request)
        self._channel = channel
        return Probe(channel, at - request.first)

    def set_handset(self, channel: int) -> None:
        """Set the handset's radio channel (0 to 255). Raises Refused if it says no."""
        frame = frames.set_handset(channel)

        def read(reply: Frame) -> None:
            _accepted(frame, "A6", reply.value)

        self._engine.ask(Request(f"set handset channel {channel}", frame, (0xA6, 0), read=read))
        self._channel = int(channel)

    def set_channel(self, channel: int, uid: bytes | str) -> None:
        """Set the radio channel of the NeckWear with this 12-byte uid; only a reply with the same uid counts."""
        frame = frames.set_channel(channel, uid)
        mine = frame[12:24]

        def read(reply: Frame) -> None:
            _accepted(frame, "A2", reply.inner.status if reply.inner else None)

        def matches(reply: Frame) -> bool:
            return reply.inner is not None and reply.inner.uid == mine

        kind = (0xD1, 0xA2)
        self._engine.ask(Request(f"set channel {channel}", frame, kind, matches=matches, read=read, wakes=True))

    def status(self) -> Status:
        """What is known about port, handset and play. Sends nothing and invents nothing."""
        schedule, now = self._engine.schedule, self._clock.now()
        left = 0.0
        if schedule and not schedule.done:
            left = schedule.seconds if schedule.began is None else max(0.0, schedule.began + schedule.seconds - now)
        pulse = schedule.current(now) if schedule else None
        trouble = self._engine.trouble
        return Status(
            port=self._engine.name,
            connected=self._engine.connected,
            channel=self._channel,
            requested=pulse.scent if pulse else None,
            left=left,
            bound=self._engine.bound(),
            emitting=UNCONFIRMED if self._schedule or self._engine.bound() else UNKNOWN,
            battery=UNKNOWN,
            cartridges=UNKNOWN,
            latency=self.log.latency(),
            warning=self.log.warning,
            trouble="" if self._engine.connected or trouble is None else trouble.what,
        )

    @property
    def playing(self) -> bool:
        """Whether something was requested and is not over: what was requested, not what is in the air."""
        return self._schedule is not None and not self._schedule.done

    @property
    def interrupted(self) -> bool:
        """Whether what played last was stopped, or replaced, before its end."""
        return self._schedule is not None and self._schedule.result in ("stopped", "replaced")

    # the end

    def close(self) -> None:
        """Stop, let go of the port, end worker and watchdog. Twice is once.

        Raises nothing; leaving a `with` block does, when a scent may be in the air and no stop could be sent.
        """
        if self._closed or os.getpid() != self._process:  # a forked child must not close its parent's port
            return
        self._closed = True
        try:
            self._unsilenced = self._engine.close()
        finally:
            self._let_go()
            if isinstance(self._clock, Clock):
                forget(self)

    def __enter__(self) -> NeckWear:
        return self

    def __exit__(self, kind: object, why: object, trace: object) -> None:
        failed = self._schedule.error if self._schedule and self._schedule.done else None
        self.close()
        failed = failed or self._unsilenced
        if failed and kind is None:  # a play that failed without anybody waiting for it, or a stop that could not leave
            raise failed

    def _let_go(self) -> None:
        if self._watchdog:
            self._watchdog.close()
            self._watchdog = None
        if self._owns_log:
            self.log.close()
        self._on_close()

    def _point_watchdog(self, link: Link | None) -> None:
        if self._watchdog and link is None:
            self._watchdog.release()
        elif self._watchdog and link:
            self._watchdog.follow(url=link.name, fileno=link.fileno(), telnet=link.telnet)

    @property
    def has_watchdog(self) -> bool:
        """Whether a watchdog process watches."""
        return self._watchdog is not None

    def _compose(self, scent: int, seconds: float) -> Schedule:
        """Frames of at most `timing.frame` seconds, each sent a little before the one before it ends."""
        pulses, start, step = [], 0.0, self.timing.frame - self.timing.renew
        while True:
            pulses.append(Pulse(start, scent, min(self.timing.frame, seconds - start), renewal=start > 0))
            if start + self.timing.frame >= seconds:
                return Schedule(f"scent {scent} for {seconds:g} s", pulses, seconds=seconds)
            start = len(pulses) * step


def _seconds(value: float) -> float:
    try:
        seconds = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0.05 <= seconds <= LONGEST:  # NaN neither
        raise ArgumentError(f"seconds is {value!r}", remedy=f"a number from 0.05 to {LONGEST:g}")
    return seconds


def _accepted(frame: bytes, command: str, status: int | None) -> None:
    """Raise Refused unless the status of a reply is 0."""
    if status:
        expected, got = f"{command} with 0", f"{command} with {status}"
        remedy = "another channel, or a reset"
        raise Refused("The device refused", frame=frame, expected=expected, got=got, remedy=remedy)
