"""Recordings as OpenSmell's Exchange Format 1.0: a CSV and a JSON each, for whoever shares them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from smellkit import paths
from smellkit.errors import OptionError
from smellkit.noses import Description

UNITS = {  # of a description -> as the format calls it; it knows no others
    "ohm": "resistance_ohm", "volt": "voltage", "rs/r0": "rs_r0", "adc": "adc",
    "celsius": "temperature_celsius", "percent": "humidity_percent",
}  # fmt: skip


def write_exchange(folder: Path, nose: Description, table: pd.DataFrame, *, device: str = "nose") -> int:
    """Write the recordings of a tidy `table` into a new `folder` and return how many: one CSV and JSON for each.

    Columns get the prefix that the format asks for; kilo-ohms become ohms; a unit that it doesn't know is told as text.
    """
    if nose.features:
        raise OptionError("Rows of features are no recordings", hint="the Exchange Format holds readings in time")
    if folder.exists() and any(folder.iterdir()):
        raise OptionError(f"{folder} is not empty", hint="a new folder")
    columns = list(nose.columns)
    names = {name: name if re.match("sensor_|MQ|ch", name) else f"sensor_{name}" for name in columns}
    units = {names[name]: nose.columns[name].unit.replace("kilo-ohm", "ohm") for name in columns}
    kilo = [names[name] for name in columns if nose.columns[name].unit == "kilo-ohm"]
    count = 0
    for (substance, session), recordings in table.groupby(["substance", "session"], sort=True):
        for number, (_, rows) in enumerate(recordings.groupby("file", sort=True), 1):
            values = rows[columns].rename(columns=names)
            values[kilo] *= 1000
            if nose.rate:
                values.insert(0, "timestamp", (rows["step"] / nose.rate).round(4))
            told = {
                "substance": _word(substance),
                "device_id": _word(device),
                "session_date": session or "unknown",
                "sensor_units": {name: UNITS[unit] for name, unit in units.items() if unit in UNITS},
                "sensor_info": {name: f"in {unit}" for name, unit in units.items() if unit not in UNITS},
                **({"sampling_rate_hz": nose.rate} if nose.rate else {}),
                "notes": f"nose {nose.name}",
            }
            again = f"-{number}" if number > 1 else ""
            stem = f"{told['substance']}_{told['device_id']}_{_word(told['session_date'])}{again}"
            paths.write_text(folder / f"{stem}.csv", values.to_csv(index=False, lineterminator="\n"))
            paths.write_json(folder / f"{stem}.json", told)
            count += 1
    return count


def _word(text: object) -> str:
    """One word with hyphens, as names of files there need it."""
    return re.sub(r"[^\w.]+|_", "-", str(text)).strip("-") or "unknown"
