"""`smellkit run`: execute the notebooks in number order, each in a kernel of its own, and only those that must.

A notebook is up to date when nothing changed that it depends on: its own text, its parameters, the package, the files
of the data folder, the trained weights, and the notebooks before it in the same system (they hand over run folders).

    data/runs/notebooks/<set>/<notebook>.ipynb   executed; appears only when every cell succeeded
    data/runs/notebooks/<set>/<notebook>.json    what it was made from
    data/runs/notebooks/<set>/unfinished/        one that failed, to open and look at

The set is `quick` or `full`, and `-<folder>` behind it with another data folder (and what tells it from others of that
name); each has run folders of its own. One batch at a time writes in a set.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smellkit import options, paths
from smellkit.checks import read_yaml
from smellkit.errors import DataError, OptionError, SmellkitError

FOLDER = paths.HOME / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d%\||FloatProgress|IntProgress")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
DATA = "data.json"  # in a set: the data folder that it was made from
DONE, FRESH, FAILED, LEFT = "done", "up to date", "failed", "not reached"
ASIDE = ("batch.py", "site.py", "doctor.py", "__main__.py", "cli/")  # they show and start: no reason to train again
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


@dataclass(frozen=True)
class Result:
    """What became of one notebook: `status`, `seconds`, the executed file, and the error when it failed."""

    notebook: str
    status: str
    seconds: float
    output: Path
    error: SmellkitError | None = None


def run(
    names: Iterable[str] = (),
    *,
    profile: str = "quick",
    given: Mapping[str, str] | None = None,
    data: Path | None = None,
    folder: Path = FOLDER,
    force: bool = False,
    timeout: int = 600,
    progress: Callable[[str], object] = lambda text: None,
) -> list[Result]:
    """Execute the notebooks called `names`, or all, and return one result each; stop at the first that fails.

    Names, profile and parameters are checked before anything runs. `timeout` is seconds a cell; `progress` gets one
    line a notebook. An interrupted or failed batch goes on where it stopped when it is started again.
    """
    every = find(folder)
    chosen = select(every, names)
    values = settle(chosen, given=given or {}, profile=profile, data=data, file=folder / "profiles.yaml")
    out = executed(set_name(profile, data))
    inputs = _digest(_inputs(data or paths.sample()))
    results: list[Result] = []
    with paths.locked(out, what="a batch of notebooks"):
        if data is not None:
            paths.write_json(out / DATA, {"folder": str(data.resolve()), "content": content_of(data)})
        for notebook in chosen:
            target = out / notebook.path.name
            made_of = json.dumps([values[notebook.name], inputs, _before(notebook, every, out)], sort_keys=True)
            key = _digest([("notebook", notebook.path.read_bytes()), ("rest", made_of.encode())])
            if any(result.error for result in results):
                results.append(Result(notebook.name, LEFT, 0.0, target))
            elif not force and target.exists() and made_from(target).get("key") == key:
                results.append(Result(notebook.name, FRESH, 0.0, target))
            else:
                results.append(_execute(notebook, values[notebook.name], target, key=key, timeout=timeout))
            progress(f"{notebook.name:<24} {results[-1].status:<11} {results[-1].seconds:6.1f} s")
    return results


def executed(name: str) -> Path:
    """Folder of the executed notebooks of the set `name`."""
    return paths.runs() / "notebooks" / name


def set_name(profile: str, data: Path | None) -> str:
    """Name of the set: the profile, with the data folder's name behind it when that isn't the sample.

    Where another data folder of that name has the set already, a digest of the content tells them apart.
    """
    if data is None:
        return profile
    name, content = f"{profile}-{data.resolve().name}", content_of(data)
    known = paths.read_json(executed(name) / DATA)
    same = not known or known.get("folder") == str(data.resolve()) or known.get("content") == content
    return name if same else f"{name}-{content[:8]}"


def content_of(folder: Path) -> str:
    """Digest of the names and sizes of the files in a folder."""
    return _digest((name, state.split()[0]) for name, state in _files(folder))


def made_from(output: Path) -> dict[str, Any]:
    """What the executed notebook was made from; empty when it isn't known."""
    return paths.read_json(output.with_suffix(".json"))


def is_bar(output: Mapping[str, Any]) -> bool:
    """Whether a cell's output is a progress bar: a widget, which TQDM_DISABLE does not stop."""
    data = output.get("data", {})
    return WIDGET in data and BAR.search("".join(data.get("text/plain", ""))) is not None


# Which notebooks, and with which parameters


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
        tagged = [cell for cell in _cells(path) if "parameters" in cell["metadata"].get("tags", [])]
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


# One notebook in one kernel


def _execute(notebook: Notebook, values: Mapping[str, Any], target: Path, *, key: str, timeout: int) -> Result:
    """Run one notebook with papermill; its output lies in `unfinished` and is moved when every cell succeeded."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    part, stamp = target.parent / "unfinished" / target.name, target.with_suffix(".json")
    log = part.with_suffix(".log")
    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it logs is in the error below
    bar = {"desc": notebook.name, "leave": False, "disable": not sys.stderr.isatty(), "dynamic_ncols": True}
    began = time.monotonic()
    try:
        papermill.execute_notebook(
            notebook.path, part, dict(values), kernel_name="python3", language="python", cwd=notebook.path.parent,
            progress_bar=bar, execution_timeout=timeout, start_timeout=120, **_kernel(log, target.parent.name),
        )  # fmt: skip
    except (PapermillExecutionError, TimeoutError, RuntimeError) as why:
        for old in (target, stamp):  # what an older text of the notebook gave is not its result
            old.unlink(missing_ok=True)
        return Result(notebook.name, FAILED, time.monotonic() - began, part, _explain(notebook, why, part, timeout))
    seconds = time.monotonic() - began
    _clean(part)
    part.replace(target)
    log.unlink(missing_ok=True)
    made = {"key": key, "seconds": round(seconds, 2), "at": time.time(), "parameters": dict(values)}
    paths.write_json(stamp, made)
    return Result(notebook.name, DONE, seconds, target)


def _kernel(log: Path, name: str) -> dict[str, Any]:
    """How kernels of the set `name` are started: what they say outside of cells goes to `log`.

    They find this checkout and, for any set but `quick`, run folders of their own; only this user can talk to them.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.paths import jupyter_runtime_dir
    from traitlets.config import Config

    log.parent.mkdir(parents=True, exist_ok=True)
    search = os.pathsep.join(filter(None, [str(paths.HOME), os.environ.get("PYTHONPATH", "")]))
    runs = paths.runs() if name == "quick" else paths.runs() / name
    own = {"SMELLKIT_HEADLESS": "1", "SMELLKIT_RUNS": str(runs), "PYTHONPATH": search, "TQDM_DISABLE": "1"}

    class Quiet(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict(), env=own)  # of this Python, whatever kernelspecs this user has

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            with log.open("w", encoding="utf-8") as file:
                await super().start_kernel(**options, stderr=file)

    short = len(jupyter_runtime_dir()) <= 50  # the name of a socket has 107 characters at most
    transport = {"transport": "ipc"} if os.name == "posix" and short else {}
    return {"kernel_manager_class": Quiet, "config": Config({"KernelManager": transport})}


def _explain(notebook: Notebook, why: Any, part: Path, timeout: int) -> SmellkitError:
    """Put notebook, cell, line and error into one short message; the last cell that was begun is the one at fault."""
    if isinstance(why, TimeoutError):
        message = f"Timeout: no answer for {timeout} s\n  Try: --timeout {timeout * 4}"
    elif isinstance(why, RuntimeError):
        message = f"{type(why).__name__}: {why}\n  Try: more memory, or smaller parameters"
    else:
        message = f"{why.ename}: {COLOURS.sub('', why.evalue).strip()[:1500] or 'no message'}"
    cells = paths.read_json(part).get("cells", [])
    begun = [cell["source"] for cell in cells if cell["metadata"].get("papermill", {}).get("start_time")]
    source = "".join(begun[-1]) if begun else ""
    code = ["".join(cell["source"]) for cell in _cells(notebook.path) if cell["cell_type"] == "code"]
    cell = f"code cell {code.index(source) + 1}" if source in code else "the cell of its parameters"
    trace = COLOURS.sub("", "\n".join(getattr(why, "traceback", [])))
    lines = dict(enumerate(source.splitlines(), 1))
    first = next((text for text in lines.values() if text.strip() and not text.startswith("#|")), "")
    line = re.search(r"Cell In\s?\[\d+\], line (\d+)", trace)
    statement = lines.get(int(line[1]), first) if line else first
    return SmellkitError(f"{notebook.path.name}, {cell}: `{statement.strip()}`\n  {message}")


def _clean(output: Path) -> None:
    """Take out progress bars, which are over, and what papermill noted: absolute paths and times."""
    book = paths.read_json(output)
    for part in (book, *book["cells"]):
        for noted in ("papermill", "execution"):
            part["metadata"].pop(noted, None)
    for cell in book["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not is_bar(output)]
        if cell["metadata"].get("tags") == []:
            del cell["metadata"]["tags"]
    if WIDGET not in json.dumps(book["cells"]):
        book["metadata"].pop("widgets", None)
    paths.write_json(output, book)


def _cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


# Whether it must run: one digest over all that the result depends on


def _inputs(data: Path) -> Iterator[tuple[str, bytes]]:
    """What every notebook may read: the package but for `ASIDE`, weights, data, published results and pictures."""
    package = paths.HOME / "smellkit"
    for path in sorted(package.rglob("*.py")):
        if not (name := path.relative_to(package).as_posix()).startswith(ASIDE):
            yield name, path.read_bytes()
    for folder in (paths.weights(), paths.HOME / "site" / "results", paths.HOME / "site" / "images", data):
        yield from _files(folder)


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name, size and time of every file below `folder`: enough to see a change without reading gigabytes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state = path.stat()
            yield path.relative_to(folder).as_posix(), f"{state.st_size} {state.st_mtime_ns}".encode()


def _before(notebook: Notebook, every: list[Notebook], out: Path) -> list[Any]:
    """When the notebooks before this one in its system were run; the results (30 and on) come after all."""
    decade = notebook.number // 10
    earlier = [other for other in every if other.number < notebook.number]
    upstream = [other for other in earlier if decade >= 3 or other.number // 10 == decade and other.number % 10]
    return [(other.name, made_from(out / other.path.name).get("at")) for other in upstream]


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    total = hashlib.sha256()
    for name, content in files:
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()
