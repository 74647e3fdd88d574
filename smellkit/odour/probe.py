"""What a picture or a text says: an embedding in, shares of the twelve scents out, and whether it says anything at all.

    embedding -> standardised -> linear -----------------------+
              -> likeness to what is known of each scent ------+-- / temperature -> softmax -> shares (12)

The temperature, and what the probe says of each scent on average (`confusion`), are measured on examples that it has
not seen, so that whoever fuses knows how far to trust it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from smellkit.odour.confidence import fit_temperature

Array = NDArray[Any]
STRANGE = 0.02  # the share of unseen examples that may be taken for something else


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
    nearness: float = 0.0  # what likeness counts beside the linear part
    least: float = -1.0  # likeness to the most alike known one, below which an example is strange
    temperature: float = 1.0

    def shares(self, embeddings: NDArray) -> NDArray[np.float64]:
        """Shares of the twelve scents for embeddings (n, d), (n, 12)."""
        return softmax(self.scores(embeddings) / float(self.temperature), axis=1)

    def scores(self, embeddings: NDArray) -> NDArray[np.float64]:
        """Log shares before the temperature, (n, 12)."""
        x = self._standardised(embeddings)
        scores = x @ self.weight + self.bias
        return scores + self.nearness * self.likeness(embeddings) if self.nearness else scores

    def likeness(self, embeddings: NDArray) -> NDArray[np.float64]:
        """Cosine to the most alike known example of each scent, (n, 12); -1 where none is known."""
        cosine = unit(self._standardised(embeddings)) @ np.asarray(self.known, np.float64).T
        places = [self.label == scent for scent in range(len(self.bias))]
        return np.stack([cosine[:, at].max(axis=1) if at.any() else np.full(len(cosine), -1.0) for at in places], 1)

    def strange(self, embeddings: NDArray) -> NDArray[np.bool_]:
        """Whether an example is like nothing known, (n,): then its shares mean nothing."""
        return self.likeness(embeddings).max(axis=1) < self.least

    def tensors(self) -> dict[str, NDArray]:
        """All arrays by name."""
        kept = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        return {name: value.astype(np.float32) if value.dtype == float else value for name, value in kept.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Probe:
        """From what `tensors` gave; KeyError where one is missing."""
        arrays = {field.name: np.asarray(tensors[field.name]) for field in fields(cls)}
        plain: dict[str, Any] = {name: float(value) if value.ndim == 0 else value for name, value in arrays.items()}
        return cls(**plain)

    def _standardised(self, embeddings: NDArray) -> NDArray[np.float64]:
        return (np.asarray(embeddings, np.float64) - self.mean) / self.scale


def unit(rows: NDArray) -> NDArray:
    """Rows scaled to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def fit_probe(
    embeddings: NDArray,
    scent: NDArray,
    fold: NDArray,
    *,
    words: tuple[NDArray, NDArray] | None = None,
    standardise: bool = True,
    penalty: float = 1.0,
    nearness: float = 0.0,
) -> tuple[Probe, NDArray[np.float64]]:
    """Fit a probe to embeddings (n, d) of `scent` (n,) and return it with what it says of each unseen, (n, 12).

    Unseen is an example whose `fold` (n,) was left out. `words` are embeddings and scents of names and descriptions:
    learned from in every fold, and what likeness is measured to; without them it is measured to the examples.
    `penalty` is the inverse strength of regularisation.
    """
    scent, fold = np.asarray(scent), np.asarray(fold)
    how: dict[str, Any] = {"words": words, "standardise": standardise, "penalty": penalty, "nearness": nearness}
    scores, alike = np.zeros((len(scent), 12)), np.zeros(len(scent))
    for one in np.unique(fold):
        held, seen = fold == one, fold != one
        if len(np.unique(scent[seen])) < len(np.unique(scent)):
            seen = np.ones_like(held)  # a scent with one example has to be read by what saw it
        probe = _fit(embeddings[seen], scent[seen], **how)
        scores[held], alike[held] = probe.scores(embeddings[held]), probe.likeness(embeddings[held]).max(axis=1)
    temperature = fit_temperature(scores, scent)
    shares = softmax(scores / temperature, axis=1)
    confusion = np.stack([shares[scent == i].mean(axis=0) if (scent == i).any() else np.eye(12)[i] for i in range(12)])
    whole = _fit(embeddings, scent, **how)
    least = float(np.quantile(alike, STRANGE))
    return Probe(**{**_arrays(whole), "confusion": confusion, "least": least, "temperature": temperature}), shares


def _arrays(probe: Probe) -> dict[str, Any]:
    return {field.name: getattr(probe, field.name) for field in fields(probe)}


def _fit(embeddings: NDArray, scent: NDArray, *, words, standardise: bool, penalty: float, nearness: float) -> Probe:
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
    known = unit(x if words is None else (words[0] - mean) / scale)
    label = target if words is None else np.asarray(words[1])
    return Probe(mean, scale, weight, bias, known.astype(np.float16), label.astype(np.int32), np.eye(12), nearness)
