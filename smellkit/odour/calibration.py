"""`smellkit calibrate`: today's session from a few reference recordings, as drift demands it of everybody.

References may be mixtures, base scents, or both. Mixtures are looked up among today's references. From base scents
alone today's mixtures are predicted by the power law of the sensors: conductance G = (sum_i w_i G_i^q)^(1/q), where
G_i is what pure scent i gives and w_i its ratio. On SmellNet q = 8, 8, 6 and 1 for NO2, C2H5OH, VOC and CO: but for the
last sensor, a tenth of a strong scent hides nine tenths of a weak one.

References of substances make weights for today out of those of another day (`repair`):

    old z -- moved by what the references' classes moved on the whole --> old z of today \\
                                                                          discriminant --> read-out of the same encoder
    references of today -- encoder --> z, together as heavy as all of the old ------------/
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from smellkit import checkpoint
from smellkit.checks import Report, fault
from smellkit.checks.ranges import Ranges, outside
from smellkit.checks.tables import Sheet, numbers
from smellkit.errors import DataError, OptionError, WeightsError
from smellkit.odour import readers
from smellkit.odour.confidence import fit_temperature
from smellkit.odour.mixture import Array, Hybrid, Neighbours, level_and_slope, log_levels
from smellkit.odour.recordings import LENGTH, MixtureWindows, cut_mixtures, read_mixture_files
from smellkit.odour.scents import ALIASES, ODORANTS
from smellkit.odour.smell import SubstanceSmell, _discriminant, load_hybrid
from smellkit.odour.windows import LabelledWindows, cut
from smellkit.options import alike

POWER = np.array([8.0, 8.0, 6.0, 1.0])  # of NO2, C2H5OH, VOC, CO: the whole numbers nearest to 72 same-day mixtures
SPREAD = np.array([0.10, 0.10, 0.12, 0.35])  # how far the law is off, in log-conductance
AHEAD = (0.5, 1.0, 2.0)  # times 30 s that a reference is extrapolated
GRID = np.arange(1, 10) / 10  # ratios of two scents that are predicted
KIND = "mixture-calibration"
FAR = 8.0  # a day's scatters from every reference: another session, or another unit
MADE_BY = "`smellkit calibrate DIR --labels index.csv --out calibration`"
SPARE = "references."  # tensors beside a network: z of training windows and their classes
ARRAYS = ("features", "ratios", "recording", "metric")


@dataclass(frozen=True)
class SessionCalibration:
    """References made today: what they looked like and what they were."""

    features: Array  # (n, 8), level and slope of each window
    ratios: Array  # (n, 12)
    recording: NDArray[np.int64]  # (n,), which reference a window belongs to
    metric: Array  # (8, 8), how windows of one mixture scatter within a day

    @classmethod
    def fit(cls, windows: MixtureWindows, model: Hybrid) -> SessionCalibration:
        """Take the windows of labelled references as today's."""
        if not np.isfinite(windows.ratios).all() or not len(windows):
            raise DataError("A calibration needs labelled references", hint=MADE_BY)
        return cls(level_and_slope(windows.counts), windows.ratios, windows.recording, model.within_day)

    @property
    def base_scents_only(self) -> bool:
        """Whether no reference is a mixture, so that mixtures are predicted by the power law."""
        return bool((self.ratios > 0).sum(axis=1).max() == 1)

    def predict(self, counts: NDArray) -> Array:
        """Return ratios (n, 12) of windows of counts (n, 100, 4), recorded in the session of the references."""
        table, describe = self._table()
        return table.predict(describe(counts))

    def distance(self, counts: NDArray) -> NDArray[np.float64]:
        """How far windows of counts (n, 100, 4) lie from every reference, (n,): from the nearest, in day's scatters.

        From base scents alone it is the distance to the nearest mixture that the power law predicts.
        """
        table, describe = self._table()
        return table.votes(describe(counts))[1]

    def _table(self) -> tuple[Neighbours, Callable[[NDArray], Array]]:
        """The references and what is predicted from them, and how windows are described to be looked up there."""
        if self.base_scents_only:
            features, ratios = predicted_mixtures(self.features[:, :4], self.ratios)  # (m, 4), (m, 12)
            return Neighbours.fit(features, ratios, metric=np.diag(1 / SPREAD).astype(np.float32), k=25), log_levels
        ahead, owner = extrapolated(self.features, self.recording)
        ratios = np.concatenate([self.ratios, self.ratios[np.searchsorted(self.recording, owner)]])
        features = np.concatenate([self.features, ahead])
        return Neighbours.fit(features, ratios, metric=self.metric, k=3), level_and_slope

    def save(self, folder: Path, *, about: dict[str, Any] | None = None) -> Path:
        """Write the calibration as safetensors with a manifest and return the folder."""
        tensors = {name: torch.from_numpy(np.array(getattr(self, name))) for name in ARRAYS}
        return checkpoint.save(folder, tensors, {"kind": KIND, "odorants": list(ODORANTS), **(about or {})})

    @classmethod
    def load(cls, folder: Path) -> SessionCalibration:
        """Read what `save` wrote; anything else is a WeightsError."""
        tensors, manifest = checkpoint.load(folder, made_by=MADE_BY)
        if manifest.get("kind") != KIND or set(tensors) != set(ARRAYS):
            raise WeightsError(f"{folder} is not a calibration of a mixture model", hint=MADE_BY)
        arrays = {name: tensors[name].numpy() for name in ARRAYS}
        n = len(arrays["features"])
        if [a.shape for a in arrays.values()] != [(n, 8), (n, len(ODORANTS)), (n,), (8, 8)] or not n:
            raise WeightsError(f"{folder} is a damaged calibration", hint=MADE_BY)
        return cls(**arrays)


def extrapolated(features: NDArray, recording: NDArray) -> tuple[Array, NDArray[np.int64]]:
    """Return windows (n, 8) of where each recording is going, and whose they are (n,).

    The first references of a session end before the sensors have come to rest, and later recordings lie further along
    the same way: the change over the last 30 s, times `AHEAD`, is added to the last level.
    """
    windows, owner = [], []
    for name in np.unique(recording):
        level = features[recording == name, :4]
        step = level[-1] - level[max(0, len(level) - 7)]
        windows += [np.concatenate([level[-1] + far * step, np.zeros(4)]) for far in AHEAD for _ in range(2)]
        owner += [name] * (2 * len(AHEAD))
    return np.array(windows, np.float32), np.array(owner)


def power_law(pure: NDArray, ratios: NDArray) -> NDArray[np.float64]:
    """Return the log-conductance (..., 4) of a mixture of scents whose own is `pure` (..., scents, 4).

    `ratios` (scents,) add to 1. The law of metal-oxide sensors, G ~ (sum of concentrations)^(1/q) with q = `POWER`.
    """
    from scipy.special import logsumexp

    terms = POWER * np.asarray(pure, np.float64) + np.log(np.asarray(ratios, np.float64))[:, None]  # ln(w_i G_i^q)
    return logsumexp(terms, axis=-2) / POWER


def predicted_mixtures(pure: NDArray, ratios: NDArray, *, each: int = 12, seed: int = 0) -> tuple[Array, Array]:
    """Return features (n, 4) and ratios (n, 12) of today's base scents and of all mixtures of two of them, by the law.

    `pure` (windows, 4) in log-conductance, `ratios` (windows, 12) one-hot. Every mixture is drawn `each` times from
    different windows of its scents, so that their scatter is its scatter.
    """
    random, one_hot, scent = np.random.default_rng(seed), np.eye(len(ODORANTS)), ratios.argmax(axis=1)
    windows = {int(one): pure[scent == one] for one in np.unique(scent)}

    def drawn(own: NDArray, count: int) -> NDArray:
        return own[random.integers(len(own), size=count)]

    features = [drawn(own, 2 * each) for own in windows.values()]
    truth = [np.tile(one_hot[one], (2 * each, 1)) for one in windows]
    for (a, first), (b, second) in itertools.combinations(windows.items(), 2):
        for share in GRID:
            pair = np.stack([drawn(first, each), drawn(second, each)], axis=1)  # (each, 2, 4)
            features.append(power_law(pair, np.array([share, 1 - share])))
            truth.append(np.tile(share * one_hot[a] + (1 - share) * one_hot[b], (each, 1)))
    return np.concatenate(features).astype(np.float32), np.concatenate(truth).astype(np.float32)


def read_labels(path: Path) -> pd.DataFrame:
    """Return (filepath, the twelve ratios) of an index like SmellNet's: columns filepath and label_<odorant>.

    An odorant without a column is absent. Refused with row and column: unknown odorants, text, negative or infinite
    ratios, and rows that don't add to 1 (0.97 to 1.03: thirds are often written as 0.33).
    """
    try:
        sheet = Sheet.read(Path(path), wanted=["filepath"], report=Report())
    except DataError as why:
        raise DataError(f"{path} is not valid CSV: {why.what}", hint=why.hint) from why
    names = [name for name in sheet.header if name.startswith("label_")]
    if not names:
        actual, hint = ", ".join(map(repr, sheet.header[:6])), "filepath,label_almond,label_clove; see README"
        raise fault(path, "columns filepath and label_<odorant>", actual, hint, line=1)
    ratios = pd.DataFrame(0.0, index=sheet.lines, columns=list(ODORANTS))
    for name in names:
        ratios[_odorant(path, name)] += _ratios(sheet, name)
    total = ratios.sum(axis=1)
    for line, first in total[(total - 1).abs() > 0.03].items():
        hint = "ratios are shares of 1, not percent" if first > 1.5 else "correct the ratios"
        raise fault(path, "ratios that add to 1", f"{first:g}", hint, line=int(line))
    return ratios.div(total, axis=0).assign(filepath=sheet.cells["filepath"].to_pandas().str.strip().array)


def _odorant(path: Path, column: str) -> str:
    """The odorant that a column label_<odorant> means, by its own name or by that of its substance."""
    word = column.removeprefix("label_").lower()
    word = {substance: odorant for odorant, substance in ALIASES.items()}.get(word, word)
    if word not in ODORANTS:
        near = alike(word, ODORANTS)
        hint = f"did you mean label_{near[0]}?" if near else f"the odorants are {', '.join(ODORANTS)}"
        raise fault(path, "a known odorant", repr(word), hint, line=1, column=column)
    return word


def _ratios(sheet: Sheet, name: str) -> NDArray[np.float64]:
    """The numbers of a column, none of them below 0."""
    values = numbers(sheet.cells[name])
    for row in np.flatnonzero(~(np.isfinite(values) & (values >= 0))).tolist():
        text = repr(str(sheet.cells[name][row]).strip())
        raise fault(sheet.path, "a ratio from 0 to 1", text, "correct it", line=sheet.lines[row], column=name)
    return values


def reference_file(folder: Path, name: str) -> Path:
    """Return the file that an index calls `name`: below `folder`, leading folders of the name left out as needed."""
    parts = Path(name.strip().replace("\\", "/")).parts
    for skip in range(len(parts)):
        candidate = Path(folder, *[part for part in parts[skip:] if part not in ("/", "..")])
        if candidate.is_file():
            return candidate
    raise DataError(f"There is no reference {name!r} in {folder}", hint="filepath is relative to DIR")


def read_references(folder: Path, labels: Path, *, ranges: Ranges | None = None) -> MixtureWindows:
    """Return the windows of the references that the index `labels` lists, from the files in `folder`.

    One that lies outside the `ranges` of weights is refused.
    """
    folder, table = Path(folder), read_labels(labels)
    files = [reference_file(folder, name) for name in table["filepath"]]
    if twice := [file for file in files if files.count(file) > 1]:
        raise DataError(f"{labels} lists {twice[0]} more than once", hint="one row a reference")
    values, index = read_mixture_files(files, root=folder)
    for file, value in zip(index["file"], values, strict=True):
        if why := unfit(folder / file, value, ranges):
            raise why
    table.index = pd.Index([file.relative_to(folder).as_posix() for file in files])
    index[list(ODORANTS)] = table.loc[index["file"], list(ODORANTS)].to_numpy()
    return cut_mixtures(values, index)


def unfit(path: Path, value: NDArray, ranges: Ranges | None) -> DataError | None:
    """Why a recording's `value` (rows, 4) can't be used: shorter than a window, or outside of what weights know."""
    if len(value) < LENGTH:
        what = f"{path}: {len(value)} rows are less than one window of {LENGTH}"
        return DataError(what, hint="record at least 10 s at 10 Hz")
    hint = "bring the columns to the unit and the sensors of the training recordings"
    return DataError(f"{path}: {why}", hint=hint) if (why := outside(value, ranges)) else None


def calibrate(folder: Path, *, labels: Path | None, out: Path, using: Path) -> str:
    """Make a calibration in `out` from the references in `folder` and say what it holds; `using` are the weights."""
    if labels is None:
        raise DataError("References of mixtures need --labels", hint="a CSV: filepath,label_almond,label_clove")
    ranges = Ranges.of(checkpoint.manifest(using))
    windows = read_references(folder, labels, ranges=ranges)
    calibration = SessionCalibration.fit(windows, load_hybrid(using))
    count, alone = len(windows.index), calibration.base_scents_only
    mixtures = len(windows.index[list(ODORANTS)].round(4).drop_duplicates())
    calibration.save(out, about={"references": count, "mixtures": mixtures, "base scents alone": alone})
    kinds = "base scents" if alone else "mixtures and base scents"
    more = "; their mixtures are predicted by the power law" if alone else ""
    return f"{count} references of {mixtures} {kinds}, {len(windows)} windows{more}.\n{out}"


def repair(folder: Path, *, labels: Path | None = None, out: Path, using: Path) -> str:
    """Write the weights `using`, made fit for today by the references in `folder`, to `out`; say what they gain.

    References lie as recordings do: a folder for each class, or its name in that of the file. DataError where one is of
    a class that the weights don't know.
    """
    if labels is not None:
        raise OptionError("--labels is for mixtures", hint="references in a folder for each class tell theirs")
    smell, (tensors, manifest) = SubstanceSmell.load(using), checkpoint.load(using)
    windows = _substances(folder, smell)
    spare = {name: tensor for name, tensor in tensors.items() if name.startswith(SPARE)}
    old = spare.get(f"{SPARE}z", torch.zeros(0, smell.network.head.in_features)).double().numpy()
    old_target = spare.get(f"{SPARE}target", torch.zeros(0, dtype=torch.long)).numpy()
    z, target = smell.channels(windows.values), windows.target

    def fit(chosen: NDArray) -> SubstanceSmell:
        network = copy.deepcopy(smell.network)
        network.head = read_out(old, old_target, z[chosen], target[chosen], classes=len(smell.classes))
        return replace(smell, network=network.eval())

    held, repaired = held_out(windows, fit), fit(np.ones(len(z), bool))
    confidence, gain, graded = smell.confidence.asdict(), "", np.isfinite(held).all(1)
    if graded.any():
        confidence["temperature"] = fit_temperature(held[graded], target[graded])
        right = [scores[graded].argmax(1) == target[graded] for scores in (smell.scores(windows.values), held)]
        gain = "; windows of references left out: {:.0%} right before, {:.0%} now".format(*map(np.mean, right))
    count = {name: len(np.unique(windows.recording[target == i])) for i, name in enumerate(smell.classes)}
    about = {"calibration": confidence, "references": {name: n for name, n in count.items() if n}}
    checkpoint.save(out, {**repaired.network.state_dict(), **spare}, {**manifest, **about})
    classes = len(about["references"])
    return f"{sum(count.values())} references of {classes} classes, {len(z)} windows{gain}.\n{out}"


def _substances(folder: Path, smell: SubstanceSmell) -> LabelledWindows:
    """Windows of the references in `folder`, classes as the weights have them."""
    _, table = readers.read_folder(folder, smell.nose, report=Report())
    for name in sorted(set(table["substance"]) - set(smell.classes)):
        near = alike(name, smell.classes) or list(smell.classes)[:5]
        raise DataError(f"{folder}: these weights know no {name!r}", hint=f"they know {', '.join(near)}")
    return cut(table, smell.protocol, classes=smell.classes)


def read_out(old: NDArray, old_target: NDArray, new: NDArray, target: NDArray, *, classes: int) -> torch.nn.Linear:
    """A discriminant (50 -> classes) of old z, moved to today, and of new z that weigh as much together."""
    if len(old):
        both = np.intersect1d(old_target, target)
        old = old + np.mean([new[target == c].mean(0) - old[old_target == c].mean(0) for c in both], axis=0)
        times = max(1, round(len(old) / len(new)))
        target = np.concatenate([old_target, np.repeat(target, times)])
        new = np.concatenate([old, np.repeat(new, times, 0)])
    known = np.unique(target)
    if len(known) < 2:
        raise DataError("References of a single class", hint="at least two classes, better a few of each")
    fitted, layer = _discriminant(new, np.searchsorted(known, target)), torch.nn.Linear(new.shape[1], classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-1e3)  # of what there was no example
        layer.weight[known], layer.bias[known] = fitted.weight, fitted.bias
    return layer


def held_out(references: LabelledWindows, fit: Callable[[NDArray], SubstanceSmell]) -> NDArray[np.float64]:
    """Scores (windows, classes) by fits without a reference's number in its class; NaN where a class has no other."""
    scores = np.full((len(references), len(references.classes)), np.nan)
    for number in np.unique(references.fold):
        out = references.fold == number
        if set(references.target[out]) <= set(references.target[~out]):
            scores[out] = fit(~out).scores(references.values[out])
    return scores
