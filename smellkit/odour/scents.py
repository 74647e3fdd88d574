"""The twelve scents: their names in the data and on the device, their descriptions and their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smellkit import paths
from smellkit.checks import Report, fault, long_text, nearest, read_json
from smellkit.errors import DataError, OptionError

ODORANTS = (  # in the order of the labels of SmellNet-Mixture
    "peach", "apple", "banana", "orange", "pear", "strawberry",
    "mango", "almond", "clove", "coriander", "cumin", "garlic",
)  # fmt: skip
SCENTS = (  # in the order of the player's scents 1 to 12
    "banana", "mandarin_orange", "pear", "apple", "mango", "peach",
    "strawberry", "cloves", "coriander", "cumin", "garlic", "almond",
)  # fmt: skip
ALIASES = {"orange": "mandarin_orange", "clove": "cloves"}  # odorant of a mixture -> substance, picture and channel
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Scent:
    """One scent of the device: its channel (1 to 12), its name, and what is known of its smell."""

    id: int
    name: str
    long_description: str
    key_molecules: tuple[str, ...] = ()
    qualitative_descriptors: tuple[str, ...] = ()
    hedonic_valence: str = ""


def substance(odorant: str) -> str:
    """Return the name that recordings, pictures and the device use for an odorant: orange is mandarin_orange."""
    return ALIASES.get(odorant, odorant)


def odorant(name: str) -> str:
    """Return which of the twelve `ODORANTS` the name of a substance, picture folder or channel means."""
    for known in ODORANTS:
        if name in (known, substance(known)):
            return known
    near = nearest(name, [*ODORANTS, *ALIASES.values()])
    raise OptionError(f"No odorant is called {name!r}", hint=f"one of {', '.join(near or ODORANTS)}")


_ORDER = np.array([ODORANTS.index(odorant(name)) for name in SCENTS])


def to_channels(ratios: np.ndarray) -> np.ndarray:
    """Return beta (..., 12) in the order of the device's channels for ratios (..., 12) in the order of `ODORANTS`."""
    return np.asarray(ratios)[..., _ORDER]


def to_odorants(beta: np.ndarray) -> np.ndarray:
    """Return ratios (..., 12) in the order of `ODORANTS` for beta (..., 12) in the order of the device's channels."""
    return np.asarray(beta)[..., np.argsort(_ORDER)]


def read_scents(folder: str | Path | None = None, *, report: Report | None = None) -> list[Scent]:
    """Return the scents of smell_descriptions.json in `folder`, in the order of their id: the device's channels.

    Ids run from 1 without a gap. A missing, empty or wrong-typed `long_description` is refused with its key.
    """
    path = (Path(folder) if folder else paths.sample() / "smellnet") / "smell_descriptions.json"
    value = read_json(path)
    entries, report = value.get("odors"), report if report is not None else Report()
    if not isinstance(entries, list) or not entries:
        instead = f"only {', '.join(value)[:100]}" if entries is None else repr(entries)[:60]
        raise fault(path, key="$.odors", expected="a list of scents", found=instead, hint="see data/README.md")
    scents = [_scent(path, f"$.odors[{number}]", entry, report) for number, entry in enumerate(entries)]
    scents.sort(key=lambda scent: scent.id)
    if [scent.id for scent in scents] != list(range(1, len(scents) + 1)):
        ids = ", ".join(str(scent.id) for scent in scents)
        raise fault(path, key="id", expected=f"1 to {len(scents)}", found=ids, hint="number the scents without a gap")
    names = [scent.name for scent in scents]
    if twice := [name for name in names if names.count(name) > 1]:
        raise fault(path, key="name", expected="each once", found=f"{twice[0]!r} again", hint="correct one of them")
    return scents


def _scent(path: Path, where: str, entry: Any, report: Report) -> Scent:
    if not isinstance(entry, dict):
        raise fault(path, key=where, expected="an object", found=repr(entry)[:60], hint="see data/README.md")
    name = entry.get("name")
    wanted = {
        "id": ("a whole number from 1", type(entry.get("id")) is int),
        "name": ("a name", isinstance(name, str) and name.strip()),
        "key_molecules": ("a list of texts", _texts(entry.get("key_molecules", []))),
        "qualitative_descriptors": ("a list of texts", _texts(entry.get("qualitative_descriptors", []))),
    }
    for key, (expected, right) in wanted.items():
        if not right:
            found = repr(entry.get(key))[:60]
            raise fault(path, key=f"{where}.{key}", expected=expected, found=found, hint="correct it")
    return Scent(
        id=entry["id"],
        name=entry["name"].strip(),
        long_description=long_text(entry, "long_description", path=path, where=f"{where} ({name})", report=report),
        key_molecules=tuple(entry.get("key_molecules", [])),
        qualitative_descriptors=tuple(entry.get("qualitative_descriptors", [])),
        hedonic_valence=str(entry.get("hedonic_valence", "")),
    )


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted; none where it is not there."""
    files = (path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in PICTURES)


def list_pictures(folder: str | Path | None = None) -> pd.DataFrame:
    """Return a table (scent, file) of every picture images/<scent>/* in `folder`, sorted; `file` is a full path."""
    root = (Path(folder) if folder else paths.sample() / "smellnet") / "images"
    files = [file for inside in sorted(root.glob("*/")) for file in pictures_in(inside)]
    if not files:
        raise DataError(
            f"No pictures in {root}: expected images/<scent>/*.jpg", hint="data/sample/smellnet has drawings"
        )
    return pd.DataFrame({"scent": [file.parent.name for file in files], "file": [str(file) for file in files]})
