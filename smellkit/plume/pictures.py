"""Frames and masks as grey levels and classes, by one rule for a whole folder.

Frames of 8 bits are taken as they are. Deeper ones (radiometric, 14 or 16 bits) are stretched: the darkest pixel of the
folder is 0, the brightest 255; a pixel at either end of its range is dead and does not count. A folder holds one kind
only, and no false colours. A frame that its camera turned (EXIF) is turned upright, and so is its mask.

Masks hold 0 1 2, or 0 127 255, or 0 128 255 (background, tube, gas), or black and white; all masks of a folder hold the
same. What 0 and 1 mean is asked: `mask_values.json` in the folder says it, {"0": "background", "1": "gas"}.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smellkit import paths
from smellkit.checks import Report, fault, read_json, read_picture, read_texts, readable
from smellkit.errors import DataError, OptionError
from smellkit.plume import annotations as tables

Grey = NDArray[np.uint8]
CODES = ((0, 1, 2), (0, 127, 255), (0, 128, 255))  # background, tube, gas in the file of a mask
NAMES = ("background", "tube", "gas")
VALUES = "mask_values.json"
TURN = 0x0112  # the tag of EXIF
FEATURES = ("mean grey", "contrast", "dark end", "bright end")  # of a frame, for the ranges in a manifest
COLOUR = 24  # levels between two channels of a pixel that is coloured
QUARTERS = (5, 6, 7, 8)  # turns that exchange width and height


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
        folder, report = tables.find(folder), report if report is not None else Report()
        rule = cls(folder, None, _asked(folder))
        first = next(_listed(folder, "frame"), None)
        if first is not None and _depth(first) > 8:
            rule.scale = _ends(_listed(folder, "frame"))
            low, high = rule.scale
            report.tell(
                folder, f"frames of 16 bits stretched over the folder's range ({low:g} to {high:g} is 0 to 255)"
            )
        return rule

    def read_frame(self, path: Path, *, report: Report | None = None) -> Grey:
        """Return a picture as grey (rows, columns) of 8 bits, upright."""
        depth = _depth(path)
        if (depth > 8) != (self.scale is not None):
            hint = f"save all frames of {self.folder} with the same depth"
            wanted = "16 bits" if self.scale else "8 bits"
            raise fault(path, expected=f"a frame of {wanted}, as the others", found=f"{depth} bits", hint=hint)
        if self.scale is None:
            return _grey(path, report)
        low, high = self.scale
        deep = np.clip(_deep(path), low, high)
        return np.round((deep - low) * (255 / max(1.0, high - low))).astype(np.uint8)

    def read_both(
        self, frame: Path, mask: Path, *, size: tuple[int, int], report: Report | None = None
    ) -> tuple[Grey, Grey]:
        """Return a frame and the values of its mask at `size` (rows, columns), turned alike; see `classes`.

        Raises `DataError` where their files differ in size.
        """
        picture, values = self.read_frame(frame, report=report), self.read_values(mask, frame=frame, report=report)
        if why := unlike((frame, picture), (mask, values)):
            raise why
        return _resized(picture, size, Image.Resampling.BILINEAR), _resized(values, size, Image.Resampling.NEAREST)

    def read_values(self, path: Path, *, frame: Path | None = None, report: Report | None = None) -> Grey:
        """Return the values in the file of a mask (rows, columns), turned as its `frame` is, and remember them."""
        read_picture(path, report=report)  # refuses what is damaged or too large
        values = _turned(path, _mask(path), frame)
        for level in np.unique(values).tolist():
            self.levels.setdefault(level, path)
        self._codes(asked=False)
        return values

    def classes(self, values: Grey) -> Grey:
        """Turn what masks held into 0 background, 1 tube, 2 gas. DataError where that has to be asked."""
        codes = self._codes(asked=True)
        table = np.zeros(256, np.uint8)
        for code, number in codes.items():
            table[code] = number
        return table[values]

    def _codes(self, *, asked: bool) -> dict[int, int]:
        """What each value means, from all that was seen; where 0 and 1 are all, other masks of the folder are read."""
        if self.values:
            return _known(self.values, self.levels)
        if asked and set(self.levels) == {0, 1}:
            for path in _listed(self.folder, "mask"):
                for level in np.unique(_mask(path)).tolist():
                    self.levels.setdefault(level, path)
                if len(self.levels) > 2:
                    break
        if asked and set(self.levels) == {0, 1}:
            raise fault(
                self.levels[1], expected="values whose meaning is known", found="0 and 1 in all masks", hint=ASK
            )
        fitting = next((codes for codes in CODES if set(self.levels) <= {*codes}), None)
        if fitting is None:
            best = max(CODES, key=lambda codes: len({*codes} & {*self.levels}))
            level = next(level for level in self.levels if level not in best)
            listed = ", ".join(map(str, sorted(self.levels)[:8])) + (", ..." if len(self.levels) > 8 else "")
            hint = f"save 0 background, 1 tube, 2 gas, without smoothing, as png; or say it: {ASK}"
            raise fault(
                self.levels[level], expected="the values 0, 1, 2 or 0, 127, 255, as all masks", found=listed, hint=hint
            )
        return {code: number for number, code in enumerate(fitting)}

    def survey(self, couples: Sequence[tuple[str, str]], report: Report) -> list[str]:
        """Read every frame and mask; faults go to the report. Return which grey levels and classes there are."""
        levels: Counter[int] = Counter()
        values: Counter[int] = Counter()
        for names in couples:
            frame, mask = (tables.located(self.folder, name) for name in names)
            read = [*readable([frame], lambda path: self.read_frame(path, report=report), skip=True, report=report)]
            of = frame if read else None
            read += readable([mask], partial(self._one, frame=of, report=report), skip=True, report=report)
            if len(read) == 2 and (why := unlike(*read)):
                report.skip(mask, why)
            for (_, pixels), counter in zip(read, (levels, values), strict=False) if len(read) == 2 else ():
                counter.update(
                    dict(zip(*(part.tolist() for part in np.unique(pixels, return_counts=True)), strict=True))
                )
        lines = []
        if levels:
            lines.append(f"frames: {len(levels)} grey levels, from {min(levels)} to {max(levels)}")
        if values:
            codes, total = self._codes(asked=True), sum(values.values())
            shares = Counter(dict.fromkeys(NAMES, 0))
            for value, count in values.items():
                shares[NAMES[codes[value]]] += count
            lines.append("masks: " + ", ".join(f"{100 * shares[name] / total:.1f} % {name}" for name in NAMES))
        return lines

    def _one(self, path: Path, frame: Path | None, report: Report) -> Grey:
        """A mask that is refused leaves nothing behind."""
        before = dict(self.levels)
        try:
            return self.read_values(path, frame=frame, report=report)
        except DataError:
            self.levels = before
            raise


ASK = (
    "`smellkit data check DIR --mask-values 0=background,1=gas` (or 1=tube) writes what they mean into mask_values.json"
)


def read_frame(path: Path, *, report: Report | None = None) -> Grey:
    """Return one picture of 8 bits as grey (rows, columns); deeper ones are read by the `Rule` of their folder."""
    return Rule(path.parent).read_frame(path, report=report)


def read_mask(path: Path, *, report: Report | None = None) -> Grey:
    """Return one mask (rows, columns) of 0 background, 1 tube, 2 gas; the values must speak for themselves."""
    rule = Rule(path.parent)
    values = rule.read_values(path, report=report)
    if set(rule.levels) == {0, 1}:
        raise fault(path, expected="values whose meaning is known", found="0 and 1", hint=ASK)
    return rule.classes(values)


def keep_values(folder: str | Path, text: str) -> Path:
    """Write what `0=background,1=gas` says into the folder, where every reader finds it."""
    values: dict[str, str] = {}
    for pair in text.split(","):
        value, _, name = (part.strip() for part in pair.partition("="))
        if not value.isdecimal() or int(value) > 255 or name not in NAMES or value in values:
            raise OptionError(f"{text!r} does not say what the values of masks mean", hint="0=background,1=tube,2=gas")
        values[value] = name
    return paths.write_json(tables.find(folder) / VALUES, values)


def unlike(frame: tuple[Path, NDArray], mask: tuple[Path, NDArray]) -> DataError | None:
    """The error where a frame and its mask (file and pixels of each) differ in size, or None."""
    one, other = (f"{pixels.shape[1]} x {pixels.shape[0]}" for _, pixels in (frame, mask))
    if one == other:
        return None
    hint = "save the mask with the pixels of its frame, or pair it with the right frame"
    return fault(mask[0], expected=f"{one} pixels, as {frame[0]} has", found=other, hint=hint)


def _listed(folder: Path, kind: str) -> Iterator[Path]:
    """The files of a kind (frame, mask) that annotations of a folder name; faults are told elsewhere."""
    columns, done = (f"co2_{kind}", f"ch4_{kind}", f"{kind}_path"), set()
    for file in sorted(folder.glob("*_annotations.csv")):
        try:
            table = read_texts(file, columns=[], optional=columns)
        except DataError:
            continue
        for name in (name for column in table for name in table[column]):
            if name.lower() in tables.NONE or name in done:
                continue
            done.add(name)
            try:
                path = tables.located(folder, tables.clean_path(name))
            except ValueError:
                continue
            if path.is_file():
                yield path


def _asked(folder: Path) -> dict[int, int]:
    path = folder / VALUES
    if not path.is_file():
        return {}
    values = read_json(path)
    if wrong := [key for key, name in values.items() if name not in NAMES or not key.isdecimal()]:
        raise fault(path, key=wrong[0], expected=", ".join(NAMES), found=repr(values[wrong[0]])[:40], hint=ASK)
    return {int(key): NAMES.index(name) for key, name in values.items()}


def _known(values: dict[int, int], levels: dict[int, Path]) -> dict[int, int]:
    if unknown := [level for level in levels if level not in values]:
        listed = ", ".join(map(str, values))
        raise fault(levels[unknown[0]], expected=f"{listed}, as {VALUES} says", found=str(unknown[0]), hint=ASK)
    return values


def _depth(path: Path) -> int:
    """Bits a pixel of grey, from the header; 8 for what can't be read, which says why when it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # reading it refuses what is too large
            with Image.open(path) as picture:
                return 16 if picture.mode.startswith("I") else 8
    except Exception:  # whatever a damaged file makes Pillow raise: reading it as a picture names it
        return 8


def _deep(path: Path) -> NDArray[np.float64]:
    picture = read_picture(path, rgb=False)
    if not picture.mode.startswith("I"):
        raise fault(path, expected="a frame of 16 bits, as the others", found="8 bits", hint="save all alike")
    return np.asarray(picture, np.float64)


def _ends(frames: Iterable[Path]) -> tuple[float, float]:
    """The darkest and the brightest pixel of deep frames, dead ones left out."""
    low, high = np.inf, -np.inf
    for path in frames:
        values = _deep(path)
        alive = values[(values > 0) & (values < 65535)]
        if len(alive):
            low, high = min(low, alive.min()), max(high, alive.max())
    return (float(low), float(high)) if low < high else (0.0, 65535.0)


def _grey(path: Path, report: Report | None) -> Grey:
    picture = read_picture(path, report=report)
    colours = np.asarray(picture)
    if (colours[..., 0] != colours[..., 1]).any() or (colours[..., 0] != colours[..., 2]).any():
        spread = colours.max(axis=2).astype(int) - colours.min(axis=2)
        if np.mean(spread > COLOUR) > 0.01:
            hint = "export grey levels from the camera, not a palette of false colours"
            raise fault(path, expected="a grey frame", found="colours", hint=hint)
    return np.asarray(picture.convert("L"))


def _mask(path: Path) -> Grey:
    """The values in the file of a mask as they lie there; the indices of a palette, not its colours."""
    with Image.open(path) as picture:
        values = np.asarray(picture) * np.uint8(255 if picture.mode == "1" else 1)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise fault(path, expected="a grey mask", found="colours", hint="save the class numbers 0, 1, 2 as grey")
        values = colours[..., 0]
    if values.max(initial=0) > 255:
        hint = "save 0 background, 1 tube, 2 gas, as png"
        raise fault(path, expected="values up to 255", found=str(values.max()), hint=hint)
    return values.astype(np.uint8)


def _turn(path: Path) -> int:
    with Image.open(path) as picture:
        if picture.format == "PNG" and "exif" not in picture.info:
            return 1  # asking a PNG for its EXIF would unpack it
        return int(picture.getexif().get(TURN, 1))


def _turned(path: Path, values: Grey, frame: Path | None) -> Grey:
    """A mask upright: by its own EXIF, or else as its frame was turned, if it has the pixels of the frame's file."""
    turn = _turn(path)
    if turn == 1 and frame is not None and (turn := _turn(frame)) != 1:
        with Image.open(frame) as picture:
            stored = picture.size[::-1]
        if turn in QUARTERS and values.shape == stored[::-1] and values.shape != stored:
            return values  # drawn on the upright frame
        if turn not in QUARTERS or stored[0] == stored[1]:
            hint = "save frame and mask upright, without EXIF"
            raise fault(path, expected="the turn of its frame (EXIF)", found="none", hint=hint)
    return _apply(values, turn)


def _apply(values: Grey, turn: int) -> Grey:
    from PIL import ImageOps

    if turn == 1:
        return values
    picture = Image.fromarray(values)
    picture.getexif()[TURN] = turn
    return np.asarray(ImageOps.exif_transpose(picture))


def _resized(pixels: Grey, size: tuple[int, int], how: Image.Resampling) -> Grey:
    return pixels if pixels.shape == size else np.asarray(Image.fromarray(pixels).resize(size[::-1], how))
