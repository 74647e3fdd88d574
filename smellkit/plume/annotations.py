"""A folder of frames, read strictly: annotations of frames and of pairs of them, and pictures as grey levels.

Frames of 8 bits are taken as they are. Deeper ones (radiometric, 14 or 16 bits) are stretched: the darkest pixel of the
folder is 0, the brightest 255; a pixel at either end of its range is dead and does not count. A folder holds one kind
only, and no false colours. A frame that its camera turned (EXIF) is turned upright.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from smellkit import paths
from smellkit.checks import Report, fault, read_picture, read_texts
from smellkit.errors import DataError
from smellkit.options import check
from smellkit.plume import CLASSES, GASES

Grey = NDArray[np.uint8]
FEATURES = ("mean grey", "contrast", "dark end", "bright end")  # of a frame, for the ranges in a manifest
COLOUR = 24  # levels between two channels of a pixel that is coloured
SPLITS = {"train": "train", "valid": "val", "test": "test"}  # name in the kit -> name in the files
HEALTH = ("ph_value", "class_id", "class_name")
ORIGINAL = ["original_sample_id", "augmentation_id"]
COLUMNS = ("frame_path", "mask_path", "gas_type", *HEALTH, *ORIGINAL)
PATHS = ("co2_frame", "co2_mask", "ch4_frame", "ch4_mask")
PAIRED = (*PATHS, *HEALTH, "is_paired", "missing_modality")
VIDEO = ["video", "frame_number"]  # of files that have them: "" and -1 for a frame of no video
PREFIX = "mmseg_dataset"  # of the published files
NONE = ("", "none", "nan", "empty")
FLAGS = {"true": True, "1": True, "false": False, "0": False}
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
    hint = "their layout is in data/README.md; `smellkit data simulate plume --out FOLDER` writes such a folder"
    raise DataError(f"No annotations (train_annotations.csv, ...) in {folder}", hint=hint)


def holds(folder: Path) -> bool:
    """Whether a folder has annotations of any split, paired or not."""
    return bool(splits_in(folder) or splits_in(folder, paired=True))


def splits_in(folder: Path, *, paired: bool = False) -> list[str]:
    """The splits of which `folder` has an annotation file, by their names in the kit."""
    return [name for name in SPLITS if annotation_file(folder, name, paired=paired).is_file()]


def annotation_file(folder: str | Path, split: str, *, paired: bool = False) -> Path:
    """Where the annotations of a split are."""
    check([split], SPLITS, "There is no split")
    return Path(folder) / f"{'paired_' if paired else ''}{SPLITS[split]}_annotations.csv"


def read(folder: str | Path, split: str, *, pictures: bool = True, report: Report | None = None) -> pd.DataFrame:
    """Return one row a frame of `split`: COLUMNS, with paths below `folder` that have slashes, and numbers as numbers.

    VIDEO comes after them. Ids are texts; augmentations 1, 01 and 1.0 are the same. The index is the line in the file.
    With `pictures` each file must be there (not: be whole). Raises `DataError`.
    """
    path = annotation_file(find(folder), split)
    table = read_texts(path, columns=COLUMNS, optional=VIDEO, report=report)
    for column in ("frame_path", "mask_path"):
        table[column] = _paths(table[column], path=path, pictures=pictures)
    table["gas_type"] = table["gas_type"].str.lower()
    _check_cells(table, path=path)
    table["augmentation_id"] = table["augmentation_id"].str.replace(r"^0*([0-9]+)(\.0*)?$", r"\1", regex=True)
    _once(table, ["frame_path"], path=path, expected="each frame once")
    _once(table, [*ORIGINAL, "gas_type"], path=path, expected="each augmentation once a gas")
    table = _videos(table, path=path)
    _once(
        table[table["video"] != ""], ["video", "frame_number", "gas_type"], path=path, expected="each moment once a gas"
    )
    return table


def read_pairs(
    folder: str | Path, split: str, *, labels: bool = True, pictures: bool = True, report: Report | None = None
) -> pd.DataFrame:
    """Return one row a pair of `split`: PAIRED, "" where a gas has no frame; the index is the row from 0.

    VIDEO comes last. Frames that occur in several pairs, as in files of the published code, are counted in the report.
    Without `labels` only the frames, missing_modality and VIDEO are read, where there are such columns: a row that
    names a gas there has no frame of it, whatever its path.
    """
    folder, report = find(folder), report or Report()
    path = annotation_file(folder, split, paired=True)
    if not path.is_file():
        alone = annotation_file(folder, split)
        hint = f"there is no {alone.name} to pair either: annotate frames for {split}, or simulate with a share for it"
        command = "`smellkit data pair FOLDER` writes it from the annotations"
        raise DataError(f"No {path}", hint=command if alone.is_file() else hint)
    columns = PAIRED if labels else [f"{gas}_frame" for gas in GASES]
    table = read_texts(path, columns=columns, optional=["missing_modality", *VIDEO], report=report)
    table = table if "missing_modality" in table else table.assign(missing_modality="")
    for column in table.columns.intersection(["missing_modality", *PATHS]):
        table[column] = _named(table[column])
    table["missing_modality"] = missing = table["missing_modality"].str.lower()
    _check_cells(table, path=path)
    table = _videos(table, path=path)
    table.loc[table.duplicated([*VIDEO, "missing_modality"]), VIDEO] = "", -1  # a moment comes once in a video
    for column in table.columns.intersection(PATHS):
        gone, empty = missing == column[:3], table[column] == ""
        if labels:
            _refuse(table[column], ~gone & empty, path=path, expected="a path (missing_modality says so)")
            _refuse(table[column], gone & ~empty, path=path, expected="nothing, since the gas is missing")
        table.loc[gone, column] = ""
        named = _paths(table.loc[~gone & ~empty, column], path=path, pictures=pictures)
        table.loc[named.index, column] = named
        if column.endswith("frame") and (repeated := int(named.duplicated().sum())):
            report.note(path, f"{column[:3]} frames in several pairs", repeated)
    if labels:
        flags, known = table["is_paired"].str.lower().map(FLAGS), "true if and only if no gas is missing"
        _refuse(table["is_paired"], flags != (missing == ""), path=path, expected=known)
        table["is_paired"] = missing == ""
    same = table["co2_frame"] == table["ch4_frame"]
    _refuse(table["co2_frame"], same & (table["co2_frame"] == ""), path=path, expected="a frame of one gas at least")
    _refuse(table["ch4_frame"], same, path=path, expected="another frame than that of CO2")
    return table.reset_index(drop=True)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write an annotation table as CSV by rename, without VIDEO where no frame is of one."""
    if "video" in table and (table["video"] == "").all():
        table = table.drop(columns=VIDEO)
    paths.write_text(path, table.to_csv(index=False, lineterminator="\n"))


def statistics(paired: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a split: pairs, both gases, co2 only, ch4 only, then pairs by class and by pH."""
    rows = {}
    for split, pairs in paired.items():
        missing = pairs["missing_modality"].value_counts()
        row = {"pairs": len(pairs), "both": missing.get("", 0)}
        row |= {"co2 only": missing.get("ch4", 0), "ch4 only": missing.get("co2", 0)}
        row |= {name: (pairs["class_name"] == name).sum() for name in CLASSES}
        rows[split] = row | {f"pH {ph:g}": count for ph, count in pairs["ph_value"].value_counts().sort_index().items()}
    return pd.DataFrame.from_dict(rows, orient="index").fillna(0).astype(int)


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


def _named(cells: pd.Series) -> pd.Series:
    """The cells, "" for those of NONE."""
    return cells.where(~cells.str.lower().isin(NONE), "")


def _paths(cells: pd.Series, *, path: Path, pictures: bool) -> pd.Series:
    """The cells as clean paths; refused where one is none, or with `pictures` where there is no such file."""
    cleaned = cells.map(clean_path)
    hint = "write it from this folder on, for example frames/a.png"
    _refuse(cells, cleaned == "", path=path, expected="a path below this folder", hint=hint)
    if pictures:
        files = [located(path.parent, name) for name in cleaned]
        absent = pd.Series(["" if file.is_file() else f"no file {file}" for file in files], cells.index, dtype=str)
        hint = "copy the pictures beside the annotations; capitals count"
        _refuse(cells, absent != "", path=path, expected="a picture", actual=absent, hint=hint)
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


def _videos(table: pd.DataFrame, *, path: Path) -> pd.DataFrame:
    """The table with VIDEO, "" and -1 for a frame of no video; refused where a frame of one has no number."""
    table = table.assign(**{name: _named(table[name]) if name in table else "" for name in VIDEO})
    filmed, number = table["video"] != "", table["frame_number"].str.removesuffix(".0")  # as spreadsheets save
    known = "a whole number: the place of the frame in its video"
    _refuse(number, filmed & ~number.str.fullmatch("[0-9]{1,9}"), path=path, expected=known)
    return table.assign(frame_number=number.where(filmed, "-1").astype(np.int64))


def _once(table: pd.DataFrame, keys: list[str], *, path: Path, expected: str) -> None:
    first = table.index.to_series().groupby([table[key] for key in keys]).transform("first")
    twice = table[keys].astype(str).agg(" ".join, axis=1) + " in line " + first.astype(str) + " too"
    hint = "delete one of the two lines"
    _refuse(table[keys[0]], table.duplicated(keys), path=path, expected=expected, actual=twice, hint=hint)


def _refuse(
    cells: pd.Series, wrong: pd.Series, *, path: Path, expected: str, actual: pd.Series | None = None,
    hint: str = "correct the cell",
) -> None:  # fmt: skip
    """Refuse the file at the first wrong cell, and say how many there are; `actual` says more than the cell itself."""
    if wrong.any():
        line: Any = wrong.idxmax()
        text = f"{cells[line][:60]!r}" if actual is None else actual[line]
        more = f" (and {wrong.sum() - 1} more cells like it)" if wrong.sum() > 1 else ""
        raise fault(path, line=int(line), column=str(cells.name), expected=expected, actual=text + more, hint=hint)


def features(frame: Grey) -> NDArray[np.float64]:
    """`FEATURES` of a frame of 8 bits, (1, 4)."""
    return np.array([[frame.mean(), frame.std(), *np.quantile(frame, [0.05, 0.95])]])


@dataclass
class Rule:
    """How the frames of a folder are read."""

    folder: Path
    scale: tuple[float, float] | None = None  # darkest and brightest pixel of frames deeper than 8 bits

    @classmethod
    def of(cls, folder: str | Path, *, report: Report | None = None) -> Rule:
        """The rule of a folder with annotations; deep frames are all looked through for their ends, but dead pixels."""
        rule = cls(find(folder))
        first = next(listed(rule.folder, "frame"), None)
        if first is not None and _is_deep(first):
            low, high = np.inf, -np.inf
            for path in listed(rule.folder, "frame"):
                values = rule._read(path, deep=True)
                alive = values[(values > 0) & (values < 65535)]
                low, high = min(low, alive.min(initial=np.inf)), max(high, alive.max(initial=-np.inf))
            rule.scale = low, high = (float(low), float(high)) if low < high else (0.0, 65535.0)
            over = f"over the folder's range ({low:g} to {high:g} is 0 to 255)"
            (report or Report()).tell(rule.folder, f"frames of 16 bits stretched {over}")
        return rule

    def read_frame(self, path: Path, *, report: Report | None = None) -> Grey:
        """Return a picture as grey (rows, columns) of 8 bits, upright."""
        pixels = self._read(path, deep=self.scale is not None, report=report)
        if self.scale is None:
            return pixels
        low, high = self.scale
        return np.round((np.clip(pixels, low, high) - low) * (255 / max(1.0, high - low))).astype(np.uint8)

    def _read(self, path: Path, *, deep: bool, report: Report | None = None) -> NDArray:
        """The pixels of a frame of 8 bits, or of a deep one; refused where it is of the other kind."""
        if _is_deep(path) != deep:
            wanted, actual = ("16 bits", "8 bits") if deep else ("8 bits", "16 bits")
            hint = f"save all frames of {self.folder} with the same depth"
            raise fault(path, expected=f"a frame of {wanted}, as the others", actual=actual, hint=hint)
        return np.asarray(read_picture(path, rgb=False), np.float64) if deep else _grey(path, report)


def listed(folder: Path, kind: str) -> Iterator[Path]:
    """The files of a kind (frame, mask) that annotations of a folder name; faults are told elsewhere."""
    done: set[str] = set()
    for file in sorted(folder.glob("*_annotations.csv")):
        try:
            table = read_texts(file, columns=[], optional=(f"co2_{kind}", f"ch4_{kind}", f"{kind}_path"))
        except DataError:
            continue
        for name in table.to_numpy().ravel("F"):
            if name not in done and (path := located(folder, clean_path(name))).is_file():
                yield path
            done.add(name)


def _is_deep(path: Path) -> bool:
    """Whether a pixel has more than 8 bits of grey, from the header; what can't be read says why when it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # reading it refuses what is too large
            with Image.open(path) as picture:
                return picture.mode.startswith("I")
    except Exception:  # whatever a damaged file makes Pillow raise: reading it as a picture names it
        return False


def _grey(path: Path, report: Report | None) -> Grey:
    picture = read_picture(path, report=report)
    colours = np.asarray(picture)
    if (colours != colours[..., :1]).any():
        spread = colours.max(axis=2).astype(int) - colours.min(axis=2)
        if np.mean(spread > COLOUR) > 0.01:
            hint = "export grey levels from the camera, not a palette of false colours"
            raise fault(path, expected="a grey frame", actual="colours", hint=hint)
    return np.asarray(picture.convert("L"))
