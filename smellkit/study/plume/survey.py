"""What is in a set of frames before any model: how much gas, which gas is missing, and how far no learning gets."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import paths
from smellkit.checks import Report, readable
from smellkit.errors import DataError, OptionError
from smellkit.plume import CLASSES, GAS, GASES
from smellkit.plume import annotations as tables
from smellkit.plume.annotations import Grey, Rule
from smellkit.simulate import plume as simulate
from smellkit.study.plume import splits
from smellkit.study.plume.masks import NAMES, VALUES, MaskRule

FILMED = {"": "both gases", "ch4": "CO2 only", "co2": "CH4 only"}  # by what is missing


def check(folder: str | Path = "") -> Report:
    """Read every annotation, frame, mask and pair in a folder; what is wrong is in the report's `skipped`.

    Its remarks say which grey levels the frames use, and the shares of background, tube and gas.
    """
    folder, report = tables.find(folder), Report()
    readers = {
        tables.annotation_file(folder, split, paired=paired): partial(read, folder, split, report=report)
        for paired, read in ((False, tables.read), (True, tables.read_pairs))
        for split in tables.splits_in(folder, paired=paired)
    }
    couples: dict[tuple[Path, Path], None] = {}  # each couple once
    for _, table in readable(readers, lambda file: readers[file](), skip=True, report=report):
        for column in table.columns.intersection(["frame_path", "co2_frame", "ch4_frame"]):
            names = table.loc[table[column] != "", [column, column.replace("frame", "mask")]].to_numpy()
            couples |= {(tables.located(folder, one), tables.located(folder, two)): None for one, two in names}
    try:
        _check_pictures(Rule.of(folder, report=report), MaskRule.of(folder), [*couples], report)
    except DataError as why:
        report.skip(folder, why)
    return report


def _check_pictures(rule: Rule, masks: MaskRule, couples: Sequence[tuple[Path, Path]], report: Report) -> None:
    """Read every frame and its mask; the report gets faults, and which grey levels and classes there are."""
    levels, values = np.zeros((2, 256), int)
    for path, mask in couples:
        frame = next(readable([path], partial(rule.read_frame, report=report), skip=True, report=report), None)
        read = partial(masks.read, frame=frame, report=report)
        for _, classes in readable([mask], read, skip=True, report=report):
            if frame is not None:
                levels += np.bincount(frame[1].ravel(), minlength=256)
                values += np.bincount(classes.ravel(), minlength=256)
    if levels.any():
        used = np.flatnonzero(levels)
        report.remarks.append(f"frames: {len(used)} grey levels, from {used[0]} to {used[-1]}")
        meaning = masks.classes(np.arange(256, dtype=np.uint8))
        shares = 100 * np.bincount(meaning, weights=values, minlength=len(NAMES)) / values.sum()
        listed = ", ".join(f"{share:.1f} % {name}" for share, name in zip(shares, NAMES, strict=True))
        report.remarks.append(f"masks: {listed}")


def keep_values(folder: str | Path, text: str) -> Path:
    """Write what `0=background,1=gas` says into the folder, where every reader finds it."""
    values: dict[str, str] = {}
    for pair in text.split(","):
        value, _, name = (part.strip() for part in pair.partition("="))
        if not value.isdecimal() or int(value) > 255 or name not in NAMES or value in values:
            raise OptionError(f"{text!r} does not say what the values of masks mean", hint="0=background,1=tube,2=gas")
        values[value] = name
    return paths.write_json(tables.find(folder) / VALUES, values)


def amounts(folder: str | Path = "") -> pd.DataFrame:
    """One row a frame of all splits: gas_type, ph_value, class_name, area (share of its pixels that are gas).

    A simulated set knows more, in emission.csv: log_emission of the vessel, and contrast in kelvin x heights squared.
    """
    folder = tables.find(folder)
    table = pd.concat(splits.read_all(folder).values(), ignore_index=True)
    rule = MaskRule.of(folder)
    masks = [rule.read(tables.located(folder, path)) for path in table["mask_path"]]
    table["area"] = [(rule.classes(mask) == GAS).mean() for mask in masks]
    columns = ["gas_type", "ph_value", "class_name", "area"]
    if (folder / "emission.csv").is_file():
        truth = pd.read_csv(folder / "emission.csv", dtype=dict.fromkeys(tables.ORIGINAL, str))
        table = table.merge(truth, on=[*tables.ORIGINAL, "gas_type"], how="left")
        columns += ["log_emission", "contrast"]
    return table[columns]


def patterns(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs by which gases were filmed (rows) and class (columns)."""
    count = pd.crosstab(pairs["missing_modality"].map(FILMED), pairs["class_name"])
    rows = [name for name in FILMED.values() if name in count.index]
    return count.reindex(index=rows, columns=list(CLASSES)).fillna(0)


def otsu(frame: Grey) -> NDArray[np.bool_]:
    """Pixels above the grey level that splits a frame into its two most even groups (Otsu, 1979)."""
    count = np.bincount(frame.ravel(), minlength=256).astype(float)
    below, sums = np.cumsum(count), np.cumsum(count * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * (below[-1] - below))
    return frame > np.nanargmax(between)


def surface(frame: Grey) -> NDArray[np.bool_]:
    """Pixels that lie 1.5 deviations above a quadratic surface, fitted again and again to what is not above it."""
    from scipy.ndimage import gaussian_filter

    down, right = np.meshgrid(*(np.linspace(-1, 1, count) for count in frame.shape), indexing="ij")
    terms = np.stack([down**0, down, right, down**2, right**2, down * right], axis=-1).reshape(-1, 6)
    grey, wall = frame.astype(float).ravel(), np.ones(frame.size, bool)
    for _ in range(4):
        rest = grey - terms @ np.linalg.lstsq(terms[wall], grey[wall], rcond=None)[0]
        spread = 1.48 * np.median(np.abs(rest[wall])) + 1e-9
        wall = rest < 1.5 * spread
    return gaussian_filter(rest.reshape(frame.shape), 1.5) > 1.5 * spread


def difficulty(*, videos: int = 200, seed: int = 7) -> dict[str, dict[str, float]]:
    """How hard the simulated task is without learning: IoU of the gas by thresholds, accuracy of the class by amounts.

    One moment of each of `videos` videos with both gases, 160x120, classes as published. IoU is pooled. Accuracy is
    that of a linear discriminant, in five parts, on ln of the area that `surface` finds in CO2, CH4 or both; `contrast`
    knows how much there is to see without noise, `emission` the vessel's ln Q.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_predict

    plans = simulate.plan(videos, seed=seed, frames=1, missing="none", shares=(1, 0, 0))
    shared, either = np.zeros((2, 2, len(GASES)))  # pixels by method and gas
    area, contrast, emitted = np.zeros((3, videos, len(GASES)))
    for number, video in enumerate(plans):
        log_emission, film = simulate.film(video, number=number, size=(160, 120), seed=seed)
        contrast[number], emitted[number] = np.log(film.contrast[0] + 1e-9), log_emission
        for gas, (frame, mask) in enumerate(zip(film.frames[0], film.masks[0], strict=True)):
            above = np.stack([otsu(frame), surface(frame)])
            shared[:, gas] += (above & (mask == GAS)).sum(axis=(1, 2))
            either[:, gas] += (above | (mask == GAS)).sum(axis=(1, 2))
            area[number, gas] = np.log(above[1].mean() + 1e-3)
    label = np.array([CLASSES.index(video.health) for video in plans])
    sets = {"co2": area[:, :1], "ch4": area[:, 1:], "both": area, "contrast": contrast, "emission": emitted}
    accuracy = {"majority": float(np.bincount(label).max() / len(label))}
    for name, values in sets.items():
        accuracy[name] = float((cross_val_predict(LinearDiscriminantAnalysis(), values, label, cv=5) == label).mean())
    names = [f"{method} {gas}" for method in ("otsu", "surface") for gas in GASES]
    return {"iou": dict(zip(names, (shared / either).ravel().tolist(), strict=True)), "accuracy": accuracy}
