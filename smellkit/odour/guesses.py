"""What nose recordings look like they come from: a shipped one, or a description full of guesses, each in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import noses
from smellkit.noses import SECONDS, Column, Description
from smellkit.odour.formats import clock_names, label_column, step_of
from smellkit.odour.sheets import Raw

FASTEST = 500.0  # rows a second that a nose may have without saying so
KINDS = (  # in the name of a column -> role, unit, span, in this order; anything else is a gas sensor
    (r"temp|^t$", "temperature", "celsius", (-45.0, 125.0)),
    (r"hum|^rh|^h$", "humidity", "percent", (0.0, 100.0)),
    (r"press|baro", "pressure", "hectopascal", (300.0, 1200.0)),
    (r"altitude|battery|fan|rpm", "other", "none", (-1e9, 1e9)),
)
SPANS = {"ppm": 1e5, "volt": 5.5, "ohm": 1e9, "kilo-ohm": 1e6, "rs/r0": 1e4}  # tops of a gas sensor's readings
NO_SENSOR = re.compile(r"id|index|no\.?|row|sample|unnamed.*|sensor[ _]?id", re.IGNORECASE)
NO_READING = (-999.0, -127.0, -1.0)  # what libraries of sensors answer in place of a reading


def guessed(folder: Path, raws: Sequence[Raw]) -> tuple[Description, list[str]]:
    """The nose that all of the recordings look like, and what of it is only guessed: nothing of one that ships."""
    first = raws[0]
    here = [name for name in first.cells if all(name in raw.cells for raw in raws)]
    numeric = [name for name in here if all(pd.api.types.is_numeric_dtype(raw.cells[name]) for raw in raws)]
    values = {name: np.concatenate([raw.cells[name].to_numpy(np.float64) for raw in raws]) for name in numeric}
    if shipped := next((one for one in map(noses.load, noses.names()) if _is(one, first, values)), None):
        return shipped, []
    if not first.named and not first.features:
        hint = f"write the names of the columns above the first row, or a {noses.FILE} with as many columns"
        raise first.fault("the names of the columns", "no header", hint, line=1)
    words = ["a row is taken as an exposure of its own, since the class changes from row to row"] * first.features
    clock, columns = clock_names(first), {}
    units = {name: unit for name in numeric for unit in SECONDS if name.strip().lower() in (unit, f"{unit}s")}
    clock = clock or list(units)[:1]
    everywhere = dict.fromkeys(name for raw in raws for name in raw.cells)
    for name in [name for name in everywhere if name not in (*clock, label_column(first))]:
        if name not in numeric or np.isnan(values[name]).all() or NO_SENSOR.fullmatch(name.strip()):
            why = "it looks like no sensor" if name in here else "not every recording has it"
            words.append(f"{name}: left out, {why}")
            continue
        columns[name] = _column(name, values[name], first, words)
    if not any(column.role == "gas" for column in columns.values()):
        hint = f"write a {noses.FILE} with your columns into the folder; here are {', '.join(here)[:200]}"
        raise first.fault("a column of a gas sensor", "none that looks like one", hint)
    nose = Description(folder.resolve().stem, columns, features=first.features)
    if len(clock) != 1 or first.features:
        return nose, words
    nose = replace(nose, clock=clock[0], clock_unit=units.get(clock[0]))
    words.append(f"{clock[0]}: taken as the clock")
    step = 0.0 if nose.clock_unit else step_of(first, nose)
    if 0 < step < 1 / FASTEST:  # hours, where seconds would mean thousands of rows each
        unit = "hour" if 0.05 < step * 3600 < 120 else "day"
        words.append(f"{clock[0]}: unit guessed {unit}, since rows would be {step:.3g} s apart")
        nose = replace(nose, clock_unit=unit)
    return nose, words


def remarks(nose: Description, guesses: Sequence[str]) -> dict[str, str]:
    """Guesses as remarks in the nose's TOML, each at its key."""
    comments = {}
    for name, prefix in [*((name, f"{name}.") for name in nose.columns), (nose.clock, "clock_")]:
        for text in (text.removeprefix(f"{name}: ") for text in guesses if text.startswith(f"{name}: ")):
            key = "unit" if text.startswith("unit") else "fault" if text.endswith("no reading") else "role"
            comments[f"{prefix}{key}".replace("clock_role", "clock")] = f"{text}: confirm"
    return comments


def _is(nose: Description, raw: Raw, values: dict[str, NDArray]) -> bool:
    """Whether recordings have the columns of a shipped nose, in units to convert, and counts where it counts."""
    for name, column in nose.columns.items():
        source = next((one for one in (name, *column.also) if one in values), "")
        known = (column.unit, *noses.UNITS[column.unit])
        if not source or raw.features or raw.units.get(source, column.unit) not in known:
            return False
        if column.unit == "adc" and _unit_of(values[source]) != "adc":
            return False
    return True


def _column(name: str, values: NDArray, raw: Raw, words: list[str]) -> Column:
    """Role, unit and span of a column by its name and its values; everything that is a guess goes into `words`."""
    plain = re.sub(r"[(\[].*", "", name).strip().lower()
    role, usual, span = next((kind[1:] for kind in KINDS if re.search(kind[0], plain)), ("gas", "", (0.0, 0.0)))
    faults = tuple(one for one in NO_READING if np.nanmin(values) == one and (values[values != one] >= 0).all())
    values = values[~np.isin(values, faults)]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if raw.features:
        return Column("gas", "none", (-10 * max(abs(low), abs(high), 1.0), 10 * max(abs(low), abs(high), 1.0)))
    if not (unit := raw.units.get(name, "")):
        pascal = role == "pressure" and 30_000 <= np.nanmedian(values) <= 120_000
        unit = "pascal" if pascal else usual or _unit_of(values)
        words.append(f"{name}: unit guessed {unit} from {low:g} to {high:g}")
    if role == "gas":
        words.append(f"{name}: taken as a gas sensor")
        top = next((top for top in noses.FULL if high <= top), 0) if unit == "adc" else SPANS.get(unit, 0)
        span = (0.0, float(top)) if top else (min(0.0, 10 * low), 10 * max(abs(high), 1e-6))
    elif unit == "pascal":
        span = (30_000.0, 120_000.0)
    if faults:
        words.append(f"{name}: {faults[0]:g} taken as no reading")
    return Column(role, unit, span, faults)


def _unit_of(values: NDArray) -> str:
    """The unit that readings of a gas sensor look like."""
    low, high = np.nanmin(values), np.nanmax(values)
    whole = np.all(values[np.isfinite(values)] % 1 == 0)
    if whole and low >= 0 and high > 20 and high <= 65535:
        return "adc"
    return "volt" if low >= 0 and 1.2 < high <= 5.5 and not whole else "none"
