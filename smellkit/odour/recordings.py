"""Recordings of SmellNet's two boards (Feng et al., arXiv 2506.00239): a tidy table, and windows of mixtures.

Substances are base/training/<substance>/*.csv at about 1 Hz; the twelve-scent layout has smell_data/<odour>/*.csv with
the same columns. Mixtures have 4 gas channels at 10 Hz; their names, scents and pictures are read in `scents`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from smellkit import cache, paths
from smellkit.checks import Report, fault, readable
from smellkit.errors import DataError
from smellkit.odour.formats import BASES, base_of, unread
from smellkit.odour.readers import JUMP, Stretch, read_rows, read_stretches
from smellkit.odour.scents import ODORANTS
from smellkit.options import alike
from smellkit.sensors import GAS, GROVE, MIXTURE, SENSORS, SMELLNET
from smellkit.windows import sliding

__all__ = ["GAS", "SENSORS"]  # for who looks for the columns beside the recordings
log = logging.getLogger(__name__)
RATE = 1.0  # Hz, about: SmellNet's files have no time column
STUCK = (688.6, 100.0)  # hPa and % of a BME680 that does not answer
ALL = "all"
NO_FILES = ("Thumbs.db", "desktop.ini")  # what systems leave in folders
_VERSION, _MIXTURES = "recordings 4", "mixtures 6"
MIXTURE_GAS = GROVE  # 10-bit counts of the four Grove v2 sensors
LENGTH, STRIDE, STEPS = 100, 50, 600  # a window, the way to the next, and how much of a recording counts, as published


def find(folder: str | Path | None = None) -> Path:
    """Return the data folder to use: the sample for None or "", `folder`, or the smellnet/ inside of it."""
    if not folder:
        return paths.sample() / "smellnet"
    folder = Path(folder).expanduser()
    for candidate in (folder, folder / "smellnet"):
        if any((candidate / part).is_dir() for part in (*BASES, "mixture", "smell_data")):
            return candidate
    what = "has no base/, mixture/ or smell_data/" if folder.is_dir() else "is not a folder"
    hint = "`smellkit data get smellnet` fetches the real ones; leave the folder away to use data/sample/smellnet"
    if (folder / "mixture_data").is_dir():
        what, hint = "has mixtures under the hub's name, mixture_data/", "rename mixture_data to mixture"
    raise DataError(f"No recordings in {folder}: it {what}", hint=hint)


def read_recordings(
    folder: str | Path | None = None, split: str = "training", *, skip: bool = False, report: Report | None = None
) -> pd.DataFrame:
    """Return every recording of `split` as one tidy table.

    One row per second: `substance`, `recording` (the file's stem), `step` (which jumps where a file has a gap), `file`
    (relative to the folder), then the twelve `SENSORS` as float64, no NaN. `split` is training, testing or online_*;
    the twelve-scent layout has none and is split by recording, which is told, or read whole as `ALL`. With `skip`, a
    file with a fault is reported and left out.
    """
    folder, report = find(folder), report if report is not None else Report()
    base = base_of(folder)
    root = base / split if base else folder / "smell_data"
    if not root.is_dir():
        known = sorted(path.name for path in (base or folder).glob("*/") if any(path.glob("*/*.csv")))
        near = alike(split, known) or known
        hint = f"splits here: {', '.join(near)}" if near else "`smellkit data get smellnet`, or data/sample/smellnet"
        raise DataError(f"No recordings in {root}", hint=hint)
    files = _listed(root, skip=skip, report=report)
    if base is None:
        files = _dealt(files, split, root=root, report=report)
    table = read_files(files, root=folder, skip=skip, report=report)
    if split == "testing" and base and (base / "training").is_dir():
        training = {path.name for path in (base / "training").glob("*/")}
        for name in sorted(training ^ set(table["substance"])):
            where = "training" if name in training else "testing"
            report.note(root / name, f"substance only in {where}")
            log.warning("%s: %s is a substance of the %s split alone", root, name, where)
    return table


def _dealt(files: list[Path], split: str, *, root: Path, report: Report) -> list[Path]:
    """What `split` has of a layout without splits: of each substance about every fourth recording is for testing.

    Copies of one recording stay on one side. `ALL` is everything.
    """
    if split == ALL:
        return files
    if split not in ("training", "testing"):
        raise DataError(f"{root} has no split {split!r}", hint=f"training, testing or {ALL}")
    testing: set[Path] = set()
    for _, own in itertools.groupby(files, lambda file: file.parent):
        copies: dict[bytes, list[Path]] = {}
        for file in own:
            copies.setdefault(sha256(file.read_bytes()).digest(), []).append(file)
        count = max(1, round(len(copies) / 4)) if len(copies) > 1 else 0
        testing.update(file for group in [*copies.values()][len(copies) - count :] for file in group)
    report.tell(root, f"no splits there: by recording, the last quarter of each substance is for testing ({split})")
    chosen = [file for file in files if (file in testing) == (split == "testing")]
    if not chosen:
        raise DataError(f"{root} has no recordings for {split}", hint="record each substance at least twice")
    return chosen


def read_files(files: Iterable[Path], *, root: Path, skip: bool = False, report: Report | None = None) -> pd.DataFrame:
    """Return any recordings with the twelve columns as a table like that of `read_recordings`; substance = folder."""
    if not (names := cache.named(files, root=root)):
        raise DataError(f"No recordings in {root}", hint="expected .csv files in a folder for each substance")

    def build(notes: Report) -> pd.DataFrame:
        return _tidy(names, root=root, skip=skip, notes=notes)

    options = f"{_VERSION} skip={skip}"
    return cache.table("recordings", build, files=cache.digests(names), options=options, report=report)


def schema():
    """Return the pandera schema of the tidy table: the twelve sensors in their spans, each step of a file once."""
    import pandera.pandas as pandera

    words = {name: pandera.Column(str) for name in ("substance", "recording", "file")}
    spans = {name: column.span for name, column in SMELLNET.columns.items()}
    sensors = {name: pandera.Column(float, pandera.Check.in_range(*span)) for name, span in spans.items()}
    step = pandera.Column("int64", pandera.Check.ge(0))
    return pandera.DataFrameSchema({**words, "step": step, **sensors}, unique=["file", "step"], strict=True)


def _tidy(names: dict[str, Path], *, root: Path, skip: bool, notes: Report) -> pd.DataFrame:
    """Read files by name into the tidy table; `notes` takes what is forgiven."""
    import pandera.errors

    def read(file: Path) -> pd.DataFrame:
        return read_rows(file, SMELLNET, columns=SENSORS, report=notes)

    name_of = {path: name for name, path in names.items()}
    tables, words = [], []
    for file, values in readable(names.values(), read, skip=skip, report=notes):
        pressure, humidity = (values[name].to_numpy() for name in ("Pressure", "Humidity"))
        if (pressure == STUCK[0]).all() and (humidity == STUCK[1]).all():
            notes.note(file, f"environment sensor stuck at {STUCK[0]} hPa, {STUCK[1]:.0f} %")
        tables.append(values)
        words.append((file.parent.name, file.stem, name_of[file]))
    if not tables:
        raise unread(root, notes)
    which, steps = np.repeat(np.arange(len(tables)), [*map(len, tables)]), [np.arange(len(one)) for one in tables]
    labels = pd.DataFrame(words, columns=["substance", "recording", "file"]).take(which).reset_index(drop=True)
    table = pd.concat(tables, ignore_index=True)
    labels.insert(2, "step", np.concatenate(steps) + JUMP * table["part"])
    table = pd.concat([labels, table[[*SENSORS]]], axis=1)
    try:
        return schema().validate(table)
    except pandera.errors.SchemaError as why:
        raise DataError(f"The table of recordings is wrong: {why}", hint="report this set of files") from why


def _listed(root: Path, *, skip: bool, report: Report) -> list[Path]:
    """Return the recordings of the substances in `root`, sorted; what lies there under a wrong name is refused."""

    def inside(folder: Path) -> list[Path]:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in NO_FILES)

    files: list[Path] = []
    for folder in inside(root):
        for path in (inside(folder) if folder.is_dir() else []) or [folder]:
            if path.suffix.lower() == ".csv" and path != folder:
                files.append(path)
                continue
            actual = "an empty folder" if path.is_dir() and path == folder else repr(path.name)
            why = fault(path, "recordings called <substance>/*.csv", actual, "rename, move or delete it")
            if not skip:
                raise why
            report.skip(path, why)
    return files


@dataclass(frozen=True)
class MixtureWindows:
    """Windows of mixture recordings: what the sensors read, what was there, and where it comes from."""

    counts: NDArray[np.float32]  # (windows, 100, 4), 0..1023
    ratios: NDArray[np.float32]  # (windows, 12), in the order of ODORANTS; NaN when unknown, 0 when absent
    recording: NDArray[np.int64]  # (windows,), row of `index`
    start: NDArray[np.int64]  # (windows,), first step
    index: pd.DataFrame  # one row a recording

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: NDArray) -> MixtureWindows:
        """The windows at `rows`, numbers or a mask; the index stays whole."""
        return MixtureWindows(
            self.counts[rows], self.ratios[rows], self.recording[rows], self.start[rows], index=self.index
        )

    def of(self, recordings: NDArray) -> MixtureWindows:
        """The windows of the recordings where `recordings` (a mask over `index`) is true."""
        return self[np.asarray(recordings)[self.recording]]

    def column(self, name: str) -> NDArray:
        """A column of `index` for every window."""
        return self.index[name].to_numpy()[self.recording]


def mixture_windows(rows: ArrayLike, *, stride: int = STRIDE) -> NDArray[np.float32]:
    """Windows (n, 100, 4) of the first 600 `rows` (rows, 4) of a recording; none when it is too short."""
    return sliding(np.asarray(rows, np.float32)[:STEPS], length=LENGTH, stride=stride)


def cut_mixtures(values: NDArray | Sequence[NDArray], index: pd.DataFrame) -> MixtureWindows:
    """Cut recordings, (steps, 4) each, into windows; only the first 600 steps count."""
    parts = [mixture_windows(value) for value in values]
    counts = [len(part) for part in parts]
    if not sum(counts):
        raise DataError(f"No recording has a whole window of {LENGTH} steps", hint="at least 10 s at 10 Hz are needed")
    recording = np.repeat(np.arange(len(parts)), counts)
    start = np.concatenate([STRIDE * np.arange(count) for count in counts])
    ratios = index.reindex(columns=list(ODORANTS)).to_numpy(np.float32)[recording]
    return MixtureWindows(np.concatenate(parts), ratios, recording, start, index)


def read_mixture_files(
    files: Sequence[Path],
    *,
    root: Path,
    label: Callable[[str], object] | None = None,
    skip: bool = False,
    report: Report | None = None,
) -> tuple[list[NDArray[np.float32]], pd.DataFrame]:
    """Return the first 600 rows (steps, 4) of each file at 10 Hz, and an index with one row a file.

    The index has `file` (relative to `root`), how many `rows` were there, the `first` row in the file, and how many
    rows of the file are `every` row read, 1 unless it had to be resampled. Of a file whose clock shows a gap the first
    stretch that holds a window is used. What `label` refuses of a name is a fault of the file, too. With `skip`, a file
    with a fault is reported and left out.
    """
    names = cache.named(files, root=root)

    def build(notes: Report) -> pd.DataFrame:
        def read(file: Path) -> pd.DataFrame:
            if label:
                label(str(file))
            values, row = read_mixture(file, report=notes)
            table = pd.DataFrame(values[:STEPS], columns=list(MIXTURE_GAS))
            return table.assign(rows=len(values), first=row[0], every=(row[-1] - row[0]) / max(1, len(row) - 1))

        name_of = {path: name for name, path in names.items()}
        readings = readable(names.values(), read, skip=skip, report=notes)
        tables = [table.assign(file=name_of[file], number=n) for n, (file, table) in enumerate(readings)]
        if not tables:
            raise unread(root, notes)
        return pd.concat(tables, ignore_index=True)

    options = f"{_MIXTURES} labelled={label is not None} skip={skip}"
    table = cache.table("mixtures", build, files=cache.digests(names), options=options, report=report)
    ends = np.cumsum(np.bincount(table["number"]))
    index = table[["file", "rows", "first", "every"]].iloc[ends - 1].reset_index(drop=True)
    return np.split(table[list(MIXTURE_GAS)].to_numpy(), ends[:-1]), index


def read_mixture(path: Path, *, report: Report | None = None) -> Stretch:
    """Return one file of the mixture board at 10 Hz: the first stretch without a gap that holds a window."""
    report = report if report is not None else Report()
    parts = read_stretches(path, MIXTURE, columns=MIXTURE_GAS, report=report)
    chosen = next((part for part in parts if len(part.row) >= LENGTH), parts[0])
    if len(parts) > 1:
        left = sum(len(part.row) for part in parts) - len(chosen.row)
        report.tell(path, "rows before or after a gap left out", left)
    return chosen
