"""`smellkit bench peers`: opensmell 1.0.0 and this kit on the same folds of the same recordings, with the audit beside.

OpenSmell's way: a recording is divided by the median of its first 15 %, windows of 100 rows give 28 features a channel
and some for pairs, their mean over the recording goes into 200 trees. "absolute levels" leaves the division out. All
are scored on whole recordings; windows follow each other here, as its own of every 10 rows take an hour.
"""

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smellkit import noses
from smellkit.errors import DataError, OptionError
from smellkit.options import check
from smellkit.study.evaluate import Fit, Outcome, evaluate
from smellkit.study.odour import own, own_report
from smellkit.study.odour.own import Own

STRIDE = 100  # rows from one of its windows to the next
PUBLISHED = {"OpenSmell on SmellNet, absolute levels (its README)": 89.4}


def run(
    data: Path,
    *,
    sets: Sequence[str] = (),
    seed: int = 7,
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure both on `sets` (smellnet, uma, own-format; all by default) below `data`, keeping `earlier` rows.

    {"about", "stamp", "rows": {"set/way": {"recordings": ...}}, "published"}; OptionError without opensmell (the extra
    `peers`).
    """
    check(sets, SETS, "There is no set")
    if importlib.util.find_spec("opensmell") is None:
        raise OptionError("The peer is not installed", hint="pip install smellkit[peers]")
    result = dict(earlier or {})
    for name in sets or SETS:
        with tempfile.TemporaryDirectory() as scratch:
            mine = SETS[name](Path(data), Path(scratch))
        size = {"recordings": len(mine.files), "classes": int(mine.table["substance"].nunique())}
        ways = compare(mine, seed=seed)
        rows: dict[str, Fit] = {f"{name}/{way}": lambda _, one=one: {"recordings": one} for way, one in ways.items()}  # type: ignore[misc]
        asked: dict[str, Any] = {"about": {}, "settings": dict.fromkeys(rows, size), "earlier": result}
        result = evaluate(rows, seeds=[seed], progress=progress, **asked)
    return {"published": PUBLISHED, **result}


def compare(mine: Own, *, seed: int) -> dict[str, Outcome]:
    """Every way on the same folds of recordings; the audit is one of the ways."""
    protocol = mine.protocol()
    windows = mine.windows(protocol)
    fold = own.folds_of(windows)
    trial = own.validate(windows, protocol, fold, seed=seed)
    used, first = np.unique(windows.recording, return_index=True)
    parts = [rows[list(protocol.columns)].to_numpy() for _, rows in mine.table.groupby("file", sort=True)]
    rows: dict[str, Outcome] = {}
    for way, absolute in {"opensmell": False, "opensmell, absolute levels": True}.items():
        x = np.stack([described(parts[number], absolute=absolute) for number in used])
        rows[way] = Outcome(used, {"accuracy": forest(x, windows.target[first], fold[first])})
    rows |= {f"smellkit, {name}": trial.outcome(name) for name in trial.scores}
    audited = own_report.first_row(mine, windows, fold, seed=seed)
    return rows | {f"audit: {name}": one for name, one in audited.items()}


def described(values: NDArray, *, absolute: bool) -> NDArray[np.float64]:
    """What opensmell says of one recording (rows, channels): the mean of the features of its windows."""
    from opensmell.mox.features import extract_all_framework_features
    from opensmell.mox.preprocessing import rs_r0_normalize, segment

    rows = np.asarray(values, float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its fits of decays overflow
        parts = segment(rows if absolute else rs_r0_normalize(rows), stride=STRIDE)
        features = [list(extract_all_framework_features(part).values()) for part in parts]
    return np.nan_to_num(np.mean(features, axis=0), posinf=0, neginf=0)


def forest(x: NDArray, target: NDArray, fold: NDArray) -> NDArray[np.float64]:
    """Which rows its trees name right, each by a fit without the row's fold."""
    import opensmell

    right = np.zeros(len(target))
    for number in np.unique(fold):
        model = opensmell.train(x[fold != number], target[fold != number])
        right[fold == number] = model.predict(x[fold == number]) == target[fold == number]
    return right


def _own_format(_: Path, scratch: Path) -> Own:
    """A simulated rig of six channels, written in OpenSmell's own format and read back from it."""
    from smellkit.odour import readers
    from smellkit.odour.formats import write_exchange
    from smellkit.simulate.boards import write_recordings

    made = write_recordings(scratch / "made", noses.load("opensmell"), classes=4, recordings=12, days=3)
    write_exchange(scratch / "exchange", *readers.read_folder(made))
    if not any((scratch / "exchange").glob("*.json")):
        raise DataError(f"Nothing was written to {scratch / 'exchange'}", hint="report this")
    return own.understand(scratch / "exchange")


SETS: dict[str, Callable[[Path, Path], Own]] = {  # of the data, and of a scratch folder
    "smellnet": lambda data, _: own.understand(data / "smellnet" / "base" / "training", nose="smellnet"),
    "uma": lambda data, _: own.understand(data / "uma_odours"),
    "own-format": _own_format,
}
