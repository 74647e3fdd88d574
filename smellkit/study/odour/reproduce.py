"""How near does the closed loop bring the air to a target? Player, air and nose are simulated, on a fake clock.

    seeded target -> sniff, adjust -> best shares --played once more--> true shares in the air --+-- error
                  \\-> played once, open loop ------------------------> true shares in the air --+

True shares are those of the amounts given off, cartridge strengths included, in units of the air above each substance.
The loop is told neither these nor the session: only what standard cartridges answered in another session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smellkit.device.link import Link
from smellkit.device.neckwear import NeckWear
from smellkit.device.virtual import VirtualNeckWear
from smellkit.evaluate import Outcome, evaluate
from smellkit.odour.reproduction import Reproduction, Sniffing, answers, reproduce
from smellkit.odour.scents import SCENTS
from smellkit.simulate import nose
from smellkit.simulate.chamber import Chamber, ChamberNose
from smellkit.study.device.fake import FakeClock, MemoryPort

EXPONENTS = tuple(nose.BETA[:4].tolist())
GUESS = (0.45,) * 4  # when the exponents of a board are not known
STANDARDS_SEED = 1_000_000  # another session than any that is measured


class Room:
    """A player and a nose in one simulated chamber, on a fake clock; `chamber` options are those of `Chamber`."""

    def __init__(self, seed: int, *, device: VirtualNeckWear | None = None, **chamber: Any):
        self.clock = FakeClock()
        self.device = device or VirtualNeckWear(now=self.clock.now)
        self.clock.watch(self.device.due)
        self.neck = NeckWear(self._connect, name="memory", clock=self.clock)
        self.chamber = Chamber(self.device, seed=seed, now=self.clock.now, **chamber)
        self.nose = ChamberNose(self.chamber, self.clock.sleep)

    def _connect(self) -> Link:
        self.port = MemoryPort(self.device, clock=self.clock)
        return Link(self.port, name="memory")

    def play(self, shares: Mapping[str, float], *, seconds: float = 60.0) -> NDArray[np.float64]:
        """Play `shares` and return the true shares (12,) of what was given off."""
        before = self.chamber.emitted.copy()
        self.neck.play_mixture([shares.get(name, 0.0) for name in SCENTS], seconds=seconds, slot=1.0, gap=0.0)
        while self.neck.playing:
            self.nose.read()
        given_off = self.chamber.emitted - before
        return given_off / given_off.sum()
