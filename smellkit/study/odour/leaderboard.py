"""`smellkit submit FILE.csv`: predictions of anybody's model on SmellNet's official split, by the kit's protocol.

    file, window, top1 .. top5     the table that `smellkit predict` writes; window -1, or none, is the whole recording

Every one of the 50 test recordings has to be answered, once for each window and once as a whole. The recordings of
another session (`online_spices`) may be answered too: their score stands beside, because the official split shares its
sessions between training and test. The recordings are known from the checksums of the data; none has to be there.
"""

import datetime
import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from smellkit import paths
from smellkit.checks import fault, read_texts
from smellkit.errors import DataError
from smellkit.study import evaluate
from smellkit.study.evaluate import Outcome

FILE = paths.HOME / "site" / "results" / "leaderboard.json"
CHECKSUMS = paths.HOME / "data" / "checksums" / "smellnet.txt"
RANKS = [f"top{rank}" for rank in range(1, 6)]
SPLITS = {"testing": "test", "online_spices": "other_session"}
WINDOWS = {"testing": 502, "online_spices": 133}  # of 125 rows, every 50: all that there are
WHOLE = -1


def known() -> pd.DataFrame:
    """The recordings that can be answered: columns split and substance, the index is the file's name."""
    lines = CHECKSUMS.read_text(encoding="utf-8").splitlines()
    places = [PurePosixPath(line.split(" ", 2)[2]) for line in lines if " base/" in line]
    rows = [(place.name, place.parts[1], place.parts[2]) for place in places if place.parts[1] in SPLITS]
    return pd.DataFrame(rows, columns=["name", "split", "substance"]).set_index("name")


def score(file: Path) -> dict[str, Outcome]:
    """{"test, window", "test, recording", "other_session, window", ...}: Top-1 and Top-5 of recordings.

    DataError names what is missing, unknown or answered twice.
    """
    answers = _read(Path(file))
    scores = {}
    for split, name in SPLITS.items():
        own = answers[answers["split"] == split]
        for kind in ("window", "recording") if len(own) or split == "testing" else ():
            answered = own[(own["window"] == WHOLE) == (kind == "recording")]
            if kind == "recording" or len(answered):
                scores[f"{name}, {kind}"] = _scored(answered, split, kind, Path(file))
    return scores


def submit(file: Path, *, name: str, by: str, link: str = "", out: Path = FILE) -> dict[str, Any]:
    """Score `file` and put it under `name` into the JSON of the leaderboard; return its row."""
    scored, before = score(file), evaluate.earlier(out)
    settings = {"by": by, "link": link, "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    settings["date"] = datetime.date.today().isoformat()
    if name in (rows := before.get("rows", {})) and rows[name]["settings"]["by"] != by:
        hint = "take another --name"
        raise DataError(f"{name!r} stands there already, by {rows[name]['settings']['by']}", hint=hint)
    asked: dict[str, Any] = {"about": {}, "settings": {name: settings}, "earlier": before}
    result = evaluate.evaluate({name: lambda _: scored}, seeds=[0], **asked)
    evaluate.publish(out, result, command="smellkit submit FILE.csv --name NAME --by WHO")
    return result["rows"][name]


def _read(path: Path) -> pd.DataFrame:
    """The answers: file, window, top1..top5, split, substance."""
    texts = read_texts(path, columns=["file", "top1"], optional=["window", *RANKS[1:]])
    recordings = known()
    names = texts["file"].map(lambda text: PurePosixPath(text.replace("\\", "/")).name)
    for line, name in names[~names.isin(recordings.index)].items():
        hint = "the names of base/testing and base/online_spices"
        raise fault(path, "a recording of SmellNet", repr(name), hint, line=line, column="file")
    windows = pd.to_numeric(texts.get("window", pd.Series(WHOLE, index=texts.index)), errors="coerce")
    for line in windows.index[windows.isna() | (windows % 1 != 0) | (windows < WHOLE)]:
        actual, hint = repr(texts.at[line, "window"]), "as `smellkit predict` numbers them"
        raise fault(path, "0, 1, ..., or -1 for the recording", actual, hint, line=line, column="window")
    answers = texts.assign(window=windows.astype(int), name=names).join(recordings, on="name")
    for line in answers.index[answers.duplicated(["name", "window"])]:
        actual = f"{answers.at[line, 'name']} a second time"
        raise fault(path, "each window once", actual, "one row a window", line=line, column="window")
    return answers


def _scored(own: pd.DataFrame, split: str, kind: str, path: Path) -> Outcome:
    """What is right of one split, of windows or whole recordings; refused where a recording has none."""
    recordings = known().query("split == @split")
    if missing := sorted(set(recordings.index) - set(own["name"])):
        hint = f"a row with window -1 for the {kind}" if kind == "recording" else "rows with window 0, 1, ..."
        raise DataError(
            f"{path}: {len(missing)} of {len(recordings)} recordings have no {kind}: {missing[0]}", hint=hint
        )
    if kind == "window" and len(own) != WINDOWS[split]:
        hint = "every window of 125 rows, every 50, from 0 on"
        raise DataError(f"{path}: {len(own)} windows of {split}, where there are {WINDOWS[split]}", hint=hint)
    ranks = [rank for rank in RANKS if rank in own]
    right = own[ranks].eq(own["substance"], axis=0)
    measures = {"top1": right["top1"].to_numpy(float)}
    if len(ranks) == len(RANKS):
        measures["top5"] = right.any(axis=1).to_numpy(float)
    return Outcome(own["name"].factorize()[0], measures, {"answers": len(own)})
