"""The fusion that ships: experts, the probes of pictures and texts, and what names known mixtures, in one folder.

One folder holds the numbers of two scene encoders, compact and light; which one is used depends on what is installed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smellkit import checkpoint
from smellkit.errors import WeightsError
from smellkit.odour.experts import Experts, compositions
from smellkit.odour.mixture import Hybrid, MixtureClassifier, levels
from smellkit.odour.scents import to_channels
from smellkit.odour.senses import SENSES, Probe, Senses, usual
from smellkit.odour.smell import inside

FloatArray = NDArray[np.float64]
SHIPPED = ("compact", "light")  # scene encoders whose numbers the weights hold


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
        tensors, manifest = checkpoint.load(folder, made_by="`smellkit bench fusion --save FOLDER`")
        scene = scene or usual()
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            if manifest["kind"] != "fusion":
                raise WeightsError(f"{folder} holds weights of kind {manifest['kind']!r}", hint="--weights fusion")
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
