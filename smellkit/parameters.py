"""The parameters of a notebook: what its tagged cell offers, and which values it will take, checked before it runs."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smellkit import options
from smellkit.errors import DataError, OptionError

Value = str | int | float | bool


@dataclass(frozen=True)
class Notebook:
    """A source notebook: its file, and the defaults of its parameters."""

    path: Path
    defaults: dict[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name without the ending, such as `02_odour_encoder`."""
        return self.path.stem

    @property
    def number(self) -> int:
        """The two digits that the name begins with; the decade tells the system."""
        return int(self.name[:2])


def find(folder: Path) -> list[Notebook]:
    """Return the notebooks of `folder` in number order; those whose name has no number are left alone."""
    files = sorted(path for path in folder.glob("[0-9][0-9]_*.ipynb"))
    if not files:
        raise DataError(f"There are no notebooks in {folder}", hint="names begin with two digits: 01_odour_data.ipynb")
    return [Notebook(path, defaults(path)) for path in files]


def select(notebooks: Iterable[Notebook], names: Iterable[str]) -> list[Notebook]:
    """Return those called `names` (a name, the number `2` or `02`, or a file's path), in number order; all without."""
    notebooks, names = list(notebooks), [Path(name).stem for name in names]
    known = {notebook.name: notebook for notebook in notebooks}
    numbers = {str(notebook.number): notebook.name for notebook in notebooks}
    chosen = []
    for name in names:
        full = numbers.get(str(int(name))) if name.isdigit() else name
        if full not in known:
            raise OptionError(f"There is no notebook {name!r}", hint=options.nearest(name, known))
        chosen.append(full)
    return [notebook for notebook in notebooks if not names or notebook.name in chosen]


def defaults(path: Path) -> dict[str, Value]:
    """Return name -> default of the cell tagged `parameters`, read as text: nothing of the notebook is run."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        source = "".join(tagged[0]["source"]) if tagged else ""
        statements = ast.parse(source).body
    except (ValueError, KeyError, TypeError, SyntaxError) as why:
        raise DataError(f"{path} can't be read as a notebook: {why}", hint="open it in JupyterLab and save it") from why
    found: dict[str, Value] = {}
    for statement in statements:
        value = None
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            name = statement.target.id
            with suppress(ValueError):
                value = ast.literal_eval(statement.value)
        if not isinstance(value, (str, int, float, bool)):
            raise DataError(
                f"{path}, parameters, line {statement.lineno}: {ast.unparse(statement)!r} is not a plain parameter",
                hint="one `name: type = literal  # help` a line; papermill passes over anything else without a word",
            )
        found[name] = value
    return found


def settle(
    notebooks: Iterable[Notebook],
    *,
    given: Mapping[str, str],
    profile: Mapping[str, Any],
    data: Callable[[Notebook], str] = lambda notebook: "",
) -> dict[str, dict[str, Value]]:
    """Return notebook name -> parameters that differ from its defaults; every name and value is checked first.

    `given` (name -> text) holds for every notebook that has the parameter; `profile` maps a notebook's name, or
    `every`, to values of its own; `data` gives the parameter of that name. OptionError names the nearest names.
    """
    notebooks = list(notebooks)
    names = {name for notebook in notebooks for name in notebook.defaults}
    for name in given:
        if name not in names:
            raise OptionError(f"None of these notebooks has a parameter {name!r}", hint=options.nearest(name, names))
    settled = {}
    for notebook in notebooks:
        own = dict(profile.get(notebook.name) or {})
        for name in own:
            if name not in notebook.defaults:
                hint = options.nearest(name, notebook.defaults)
                raise OptionError(
                    f"The profile sets {name!r} in {notebook.name}, which has no such parameter", hint=hint
                )
        wanted = dict(profile.get("every") or {}) | own | _folder(data(notebook)) | dict(given)
        values = {
            name: _convert(value, notebook.defaults[name], f"{notebook.name}: {name}")
            for name, value in wanted.items()
            if name in notebook.defaults
        }
        settled[notebook.name] = {name: value for name, value in values.items() if value != notebook.defaults[name]}
    return settled


def profiles(file: Path) -> dict[str, dict[str, Any]]:
    """Return profile -> notebook -> parameters from a YAML file; `quick` is always there: the defaults."""
    import yaml

    try:
        table = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    except yaml.YAMLError as why:
        raise DataError(f"{file} is not valid YAML: {why}", hint="profile, then notebook, then name: value") from why
    table = {"quick": {}} | {name: values or {} for name, values in (table or {}).items() if name != "data"}
    if not all(isinstance(values, dict) for values in table.values()):
        raise DataError(f"{file} has a profile that is not a table", hint="profile, then notebook, then name: value")
    return table


def data_for(notebook: Notebook, folder: Path | None, sets: Mapping[int, str]) -> str:
    """Return the folder that `notebook` reads when `--data` is `folder`; empty for the sample.

    `sets` maps a decade of notebooks to the name of its data set. A root has the set below it; a folder that bears no
    set's name, and has none below it, is taken for recordings of the first system.
    """
    own = sets.get(notebook.number // 10)
    if folder is None or (own is None and sets):
        return ""
    folder = folder.resolve()
    if own is not None and (folder / own).is_dir():
        return str(folder / own)
    other = folder.name in sets.values() or any((folder / name).is_dir() for name in sets.values())
    mine = folder.name == own if other else not sets or notebook.number // 10 == min(sets)
    return str(folder) if mine else ""


def data_sets(file: Path) -> dict[int, str]:
    """Return decade -> name of the data set, from the key `data` of the same YAML file."""
    import yaml

    table = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {int(decade): str(name) for decade, name in ((table or {}).get("data") or {}).items()}


def _folder(folder: str) -> dict[str, str]:
    return {"data": folder} if folder else {}


def _convert(value: Any, default: Value, name: str) -> Value:
    if not isinstance(value, str) and isinstance(default, str):
        raise OptionError(f"{name}={value!r} is not str", hint=f"the default is {default!r}")
    return options.convert(value, type(default), name=name)
