"""What an electronic nose is: its columns with role, unit and span, written once in a `nose.toml`.

    rate = 5.0                        # Hz; or clock = "time": the rate is measured then
    [columns.MQ135]
    role = "gas"                      # gas | temperature | humidity | pressure | other
    unit = "adc"
    span = [0, 4095]                  # what the converter can say; anything else is an error with its line
    fault = [4095]                    # readings that mean "no reading"

Shipped ones have names (`data/noses`). Nothing is assumed of a nose that its description does not say.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from smellkit import paths
from smellkit.checks import Pace, fault
from smellkit.checks.report import content, decoded
from smellkit.errors import DataError
from smellkit.options import alike

FILE = "nose.toml"
BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key of TOML without quotes
SHIPPED = paths.HOME / "data" / "noses"
ROLES = ("gas", "temperature", "humidity", "pressure", "other")
SECONDS = {"second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
FULL = {255: "an 8-bit", 1023: "a 10-bit", 4095: "a 12-bit", 16383: "a 14-bit", 65535: "a 16-bit"}
UNITS: dict[str, dict[str, tuple[float, float]]] = {  # unit -> what is written in its place -> factor, offset from that
    "adc": {},
    "volt": {"millivolt": (1e-3, 0)},
    "ohm": {"kilo-ohm": (1e3, 0)},
    "kilo-ohm": {"ohm": (1e-3, 0)},
    "rs/r0": {},
    "ppm": {"ppb": (1e-3, 0)},
    "celsius": {"kelvin": (1, -273.15), "degrees Fahrenheit": (5 / 9, -160 / 9)},
    "percent": {"shares of 1": (100, 0)},
    "hectopascal": {"pascal": (0.01, 0), "kilopascal": (10, 0)},
    "pascal": {"hectopascal": (100, 0), "kilopascal": (1000, 0)},
    "metre": {},
    "none": {},
}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(of, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {  # key -> what it may be, and in words
    "name": (_text, "a name"),
    "about": (_text, "a sentence"),
    "columns": (lambda value: isinstance(value, Mapping) and bool(value), "a table [columns.NAME] for each column"),
    "rate": (lambda value: _number(value) and 0 < value <= 1e5, "rows a second, above 0 and at most 100,000"),
    "clock": (_text, "the name of a column"),
    "clock_unit": (lambda value: value in SECONDS, "one of " + ", ".join(SECONDS)),
    "features": (lambda value: isinstance(value, bool), "true or false"),
    "baud": (lambda value: _number(value) and value > 0, "the speed of a serial line"),
    "role": (lambda value: value in ROLES, "one of " + ", ".join(ROLES)),
    "unit": (lambda value: _text(value) and value in UNITS, "one of " + ", ".join(UNITS)),
    "span": (
        lambda value: _list(value, _number) and len(value) == 2 and value[0] < value[1],
        "[lowest, highest] that the converter can say",
    ),
    "fault": (lambda value: _list(value, _number), "a list of numbers"),
    "overflow": (_number, "a number"),
    "also": (lambda value: _list(value, _text), "a list of names"),
}


@dataclass(frozen=True)
class Column:
    """What one column holds: numbers in `span`."""

    role: str
    unit: str
    span: tuple[float, float]
    fault: tuple[float, ...] = ()  # readings that mean no reading
    overflow: float | None = None  # what the firmware writes for more than the top of the span: taken as the top
    also: tuple[str, ...] = ()  # other spellings of its name

    def reading(self, value: float) -> float:
        """What `value` means: itself or the top of the span; NaN for no reading, infinity for what can't be."""
        if value in self.fault:
            return math.nan
        if value == self.overflow:
            return self.span[1]
        return value if self.span[0] <= value <= self.span[1] else math.inf

    def explain(self, values: Iterable[float]) -> str:
        """The unit in which `values` outside of the span would lie in it, with the factor, in words; or ""."""
        values = [value for value in values if math.isfinite(value) and value not in self.fault]
        low, high = self.span
        others = dict(UNITS.get(self.unit, {}))
        if self.unit == "adc" and high in FULL:
            others |= {f"counts of {bits} converter": (high / top, 0) for top, bits in FULL.items() if top > high}
        for name, (factor, offset) in others.items():
            if values and all(low <= value * factor + offset <= high for value in values):
                change = f"multiply by {factor:.4g}" if not offset else f"times {factor:.4g}, plus {offset:.4g}"
                return f"these look like {name}: {change}, or write the column's own unit and span into {FILE}"
        return ""


@dataclass(frozen=True)
class Description:
    """A nose in words that a program can hold on to: its columns in order, and how fast rows come."""

    name: str
    columns: dict[str, Column] = field(hash=False)
    rate: float | None = None  # Hz; None where nobody knows
    clock: str | None = None  # the column that holds the time of a row
    clock_unit: str | None = None  # where its name does not tell
    features: bool = False  # a row is a whole exposure, not a moment of one
    about: str = ""
    baud: int = 9600  # of its serial line

    @property
    def gas(self) -> tuple[str, ...]:
        """The columns that smell."""
        return self.of(role="gas")

    @property
    def pace(self) -> Pace:
        """How fast rows must come, one a second where nobody knows; five lost rows or two seconds are a gap."""
        rate = self.rate or 1.0
        return Pace(rate=rate, gap=max(5 / rate, 2.0))

    def at_pace(self, measured: float) -> bool:
        """Whether rows that come `measured` times a second come about as fast as they should, or nobody knows."""
        slowest = self.pace.slowest
        return not self.rate or slowest < measured / self.rate < 1 / slowest

    def of(self, *, role: str = "", unit: str = "") -> tuple[str, ...]:
        """The columns of a role or a unit."""
        return tuple(name for name, one in self.columns.items() if role in ("", one.role) and unit in ("", one.unit))

    def to_dict(self) -> dict[str, Any]:
        """As TOML and manifests hold it; `from_dict` is the way back."""
        return _set_fields(self) | {"columns": {name: _set_fields(column) for name, column in self.columns.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "the description of a nose") -> Description:
        """What a TOML file or a manifest says; DataError with the key that is wrong."""
        _check(values, cls, where=where, key="")
        columns = {}
        for name, one in values["columns"].items():
            _check(one, Column, where=where, key=f"columns.{name}.")
            given: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in one.items()}
            columns[str(name)] = Column(**given)
        if not any(column.role == "gas" for column in columns.values()):
            raise _wrong(where, "columns", 'at least one column of role = "gas"', ", ".join(columns))
        return cls(**{**values, "columns": columns})


def load(name: str | Path) -> Description:
    """The nose of a shipped name (`names()`), of a TOML file, or of the `nose.toml` in a folder."""
    path = Path(name)
    path = path / FILE if path.is_dir() else path
    path = path if path.is_file() else SHIPPED / f"{name}.toml"
    if not path.is_file():
        near = alike(str(name), names()) or names()
        raise DataError(f"There is no nose {str(name)!r}", hint=f"a file {FILE}, or one of {', '.join(near)}")
    try:
        values = tomllib.loads(decoded(path, content(path, limit=1_000_000)))
    except tomllib.TOMLDecodeError as why:
        raise DataError(f"{path} is not valid TOML: {why}", hint="compare with `smellkit nose show mq-array`") from why
    own = path.resolve().parent.name if path.name == FILE else path.stem
    return Description.from_dict({"name": own, **values}, where=str(path))


def names() -> list[str]:
    """The noses that come with the kit."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def of_manifest(manifest: Mapping[str, Any]) -> Description | None:
    """The nose that weights were trained for; those from before there were descriptions know SmellNet's two boards."""
    if "nose" in manifest:
        return Description.from_dict(manifest["nose"], where="the manifest, key nose")
    shipped = {"odour": "smellnet", "mixture": "smellnet-mixture"}.get(str(manifest.get("kind")))
    return load(shipped) if shipped else None


def difference(mine: Description, other: Description, *, columns: Iterable[str] = ()) -> str | None:
    """The first thing in which the nose `other` is not what weights of the nose `mine` need, in words; or None.

    `columns` are those that the weights look at, by default those that smell. Order and further columns do not matter.
    """
    for name in tuple(columns) or mine.gas:
        own, its = mine.columns[name], other.columns.get(name)
        if its is None:
            return f"{other.name} has no column {name} (it has {', '.join(other.columns)})"
        if own.unit != its.unit:
            return f"{name} of {other.name} is in {its.unit}, and {mine.name} has {own.unit}"
        if own.unit == "adc" and own.span != its.span:
            return f"{name} of {other.name} counts to {its.span[1]:g}, and {mine.name} to {own.span[1]:g}"
    if mine.features != other.features:
        return f"a row is a whole exposure in one of {other.name} and {mine.name}, and a moment in the other"
    if mine.rate and other.rate and not 0.9 <= other.rate / mine.rate <= 1.1:
        return f"{other.name} has {other.rate:g} rows a second, and {mine.name} {mine.rate:g}"
    return None


def as_toml(nose: Description, *, remarks: Mapping[str, str] | None = None) -> str:
    """The text of a `nose.toml`; `remarks` (key, or column and key set apart by a point) become comments there."""
    remarks, values = remarks or {}, nose.to_dict()

    def lines(values: Mapping[str, Any], prefix: str) -> list[str]:
        note = {key: remarks.get(prefix + key, "") for key in values}
        return [f"{key} = {_toml(value)}" + (f"  # {note[key]}" if note[key] else "") for key, value in values.items()]

    columns = values.pop("columns")
    text = lines(values, "")
    for name, column in columns.items():
        text += ["", f"[columns.{name if BARE.fullmatch(name) else _toml(name)}]", *lines(column, f"{name}.")]
    return "\n".join(text) + "\n"


def remarks(nose: Description, guesses: Iterable[str]) -> dict[str, str]:
    """Guesses as remarks in the nose's TOML, each at its key."""
    comments = {}
    for name, _, text in (guess.partition(": ") for guess in guesses):
        key = "unit" if text.startswith("unit") else "fault" if text.endswith("no reading") else "role"
        if name == nose.clock:
            comments["clock_unit" if key == "unit" else "clock"] = f"{text}: confirm"
        elif name in nose.columns:
            comments[f"{name}.{key}"] = f"{text}: confirm"
    return comments


def _set_fields(one: Any) -> dict[str, Any]:
    """The fields of a dataclass without those at their defaults, lists in place of tuples."""
    kept = {each.name: getattr(one, each.name) for each in fields(one) if getattr(one, each.name) != each.default}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def _check(values: Any, kind: type, *, where: str, key: str) -> None:
    """Refuse what is no description of a `kind`, by its key."""
    if not isinstance(values, Mapping):
        raise _wrong(where, key.strip("."), "a table with role, unit and span", values)
    known = {one.name: one.default is MISSING for one in fields(kind)}
    for name in [*values, *(name for name, needed in known.items() if needed and name not in values)]:
        if name not in known:
            raise _wrong(where, key + name, "one of " + ", ".join(known), "a key that means nothing")
        fits, expected = RULES[name]
        if not fits(values.get(name)):
            raise _wrong(where, key + name, expected, values.get(name))


def _wrong(where: str, key: str, expected: str, actual: Any) -> DataError:
    actual = "nothing" if actual is None else repr(actual)
    return fault(where, expected, actual, "compare with `smellkit nose show mq-array`", key=key)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return f"{value:.10g}"
    return json.dumps(value, ensure_ascii=False)
