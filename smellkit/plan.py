"""The notebooks of a folder: which there are, which to run and with which parameters, whose runs each one reads."""

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from smellkit import options
from smellkit.checks import read_yaml
from smellkit.errors import DataError, OptionError

KINDS = {"str": str, "int": int, "float": float, "bool": bool}  # of parameters
NUMBERED = "[0-9][0-9]_*.ipynb"


@dataclass(frozen=True)
class Notebook:
    """A source notebook: its file, its cells, and the defaults of its parameters."""

    path: Path
    cells: list[dict[str, Any]]
    defaults: dict[str, Any]

    @property
    def name(self) -> str:
        """Such as `02_odour_encoder`; its first digit, the decade, tells the system."""
        return self.path.stem

    def code(self) -> list[str]:
        """The text of each code cell."""
        return ["".join(cell["source"]) for cell in self.cells if cell["cell_type"] == "code"]


@contextmanager
def no_iris() -> Iterator[None]:
    """What is imported in the block and checks notebooks makes no parser of IRIs, which takes a second and checks none.

    The parser is jsonschema's, and there where something else (JupyterLab) has brought it along.
    """
    absent = sys.modules.setdefault("rfc3987_syntax", cast(Any, None)) is None
    try:
        yield
    finally:
        if absent:
            sys.modules.pop("rfc3987_syntax", None)


def find(folder: Path) -> list[Notebook]:
    """Return the notebooks of `folder` in number order; those whose name has no number are left alone."""
    files = sorted(folder.glob(NUMBERED))
    if not files:
        raise DataError(f"There are no notebooks in {folder}", hint="names begin with two digits: 01_odour_data.ipynb")
    return [read(path) for path in files]


def read(path: Path) -> Notebook:
    """Return a notebook with the defaults in its cell tagged `parameters`; nothing of it is run.

    DataError for a parameter that papermill would pass over without an error.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        lines: list[Any] = ast.parse("".join(tagged[0]["source"])).body if tagged else []
    except (ValueError, KeyError, TypeError, SyntaxError) as why:
        raise DataError(f"{path} can't be read as a notebook: {why}", hint="open it in JupyterLab and save it") from why
    values: dict[str, Any] = {}
    for line in lines:
        try:
            name, kind = line.target.id, KINDS[line.annotation.id]
            values[name] = options.convert(ast.literal_eval(line.value), kind, name=name)
        except (AttributeError, KeyError, ValueError, OptionError) as why:
            hint = "one `name: type = literal  # help` a line; papermill passes over anything else without a word"
            raise DataError(f"{path}, parameters: {ast.unparse(line)!r} is not a plain parameter", hint=hint) from why
    return Notebook(path, cells, values)


def select(notebooks: list[Notebook], names: Iterable[str]) -> list[Notebook]:
    """Return those called `names` (a name, the number `2` or `02`, or a file's path), in number order; all without."""
    numbers = {str(int(book.name[:2])): book.name for book in notebooks}
    chosen = [numbers.get(name.lstrip("0") or "0", Path(name).stem) for name in names]
    options.check(chosen, [book.name for book in notebooks], "There is no notebook")
    return [book for book in notebooks if not chosen or book.name in chosen]


def settle(
    chosen: list[Notebook], *, given: Mapping[str, str], profile: str = "quick", data: Path | None = None, file: Path
) -> dict[str, dict[str, Any]]:
    """Return notebook name -> parameters that differ from its defaults; every name and value is checked first.

    `given` (name -> text) holds for every notebook that has the parameter; the `profile` in `file` maps a notebook's
    name, or `every`, to values of its own; `quick` is always there. OptionError names the nearest names.
    """
    table = {"quick": None, **(read_yaml(file) if file.exists() else {})}
    sets = table.pop("data", None) or {}
    options.check([profile], table, "There is no profile")
    try:
        asked = {name: dict(values or {}) for name, values in (table[profile] or {}).items()}
        folders = data_folders(data, {int(decade): str(name) for decade, name in sets.items()})
    except (AttributeError, TypeError, ValueError) as why:
        raise DataError(f"{file} holds no profiles: {why}", hint="profile, then notebook, then name: value") from why
    every = ["every", *(path.stem for path in file.parent.glob(NUMBERED))]
    options.check(asked, every, f"The profile {profile!r} names a notebook")
    options.check(given, {name for book in chosen for name in book.defaults}, "None of these notebooks has a parameter")
    values = {}
    for book in chosen:
        own = asked.get(book.name, {})
        options.check(own, book.defaults, f"{book.name} has no such parameter as the profile's")
        wanted = {**asked.get("every", {}), **own, **folders.get(int(book.name[0]), {}), **given}
        values[book.name] = _values(book, wanted)
    return values


def data_folders(folder: Path | None, sets: Mapping[int, str]) -> dict[int, dict[str, str]]:
    """Decade -> the parameter `data` of its notebooks when `--data` is `folder`; the others read the sample.

    `sets` maps a decade of notebooks to the name of its data set. A root has the sets below it; a folder that bears no
    set's name, and has none below it, is taken for recordings of the first system.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}", hint="a folder of recordings; data/README.md has the layouts")
    folder = folder.resolve()
    below = {decade: folder / name for decade, name in sets.items() if (folder / name).is_dir()}
    named = {decade: folder for decade, name in sets.items() if name == folder.name}
    chosen = below or named or {min(sets, default=0): folder}
    return {decade: {"data": str(place)} for decade, place in chosen.items()}


def _values(book: Notebook, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the `wanted` values that differ from their default, of the type that it has."""
    values = {}
    for name in wanted.keys() & book.defaults.keys():
        default, label = book.defaults[name], f"{book.name}: {name}"
        if isinstance(default, str) and not isinstance(wanted[name], str):
            raise OptionError(f"{label}={wanted[name]!r} is not str", hint=f"the default is {default!r}")
        values[name] = options.convert(wanted[name], type(default), name=label)
    return {name: value for name, value in values.items() if value != book.defaults[name]}


def upstream(notebooks: list[Notebook]) -> dict[str, set[str]]:
    """Name -> the notebooks before it whose runs it reads, for each of `notebooks` in number order.

    A notebook writes the runs that it starts and those that its first cell says it writes; it reads a run of its system
    that its code names in quotes. The results (30 and on) read all.
    """
    writes: dict[str, set[str]] = {}
    reads: dict[str, set[str]] = {}
    for book in notebooks:
        code, sentence = "\n".join(book.code()), re.search(r"Writes ([^.,]*)", "".join(book.cells[0]["source"]))
        own = {*re.findall(r"`([^`]+)`", sentence[1] if sentence else ""), *re.findall(r'start\(\s*"([^"]+)"', code)}
        named = set(re.findall(r"""["']([^"'\n]+)["']""", code)) - own
        of_system = {name for name, runs in writes.items() if name[0] == book.name[0] and named & runs}
        reads[book.name] = set(writes) if book.name >= "30" else of_system
        writes[book.name] = own
    return reads
