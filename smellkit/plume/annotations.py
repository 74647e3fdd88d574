"""From annotation files to pairs: read them strictly, pair CO2 with CH4 frames, split by original, count."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smellkit import paths
from smellkit.checks import Report, fault, read_texts
from smellkit.errors import DataError, OptionError
from smellkit.plume import CLASSES, GASES

SPLITS = {"train": "train", "valid": "val", "test": "test"}  # name in the kit -> name in the files
HEALTH = ("ph_value", "class_id", "class_name")
ORIGINAL = ["original_sample_id", "augmentation_id"]
COLUMNS = ("frame_path", "mask_path", "gas_type", *HEALTH, *ORIGINAL)
PATHS = ("co2_frame", "co2_mask", "ch4_frame", "ch4_mask")
PAIRED = (*PATHS, *HEALTH, "is_paired", "missing_modality")
PREFIX = "mmseg_dataset"  # of the published files
NONE = ("", "none", "nan", "empty")
FLAGS = {"true": True, "1": True, "false": False, "0": False}
PAIRINGS = {
    "original_based": "frames of the same original_sample_id and augmentation_id: the same moment",
    "random": "as many as there are of the rarer gas, drawn within one pH and class; the rest stay alone",
}
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)"
CELLS: dict[str, tuple[Callable[[pd.Series], pd.Series], str]] = {  # column -> which cells are right, and in words
    "gas_type": (lambda cells: cells.isin(GASES), "co2 or ch4"),
    "missing_modality": (lambda cells: cells.isin(["", *GASES]), "co2, ch4 or nothing"),
    "ph_value": (
        lambda cells: cells.str.fullmatch(NUMBER) & pd.to_numeric(cells, errors="coerce").between(0, 14),
        "a number from 0 to 14",
    ),
    "class_id": (lambda cells: cells.str.fullmatch(r"0*[0-2](\.0*)?"), "a whole number from 0 to 2"),
    "class_name": (lambda cells: cells.isin(CLASSES), ", ".join(CLASSES)),
    **dict.fromkeys(ORIGINAL, (lambda cells: cells != "", "a name or a number")),
}


def find(folder: str | Path | None = None) -> Path:
    """Folder to use: "" is the sample; else `folder`, or `plume` inside it."""
    if folder is None or str(folder) == "":
        return paths.sample() / "plume"
    for place in (Path(folder), Path(folder) / "plume"):
        if holds(place):
            return place
    hint = "`smellkit data simulate plume --out FOLDER`, or leave --data out for the sample"
    raise DataError(f"No annotations (train_annotations.csv, ...) in {folder}", hint=hint)


def holds(folder: Path) -> bool:
    """Whether a folder has annotations of any split, paired or not."""
    return bool(splits_in(folder) or splits_in(folder, paired=True))


def splits_in(folder: Path, *, paired: bool = False) -> list[str]:
    """The splits of which `folder` has an annotation file, by their names in the kit."""
    return [name for name in SPLITS if annotation_file(folder, name, paired=paired).is_file()]


def annotation_file(folder: str | Path, split: str, *, paired: bool = False) -> Path:
    """Where the annotations of a split are."""
    if split not in SPLITS:
        raise OptionError(f"There is no split {split!r}", hint=f"one of {', '.join(SPLITS)}")
    return Path(folder) / f"{'paired_' if paired else ''}{SPLITS[split]}_annotations.csv"


def read(folder: str | Path, split: str, *, pictures: bool = True, report: Report | None = None) -> pd.DataFrame:
    """Return one row a frame of `split`: COLUMNS, with paths below `folder` that have slashes, and numbers as numbers.

    Ids are texts; augmentations 1, 01 and 1.0 are the same. The index is the line in the file. With `pictures` each
    file must be there (not: be whole). Raises `DataError`.
    """
    path = annotation_file(find(folder), split)
    table = read_texts(path, columns=COLUMNS, report=report)
    for column in ("frame_path", "mask_path"):
        table[column] = _paths(table[column], path=path, pictures=pictures)
    table["gas_type"] = table["gas_type"].str.lower()
    _check_cells(table, path=path)
    table["augmentation_id"] = table["augmentation_id"].str.replace(r"^0*([0-9]+)(\.0*)?$", r"\1", regex=True)
    once = {"each frame once": ["frame_path"], "each augmentation once a gas": [*ORIGINAL, "gas_type"]}
    for expected, keys in once.items():
        first = table.index.to_series().groupby([table[key] for key in keys]).transform("first")
        twice = table[keys].agg(" ".join, axis=1) + " in line " + first.astype(str) + " too"
        hint = "delete one of the two lines"
        _refuse(table[keys[0]], table.duplicated(keys), path=path, expected=expected, found=twice, hint=hint)
    return table


def read_all(folder: str | Path, *, pictures: bool = True) -> dict[str, pd.DataFrame]:
    """Return split -> `read`, of every split that has annotations. Raises `DataError` where a folder has only pairs."""
    folder = find(folder)
    if not (splits := splits_in(folder)):
        hint = "put train_annotations.csv, val_annotations.csv, test_annotations.csv beside the pairs: a row a frame"
        raise DataError(f"No annotations of single frames in {folder}: it has only pairs", hint=hint)
    return {split: read(folder, split, pictures=pictures) for split in splits}


def annotated(folder: str | Path, frames: pd.Series, *, split: str) -> pd.DataFrame:
    """Return COLUMNS of `frames` (paths, from the pairs of `split`), a row each.

    They are looked up in all splits, since `pair_folder` may deal them out anew without touching the annotations.
    """
    table = pd.concat(read_all(folder, pictures=False).values()).drop_duplicates("frame_path")
    if len(unknown := frames[~frames.isin(table["frame_path"])]):
        path = annotation_file(find(folder), split, paired=True)
        found = f"{unknown.iloc[0]}{f' (and {len(unknown) - 1} more)' if len(unknown) > 1 else ''}"
        hint = "`smellkit data pair FOLDER` pairs what the annotations hold now"
        raise fault(path, expected="frames that are annotated in this folder", found=found, hint=hint)
    return table.set_index("frame_path", drop=False).rename_axis(None).loc[frames]


def read_to_pair(folder: str | Path, split: str, *, report: Report | None = None) -> pd.DataFrame:
    """Return COLUMNS of the frames in the pairs of `split`, each once; where nothing is paired yet, `read`."""
    folder = find(folder)
    if not splits_in(folder, paired=True):
        return read(folder, split, report=report)
    pairs = read_pairs(folder, split, report=report)
    frames = pd.concat([pairs[f"{gas}_frame"] for gas in GASES])
    return annotated(folder, frames[frames != ""].drop_duplicates(), split=split)


def read_pairs(
    folder: str | Path, split: str, *, labels: bool = True, pictures: bool = True, report: Report | None = None
) -> pd.DataFrame:
    """Return one row a pair of `split`: PAIRED, "" where a gas has no frame; the index is the row from 0.

    Frames that occur in several pairs, as in files of the published code, are counted in the report. Without `labels`
    only the frames and missing_modality are read, if there is such a column: a row that names a gas there has no frame
    of it, whatever its path.
    """
    folder, report = find(folder), report or Report()
    path = annotation_file(folder, split, paired=True)
    if not path.is_file():
        alone = annotation_file(folder, split)
        hint = f"there is no {alone.name} to pair either: annotate frames for {split}, or simulate with a share for it"
        command = "`smellkit data pair FOLDER` writes it from the annotations"
        raise DataError(f"No {path}", hint=command if alone.is_file() else hint)
    columns = PAIRED if labels else [f"{gas}_frame" for gas in GASES]
    table = read_texts(path, columns=columns, optional=["missing_modality"], report=report)
    table = table if "missing_modality" in table else table.assign(missing_modality="")
    for column in table.columns.intersection(["missing_modality", *PATHS]):
        table[column] = table[column].where(~table[column].str.lower().isin(NONE), "")
    table["missing_modality"] = missing = table["missing_modality"].str.lower()
    _check_cells(table, path=path)
    for gas in GASES:
        _check_gas(table, gas, strict=labels, path=path, pictures=pictures, report=report)
    if labels:
        flags, known = table["is_paired"].str.lower().map(FLAGS), "true if and only if no gas is missing"
        _refuse(table["is_paired"], flags != (missing == ""), path=path, expected=known)
        table["is_paired"] = missing == ""
    nothing = (table["co2_frame"] == "") & (table["ch4_frame"] == "")
    _refuse(table["co2_frame"], nothing, path=path, expected="a frame of one gas at least")
    return table.reset_index(drop=True)


def clean_path(text: str) -> str:
    r"""Return a path of the published files below their folder: `mmseg_dataset\img\a.png` is `img/a.png`.

    "" is what is empty, absolute, or leaves the folder.
    """
    text = text.strip().replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if re.match(r"/|[A-Za-z]:", text) or ".." in parts or any(ord(letter) < 32 for letter in text):
        return ""
    return "/".join(parts[1:] if parts[:1] and parts[0].lower() == PREFIX and len(parts) > 1 else parts)


def located(folder: str | Path, relative: str) -> Path:
    """The file that a cleaned path means: below the folder, or below its `mmseg_dataset`."""
    folder = Path(folder)
    return next((file for file in (folder / relative, folder / PREFIX / relative) if file.is_file()), folder / relative)


def pair(table: pd.DataFrame, how: str = "original_based", *, seed: int = 7) -> pd.DataFrame:
    """Return pairs of the frames in `table` (columns of `read`): PAIRED. Every frame is in exactly one of them.

    Frames are paired within one pH and class only; those without a partner stay alone. See PAIRINGS.
    """
    if how not in PAIRINGS:
        raise OptionError(f"There is no pairing {how!r}", hint=f"one of {', '.join(PAIRINGS)}")
    keys = [*ORIGINAL, "gas_type"]
    if how == "original_based" and (again := table.duplicated(keys)).any():
        same = " ".join(table.loc[again, keys].iloc[0])
        raise DataError(f"Several frames are of {same}", hint="number an original's augmentations through all splits")
    table = table.sort_values(["gas_type", "frame_path"], ascending=[False, True]).reset_index(drop=True)
    numbered = table.groupby(ORIGINAL, sort=False).ngroup() if how == "original_based" else _shuffled(table, seed=seed)
    table = table.rename(columns={"frame_path": "frame", "mask_path": "mask"}).assign(partner=numbered)
    # frames of both gases with the same number, pH and class are a pair
    pairs = table.pivot(index=[*HEALTH, "partner"], columns="gas_type", values=["frame", "mask"])
    pairs.columns = [f"{gas}_{kind}" for kind, gas in pairs.columns]
    pairs = pairs.reindex(columns=PATHS).astype(object).fillna("").astype(str).reset_index()
    pairs["missing_modality"] = np.select([pairs[f"{gas}_frame"] == "" for gas in GASES], list(GASES), "")
    pairs["is_paired"] = pairs["missing_modality"] == ""
    return pairs.sort_values(["ph_value", "class_name", "partner"])[list(PAIRED)].reset_index(drop=True)


def _shuffled(table: pd.DataFrame, *, seed: int) -> pd.Series:
    """A number for each frame from 0, drawn within its pH, class and gas: the surplus of the commoner gas is alone."""
    random, numbers = np.random.default_rng(seed), pd.Series(0, index=table.index)
    in_order = table.assign(gas_type=pd.Categorical(table["gas_type"], GASES))
    for _, rows in in_order.groupby(["ph_value", "class_name", "gas_type"], observed=True):
        numbers[rows.index] = np.argsort(random.permutation(len(rows)))
    return numbers


def pair_folder(
    folder: str | Path, how: str = "original_based", *, regroup: bool = False, seed: int = 7
) -> pd.DataFrame:
    """Write paired_{split}_annotations.csv beside the annotations in `folder`; return `statistics` of them.

    `regroup` deals the originals out anew, so that the copies of one never lie in two splits. The annotations stay as
    they are; from then on the pairs say what is in a split.
    """
    folder = find(folder)
    tables = read_all(folder)
    if regroup:
        everything = pd.concat(tables.values(), ignore_index=True).drop_duplicates("frame_path")
        tables = grouped(everything, shares={split: len(table) for split, table in tables.items()}, seed=seed)
        if empty := [split for split, table in tables.items() if table.empty]:
            count = everything["original_sample_id"].nunique()
            what = f"{count} originals in {folder} are too few for {len(tables)} splits: {empty[0]} would be empty"
            raise DataError(what, hint=f"annotate more originals, more of them in {empty[0]}, or pair without regroup")
    paired = {split: pair(table, how, seed=seed) for split, table in tables.items()}
    for split, pairs in paired.items():
        write(pairs, annotation_file(folder, split, paired=True))
    return statistics(paired)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write an annotation table as CSV by rename."""
    with paths.replacing(path) as part:
        table.to_csv(part, index=False, lineterminator="\n")


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


def shared_originals(tables: Mapping[str, pd.DataFrame]) -> int:
    """How many originals have copies in more than one split: 0 in an honest one."""
    places = [table["original_sample_id"].drop_duplicates() for table in tables.values()]
    return int(pd.concat(places).duplicated().sum()) if places else 0


def statistics(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a split: pairs, both gases, co2 only, ch4 only, then pairs by class and by pH."""
    rows = {}
    for split, pairs in tables.items():
        missing = pairs["missing_modality"].value_counts()
        row = {"pairs": len(pairs), "both": missing.get("", 0)}
        row |= {"co2 only": missing.get("ch4", 0), "ch4 only": missing.get("co2", 0)}
        row |= {name: (pairs["class_name"] == name).sum() for name in CLASSES}
        rows[split] = row | {f"pH {ph:g}": count for ph, count in pairs["ph_value"].value_counts().sort_index().items()}
    return pd.DataFrame.from_dict(rows, orient="index").fillna(0).astype(int)


def _check_gas(table: pd.DataFrame, gas: str, *, strict: bool, path: Path, pictures: bool, report: Report) -> None:
    """Clean the paths of one gas, in place. If `strict`, refuse those that contradict `missing_modality`."""
    for column in table.columns.intersection([f"{gas}_frame", f"{gas}_mask"]):
        gone, empty = table["missing_modality"] == gas, table[column] == ""
        if strict:
            _refuse(table[column], ~gone & empty, path=path, expected="a path (missing_modality says so)")
            _refuse(table[column], gone & ~empty, path=path, expected="nothing, since the gas is missing")
        table.loc[gone, column] = ""
        table.loc[~gone & ~empty, column] = _paths(table.loc[~gone & ~empty, column], path=path, pictures=pictures)
    frames = table[f"{gas}_frame"]
    if repeated := int(frames[frames != ""].duplicated().sum()):
        report.note(path, f"{gas} frames in several pairs", repeated)


def _paths(cells: pd.Series, *, path: Path, pictures: bool) -> pd.Series:
    """The cells as clean paths; refused where one is none, or with `pictures` where there is no such file."""
    cleaned = cells.map(clean_path)
    hint = "write it from this folder on, for example frames/a.png"
    _refuse(cells, cleaned == "", path=path, expected="a path below this folder", hint=hint)
    if pictures:
        files = [located(path.parent, name) for name in cleaned]
        absent = pd.Series(["" if file.is_file() else f"no file {file}" for file in files], cells.index, dtype=str)
        hint = "copy the pictures beside the annotations; capitals count"
        _refuse(cells, absent != "", path=path, expected="a picture", found=absent, hint=hint)
    return cleaned


def _check_cells(table: pd.DataFrame, *, path: Path) -> None:
    """Refuse wrong CELLS, and make pH and class what they are, in place; id and name of a class must agree."""
    if "class_name" in table:
        table["class_name"] = table["class_name"].str.capitalize()
    for column in table.columns.intersection(list(CELLS), sort=False):
        right, expected = CELLS[column]
        _refuse(table[column], ~right(table[column]), path=path, expected=expected)
    if "class_name" in table:
        table["ph_value"] = table["ph_value"].astype(float)
        table["class_id"] = table["class_id"].astype(float).astype(np.int64)
        same = table["class_name"] == table["class_id"].map(dict(enumerate(CLASSES)))
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(CLASSES))
        _refuse(table["class_name"], ~same, path=path, expected=f"the name of the class_id ({listed})")


def _refuse(
    cells: pd.Series, wrong: pd.Series, *, path: Path, expected: str, found: pd.Series | None = None,
    hint: str = "correct the cell",
) -> None:  # fmt: skip
    """Refuse the file at the first wrong cell, and say how many there are; `found` says more than the cell itself."""
    if wrong.any():
        line: Any = wrong.idxmax()
        text = f"{cells[line][:60]!r}" if found is None else found[line]
        more = f" (and {wrong.sum() - 1} more cells like it)" if wrong.sum() > 1 else ""
        raise fault(path, line=int(line), column=str(cells.name), expected=expected, found=text + more, hint=hint)
