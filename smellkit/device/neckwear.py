"""NeckWear: play scents on the neck-worn device, and never leave one playing."""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smellkit.device import direct, frames, guard, playlist
from smellkit.device.clock import Clock
from smellkit.device.engine import Engine, find_link
from smellkit.device.errors import ArgumentError, LinkError, NoReply, Refused
from smellkit.device.jobs import DIALECTS, Pulse, Request, Schedule, Stopped, Timing
from smellkit.device.link import Link, connector
from smellkit.device.log import Latency, Log
from smellkit.device.playlist import LONGEST, Playlist

if TYPE_CHECKING:
    from smellkit.device.virtual import VirtualNeckWear

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
    latency: Latency
    warning: str
    trouble: str
    battery: float | str = UNKNOWN
    cartridges: tuple[int, ...] | str = UNKNOWN
    state: str = UNKNOWN
    said_at: str = UNKNOWN


@dataclass(frozen=True)
class ProbeReply:
    """The handset answered with its radio channel, or the player itself, and the seconds that it took."""

    channel: int | str
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

    scents = frames.SCENT_NUMBERS

    def __init__(self, connect: Callable[[], Link], *, name: str = "the port", clock: Clock | None = None,
                 timing: Timing | None = None, log: Path | str | None = None, watchdog: bool = False,
                 link: str = "handset", virtual: VirtualNeckWear | None = None,
                 on_close: Callable[[], None] = lambda: None):  # fmt: skip
        self._clock = clock or Clock()
        self.timing = timing or Timing()
        self.link, self._dialect = link, DIALECTS[link]
        self.virtual = virtual  # the device itself, where it is a virtual one of this program
        self._process = os.getpid()
        self._unsilenced: Exception | None = None
        self._channel: int | str = UNKNOWN
        self._answers: dict[str, Any] = {}
        self._schedule: Schedule | None = None
        self.log = lines = Log(log, now=self._clock.now)
        self._guard = guard.guard if isinstance(self._clock, Clock) else None  # a clock of a test needs none

        def on_end() -> None:  # not by `self`: who is lost has to be let go
            lines.close()
            on_close()

        try:
            self._engine = Engine(connect, clock=self._clock, name=name, timing=self.timing, log=lines, on_end=on_end,
                                  dialect=self._dialect, guard=self._guard, watched=watchdog)  # fmt: skip
        except BaseException:
            on_end()
            raise
        weakref.finalize(self, self._engine.begin_close).atexit = False
        if self._guard:
            guard.enter(self._engine)

    @classmethod
    def open(cls, port: str = "virtual", *, link: str = "handset", log: Path | str | None = None, watchdog: bool = True,
             timing: Timing | None = None, virtual: VirtualNeckWear | None = None) -> NeckWear:  # fmt: skip
        """Open COM3, /dev/ttyUSB0, socket://host:port, rfc2217://host:port, loop://, ble:NAME, or "virtual".

        `link` is "handset" (433 MHz, which confirms nothing), "direct" (the player itself, which answers), or "auto",
        which asks on both and raises NoReply when nothing answers. "virtual" starts a device of this program and talks
        to it as to a real one; `neck.virtual.air` is what it emitted. `virtual` gives that device, with faults for
        instance. `log` is a file for JSON lines. `watchdog` starts the process that sends stop if this one is killed;
        without it, and over Bluetooth, no play frame is longer than 2 s. Raises PortError.
        """
        timing = timing or Timing()
        if link not in (*DIALECTS, "auto"):
            raise ArgumentError(f"link is {link!r}", remedy="auto, " + " or ".join(DIALECTS))
        if str(port).startswith("ble:") and link == "handset":
            raise ArgumentError("No handset is reached over Bluetooth", remedy='link="direct"')
        url, close = port, lambda: None
        if port == "virtual":
            from smellkit.device.serve import serve_here
            from smellkit.device.virtual import VirtualDirect, VirtualNeckWear

            virtual = virtual or (VirtualDirect() if link == "direct" else VirtualNeckWear())
            server = serve_here(virtual, name="neckwear")
            url, close = server.port, server.close
        try:
            link = find_link(url, timing=timing) if link == "auto" else link
        except BaseException:
            close()
            raise
        connect = connector(url, baud=DIALECTS[link].baud, write_timeout=timing.write)
        return cls(connect, name=port, timing=timing, log=log, watchdog=watchdog, link=link, virtual=virtual,
                   on_close=close)  # fmt: skip

    # playing

    def play(self, scent: int, *, seconds: float) -> None:
        """Start `scent` (1 to 12) for `seconds` (at most an hour) and return at once; `wait()` is until it is over.

        It replaces what plays. The first play, and one after four quiet minutes, wakes the device before: 2.2 s.
        """
        asked = self._asked()
        seconds = _seconds(seconds)
        frames.play(scent, 1)  # says what is wrong with the scent
        what = f"scent {scent} for {seconds:g} s"
        self._start(Schedule(what, [Pulse(0.0, int(scent), seconds)], asked=asked))

    def play_mixture(self, beta: Sequence[float], *, seconds: float = 60.0, **options: Any) -> Playlist:
        """Start the rendered sequence of a mixture (12 shares, sum 1) and return it at once; see `playlist.render`.

        On the direct link, while a watchdog watches, the shares go out in one frame, and the sequence is played only
        if the player says that it has no mixtures.
        """
        asked = self._asked()
        plan = playlist.render(beta, seconds=_seconds(seconds), **options)
        slots = [Pulse(*slot) for slot in plan.slots]
        shares = {scent: round(share, 4) for scent, share in enumerate(plan.planned, 1) if share}
        self.log.note(f"planned shares {shares}, lost {plan.lost:.4f}")
        schedule = Schedule(f"{len(slots)} slots", slots, asked=asked, stop_after=True)
        if self._dialect.answers and self.has_watchdog:  # the frame has no duration: somebody must be there to end it
            volumes = tuple(max(1, round(100 * share)) if share else 0 for share in plan.planned)
            schedule.pulses, schedule.instead = [Pulse(0.0, 0, schedule.seconds, volumes)], slots
        self._start(schedule)
        return plan

    def _asked(self) -> float:
        """Now, which is when somebody wanted what is about to be played: a later stop outruns it."""
        if self._engine.watched:
            guard.listen_to_signals()
        return self._clock.now()

    def _start(self, schedule: Schedule) -> None:
        self._engine.play(schedule)
        self._schedule = schedule

    def wait(self) -> None:
        """Wait until what plays is over or stopped; raises what went wrong with it."""
        schedule = self._schedule
        if schedule is None:
            return
        bound = self._engine.wake_bound() + schedule.seconds + self.timing.stops * self.timing.stop_gap + 2.0
        if not self._engine.wait(schedule, bound):
            self._engine.stop()
            raise LinkError("The play did not end in time", port=self._engine.name, elapsed=bound, remedy="probe it")
        if schedule.stop_after and schedule.played:
            self.log.note(f"achieved shares {self.achieved()}")
        if schedule.error:
            self._schedule = None
            raise schedule.error

    def achieved(self) -> dict[int, float]:
        """Shares of the seconds that were sent so far for what plays, or played last, by scent."""
        seconds: Counter[int] = Counter()
        for pulse in self._schedule.played if self._schedule else []:
            seconds[pulse.scent] += pulse.seconds  # type: ignore[assignment]
        return {scent: round(seconds[scent] / seconds.total(), 4) for scent in sorted(seconds)}

    def stop(self) -> Stopped:
        """Silence now, from any thread: three stop frames before anything that waits.

        On the handset's link nothing confirms it: `bound` of the answer is when a device that heard none is silent. On
        the direct link it is confirmed, or this raises NoReply. A play that was asked for before is dropped.
        """
        return self._engine.stop()

    def keep(self, seconds: float) -> None:
        """Let what plays go on for `seconds` at most, unless this is called again: for whoever may vanish meanwhile.

        Once called, nothing plays any more after these seconds; `math.inf` ends that.
        """
        self._engine.keep(seconds)

    # asking

    def wake(self) -> None:
        """Wake the device, three times at one second, and return when that is done."""
        self._engine.wake()

    def probe(self) -> ProbeReply:
        """Ask whether somebody is there, and how fast: the handset for its radio channel, or the player how it is.

        Wakes and plays nothing. What the player says of battery, cartridges and state is in `status()` from then on.
        """
        if not self._dialect.answers:
            reply, seconds = self._ask("read channel", frames.read_channel(), (0xA7, 0))
            self._channel = reply.value
            return ProbeReply(self._channel, seconds)
        frame, seconds = self._ask("status", direct.status(), (direct.STATUS, 0))
        answers: dict[str, Any] = {"said_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        if reply := frame.status():
            answers["battery"] = round(reply.battery, 1)
        with suppress(NoReply):  # a player that lacks a command may as well say nothing
            state = self._ask("state", direct.state(), (direct.STATE, 0))[0].value
            if state not in (None, 1):  # 1 is what a player says that lacks the command
                answers["state"] = "idle" if state == 0 else f"not idle ({state})"
        with suppress(NoReply):
            scents = self._ask("cartridges", direct.cartridges(), (direct.CARTRIDGES, 0))[0].scents()
            answers |= {"cartridges": scents} if scents else {}
        self._answers = answers
        return ProbeReply(UNKNOWN, seconds)

    def set_handset(self, channel: int) -> None:
        """Set the handset's radio channel (0 to 255); what plays is stopped before. Raises Refused if it says no."""
        frame = frames.set_handset(channel)
        reply = self._retune(Request(f"set handset channel {channel}", frame, (0xA6, 0), retunes=True))
        _accepted(reply.value, frame, "A6")
        self._channel = int(channel)

    def set_channel(self, channel: int, uid: bytes | str) -> None:
        """Set the radio channel of the NeckWear with this 12-byte uid; only a reply with the same uid counts.

        What plays is stopped before. Raises Refused if it says no.
        """
        frame = frames.set_channel(channel, uid)
        request = Request(f"set channel {channel}", frame, (0xD1, 0xA2), wakes=True, retunes=True,
                          matches=lambda reply: reply.inner.uid == frame[12:24])  # fmt: skip
        _accepted(self._retune(request).inner.status, frame, "A2")

    def _retune(self, request: Request) -> Any:
        if self._dialect.answers:
            raise ArgumentError("The direct link has no radio channel", remedy="open the handset's port for that")
        return self._engine.ask(request)[0]

    def _ask(self, what: str, frame: bytes, kind: tuple[int, int]) -> tuple[Any, float]:
        """The reply to a request, and the seconds since it was sent first."""
        request = Request(what, frame, kind)
        reply, at = self._engine.ask(request)
        return reply, at - request.first

    def status(self) -> Status:
        """What is known about port, handset and play. Sends nothing and invents nothing."""
        engine, now = self._engine, self._clock.now()
        schedule, bound, left = engine.schedule, engine.bound(), 0.0
        if schedule and not schedule.done:
            left = min(schedule.seconds, max(0.0, schedule.began + schedule.seconds - now))
        pulse = schedule.current(now) if schedule else None
        away = "" if engine.link or engine.trouble is None else engine.trouble.what
        return Status(
            engine.name, self.link, engine.link is not None, self.has_watchdog, self._channel,
            requested=(pulse.scent or None) if pulse else None, left=left, bound=bound,
            emitting="unconfirmed" if self._schedule or bound else UNKNOWN,
            latency=self.log.latency(), warning=self.log.warning, trouble=away, **self._answers,
        )  # fmt: skip

    @property
    def playing(self) -> bool:
        """Whether something was requested and is not over: what was requested, not what is in the air."""
        return self._schedule is not None and not self._schedule.done

    @property
    def ended(self) -> str:
        """How what was requested last ended: played, stopped, replaced, or what went wrong; empty while it has not."""
        return str(self._schedule.error or self._schedule.result or "") if self._schedule else ""

    @property
    def has_watchdog(self) -> bool:
        """Whether a watchdog process watches at this moment."""
        return self._guard is not None and self._guard.watches(self._engine)

    # the end

    def close(self) -> None:
        """Stop, let go of the port, end worker and watchdog. Twice is once.

        Raises nothing; leaving a `with` block does, when a scent may be in the air and no stop could be sent.
        """
        if os.getpid() != self._process:  # a forked child must not close its parent's port
            return
        self._unsilenced = self._engine.close() or self._unsilenced
        if self._guard:
            guard.settle()

    def __enter__(self) -> NeckWear:
        return self

    def __exit__(self, kind: object, why: object, trace: object) -> None:
        failed = self._schedule.error if self._schedule and self._schedule.done else None
        self.close()
        failed = failed or self._unsilenced
        if failed and kind is None:  # a play that failed without anybody waiting for it, or a stop that could not leave
            raise failed


def _seconds(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.05 <= value <= LONGEST:  # NaN neither
        raise ArgumentError(f"seconds is {value!r}", remedy=f"a number from 0.05 to {LONGEST:g}")
    return float(value)


def _accepted(status: int | None, frame: bytes, command: str) -> None:
    if status:
        expected, got = f"{command} with 0", f"{command} with {status}"
        remedy = "another channel, or a reset"
        raise Refused("The device refused", frame=frame, expected=expected, got=got, remedy=remedy)
