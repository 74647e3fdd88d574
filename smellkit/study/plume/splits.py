"""From annotated frames to pairs: CO2 with CH4 frames of one moment or at random, splits by original, counts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from smellkit.checks import Report, fault
from smellkit.errors import DataError
from smellkit.options import check
from smellkit.plume import GASES
from smellkit.plume import annotations as tables

PAIRINGS = {
    "original_based": "frames of the same original_sample_id and augmentation_id: the same moment",
    "random": "as many as there are of the rarer gas, drawn within one pH and class; the rest stay alone",
}


def read_all(folder: str | Path, *, pictures: bool = True) -> dict[str, pd.DataFrame]:
    """Return split -> `read`, of every split that has annotations. Raises `DataError` where a folder has only pairs."""
    folder = tables.find(folder)
    if not (splits := tables.splits_in(folder)):
        hint = "put train_annotations.csv, val_annotations.csv, test_annotations.csv beside the pairs: a row a frame"
        raise DataError(f"No annotations of single frames in {folder}: it has only pairs", hint=hint)
    return {split: tables.read(folder, split, pictures=pictures) for split in splits}


def lacking(folder: str, *names: str, both: bool = False) -> str:
    """Which of the splits `names` have no pairs (with `both`: none of both gases), as a sentence; "" where all have."""
    root, without = tables.find(folder), []
    for name in names:
        if name not in tables.splits_in(root, paired=True):
            without.append(tables.annotation_file("", name, paired=True).name)
        elif both and (tables.read_pairs(root, name, pictures=False)["missing_modality"] != "").all():
            without.append(f"pair of {name} with both gases")
    return (
        f"{root.name} has no {', no '.join(without)}; `smellkit data pair {root.name}` makes pairs." if without else ""
    )


def annotated(folder: str | Path, frames: pd.Series, *, split: str) -> pd.DataFrame:
    """Return COLUMNS and VIDEO of `frames` (paths, from the pairs of `split`), a row each.

    They are looked up in all splits, since `pair_folder` may deal them out anew without touching the annotations.
    """
    table = pd.concat(read_all(folder, pictures=False).values()).drop_duplicates("frame_path")
    if len(unknown := frames[~frames.isin(table["frame_path"])]):
        path = tables.annotation_file(tables.find(folder), split, paired=True)
        actual = f"{unknown.iloc[0]}{f' (and {len(unknown) - 1} more)' if len(unknown) > 1 else ''}"
        hint = "`smellkit data pair FOLDER` pairs what the annotations hold now"
        raise fault(path, expected="frames that are annotated in this folder", actual=actual, hint=hint)
    return table.set_index("frame_path", drop=False).rename_axis(None).loc[frames]


def read_to_pair(folder: str | Path, split: str, *, report: Report | None = None) -> pd.DataFrame:
    """Return COLUMNS of the frames in the pairs of `split`, each once; where nothing is paired yet, `read`."""
    folder = tables.find(folder)
    if not tables.splits_in(folder, paired=True):
        return tables.read(folder, split, report=report)
    pairs = tables.read_pairs(folder, split, report=report)
    frames = pd.concat([pairs[f"{gas}_frame"] for gas in GASES])
    return annotated(folder, frames[frames != ""].drop_duplicates(), split=split)


def pair(table: pd.DataFrame, how: str = "original_based", *, seed: int = 7) -> pd.DataFrame:
    """Return pairs of the frames in `table` (columns of `read`): PAIRED. Every frame is in exactly one of them.

    Frames are paired within one pH and class only; those without a partner stay alone. See PAIRINGS.
    """
    check([how], PAIRINGS, "There is no pairing")
    if how == "original_based":
        keys = [*tables.ORIGINAL, "gas_type"]
        if (again := table.duplicated(keys)).any():
            same, hint = " ".join(table.loc[again, keys].iloc[0]), "number its augmentations through all splits"
            raise DataError(f"Several frames are of {same}", hint=hint)
        table = table.sort_values("frame_path").sort_values("gas_type", ascending=False, kind="stable")
        partner = table.groupby(tables.ORIGINAL, sort=False).ngroup()
    else:  # numbers from 0 within one pH, class and gas: the surplus of the commoner gas is alone
        table = table.assign(gas_type=pd.Categorical(table["gas_type"], GASES)).sort_values("frame_path")
        random, cells = np.random.default_rng(seed), ["ph_value", "class_name", "gas_type"]
        drawn = table.groupby(cells, observed=True)["class_id"]
        partner = drawn.transform(lambda rows: np.argsort(random.permutation(len(rows))))
    table = table.rename(columns={"frame_path": "frame", "mask_path": "mask"}).assign(partner=partner)
    keys = [*tables.HEALTH, "partner"]
    moments = table.groupby(keys)[tables.VIDEO]
    pairs = table.pivot(index=keys, columns="gas_type", values=["frame", "mask"])
    pairs.columns = [f"{gas}_{kind}" for kind, gas in pairs.columns]
    pairs = pairs.reindex(columns=tables.PATHS).astype(object).fillna("").astype(str)
    moment = moments.first()
    moment.loc[(moments.nunique() > 1).any(axis=1), tables.VIDEO] = "", -1  # frames of two moments are of no video
    pairs = pairs.join(moment).reset_index()
    pairs["missing_modality"] = np.select([pairs[f"{gas}_frame"] == "" for gas in GASES], list(GASES), "")
    pairs["is_paired"] = pairs["missing_modality"] == ""
    pairs = pairs.sort_values(["ph_value", "class_name", "partner"]).reset_index(drop=True)
    return pairs[[*tables.PAIRED, *tables.VIDEO]]


def pair_folder(
    folder: str | Path, how: str = "original_based", *, regroup: bool = False, seed: int = 7
) -> pd.DataFrame:
    """Write paired_{split}_annotations.csv beside the annotations in `folder`; return `statistics` of them.

    `regroup` deals the originals out anew, so that the copies of one never lie in two splits. The annotations stay as
    they are; from then on the pairs say what is in a split.
    """
    folder = tables.find(folder)
    frames = read_all(folder)
    if regroup:
        everything = pd.concat(frames.values(), ignore_index=True).drop_duplicates("frame_path")
        frames = grouped(everything, shares={split: len(table) for split, table in frames.items()}, seed=seed)
        if empty := [split for split, table in frames.items() if table.empty]:
            count = everything["original_sample_id"].nunique()
            what = f"{count} originals in {folder} are too few for {len(frames)} splits: {empty[0]} would be empty"
            raise DataError(what, hint=f"annotate more originals, more of them in {empty[0]}, or pair without regroup")
    paired = {split: pair(table, how, seed=seed) for split, table in frames.items()}
    for split, pairs in paired.items():
        tables.write(pairs, tables.annotation_file(folder, split, paired=True))
    return tables.statistics(paired)


def grouped(table: pd.DataFrame, *, shares: Mapping[str, float], seed: int = 7) -> dict[str, pd.DataFrame]:
    """Split frames so that all copies of an original are in one split: split -> rows, about `shares` of each class."""
    random = np.random.default_rng(seed)
    owner: dict[str, str] = {}
    first = table.drop_duplicates("original_sample_id").sort_values("original_sample_id")
    wanted = np.array(list(shares.values())) / sum(shares.values())
    for _, rows in first.groupby("class_id"):
        names = random.permutation(rows["original_sample_id"].to_numpy())
        ends = np.round(np.cumsum(wanted) * len(names)).astype(int)[:-1]
        for split, part in zip(shares, np.split(names, ends), strict=True):
            owner |= dict.fromkeys(part, split)
    split_of = table["original_sample_id"].map(owner)
    return {split: table[split_of == split] for split in shares}


def shared_originals(frames: Mapping[str, pd.DataFrame]) -> int:
    """How many originals have copies in more than one split: 0 in an honest one."""
    places = [table["original_sample_id"].drop_duplicates() for table in frames.values()]
    return int(pd.concat(places).duplicated().sum()) if places else 0
