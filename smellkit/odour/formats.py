"""What the recordings in a folder say by themselves, whatever their format, as `Raw`: class, session, clock, units.

    .csv .tsv .txt .dat   tables of text (see `sheets`)
    .csv beside a .json   OpenSmell Exchange Format: substance, session, units and rate are told there
    .bmerawdata, .csv     BME688: one reading a heater step; the steps of a cycle become the columns of one row
    1;10.0 1:15596.2 ...  LibSVM rows of features (UCI gas sensor drift)

Class of a recording: its label column, or the JSON beside it, or its folder, or its name without the number behind
(`red_large_3.csv`).
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from smellkit import noses, paths
from smellkit.checks import Report, fault, read_json, readable
from smellkit.checks.clock import clock_columns, read_clock
from smellkit.checks.report import content
from smellkit.errors import TRY, DataError, OptionError
from smellkit.noses import SECONDS, Description
from smellkit.odour.sheets import SPELLED, Raw, read_text

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".bmerawdata")
LIMIT = 2_000_000_000  # bytes of a file
LABELS = ("label", "class", "target", "substance", "odour", "odor", "smell")
BASES = ("base", "base_data")  # SmellNet's folder of splits, and the hub's name for it
ALTERNATES = 0.2  # changes of the label a row, above which each row is an exposure of its own
BME = {  # what a column of a BME688 logger holds -> how its name, in small letters without marks, begins
    "sensor": "sensor index",
    "clock": "time since poweron|timestamp",
    "date": "real time clock",
    "Temperature": "temperature",
    "Pressure": "pressure",
    "Humidity": "relative humidity|humidity",
    "resistance": "resistance gassensor|gas resistance",
    "step": "heater profile step|gas index",
    "scanning": "scanning (mode )?enabled",
    "tag": "label tag",
    "error": "error code",
    "valid": "gas valid",
}
EXCHANGED = {  # unit of a description -> as OpenSmell calls it; it knows no others
    "ohm": "resistance_ohm", "volt": "voltage", "rs/r0": "rs_r0", "adc": "adc",
    "celsius": "temperature_celsius", "percent": "humidity_percent",
}  # fmt: skip
STUDIO = "is it a file of BME AI-Studio's?"
GASES = dict(enumerate(("ethanol", "ethylene", "ammonia", "acetaldehyde", "acetone", "toluene"), 1))  # of UCI 270
UCI = 128  # its features: 8 of each of 16 sensors
WIDE = 50  # columns without a header that are no sensors any more


def raws(folder: Path, *, skip: bool, report: Report) -> list[Raw]:
    """The recordings in `folder`, or the one file, each of one class; or, with features, of a class a row."""
    readings = readable(_files(folder, report), lambda path: _read(path, report), skip=skip, report=report)
    if not (recordings := [raw for _, own in readings for raw in own if len(raw.cells)]):
        if report.skipped:
            raise unread(folder, report)
        raise DataError(f"No rows in {folder}", hint="files that hold more than a header or a cut cycle of a BME688")
    return [part for raw in recordings for part in _by_label(raw)]


def base_of(folder: Path) -> Path | None:
    """The folder of the splits in a data folder: `base`, or `base_data` as the hub calls it; None in other layouts."""
    return next((folder / name for name in BASES if (folder / name).is_dir()), None)


def unread(root: Path, notes: Report) -> DataError:
    """The error where every file was skipped: the fault of the first, with its own remedy."""
    first, _, hint = next(iter(notes.skipped.values()), "no reason").partition(TRY)
    return DataError(f"None of {len(notes.skipped)} recordings in {root} can be read; the first: {first}", hint=hint)


def files_in(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The recordings below `folder`, or the one file, sorted, without hidden ones; DataError where there is none."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise DataError(f"There is no {folder}", hint="a folder of recordings, or one of them")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    files = [path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts)]
    if not files:
        raise DataError(f"No recordings in {folder}", hint=f"recordings as {', '.join(suffixes)}, at any depth")
    return files


def _files(folder: Path, report: Report) -> list[Path]:
    """The recordings below `folder` without notes and copies of others."""
    seen: dict[bytes, Path] = {}
    for path in files_in(base_of(folder) or folder):
        if path == folder:
            return [folder]
        if re.match(r"readme|licen[cs]e|.*metadata", path.name, re.IGNORECASE):
            report.note(path, "notes, no recording")
        elif (digest := sha256(path.read_bytes()).digest()) in seen:
            report.tell(path, f"a copy of a recording ({seen[digest].relative_to(folder)}): left out")
        else:
            seen[digest] = path
    if not seen:
        raise DataError(f"No recordings in {folder}", hint="all that is there are notes")
    return list(seen.values())


def header_of(path: Path) -> list[str]:
    """The names in the first line of a CSV file; none where it can't be read, which its reader explains."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(100_000)
        return next(csv.reader([line], delimiter=";" if line.count(";") > line.count(",") else ","), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _read(path: Path, report: Report) -> list[Raw]:
    """The recordings in a file; DataError says where it is none."""
    if path.suffix.lower() == ".bmerawdata":
        return _bme_json(path, report)
    data = content(path, limit=LIMIT).removeprefix(b"\xef\xbb\xbf")
    data = data if b"\n" in data else data.replace(b"\r", b"\n")
    if re.match(rb"\s*[\w.+-]+[; ]([\d.eE+-]+ )?\s*1:[\d.+-]", data[:200]):
        return [_libsvm(path, data)]
    raw = read_text(path, data, report)
    if not raw.named and raw.cells.shape[1] > WIDE and not is_numeric_dtype(raw.cells["column 1"]):
        return [_class_and_features(raw)]
    if known := _bme_columns(list(raw.cells)):
        return _cycles(raw, known, report)
    return [_exchange(raw) if path.with_suffix(".json").is_file() else raw]


# OpenSmell Exchange Format


def _exchange(raw: Raw) -> Raw:
    """What the JSON beside a CSV of OpenSmell's says of it."""
    where = raw.path.with_suffix(".json")
    about = read_json(where)
    raw.substance, raw.session = (str(about.get(key) or "") for key in ("substance", "session_date"))
    rate, units = about.get("sampling_rate_hz") or None, about.get("sensor_units") or {}
    if rate is not None and not (type(rate) in (int, float) and rate > 0):
        raise fault(where, "rows a second", repr(rate), "a number above 0, or leave it out", key="$.sampling_rate_hz")
    raw.rate = rate
    for name, unit in units.items() if isinstance(units, dict) else [("", units)]:
        if str(unit) not in SPELLED:
            hint = "one of resistance_ohm, voltage, rs_r0, adc, temperature_celsius, humidity_percent"
            raise fault(where, "a known unit", repr(unit), hint, key=f"$.sensor_units.{name}")
        raw.units[name] = SPELLED[unit]
    return raw


def write_exchange(folder: Path, nose: Description, table: pd.DataFrame, *, device: str = "nose") -> int:
    """Write the recordings of a tidy `table` into a new `folder` and return how many: one CSV and JSON for each.

    Columns get the prefix that the format asks for; kilo-ohms become ohms; a unit that it doesn't know is told as text.
    """
    if nose.features:
        raise OptionError("Rows of features are no recordings", hint="the Exchange Format holds readings in time")
    if folder.exists() and any(folder.iterdir()):
        raise OptionError(f"{folder} is not empty", hint="a new folder")
    names = {name: name if re.match("sensor_|MQ|ch", name) else f"sensor_{name}" for name in nose.columns}
    units = {names[name]: column.unit.replace("kilo-ohm", "ohm") for name, column in nose.columns.items()}
    kilo = [names[name] for name in nose.of(unit="kilo-ohm")]
    written: Counter[str] = Counter()
    for _, rows in table.groupby(["substance", "session", "file"], sort=True):
        substance, session = _word(rows["substance"].iloc[0]), rows["session"].iloc[0] or "unknown"
        values = rows[list(names)].rename(columns=names)
        values[kilo] *= 1000
        if nose.rate:
            gaps = (rows["step"].diff() > 1).cumsum()  # in the clock, too, they are long enough to be one
            values.insert(0, "timestamp", (rows["step"] / nose.rate + gaps * nose.pace.gap).round(4))
        about = {
            "substance": substance,
            "device_id": _word(device),
            "session_date": session,
            "sensor_units": {name: EXCHANGED[unit] for name, unit in units.items() if unit in EXCHANGED},
            "sensor_info": {name: f"in {unit}" for name, unit in units.items() if unit not in EXCHANGED},
            **({"sampling_rate_hz": nose.rate} if nose.rate else {}),
            "notes": f"nose {nose.name}",
        }
        stem = f"{substance}_{_word(device)}_{_word(session)}"
        written[stem] += 1
        path = folder / (f"{stem}-{written[stem]}.csv" if written[stem] > 1 else f"{stem}.csv")
        paths.write_text(path, values.to_csv(index=False, lineterminator="\n"))
        paths.write_json(path.with_suffix(".json"), about)
    return written.total()


def _word(text: object) -> str:
    """One word with hyphens, as names of files there need it."""
    return re.sub(r"[^\w.]+|_", "-", str(text)).strip("-") or "unknown"


# BME688


def _bme_columns(names: Sequence[str]) -> dict[str, str]:
    """What each column of a BME688 logger holds -> its name; nothing where the names are others."""
    plain = {name: " ".join(re.findall(r"[a-z0-9]+", name.lower())) for name in names}
    known = {what: [name for name, words in plain.items() if re.match(start, words)] for what, start in BME.items()}
    return {what: hits[0] for what, hits in known.items() if hits} if known["resistance"] and known["step"] else {}


def _bme_json(path: Path, report: Report) -> list[Raw]:
    value = read_json(path)
    try:
        columns, rows = value["rawDataBody"]["dataColumns"], value["rawDataBody"]["dataBlock"]
        names = [str(column["name"]) for column in columns]
        if torn := [number for number, row in enumerate(rows) if len(row) != len(names)][:1]:
            raise ValueError(f"{len(rows[torn[0]])} values in dataBlock[{torn[0]}] for {len(names)} columns")
        cells = pd.DataFrame(rows, columns=names, index=np.arange(1, len(rows) + 1), dtype=float)
        units = {str(column["name"]): SPELLED.get(str(column.get("unit")).lower(), "") for column in columns}
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        raise fault(path, "dataColumns and dataBlock", repr(why), STUDIO, key="$.rawDataBody") from why
    if not (known := _bme_columns(names)):
        expected = "Resistance Gassensor and Heater Profile Step Index"
        raise fault(path, expected, ", ".join(names), STUDIO, key="$.rawDataBody.dataColumns")
    return _cycles(Raw(path, cells, units=units), known, report)


def _tags(path: Path) -> dict[int, str]:
    """Tag -> name from the .bmelabelinfo of the same name, or the only one in the folder."""
    beside = sorted(path.parent.glob("*.bmelabelinfo"))
    own = [file for file in beside if file.stem == path.stem] or (beside if len(beside) == 1 else [])
    try:
        listed = [one for file in own for one in read_json(file)["labelInformation"]]
        return {int(one["labelTag"]): str(one["labelName"]) for one in listed}
    except (KeyError, TypeError, ValueError) as why:
        raise fault(own[0], "tags and names", repr(why), STUDIO, key="$.labelInformation") from why


def _cycles(raw: Raw, known: dict[str, str], report: Report) -> list[Raw]:
    """A row a heater cycle in place of one a step, a recording for each sensor of the board."""
    cells = raw.cells[list(known.values())].set_axis(list(known), axis=1).assign(line=raw.lines)
    for name, other in (("sensor", 0.0), ("scanning", 1.0), ("error", 0.0), ("valid", 1.0), ("tag", 0.0)):
        cells[name] = cells[name].fillna(other) if name in cells else other
    cells = cells[cells["scanning"] != 0]
    if (lost := (cells["error"] != 0) | (cells["valid"] == 0)).any():
        cells.loc[lost, "resistance"] = np.nan
        report.tell(raw.path, "readings that the sensor calls invalid: no reading", int(lost.sum()))
    cells["cycle"] = cells.groupby("sensor")["step"].transform(lambda step: (step.diff().fillna(1) <= 0).cumsum())
    tags, steps, sensors = _tags(raw.path), int(cells["step"].max()) + 1, cells["sensor"].nunique()
    units = {f"heater_{step}": "ohm" for step in range(steps)} | {"Temperature": "celsius", "Humidity": "percent"}
    units["Pressure"] = raw.units.get(known.get("Pressure", "")) or "hectopascal"
    result, cut = [], 0
    for sensor, own in cells.groupby("sensor"):
        table = own.pivot_table(index="cycle", columns="step", values="resistance", dropna=False)
        table = table.set_axis([f"heater_{step:g}" for step in table], axis=1)
        cycles = own.groupby("cycle")
        whole, first = cycles.size() == steps, cycles.first()
        table = table.join(cycles[[name for name in ("Temperature", "Humidity", "Pressure") if name in own]].mean())
        if "clock" in first:
            table["time_ms"] = first["clock"]
        if first["tag"].any():
            table["label"] = first["tag"].map(lambda tag: tags.get(int(tag), f"tag {tag:g}") if tag else "")
        session = day_of(own["date"][own["date"] > 0].to_numpy()) if "date" in own else ""
        part, cut = f"sensor {sensor:g}" if sensors > 1 else "", cut + int((~whole).sum())
        lined = table[whole].set_axis(first["line"][whole].to_numpy(np.int64))
        result.append(Raw(raw.path, lined, part, session=session, units=units))
    if cut:
        report.tell(raw.path, f"heater cycles without all {steps} steps: left out", cut)
    return result


# rows of features


def _class_and_features(raw: Raw) -> Raw:
    """Rows of a class and many numbers, without a header; UCI 270 has the concentration in between."""
    values = raw.cells.iloc[:, 2 if raw.cells.shape[1] == UCI + 2 else 1 :]
    for name in values.columns[[not is_numeric_dtype(kind) for kind in values.dtypes]]:
        raise raw.fault("numbers", repr(str(values[name].iloc[0])), "rows of features alone", column=name, row=0)
    return _features(raw.path, values.to_numpy(np.float64), raw.cells["column 1"].str.lower().tolist(), raw.lines)


def _libsvm(path: Path, data: bytes) -> Raw:
    """`label;concentration 1:value 2:value ...`: a row is an exposure; UCI's gases have names."""
    from sklearn.datasets import load_svmlight_file

    lines = [number for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    try:
        plain = re.sub(rb"(?m)^\s*([^\s;]+);\S*", rb"\1", data)
        values, labels = load_svmlight_file(io.BytesIO(plain), zero_based=False)
    except ValueError as why:
        raise fault(path, "rows of LibSVM", str(why)[:100], "label;concentration 1:value 2:value ...") from why
    names = [GASES.get(int(label), f"{label:g}") if values.shape[1] == UCI else f"{label:g}" for label in labels]
    return _features(path, values.toarray(), names, lines)


def _features(path: Path, values: NDArray, labels: Sequence[str], lines: Sequence[int] | NDArray) -> Raw:
    cells = pd.DataFrame(values, columns=[f"f{number}" for number in range(1, values.shape[1] + 1)], index=lines)
    return Raw(path, cells.assign(label=labels), session=path.stem, features=True)


# what of a file is which class, and when


def label_column(raw: Raw) -> str:
    """The column that says what each row is of, or ""."""
    return next((name for name in raw.cells if name.strip().casefold() in LABELS), "")


def _by_label(raw: Raw) -> list[Raw]:
    """A recording for each run of a label; rows of a label each stay together, as features.

    A file beside it with `metadata` in its name, and columns id and class, says what each `id` is of (UCI 362).
    """
    listed = _metadata(raw.path.parent) if "id" in raw.cells else {}
    if not (name := "id" if listed else label_column(raw)):
        return [raw]
    cells = raw.cells[name]
    labels = cells.map("{:g}".format) if is_numeric_dtype(cells) else cells.fillna("").astype(str).str.strip()
    run = (labels != labels.shift()).cumsum()
    labels = labels.map(lambda label: listed.get(label, label))
    if raw.features or run.iloc[-1] > ALTERNATES * len(run):
        return [replace(raw, cells=raw.cells.assign(**{name: labels}), features=True)]
    parts, several = [], run.iloc[-1] > 1
    for number, rows in raw.cells.groupby(run):
        if (label := labels[rows.index[0]]) or not several:  # BME's tag 0, an empty cell: nobody says what was there
            part = f"{raw.part} {number}".strip() if several else raw.part
            parts.append(replace(raw, part=part, substance=raw.substance or label, cells=rows))
    return parts


def _metadata(folder: Path) -> dict[str, str]:
    """id -> class, from the file beside a recording that lists them."""
    for path in sorted(folder.glob("*metadata*")):
        lines = [re.split(r"[\s,;]+", line.strip()) for line in path.read_text("utf-8", "replace").splitlines()]
        if lines and {"id", "class"} <= set(lines[0]):
            indices = lines[0].index("id"), lines[0].index("class")
            return {line[indices[0]]: line[indices[1]] for line in lines[1:] if len(line) > max(indices)}
    return {}


def clock_names(raw: Raw, nose: Description | None = None) -> list[str]:
    """The columns that hold the time of a row: the nose's clock, or what looks like one, whatever it is called."""
    if nose is not None and nose.clock in raw.cells:
        return [str(nose.clock)]
    others = [name for name in raw.cells if nose is None or name not in nose.columns]
    known = [name for name in clock_columns(list(raw.cells)) if name in others]
    texts = [name for name in others if len(raw.cells) and not is_numeric_dtype(raw.cells[name])]
    return known or [name for name in texts if re.search(r"\d{1,2}:\d\d", str(raw.cells[name].iloc[0]))][:1]


def seconds_of(raw: Raw, nose: Description) -> tuple[NDArray | None, str]:
    """The seconds of the rows by the file's own clock, and the name of the clock; None without one."""
    names = clock_names(raw, nose)
    name = " ".join(names)
    if not names and nose.clock and nose.rate is None:
        hint = f"write rate = rows a second into {noses.FILE} if the file has no clock"
        raise raw.fault("the clock of the nose", "no such column", hint, column=nose.clock, line=1)
    if not names:
        return None, ""
    if nose.clock_unit:
        return raw.cells[names[0]].to_numpy(np.float64) * SECONDS[nose.clock_unit], name
    return read_clock(raw.cells[names], path=raw.path, name=name, lines=raw.lines.tolist()), name


def step_of(raw: Raw, nose: Description) -> float:
    """The usual seconds from row to row by the file's own clock; 0 where none tells."""
    seconds, _ = seconds_of(raw, nose)
    steps = np.diff(seconds[np.isfinite(seconds)]) if seconds is not None else np.zeros(0)
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def day_of(seconds: NDArray | None) -> str:
    """The day of a recording by a clock that knows dates, or ""."""
    first = next((float(one) for one in seconds[:1000] if np.isfinite(one)), 0.0) if seconds is not None else 0.0
    return str(pd.Timestamp(first, unit="s").date()) if 5e8 < first < 5e9 else ""
