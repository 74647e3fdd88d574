"""Ten thousand ways to go wrong: a seed gives a device, its faults and what a person does; the rules must hold.

`smellkit bench neckwear` runs them, on either link, by the fake clock and on a pseudo-terminal; `run(4711).log` is what
happened in one. The rules: every call ends within its bound + 100 ms; every failure is a DeviceError; nothing plays
that was not requested; no frame is damaged; the device is silent when the driver is closed, or, where no stop could
reach it (radio, unplugged, blocked), when the bound that the driver reported is over; nothing is left open or running.
"""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smellkit.device import direct
from smellkit.device.clock import Clock
from smellkit.device.errors import PortError, PortLost
from smellkit.device.jobs import Timing
from smellkit.device.link import Link, open_link
from smellkit.device.neckwear import NeckWear
from smellkit.device.serve import serve_here
from smellkit.errors import DeviceError
from smellkit.simulate.faulty_player import FAULTS, FaultyDirect, FaultyNeckWear
from smellkit.study.device.fake import FakeClock, MemoryPort, gone

SLACK = 0.1  # seconds beyond a bound
FAST = Timing(gap=0.02, reply=0.1, late=0.2, wake_gap=0.05, stop_gap=0.02, frame=1.0, renew=0.2, patience=0.3, cap=0.3)
TIMED = ("unplug", "replug", "reset", "nap", "blocked", "low_battery", "empty")
ACTS = ["play", "play", "mix", "probe", "stop", "wait", "pause", "pause", "pause", "mistake", "wake", "pull"]


class Scenario:
    """A device, a driver, and somebody who plays, stops, asks, makes mistakes and leaves; `broken` names broken rules.

    `pace` makes real time faster than life; `slowest` is the largest part of its bound that a call took.
    """

    neck: NeckWear

    def __init__(self, seed: int, *, pty: bool, link: str):
        self.seed, self.link, self.draw = seed, link, random.Random(seed)
        self.pace, self.timing = (0.1, FAST) if pty else (1.0, Timing())
        self.faults: dict[str, float] = {}
        for name in self.draw.sample(sorted(FAULTS), self.draw.choice([0, 1, 1, 2, 2, 3])):
            if name in TIMED:
                self.faults[name] = self.draw.uniform(0, 25) * self.pace
            else:
                self.faults[name] = self.draw.choice([0.1, 0.3, 0.6, 1.0]) if name != "radio_loss" else 0.3
        late = None if pty or self.draw.random() >= 0.3 else random.Random(seed)
        self.clock: Any = Clock() if pty else FakeClock(jitter=late)
        kind = FaultyDirect if link == "direct" else FaultyNeckWear
        self.device = kind(now=self.clock.now, faults=self.faults, seed=seed)
        self.port: MemoryPort | None = None
        self.busy = self.draw.random() < 0.03  # D10
        self.served = serve_here(self.device, name="neckwear") if pty else None
        if isinstance(self.clock, FakeClock):
            self.clock.watch(self.device.due)
        self.acts: list[str] = []
        self.errors: list[str] = []
        self.broken: list[str] = []
        self.log: list[dict[str, Any]] = []
        self.silent_at_end = True  # when close returned
        self.slowest = 0.0
        self.requested: list[list[Any]] = []  # [from, until, scents]: when which scent may be played
        self.channels = {150}  # what a handset may answer

    def connect(self) -> Link:
        """The port of the device: in memory, or a pseudo-terminal."""
        if self.busy:
            raise PortError("Could not open the port: another program uses it", port="the port", remedy="close it")
        if self.served:
            return open_link(self.served.port, write_timeout=self.timing.write)
        self.port = MemoryPort(self.device, clock=self.clock)
        return Link(self.port, name="memory")

    def live(self) -> None:
        """Do a few things, leave, look back."""
        handset = ["handset", "uid"] if self.link == "handset" else []  # the other has no radio channel
        for _ in range(self.draw.randint(1, 10)):
            if self._act(self.draw.choice(ACTS + handset)) == "left":
                break
        if self.draw.random() < 0.6:  # leave in the middle of a scent
            self._act("play")
            self.clock.sleep(self.draw.uniform(0, 6) * self.pace)
        self._leave()

    def _act(self, name: str) -> str:
        self.acts.append(name)
        bound, began, left = self._bound(name), self.clock.now(), ""
        try:
            getattr(self, f"_{name}")()
        except DeviceError as why:
            self.errors.append(type(why).__name__)
            if "worker" in str(why) or "did not end" in str(why):
                self.broken.append(f"{name} hung: {why}")
            if isinstance(why, PortLost):
                self._until_now()
            if self.draw.random() < 0.2:  # D12: most people do not catch it
                left = "left"
        except Exception as why:
            self.broken.append(f"{name} raised {why!r}")
        if name not in ("pause", "pull"):
            self._timely(name, self.clock.now() - began, bound)
        return left

    def _timely(self, name: str, elapsed: float, bound: float) -> None:
        self.slowest = max(self.slowest, elapsed / (bound + SLACK))
        if elapsed > bound + SLACK:
            self.broken.append(f"{name} took {elapsed:.3f} s, bound {bound:.3f} s")

    def _bound(self, name: str) -> float:
        t, direct_link = self.timing, self.link == "direct"
        # a fake thread that wakes late is late at every deadline
        late = 0.05 if isinstance(self.clock, FakeClock) and self.clock.jitter else 0.0
        stop = self.neck._engine.stop_bound() + (20 if direct_link else t.stops) * late
        wake = t.wakes * (t.wake_gap + t.write + late) + 2 * t.gap
        request = t.late + t.tries * (t.reply + t.write + late) + t.gap + stop
        playing = max([0.0, *(until - self.clock.now() for _, until, _ in self.requested[-1:])])
        return {
            "stop": stop, "wake": wake + stop, "probe": 3 * request if direct_link else request,
            "handset": 2 * request, "uid": request + wake, "close": stop + t.patience + t.write + stop,
            "wait": wake + stop + playing + 2.0,
        }.get(name, t.write)  # fmt: skip

    # acts

    def _play(self) -> None:
        scent, seconds = self.draw.randint(1, 12), self.draw.choice([0.5, 2, 9, 25, 61]) * self.pace
        self._until_now()
        began = self.clock.now()
        self.neck.play(scent, seconds=max(0.05, seconds))
        self._request(began, {scent}, seconds)

    def _mix(self) -> None:
        shares = [self.draw.random() if self.draw.random() < 0.4 else 0.0 for _ in range(12)]
        total = sum(shares) or 1.0
        if not any(shares):
            shares[3] = 1.0
        self._until_now()
        began = self.clock.now()
        plan = self.neck.play_mixture([share / total for share in shares], seconds=2.2 if self.pace < 1 else 20)
        self._request(began, {scent for _, scent, _ in plan.slots}, plan.seconds)

    def _probe(self) -> None:
        channel = self.neck.probe().channel
        if channel not in self.channels and self.pace == 1 and self.link == "handset":
            self.broken.append(f"probe gave {channel}, the handset has {self.channels}")

    def _handset(self) -> None:
        channel = self.draw.randint(0, 255)
        self.channels.add(channel)  # even if no answer comes it may be set
        self.neck.set_handset(channel)
        self.channels = {channel, 150}
        self.neck.set_handset(150)
        self.channels = {150}

    def _uid(self) -> None:
        self.neck.set_channel(150, self.device.uid)

    def _stop(self) -> None:
        self._until_now()
        self.neck.stop()

    def _wait(self) -> None:
        if self.pace == 1 or self.draw.random() < 0.5:
            self.neck.wait()

    def _wake(self) -> None:
        self.neck.wake()

    def _pause(self) -> None:
        longest = 250 if self.pace == 1 else 5
        self.clock.sleep(self.draw.choice([0.01, 0.3, 1, 3, 12, longest]) * self.pace)

    def _mistake(self) -> None:
        heard = len(self.device.received)
        wrong: list[Any] = [(0, 1), (13, 1), (True, 1), ("3", 1), (3, -1), (3, float("nan")), (3, "8")]
        scent, seconds = self.draw.choice(wrong)
        try:
            self.neck.play(scent, seconds=seconds)
            self.broken.append(f"play({scent!r}, seconds={seconds!r}) was taken")
        except DeviceError:
            if len(self.device.received) != heard and not self.requested:
                self.broken.append("a bad argument sent bytes")

    def _pull(self) -> None:
        """The port goes away in one of its four ways, or is really pulled out and put back."""
        if self.port is not None and self.draw.random() < 0.5:
            self.port.fail = self.draw.choice(gone())
        else:
            self.device.unplug()
            self.clock.sleep(self.draw.choice([0.05, 1.0]) * self.pace)
            self.device.plug()

    # rules

    def _request(self, began: float, scents: set[int], seconds: float) -> None:
        """May be played from before the call, since the worker is another thread."""
        self.requested.append([began, self.clock.now() + self.neck._engine.wake_bound() + seconds + 1.0, scents])

    def _until_now(self) -> None:
        """What was requested before ends here."""
        for window in self.requested:
            window[1] = min(window[1], self.clock.now() + self.timing.write + SLACK)

    def _losses(self) -> int:
        return sum(entry["what"].startswith("lost") for entry in self.neck.log.entries)

    def _leave(self) -> None:
        device, status = self.device, self.neck.status()
        self._until_now()
        began, limit, losses = self.clock.now(), self._bound("close"), self._losses()
        reached = status.connected and device.plugged and device.takes_bytes
        self.neck.close()
        self._timely("close", self.clock.now() - began, limit)
        reached = reached and losses == self._losses() and "radio_loss" not in device.faults
        self.silent_at_end = not device.emitting
        if device.emitting:
            if reached and device.handset_channel == device.neck_channel:
                self.broken.append("nothing kept the stop from the device, and it plays")
            self.clock.sleep(max(0.0, status.bound - (self.clock.now() - began)) + SLACK)
            if device.emitting:
                self.broken.append(f"the device plays {status.bound:.1f} s after the end, its bound")
        if device.damaged:
            self.broken.append(f"{device.damaged} damaged bytes")
        # on a pty a frame waits in the kernel while the device is blocked, or its thread has no turn on a busy machine
        waits = 0.0 if self.pace == 1 else 3.5 if "blocked" in device.faults else 1.0
        for at, raw in device.received:
            for scent in _played(raw):
                if not any(since <= at <= until + waits and scent in scents for since, until, scents in self.requested):
                    self.broken.append(f"scent {scent} was sent at {at:.3f} and nobody requested it")
        if not self.neck._engine.ended:
            self.broken.append("the worker lives on")


def _played(raw: bytes) -> list[int]:
    """The scents that a frame asks for, on either link."""
    if raw[1] == 0x51:
        return [raw[15]] if len(raw) == 26 and raw[11] == 0x01 else []
    if raw[1] == 0x11 and raw[5] == direct.MIX:
        return [channel for channel, volume in enumerate(raw[7:19], 1) if volume]
    return [raw[7]] if raw[1] == 0x11 and raw[5] == direct.PLAY else []


def run(seed: int, *, pty: bool = False, link: str = "handset") -> Scenario:
    """Run the scenario of `seed` and return it."""
    one = Scenario(seed, pty=pty, link=link)
    full = one.draw.random() < 0.05  # D18
    log = "/dev/full" if full and Path("/dev/full").exists() else None
    try:
        one.neck = NeckWear(one.connect, name="the port", clock=one.clock, timing=one.timing, log=log, link=link)
    except DeviceError as why:
        one.errors.append(type(why).__name__)
        if not one.busy and one.device.plugged:
            one.broken.append(f"could not open: {why}")
    else:
        try:
            one.live()
        finally:
            one.neck.close()
            one.log = list(one.neck.log.entries)
    finally:
        if one.served:
            one.served.close()
    return one


@dataclass
class Summary:
    """Many scenarios together; `broken` are the seeds of those that broke a rule, with the rules."""

    run: int = 0
    broken: list[tuple[int, list[str]]] = field(default_factory=list)
    errors: int = 0  # that the person saw
    silent_by_own_timer: int = 0  # no stop could arrive: silent within the reported bound
    slowest_call_of_its_bound: float = 0.0
    threads_left: int = 0
    descriptors_left: int = 0


def run_all(count: int, *, first: int = 0, pty: bool = False, link: str = "handset", together: int = 8) -> Summary:
    """Run the scenarios `first` to `first + count - 1`; on a pty, `together` at a time."""
    run(first, pty=pty, link=link)  # what is imported and opened once does not count as left behind
    threads, descriptors = threading.active_count(), _descriptors()
    summary = Summary()
    with ThreadPoolExecutor(together) as pool:
        spread = pool.map if pty else map  # fake time has one thread
        for one in spread(lambda seed: run(seed, pty=pty, link=link), range(first, first + count)):
            summary.run += 1
            summary.errors += len(one.errors)
            summary.silent_by_own_timer += not one.silent_at_end
            summary.slowest_call_of_its_bound = max(summary.slowest_call_of_its_bound, one.slowest)
            summary.broken += [(one.seed, one.broken)] if one.broken else []
    summary.threads_left = threading.active_count() - threads
    summary.descriptors_left = _descriptors() - descriptors
    return summary


def _descriptors() -> int:
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0
