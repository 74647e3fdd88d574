"""Trained weights: a nose's windows to 50 odour channels, an odour vector and shares; and what fuses all senses.

    rows -- windows --> encoder --> z (n, 50) -- alpha-weighted sum --> odour vector -- softmax --> probabilities

Two noses, two kinds of weights. A third, `Fused`, turns the evidence of all senses into beta; there stand the channels
and the alpha of the mixture board, too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from torch import nn

from smellkit import checkpoint, noses
from smellkit.checks import Report
from smellkit.checks.ranges import Ranges
from smellkit.errors import DataError, WeightsError
from smellkit.noses import Description
from smellkit.odour import readers
from smellkit.odour.confidence import Confidence, fit_temperature
from smellkit.odour.encoder import Encoder, make
from smellkit.odour.experts import Experts, compositions
from smellkit.odour.mixture import Forest, Hybrid, MixtureClassifier, Neighbours, levels
from smellkit.odour.readers import Stretch
from smellkit.odour.recordings import (
    ALL,
    LENGTH,
    MIXTURE_GAS,
    STRIDE,
    STUCK,
    base_of,
    find,
    mixture_windows,
    read_mixture,
    read_recordings,
)
from smellkit.odour.scene_encoder import usual
from smellkit.odour.scents import SCENTS, category, to_channels
from smellkit.odour.senses import SENSES, Probe, Senses
from smellkit.odour.windows import Protocol, cut
from smellkit.sensors import ENVIRONMENT, FULL, MIXTURE, SMELLNET

FloatArray = NDArray[np.float64]
SHIPPED = ("compact", "light")  # scene encoders whose numbers the weights of the fusion hold; the installed one is used


@dataclass(frozen=True)
class SubstanceSmell:
    """The twelve-column board at 1 Hz: an encoder of substances with its protocol, class names and calibration."""

    network: Encoder
    protocol: Protocol
    classes: tuple[str, ...]
    confidence: Confidence
    about: str = ""
    ranges: Ranges | None = None  # of the channels in training, where the weights tell them
    nose: Description = SMELLNET  # that they were trained for

    @classmethod
    def load(cls, folder: Path) -> SubstanceSmell:
        """From a folder of weights; WeightsError when they do not fit."""
        tensors, manifest = checkpoint.load(folder)
        try:
            described = manifest["protocol"]
            protocol = Protocol(**{**described, "columns": tuple(described["columns"])})
            classes = tuple(manifest["classes"])
            shape = protocol.steps, protocol.channels
            network = make(manifest["model"], shape, classes=len(classes), **manifest.get("options", {}))
            confidence = Confidence.of(manifest["calibration"])
        except (KeyError, TypeError, AttributeError, ValueError) as why:
            what = f"{folder} / manifest.json does not describe an odour encoder: {why}"
            raise WeightsError(what, hint="use data/weights/odour") from why
        network_alone = {name: one for name, one in tensors.items() if not name.startswith("references.")}
        checkpoint.fill(network, network_alone, where=str(folder))
        named, nose = f"trained weights, {len(classes)} substances", noses.of_manifest(manifest) or SMELLNET
        return cls(network.eval(), protocol, classes, confidence, named, Ranges.of(manifest), nose)

    def fit(self, data: str | Path | None = None) -> SubstanceSmell:
        """Return the same frozen encoder with a read-out fitted in seconds to the training recordings in `data`.

        A shrinkage discriminant on z; its temperature is fitted to windows of recordings that it did not see.
        """
        table = read_recordings(data, "training" if base_of(find(data)) else ALL)
        windows = cut(table, self.protocol, stride=20)
        z, held = self.channels(windows.values), windows.fold == windows.fold.max()
        kept = np.bincount(windows.target[~held], minlength=len(windows.classes))
        if len(kept) < 2 or not kept.all():
            name, rows = windows.classes[int(kept.argmin())], self.span
            hint = f"two substances or more, and two recordings of {rows} rows of each, so that one can be held out"
            raise DataError(f"There is too little to fit a read-out to: {kept.min()} windows of {name}", hint=hint)
        tried = _discriminant(z[~held], windows.target[~held])
        with torch.no_grad():
            scores = tried(torch.from_numpy(z[held]).float()).log_softmax(1).double().numpy()
        network = copy.deepcopy(self.network)
        network.head = _discriminant(z, windows.target)
        confidence = Confidence(fit_temperature(scores, windows.target[held]))
        about = f"fitted to {len(np.unique(windows.recording))} recordings of {len(windows.classes)} substances"
        fitted = replace(self, network=network.eval(), classes=windows.classes, confidence=confidence, about=about)
        return replace(fitted, ranges=board_ranges(table, self.columns))

    @property
    def columns(self) -> tuple[str, ...]:
        return self.protocol.columns

    @property
    def span(self) -> int:  # rows under one window
        return self.protocol.span

    @property
    def stride(self) -> int:  # rows from one window to the next
        return self.protocol.stride

    def stretches(self, path: Path, *, report: Report | None = None) -> list[Stretch]:
        """The rows of a file as parts between which its clock shows a gap; a half first row is dropped."""
        return readers.read_stretches(path, self.nose, columns=self.columns, report=report)

    def windows(self, rows: NDArray, *, stride: int = 0) -> NDArray[np.float32]:
        """Windows (n, steps, channels) of a recording's `rows` (rows, columns); none when it is too short."""
        return self.protocol.windows(rows, stride=stride)

    def channels(self, windows: NDArray) -> FloatArray:
        """The odour channels z of windows, (n, 50)."""
        return self.network.run(windows, "z").double().numpy()

    def odour(self, z: NDArray) -> FloatArray:
        """The odour vector of channels z (n, 50): sum_i z_i alpha_i, one direction a channel, here of class scores."""
        with torch.no_grad():
            return self.network.head(torch.as_tensor(z, dtype=torch.float32)).double().numpy()

    def scores(self, windows: NDArray) -> FloatArray:
        """Log-probabilities of windows, (n, classes), not yet calibrated: windows -> z -> odour vector -> softmax."""
        return log_softmax(self.odour(self.channels(windows)), axis=1)

    def probabilities(self, windows: NDArray) -> FloatArray:
        """Calibrated probabilities of windows, (n, classes)."""
        return self.calibrated(self.scores(windows))

    def calibrated(self, scores: NDArray, windows: ArrayLike = 1) -> FloatArray:
        """Calibrated probabilities of log-probabilities, each the mean over so many `windows`."""
        return self.confidence.calibrated(scores, windows)

    def recording(self, windows: NDArray) -> tuple[FloatArray, float]:
        """Probabilities of a whole recording, (classes,), from its windows, and what of them is for the twelve."""
        probabilities = self.calibrated(self.scores(windows).mean(axis=0), len(windows))
        return probabilities, min(1.0, float(self.shares(probabilities).sum()))

    def category(self, probabilities: NDArray) -> tuple[str, float]:
        """The likeliest category of `probabilities` (classes,) and its own; "" where no class has one."""
        kinds, which = np.unique([category(name) for name in self.classes], return_inverse=True)
        if kinds.tolist() == ["other"]:
            return "", 0.0
        sums = np.bincount(which, probabilities)
        each = softmax(np.log(sums.clip(1e-12)) / self.confidence.category_temperature)
        return str(kinds[each.argmax()]), float(each.max())

    def shares(self, probabilities: NDArray) -> FloatArray:
        """What of `probabilities` (classes,) speaks for each of the player's twelve scents, (12,); may add to 0."""
        known = dict(zip(self.classes, probabilities.tolist(), strict=True))
        return np.array([known.get(name, 0.0) for name in SCENTS])


@dataclass(frozen=True)
class MixtureSmell:
    """The mixture board, four columns at 10 Hz: ratios of the twelve scents, known sessions looked up."""

    hybrid: Hybrid
    ranges: Ranges | None = None
    classes = SCENTS
    columns = MIXTURE_GAS
    confidence = Confidence()
    about = "trained weights, mixtures of twelve scents"
    span, stride = LENGTH, STRIDE
    nose: Description = MIXTURE

    @classmethod
    def load(cls, folder: Path) -> MixtureSmell:
        """From a folder of weights; WeightsError when they do not fit."""
        return cls(load_hybrid(folder), Ranges.of(checkpoint.manifest(folder)))

    def stretches(self, path: Path, *, report: Report | None = None) -> list[Stretch]:
        """The rows of a CSV file, whatever it calls its columns of the four sensors: the one part that is used."""
        return [read_mixture(path, report=report)]

    def windows(self, rows: NDArray, *, stride: int = 0) -> NDArray[np.float32]:
        """Windows (n, 100, 4) of the first 600 `rows` (rows, 4) of a recording."""
        return mixture_windows(rows, stride=stride or STRIDE)

    def explained(self, windows: NDArray) -> tuple[FloatArray, float]:
        """Ratios in channel order, (n, 12), for windows of one recording, and how far its session is known, 0 to 1."""
        answer = self.hybrid.explain(windows, recording=np.zeros(len(windows), int))
        ratios = to_channels(answer["ratios"]).astype(float)
        return ratios / ratios.sum(axis=1, keepdims=True), float(answer["p_known_session"].mean())

    def probabilities(self, windows: NDArray) -> FloatArray:
        return self.explained(windows)[0]

    def recording(self, windows: NDArray) -> tuple[FloatArray, float]:
        """Ratios of a whole recording, (12,): the mean over its windows; and how far its session is known."""
        ratios, known = self.explained(windows)
        return ratios.mean(axis=0), known

    def shares(self, probabilities: NDArray) -> FloatArray:
        return np.asarray(probabilities, float)

    def category(self, probabilities: NDArray) -> tuple[str, float]:
        return "", 0.0  # a mixture has several


Smell = SubstanceSmell | MixtureSmell
KINDS: dict[str, Any] = {"odour": SubstanceSmell, "mixture": MixtureSmell}


def load_smell(weights: str | Path = "odour") -> Smell:
    """Load weights by name (odour, mixture) or from a folder; WeightsError for weights of another kind."""
    folder = checkpoint.find(weights)
    kind = checkpoint.manifest(folder).get("kind")
    if kind not in KINDS:
        raise WeightsError(f"{folder} holds weights of kind {kind!r}", hint=f"one of {', '.join(KINDS)}")
    return KINDS[kind].load(folder)


def load_hybrid(folder: Path) -> Hybrid:
    """Return the mixture model in a folder of weights."""
    tensors, _ = checkpoint.load(folder, kind="mixture", made_by="`smellkit bench smellnet-mixture --save FOLDER`")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        known, session = (Neighbours(**inside(arrays, f"{name}.")) for name in ("known", "session"))
        return Hybrid(known, session, Forest(**inside(arrays, "forest.")), arrays["edge"], arrays["within_day"])
    except (KeyError, TypeError) as why:
        raise WeightsError(f"{folder} holds no mixture model: {why}", hint="--weights mixture") from why


@dataclass(frozen=True)
class Limits:
    """When a fused answer counts, measured on held-out recordings: see `study.odour.release`."""

    sure: float = 0.0  # the least probability of the loudest scent
    error: float = 2.0  # the most that is expected to be wrong in the shares, added up


@dataclass(frozen=True)
class Fused:
    """All that turns evidence into beta; `classifier` and `mixtures` (k, 12) serve the mixture board alone."""

    experts: Experts
    senses: Senses
    classifier: MixtureClassifier
    mixtures: FloatArray
    limits: Limits = Limits()

    @classmethod
    def load(cls, weights: str | Path = "fusion", *, scene: str = "") -> Fused:
        """From a folder of weights; WeightsError when they do not fit."""
        folder = checkpoint.find(weights)
        tensors, manifest = checkpoint.load(folder, kind="fusion", made_by="`smellkit bench fusion --save FOLDER`")
        scene = scene or usual()
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            numbers = dict(manifest["scenes"][scene])
            limits = Limits(**numbers.pop("limits"))
            senses = Senses(scene, {sense: Probe(**inside(arrays, f"{scene}.{sense}.")) for sense in SENSES})
            mixtures, prior = (arrays[name].astype(float) for name in ("mixtures", "prior"))
            table = compositions(np.unique(np.round(to_channels(mixtures), 4), axis=0))
            experts = Experts(table, prior, confusion=senses.confusion, **numbers)
            classifier = MixtureClassifier(len(mixtures))
            checkpoint.fill(classifier, inside(tensors, "classifier."), where=str(folder))
            return cls(experts, senses, classifier.eval(), mixtures, limits)
        except (KeyError, TypeError) as why:
            what = f"{folder} does not hold a fusion for {scene!r}: {why}"
            raise WeightsError(what, hint="data/weights/fusion") from why

    def fit(self, *folders: Path, scene: str = "") -> Fused:
        """The same experts with probes fitted to what the encoder `scene` sees and reads in `folders`."""
        senses = Senses.fit(*folders, scene=scene or self.senses.scene)
        return replace(self, senses=senses, experts=replace(self.experts, confusion=senses.confusion))

    def smelled(self, hybrid: Hybrid, windows: NDArray) -> tuple[FloatArray, float]:
        """What the mixture board's windows (n, 100, 4) of a recording say, (n, m + 1), and how known the session is."""
        answer = hybrid.explain(windows, recording=np.zeros(len(windows), int))
        votes = hybrid.known.votes_on(self.mixtures, levels(windows))
        known, network = answer["p_known_session"], self.classifier.votes(windows)
        return self.experts.voted(votes, network, self.mixtures, answer["posterior_mean"], known), float(known.mean())


def inside(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What stands under `prefix`, without it; KeyError where nothing does."""
    chosen = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not chosen:
        raise KeyError(f"{prefix}*")
    return chosen


def board_ranges(table: pd.DataFrame, columns: Sequence[str], nose: Description = SMELLNET) -> Ranges:
    """The ranges of `columns` in a tidy table of recordings; those of a stuck environment sensor do not count."""
    values = table[list(columns)].astype(float)
    if nose == SMELLNET:
        stuck = (table["Pressure"].round(1) == STUCK[0]) & (table["Humidity"] == STUCK[1])
        values.loc[stuck, [name for name in columns if name in ENVIRONMENT]] = np.nan
    parts = [rows.to_numpy() for _, rows in values.groupby(table["file"])]

    def kind(name: str) -> str:  # the units in place of 10-bit counts and of estimates are known to `checks.ranges`
        column = nose.columns[name]
        return "counts" if column.span == (0, FULL) else "estimate" if column.unit == "ppm" else name

    unit = [kind(name) for name in columns]
    return Ranges.measure(parts, names=columns, unit=unit)


def _discriminant(z: FloatArray, target: NDArray) -> nn.Linear:
    """A shrinkage discriminant of z as a linear layer (50 -> classes)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(z, target)
    coefficients, offsets = model.coef_, model.intercept_
    if len(coefficients) == 1:  # two classes: scikit-learn keeps their difference alone
        coefficients, offsets = np.vstack([0 * coefficients, coefficients]), np.hstack([0 * offsets, offsets])
    layer = nn.Linear(z.shape[1], len(coefficients))
    layer.load_state_dict({"weight": torch.as_tensor(coefficients), "bias": torch.as_tensor(offsets)})
    return layer
