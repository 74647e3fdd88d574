"""`smellkit run`: execute the notebooks in number order, each in a kernel of its own, and only those that must.

A notebook is up to date when nothing changed that it depends on: its own text, its parameters, the package, the files
of the data folder, the trained weights, and the notebooks before it in the same system (they hand over run folders).

    data/runs/notebooks/<set>/<notebook>.ipynb   executed; appears only when every cell succeeded
    data/runs/notebooks/<set>/<notebook>.json    what it was made from
    data/runs/notebooks/<set>/unfinished/        one that failed, to open and look at

The set is `quick` or `full`, and `-<folder>` behind it with another data folder; each has run folders of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smellkit import options, parameters, paths
from smellkit.errors import DataError, OptionError, SmellkitError
from smellkit.parameters import Notebook

FOLDER = paths.HOME / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d%\||FloatProgress|IntProgress")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
DONE, FRESH, FAILED, LEFT = "done", "up to date", "failed", "not reached"


class NotebookError(SmellkitError):
    """A notebook stopped: which, in which cell, and why."""


@dataclass(frozen=True)
class Result:
    """What became of one notebook: `status`, `seconds`, the executed file, and the error when it failed."""

    notebook: str
    status: str
    seconds: float
    output: Path
    error: NotebookError | None = None


def run(
    names: Iterable[str] = (),
    *,
    profile: str = "quick",
    given: Mapping[str, str] | None = None,
    data: Path | None = None,
    folder: Path = FOLDER,
    force: bool = False,
    timeout: int = 600,
    say: Callable[[str], object] = lambda text: None,
) -> list[Result]:
    """Execute the notebooks called `names`, or all, and return one result each; stop at the first that fails.

    Names, profile and parameters are checked before anything runs. `timeout` is seconds a cell; `say` gets one line a
    notebook. An interrupted or failed batch goes on where it stopped when it is started again.
    """
    table = parameters.profiles(folder / "profiles.yaml")
    if profile not in table:
        raise OptionError(f"There is no profile {profile!r}", hint=options.nearest(profile, table))
    every = parameters.find(folder)
    known = {notebook.name for notebook in every} | {"every"}
    for name in table[profile]:
        if name not in known:
            raise OptionError(f"The profile {profile!r} names a notebook {name!r}", hint=options.nearest(name, known))
    chosen = parameters.select(every, names)
    if data is not None and not data.is_dir():
        raise DataError(f"There is no folder {data}", hint="a folder of recordings; data/README.md has the layouts")
    sets = parameters.data_sets(folder / "profiles.yaml")
    settled = parameters.settle(
        chosen,
        given=given or {},
        profile=table[profile],
        data=lambda notebook: parameters.data_for(notebook, data, sets),
    )
    out = executed(set_name(profile, data))
    shown = [pair for name in ("results", "images") for pair in _files(paths.HOME / "site" / name)]
    package = digest([*_package(), *_files(paths.weights()), *shown])
    inputs = digest(_files(data if data is not None else paths.sample()))
    results: list[Result] = []
    with _environment(set_name(profile, data)):
        for notebook in chosen:
            target = out / notebook.path.name
            if results and results[-1].status == FAILED or any(result.status == LEFT for result in results):
                results.append(Result(notebook.name, LEFT, 0.0, target))
                continue
            key = _key(notebook, settled[notebook.name], package + inputs, _before(notebook, every, out))
            if not force and target.exists() and made_from(target).get("key") == key:
                results.append(Result(notebook.name, FRESH, 0.0, target))
            else:
                results.append(_execute(notebook, settled[notebook.name], target, key=key, timeout=timeout))
            say(f"{notebook.name:<24} {results[-1].status:<10} {results[-1].seconds:6.1f} s")
    return results


def executed(name: str) -> Path:
    """Folder of the executed notebooks of the set `name`."""
    return paths.runs() / "notebooks" / name


def set_name(profile: str, data: Path | None) -> str:
    """Name of the set: the profile, with the data folder's name behind it when that isn't the sample."""
    return f"{profile}-{data.resolve().name}" if data is not None else profile


def digest(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over names and contents."""
    total = hashlib.sha256()
    for name, content in files:
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def _execute(notebook: Notebook, values: Mapping[str, Any], target: Path, *, key: str, timeout: int) -> Result:
    """Run one notebook with papermill; its output lies in `unfinished` and is moved when every cell succeeded."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    part = target.parent / "unfinished" / target.name
    part.parent.mkdir(parents=True, exist_ok=True)
    log = part.with_suffix(".log")
    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it logs is in the error below
    began = time.monotonic()
    bar = {"desc": notebook.name, "leave": False, "disable": not sys.stderr.isatty(), "dynamic_ncols": True}
    try:
        papermill.execute_notebook(
            notebook.path, part, dict(values), kernel_name="python3", language="python", cwd=notebook.path.parent,
            progress_bar=bar, execution_timeout=timeout, start_timeout=120, **_kernel(log),
        )  # fmt: skip
    except PapermillExecutionError as why:
        error = _explain(notebook, why.source, why.ename, why.evalue, why.traceback)
    except (CellTimeoutError, TimeoutError):
        error = _explain(
            notebook, _running(part), "Timeout", f"no answer for {timeout} s\n  Try: --timeout {timeout * 4}"
        )
    except (DeadKernelError, RuntimeError) as why:
        error = _explain(
            notebook, _running(part), type(why).__name__, f"{why}\n  Try: more memory, or smaller parameters"
        )
    else:
        seconds = time.monotonic() - began
        _clean(part)
        part.replace(target)
        log.unlink(missing_ok=True)
        made = {"key": key, "seconds": round(seconds, 2), "at": time.time(), "parameters": dict(values)}
        paths.write_json(_stamp_file(target), made)
        return Result(notebook.name, DONE, seconds, target)
    for old in (target, _stamp_file(target)):  # what an older text of the notebook gave is not its result
        old.unlink(missing_ok=True)
    return Result(notebook.name, FAILED, time.monotonic() - began, part, error)


def _kernel(log: Path) -> dict[str, Any]:
    """How kernels are started: what they say outside of cells goes to `log`, and only this user can talk to them."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.paths import jupyter_runtime_dir
    from traitlets.config import Config

    class Quiet(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            with log.open("w", encoding="utf-8") as file:
                await super().start_kernel(**options, stderr=file)

    short = len(jupyter_runtime_dir()) <= 50  # the name of a socket has 107 characters at most
    transport = {"transport": "ipc"} if os.name == "posix" and short else {}
    return {"kernel_manager_class": Quiet, "config": Config({"KernelManager": transport})}


def _explain(notebook: Notebook, source: str, kind: str, value: str, trace: Iterable[str] = ()) -> NotebookError:
    """Put notebook, cell, line and error into one short message."""
    cells = [cell for cell in _cells(notebook.path) if cell["cell_type"] == "code"]
    number = next((n for n, cell in enumerate(cells, 1) if "".join(cell["source"]) == source), 0)
    cell = f"code cell {number}" if number else "the cell of its parameters"
    plain = COLOURS.sub("", "\n".join(trace))
    line = re.search(r"Cell In\s?\[\d+\], line (\d+)", plain)
    lines = source.splitlines()
    words = [text.strip() for text in lines if text.strip() and not text.startswith("#|")] or [""]
    said = lines[int(line[1]) - 1].strip() if line and int(line[1]) <= len(lines) else words[0]
    value = COLOURS.sub("", value).strip() or "no message"
    return NotebookError(f"{notebook.path.name}, {cell}: `{said}`\n  {kind}: {value[:1500]}")


def _running(output: Path) -> str:
    """Source of the cell that was running when the output was last saved."""
    cells = _cells(output) if output.exists() else []
    begun = [cell for cell in cells if cell["metadata"].get("papermill", {}).get("start_time")]
    return "".join(begun[-1]["source"]) if begun else ""


def _clean(output: Path) -> None:
    """Take out progress bars, which are over, and what papermill noted: absolute paths and times."""
    book = json.loads(output.read_text(encoding="utf-8"))
    for part in (book, *book["cells"]):
        part["metadata"].pop("papermill", None)
    for cell in book["cells"]:
        cell["metadata"].pop("execution", None)
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not is_bar(output)]
    if WIDGET not in json.dumps(book["cells"]):
        book["metadata"].pop("widgets", None)
        if cell["metadata"].get("tags") == []:
            del cell["metadata"]["tags"]
    output.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_bar(output: Mapping[str, Any]) -> bool:
    """Whether a cell's output is a progress bar: a widget, which TQDM_DISABLE does not stop."""
    data = output.get("data", {})
    return WIDGET in data and BAR.search("".join(data.get("text/plain", ""))) is not None


def _key(notebook: Notebook, values: Mapping[str, Any], common: str, before: list[Any]) -> str:
    """SHA-256 of everything that the result depends on."""
    return digest(
        [
            ("notebook", notebook.path.read_bytes()),
            ("values", json.dumps(values, sort_keys=True).encode()),
            ("common", common.encode()),
            ("before", json.dumps(before).encode()),
        ]
    )


def _before(notebook: Notebook, every: list[Notebook], out: Path) -> list[Any]:
    """When the notebooks before this one in its system were run; the results (30 and on) come after all."""
    decade = notebook.number // 10
    earlier = [other for other in every if other.number < notebook.number]
    upstream = [other for other in earlier if decade >= 3 or other.number // 10 == decade and other.number % 10]
    return [(other.name, made_from(out / other.path.name).get("at")) for other in upstream]


def made_from(output: Path) -> dict[str, Any]:
    """What the executed notebook was made from; empty when it isn't known."""
    try:
        return json.loads(_stamp_file(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _stamp_file(output: Path) -> Path:
    return output.with_suffix(".json")


def _cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def _package() -> Iterator[tuple[str, bytes]]:
    """The package's source, without what only shows and starts: a new colour on the site runs no training again."""
    package = paths.HOME / "smellkit"
    aside = {"batch.py", "parameters.py", "site.py", "preview.py", "pages.py", "results.py", "doctor.py", "__main__.py"}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name not in aside and not name.startswith("cli/"):
            yield name, path.read_bytes()


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name, size and time of every file below `folder`: enough to see a change without reading gigabytes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state = path.stat()
            yield path.relative_to(folder).as_posix(), f"{state.st_size} {state.st_mtime_ns}".encode()


@contextmanager
def _environment(name: str) -> Iterator[None]:
    """What the kernels find: quiet progress, this checkout, and run folders of their own for any set but `quick`."""
    import tqdm.auto  # noqa: F401 - before the variable below, which it reads when it is imported: the batch has a bar

    search = os.pathsep.join(filter(None, [str(paths.HOME), os.environ.get("PYTHONPATH", "")]))
    own = paths.runs() if name == "quick" else paths.runs() / name
    changed = {"SMELLKIT_HEADLESS": "1", "SMELLKIT_RUNS": str(own), "PYTHONPATH": search, "TQDM_DISABLE": "1"}
    kept = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for key, old in kept.items():
            if old is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = old
