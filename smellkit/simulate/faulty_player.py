"""Virtual players that fail in every way: faults by name and by seed, numbered as in the player's fault catalogue."""

import math
import random
from collections.abc import Mapping
from typing import Any

from smellkit.device import direct
from smellkit.device.frames import Frame, Inner
from smellkit.device.virtual import NEVER, VirtualDirect, VirtualNeckWear
from smellkit.errors import OptionError
from smellkit.options import check

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
_TIMED = [  # fault, seconds after its own time, and what happens then
    ("unplug", 0.0, "unplug"), ("replug", 0.0, "unplug"), ("replug", 0.5, "plug"), ("reset", 0.0, "reset"),
    ("nap", 0.0, "reset"), ("blocked", 0.0, "block"), ("blocked", 2.0, "free"),
]  # fmt: skip
_LACKING = (direct.MIX, direct.CARTRIDGES, direct.STATUS, direct.STATE)  # what a player may lack, in this order


def read_faults(texts: list[str] | tuple[str, ...]) -> dict[str, float]:
    """Faults from ["late", "radio_loss=0.3", "unplug=5"]; OptionError names a wrong one."""
    faults = {}
    for text in texts:
        name, _, value = text.partition("=")
        check([name], FAULTS, "There is no fault")
        try:
            number = float(value) if value else FAULTS[name][2]
        except ValueError:
            number = math.nan
        if not 0 <= number < NEVER or (FAULTS[name][1].startswith("chance") and number > 1):
            raise OptionError(f"Fault {text!r}", hint=f"the value is the {FAULTS[name][1]}")
        faults[name] = number
    return faults


class FaultyNeckWear(VirtualNeckWear):
    """A virtual handset and player with `faults`, names of `FAULTS` and their values; `seed` decides every chance."""

    def __init__(self, *, faults: Mapping[str, float], seed: int = 0, **options: Any):
        super().__init__(**options)
        self.faults = dict(faults)
        self._draw = random.Random(seed)
        # seconds that are left of each cartridge, and at 0 of the battery
        self._left = dict.fromkeys(range(13), self.faults.get("empty", NEVER))
        self._left[0] = self.faults.get("low_battery", NEVER)
        self._accounted = self._now()
        timed = [(name, more, act) for name, more, act in _TIMED if name in self.faults]
        self._plan = sorted((self._now() + self.faults[name] + more, act) for name, more, act in timed)

    def block(self) -> None:
        """Take no bytes any more."""
        self.takes_bytes = False

    def free(self) -> None:
        """Take bytes again."""
        self.takes_bytes = True

    def due(self) -> float:
        """When something happens next by itself; inf for never."""
        with self._lock:
            return min(super().due(), self._plan[0][0] if self._plan else NEVER)

    def tick(self) -> None:
        """Let time act."""
        with self._lock:
            while self._plan and self._plan[0][0] <= self._now():
                at, act = self._plan.pop(0)
                self._expire(at)
                getattr(self, act)()
            super().tick()

    def _chance(self, name: str) -> bool:
        return name in self.faults and self._draw.random() < self.faults[name]

    def _obey(self, frame: Any, now: float) -> None:
        if self._chance("echo"):
            self._post(now, frame.raw)
        super()._obey(frame, now)

    def _radio(self, frame: Frame, inner: Inner, now: float) -> None:
        if self._left[0] > 0 and not self._chance("radio_loss"):  # a flat battery answers nothing and emits nothing
            super()._radio(frame, inner, now)

    def _play(self, scents: tuple[int, ...], seconds: float, now: float) -> None:
        """A cartridge or a battery that runs empty ends the scent; the fan may go on."""
        self._account(now)
        left = min(seconds, *(self._left[part] for part in (0, *scents)))
        if left > 0:
            super()._play(scents, left, now)
            return
        if self._scents != scents:
            self._silence(now)
        for scent in scents:
            self._record("airflow only", scent)

    def _silence(self, now: float) -> None:
        self._account(now)
        super()._silence(now)

    def _account(self, now: float) -> None:
        used = max(0.0, now - max(self._accounted, self._since))
        for part in (0, *self._scents) if self._scents else ():
            left = self._left[part] - used
            self._left[part] = left if left > 1e-6 else 0.0
        self._accounted = now

    def _answer(self, now: float, reply: bytes) -> None:
        draw, chance = self._draw, self._chance
        if chance("silence") or (reply[1] == 0xD1 and chance("radio_loss")):
            return
        if chance("late"):
            now += draw.uniform(0.3, 1.8)
        for fault, index in (("wrong_sum", -2), ("wrong_tail", -1)):
            if chance(fault):
                damaged = bytearray(reply)
                damaged[index] ^= 1 << draw.randrange(8)
                reply = bytes(damaged)
        if chance("cut"):
            reply = reply[: draw.randrange(1, len(reply))]
        if chance("garbage"):
            self._post(now, draw.randbytes(draw.randrange(1, 30)))
        if chance("false_length"):
            self._post(now, b"\xf5\xd1\x00\xff")
        cut = draw.randrange(1, max(2, len(reply))) if chance("split") else len(reply)
        self._post(now, reply[:cut])
        if cut < len(reply):
            self._post(now + draw.uniform(0.001, 0.12), reply[cut:])
        if chance("duplicate"):
            self._post(now + 0.001, reply)


class FaultyDirect(FaultyNeckWear, VirtualDirect):
    """A virtual player of the link that answers, with `faults`: the radio loses frames on the way to it."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.lacks = _LACKING[: int(self.faults.get("lacks", 0))]

    def _obey(self, frame: Any, now: float) -> None:
        if self._left[0] > 0 and not self._chance("radio_loss"):
            super()._obey(frame, now)
