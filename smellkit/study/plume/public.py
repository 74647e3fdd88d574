"""Public frames of gas with masks but without a pH, as they are laid out on the hub, and two protocols for them.

    Gasformer        *.parquet: video_id, frame_index, image, mask, flow_rate_class, official_split        (CH4)
    controlled diet  data/{train,val,test}/{images,masks}/FLIR0757_frame_0169.png                          (CH4)
    GasGround        data/SPLIT-*.tar: FLIR1058_frame_0534.png, its masks FLIR1058_frame_0534.*.png and, where
                     there is one, its .json, whose `gas` or `camera` tells CO2 (G343) from CH4 (GF77, Gx320)

None of them ships with the kit. The official splits of the first two deal out frames of one video to all sides; the
protocol `videos` keeps a video on one side. A mask is gas wherever it is not 0, and there is no tube.
"""

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import Dataset

from smellkit.checks import fault
from smellkit.errors import DataError
from smellkit.options import check
from smellkit.plume import CLASSES, GAS, GASES
from smellkit.plume.annotations import Grey
from smellkit.study.plume.data import Pairs, four_to_three, resized
from smellkit.study.plume.splits import grouped
from smellkit.study.plume.task import PH, PlumeTask

PROTOCOLS = ("official", "videos")
SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}  # of the videos
NAMES = {"train": "train", "validation": "valid", "valid": "valid", "val": "valid", "test": "test"}
KEY = re.compile(r"(?P<video>.+?)_frame_(?P<number>\d+)$")
HINT = "fetch the file again, or leave it out"
CO2 = re.compile(r"co2|carbon|g343", re.IGNORECASE)
Stored = tuple[Path, str, str, str, bytes, Sequence[bytes]]  # file, key, gas, official split, picture, its masks


def read(folder: str | Path, *, size: tuple[int, int]) -> tuple[pd.DataFrame, torch.Tensor, torch.Tensor]:
    """Return the table (`video`, `number`, `gas`, `split`), frames and masks (n, 2, rows, columns) of a public set.

    Rows are in order of video and number; all are held in memory, 77 KB each at 120 rows. Raises DataError where the
    folder has none of the layouts, or a frame has no mask of its size.
    """
    folder = Path(folder)
    layouts: dict[str, Callable[[Path], Iterator[Stored]]] = {
        "**/*.parquet": _gasformer,
        "data/*/images/*": _controlled_diet,
        "**/*.tar": _gasground,
    }
    reader = next((read for pattern, read in layouts.items() if next(folder.glob(pattern), None)), None)
    if reader is None:
        hint = "a copy of toqi/Gasformer, baselab/controlled-diet-methane-dataset or toqi/GasGround"
        raise DataError(f"No public frames in {folder}", hint=hint)
    rows, pixels = [], []
    for path, key, gas, split, picture, stored in reader(folder):
        rows.append((*_named(key, path), gas, _split(split, path)))
        grey, masks = _grey(picture, path), [_grey(mask, path) for mask in stored]
        if any(mask.shape != grey.shape for mask in masks):
            raise fault(path, key=key, expected="a mask of the frame's size", actual="another", hint=HINT)
        shown, place = np.zeros((2, len(GASES), *size), np.uint8), GASES.index(gas)
        shown[0, place] = resized(grey, size, Image.Resampling.BILINEAR)
        mask = GAS * (np.max(masks, axis=0) > 0).astype(np.uint8)
        shown[1, place] = resized(mask, size, Image.Resampling.NEAREST)
        pixels.append(shown)
    table = pd.DataFrame(rows, columns=["video", "number", "gas", "split"])
    order = table.sort_values(["video", "number"], kind="stable").index
    both = torch.as_tensor(np.stack(pixels)[order])
    return table.loc[order].reset_index(drop=True), both[:, 0], both[:, 1]


def deal(table: pd.DataFrame, protocol: str, *, seed: int = 7) -> dict[str, pd.Index]:
    """Rows of train, valid and test: as published (`official`), or whole videos by lot (`videos`)."""
    check([protocol], PROTOCOLS, "There is no protocol")
    if protocol == "official":
        parts = {split: table.index[table["split"] == split] for split in SHARES}
    else:
        known = table.assign(original_sample_id=table["video"], class_id=table["gas"])
        parts = {split: rows.index for split, rows in grouped(known, shares=SHARES, seed=seed).items()}
    if empty := [split for split, rows in parts.items() if not len(rows)]:
        count = table["video"].nunique()
        raise DataError(f"No frames for {empty[0]} by {protocol!r} ({count} videos)", hint="more videos, or the other")
    return parts


@dataclass(frozen=True)
class PublicTask(PlumeTask):
    """Masks alone, on the public set in `data`, split by `protocol` (official, videos); `deal_seed` is the lot's."""

    name: ClassVar[str] = "plume-public"
    protocol: str = "videos"
    deal_seed: int = 7
    health: float = 0.0
    balance: bool = False

    def load(self) -> dict[str, Dataset]:
        """Frames to train on, augmented, and to validate and test on as they are."""
        table, frames, masks = read(self.data, size=four_to_three(self.height))
        missing = table["gas"].map(dict(zip(GASES, GASES[::-1], strict=True)))
        table = table.assign(missing_modality=missing, class_id=1, class_name=CLASSES[1], ph_value=PH)  # not learned
        table = table.rename(columns={"number": "frame_number"})
        splits: dict[str, Dataset] = {}
        for split, rows in deal(table, self.protocol, seed=self.deal_seed).items():
            own = table.loc[rows].reset_index(drop=True), frames[rows], masks[rows]
            change, videos = (self.change, self.videos) if split == "train" else (None, float(self.videos > 0))
            splits[split] = Pairs(*own, change=change, videos=videos)
        return splits


def _gasformer(folder: Path) -> Iterator[Stored]:
    columns = ["video_id", "frame_index", "image", "mask", "official_split"]
    for path in sorted(folder.rglob("*.parquet")):
        for row in pd.read_parquet(path, columns=columns).itertuples(index=False):
            key, mask = f"{row.video_id}_frame_{row.frame_index}", row.mask["bytes"]
            yield path, key, "ch4", row.official_split, row.image["bytes"], [mask]


def _controlled_diet(folder: Path) -> Iterator[Stored]:
    for path in sorted(folder.glob("data/*/images/*")):
        mask = path.parent.with_name("masks") / f"{path.stem}.png"
        if not mask.is_file():
            raise fault(path, expected=f"its mask {mask.name}", actual="none", hint=HINT)
        yield path, path.stem, "ch4", path.parts[-3], path.read_bytes(), [mask.read_bytes()]


def _gasground(folder: Path) -> Iterator[Stored]:
    for path in sorted(folder.rglob("*.tar")):
        parts: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and (file := archive.extractfile(member)):
                    key, _, kind = Path(member.name).name.partition(".")
                    parts.setdefault(key, {})[kind.lower()] = file.read()
        for key, members in parts.items():
            masks = [data for kind, data in members.items() if kind.endswith(".png")]
            if "png" not in members or not masks:
                raise fault(path, key=key, expected="KEY.png and KEY.*.png", actual=str([*members]), hint=HINT)
            about = json.loads(members.get("json", b"{}"))
            described = " ".join(str(about.get(name, "")) for name in ("gas", "camera"))
            yield path, key, "co2" if CO2.search(described) else "ch4", path.stem, members["png"], masks


def _named(key: str, where: Path) -> tuple[str, int]:
    if not (match := KEY.match(key)):
        raise fault(where, expected="names such as FLIR0757_frame_0169", actual=repr(key)[:40], hint=HINT)
    return match["video"], int(match["number"])


def _split(text: str, where: Path) -> str:
    """The kit's name of an official split; a frame that is in several is in the first of them."""
    name = re.split(r"[^a-z]+", text.lower().strip())[0]
    if name not in NAMES:
        raise fault(where, expected=", ".join(NAMES), actual=repr(text)[:40], hint=HINT)
    return NAMES[name]


def _grey(data: bytes, where: Path) -> Grey:
    """A picture as grey levels; DataError names the file that holds a broken one."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("L"))
    except OSError as why:
        raise fault(where, expected="pictures", actual=str(why)[:80], hint=HINT) from why
