"""Recordings of any described nose, simulated: every gas column is a mixture of the films of `nose.py`, in its unit.

A score on them says that code works, nothing about noses.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smellkit import noses
from smellkit.errors import OptionError
from smellkit.noses import Column, Description
from smellkit.paths import write_text
from smellkit.simulate import nose as physics

FIRST_DAY = pd.Timestamp(2026, 3, 2, 9)


def write_recordings(
    folder: Path, nose: Description, *, classes: int = 4, recordings: int = 12, seconds: float = 300, days: int = 3,
    seed: int = 7,
) -> Path:  # fmt: skip
    """Write `recordings` of each of `classes` substances, dealt over `days`, and the nose's `nose.toml` into `folder`.

    A folder a class; columns are the nose's and a clock in milliseconds since 1970. The same arguments, the same files.
    """
    if nose.features:
        raise OptionError(f"{nose.name} has rows of features, which are not simulated", hint="a nose with a clock")
    most = {"classes": (classes, len(physics.SUBSTANCES)), "recordings": (recordings, 1000), "days": (days, 1000)}
    for name, (number, limit) in (most | {"seconds": (seconds, 86_400)}).items():
        if not 1 <= number <= limit:
            raise OptionError(f"{name} is {number}", hint=f"1 to {limit}")
    if folder.exists() and any(folder.iterdir()):
        raise OptionError(f"{folder} is not empty", hint="a new folder")
    rng, rate = np.random.default_rng(seed), nose.rate or 1.0
    mixing = rng.dirichlet(np.full(len(physics.FILMS), 0.4), len(nose.gas)).T  # (films, gas columns)
    bases = rng.normal(0, 0.5, len(nose.gas))
    sessions = [physics.session(rng, spread=0.15) for _ in range(days)]
    clock = nose.clock or "timestamp_ms"
    for name in sorted(physics.SUBSTANCES)[:classes]:
        for number in range(recordings):
            day = number % days
            how: dict[str, Any] = {"seconds": seconds, "rate": rate, "onset": rng.uniform(0.05, 0.15) * seconds}
            how |= {"strength": rng.lognormal(0, 0.2), "since": number * seconds}
            level, weather = physics.conductance({name: 1.0}, sessions[day], rng, **how)
            films = level @ mixing + bases + rng.normal(0, 0.005, (len(level), len(nose.gas)))
            gas = iter(films.T)
            columns = {
                key: _said(column, np.exp(next(gas)) if column.role == "gas" else _weather(column, weather))
                for key, column in nose.columns.items()
            }
            start = FIRST_DAY + pd.Timedelta(days=day, minutes=10 * number)
            times = start.timestamp() * 1000 + np.arange(len(level)) * 1000 / rate
            table = pd.DataFrame({clock: times.round().astype(np.int64), **columns})
            write_text(folder / name / f"{name}_{number + 1}.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(folder / noses.FILE, noses.as_toml(nose))
    return folder


def _weather(column: Column, weather: pd.DataFrame) -> np.ndarray:
    """Temperature in degrees Celsius, pressure in hPa, humidity in %; nothing else is in the air."""
    known = {"temperature": "Temperature", "pressure": "Pressure", "humidity": "Humidity"}
    values = weather[known[column.role]].to_numpy() if column.role in known else np.zeros(len(weather))
    return values * (100 if column.unit == "pascal" else 1)


def _said(column: Column, value: np.ndarray) -> np.ndarray:
    """What a column says of a conductance over the load's, or of the weather, in its unit and span."""
    low, high = column.span
    if column.role == "gas":
        share = value / (1 + value)
        by_unit = {
            "adc": np.round(share * high),
            "volt": share * min(high, 5.0),
            "ohm": 1e4 / value,
            "kilo-ohm": 10 / value,
            "ppm": 20 * value,
        }
        value = by_unit.get(column.unit, 1 / value if column.unit == "rs/r0" else value)
    return np.clip(np.round(value, 4), low, high)
