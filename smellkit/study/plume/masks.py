"""Masks as classes, by one rule for a whole folder.

Masks hold 0 1 2, or 0 127 255, or 0 128 255 (background, tube, gas), or black and white; all masks of a folder hold the
same. What 0 and 1 mean is asked: `mask_values.json` in the folder says it, {"0": "background", "1": "gas"}. A mask is
turned as its frame is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from smellkit.checks import Report, fault, read_json, read_picture
from smellkit.plume import annotations as tables
from smellkit.plume.annotations import Grey, listed

CODES = ((0, 1, 2), (0, 127, 255), (0, 128, 255))  # background, tube, gas in the file of a mask
NAMES = ("background", "tube", "gas")
VALUES = "mask_values.json"
ASK = "`smellkit data check DIR --mask-values 0=background,1=gas` (or 1=tube) writes what they mean into " + VALUES
TURN = 0x0112  # the tag of EXIF
QUARTERS = (5, 6, 7, 8)  # turns that exchange width and height


@dataclass
class MaskRule:
    """How the masks of a folder are read. `levels` collects what they held: `classes` decides what it means."""

    folder: Path
    values: dict[int, int] = field(default_factory=dict)  # what they mean, as the folder itself says
    levels: dict[int, Path] = field(default_factory=dict)  # value -> the first mask that holds it

    @classmethod
    def of(cls, folder: str | Path) -> MaskRule:
        """The rule of a folder with annotations."""
        rule = cls(tables.find(folder))
        path = rule.folder / VALUES
        for key, name in read_json(path).items() if path.is_file() else ():
            if name not in NAMES or not key.isdecimal() or int(key) > 255:
                raise fault(path, key=key, expected=", ".join(NAMES), actual=repr(name)[:40], hint=ASK)
            rule.values[int(key)] = NAMES.index(name)
        return rule

    def read(self, path: Path, *, frame: tuple[Path, Grey] | None = None, report: Report | None = None) -> Grey:
        """Return the values in the file of a mask (rows, columns), and remember them.

        It is turned as its `frame` (file and pixels) is. DataError where the two differ in size.
        """
        values = _values(path, report)
        if frame is not None:
            values = _as_its_frame(values, path, *frame)
            one, other = (f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (frame[1], values))
            if one != other:
                hint = "save the mask with the pixels of its frame, or pair it with the right frame"
                raise fault(path, expected=f"{one} pixels, as {frame[0]} has", actual=other, hint=hint)
        levels = self._with(path, values)
        self._meaning(levels)  # a mask that is refused leaves nothing behind
        self.levels = levels
        return values

    def classes(self, values: Grey) -> Grey:
        """Turn what masks held into 0 background, 1 tube, 2 gas. DataError where that has to be asked."""
        if not self.values and max(self.levels, default=0) == 1:
            for path in listed(self.folder, "mask"):
                self.levels = self._with(path, _values(path))
                if max(self.levels) > 1:
                    break
            else:
                known, actual = "values whose meaning is known", "0 and 1 alone in all masks"
                raise fault(self.levels[1], expected=known, actual=actual, hint=ASK)
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
            known, actual, hint = f"{', '.join(map(str, best))}, as {VALUES} says", str(level), ASK
        else:
            known = "the values 0, 1, 2 or 0, 127, 255, as all masks"
            actual = ", ".join(map(str, sorted(levels)[:8])) + (", ..." if len(levels) > 8 else "")
            hint = f"save 0 background, 1 tube, 2 gas, without smoothing, as png; or say it: {ASK}"
        raise fault(levels[level], expected=known, actual=actual, hint=hint)


def _values(path: Path, report: Report | None = None) -> Grey:
    """The values in the file of a mask, turned as it says itself; the indices of a palette, not its colours."""
    picture = read_picture(path, rgb=False, report=report)
    values = np.asarray(picture) * np.uint8(255 if picture.mode == "1" else 1)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise fault(path, expected="a grey mask", actual="colours", hint="save the class numbers 0, 1, 2 as grey")
        values = colours[..., 0]
    if values.dtype.kind == "f" or values.max(initial=0) > 255:
        hint = "save 0 background, 1 tube, 2 gas, as png"
        raise fault(path, expected="whole values up to 255", actual=str(values.max()), hint=hint)
    return values.astype(np.uint8)


def _turn(path: Path) -> int:
    with Image.open(path) as picture:
        if picture.format == "PNG" and "exif" not in picture.info:
            return 1  # asking a PNG for its EXIF would unpack it
        return int(picture.getexif().get(TURN, 1))


def _as_its_frame(values: Grey, path: Path, file: Path, frame: Grey) -> Grey:
    """A mask that says no turn itself, turned as its frame, if it has the pixels of the frame's file."""
    turn = 1 if _turn(path) != 1 else _turn(file)
    if turn == 1:
        return values
    rows, columns = frame.shape
    if turn not in QUARTERS or rows == columns:
        hint = "save frame and mask upright, without EXIF"
        raise fault(path, expected="the turn of its frame (EXIF)", actual="none", hint=hint)
    if values.shape != (columns, rows):
        return values  # drawn on the upright frame
    turned = Image.fromarray(values)
    turned.getexif()[TURN] = turn
    return np.asarray(ImageOps.exif_transpose(turned))
