"""What weights know: the range of every channel in training, and whether a recording lies outside of it.

A manifest holds `Ranges` under "ranges". Outside is told with the unit that would explain it, where one is recognised:
volts or per cent in place of counts, counts of another converter, inches, metres per second squared.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.errors import WeightsError

FULL = 1023.0  # the largest count of a 10-bit converter
SCALES = {
    "counts of a 12-bit converter": 4095, "counts of a 14-bit converter": 16383, "counts of a 16-bit converter": 65535,
    "counts of an 8-bit converter": 255, "volts of 3.3": 3.3, "volts of 5": 5, "millivolts of 3300": 3300,
    "millivolts of 5000": 5000, "per cent of full scale": 100, "shares of full scale": 1,
}  # fmt: skip  # what says full scale where counts say FULL
UNITS: dict[str, dict[str, tuple[float, float]]] = {  # unit -> another one -> (factor, offset) from the first to it
    "counts": {name: (full / FULL, 0) for name, full in SCALES.items()},
    "accelerometer": {"m/s²": (9.80665, 0), "mg": (1000, 0)},
    "gyroscope": {"rad/s": (math.pi / 180, 0)},
    "magnetometer": {"gauss": (0.01, 0), "mT": (0.001, 0), "nT": (1000, 0)},
    "position": {"inches": (1 / 25.4, 0), "metres": (0.001, 0)},
    "pressure": {"hPa": (10, 0), "Pa": (1000, 0)},
    "temperature": {"kelvin": (1, 273.15), "degrees Fahrenheit": (1.8, 32)},
    "current": {"mA": (1000, 0)},
    "grey": {"shares of full scale": (1 / 255, 0), "grey levels of 16 bits": (257, 0)},
}
SLACK = 1.0  # how far beyond its range a channel may lie, in ranges
STILL = 2.5  # times the longest standstill in training ...
LEAST = 250  # ... and at least so many rows without change are a dead channel
OUTSIDE = "outside what these weights know"
KEYS = ("low", "high", "activity", "still")


@dataclass(frozen=True)
class Ranges:
    """Of each channel: 1st and 99th percentile, activity (deviation within a recording) and the longest standstill.

    `strict` refuses a single channel that is off, as noses need it; without, only a unit that explains a whole group of
    channels counts, since machines lose sensors and weights cope with that.
    """

    names: tuple[str, ...]
    unit: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    activity: NDArray[np.float64]
    still: NDArray[np.float64]
    groups: Mapping[str, Sequence[float]]  # unit -> least and largest size, least and largest activity
    strict: bool = True

    @classmethod
    def measure(
        cls, recordings: Iterable[NDArray], *, names: Sequence[str], unit: Sequence[str], strict: bool = True
    ) -> Ranges:
        """Measure training recordings (rows, channels); NaN is what is missing."""
        parts = [np.asarray(part, np.float64) for part in recordings]
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a channel that is absent everywhere
            low, high = np.nanquantile(np.concatenate(parts), [0.01, 0.99], axis=0)
            activity = np.nanmedian([np.nanstd(part, axis=0) for part in parts], axis=0)
            sizes = [_sizes(part, unit) for part in parts]
        groups = {}
        for name in dict.fromkeys(unit):
            rows = np.array([one[name] for one in sizes]).T  # size, activity
            groups[name] = [float(f(row)) for row in rows for f in (np.nanmin, np.nanmax) if np.isfinite(row).any()]
        still = np.max([standstill(part) for part in parts], axis=0)
        return cls(tuple(names), tuple(unit), low, high, activity, still, groups, strict)

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Ranges | None:
        """Those of a manifest; None where it has none. WeightsError where they can't be read."""
        if (kept := manifest.get("ranges")) is None:
            return None
        try:
            channels = kept["channels"]
            columns = {key: np.array([channels[name][key] for name in channels], float) for key in KEYS}
            unit = tuple(channels[name]["unit"] for name in channels)
            return cls(tuple(channels), unit, **columns, groups=kept["groups"], strict=kept["strict"])
        except (KeyError, TypeError, ValueError, AttributeError) as why:
            raise WeightsError(f"The ranges in the manifest can't be read: {why!r}", hint="train it again") from why

    def asdict(self) -> dict[str, Any]:
        """As a manifest holds them."""

        def plain(values: Iterable[float]) -> list[float | None]:
            return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]

        table = pd.DataFrame({"unit": self.unit, **{key: plain(getattr(self, key)) for key in KEYS}}, dtype=object)
        groups = {name: plain(values) for name, values in self.groups.items()}
        return {"strict": self.strict, "groups": groups, "channels": table.set_axis(self.names).to_dict("index")}


def standstill(values: NDArray) -> NDArray[np.float64]:
    """The most rows without any change, of each channel of `values` (rows, channels)."""
    changed = [[-1, *np.flatnonzero(np.diff(column)), len(column) - 1] for column in np.asarray(values).T]
    return np.array([np.diff(rows).max(initial=0) for rows in changed], float)


def outside(values: NDArray, ranges: Ranges | None) -> str:
    """Why `values` (rows, channels) are nothing that weights can know, with the factor if one explains it, or ""."""
    if ranges is None or not len(values):
        return ""
    return (_strictly if ranges.strict else _by_group)(np.asarray(values, np.float64), ranges)


def _strictly(values: NDArray, ranges: Ranges) -> str:
    """Of channels far from their range: beyond it by as much again, below half of it, or above full scale; or dead."""
    middle, low, high = np.median(values, axis=0), ranges.low, ranges.high
    room = SLACK * np.maximum(high - low, 0.1 * np.abs(high))
    far = (middle > high + room) | (middle < low - room) | ((low > 0) & (middle < low / 2))
    far |= (np.array(ranges.unit) == "counts") & ((middle > FULL) | ((middle >= FULL) & (high < FULL)))
    dead = standstill(values) >= np.maximum(LEAST, STILL * ranges.still)
    if not (far | dead).any():
        return ""
    index = int(np.argmax(far if far.any() else dead))
    name, at = ranges.names[index], f"{middle[index]:.4g}"
    more = f", and {int((far | dead).sum()) - 1} more channels" if (far | dead).sum() > 1 else ""
    if not far.any():
        return f"{OUTSIDE}: {name} stands still at {at}{more}: a dead channel? Check its wire"
    known = f"{low[index]:.4g} to {high[index]:.4g} in training"
    return f"{OUTSIDE}: {name} is about {at} ({known}){more}{_explained(middle, far, ranges)}"


def _explained(middle: NDArray, far: NDArray, ranges: Ranges) -> str:
    """The units in which all channels of the kind that is off would lie in their ranges, in words."""
    kind = ranges.unit[int(np.argmax(far))]
    same, low, high = np.array(ranges.unit) == kind, ranges.low, ranges.high
    once = np.where(far, 1000 * middle, middle)[same]
    near = ((once >= low[same] / 1.2) & (once <= high[same] * 1.2)).all()
    if near and not far[same].all() and (middle[far] % 1 > 0).all():
        return ". Is it a point between thousands, as in 1.092 for 1092?"
    width, fits = 0.25 * (high - low), []
    for name, (factor, offset) in UNITS.get(kind, {}).items():
        back = (middle - offset) / factor
        inside = (back >= np.minimum(low - width, low / 1.2)) & (back <= high + width) & (back > 0)
        if inside[same].all():
            fits.append(f"{name}, so multiply by {1 / factor:.4g}")
    return f". They look like {' or '.join(fits[:2])}" if fits else ""


def _sizes(values: NDArray, unit: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Of each kind of channel in `values` (rows, channels): root mean square of the medians, median of deviations."""
    kinds = np.array(unit)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a channel that is absent
        middle, moves = np.nanmedian(values, axis=0), np.nanstd(values, axis=0)
        groups = [(name, kinds == name) for name in dict.fromkeys(unit)]
        return {name: (np.sqrt(np.nanmean(middle[own] ** 2)), np.nanmedian(moves[own])) for name, own in groups}


def _by_group(values: NDArray, ranges: Ranges) -> str:
    """A unit that explains why all channels of a kind are off, in level or in motion; "" where none does."""
    measured = _sizes(values, ranges.unit)
    for kind, known in ranges.groups.items():
        if len(known) < 4 or _fits(measured[kind], known, room=2.0):
            continue
        own = np.array([unit == kind for unit in ranges.unit])
        for name, (factor, offset) in UNITS.get(kind, {}).items():
            back = _sizes((values[:, own] - offset) / factor, [kind] * int(own.sum()))[kind]
            if _fits(back, known, room=1.5):
                change = f"multiply by {1 / factor:.4g}" if not offset else f"subtract {offset:g}, divide by {factor:g}"
                usual = f"about {measured[kind][0]:.4g}, {known[0]:.4g} to {known[1]:.4g} in training"
                return f"{OUTSIDE}: the {kind} ({usual}). It looks like {name}: {change}"
    return ""


def _fits(measured: tuple[float, float], known: Sequence[float], *, room: float) -> bool:
    """Whether size and activity of a kind of channel lie within training's, with `room` as a factor on either side."""
    size, moves = measured
    if not (math.isfinite(size) and math.isfinite(moves)):
        return True
    level = known[0] / room <= size <= known[1] * room
    return level and known[2] / (2 * room) <= moves <= known[3] * 2 * room
