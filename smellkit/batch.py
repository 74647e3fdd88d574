"""`smellkit run`: execute the notebooks side by side, each in a kernel of its own, and only those that must.

A notebook is up to date when nothing changed that it depends on: its own text, its parameters, the package, the files
of the data folder, the trained weights, and what those notebooks were made from whose runs it reads (`plan.upstream`).

    data/runs/notebooks/<set>/<notebook>.ipynb   executed; appears only when every cell succeeded
    data/runs/notebooks/<set>/<notebook>.json    what it was made from
    data/runs/notebooks/<set>/unfinished/        one that failed, to open and look at

The set is the profile, with name and content of another data folder behind it; each has run folders of its own. One
batch at a time writes in a set.
"""

import json
import logging
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from graphlib import TopologicalSorter
from hashlib import sha256
from pathlib import Path
from typing import Any

from smellkit import cluster, paths, plan
from smellkit.errors import SmellkitError

FOLDER = paths.HOME / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DONE, FRESH, FAILED, LEFT = "done", "up to date", "failed", "not reached"
ASIDE = ("plan.py", "batch.py", "cluster.py", "site.py", "doctor.py", "cli")  # no reason to train again


@dataclass(frozen=True)
class NotebookResult:
    """What became of one notebook: `status`, `seconds`, the executed file, and the error when it failed."""

    notebook: str
    status: str
    seconds: float
    output: Path
    error: SmellkitError | None = None

    @property
    def line(self) -> str:
        """The same in words."""
        return f"{self.notebook:<24} {self.status:<11} {self.seconds:6.1f} s"


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
) -> list[NotebookResult]:
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
    keys = _keys(every, values, reads, out, inputs=_inputs(data or paths.sample()))
    count = workers or min(os.cpu_count() or 1, len(chosen))
    settings = _settings(threads=1 if scheduler else max(1, (os.cpu_count() or 1) // count))
    results = {book.name: NotebookResult(book.name, LEFT, 0.0, out / book.path.name) for book in chosen}
    jobs: dict[str, Callable[[], NotebookResult]] = {}
    for book in chosen:
        target, key = out / book.path.name, keys[book.name]
        if force or made_from(target).get("key") != key:
            jobs[book.name] = partial(_execute, book, values[book.name], target, key, timeout, settings)
        else:
            results[book.name] = replace(results[book.name], status=FRESH)
            progress(results[book.name].line)
    pool = partial(_pool, scheduler=scheduler, count=count, progress=progress)
    with paths.locked(out, what="a batch of notebooks"):
        for result in _work(jobs, reads, pool, out, stop=stop):
            results[result.notebook] = result
            progress(result.line)
    return list(results.values())


def _work(
    jobs: Mapping[str, Callable], reads: Mapping[str, set[str]], pool: Callable, out: Path, *, stop: bool
) -> Iterator[NotebookResult]:
    """Give out each job once those that it reads are done; what came of each, with a bar on a terminal."""
    from tqdm import tqdm

    order, running = TopologicalSorter({name: reads[name] & jobs.keys() for name in jobs}), dict[Future, str]()
    order.prepare()
    look: dict[str, Any] = {"leave": False, "dynamic_ncols": True, "disable": not sys.stderr.isatty()}
    with ExitStack() as stack, tqdm(total=len(jobs), unit="notebook", **look) as bar:
        workers: Any = pool(stack) if jobs else None
        try:
            while running := running | {workers.submit(jobs[name]): name for name in order.get_ready()}:
                bar.set_postfix_str(" ".join(name[:2] for name in running.values()))
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    if type(future.exception()).__name__ == "KilledWorker":
                        why = SmellkitError(f"{name}: its workers died", hint="more memory, or fewer workers")
                        result = NotebookResult(name, FAILED, 0.0, out / "unfinished" / f"{name}.ipynb", why)
                    else:
                        result = future.result()
                    bar.clear()
                    yield result
                    bar.update()
                    if not result.error:
                        order.done(name)
                    elif stop:
                        return
        finally:
            for future in running:
                future.cancel()  # what has not begun
            paths.unlock(out)  # kernels that still run end now


def _pool(stack: ExitStack, *, scheduler: str, count: int, progress: Callable[[str], object]) -> Executor:
    """Where notebooks are executed: one after another here, or by workers that end with the `stack`."""
    if count > 1 or scheduler:
        try:
            return stack.enter_context(cluster.workers(scheduler, count=count))
        except ImportError:
            progress("One after another, since dask is absent: pip install 'smellkit[sweep]'")
    return stack.enter_context(ThreadPoolExecutor(1))


def executed(name: str) -> Path:
    """Folder of the executed notebooks of the set `name`."""
    return paths.runs() / "notebooks" / name


def set_name(profile: str, data: Path | None) -> str:
    """Name of the set: the profile, with name and content (file names and sizes) of a folder other than the sample."""
    if data is None:
        return profile
    return f"{profile}-{data.resolve().name}-{_digest([(name, size) for name, size, _ in _files(data)])[:8]}"


def made_from(output: Path) -> dict[str, Any]:
    """What the executed notebook was made from; empty when it isn't known."""
    return paths.read_json(output.with_suffix(".json")) if output.exists() else {}


# Whether it must run: one digest over all that the result depends on


def _keys(
    every: list[plan.Notebook], values: Mapping[str, dict], reads: Mapping[str, set[str]], out: Path, *, inputs: str
) -> dict[str, str]:
    """Digest of all that the result of each notebook with `values` depends on; of others, what they were made from."""
    keys: dict[str, str] = {}
    for book in every:
        before = [keys[name] for name in sorted(reads[book.name])]
        new = _digest([book.cells, values.get(book.name), inputs, before])
        keys[book.name] = new if book.name in values else made_from(out / book.path.name).get("key", "")
    return keys


def _inputs(data: Path) -> str:
    """What every notebook may read: the package but for `ASIDE`, weights, data, published results and pictures."""
    package = [path for path in (paths.HOME / "smellkit").iterdir() if path.name not in ASIDE]
    return state_of(*sorted(package), paths.weights(), paths.HOME / "site/results", paths.HOME / "site/images", data)


def state_of(*places: Path) -> str:
    """Digest of the names, sizes and times of files, and of those in folders: a change without reading gigabytes."""
    return _digest([list(_files(place)) for place in places])


def _files(place: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of every file below a folder, or of one file."""
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(place).as_posix(), path.stat().st_size, path.stat().st_mtime_ns


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# One notebook in one kernel


def _execute(
    book: plan.Notebook, values: dict[str, Any], target: Path, key: str, timeout: int, settings: dict[str, str]
) -> NotebookResult:
    """Run one notebook with papermill; its output lies in `unfinished` and is moved when every cell succeeded.

    `settings` are environment variables for its kernel.
    """
    with plan.no_iris():
        import papermill
        from papermill.exceptions import PapermillExecutionError

    part, stamp = target.parent / "unfinished" / target.name, target.with_suffix(".json")
    part.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it logs is in the error below
    began = time.monotonic()
    try:
        papermill.execute_notebook(
            book.path, part, values, kernel_name="python3", language="python", cwd=book.path.parent,
            progress_bar=False, execution_timeout=timeout, start_timeout=120, **_kernel(target.parent, settings),
        )  # fmt: skip
    except (PapermillExecutionError, TimeoutError, RuntimeError) as why:
        over = not (target.parent / paths.LOCK).exists()  # the batch ended its kernel
        for old in () if over else (target, stamp):  # what an older text of the notebook gave is not its result
            old.unlink(missing_ok=True)
        return NotebookResult(book.name, FAILED, time.monotonic() - began, part, _explain(book, why, part, timeout))
    seconds = time.monotonic() - began
    _clean(part)
    part.replace(target)
    paths.write_json(stamp, {"key": key, "seconds": round(seconds, 2), "parameters": values})
    return NotebookResult(book.name, DONE, seconds, target)


def _settings(threads: int) -> dict[str, str]:
    """Environment variables of kernels on any machine: so many `threads` each, and whatever the kit was told here."""
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("SMELLKIT_", *THREADS))}
    return dict.fromkeys(THREADS, os.environ.get("OMP_NUM_THREADS") or str(threads)) | inherited


def _kernel(out: Path, settings: dict[str, str]) -> dict[str, Any]:
    """How kernels of the set in `out` are started.

    They find this checkout and, for any set but `quick`, run folders of their own; only this user can talk to them, and
    they end when the batch's lock is gone.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.paths import jupyter_runtime_dir
    from traitlets.config import Config

    search = os.pathsep.join(filter(None, [str(paths.HOME), os.environ.get("PYTHONPATH", "")]))
    runs = out.parents[1] / ("" if out.name == "quick" else out.name)
    own = {"SMELLKIT_HEADLESS": "1", "SMELLKIT_RUNS": str(runs), "PYTHONPATH": search, "TQDM_DISABLE": "1"}

    class Quiet(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict(), env=settings | own)  # of this Python, whatever others there are
        ends = False

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            await super().start_kernel(**options, stderr=subprocess.DEVNULL)  # what is said outside of cells

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


def _explain(book: plan.Notebook, why: Any, part: Path, timeout: int) -> SmellkitError:
    """Put notebook, cell, line and error into one short message; the last cell that was begun is the one at fault."""
    if isinstance(why, TimeoutError):
        message = f"Timeout: no answer for {timeout} s\n  Try: --timeout {timeout * 4}"
    elif isinstance(why, RuntimeError):
        message = f"{type(why).__name__}: {why}\n  Try: more memory, or smaller parameters"
    else:
        message = f"{why.ename}: {COLOURS.sub('', why.evalue).strip()[:1500] or 'no message'}"
    cells = paths.read_json(part).get("cells", [])
    begun = ["".join(cell["source"]) for cell in cells if cell["metadata"].get("papermill", {}).get("start_time")]
    source, code = begun[-1] if begun else "", book.code()
    cell = f"code cell {code.index(source) + 1}" if source in code else "the cell of its parameters"
    trace = COLOURS.sub("", "\n".join(getattr(why, "traceback", [])))
    line = re.search(r"Cell In\s?\[\d+\], line (\d+)", trace)
    words = [text.strip() for text in source.splitlines() if text.strip() and not text.startswith("#|")]
    statement = source.splitlines()[int(line[1]) - 1].strip() if line else "".join(words[:1])
    return SmellkitError(f"{book.path.name}, {cell}: `{statement}`\n  {message}")


def _clean(output: Path) -> None:
    """Take out what papermill noted: absolute paths and times."""
    book, noted = paths.read_json(output), ("papermill", "execution")
    for part in (book, *book["cells"]):
        part["metadata"] = {key: value for key, value in part["metadata"].items() if key not in noted and value != []}
    paths.write_json(output, book)
