"""Run folders: the only way in which results pass from one step, notebook or process to the next.

data/runs/<name>/
  params.json          what was asked for
  metrics.jsonl        one line an epoch
  weights.safetensors  the best epoch's weights, with manifest.json
  scores.json          the result; its presence says that the run is finished
  stamp.json           what made it: versions, revision, start, seconds
  .earlier/            the finished run of this name, until the new one is finished; it comes back if that one fails
  .lock                who is writing here
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smellkit import __version__, paths
from smellkit.errors import DataError, OptionError

EARLIER = ".earlier"


@dataclass
class Run:
    """One run folder. Every file in it is written by rename, but metrics.jsonl, which grows a line at a time."""

    name: str
    folder: Path
    began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def params(self) -> dict[str, Any]:
        """What the run was asked for."""
        return self._read("params.json")

    @property
    def scores(self) -> dict[str, Any]:
        """The result of the run."""
        return self._read("scores.json")

    @property
    def stamp(self) -> dict[str, Any]:
        """What made the run: versions, revision of the code, start, seconds."""
        return self._read("stamp.json")

    @property
    def finished(self) -> bool:
        """Whether the result has been written."""
        return (self.folder / "scores.json").exists()

    def metrics(self) -> pd.DataFrame:
        """One row an epoch; columns as they were logged."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            raise DataError(f"{path} does not exist", hint="this run trained nothing; choose another run")
        return pd.DataFrame([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])

    def log(self, row: dict[str, Any]) -> None:
        """Append `row` to metrics.jsonl as one line."""
        path = self.folder / "metrics.jsonl"
        with paths.writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(row), allow_nan=False) + "\n")

    def keep(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write the file `name` in the run folder with `write(path)`, by rename, and return its path."""
        with paths.replacing(self.folder / name) as part:
            write(part)
        return self.folder / name

    def finish(self, scores: dict[str, Any]) -> Run:
        """Write scores and stamp; the run is finished when scores.json is there."""
        stamp = self.stamp | {"seconds": round(time.monotonic() - self.began, 2)}
        paths.write_json(self.folder / "stamp.json", stamp)
        paths.write_json(self.folder / "scores.json", plain(scores))
        shutil.rmtree(self.folder / EARLIER, ignore_errors=True)
        paths.unlock(self.folder)
        return self

    def fail(self) -> None:
        """Give the folder free; the finished run that was there before, if any, is there again."""
        earlier = self.folder / EARLIER
        if leads() and earlier.is_dir() and not self.finished:
            _empty(self.folder)
            for path in earlier.iterdir():
                path.replace(self.folder / path.name)
            earlier.rmdir()
        paths.unlock(self.folder)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.exists():
            raise DataError(f"{path} does not exist", hint=f"the run {self.name!r} did not finish; start it again")
        return json.loads(path.read_text(encoding="utf-8"))


def start(name: str, params: dict[str, Any] | None = None) -> Run:
    """Make the folder of run `name`, empty but for its parameters and its stamp, in the process that `leads`.

    A finished run of this name is kept aside until this one is finished. A name may hold slashes for runs that belong
    together, such as `sweep/seed=1`. OptionError when another process is writing a run of this name.
    """
    if any(part.startswith(".") or not part for part in re.split(r"[/\\]", name)):
        raise OptionError(f"{name!r} is not a name for a run", hint="letters, digits, '-', '=' and '/', no point first")
    run = Run(name, paths.runs() / name)
    claim(run)
    if leads():
        _empty(run.folder, into=run.folder / EARLIER if run.finished else None)
        paths.write_json(run.folder / "params.json", plain(params or {}))
        paths.write_json(run.folder / "stamp.json", stamp())
    return run


def claim(run: Run) -> None:
    """Lock the folder of a run for this process; of processes that train together the first does it for all."""
    if leads():
        paths.lock(run.folder, what=f"the run {run.name!r}")


def leads() -> bool:
    """Whether this process alone writes, shows a bar and prints: the first of those that train together."""
    return os.environ.get("RANK", "0") == "0"


def _empty(folder: Path, *, into: Path | None = None) -> None:
    """Take the files of a run out of its folder, for good or `into` another; runs whose names begin like it stay."""
    if into:
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
    shutil.rmtree(folder / "state", ignore_errors=True)
    for path in [path for path in folder.iterdir() if path.is_file() and path.name != paths.LOCK]:
        if into:
            path.replace(into / path.name)
        else:
            path.unlink()


def latest(name: str, *, made_by: str = "") -> Run:
    """Return the finished run `name`, or an error that names the command `made_by` that makes it."""
    run = Run(name, paths.runs() / name)
    if not run.finished:
        raise DataError(f"There is no finished run {name!r} in {paths.runs()}", hint=made_by or "`smellkit run`")
    return run


def plain(value: Any) -> Any:
    """Turn numpy and torch scalars, arrays, paths and tuples into what JSON holds; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, (str, int, bool, type(None))):
        return value
    return str(value)


def stamp() -> dict[str, Any]:
    """What makes this run: versions of the kit and its libraries, revision of the checkout, machine, time (UTC)."""
    libraries = {name: metadata.version(name) for name in ("torch", "numpy", "pandas", "scikit-learn")}
    return {
        "versions": {"smellkit": __version__, **libraries},
        "python": platform.python_version(),
        "revision": revision(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def revision() -> str:
    """Git revision of the checkout, with `+` when tracked files differ from it; empty outside a checkout."""
    try:
        command = ["git", "-C", str(paths.HOME), "describe", "--always", "--dirty=+", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
