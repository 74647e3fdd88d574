"""What is in a set of frames before any model: how much gas, which gas is missing, and how far no learning gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.plume import CLASSES, GAS, GASES
from smellkit.plume import annotations as tables
from smellkit.plume.pictures import Rule
from smellkit.simulate import plume as simulate

FILMED = {"": "both gases", "ch4": "CO2 only", "co2": "CH4 only"}  # by what is missing


def amounts(folder: str | Path = "") -> pd.DataFrame:
    """One row a frame of all splits: gas_type, ph_value, class_name, area (share of its pixels that are gas).

    A simulated set knows more, in emission.csv: log_emission of the vessel, and contrast in kelvin x heights squared.
    """
    folder = tables.find(folder)
    table = pd.concat(tables.read_all(folder).values(), ignore_index=True)
    rule = Rule.of(folder)
    masks = [rule.read_values(tables.located(folder, path)) for path in table["mask_path"]]
    table["area"] = [(rule.classes(mask) == GAS).mean() for mask in masks]
    kept = ["gas_type", "ph_value", "class_name", "area"]
    if not (folder / "emission.csv").is_file():
        return table[kept]
    truth = pd.read_csv(folder / "emission.csv", dtype=dict.fromkeys(tables.ORIGINAL, str))
    return table.merge(truth, on=[*tables.ORIGINAL, "gas_type"], how="left")[[*kept, "log_emission", "contrast"]]


def patterns(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs by which gases were filmed (rows) and class (columns)."""
    count = pd.crosstab(pairs["missing_modality"].map(FILMED), pairs["class_name"])
    return count.reindex(index=[name for name in FILMED.values() if name in count.index], columns=list(CLASSES)).fillna(
        0
    )


def otsu(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels above the grey level that splits a frame into its two most even groups (Otsu, 1979)."""
    count = np.bincount(frame.ravel(), minlength=256).astype(float)
    below, sums = np.cumsum(count), np.cumsum(count * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * (below[-1] - below))
    return frame > np.nanargmax(between)


def surface(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels that lie 1.5 deviations above a quadratic surface, fitted again and again to what is not above it."""
    from scipy.ndimage import gaussian_filter

    down, right = np.meshgrid(*(np.linspace(-1, 1, count) for count in frame.shape), indexing="ij")
    terms = np.stack([down**0, down, right, down**2, right**2, down * right], axis=-1).reshape(-1, 6)
    grey, wall = frame.astype(float).ravel(), np.ones(frame.size, bool)
    for _ in range(4):
        weights = np.linalg.lstsq(terms[wall], grey[wall], rcond=None)[0]
        rest = grey - terms @ weights
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
    shared, either = np.zeros((2, len(GASES))), np.zeros((2, len(GASES)))
    area, contrast, emitted = np.zeros((3, videos, len(GASES)))
    for number, video in enumerate(plans):
        scene, film = simulate.film(video, number=number, size=(160, 120), seed=seed)
        contrast[number], emitted[number] = np.log(film.contrast[0] + 1e-9), scene.log_emission
        for gas in range(len(GASES)):
            true = film.masks[0, gas] == GAS
            for place, method in enumerate((otsu, surface)):
                above = method(film.frames[0, gas])
                shared[place, gas] += (above & true).sum()
                either[place, gas] += (above | true).sum()
            area[number, gas] = np.log(above.mean() + 1e-3)
    names = [f"{method} {gas}" for method in ("otsu", "surface") for gas in GASES]
    label = np.array([CLASSES.index(video.health) for video in plans])
    sets = {"co2": area[:, :1], "ch4": area[:, 1:], "both": area, "contrast": contrast, "emission": emitted}
    accuracy = {"majority": float(np.bincount(label).max() / len(label))}
    for name, values in sets.items():
        accuracy[name] = float((cross_val_predict(LinearDiscriminantAnalysis(), values, label, cv=5) == label).mean())
    return {"iou": dict(zip(names, (shared / either).ravel().tolist(), strict=True)), "accuracy": accuracy}
