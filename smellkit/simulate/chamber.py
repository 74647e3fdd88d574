"""The air between a virtual player and a virtual nose, so that a loop can be closed without either.

    player.air --strength of each cartridge--> concentrations (12), decaying --> films --> conductance --> counts

The physics of the nose are those of `nose.py`. What the loop has to find out differs from seed to seed: how strong each
cartridge is, how fast it fades, how unlike its substance it smells, and the session. Every scent is in units of the air
above its substance, `nose.SUBSTANCES`: the true shares are those of these amounts.
"""

import math
from collections.abc import Callable

import numpy as np

from smellkit.device.clock import Clock
from smellkit.device.enose import Row
from smellkit.device.virtual import VirtualNeckWear
from smellkit.odour.scents import SCENTS
from smellkit.sensors import GROVE, SENSORS
from smellkit.simulate import nose

DECAY = 10.0  # s: how long a scent stays in the air
UNEVEN = 0.7  # deviation of the cartridges' strengths, in logarithm: one may be twice or three times another
FADE = 1800.0  # s of play after which a cartridge has a third of its strength
VARIETY = 0.1  # deviation of each compound of a cartridge from its substance, in logarithm


class Chamber:
    """The air that `device` fills, and a board in it with `columns`: SENSORS, or the four of the mixture board.

    `uneven=0` gives cartridges of strength one each: standards. `emitted` (12,) is how much of each scent was given off
    so far, in seconds at strength one.
    """

    def __init__(
        self, device: VirtualNeckWear, *, seed: int = 0, rate: float = 10.0, columns: tuple[str, ...] = GROVE,
        uneven: float = UNEVEN, fade: float = FADE, now: Callable[[], float] = Clock.now,
    ):  # fmt: skip
        self.device, self.rate, self.columns, self.now = device, rate, columns, now
        self._rng = np.random.default_rng(seed)
        self.session = nose.session(self._rng)
        self.strengths = np.exp(uneven * self._rng.normal(0, 1, len(SCENTS)))
        variety = VARIETY if uneven else 0.0
        variations = np.exp(variety * self._rng.normal(0, 1, (len(SCENTS), len(nose.COMPOUNDS))))
        self._odours = np.array([nose.SUBSTANCES[name] for name in SCENTS]) * variations
        self._loads = nose.MIXTURE_LOADS if columns == GROVE else 0.0
        self._fade, self._films = fade, nose.Films()
        self._air, self._played, self.emitted = np.zeros((3, len(SCENTS)))  # played: s, of each cartridge
        self._plume, self._wander = 0.0, np.zeros(len(nose.FILMS))
        self._began = self._time = now()

    def row(self, time: float) -> list[float]:
        """Let the air act up to `time`, and return what the board reads then, in the order of its columns."""
        seconds, self._time = max(1e-6, time - self._time), time
        played = self._overlap(time - seconds, time)
        given_off = self.strengths * np.exp(-self._played / self._fade) * played
        self._played += played
        self.emitted += given_off
        self._air += (given_off / seconds - self._air) * -math.expm1(-seconds / DECAY)
        self._plume = self._remember(self._plume, 8.0, seconds)
        self._wander = self._remember(self._wander, 60.0, seconds)
        there = np.exp(0.12 * self._plume) * (self._air @ self._odours)
        films = self._films.step(there, rate=1 / seconds)
        at = self.session
        level = nose.response(films, at, humidity=at.humidity, temperature=at.temperature) + self._loads
        level = level + at.drift * (time - self._began) / 1000 + 0.006 * self._wander
        return self._read(level)

    def _read(self, level: np.ndarray) -> list[float]:
        grove = nose.counts(level[:4], self._rng, noise=0.8).tolist()
        if self.columns != SENSORS:
            return grove
        weather = [self.session.temperature, self.session.pressure, self.session.humidity]
        estimates = nose.estimates(level, self._rng).tolist()
        return [*grove, *estimates[:3], *weather, estimates[3], nose.altitude(self.session.pressure)]

    def _remember(self, noise, memory: float, seconds: float):
        """One step of noise of unit variance that remembers for `memory` seconds."""
        keep = math.exp(-seconds / memory)
        return keep * noise + math.sqrt(1 - keep**2) * self._rng.normal(0, 1, np.shape(noise))

    def _overlap(self, start: float, end: float) -> np.ndarray:
        """Seconds (12,) of each scent in the air between `start` and `end`."""
        seconds = np.zeros(len(SCENTS))
        for piece in reversed(self.device.air):
            if piece.end is not None and piece.end <= start:
                break
            seconds[piece.scent - 1] += max(0.0, min(piece.end or end, end) - max(piece.start, start))
        return seconds


class ChamberNose:
    """A nose in a chamber on a fake clock: to wait for a row lets its time pass."""

    def __init__(self, chamber: Chamber, sleep: Callable[[float], None]):
        self.columns = chamber.columns
        self._chamber, self._sleep = chamber, sleep
        self._began, self._count = chamber.now(), 0

    def read(self, *, timeout: float = 5.0) -> Row:
        """Return the next row, at its time."""
        due = (self._count + 1) / self._chamber.rate
        self._sleep(max(0.0, self._began + due - self._chamber.now()))
        self._count += 1
        return Row(due, tuple(self._chamber.row(self._began + due)))

    def rows(self) -> list[Row]:
        """Return the rows whose time has passed."""
        rows = []
        while self._began + (self._count + 1) / self._chamber.rate <= self._chamber.now():
            rows.append(self.read())
        return rows
