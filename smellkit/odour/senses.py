"""Pictures and texts as evidence: what a scene encoder sees or reads, and a probe that says what it shows.

    embedding -> standardised -> linear -----------------------+
              -> likeness to what is known of each scent ------+-- / temperature -> softmax -> shares (12)

The temperature, and what a probe says of each scent on average (`confusion`), are measured on examples that it has not
seen, so that whoever fuses knows how far to trust it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from smellkit.odour.confidence import fit_temperature
from smellkit.odour.scene_encoder import SceneEncoder, load_scene_encoder
from smellkit.odour.scents import SCENTS, Scent, corpus, list_pictures, names_and_descriptions, odorant, read_scents

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
PLAYED = tuple(odorant(name) for name in SCENTS)  # the odorants in the order of the device's channels
SENSES = ("picture", "text")
FOLDS = 5  # of pictures
STRANGE = 0.02  # the share of unseen examples that may be taken for something else
READING: dict[str, Any] = {"standardise": False, "penalty": 10.0, "nearness": 10.0}  # of the probe of texts


@dataclass(frozen=True)
class Probe:
    """A fitted probe: all of it is arrays, so that it is kept as safetensors."""

    mean: Array  # (d,)
    scale: Array  # (d,)
    weight: Array  # (d, 12)
    bias: Array  # (12,)
    known: Array  # (n, d), standardised and of length 1
    label: NDArray[np.int32]  # (n,), the scent of each
    confusion: Array  # (12, 12), mean shares of unseen examples of each scent
    nearness: float | Array = 0.0  # what likeness counts beside the linear part
    least: float | Array = -1.0  # likeness to the most alike known one, below which an example is strange
    temperature: float | Array = 1.0

    def shares(self, embeddings: NDArray) -> FloatArray:
        """Shares of the twelve scents for embeddings (n, d), (n, 12)."""
        return softmax(self.scores(embeddings) / self.temperature, axis=1)

    def scores(self, embeddings: NDArray) -> FloatArray:
        """Log shares before the temperature, (n, 12)."""
        scores = self._standardised(embeddings) @ self.weight + self.bias
        return scores + self.nearness * self.likeness(embeddings) if self.nearness else scores

    def _standardised(self, embeddings: NDArray) -> FloatArray:
        return (np.asarray(embeddings, np.float64) - self.mean) / self.scale

    def likeness(self, embeddings: NDArray) -> FloatArray:
        """Cosine to the most alike known example of each scent, (n, 12); -1 where none is known."""
        cosine = unit(self._standardised(embeddings)) @ np.asarray(self.known, np.float64).T
        of_scent = [self.label == scent for scent in range(len(self.bias))]
        return np.stack([cosine[:, at].max(axis=1) if at.any() else np.full(len(cosine), -1.0) for at in of_scent], 1)

    def strange(self, embeddings: NDArray) -> NDArray[np.bool_]:
        """Whether an example is like nothing known, (n,): then its shares mean nothing."""
        return self.likeness(embeddings).max(axis=1) < self.least


def unit(rows: NDArray) -> NDArray:
    """Rows scaled to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def fit_probe(
    embeddings: NDArray, scent: NDArray, fold: NDArray, *, words: tuple[NDArray, NDArray] | None = None, **how: Any
) -> tuple[Probe, FloatArray]:
    """Fit a probe to embeddings (n, d) of `scent` (n,) and return it with what it says of each unseen, (n, 12).

    Unseen is an example whose `fold` (n,) was left out. `words` are embeddings and scents of names and descriptions:
    learned from in every fold, and what likeness is measured to, instead of the examples. `how`: see `fit_once`.
    """
    scores, alike = np.zeros((len(scent), 12)), np.zeros(len(scent))
    for one in np.unique(fold):
        held, seen = fold == one, fold != one
        if len(np.unique(scent[seen])) < len(np.unique(scent)):
            seen = np.ones_like(held)  # a scent with one example has to be read by what saw it
        probe = fit_once(embeddings[seen], scent[seen], words=words, **how)
        scores[held], alike[held] = probe.scores(embeddings[held]), probe.likeness(embeddings[held]).max(axis=1)
    temperature = fit_temperature(scores, scent)
    shares = softmax(scores / temperature, axis=1)
    confusion = np.stack([shares[scent == i].mean(axis=0) if (scent == i).any() else np.eye(12)[i] for i in range(12)])
    whole, least = fit_once(embeddings, scent, words=words, **how), float(np.quantile(alike, STRANGE))
    return replace(whole, confusion=confusion, least=least, temperature=temperature), shares


def fit_once(
    embeddings: NDArray,
    scent: NDArray,
    *,
    words: tuple[NDArray, NDArray] | None,
    standardise: bool = True,
    penalty: float = 1.0,
    nearness: float = 0.0,
) -> Probe:
    """A probe without temperature and confusion; `penalty` is the inverse strength of regularisation."""
    from sklearn.linear_model import LogisticRegression

    rows = embeddings if words is None else np.concatenate([embeddings, words[0]])
    target = scent if words is None else np.concatenate([scent, words[1]])
    size = rows.shape[1]
    mean = rows.mean(axis=0) if standardise else np.zeros(size)
    scale = np.maximum(rows.std(axis=0), 1e-3 * rows.std()) if standardise else np.ones(size)
    x = (rows - mean) / scale
    model = LogisticRegression(C=penalty, max_iter=1000).fit(x, target)
    weight, bias = np.zeros((size, 12)), np.full(12, -20.0)
    weight[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    known, label = (x, target) if words is None else ((words[0] - mean) / scale, words[1])
    known, label = unit(known).astype(np.float16), label.astype(np.int32)
    return Probe(mean, scale, weight, bias, known, label, np.eye(12), nearness)


@dataclass(frozen=True)
class Senses:
    """Who looks and reads (`scene`, the name of a scene encoder), and a probe for each of picture and text."""

    scene: str
    probes: dict[str, Probe]

    @classmethod
    def fit(cls, *folders: Path, scene: str = "", seed: int = 7) -> Senses:
        """Fit both probes to all pictures and descriptions of folders in the twelve-scent layout."""
        encoder = load_scene_encoder(scene)
        table, scents = pd.concat(map(list_pictures, folders)), [one for each in folders for one in read_scents(each)]
        files, scent = pictures_of(table)
        lines, channel, fold = corpus(scents, part="train", seed=seed)
        pictures, _ = fit_probe(encoder.vision(files), scent, np.arange(len(scent)) % FOLDS)
        texts, _ = fit_texts(encoder, encoder.text(lines), channel, fold, scents=scents)
        return cls(scene, {"picture": pictures, "text": texts})

    @property
    def confusion(self) -> dict[str, FloatArray]:
        """Mean shares (12, 12) of what is one scent, by sense."""
        return {sense: np.asarray(probe.confusion, float) for sense, probe in self.probes.items()}

    @functools.cached_property
    def encoder(self) -> SceneEncoder:
        """Loaded when a picture or a text is first asked about."""
        return load_scene_encoder(self.scene)

    def shares(self, sense: str, content: str | Path) -> FloatArray | None:
        """Shares of the twelve scents (12,) for a picture's file or a text; None where it is like nothing known."""
        embedding = self.encoder.vision([Path(content)]) if sense == "picture" else self.encoder.text([str(content)])
        probe = self.probes[sense]
        return None if probe.strange(embedding)[0] else probe.shares(embedding)[0]


def pictures_of(table: pd.DataFrame) -> tuple[list[Path], NDArray[np.int64]]:
    """The files of a table of pictures, and the channel (0 to 11) of each."""
    return [*map(Path, table["file"])], table["scent"].map(odorant).map(PLAYED.index).to_numpy()


def fit_texts(
    encoder: SceneEncoder, read: NDArray, scent: NDArray, fold: NDArray, *, scents: Sequence[Scent]
) -> tuple[Probe, FloatArray]:
    """A probe of texts that knows names and descriptions, too, and what it says of each unseen paraphrase, (n, 12)."""
    words, channel = names_and_descriptions(scents)
    return fit_probe(read, scent, fold, words=(encoder.text(words), np.array(channel)), **READING)
