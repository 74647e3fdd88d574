"""The firmware's side of the NeckWear link: what it does with the bytes, what it emits, and how it fails.

No I/O and no thread here: `serve.py` puts it on a pty, on TCP or in memory. What it emitted and when is in `air`,
so that a test asserts on scent in the air, not on bytes sent. Marked *inferred* is what no document says.
"""

from __future__ import annotations

import bisect
import json
import math
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from smellkit.device.clock import Clock
from smellkit.device.frames import REQUESTS, Frame, Inner, Parser, outer
from smellkit.device.log import LineFile
from smellkit.errors import OptionError

NEVER = math.inf
KEPT = 100_000  # the least number of frames, and of scents, that are remembered
SLEEPS_AFTER = 300.0  # seconds without a command
INTER_BYTE = 0.05

FAULTS = {  # name -> (number in the fault catalogue, what its value is, the usual value)
    "silence": ("D1", "chance that a request is not answered", 1.0),
    "late": ("D2", "chance that a reply comes 0.3 to 1.8 s late", 1.0),
    "split": ("D3", "chance that a reply comes in pieces", 1.0),
    "cut": ("D3", "chance that the end of a reply is missing", 1.0),
    "garbage": ("D4", "chance of noise before a reply", 1.0),
    "false_length": ("D4", "chance of a false long header before a reply", 1.0),
    "wrong_sum": ("D5", "chance of a damaged sum", 1.0),
    "wrong_tail": ("D5", "chance of a damaged tail", 1.0),
    "duplicate": ("D6", "chance that a reply comes twice", 1.0),
    "echo": ("D6", "chance that a request comes back before its reply", 1.0),
    "unplug": ("D7", "seconds until the handset is pulled out", 1.0),
    "replug": ("D8", "seconds until the handset is pulled out and put back half a second later", 1.0),
    "reset": ("D9", "seconds until the device restarts, asleep", 1.0),
    "nap": ("D9", "seconds until the device falls asleep", 1.0),
    "blocked": ("D11", "seconds until the handset takes no bytes for 2 s", 0.0),
    "low_battery": ("D15", "seconds of scent that the battery still has", 1.0),
    "empty": ("D15", "seconds of scent in every cartridge", 1.0),
    "radio_loss": ("D16", "chance that the radio loses a frame", 0.3),
    "lacks": ("-", "how many commands a player of the direct link lacks: mixture, cartridges, status, state", 1.0),
}
_CHANCES = {name for name, (_, what, _) in FAULTS.items() if what.startswith("chance")}


def read_faults(texts: list[str] | tuple[str, ...]) -> dict[str, float]:
    """Faults from ["late", "radio_loss=0.3", "unplug=5"]; OptionError names a wrong one."""
    faults = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in FAULTS:
            raise OptionError(f"No fault {name!r}", hint="one of " + ", ".join(FAULTS))
        try:
            number = float(value) if value else FAULTS[name][2]
        except ValueError:
            number = math.nan
        if not 0 <= number < NEVER or (name in _CHANCES and number > 1):
            raise OptionError(f"Fault {text!r}", hint=f"the value is the {FAULTS[name][1]}")
        faults[name] = number
    return faults


@dataclass(frozen=True)
class Air:
    """One scent in the air, from `start` to `end` (seconds of the device's clock; `end` is None while it lasts)."""

    scent: int
    start: float
    end: float | None = None


class VirtualNeckWear:
    """A handset and a NeckWear with 12 cartridges.

    `now` gives the time in seconds. `faults` maps names of `FAULTS` to their values, and `seed` decides every chance.
    `cartridges` maps a scent to the seconds that it lasts (others never run empty), `battery` is seconds of play.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = Clock.now,
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        cartridges: Mapping[int, float] | None = None,
        battery: float = NEVER,
        channel: int = 150,
        address: int = 30011,
        uid: bytes = bytes.fromhex("56FF6A067875535658261267"),
        log: TextIO | LineFile | None = None,
    ):
        self.faults = dict(faults or {})
        self.uid, self.address = uid, address
        self.handset_channel = self.neck_channel = channel
        self.received: list[tuple[float, bytes]] = []  # every sound frame that reached the handset, and when
        self.damaged = 0  # bytes that reached the handset and belong to no frame
        self.plugged = True
        self.takes_bytes = True
        self.awake = False
        self._now, self._log = now, log
        self._draw = random.Random(seed)
        self._lock = threading.RLock()
        self._parser = self._fresh_parser()
        self._last_byte = -NEVER
        self._last_command = -NEVER
        self._out: list[tuple[float, int, bytes]] = []  # when, order, bytes
        self._order = 0
        self._past: list[Air] = []
        self._scent = 0  # what plays, 0 for nothing
        self._since = self._until = 0.0
        self._accounted = now()
        self._cartridges = dict.fromkeys(range(1, 13), NEVER) | dict(cartridges or {})
        self._battery = min(battery, self.faults.get("low_battery", NEVER))
        if "empty" in self.faults:
            self._cartridges = dict.fromkeys(self._cartridges, self.faults["empty"])
        self._plan = self._timed(now())

    # what the device does, for a test or a person to look at

    @property
    def air(self) -> list[Air]:
        """Every interval of scent in the air so far, oldest first."""
        with self._lock:
            self.tick()
            return self._past + ([Air(self._scent, self._since)] if self._scent else [])

    @property
    def emitting(self) -> int:
        """The scent in the air now; 0 for none."""
        with self._lock:
            self.tick()
            return self._scent

    def unplug(self) -> None:
        """Pull the handset out. A NeckWear that plays goes on until its own timer ends."""
        with self._lock:
            self.plugged = False
            self._out.clear()
            self._parser = self._fresh_parser()
            self._record("unplugged")

    def plug(self) -> None:
        """Put the handset back."""
        with self._lock:
            self.plugged = True
            self._record("plugged")

    def reset(self) -> None:
        """Restart the NeckWear: silent, asleep."""
        with self._lock:
            self._silence(self._now())
            self.awake = False
            self._record("reset")

    # the link's side, for whoever serves it

    def receive(self, data: bytes) -> None:
        """Bytes from the host."""
        with self._lock:
            now = self._now()
            self.tick()
            if self._parser.waiting and now > self._last_byte + INTER_BYTE:
                self._parser.expire()
            self._last_byte = now
            requests = self._parser.feed(data)
            self.damaged = self._parser.dropped
            for frame in requests:
                self.received.append((now, frame.raw))
                if len(self.received) > 2 * KEPT:
                    del self.received[:KEPT]
                self._obey(frame, now)

    def send(self) -> bytes:
        """Bytes that are due for the host."""
        with self._lock:
            self.tick()
            now, data = self._now(), b""
            while self._out and self._out[0][0] <= now:
                data += self._out.pop(0)[2]
            return data

    def due(self) -> float:
        """When something happens next by itself; inf for never."""
        with self._lock:
            self.tick()
            return min(
                self._out[0][0] if self._out else NEVER,
                self._until if self._scent else NEVER,
                self._plan[0][0] if self._plan else NEVER,
                self._last_command + SLEEPS_AFTER if self.awake else NEVER,
            )

    def tick(self) -> None:
        """Let time act: the planned faults, the play timer, sleep."""
        with self._lock:
            now = self._now()
            while self._plan and self._plan[0][0] <= now:
                at, name = self._plan.pop(0)
                self._expire(at)
                self._happen(name)
            self._expire(now)

    # inside

    def _fresh_parser(self) -> Parser:
        return Parser(REQUESTS)

    def _expire(self, now: float) -> None:
        if self._scent and now >= self._until:
            self._silence(self._until)
        if self.awake and now >= self._last_command + SLEEPS_AFTER:
            self.awake = False
            self._record("asleep")

    def _timed(self, start: float) -> list[tuple[float, str]]:
        plan = []
        for name, value in self.faults.items():
            if name in ("unplug", "replug", "reset", "nap", "blocked"):
                plan.append((start + value, name))
            if name == "replug":
                plan.append((start + value + 0.5, "plug"))
            if name == "blocked":
                plan.append((start + value + 2.0, "free"))
        return sorted(plan)

    def _happen(self, name: str) -> None:
        if name in ("unplug", "replug"):
            self.unplug()
        elif name == "plug":
            self.plug()
        elif name == "reset":
            self.reset()
        elif name == "nap":
            self._silence(self._now())
            self.awake = False
        else:
            self.takes_bytes = name == "free"
        self._record(name)

    def _chance(self, name: str) -> bool:
        return name in self.faults and self._draw.random() < self.faults[name]

    def _obey(self, frame: Frame, now: float) -> None:
        if self._chance("echo"):
            self._post(now, frame.raw)
        if frame.command == 0x27:
            self._answer(now, _short(0xA7, self.handset_channel))
        elif frame.command == 0x26:
            self.handset_channel = frame.value or 0
            self._answer(now, _short(0xA6, 0))
        elif frame.inner is not None and not self._chance("radio_loss"):
            self._radio(frame, frame.inner, now)

    def _radio(self, frame: Frame, inner: Inner, now: float) -> None:
        """What arrives at the NeckWear itself. *Inferred*: forward channel 0 means the handset's own."""
        if self._battery <= 0:
            return  # a flat battery answers nothing and emits nothing
        function = inner.function
        if function != 0x22 and (frame.channel or self.handset_channel) != self.neck_channel:
            return
        if function == 0x71:
            self.awake = True
        if not self.awake:
            return
        self._last_command = now
        if inner.address not in (None, 0xFFFF, self.address):
            return
        if function == 0x02:
            self._silence(now)
        elif function == 0x01 and len(inner.data) == 8 and 1 <= inner.data[3] <= 12:
            self._play(inner.data[3], int.from_bytes(inner.data[4:], "big") / 1000, now)
        elif function == 0x22 and inner.uid == self.uid:
            self.neck_channel = inner.data[12]
            if not self._chance("radio_loss"):
                self._answer(now, _set_channel_reply(self.uid))

    def _play(self, scent: int, seconds: float, now: float) -> None:
        """Start or renew. A cartridge or a battery that runs empty ends the scent; the fan may go on."""
        same = self._scent == scent
        since = self._since if same else now
        self._account(now)
        if not same:
            self._silence(now)
        left = min(seconds, self._cartridges[scent], self._battery)
        if left <= 0:
            self._record("airflow only", scent)
            return
        if not same:
            self._record("air on", scent)
        self._scent, self._since, self._until = scent, since, now + left

    def _silence(self, now: float) -> None:
        if self._scent:
            self._account(now)
            self._past.append(Air(self._scent, self._since, now))
            if len(self._past) > 2 * KEPT:
                del self._past[:KEPT]
            self._record("air off", self._scent)
            self._scent = 0

    def _account(self, now: float) -> None:
        """Take what was used since the last time from cartridge and battery."""
        if self._scent:
            used = max(0.0, now - max(self._accounted, self._since))
            self._cartridges[self._scent] -= used
            self._battery -= used
            if self._battery < 1e-6:
                self._battery = 0.0
            if self._cartridges[self._scent] < 1e-6:
                self._cartridges[self._scent] = 0.0
        self._accounted = now

    def _answer(self, now: float, reply: bytes) -> None:
        """Send a reply, with whatever the faults make of it."""
        draw = self._draw
        if self._chance("silence"):
            return
        if self._chance("late"):
            now += draw.uniform(0.3, 1.8)
        if self._chance("wrong_sum"):
            reply = reply[:-2] + bytes([reply[-2] ^ 1 << draw.randrange(8)]) + reply[-1:]
        if self._chance("wrong_tail"):
            reply = reply[:-1] + bytes([reply[-1] ^ 1 << draw.randrange(8)])
        if self._chance("cut"):
            reply = reply[: draw.randrange(1, len(reply))]
        if self._chance("garbage"):
            self._post(now, draw.randbytes(draw.randrange(1, 30)))
        if self._chance("false_length"):
            self._post(now, b"\xf5\xd1\x00\xff")
        if self._chance("split"):
            cut = draw.randrange(1, len(reply)) if len(reply) > 1 else 1
            self._post(now, reply[:cut])
            self._post(now + draw.uniform(0.001, 0.12), reply[cut:])
        else:
            self._post(now, reply)
        if self._chance("duplicate"):
            self._post(now + 0.001, reply)

    def _post(self, when: float, data: bytes) -> None:
        if data and len(self._out) < KEPT:  # a client that never reads
            self._order += 1
            last = self._out[-1][0] if self._out else -NEVER
            bisect.insort(self._out, (max(when, last), self._order, data))  # one wire: what is later stays behind

    def _record(self, event: str, scent: int | None = None) -> None:
        if self._log:
            entry = {"at": round(self._now(), 6), "event": event} | ({"scent": scent} if scent else {})
            try:
                self._log.write(json.dumps(entry) + "\n")
                self._log.flush()
            except OSError:
                self._log = None  # a log never keeps a device from what it does


def _short(command: int, value: int) -> bytes:
    return outer(bytes([command, value]))


def _set_channel_reply(uid: bytes) -> bytes:
    inner = outer(bytes.fromhex("010001020000A2") + uid + b"\x00")
    return outer(bytes([0xD1, 0, len(inner)]) + inner)
