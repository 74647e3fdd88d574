"""Today's session from a few reference sniffs: what drift demands of everybody who measures on another day.

References may be mixtures, base scents, or both. Mixtures are looked up among today's references. From base scents
alone today's mixtures are predicted by the power law of the sensors: conductance G = (sum_i w_i G_i^q)^(1/q), where
G_i is what pure scent i gives and w_i its ratio. On SmellNet q = 8, 8, 6 and 1 for NO2, C2H5OH, VOC and CO: but for the
last sensor, a tenth of a strong scent hides nine tenths of a weak one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import checkpoint as weights
from smellkit.checks import fault, nearest
from smellkit.errors import DataError, WeightsError
from smellkit.odour.mixture import Hybrid, Neighbours, level_and_slope, log_levels
from smellkit.odour.mixture_task import Array, Windows, cut
from smellkit.odour.mixtures import read_mixture_files
from smellkit.odour.scents import ALIASES, ODORANTS

POWER = np.array([8.0, 8.0, 6.0, 1.0])  # of NO2, C2H5OH, VOC, CO: the whole numbers nearest to 72 same-day mixtures
SPREAD = np.array([0.10, 0.10, 0.12, 0.35])  # how far the law is off, in log-conductance
AHEAD = (0.5, 1.0, 2.0)
GRID = np.arange(1, 10) / 10  # ratios of two scents that are predicted
KIND = "mixture-calibration"


@dataclass(frozen=True)
class Calibration:
    """References made today: what they looked like and what they were."""

    features: Array  # (n, 8), level and slope of each window
    ratios: Array  # (n, 12)
    recording: NDArray[np.int64]  # (n,), which reference a window belongs to
    metric: Array  # (8, 8), how windows of one mixture scatter within a day

    @classmethod
    def fit(cls, windows: Windows, model: Hybrid) -> Calibration:
        """Take the windows of labelled references as today's."""
        if not np.isfinite(windows.ratios).all() or not len(windows):
            raise DataError(
                "A calibration needs labelled references", hint="`smellkit calibrate DIR --labels index.csv`"
            )
        return cls(level_and_slope(windows.counts), windows.ratios, windows.recording, model.today)

    def predict(self, counts: NDArray) -> Array:
        """Return ratios (n, 12) of windows of counts (n, 100, 4), recorded in the session of the references."""
        if (self.ratios > 0).sum(axis=1).max() > 1:
            ahead, of = settled(self.features, self.recording)
            ratios = np.concatenate([self.ratios, self.ratios[np.searchsorted(self.recording, of)]])
            table = Neighbours.fit(np.concatenate([self.features, ahead]), ratios, metric=self.metric, k=3)
            return table.best(table.look(level_and_slope(counts))[0])
        features, ratios = predicted_mixtures(self.features[:, :4], self.ratios)
        table = Neighbours.fit(features, ratios, metric=np.diag(1 / SPREAD).astype(np.float32), k=25)
        return table.best(table.look(log_levels(counts))[0])

    def save(self, folder: Path, *, about: dict[str, Any] | None = None) -> Path:
        """Write the calibration as safetensors with a manifest and return the folder."""
        import torch

        arrays = {name: np.asarray(getattr(self, name)) for name in ("features", "ratios", "recording", "metric")}
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return weights.save(folder, tensors, {"kind": KIND, "odorants": list(ODORANTS), **(about or {})})

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """Read what `save` wrote; anything else is a WeightsError."""
        made_by = "`smellkit calibrate DIR --labels index.csv --out calibration`"
        tensors, manifest = weights.load(folder, made_by=made_by)
        names = ("features", "ratios", "recording", "metric")
        if manifest.get("kind") != KIND or set(tensors) != set(names):
            raise WeightsError(f"{folder} is not a calibration of a mixture model", hint=made_by)
        arrays = {name: tensors[name].numpy() for name in names}
        n = len(arrays["features"])
        if [a.shape for a in arrays.values()] != [(n, 8), (n, len(ODORANTS)), (n,), (8, 8)] or not n:
            raise WeightsError(f"{folder} is a damaged calibration", hint=made_by)
        return cls(**arrays)


def settled(features: NDArray, recording: NDArray) -> tuple[Array, NDArray[np.int64]]:
    """Return windows (n, 8) of where each recording is going, and whose they are (n,).

    The first sniffs of a session end before the sensors have settled, and what is sniffed later lies further along the
    same way: the change over the last 30 s, times `AHEAD`, is added to the last level.
    """
    made, of = [], []
    for name in np.unique(recording):
        level = features[recording == name, :4]
        step = level[-1] - level[max(0, len(level) - 7)]
        made += [np.concatenate([level[-1] + far * step, np.zeros(4)]) for far in AHEAD for _ in range(2)]
        of += [name] * (2 * len(AHEAD))
    return np.array(made, np.float32), np.array(of)


def power_law(pure: NDArray, ratios: NDArray) -> NDArray[np.float64]:
    """Return the log-conductance (..., 4) of a mixture of scents whose own is `pure` (..., scents, 4).

    `ratios` (scents,) add to 1. The law of metal-oxide sensors, G ~ (sum of concentrations)^(1/q) with q = `POWER`.
    """
    parts = POWER * np.asarray(pure, np.float64) + np.log(np.asarray(ratios, np.float64))[:, None]
    top = parts.max(axis=-2, keepdims=True)
    return (top[..., 0, :] + np.log(np.exp(parts - top).sum(axis=-2))) / POWER


def predicted_mixtures(pure: NDArray, ratios: NDArray, *, each: int = 12, seed: int = 0) -> tuple[Array, Array]:
    """Return features (n, 4) and ratios (n, 12) of today's base scents and of all mixtures of two of them, by the law.

    `pure` (windows, 4) in log-conductance, `ratios` (windows, 12) one-hot. Every mixture is drawn `each` times from
    different windows of its scents, so that their scatter is its scatter.
    """
    random = np.random.default_rng(seed)
    of = ratios.argmax(axis=1)
    scents = {int(scent): pure[of == scent] for scent in np.unique(of)}
    features, made = [], []
    for scent, windows in scents.items():
        features.append(windows[random.integers(len(windows), size=2 * each)])
        made.append(np.eye(len(ODORANTS))[[scent] * (2 * each)])
    for (a, first), (b, second) in itertools.combinations(scents.items(), 2):
        for share in GRID:
            pair = [first[random.integers(len(first), size=each)], second[random.integers(len(second), size=each)]]
            features.append(power_law(np.stack(pair, axis=1), np.array([share, 1 - share])))
            row = np.zeros(len(ODORANTS))
            row[a], row[b] = share, 1 - share
            made.append(np.tile(row, (each, 1)))
    return np.concatenate(features).astype(np.float32), np.concatenate(made).astype(np.float32)


def read_labels(path: Path) -> pd.DataFrame:
    """Return (filepath, the twelve ratios) of an index like SmellNet's: columns filepath and label_<odorant>.

    An odorant without a column is absent. Refused with row and column: unknown odorants, text, negative or infinite
    ratios, and rows that don't add to 1 (0.97 to 1.03: thirds are often written as 0.33).
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError, pd.errors.ParserError) as why:
        raise DataError(f"{path} is not valid CSV: {why}", hint="columns filepath, label_peach, ...") from why
    table.columns = [str(name).strip() for name in table.columns]
    names = [name for name in table.columns if name.startswith("label_")]
    if "filepath" not in table.columns or not names or table.empty:
        found = ", ".join(map(repr, table.columns[:6])) or "nothing"
        raise fault(
            path, line=1, expected="columns filepath and label_<odorant>, and rows", found=found, hint="see README"
        )
    back = {substance: known for known, substance in ALIASES.items()}
    known = {name: back.get(name.removeprefix("label_").lower(), name.removeprefix("label_").lower()) for name in names}
    for name, odorant in known.items():
        if odorant not in ODORANTS:
            near = nearest(odorant, ODORANTS)
            hint = f"did you mean label_{near[0]}?" if near else f"the odorants are {', '.join(ODORANTS)}"
            raise fault(path, line=1, column=name, expected="a known odorant", found=repr(odorant), hint=hint)
    ratios = pd.DataFrame(0.0, index=table.index, columns=list(ODORANTS))
    for name, odorant in known.items():
        numbers = pd.to_numeric(table[name], errors="coerce")
        wrong = ~(np.isfinite(numbers) & (numbers >= 0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found = repr(table[name].iloc[row])
            raise fault(path, line=row + 2, column=name, expected="a ratio from 0 to 1", found=found, hint="correct it")
        ratios[odorant] += numbers
    total = ratios.sum(axis=1)
    wrong = (total - 1).abs() > 0.03
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        hint = "ratios are shares of 1, not percent" if total.iloc[row] > 1.5 else "correct the ratios"
        raise fault(path, line=row + 2, expected="ratios that add to 1", found=f"{total.iloc[row]:g}", hint=hint)
    return ratios.div(total, axis=0).assign(filepath=table["filepath"])


def reference_file(folder: Path, name: str) -> Path:
    """Return the file that an index calls `name`: below `folder`, leading folders of the name left out as needed."""
    parts = Path(name.strip().replace("\\", "/")).parts
    for skip in range(len(parts)):
        candidate = Path(folder, *[part for part in parts[skip:] if part not in ("/", "..")])
        if candidate.is_file():
            return candidate
    raise DataError(f"There is no reference {name!r} in {folder}", hint="filepath is relative to DIR")


def read_references(folder: Path, labels: Path) -> Windows:
    """Return the windows of the references that the index `labels` lists, from the files in `folder`."""
    table = read_labels(labels)
    files = [reference_file(folder, name) for name in table["filepath"]]
    twice = [file for file in files if files.count(file) > 1]
    if twice:
        raise DataError(f"{labels} lists {twice[0]} more than once", hint="one row a reference")
    values, index = read_mixture_files(files, root=Path(folder), labelled=False)
    short = [file for file, value in zip(index["file"], values, strict=True) if len(value) < 100]
    if short:
        raise DataError(
            f"{Path(folder) / short[0]} has fewer than 100 rows", hint="a reference of at least 10 s at 10 Hz"
        )
    own = {file.relative_to(folder).as_posix(): row for row, file in enumerate(files)}
    rows = [own[file] for file in index["file"]]
    index[list(ODORANTS)] = table[list(ODORANTS)].to_numpy()[rows]
    return cut(list(values), index)


def calibrate(folder: Path, *, labels: Path, out: Path, using: Path) -> str:
    """Make a calibration in `out` from the references in `folder` and say what it holds; `using` are the weights."""
    from smellkit.odour.predict_mixture import load_model

    windows = read_references(Path(folder), Path(labels))
    made = Calibration.fit(windows, load_model(using))
    index = windows.index
    mixtures = index[list(ODORANTS)].round(4).drop_duplicates()
    alone = bool((made.ratios > 0).sum(axis=1).max() == 1)
    about = {"references": len(index), "mixtures": len(mixtures), "base scents alone": alone}
    made.save(Path(out), about=about)
    kinds = "base scents" if alone else "mixtures and base scents"
    more = "; their mixtures are predicted by the power law" if alone else ""
    return f"{len(index)} references of {len(mixtures)} {kinds}, {len(windows)} windows{more}.\n{out}"
