"""`smellkit run`: execute the notebooks side by side, each in a kernel of its own, and only those that must.

A notebook is up to date when nothing changed that it depends on: its own text, its parameters, the package, the files
of the data folder, the trained weights, and the notebooks whose runs it reads: its code names one that they write.
Those numbered 30 and on read all before them.

    data/runs/notebooks/<set>/<notebook>.ipynb   executed; appears only when every cell succeeded
    data/runs/notebooks/<set>/<notebook>.json    what it was made from
    data/runs/notebooks/<set>/unfinished/        one that failed, to open and look at

The set is `quick` or `full`, and `-<folder>` behind it with another data folder (and what tells it from others of that
name); each has run folders of its own. One batch at a time writes in a set.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from smellkit import cluster, paths, plan
from smellkit.errors import SmellkitError

FOLDER = paths.HOME / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d%\||FloatProgress|IntProgress")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
DATA = "data.json"  # in a set: the data folder that it was made from
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DONE, FRESH, FAILED, LEFT = "done", "up to date", "failed", "not reached"
# What shows and starts is no reason to train again.
ASIDE = ("plan.py", "batch.py", "cluster.py", "preview.py", "site.py", "doctor.py", "__main__.py", "cli/")


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
    workers: int = 0,
    scheduler: str = "",
    stop: bool = False,
    progress: Callable[[str], object] = lambda text: None,
) -> list[Result]:
    """Execute the notebooks called `names`, or all, and return one result each, in number order.

    As many run at once as there are `workers` (0: cores), or on the workers of a dask `scheduler`, which see the same
    folders. Those that read the runs of one that failed are not reached; with `stop` the first failure ends the batch.
    Names, profile and parameters are checked before anything runs. `timeout` is seconds a cell; `progress` gets one
    line a notebook. An interrupted or failed batch goes on where it stopped when it is started again.
    """
    every = plan.find(folder)
    chosen = plan.select(every, names)
    values = plan.settle(chosen, given=given or {}, profile=profile, data=data, file=folder / "profiles.yaml")
    out, reads = executed(set_name(profile, data)).absolute(), plan.upstream(every)
    inputs, cores = _digest(_inputs(data or paths.sample())), os.cpu_count() or 1
    count = workers or min(cores, len(chosen))
    share = os.environ.get("OMP_NUM_THREADS") or ("1" if scheduler else str(max(1, cores // count)))
    settings = dict.fromkeys(THREADS, share)
    settings |= {name: os.environ[name] for name in os.environ if name.startswith(("SMELLKIT_", *THREADS))}

    def task(notebook: plan.Notebook) -> dict[str, Any]:
        """What `_execute` needs; empty for a notebook that is up to date."""
        before = [(name, made_from(out / f"{name}.ipynb").get("at")) for name in sorted(reads[notebook.name])]
        made_of = json.dumps([values[notebook.name], inputs, before], sort_keys=True)
        key = _digest([("notebook", notebook.path.read_bytes()), ("rest", made_of.encode())])
        target = out / notebook.path.name
        if not force and target.exists() and made_from(target).get("key") == key:
            return {}
        how = {"key": key, "timeout": timeout, "settings": settings}
        return {"notebook": notebook, "values": values[notebook.name], "target": target, **how}

    results = {book.name: Result(book.name, LEFT, 0.0, out / book.path.name) for book in chosen}
    with paths.locked(out, what="a batch of notebooks"), ExitStack() as stack, _bar(len(chosen)) as bar:
        if data is not None:
            paths.write_json(out / DATA, {"folder": str(data.resolve()), "content": content_of(data)})
        pool = lambda: _pool(stack, scheduler, count=count, progress=progress)  # noqa: E731 - not before the first task
        try:
            for name, result in _work(chosen, reads, task, pool, stop=stop, watch=bar.set_postfix_str):
                results[name] = result or replace(results[name], status=FRESH)
                bar.clear()
                progress(f"{name:<24} {results[name].status:<11} {results[name].seconds:6.1f} s")
                bar.update()
        finally:
            paths.unlock(out)  # kernels that still run end now
    return list(results.values())


def _work(
    chosen: list[plan.Notebook],
    reads: Mapping[str, set[str]],
    task: Callable[[plan.Notebook], dict[str, Any]],
    pool: Callable[[], Executor],
    *,
    stop: bool,
    watch: Callable[[str], object],
) -> Iterator[tuple[str, Result | None]]:
    """Give out each notebook once those that it reads have ended; name and result of each, none for what is fresh."""
    waiting, broken, workers = {book.name: book for book in chosen}, set(), None  # type: ignore[var-annotated]
    running: dict[Future, tuple[str, Path]] = {}
    while (waiting or running) and not (stop and broken):
        not_yet = {*waiting, *(name for name, _ in running.values())}
        for name in [name for name in waiting if not reads[name] & not_yet]:
            book = waiting.pop(name)
            if broken & reads[name]:
                broken.add(name)
            elif given := task(book):
                workers = workers or pool()
                running[workers.submit(partial(_execute, **given))] = name, given["target"]
            else:
                yield name, None
        watch(" ".join(name[:2] for name, _ in running.values()))
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            name, target = running.pop(future)
            if type(future.exception()).__name__ == "KilledWorker":
                hint = "more memory, or fewer workers"
                result = Result(name, FAILED, 0.0, target, SmellkitError(f"{name}: its workers died", hint=hint))
            else:
                result = future.result()
            broken.update([name] if result.error else [])
            yield name, result
    for future in running:
        future.cancel()  # what has not begun


def _pool(stack: ExitStack, scheduler: str, *, count: int, progress: Callable[[str], object]) -> Executor:
    """Where notebooks are executed: one after another here, or by workers that end with the `stack`."""
    if count > 1 or scheduler:
        try:
            return stack.enter_context(cluster.workers(scheduler, count=count))
        except ImportError:
            progress("One after another, since dask is absent: pip install 'smellkit[sweep]'")
    return stack.enter_context(ThreadPoolExecutor(1))


def _bar(total: int) -> Any:
    """How far the batch is and what is running, on a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit="notebook", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty())


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


def state_of(place: Path) -> str:
    """Digest of the names, sizes and times of the files in a folder, or of one file."""
    return _digest(_files(place))


def made_from(output: Path) -> dict[str, Any]:
    """What the executed notebook was made from; empty when it isn't known."""
    return paths.read_json(output.with_suffix(".json"))


def is_bar(output: Mapping[str, Any]) -> bool:
    """Whether a cell's output is a progress bar: a widget, which TQDM_DISABLE does not stop."""
    data = output.get("data", {})
    return WIDGET in data and BAR.search("".join(data.get("text/plain", ""))) is not None


# One notebook in one kernel


def _execute(
    notebook: plan.Notebook,
    values: Mapping[str, Any],
    target: Path,
    *,
    key: str,
    timeout: int,
    settings: dict[str, str],
) -> Result:
    """Run one notebook with papermill; its output lies in `unfinished` and is moved when every cell succeeded.

    `settings` are environment variables for its kernel.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    part, stamp = target.parent / "unfinished" / target.name, target.with_suffix(".json")
    log = part.with_suffix(".log")
    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it logs is in the error below
    began, used = time.monotonic(), _core_seconds()
    try:
        papermill.execute_notebook(
            notebook.path, part, dict(values), kernel_name="python3", language="python", cwd=notebook.path.parent,
            progress_bar=False, execution_timeout=timeout, start_timeout=120, **_kernel(log, target.parent, settings),
        )  # fmt: skip
    except (PapermillExecutionError, TimeoutError, RuntimeError) as why:
        over = not (target.parent / paths.LOCK).exists()  # the batch ended its kernel
        for old in () if over else (target, stamp):  # what an older text of the notebook gave is not its result
            old.unlink(missing_ok=True)
        return Result(notebook.name, FAILED, time.monotonic() - began, part, _explain(notebook, why, part, timeout))
    seconds = time.monotonic() - began
    _clean(part)
    part.replace(target)
    log.unlink(missing_ok=True)
    took = {"seconds": round(seconds, 2), "core_seconds": round(_core_seconds() - used, 2)}
    paths.write_json(stamp, {"key": key, **took, "at": time.time(), "parameters": dict(values)})
    return Result(notebook.name, DONE, seconds, target)


def _core_seconds() -> float:
    """Seconds of all cores that the kernels of this process have used, those that have ended."""
    from psutil import Process

    spent = Process().cpu_times()
    return float(spent.children_user + spent.children_system)


def _kernel(log: Path, out: Path, settings: dict[str, str]) -> dict[str, Any]:
    """How kernels of the set in `out` are started: what they say outside of cells goes to `log`.

    They find this checkout and, for any set but `quick`, run folders of their own; only this user can talk to them, and
    they end when the batch's lock is gone.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.paths import jupyter_runtime_dir
    from traitlets.config import Config

    log.parent.mkdir(parents=True, exist_ok=True)
    search = os.pathsep.join(filter(None, [str(paths.HOME), os.environ.get("PYTHONPATH", "")]))
    runs = out.parents[1] / ("" if out.name == "quick" else out.name)
    own = {"SMELLKIT_HEADLESS": "1", "SMELLKIT_RUNS": str(runs), "PYTHONPATH": search, "TQDM_DISABLE": "1"}

    class Quiet(AsyncKernelManager):
        kernel_spec = KernelSpec(
            **get_kernel_dict(), env=settings | own
        )  # of this Python, whatever kernelspecs this user has

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            with log.open("w", encoding="utf-8") as file:
                await super().start_kernel(**options, stderr=file)

        ends = False

        async def _async_is_alive(self) -> bool:
            if self.has_kernel and not self.ends and not (out / paths.LOCK).exists():
                self.ends = True  # shutting down asks whether it is alive, too
                await self.shutdown_kernel(now=True)
            return await super()._async_is_alive()

        is_alive = _async_is_alive  # type: ignore[assignment]

    Path(jupyter_runtime_dir()).mkdir(mode=0o700, parents=True, exist_ok=True)
    sockets = f"{jupyter_runtime_dir()}/{uuid.uuid4().hex[:12]}"  # a name has 107 characters at most
    transport = {"transport": "ipc", "ip": sockets} if os.name == "posix" and len(sockets) <= 80 else {}
    return {"kernel_manager_class": Quiet, "config": Config({"KernelManager": transport})}


def _explain(notebook: plan.Notebook, why: Any, part: Path, timeout: int) -> SmellkitError:
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
    code = ["".join(cell["source"]) for cell in plan.cells(notebook.path) if cell["cell_type"] == "code"]
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
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if path.is_file() and path.suffix != ".pyc":
            state = path.stat()
            yield path.relative_to(folder).as_posix(), f"{state.st_size} {state.st_mtime_ns}".encode()


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    total = hashlib.sha256()
    for name, content in files:
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()
