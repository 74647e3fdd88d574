"""Frames as grey levels, by one rule for a whole folder.

Frames of 8 bits are taken as they are. Deeper ones (radiometric, 14 or 16 bits) are stretched: the darkest pixel of the
folder is 0, the brightest 255; a pixel at either end of its range is dead and does not count. A folder holds one kind
only, and no false colours. A frame that its camera turned (EXIF) is turned upright.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smellkit.checks import Report, fault, read_picture, read_texts
from smellkit.errors import DataError
from smellkit.plume import annotations as tables

Grey = NDArray[np.uint8]
FEATURES = ("mean grey", "contrast", "dark end", "bright end")  # of a frame, for the ranges in a manifest
COLOUR = 24  # levels between two channels of a pixel that is coloured


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
        """The rule of a folder with annotations; deep frames are all looked through for their ends."""
        folder = tables.find(folder)
        rule = cls(folder)
        first = next(listed(folder, "frame"), None)
        if first is not None and _is_deep(first):
            rule.scale = low, high = rule._ends()
            over = f"over the folder's range ({low:g} to {high:g} is 0 to 255)"
            (report or Report()).tell(folder, f"frames of 16 bits stretched {over}")
        return rule

    def read_frame(self, path: Path, *, report: Report | None = None) -> Grey:
        """Return a picture as grey (rows, columns) of 8 bits, upright."""
        pixels = self._read(path, deep=self.scale is not None, report=report)
        if self.scale is None:
            return pixels
        low, high = self.scale
        return np.round((np.clip(pixels, low, high) - low) * (255 / max(1.0, high - low))).astype(np.uint8)

    def _ends(self) -> tuple[float, float]:
        """The darkest and the brightest pixel of the folder's deep frames, dead ones left out."""
        low, high = np.inf, -np.inf
        for path in listed(self.folder, "frame"):
            values = self._read(path, deep=True)
            alive = values[(values > 0) & (values < 65535)]
            low, high = min(low, alive.min(initial=np.inf)), max(high, alive.max(initial=-np.inf))
        return (float(low), float(high)) if low < high else (0.0, 65535.0)

    def _read(self, path: Path, *, deep: bool, report: Report | None = None) -> NDArray:
        """The pixels of a frame of 8 bits, or of a deep one; refused where it is of the other kind."""
        if _is_deep(path) != deep:
            wanted, found = ("16 bits", "8 bits") if deep else ("8 bits", "16 bits")
            hint = f"save all frames of {self.folder} with the same depth"
            raise fault(path, expected=f"a frame of {wanted}, as the others", found=found, hint=hint)
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
            if name not in done and (path := tables.located(folder, tables.clean_path(name))).is_file():
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
            raise fault(path, expected="a grey frame", found="colours", hint=hint)
    return np.asarray(picture.convert("L"))
