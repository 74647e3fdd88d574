"""The fusion that ships: experts, the probes of pictures and texts, and what names known mixtures, in one folder.

One folder holds the numbers of two scene encoders, compact and light; which one is used depends on what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smellkit import checkpoint
from smellkit.errors import WeightsError
from smellkit.odour.experts import Experts, compositions
from smellkit.odour.mixture import Hybrid, levels
from smellkit.odour.mixture_classifier import MixtureClassifier
from smellkit.odour.probe import Probe
from smellkit.odour.scents import ODORANTS, to_channels
from smellkit.odour.senses import SENSES, Senses, usual

FloatArray = NDArray[np.float64]
SHIPPED = ("compact", "light")  # scene encoders whose numbers the weights hold


@dataclass(frozen=True)
class Limits:
    """When a fused answer counts, measured on held-out recordings: see `study.odour.experts`."""

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
        try:
            if manifest["kind"] != "fusion":
                raise WeightsError(f"{folder} holds weights of kind {manifest['kind']!r}", hint="--weights fusion")
            numbers = manifest["scenes"][scene]
            probes = {sense: Probe.of(inside(tensors, f"{scene}.{sense}.")) for sense in SENSES}
            mixtures = tensors["mixtures"].numpy().astype(float)
            table, _ = compositions(np.unique(np.round(to_channels(mixtures), 4), axis=0))
            confusion = {sense: np.asarray(probe.confusion, float) for sense, probe in probes.items()}
            prior = tensors["prior"].numpy().astype(float)
            experts = Experts(table, prior, numbers["concentration"], numbers["doubt"], numbers["tail"], confusion)
            classifier = MixtureClassifier.of(inside(tensors, "classifier."))
            return cls(experts, Senses(scene, probes), classifier, mixtures, Limits(**numbers["limits"]))
        except (KeyError, TypeError, RuntimeError) as why:
            raise WeightsError(
                f"{folder} does not hold a fusion for {scene!r}: {why}", hint="data/weights/fusion"
            ) from why

    def fit(self, folder: Path, *, scene: str = "") -> Fused:
        """The same experts with probes fitted to what the encoder `scene` sees and reads in `folder`."""
        senses = Senses.fit(folder, scene=scene or self.senses.scene)
        confusion = {sense: np.asarray(probe.confusion, float) for sense, probe in senses.probes.items()}
        return replace(self, senses=senses, experts=replace(self.experts, confusion=confusion))

    def save(self, folder: Path, others: Mapping[str, Fused], about: dict[str, Any]) -> Path:
        """Write this and the `others`, which share the classifier and the prior, by the name of their scene encoder."""
        tensors: dict[str, Any] = {"mixtures": self.mixtures.astype(np.float32), "prior": self.experts.prior}
        scenes = {}
        for scene, fused in {self.senses.scene: self, **others}.items():
            for sense, probe in fused.senses.probes.items():
                tensors |= {f"{scene}.{sense}.{name}": value for name, value in probe.tensors().items()}
            numbers = {name: dict(getattr(fused.experts, name)) for name in ("concentration", "doubt", "tail")}
            scenes[scene] = {**numbers, "limits": vars(fused.limits)}
        kept = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
        kept |= {f"classifier.{name}": value for name, value in self.classifier.state_dict().items()}
        manifest = {"kind": "fusion", "odorants": list(ODORANTS), "rate_hz": 10, "scenes": scenes, **about}
        return checkpoint.save(folder, kept, manifest)

    def smelled(self, hybrid: Hybrid, windows: NDArray) -> tuple[FloatArray, float]:
        """What the mixture board's windows (n, 100, 4) of a recording say, (n, m + 1), and how known the session is."""
        answer = hybrid.explain(windows, recording=np.zeros(len(windows), int))
        votes = hybrid.known.votes_on(self.mixtures, levels(windows))
        known = answer["p_known_session"]
        network = self.classifier.votes(windows)
        return self.experts.voted(votes, network, self.mixtures, answer["posterior_mean"], known), float(known.mean())


def inside(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What stands under `prefix`, without it; KeyError where nothing does."""
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not found:
        raise KeyError(f"{prefix}*")
    return found
