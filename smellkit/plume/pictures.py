"""Frames and masks as grey levels and classes, by one rule for a whole folder.

Frames of 8 bits are taken as they are. Deeper ones (radiometric, 14 or 16 bits) are stretched: the darkest pixel of the
folder is 0, the brightest 255; a pixel at either end of its range is dead and does not count. A folder holds one kind
only, and no false colours. A frame that its camera turned (EXIF) is turned upright, and so is its mask.

Masks hold 0 1 2, or 0 127 255, or 0 128 255 (background, tube, gas), or black and white; all masks of a folder hold the
same. What 0 and 1 mean is asked: `mask_values.json` in the folder says it, {"0": "background", "1": "gas"}.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from smellkit.checks import Report, fault, read_json, read_picture, read_texts
from smellkit.errors import DataError
from smellkit.plume import annotations as tables

Grey = NDArray[np.uint8]
CODES = ((0, 1, 2), (0, 127, 255), (0, 128, 255))  # background, tube, gas in the file of a mask
NAMES = ("background", "tube", "gas")
VALUES = "mask_values.json"
ASK = "`smellkit data check DIR --mask-values 0=background,1=gas` (or 1=tube) writes what they mean into " + VALUES
TURN = 0x0112  # the tag of EXIF
QUARTERS = (5, 6, 7, 8)  # turns that exchange width and height
FEATURES = ("mean grey", "contrast", "dark end", "bright end")  # of a frame, for the ranges in a manifest
COLOUR = 24  # levels between two channels of a pixel that is coloured


def features(frame: Grey) -> NDArray[np.float64]:
    """`FEATURES` of a frame of 8 bits, (1, 4)."""
    return np.array([[frame.mean(), frame.std(), *np.quantile(frame, [0.05, 0.95])]])


@dataclass
class Rule:
    """How the pictures of a folder are read. `levels` collects what masks held: `classes` decides what it means."""

    folder: Path
    scale: tuple[float, float] | None = None  # darkest and brightest pixel of frames deeper than 8 bits
    values: dict[int, int] = field(default_factory=dict)  # of masks, as the folder itself says
    levels: dict[int, Path] = field(default_factory=dict)  # value -> the first mask that holds it

    @classmethod
    def of(cls, folder: str | Path, *, report: Report | None = None) -> Rule:
        """The rule of a folder with annotations; deep frames are all looked through for their ends."""
        folder = tables.find(folder)
        rule, path = cls(folder), folder / VALUES
        for key, name in read_json(path).items() if path.is_file() else ():
            if name not in NAMES or not key.isdecimal():
                raise fault(path, key=key, expected=", ".join(NAMES), found=repr(name)[:40], hint=ASK)
            rule.values[int(key)] = NAMES.index(name)
        first = next(_listed(folder, "frame"), None)
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

    def read_both(
        self, frame: Path, mask: Path, *, size: tuple[int, int], report: Report | None = None
    ) -> tuple[Grey, Grey]:
        """Return a frame and the values of its mask at `size` (rows, columns); see `classes`."""
        picture = self.read_frame(frame, report=report)
        values = self.read_values(mask, frame=(frame, picture), report=report)
        if picture.shape == size:
            return picture, values
        one, two = (Image.fromarray(pixels) for pixels in (picture, values))
        smooth, nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
        return np.asarray(one.resize(size[::-1], smooth)), np.asarray(two.resize(size[::-1], nearest))

    def read_values(self, path: Path, *, frame: tuple[Path, Grey] | None = None, report: Report | None = None) -> Grey:
        """Return the values in the file of a mask (rows, columns), and remember them.

        It is turned as its `frame` (file and pixels) is. DataError where the two differ in size.
        """
        values = _mask(path, report)
        if frame is not None:
            values = _as_its_frame(values, path, frame[0])
            one, other = (f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (frame[1], values))
            if one != other:
                hint = "save the mask with the pixels of its frame, or pair it with the right frame"
                raise fault(path, expected=f"{one} pixels, as {frame[0]} has", found=other, hint=hint)
        levels = self._with(path, values)
        self._meaning(levels)  # a mask that is refused leaves nothing behind
        self.levels = levels
        return values

    def classes(self, values: Grey) -> Grey:
        """Turn what masks held into 0 background, 1 tube, 2 gas. DataError where that has to be asked."""
        if not self.values and set(self.levels) == {0, 1}:
            for path in _listed(self.folder, "mask"):
                self.levels = self._with(path, _mask(path))
                if len(self.levels) > 2:
                    break
            else:
                known, found = "values whose meaning is known", "0 and 1 in all masks"
                raise fault(self.levels[1], expected=known, found=found, hint=ASK)
        table = np.zeros(256, np.uint8)
        for code, number in self._meaning(self.levels).items():
            table[code] = number
        return table[values]

    def _with(self, path: Path, values: Grey) -> dict[int, Path]:
        """`levels`, and those in another mask."""
        return {**dict.fromkeys([*self.levels, *np.unique(values).tolist()], path), **self.levels}

    def _meaning(self, levels: dict[int, Path]) -> dict[int, int]:
        """What each value means, as the folder says or by the first of CODES that has all `levels`."""
        codes = [self.values] if self.values else [dict(zip(code, range(3), strict=True)) for code in CODES]
        for code in codes:
            if levels.keys() <= code.keys():
                return code
        best = max(codes, key=lambda code: len(code.keys() & levels.keys()))
        level = next(level for level in levels if level not in best)
        if self.values:
            known, found, hint = f"{', '.join(map(str, best))}, as {VALUES} says", str(level), ASK
        else:
            known, hint = "the values 0, 1, 2 or 0, 127, 255, as all masks", "save 0 background, 1 tube, 2 gas, "
            found = ", ".join(map(str, sorted(levels)[:8])) + (", ..." if len(levels) > 8 else "")
            hint += f"without smoothing, as png; or say it: {ASK}"
        raise fault(levels[level], expected=known, found=found, hint=hint)

    def _ends(self) -> tuple[float, float]:
        """The darkest and the brightest pixel of the folder's deep frames, dead ones left out."""
        low, high = np.inf, -np.inf
        for path in _listed(self.folder, "frame"):
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


def _listed(folder: Path, kind: str) -> Iterator[Path]:
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


def _mask(path: Path, report: Report | None = None) -> Grey:
    """The values in the file of a mask, turned as it says itself; the indices of a palette, not its colours."""
    picture = read_picture(path, rgb=False, report=report)
    values = np.asarray(picture) * np.uint8(255 if picture.mode == "1" else 1)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise fault(path, expected="a grey mask", found="colours", hint="save the class numbers 0, 1, 2 as grey")
        values = colours[..., 0]
    if values.dtype.kind == "f" or values.max(initial=0) > 255:
        hint = "save 0 background, 1 tube, 2 gas, as png"
        raise fault(path, expected="whole values up to 255", found=str(values.max()), hint=hint)
    return values.astype(np.uint8)


def _turn(path: Path) -> int:
    with Image.open(path) as picture:
        if picture.format == "PNG" and "exif" not in picture.info:
            return 1  # asking a PNG for its EXIF would unpack it
        return int(picture.getexif().get(TURN, 1))


def _as_its_frame(values: Grey, path: Path, frame: Path) -> Grey:
    """A mask that says no turn itself, turned as its frame, if it has the pixels of the frame's file."""
    turn = 1 if _turn(path) != 1 else _turn(frame)
    if turn == 1:
        return values
    with Image.open(frame) as picture:
        stored = picture.size[::-1]
    if turn not in QUARTERS or stored[0] == stored[1]:
        hint = "save frame and mask upright, without EXIF"
        raise fault(path, expected="the turn of its frame (EXIF)", found="none", hint=hint)
    if values.shape != stored:
        return values  # drawn on the upright frame
    turned = Image.fromarray(values)
    turned.getexif()[TURN] = turn
    return np.asarray(ImageOps.exif_transpose(turned))
