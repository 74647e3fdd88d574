"""Recordings of mixtures: which of the twelve odorants are in the air, and how much of each, from the file's name.

SmellNet-Mixture (Feng et al., arXiv 2506.00239) has 4 gas channels at 10 Hz and no label but the file name:
`almond80_clove20.60hnsqdh.ingestion-b48bfb8b7-b2tvx_3.csv` is 80 % almond with 20 % clove, recording 60hnsqdh.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from smellkit import cache
from smellkit.checks import Report, fault, nearest, read_table, readable
from smellkit.errors import DataError
from smellkit.odour.recordings import SPANS, Stretch, find, stretches, unread
from smellkit.odour.scents import ALIASES, ODORANTS
from smellkit.sensors import GROVE, MIXTURE

MIXTURE_GAS = GROVE  # 10-bit counts of the four Grove v2 sensors
MIXTURE_RATE = 10.0  # Hz
PACE = MIXTURE.pace
LEAST = 100  # rows of a stretch that is worth reading
STEPS = 600  # of a recording are used, as published: some files go on to 900
SPLITS = ("training_seen", "training_new", "test_seen", "test_unseen")
EPOCH = datetime(2019, 1, 1)  # of the ids: inferred from dated folders, so trust differences more than dates
TOLERANCE = 0.0101  # thirds are written as 33 + 33 + 33
SMOOTH = 0.15  # lag-1 autocorrelation: 0.21 and more in real recordings, 0.09 and less in resampled ones
_SPANS = {name: SPANS[name] for name in MIXTURE_GAS}
_COMPONENT = re.compile(r"([a-z]+?(?:_[a-z]+)*)_?(\d{1,3})(?:_|$)")
_VERSION = "blends 3"


def parse_label(name: str) -> dict[str, float]:
    """Return odorant -> ratio for the name of a mixture file; what follows the first point in the name is no label.

    >>> parse_label("Almond20_Orange80.60hs7npt.csv")
    {'almond': 0.2, 'orange': 0.8}

    Capitals and underscores may vary, a name alone is 100 %. Refused: an unknown odorant (with the nearest names), one
    odorant twice, and ratios that don't add to 100 % (99 % for thirds).
    """
    label = re.sub(r" \(\d+\)$", "", Path(name).name.split(".")[0]).strip().lower()
    if not re.search(r"\d", label):
        return {_known(name, label): 1.0}
    parts, at = [], 0
    while match := _COMPONENT.match(label, at):
        parts.append((_known(name, match[1]), int(match[2]) / 100))
        at = match.end()
    hint = "name the file like almond80_clove20.csv"
    if at < len(label):
        raise fault(name, expected="odorants with their percentages", found=repr(label[at:]), hint=hint)
    ratios = dict(parts)
    if len(ratios) < len(parts):
        raise fault(name, expected="each odorant once", found=repr(label), hint=hint)
    if abs(sum(ratios.values()) - 1) > TOLERANCE or not all(ratios.values()):
        total = round(100 * sum(ratios.values()))
        raise fault(name, expected="ratios above 0 that add to 100 %", found=f"{total} % in {label!r}", hint=hint)
    return ratios


def read_mixtures(
    folder: str | Path | None = None, split: str = "training_seen", *, skip: bool = False, report: Report | None = None
) -> tuple[np.ndarray | list[np.ndarray], pd.DataFrame]:
    """Return (values, index) of every recording in mixture/<split> of a SmellNet folder.

    values: float32 (recordings, 600, 4), the channels `MIXTURE_GAS` at 10 Hz; a list of (steps, 4) when lengths differ.
    index, one row a recording: `file` (relative to the folder), the twelve `ODORANTS` (ratios as in the name), `kind`
    (real or synthetic), `origin` (recording, bootstrap, balanced), `recorded_at`, `duplicate_of` (file with the same
    bytes, or ""), `rows` in the file. With `skip`, a file with a fault is reported and left out.
    """
    folder = find(folder)
    root = folder / "mixture" / split
    files = sorted(root.rglob("*.csv"), key=lambda file: file.relative_to(folder).as_posix())
    if not files:
        known = sorted(path.name for path in (folder / "mixture").glob("*/"))
        hint = f"splits here: {', '.join(known)}" if known else "`smellkit data get smellnet`, or data/sample/smellnet"
        raise DataError(f"No mixture recordings in {root}", hint=hint)
    return read_mixture_files(files, root=folder, skip=skip, report=report)


def read_mixture_files(
    files: Sequence[Path], *, root: Path, labelled: bool = True, skip: bool = False, report: Report | None = None
) -> tuple[np.ndarray | list[np.ndarray], pd.DataFrame]:
    """Return (values, index) as `read_mixtures` does, for any files; `root` is what names in the index are relative to.

    With `labelled` False names are not read as labels: the twelve ratios are NaN. Of a file whose clock shows a gap the
    first stretch that holds a window is used; the index has its `first` row in the file and how many rows of the file
    are `every` row read, 1 unless the file had to be resampled.
    """
    names = cache.named(files, root=root)

    def build(notes: Report) -> pd.DataFrame:
        return _rows(names, root=root, labelled=labelled, skip=skip, notes=notes)

    options = f"{_VERSION} labelled={labelled} skip={skip}"
    table = cache.table("mixtures", build, files=cache.digests(names), options=options, report=report)
    ends = np.cumsum(np.bincount(table["number"]))
    values = np.split(table[list(MIXTURE_GAS)].to_numpy(), ends[:-1])
    index = table[["file", "rows", "first", "every"]].iloc[ends - 1].reset_index(drop=True)
    same = len({len(value) for value in values}) == 1
    return (np.stack(values) if same else values), _index(index, values, labelled=labelled)


def read_mixture(path: Path, *, report: Report | None = None) -> Stretch:
    """Return one file of the mixture board at 10 Hz: the first stretch without a gap that holds a window."""
    report = report if report is not None else Report()
    table = read_table(path, columns=_SPANS, aliases={"C2H5CH": "C2H5OH"}, pace=PACE, alike=MIXTURE_GAS, report=report)
    parts = stretches(table, MIXTURE_GAS)
    chosen = next((part for part in parts if len(part.row) >= LEAST), parts[0])
    if len(parts) > 1:
        report.tell(path, "rows before or after a gap left out", len(table) - len(chosen.row))
    return chosen


def _rows(names: dict[str, Path], *, root: Path, labelled: bool, skip: bool, notes: Report) -> pd.DataFrame:
    """Read the first `STEPS` rows of files by name into one table, numbered; `notes` takes what is forgiven."""

    def read(file: Path) -> pd.DataFrame:
        if labelled:
            parse_label(str(file))
        values, row = read_mixture(file, report=notes)
        every = (row[-1] - row[0]) / max(1, len(row) - 1)
        table = pd.DataFrame(values[:STEPS], columns=list(MIXTURE_GAS))
        return table.assign(rows=len(values), first=row[0], every=every)

    name_of = {path: name for name, path in names.items()}
    readings = enumerate(readable(names.values(), read, skip=skip, report=notes))
    tables = [table.assign(file=name_of[file], number=number) for number, (file, table) in readings]
    if not tables:
        raise unread(root, notes)
    return pd.concat(tables, ignore_index=True)


def _index(index: pd.DataFrame, values: list[np.ndarray], *, labelled: bool) -> pd.DataFrame:
    """The index of `read_mixtures` from the `file` and `rows` of each recording."""
    labels = [parse_label(file) if labelled else {} for file in index["file"]]
    blank = 0.0 if labelled else np.nan
    ratios = pd.DataFrame([{name: label.get(name, blank) for name in ODORANTS} for label in labels])
    origins = [origin(file, value) for file, value in zip(index["file"], values, strict=True)]
    index = index.join(ratios).assign(
        kind=["real" if made == "recording" else "synthetic" for made in origins],
        origin=origins,
        recorded_at=pd.to_datetime([recorded_at(file) for file in index["file"]]),
        duplicate_of=_duplicates(index["file"], values),
    )
    return index[["file", *ODORANTS, "kind", "origin", "recorded_at", "duplicate_of", "rows", "first", "every"]]


def origin(name: str, values: np.ndarray) -> str:
    """Return how a file came about: `recording`, `bootstrap` (rows drawn from one, so time is lost), or `balanced`.

    values (steps, 4). Counts of a real recording are whole numbers and follow each other smoothly; the smooth synthetic
    files ("balanced", "synth" in the name) can have whole numbers too, so their name decides.
    """
    if re.search(r"balanced|\.synth", Path(name).name):
        return "balanced"
    centred = np.asarray(values, dtype=np.float64) - np.mean(values, axis=0)
    power = (centred**2).sum(axis=0)
    smooth = (centred[1:] * centred[:-1]).sum(axis=0)[power > 0] / power[power > 0]
    whole = np.mean(values != np.round(values)) < 0.01
    return "recording" if whole and (smooth.size == 0 or smooth.mean() >= SMOOTH) else "bootstrap"


def recorded_at(name: str) -> datetime | None:
    """Return when a recording began: its 8-character id is a base-32 number of milliseconds since 2019 (inferred)."""
    file = Path(name).name
    ids = re.findall(r"\.([1-9][0-9a-v]{7})(?=[. ])", file)
    if not ids or re.search(r"balanced|\.synth", file):  # made files carry random letters
        return None
    return EPOCH + timedelta(milliseconds=int(ids[0], 32))


def _known(name: str, word: str) -> str:
    word = {substance: known for known, substance in ALIASES.items()}.get(word, word)
    if word not in ODORANTS:
        near = nearest(word, ODORANTS)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the odorants are {', '.join(ODORANTS)}"
        raise fault(name, expected="names of odorants", found=repr(word), hint=hint)
    return word


def _duplicates(files: pd.Series, values: list[np.ndarray]) -> list[str]:
    """Return for each file the one with the same values that counts as first (well named, then by name), or ""."""
    content = {file: rows.tobytes() for file, rows in zip(files, values, strict=True)}
    often = Counter(content.values())
    twins = [file for file in files if often[content[file]] > 1]
    first: dict[bytes, str] = {}
    for file in sorted(twins, key=lambda file: (_misplaced(file), " (" in file, file)):
        first.setdefault(content[file], file)
    return ["" if first.get(content[file], file) == file else first[content[file]] for file in files]


def _misplaced(file: str) -> bool:
    """Whether the folder is named after another mixture than the file."""
    try:
        return parse_label(file) != parse_label(Path(file).parent.name)
    except DataError:
        return True
