"""Find the plumes in recorded frames and say how the rumen is: a mask for each frame, a row for each pair."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from smellkit.checks import Report, fault, read_texts
from smellkit.errors import DataError, OptionError
from smellkit.plume import annotations as tables
from smellkit.plume import data as samples
from smellkit.plume import shipping
from smellkit.plume.annotations import SPLITS
from smellkit.plume.fume import GASES
from smellkit.plume.shipping import Frame, Seen

COLUMNS = ("co2_frame", "ch4_frame", "class", "p0", "p1", "p2", "co2_mask", "ch4_mask")
TABLE, MASKS = "predictions.csv", "masks"  # what is written
TOGETHER = 16  # pairs that the model sees at a time


class Pair(NamedTuple):
    """Two frames to look at, as the annotations call them; "" is a missing one."""

    co2: str
    ch4: str


def plume(folder: Path, *, weights: Path, out: Path, split: str = "", steady: bool = False) -> str:
    """Write predictions.csv and masks/ into the folder `out`, for every pair of DIR's paired annotations.

    The paths of the masks (8-bit PNG: 0 background, 1 tube, 2 gas) are those of the frames, below `out`/masks; see
    `mask_names`. All is written or nothing, in place of an earlier prediction; what else is in `out` stays. `split` is
    train, valid or test; all that are there without. `steady` averages over three views of each frame.
    """
    folder, out = Path(folder), Path(out)
    found = pairs(folder, split=split)
    _refuse_loss(out, folder=folder, frames=[name for pair in found for name in pair if name])
    watcher = shipping.unpack(weights)
    named = mask_names(found)
    count = [0, 0, 0]
    with _all_or_nothing(out) as part, (part / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for start in range(0, len(found), TOGETHER):
            cut = slice(start, start + TOGETHER)
            frames = [(_frame(folder, pair.co2), _frame(folder, pair.ch4)) for pair in found[cut]]
            looked = watcher.look(frames, steady=steady)
            for pair, names, seen in zip(found[cut], named[cut], looked, strict=True):
                _keep(part, names, seen)
                chances = [f"{chance:.4f}" for chance in seen.chance]
                writer.writerow([*pair, seen.health, *chances, *names])
                count[seen.health] += 1
    told = ", ".join(f"{number} {name}" for number, name in zip(count, tables.CLASSES, strict=True))
    return f"{out / TABLE}: {len(found)} pairs ({told}), masks in {out / MASKS}"


def mask_names(found: Sequence[Pair]) -> list[Pair]:
    """Where the masks of each pair go, "" for a missing frame: `f/a.bmp` has its mask in masks/f/a.png.

    Where several masks would have that name (`f/a.png` is another frame, or `f/a.bmp` is in several pairs), the pair's
    row in the table and the gas are added to each of them: masks/f/a_3_co2.png.
    """
    usual = [[_below_masks(name) for name in pair] for pair in found]
    taken = Counter(name.casefold() for pair in usual for name in pair)  # a disk may not tell A from a
    named = []
    for row, pair in enumerate(usual, start=1):
        for place, gas in enumerate(GASES):
            if pair[place] and taken[pair[place].casefold()] > 1:
                pair[place] = _unlike(taken, f"{pair[place].removesuffix('.png')}_{row}_{gas}")
        named.append(Pair(*pair))
    return named


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


def _below_masks(frame: str) -> str:
    return (Path(MASKS) / frame).with_suffix(".png").as_posix() if frame else ""


def _unlike(taken: Counter[str], stem: str) -> str:
    """`stem`.png, longer where that is `taken`, which it is from now on."""
    while f"{stem}.png".casefold() in taken:
        stem += "_"
    taken[f"{stem}.png".casefold()] = 1
    return f"{stem}.png"


def _keep(folder: Path, names: Pair, seen: Seen) -> None:
    from PIL import Image

    for name, mask in zip(names, seen.masks, strict=True):
        if mask is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / name)


def _refuse_loss(out: Path, *, folder: Path, frames: Sequence[str]) -> None:
    """Refuse an `out` that is not a folder, where the frames come from, or whose masks no prediction has written."""
    file = next((place for place in (out, *out.parents) if place.exists() and not place.is_dir()), None)
    if file:
        raise OptionError(f"--out {out}: {file} is a file", hint="name a folder")
    read = {tables.located(folder, name).resolve() for name in frames}
    if folder.resolve() == out.resolve() or any(path.is_relative_to((out / MASKS).resolve()) for path in read):
        raise OptionError(f"--out {out} would overwrite what is in {folder}", hint="name another folder")
    earlier = _earlier(out / TABLE)
    for path in [*out.glob(MASKS), *(out / MASKS).rglob("*")]:
        plain_folder = path.is_dir() and not path.is_symlink()
        if not plain_folder and path.relative_to(out).as_posix() not in earlier:
            raise OptionError(f"{path} is not a mask of an earlier prediction", hint="name another folder for --out")


def _earlier(table: Path) -> set[str]:
    """The masks that an earlier prediction says it has written."""
    if not table.exists():
        return set()
    try:
        with table.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != COLUMNS:
            raise ValueError(f"other columns: {header}")
        return {name for row in rows for name in row[-len(GASES) :]}
    except (OSError, ValueError, csv.Error) as why:
        raise OptionError(f"{table} is not an earlier prediction: {why}", hint="name another folder for --out") from why


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Yield an empty folder; its table and its masks take their places in `out` only when the block succeeds."""
    beside = out if out.is_dir() else out.parent  # a folder that is there may be all that can be written to
    beside.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".predictions.", dir=beside))
    try:
        (part / MASKS).mkdir()
        yield part
        out.mkdir(exist_ok=True)
        _take_place(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take_place(part: Path, out: Path) -> None:
    """Move the table and the masks of `part` to `out`; where a file there is held fast, all stays as it was."""
    masks, old = out / MASKS, part / "earlier"
    was = masks.exists()
    if was:
        masks.rename(old)
    try:
        (part / TABLE).replace(out / TABLE)
    except OSError:
        if was:
            old.rename(masks)
        raise
    (part / MASKS).rename(masks)
