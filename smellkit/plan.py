"""The notebooks of a folder: which there are, which to run and with which parameters, whose runs each one reads."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smellkit import options
from smellkit.checks import read_yaml
from smellkit.errors import DataError, OptionError

KINDS = {"str": str, "int": int, "float": float, "bool": bool}
Value = str | int | float | bool


@dataclass(frozen=True)
class Notebook:
    """A source notebook: its file, and the defaults of its parameters."""

    path: Path
    defaults: dict[str, Value]

    @property
    def name(self) -> str:
        """Such as `02_odour_encoder`."""
        return self.path.stem

    @property
    def number(self) -> int:
        """The two digits that the name begins with; the decade tells the system."""
        return int(self.name[:2])


def find(folder: Path) -> list[Notebook]:
    """Return the notebooks of `folder` in number order; those whose name has no number are left alone."""
    files = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not files:
        raise DataError(f"There are no notebooks in {folder}", hint="names begin with two digits: 01_odour_data.ipynb")
    return [Notebook(path, defaults(path)) for path in files]


def select(notebooks: list[Notebook], names: Iterable[str]) -> list[Notebook]:
    """Return those called `names` (a name, the number `2` or `02`, or a file's path), in number order; all without."""
    numbers = {str(notebook.number): notebook.name for notebook in notebooks}
    chosen = [numbers.get(name.lstrip("0") or "0", Path(name).stem) for name in names]
    options.check(chosen, [notebook.name for notebook in notebooks], "There is no notebook")
    return [notebook for notebook in notebooks if not chosen or notebook.name in chosen]


def defaults(path: Path) -> dict[str, Value]:
    """Return name -> default of the cell tagged `parameters`; nothing of the notebook is run.

    DataError for a statement that papermill would pass over without an error.
    """
    try:
        tagged = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
        lines: list[Any] = ast.parse("".join(tagged[0]["source"])).body if tagged else []
    except (ValueError, KeyError, TypeError, SyntaxError) as why:
        raise DataError(f"{path} can't be read as a notebook: {why}", hint="open it in JupyterLab and save it") from why
    values: dict[str, Value] = {}
    for line in lines:
        try:
            name, kind = line.target.id, KINDS[line.annotation.id]
            values[name] = options.convert(ast.literal_eval(line.value), kind, name=name)
        except (AttributeError, KeyError, ValueError, OptionError) as why:
            hint = "one `name: type = literal  # help` a line; papermill passes over anything else without a word"
            raise DataError(f"{path}, parameters: {ast.unparse(line)!r} is not a plain parameter", hint=hint) from why
    return values


def profiles(file: Path) -> tuple[dict[str, dict[str, Any]], dict[int, str]]:
    """Return profile -> notebook -> parameters, and decade -> name of its data set, from profiles.yaml.

    The profile `quick` is always there: the defaults.
    """
    table = read_yaml(file) if file.exists() else {}
    try:
        sets = {int(decade): str(name) for decade, name in (table.pop("data", None) or {}).items()}
        return {"quick": {}} | {name: dict(values or {}) for name, values in table.items()}, sets
    except (AttributeError, TypeError, ValueError) as why:
        raise DataError(f"{file} holds no profiles: {why}", hint="profile, then notebook, then name: value") from why


def settle(
    chosen: list[Notebook], *, given: Mapping[str, str], profile: str = "quick", data: Path | None = None, file: Path
) -> dict[str, dict[str, Value]]:
    """Return notebook name -> parameters that differ from its defaults; every name and value is checked first.

    `given` (name -> text) holds for every notebook that has the parameter; the `profile` in `file` maps a notebook's
    name, or `every`, to values of its own. OptionError names the nearest names.
    """
    table, sets = profiles(file)
    options.check([profile], table, "There is no profile")
    every = ["every", *(path.stem for path in file.parent.glob("[0-9][0-9]_*.ipynb"))]
    options.check(table[profile], every, f"The profile {profile!r} names a notebook")
    options.check(given, {name for book in chosen for name in book.defaults}, "None of these notebooks has a parameter")
    if data is not None and not data.is_dir():
        raise DataError(f"There is no folder {data}", hint="a folder of recordings; data/README.md has the layouts")
    return {book.name: _values(book, table[profile], given, data_for(book, data, sets)) for book in chosen}


def data_for(notebook: Notebook, folder: Path | None, sets: Mapping[int, str]) -> str:
    """Return the folder that `notebook` reads when `--data` is `folder`; empty for the sample.

    `sets` maps a decade of notebooks to the name of its data set. A root has the set below it; a folder that bears no
    set's name, and has none below it, is taken for recordings of the first system.
    """
    decade = notebook.number // 10
    if folder is None or (sets and decade not in sets):
        return ""
    folder, own = folder.resolve(), sets.get(decade, "")
    if own and (folder / own).is_dir():
        return str(folder / own)
    if folder.name in sets.values() or any((folder / name).is_dir() for name in sets.values()):
        return str(folder) if folder.name == own else ""
    return str(folder) if decade == min(sets, default=decade) else ""


def _values(notebook: Notebook, profile: Mapping[str, Any], given: Mapping[str, Any], folder: str) -> dict[str, Value]:
    """Every value that differs from its default, of the type that the default has."""
    own = dict(profile.get(notebook.name) or {})
    options.check(own, notebook.defaults, f"{notebook.name} has no such parameter as the profile's")
    wanted = {**(profile.get("every") or {}), **own, **({"data": folder} if folder else {}), **given}
    values = {}
    for name in wanted.keys() & notebook.defaults.keys():
        default, label = notebook.defaults[name], f"{notebook.name}: {name}"
        if isinstance(default, str) and not isinstance(wanted[name], str):
            raise OptionError(f"{label}={wanted[name]!r} is not str", hint=f"the default is {default!r}")
        values[name] = options.convert(wanted[name], type(default), name=label)
    return {name: value for name, value in values.items() if value != notebook.defaults[name]}


def upstream(notebooks: list[Notebook]) -> dict[str, set[str]]:
    """Name -> the notebooks before it whose runs it reads, for each of `notebooks` in number order.

    A notebook writes the runs that it starts and those that its first cell says it writes; it reads a run of its system
    that its code names in quotes. The results (30 and on) read all.
    """
    writes: dict[str, set[str]] = {}
    reads: dict[str, set[str]] = {}
    for book in notebooks:
        first, *rest = [(cell["cell_type"], "".join(cell["source"])) for cell in cells(book.path)] or [("", "")]
        code = "\n".join(source for kind, source in rest if kind == "code")
        said = re.search(r"Writes ([^.,]*)", first[1])
        own = {*re.findall(r"`([^`]+)`", said[1] if said else ""), *re.findall(r'start\(\s*"([^"]+)"', code)}
        named = set(re.findall(r"""["']([^"'\n]+)["']""", code)) - own
        same = f"{book.number // 10}"  # a system's notebooks are a decade
        reads[book.name] = {
            name for name, runs in writes.items() if book.number >= 30 or (name[0] == same and named & runs)
        }
        writes[book.name] = own
    return reads


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]
