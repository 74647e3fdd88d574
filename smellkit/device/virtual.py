"""The firmware's side of both links: what a player does with the bytes, and what it emits.

No I/O and no thread here: `serve.py` puts it on a pty or on TCP. What it emitted and when is in `air`, so that a test
asserts on scent in the air, not on bytes sent. Marked *inferred* is what no document says.
"""

import bisect
import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smellkit.device import direct
from smellkit.device.clock import Clock
from smellkit.device.frames import REQUESTS, Frame, Inner, Parser, outer
from smellkit.device.log import LineFile

NEVER = math.inf
KEPT = 100_000  # the least number of frames, and of scents, that are remembered
SLEEPS_AFTER = 300.0  # seconds without a command
INTER_BYTE = 0.05
MIXTURE = -1  # what `emitting` is while several scents are in the air


@dataclass(frozen=True)
class Air:
    """One scent in the air, from `start` to `end` (seconds of the device's clock; `end` is None while it lasts)."""

    scent: int
    start: float
    end: float | None = None


class VirtualNeckWear:
    """A handset and a NeckWear with 12 cartridges that never run empty; `now` gives the time in seconds.

    One that fails in every way is in `smellkit.simulate.faulty_player`.
    """

    parser: Callable[[], Any] = staticmethod(lambda: Parser(REQUESTS))

    def __init__(self, *, now: Callable[[], float] = Clock.now, address: int = 30011, log: LineFile | None = None):
        self.uid, self.address = bytes.fromhex("56FF6A067875535658261267"), address
        self.handset_channel = self.neck_channel = 150
        self.received: list[tuple[float, bytes]] = []  # every sound frame that came, and when
        self.damaged = 0  # bytes that came and belong to no frame
        self.plugged = self.takes_bytes = True
        self.awake = False
        self._now, self._log = now, log
        self._lock = threading.RLock()
        self._parser = self.parser()
        self._last_byte = self._last_command = -NEVER
        self._out: list[tuple[float, int, bytes]] = []  # when, order, bytes
        self._order = 0
        self._past: list[Air] = []
        self._scents: tuple[int, ...] = ()  # what plays
        self._since = self._until = 0.0

    # what the device does, for a test or a person to look at

    @property
    def air(self) -> list[Air]:
        """Every interval of scent in the air so far, oldest first; the scents of a mixture lie side by side."""
        with self._lock:
            self.tick()
            return self._past + [Air(scent, self._since) for scent in self._scents]

    @property
    def emitting(self) -> int:
        """The scent in the air now; 0 for none, -1 for a mixture."""
        with self._lock:
            self.tick()
            return MIXTURE if len(self._scents) > 1 else sum(self._scents)

    def unplug(self) -> None:
        """Pull the handset out. A NeckWear that plays goes on until its own timer ends."""
        with self._lock:
            self.plugged = False
            self._out.clear()
            self._parser = self.parser()
            self._record("unplugged")

    def plug(self) -> None:
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
                self._until if self._scents else NEVER,
                self._last_command + SLEEPS_AFTER if self.awake else NEVER,
            )

    def tick(self) -> None:
        """Let time act."""
        with self._lock:
            self._expire(self._now())

    # inside

    def _expire(self, now: float) -> None:
        if self._scents and now >= self._until:
            self._silence(self._until)
        if self.awake and now >= self._last_command + SLEEPS_AFTER:
            self.awake = False
            self._record("asleep")

    def _obey(self, frame: Any, now: float) -> None:
        if frame.command == 0x27:
            self._answer(now, outer(bytes([0xA7, self.handset_channel])))
        elif frame.command == 0x26:
            self.handset_channel = frame.value or 0
            self._answer(now, outer(b"\xa6\0"))
        elif frame.inner is not None:
            self._radio(frame, frame.inner, now)

    def _radio(self, frame: Frame, inner: Inner, now: float) -> None:
        """What arrives at the NeckWear itself. *Inferred*: forward channel 0 means the handset's own."""
        function = inner.function
        if function != 0x22 and (frame.channel or self.handset_channel) != self.neck_channel:
            return
        self.awake = self.awake or function == 0x71
        if not self.awake:
            return
        self._last_command = now
        if inner.address not in (None, 0xFFFF, self.address):
            return
        if function == 0x02:
            self._silence(now)
        elif function == 0x01 and len(inner.data) == 8 and 1 <= inner.data[3] <= 12:
            self._play((inner.data[3],), int.from_bytes(inner.data[4:], "big") / 1000, now)
        elif function == 0x22 and inner.uid == self.uid:
            self.neck_channel = inner.data[12]
            reply = outer(bytes.fromhex("010001020000A2") + self.uid + b"\0")
            self._answer(now, outer(bytes([0xD1, 0, len(reply)]) + reply))

    def _play(self, scents: tuple[int, ...], seconds: float, now: float) -> None:
        """Start, or renew what plays."""
        if self._scents != scents:
            self._silence(now)
            self._since = now
            for scent in scents:
                self._record("air on", scent)
        self._scents, self._until = scents, now + seconds

    def _silence(self, now: float) -> None:
        for scent in self._scents:
            self._past.append(Air(scent, self._since, now))
            self._record("air off", scent)
        if len(self._past) > 2 * KEPT:
            del self._past[:KEPT]
        self._scents = ()

    def _answer(self, now: float, reply: bytes) -> None:
        self._post(now, reply)

    def _post(self, when: float, data: bytes) -> None:
        if data and len(self._out) < KEPT:  # a client that never reads
            self._order += 1
            last = self._out[-1][0] if self._out else -NEVER
            bisect.insort(self._out, (max(when, last), self._order, data))  # one wire: what is later stays behind

    def _record(self, event: str, scent: int = 0) -> None:
        if self._log:
            entry = {"at": round(self._now(), 6), "event": event} | ({"scent": scent} if scent else {})
            try:
                self._log.write(json.dumps(entry) + "\n")
            except OSError:
                self._log = None  # a log never keeps a device from what it does


class VirtualDirect(VirtualNeckWear):
    """A NeckWear on its own line, which answers. It never sleeps; `volumes` is the mixture that it gives now.

    Commands that it `lacks` are refused.
    """

    parser = direct.Parser
    volumes: tuple[int, ...] = ()
    lacks: tuple[int, ...] = ()

    def _obey(self, frame: Any, now: float) -> None:
        command, data = frame.command, frame.data
        scent = max(0, self.emitting)
        answer = b"\0"
        if command in self.lacks:
            answer = b"\x01"
        elif command == direct.STOP:
            self._silence(now)
        elif command == direct.PLAY and len(data) == 6 and 1 <= data[0] <= 12:
            self._play((data[0],), int.from_bytes(data[1:5], "big") / 1000, now)
        elif command == direct.MIX and len(data) in (12, 24):
            self._mix(data, now)
        elif command == direct.STATE:
            answer = bytes([min(0x0C, 6 + scent) if scent else 7 * bool(self._scents)])
        elif command == direct.DEVICE_ID:
            answer = self.uid
        elif command == direct.CARTRIDGES:
            answer = bytes.fromhex("".join(f"{channel:03x}" for channel in range(1, 13)))
        elif command == direct.STATUS:
            left = max(0, round(1000 * (self._until - now))) if scent else 0
            answer = bytes([195, scent]) + scent.to_bytes(2, "big") + left.to_bytes(4, "big")
        else:
            answer = b"\x01"
        self._answer(now, direct.reply(command, answer))

    def _mix(self, data: bytes, now: float) -> None:
        """*Inferred*: a mixture takes the place of what plays, and lasts until it is stopped: it has no duration."""
        width = len(data) // 12
        volumes = tuple(int.from_bytes(data[at : at + width], "big") for at in range(0, len(data), width))
        self._silence(now)
        self._play(tuple(channel for channel, volume in enumerate(volumes, 1) if volume), NEVER, now)
        self.volumes = volumes

    def _silence(self, now: float) -> None:
        super()._silence(now)
        self.volumes = ()
