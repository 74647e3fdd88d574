"""What the recordings in a folder say by themselves, whatever their format, as `Raw`: class, session, clock, units.

    .csv .tsv .txt .dat   tables of text (see `sheets`)
    .csv beside a .json   OpenSmell Exchange Format: substance, session, units and rate are told there
    .bmerawdata, .csv     BME688: one reading a heater step; the steps of a cycle become the columns of one row
    1;10.0 1:15596.2 ...  LibSVM rows of features (UCI gas sensor drift)

Class of a recording: its label column, or the JSON beside it, or its folder, or its name without the number behind
(`red_large_3.csv`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import noses
from smellkit.checks import Report, fault, read_json, readable
from smellkit.checks.clock import clock_columns, read_clock
from smellkit.checks.report import content, decoded
from smellkit.errors import DataError
from smellkit.noses import SECONDS, Description
from smellkit.odour.recordings import base_of, unread
from smellkit.odour.sheets import SPELLED, Raw, read_text

LABELS = ("label", "class", "target", "substance", "odour", "odor", "smell")
SPLITS = ("training", "testing", "train", "test", "validation")
ALTERNATES = 0.2  # changes of the label a row, above which each row is an exposure of its own
SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".bmerawdata")
LIMIT = 2_000_000_000  # bytes of a file
BME = {  # what a column of a BME688 logger holds -> how its name, in small letters without marks, may begin
    "sensor": ("sensor index",),
    "clock": ("time since poweron", "timestamp since poweron", "timestamp ms", "timestamp"),
    "date": ("real time clock",),
    "temperature": ("temperature",),
    "pressure": ("pressure",),
    "humidity": ("relative humidity", "humidity"),
    "resistance": ("resistance gassensor", "gas resistance"),
    "step": ("heater profile step index", "gas index"),
    "scanning": ("scanning mode enabled", "scanning enabled"),
    "label": ("label tag",),
    "error": ("error code",),
    "valid": ("gas valid",),
}
GASES = dict(enumerate(("ethanol", "ethylene", "ammonia", "acetaldehyde", "acetone", "toluene"), 1))  # of UCI 270
UCI = 128  # its features: 8 of each of 16 sensors


def read(path: Path, *, report: Report) -> list[Raw]:
    """Return the recordings in a file; DataError says where it is none."""
    path = Path(path)
    if path.suffix.lower() == ".bmerawdata":
        return _bme_json(path, report)
    data = content(path, limit=LIMIT).removeprefix(b"\xef\xbb\xbf")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    if re.match(rb"\s*[\w.+-]+[; ]([\d.eE+-]+ )?\s*1:[\d.+-]", data[:200]):
        return [_libsvm(path, decoded(path, data))]
    raw = read_text(path, data, report)
    if not raw.named and raw.cells.shape[1] == UCI + 2:  # gas, concentration, then the features
        cells = raw.cells.iloc[:, 2:].set_axis([f"f{number}" for number in range(1, UCI + 1)], axis=1)
        cells = cells.assign(label=raw.cells["column 1"].astype(str).str.lower())
        return [Raw(path, cells, raw.lines, session=path.stem, features=True)]
    if known := _bme_columns(raw.cells.columns):
        return _cycles(raw, known, labels=_labels(path), report=report)
    described = path.with_suffix(".json")
    return [_exchange(raw, read_json(described), report) if described.is_file() else raw]


# OpenSmell Exchange Format


def _exchange(raw: Raw, told: dict[str, Any], report: Report) -> Raw:
    """What the JSON beside a CSV of OpenSmell's says of it."""
    if "substance" not in told:
        return raw
    raw.substance, raw.session = str(told["substance"]), str(told.get("session_date", ""))
    rate = told.get("sampling_rate_hz")
    raw.rate = float(rate) if isinstance(rate, int | float) and rate > 0 else None
    for name, unit in (told.get("sensor_units") or {}).items():
        if unit not in SPELLED:
            hint = "one of resistance_ohm, voltage, rs_r0, adc, temperature_celsius, humidity_percent"
            where = raw.path.with_suffix(".json")
            raise fault(where, key=f"$.sensor_units.{name}", expected="a known unit", found=repr(unit), hint=hint)
        raw.units[name] = SPELLED[unit]
    if not raw.units:
        report.note(raw.path, "its JSON tells no sensor_units")
    return raw


# BME688


def _bme_columns(names: Sequence[str]) -> dict[str, str]:
    """What each column of a BME688 logger holds -> its name; nothing where the names are others."""
    plain = {name: " ".join(re.findall(r"[a-z0-9]+", name.lower())) for name in map(str, names)}
    known: dict[str, str] = {}
    for what, starts in BME.items():
        hits = [name for start in starts for name, words in plain.items() if words.startswith(start)]
        if hits := [name for name in hits if name not in known.values()]:
            known[what] = hits[0]
    return known if {"resistance", "step"} <= set(known) else {}


def _bme_json(path: Path, report: Report) -> list[Raw]:
    value = read_json(path)
    try:
        columns = value["rawDataBody"]["dataColumns"]
        names = [str(column["name"]) for column in columns]
        cells = pd.DataFrame(value["rawDataBody"]["dataBlock"], columns=names, dtype=float)
    except (KeyError, TypeError, ValueError) as why:
        hint = "is it a file of BME AI-Studio's?"
        raise fault(
            path, key="$.rawDataBody", expected="dataColumns and dataBlock", found=repr(why), hint=hint
        ) from why
    units = {name: SPELLED.get(str(one.get("unit", "")).lower(), "") for name, one in zip(names, columns, strict=True)}
    if not (known := _bme_columns(names)):
        hint = "the columns Resistance Gassensor and Heater Profile Step Index"
        raise fault(path, key="$.rawDataBody.dataColumns", expected="a BME688", found=", ".join(names), hint=hint)
    raw = Raw(path, cells, np.arange(1, len(cells) + 1), units={name: unit for name, unit in units.items() if unit})
    return _cycles(raw, known, labels=_labels(path), report=report)


def _labels(path: Path) -> dict[int, str]:
    """Tag -> name from the .bmelabelinfo of the same name, or the only one in the folder."""
    beside = sorted(path.parent.glob("*.bmelabelinfo"))
    own = [file for file in beside if file.stem == path.stem] or (beside if len(beside) == 1 else [])
    if not own:
        return {}
    try:
        return {int(one["labelTag"]): str(one["labelName"]) for one in read_json(own[0])["labelInformation"]}
    except (KeyError, TypeError, ValueError) as why:
        hint = "is it a file of BME AI-Studio's?"
        raise fault(own[0], key="$.labelInformation", expected="tags and names", found=repr(why), hint=hint) from why


def _cycles(raw: Raw, known: dict[str, str], *, labels: dict[int, str], report: Report) -> list[Raw]:
    """A row a heater cycle in place of one a step, a recording for each sensor of the board."""
    cells = raw.cells[list(known.values())].set_axis(list(known), axis=1).assign(line=raw.lines)
    for name, other in (("sensor", 0.0), ("scanning", 1.0), ("error", 0.0), ("valid", 1.0), ("label", 0.0)):
        cells[name] = cells[name].fillna(other) if name in cells else other
    off = cells["scanning"] == 0
    lost = ((cells["error"] != 0) | (cells["valid"] == 0)) & ~off
    if lost.any():
        cells.loc[lost, "resistance"] = np.nan
        report.tell(raw.path, "readings that the sensor calls invalid: no reading", int(lost.sum()))
    cells, steps = cells[~off], int(cells["step"].max()) + 1
    result, cut = [], 0
    for sensor, own in cells.groupby("sensor", sort=True):
        cycle = (own["step"].diff().fillna(1) <= 0).cumsum()
        table = own.pivot_table(index=cycle.rename("cycle"), columns="step", values="resistance", dropna=False)
        table.columns = [f"heater_{int(step)}" for step in table.columns]
        whole = own.groupby(cycle)["step"].count() == steps
        cut += int((~whole).sum())
        first, mean = own.groupby(cycle).first(), own.groupby(cycle).mean()
        for name, label in (("temperature", "Temperature"), ("humidity", "Humidity"), ("pressure", "Pressure")):
            if name in mean:
                table[label] = mean[name]
        if "clock" in first:
            table["time_ms"] = first["clock"]
        if (first["label"] != 0).any():
            table["label"] = [labels.get(int(tag), f"tag {int(tag)}") if tag else "" for tag in first["label"]]
        rows = table[whole].reset_index(drop=True)
        units = dict.fromkeys([name for name in rows if name.startswith("heater_")], "ohm")
        pressure = raw.units.get(known.get("pressure", ""), "hectopascal")
        units |= {"Temperature": "celsius", "Humidity": "percent", "Pressure": pressure}
        part = f"sensor {int(sensor)}" if cells["sensor"].nunique() > 1 else ""
        dates = own["date"][own["date"] > 0] if "date" in own else pd.Series(dtype=float)
        session = str(pd.Timestamp(dates.iloc[0], unit="s").date()) if len(dates) else ""
        lines = first["line"].to_numpy(np.int64)[whole.to_numpy()]
        result.append(Raw(raw.path, rows, lines, part, session=session, units=units))
    if cut:
        report.tell(raw.path, f"heater cycles without all {steps} steps: left out", cut)
    return result


# rows of features


def _libsvm(path: Path, text: str) -> Raw:
    """`label;concentration 1:value 2:value ...`: a row is an exposure; UCI's gases have names."""
    rows, labels, lines = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        head, *pairs = line.split()
        try:
            values = {int(place): float(value) for place, value in (pair.split(":") for pair in pairs if ":" in pair)}
            labels.append(head.split(";")[0])
        except ValueError as why:
            hint = "label;concentration 1:value 2:value ..."
            raise fault(path, line=number, expected="a LibSVM row", found=repr(line[:40]), hint=hint) from why
        rows.append(values)
        lines.append(number)
    table = pd.DataFrame(rows)
    table = table.reindex(columns=sorted(table.columns)).rename(columns="f{}".format)
    numbers = pd.to_numeric(pd.Series(labels), errors="coerce")
    names = numbers.map(GASES).fillna(pd.Series(labels)) if table.shape[1] == UCI else pd.Series(labels)
    return Raw(path, table.assign(label=names), np.array(lines), session=path.stem, features=True)


def raws(folder: Path, *, skip: bool, report: Report) -> list[Raw]:
    """The recordings in `folder`, or the one file, each of one class; or, with features, of a class a row."""
    if not folder.exists():
        raise DataError(f"There is no {folder}", hint="a folder of recordings, or one of them")
    files = _files(folder, report)
    if not files:
        hint = f"recordings as {', '.join(SUFFIXES)}, at any depth"
        raise DataError(f"No recordings in {folder}", hint=hint)
    readings = readable(files, lambda path: read(path, report=report), skip=skip, report=report)
    if not (found := [raw for _, own in readings for raw in own if len(raw.cells)]):
        raise unread(folder, report)
    return [part for raw in found for part in _by_label(raw)]


def _files(folder: Path, report: Report) -> list[Path]:
    """The recordings below `folder`, sorted, without hidden files, notes, and copies of others."""
    if folder.is_file():
        return [folder]
    root = base_of(folder) or folder
    seen: dict[bytes, Path] = {}
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.suffix.lower() not in SUFFIXES or not path.is_file() or any(part[0] == "." for part in inside):
            continue
        if re.match(r"readme|licen[cs]e|.*metadata", path.name, re.IGNORECASE):
            report.note(path, "notes, no recording")
            continue
        digest = sha256(path.read_bytes()).digest()
        if digest in seen:
            report.tell(path, f"a copy of a recording ({seen[digest].relative_to(folder)}): left out")
        else:
            seen[digest] = path
    return list(seen.values())


def name_of(raw: Raw, folder: Path) -> str:
    """The file below `folder`, and which part of it."""
    name = raw.path.name if folder.is_file() else raw.path.relative_to(folder).as_posix()
    return f"{name}#{raw.part}" if raw.part else name


def label_column(raw: Raw) -> str:
    """The column that says what each row is of, or ""."""
    return next((str(name) for name in raw.cells if str(name).strip().casefold() in LABELS), "")


def _by_label(raw: Raw) -> list[Raw]:
    if not (name := label_column(raw)):
        return [raw]
    cells = raw.cells[name]
    numeric = pd.api.types.is_numeric_dtype(cells)
    labels = cells.map("{:g}".format) if numeric else cells.fillna("").astype(str).str.strip()
    change = (labels != labels.shift()).to_numpy()
    if raw.features or change.mean() > ALTERNATES:
        return [replace(raw, cells=raw.cells.assign(**{name: labels}), features=True)]
    starts = np.append(np.flatnonzero(change), len(cells))
    parts = []
    for number, (start, end) in enumerate(zip(starts[:-1], starts[1:], strict=True), 1):
        if not (label := labels.iloc[start]) and len(starts) > 2:
            continue  # BME's tag 0, or an empty cell: nobody says what was there
        part = " ".join(filter(None, (raw.part, str(number) if len(starts) > 2 else "")))
        cut = raw.cells.iloc[start:end].reset_index(drop=True)
        parts.append(replace(raw, cells=cut, lines=raw.lines[start:end], part=part, substance=raw.substance or label))
    return parts


def class_of(raw: Raw, folder: Path) -> str:
    """Of a recording without a label: the name of its folder below `folder`, or its own less the number behind."""
    parent, stem = raw.path.parent, raw.path.stem
    if not raw.substance and (parent in (folder, folder.parent) or parent.name in SPLITS):
        return re.sub(r"[\s_.-]*\(?\d+\)?$", "", stem) or parent.name
    return raw.substance or parent.name


def clock_names(raw: Raw, nose: Description | None) -> list[str]:
    """The columns that hold the time of a row: the nose's clock, or what looks like one."""
    if nose is not None and nose.clock:
        return [nose.clock] if nose.clock in raw.cells else []
    taken = set(nose.columns) if nose is not None else set()
    return [name for name in clock_columns(list(map(str, raw.cells))) if name not in taken]


def seconds_of(raw: Raw, nose: Description | None) -> tuple[NDArray | None, str]:
    """The seconds of the rows by the file's own clock, and the name of the clock; None without one."""
    names = clock_names(raw, nose)
    if not names:
        if nose is not None and nose.clock and nose.rate is None:
            hint = f"write rate = rows a second into {noses.FILE} if the file has no clock"
            raise fault(
                raw.path, line=1, column=nose.clock, expected="the clock of the nose", found="no such column", hint=hint
            )
        return None, ""
    cells = raw.cells[names[0]] if len(names) == 1 else raw.cells[names].astype(str).agg(" ".join, axis=1)
    name = " ".join(names)
    if nose is not None and nose.clock_unit:
        return cells.to_numpy(np.float64) * SECONDS[nose.clock_unit], name
    return read_clock(cells, path=raw.path, name=name, lines=raw.lines.tolist()), name


def day_of(seconds: NDArray | None) -> str:
    """The day of a recording by a clock that knows dates, or ""."""
    if seconds is None or not np.isfinite(seconds).any():
        return ""
    first = float(seconds[np.isfinite(seconds)][0])
    return str(pd.Timestamp(first, unit="s").date()) if 5e8 < first < 5e9 else ""
