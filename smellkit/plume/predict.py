"""Find the plumes in recorded frames and say how the rumen is: a mask for each frame, a row for each pair."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from smellkit import paths
from smellkit.checks import Report, fault, read_texts
from smellkit.errors import DataError, OptionError
from smellkit.plume import annotations as tables
from smellkit.plume import samples, shipping
from smellkit.plume.annotations import SPLITS
from smellkit.plume.network import GASES
from smellkit.plume.shipping import Frame, Seen

COLUMNS = ("co2_frame", "ch4_frame", "class", "p0", "p1", "p2", "co2_mask", "ch4_mask")
TOGETHER = 16  # pairs that the model sees at a time


class Pair(NamedTuple):
    """Two frames to look at, as the annotations call them; "" is a missing one."""

    co2: str
    ch4: str


def plume(folder: Path, *, weights: Path, out: Path, split: str = "", steady: bool = False) -> str:
    """Write predictions.csv and masks/ into the folder `out`, for every pair of DIR's paired annotations.

    The paths of the masks (8-bit PNG: 0 background, 1 tube, 2 gas) are those of the frames, below `out`/masks. `split`
    is train, valid or test; all that are there without. `steady` averages over three views of each frame.
    """
    folder, out = Path(folder), Path(out)
    found = pairs(folder, split=split)
    watcher = shipping.unpack(weights)
    count = [0, 0, 0]
    with paths.replacing(out / "predictions.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for start in range(0, len(found), TOGETHER):
            cut = found[start : start + TOGETHER]
            frames = [(_frame(folder, pair.co2), _frame(folder, pair.ch4)) for pair in cut]
            for pair, seen in zip(cut, watcher.look(frames, steady=steady), strict=True):
                masks = list(_kept(out, pair, seen))
                chances = [f"{chance:.4f}" for chance in seen.chance]
                writer.writerow([*pair, seen.health, *chances, *masks])
                count[seen.health] += 1
    named = ", ".join(f"{number} {name}" for number, name in zip(count, tables.CLASSES, strict=True))
    return f"{out / 'predictions.csv'}: {len(found)} pairs ({named}), masks in {out / 'masks'}"


def pairs(folder: Path, *, split: str = "") -> list[Pair]:
    """The pairs in paired_*_annotations.csv of `folder`; no mask and no class need be known.

    A row whose missing_modality names a gas has no frame of it, whatever stands there.
    """
    if split and split not in SPLITS:
        raise OptionError(f"There is no split {split!r}", hint=f"one of {', '.join(SPLITS)}")
    files = [tables.annotation_file(folder, name, paired=True) for name in ([split] if split else SPLITS)]
    there = [file for file in files if file.is_file()]
    if not there:
        names = " or ".join(file.name for file in files)
        raise DataError(f"There is no {names} in {folder}", hint="smellkit data pair DIR writes it from annotations")
    return [pair for file in there for pair in _read(folder, file)]


def _read(folder: Path, file: Path) -> Iterator[Pair]:
    frames = [f"{gas}_frame" for gas in GASES]
    header = file.read_text(encoding="utf-8-sig", errors="replace").partition("\n")[0]
    told = ["missing_modality"] if "missing_modality" in header else []
    table = read_texts(file, columns=[*frames, *told], report=Report())
    for line, row in table.iterrows():
        gone = row["missing_modality"].lower() if told else ""
        if gone not in (*tables.NONE, *GASES):
            raise _wrong(file, line, "missing_modality", "co2, ch4 or nothing", gone)
        names = ["" if gas == gone else _path(folder, file, line, f"{gas}_frame", row) for gas in GASES]
        if not any(names):
            raise _wrong(file, line, "co2_frame", "a frame of one gas at least", "none")
        yield Pair(*names)


def _path(folder: Path, file: Path, line: object, column: str, row) -> str:
    if row[column].lower() in tables.NONE:
        return ""
    try:
        name = tables.clean_path(row[column])
    except ValueError as why:
        raise _wrong(file, line, column, "a path below the folder", str(why)) from why
    if not tables.located(folder, name).is_file():
        raise _wrong(file, line, column, "a picture", f"no file {tables.located(folder, name)}")
    return name


def _wrong(file: Path, line: object, column: str, expected: str, found: str) -> DataError:
    return fault(file, line=int(str(line)), column=column, expected=expected, found=found, hint="correct the cell")


def _frame(folder: Path, name: str) -> Frame | None:
    return samples.read_frame(tables.located(folder, name)) if name else None


def _kept(out: Path, pair: Pair, seen: Seen) -> Iterator[str]:
    """Write the masks and give their paths below `out`; "" where there is no frame."""
    from PIL import Image

    for name, mask in zip(pair, seen.masks, strict=True):
        if mask is None:
            yield ""
            continue
        path = (Path("masks") / name).with_suffix(".png")
        with paths.replacing(out / path) as part:
            Image.fromarray(mask).save(part)
        yield path.as_posix()
