"""Simulate an electronic nose: metal-oxide gas sensors that smell a mixture, for a sample that anyone may copy.

    mixture -> compounds -> concentration in the air (onset, plume) -> sensor film (two time constants, slower out
    than in) -> conductance (power law) -> voltage divider -> 10-bit counts; the session adds offset, drift, weather

Conductance follows Clifford and Tuma (Sensors and Actuators 3, 1983, 233-254): G = G0 (1 + sum_i K_i c_i)^beta with
water vapour as one of the gases; why a power: Yamazoe and Shimanoe (Sensors and Actuators B 128, 2008, 566-573). Slow
transients come from diffusion and reaction in the film: Gardner (Sensors and Actuators B 1, 1990, 166-170). Drift
from session to session: Vergara et al. (Sensors and Actuators B 166, 2012, 320-329). The numbers below are ours: chosen
to give counts in the range of SmellNet's (arXiv 2506.00239), not fitted. A score on simulated data says that code
works, nothing about noses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from smellkit.sensors import GROVE, OVERFLOW, PPM

FILMS = (*GROVE, *PPM, "Gas_Resistance")  # every metal-oxide film
COMPOUNDS = ("esters", "aldehydes", "terpenes", "alcohols", "sulphides", "phenols")
SUBSTANCES = {  # how much of each of COMPOUNDS is in the air above it
    "almond": (0.1, 1.3, 0.1, 0.3, 0.0, 0.1),
    "apple": (0.9, 0.5, 0.1, 0.5, 0.0, 0.0),
    "banana": (1.8, 0.1, 0.0, 0.4, 0.0, 0.1),
    "cinnamon": (0.1, 1.5, 0.4, 0.1, 0.0, 0.5),
    "cloves": (0.2, 0.1, 0.3, 0.1, 0.0, 1.9),
    "coriander": (0.0, 0.4, 0.8, 1.1, 0.0, 0.0),
    "cumin": (0.0, 0.9, 0.9, 0.1, 0.0, 0.1),
    "garlic": (0.0, 0.1, 0.0, 0.1, 1.9, 0.0),
    "mandarin_orange": (0.1, 0.2, 1.8, 0.1, 0.0, 0.0),
    "mango": (0.6, 0.1, 1.1, 0.2, 0.1, 0.0),
    "mint": (0.1, 0.0, 1.2, 1.3, 0.0, 0.0),
    "peach": (0.7, 0.6, 0.1, 0.3, 0.0, 0.2),
    "pear": (1.3, 0.3, 0.0, 0.7, 0.0, 0.0),
    "strawberry": (1.1, 0.2, 0.1, 0.1, 0.2, 0.4),
}
CROSS = np.array([  # K of each of FILMS (rows) for each of COMPOUNDS: every sensor answers to everything, unequally
    (0.6, 1.2, 0.4, 0.5, 1.9, 0.9),
    (1.7, 0.9, 0.5, 2.6, 0.4, 0.5),
    (1.3, 1.4, 1.9, 1.0, 0.7, 1.3),
    (0.5, 0.9, 0.2, 0.9, 1.3, 0.4),
    (1.1, 0.4, 0.3, 2.3, 0.2, 0.3),
    (0.9, 0.3, 1.7, 0.5, 0.5, 0.6),
    (0.8, 0.6, 1.0, 1.4, 0.3, 1.5),
    (1.0, 1.1, 1.2, 1.1, 1.0, 1.6),
])  # fmt: skip
BETA = np.array((0.45, 0.5, 0.6, 0.35, 0.5, 0.55, 0.5, 0.4))  # exponent of the power law
BASE = np.log((0.035, 0.065, 0.09, 2.9, 1.0, 1.0, 1.0, 1.0))  # log of conductance over the load's, in clean air
WATER = np.array((0.6, 0.8, 0.9, 0.3, 0.7, 0.4, 0.6, 1.0))  # K of water vapour, for 100 % of humidity
WARMTH = np.array((0.010, 0.012, 0.014, 0.004, 0.010, 0.008, 0.010, 0.015))  # log conductance a degree
FILM = np.array((14.0, 9.0, 12.0, 5.0, 8.0, 10.0, 11.0, 7.0))  # s: adsorption on each film
HEAVY = np.array((1.0, 1.2, 2.2, 0.8, 1.4, 3.0))  # a compound's time over an ester's: large molecules are slow
MIXTURE_LOADS = np.array((3.2, 3.1, 2.2, -1.6, 0, 0, 0, 0))  # the mixture board has other loads
SLOW = 8.0  # the second time constant (diffusion into the film) over the first
SLOW_SHARE = 0.4  # of the response that waits for it
LEAVING = 2.5  # desorption takes this much longer than adsorption


@dataclass(frozen=True)
class Day:
    """A session at the bench: what all recordings made in it share, and no odour explains.

    `offset` (8,) and `drift` (8,) move the log conductance of `FILMS`, drift per 1000 s; weather in degrees Celsius,
    hPa and %. `stuck`: the environment sensor does not answer.
    """

    offset: np.ndarray
    drift: np.ndarray
    temperature: float
    pressure: float
    humidity: float
    stuck: bool = False


def session(rng: np.random.Generator, *, spread: float = 0.25, stuck: bool = False) -> Day:
    """Return a random session; `spread` is the standard deviation of the offsets in log conductance."""
    return Day(
        offset=rng.normal(0, spread, len(FILMS)) * (1, 1, 1, 0.3, 1, 1, 1, 1),
        drift=rng.normal(0, 0.08, len(FILMS)),
        temperature=rng.normal(25.3, 0.5),
        pressure=rng.normal(1015, 6),
        humidity=rng.uniform(22, 48),
        stuck=stuck,
    )


def wander(rng: np.random.Generator, steps: int, *, memory: float, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return noise (steps, *shape) of unit variance that remembers: each step keeps exp(-1 / memory) of the last."""
    keep = np.exp(-1 / memory)
    fresh = rng.normal(0, 1, (steps, *shape))
    fresh[1:] *= np.sqrt(1 - keep**2)
    for step in range(1, steps):
        fresh[step] += keep * fresh[step - 1]
    return fresh


class Films:
    """What adsorbs on the films, step by step: two first-order lags a film and compound; out is slower than in."""

    def __init__(self) -> None:
        self._seconds = FILM[:, None] * HEAVY
        self._fast, self._slow = np.zeros_like(self._seconds), np.zeros_like(self._seconds)

    def step(self, there: np.ndarray, *, rate: float) -> np.ndarray:
        """Return the coverage (sensors, compounds) after one step in a concentration `there` (compounds,)."""
        for film, time in ((self._fast, self._seconds), (self._slow, self._seconds * SLOW)):
            film += (there - film) * -np.expm1(-1 / (rate * time * np.where(there < film, LEAVING, 1.0)))
        return (1 - SLOW_SHARE) * self._fast + SLOW_SHARE * self._slow


def coverage(air: np.ndarray, *, rate: float) -> np.ndarray:
    """Return the coverage (steps, sensors, compounds) of the films for concentrations `air` (steps, compounds)."""
    films = Films()
    return np.array([films.step(there, rate=rate) for there in air])


def response(films: np.ndarray, at: Day, *, humidity: ArrayLike, temperature: ArrayLike) -> np.ndarray:
    """Return log conductance (..., 8) over the load's, without drift, of films covered by `films` (..., 8, compounds).

    `humidity` in % and `temperature` in degrees Celsius: a number, or one a step.
    """
    gas = (films * CROSS).sum(axis=-1) + WATER * (np.asarray(humidity)[..., None] / 100)
    warmth = WARMTH * (np.asarray(temperature)[..., None] - 25)
    return BASE + at.offset + warmth + BETA * np.log1p(gas)


def conductance(
    ratios: Mapping[str, float], at: Day, rng: np.random.Generator, *, seconds: float, rate: float, onset: float,
    puff: tuple[float, float] = (np.inf, 0.0), strength: float = 1.0, variety: float = 0.1, since: float = 0.0,
) -> tuple[np.ndarray, pd.DataFrame]:  # fmt: skip
    """Return log conductance (steps, 8) over the load's, and the weather (steps, 3), of one recording.

    The odour is there from `onset` seconds on (negative: from before the start), `strength` times as strong as usual;
    `puff` is for how many seconds it is held to the nose, and then away, again and again.
    No two apples smell alike: `variety` is the standard deviation of each compound, in logarithm.
    `since` seconds of the session have passed, so its drift has begun.
    """
    steps, early = round(seconds * rate), round(max(0.0, -onset) * rate)
    time = (np.arange(-early, steps) + 0.5) / rate
    plume = np.exp(0.12 * wander(rng, len(time), memory=8 * rate))
    held, away = puff
    there = (time >= onset) & (((time - onset) % (held + away) < held) if np.isfinite(held) else True)
    above = sum(share * np.array(SUBSTANCES[name]) for name, share in ratios.items())
    given_off = above * np.exp(variety * rng.normal(0, 1, len(COMPOUNDS)))
    films = coverage((there * strength * plume)[:, None] * given_off, rate=rate)[early:]
    time = time[early:]
    weather = pd.DataFrame({
        "Temperature": at.temperature + 0.03 * wander(rng, steps, memory=120 * rate) + 0.0002 * (since + time),
        "Pressure": at.pressure + 0.05 * wander(rng, steps, memory=90 * rate),
        "Humidity": np.clip(at.humidity + 0.3 * wander(rng, steps, memory=100 * rate), 5, 95),
    })  # fmt: skip
    drift = at.drift * ((since + time) / 1000)[:, None] + 0.006 * wander(rng, steps, memory=60 * rate, shape=(8,))
    level = response(films, at, humidity=weather["Humidity"], temperature=weather["Temperature"])
    return level + drift, weather


def counts(log_conductance: np.ndarray, rng: np.random.Generator, *, noise: float = 0.6) -> np.ndarray:
    """Return what a 10-bit converter reads over the load of a voltage divider: whole numbers from 0 to 1023."""
    share = 1 / (1 + np.exp(-log_conductance))
    return np.clip(np.round(1023 * share + rng.normal(0, noise, share.shape)), 0, 1023).astype(np.int64)


def recording(ratios: Mapping[str, float], at: Day, rng: np.random.Generator, **options: Any) -> pd.DataFrame:
    """Return one recording in the columns of SmellNet's base files; `options` are those of `conductance`."""
    options = {"seconds": 300.0, "rate": 1.0, "onset": 10.0, **options}
    level, weather = conductance(ratios, at, rng, **options)
    table = pd.DataFrame(counts(level[:, :4], rng), columns=list(GROVE))
    said = estimates(level, rng)
    table[list(PPM)] = said[:, :3].astype(np.int64)  # the library cuts decimals off
    if at.stuck:  # what SmellNet's BME680 writes when it does not answer
        return table.assign(Temperature=33.59, Pressure=688.6, Humidity=100.0, Gas_Resistance=0.0, Altitude=3170.54)
    return table.join(weather).assign(Gas_Resistance=said[:, 3], Altitude=altitude(weather["Pressure"])).round(2)


def estimates(level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return Alcohol, LPG, Benzene and Gas_Resistance (..., 4) of films with log conductance `level` (..., 8)."""
    answer = np.exp(level[..., 4:])
    noise = np.moveaxis(rng.normal(0, 0.3, (2, *answer.shape[:-1])), 0, -1)
    firmware = np.trunc(np.clip((1.2, 11.0) * answer[..., :2] ** (1.6, 1.1) + noise, 0, 65535))
    benzene = np.where(answer[..., 2] > 1.9, OVERFLOW, np.trunc(0.4 * answer[..., 2]))
    return np.concatenate([firmware, np.stack([benzene, 620 / answer[..., 3]], axis=-1)], axis=-1)


def altitude(pressure: Any) -> Any:
    """Return the altitude in m that a board derives from the pressure in hPa."""
    return 44330 * (1 - (pressure / 1013.25) ** (1 / 5.255))


def mixture_recording(ratios: Mapping[str, float], at: Day, rng: np.random.Generator, **how: Any) -> pd.DataFrame:
    """Return one recording in the columns of SmellNet-Mixture: 60 s at 10 Hz, the odour there before it begins."""
    options = {"seconds": 60.0, "rate": 10.0, "onset": -45.0, **how}
    level, _ = conductance(ratios, at, rng, **options)
    level = level + MIXTURE_LOADS
    table = pd.DataFrame(counts(level[:, :4], rng, noise=0.8), columns=["NO2", "C2H5CH", "VOC", "CO"])  # [sic]
    table.insert(0, "timestamp_ms", np.arange(len(table)) * round(1000 / options["rate"]))
    return table


def bootstrap(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return rows drawn from a mixture recording, two averaged: no order, as in SmellNet's synthetic files."""
    rows = table.iloc[:, 1:].to_numpy()
    drawn = rows[rng.integers(0, len(rows), (2, len(rows)))].mean(axis=0)
    return pd.DataFrame(drawn, columns=table.columns[1:]).assign(timestamp_ms=table["timestamp_ms"])[table.columns]
