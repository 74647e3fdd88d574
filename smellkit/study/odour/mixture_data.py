"""The labelled splits of SmellNet-Mixture: what was there, how each file came about, and what to hold out together.

The data set (Feng et al., arXiv 2506.00239) has no label but the file name:
`almond80_clove20.60hnsqdh.ingestion-b48bfb8b7-b2tvx_3.csv` is 80 % almond with 20 % clove, recording 60hnsqdh.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks import Report, fault
from smellkit.errors import DataError, OptionError
from smellkit.odour.recordings import MixtureWindows, cut_mixtures, find, read_mixture_files
from smellkit.odour.scents import ODORANTS, odorant

EPOCH = datetime(2019, 1, 1)  # of the ids: inferred from dated folders, so trust differences more than dates
TOLERANCE = 0.0101  # thirds are written as 33 + 33 + 33
SMOOTH = 0.15  # lag-1 autocorrelation: 0.21 and more in real recordings, 0.09 and less in resampled ones
_COMPONENT = re.compile(r"([a-z]+?(?:_[a-z]+)*)_?(\d{1,3})(?:_|$)")


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
    ratios, hint = dict(parts), "name the file like almond80_clove20.csv"
    if at < len(label):
        raise fault(name, expected="odorants with their percentages", actual=repr(label[at:]), hint=hint)
    if len(ratios) < len(parts):
        raise fault(name, expected="each odorant once", actual=repr(label), hint=hint)
    if abs(sum(ratios.values()) - 1) > TOLERANCE or not all(ratios.values()):
        total = round(100 * sum(ratios.values()))
        raise fault(name, expected="ratios above 0 that add to 100 %", actual=f"{total} % in {label!r}", hint=hint)
    return ratios


def _known(name: str, word: str) -> str:
    try:
        return odorant(word)
    except OptionError as why:
        raise fault(name, expected="names of odorants", actual=repr(word), hint=why.hint) from why


def recorded_at(name: str) -> datetime | None:
    """Return when a recording began: its 8-character id is a base-32 number of milliseconds since 2019 (inferred)."""
    file = Path(name).name
    ids = re.findall(r"\.([1-9][0-9a-v]{7})(?=[. ])", file)
    if not ids or re.search(r"balanced|\.synth", file):  # made files carry random letters
        return None
    return EPOCH + timedelta(milliseconds=int(ids[0], 32))


def read_mixtures(
    folder: str | Path | None = None, split: str = "training_seen", *, skip: bool = False, report: Report | None = None
) -> tuple[NDArray | list[NDArray[np.float32]], pd.DataFrame]:
    """Return (values, index) of every recording in mixture/<split> of a SmellNet folder.

    values: (steps, 4) of each, at most 600 steps at 10 Hz; one array (recordings, 600, 4) where all are as long. The
    index of `read_mixture_files` also has the twelve `ODORANTS` (ratios as in the name), `kind` (real or synthetic),
    `origin` (recording, bootstrap, balanced), `recorded_at`, and `duplicate_of` (file with the same bytes, or "").
    """
    folder = find(folder)
    root = folder / "mixture" / split
    files = sorted(root.rglob("*.csv"), key=lambda file: file.relative_to(folder).as_posix())
    if not files:
        known = sorted(path.name for path in (folder / "mixture").glob("*/"))
        hint = f"splits here: {', '.join(known)}" if known else "`smellkit data get smellnet`, or data/sample/smellnet"
        raise DataError(f"No mixture recordings in {root}", hint=hint)
    values, index = read_mixture_files(files, root=folder, label=parse_label, skip=skip, report=report)
    labels = pd.DataFrame([parse_label(file) for file in index["file"]], columns=list(ODORANTS)).fillna(0.0)
    origins = [origin(file, value) for file, value in zip(index["file"], values, strict=True)]
    index = index.join(labels).assign(
        kind=["real" if made == "recording" else "synthetic" for made in origins],
        origin=origins,
        recorded_at=pd.to_datetime([recorded_at(file) for file in index["file"]]),
        duplicate_of=_duplicates(index["file"], values),
    )
    return (np.stack(values) if len(set(map(len, values))) == 1 else values), index


def origin(name: str, values: NDArray) -> str:
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


def _duplicates(files: pd.Series, values: Sequence[NDArray]) -> list[str]:
    """For each file the one with the same values that counts as first (well named, then by name), or ""."""
    content = {file: rows.tobytes() for file, rows in zip(files, values, strict=True)}
    first: dict[bytes, str] = {}
    for file in sorted(files, key=lambda file: (misplaced(file), " (" in file, file)):
        first.setdefault(content[file], file)
    return ["" if first[content[file]] == file else first[content[file]] for file in files]


def misplaced(file: str) -> bool:
    """Whether the folder is named after another mixture than the file, or after none."""
    try:
        return parse_label(file) != parse_label(Path(file).parent.name)
    except DataError:
        return True


def read_windows(folder: str | Path | None, split: str, *, copies: bool = False) -> MixtureWindows:
    """Return the windows of mixture/<split>; without `copies` a byte-identical file counts once."""
    values, index = read_mixtures(folder, split)
    if not copies:
        own = index["duplicate_of"] == ""
        values = [value for value, kept in zip(values, own, strict=True) if kept]
        index = index[own].reset_index(drop=True)
    return cut_mixtures(values, index)


def training_split(folder: str | Path | None) -> str:
    """Return the larger training split that the folder has."""
    return "training_new" if (find(folder) / "mixture" / "training_new").is_dir() else "training_seen"


def known_mixtures(windows: MixtureWindows) -> NDArray[np.float32]:
    """The mixtures (k, 12) that occur in `windows`."""
    return np.unique(np.round(windows.ratios, 4), axis=0)


def label(ratios: NDArray) -> str:
    """Return ratios (12,) in words: `almond80 clove20`."""
    order = np.argsort(-np.asarray(ratios), kind="stable")
    return " ".join(f"{ODORANTS[i]}{100 * ratios[i]:.0f}" for i in order if ratios[i] > 0)


def labels(index: pd.DataFrame) -> NDArray:
    """The mixture of each recording in words."""
    return np.array([label(row) for row in index[list(ODORANTS)].to_numpy()])


def groups(index: pd.DataFrame, by: str) -> NDArray:
    """Return for each recording the group that a validation holds out as a whole.

    recording: files made from one recording stay together; combination: the same set of odorants; day: the date
    (synthetic files, which have none, go with the day of the real recordings of their mixture).
    """
    if by == "recording":
        stems = [re.sub(r"( \(\d+\)|_\d+)?\.csv$", "", Path(file).name) for file in index["file"]]
        return np.array([re.sub(r"^.*?\.([0-9a-z]{8})\b.*", r"\1", stem) for stem in stems])
    if by == "combination":
        return np.array([" ".join(np.array(ODORANTS)[row > 0]) for row in index[list(ODORANTS)].to_numpy()])
    if by == "day":
        days = index["recorded_at"].dt.strftime("%Y-%m-%d")
        return days.fillna(days.groupby(labels(index)).transform("first")).fillna("unknown").to_numpy(str)
    raise OptionError(f"No validation by {by!r}", hint="recording, combination or day")


def held_out(index: pd.DataFrame, *, by: str = "recording", share: float = 0.2, seed: int = 7) -> NDArray[np.bool_]:
    """Return a mask over recordings: about `share` of the groups, drawn by `seed`."""
    group = groups(index, by)
    names = np.unique(group)
    chosen = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
    return np.isin(group, chosen)
