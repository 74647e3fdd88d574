"""Recognise while sniffing: one row of the sensors after the other in, what it smells of out, in constant memory.

rows -> the last 125 -> window -> summary features -> classes -> running mean -> beta over the 12 scents
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from smellkit.device import playlist
from smellkit.errors import DataError
from smellkit.odour import recordings
from smellkit.odour.confidence import ABSTAIN, Thresholds, decide, fit_temperature
from smellkit.odour.features import QuantileNormalizer, summarise
from smellkit.odour.scents import SCENTS
from smellkit.odour.windows import Protocol, cut

EVERY = 5  # rows between two answers
MEMORY = 0.6  # of the answer so far, against the newest window
OUTSIDE = 0.5  # the most that may speak for a smell which the player has not
LEVEL_FREE = Protocol(representation="level-free")


@dataclass(frozen=True)
class Recognition:
    """What the last window smells of: `probabilities` over the recogniser's classes, `beta` over the 12 scents.

    `beta` divides belief among the scents; it measures no ratio. `reason` says why no scent of it should be played,
    `mixture_reason` why no mixture; empty when it may. `took` is in seconds, from the row to the answer.
    """

    name: str
    confidence: float
    probabilities: tuple[float, ...]
    beta: tuple[float, ...]
    reason: str = ""
    mixture_reason: str = ""
    took: float = 0.0

    @property
    def abstains(self) -> bool:
        """Whether the smell is too uncertain, or not among the twelve, so that no scent should be played."""
        return bool(self.reason)


class Recogniser:
    """A rolling recogniser: `add` a row of the `columns`, get a Recognition every few rows or None.

    `classify` gives probabilities (windows, classes) for windows (windows, steps, channels) of the `protocol`.

    >>> recogniser = Recogniser.fit()
    >>> for row in nose:
    ...     answer = recogniser.add(row.values) or answer
    """

    def __init__(
        self,
        classify: Callable[[NDArray], NDArray],
        classes: Sequence[str],
        *,
        protocol: Protocol = LEVEL_FREE,
        columns: Sequence[str] = recordings.SENSORS,
        margin: float = playlist.MARGIN,
        thresholds: Thresholds | None = None,
        about: str = "",
    ):
        self.classes = tuple(classes)
        self.protocol = protocol
        self.margin = margin
        self.thresholds = thresholds or Thresholds()
        self.about = about
        self._classify = classify
        self._places = [list(columns).index(name) for name in protocol.columns]
        self._channel = np.array([SCENTS.index(name) if name in SCENTS else -1 for name in self.classes])
        self._rows: collections.deque[list[float]] = collections.deque(maxlen=protocol.span)
        self.restart()

    def restart(self) -> None:
        """Forget everything: another smell begins, or rows were lost."""
        self._rows.clear()
        self._count = 0
        self._mean: NDArray | None = None

    @property
    def filled(self) -> float:
        """Share of the first window that is there: 1 from the moment on that there are answers."""
        return len(self._rows) / self.protocol.span

    def add(self, values: Sequence[float]) -> Recognition | None:
        """Take one row; return what the window that ends with it smells of, every few rows from the first window on."""
        began = time.perf_counter()
        self._rows.append([values[place] for place in self._places])
        self._count += 1
        late = self._count - self.protocol.span
        if late < 0 or late % EVERY:
            return None
        window = np.asarray(self._rows, np.float32)[None]
        newest = np.asarray(self._classify(self.protocol.represent(window)), float)[0]
        self._mean = newest if self._mean is None else MEMORY * self._mean + (1 - MEMORY) * newest
        return replace(self.judge(self._mean), took=time.perf_counter() - began)

    def judge(self, probabilities: NDArray) -> Recognition:
        """Return what `probabilities` over the classes amount to: a name, beta, and whether to play it."""
        best = int(probabilities.argmax())
        beta = np.zeros(len(SCENTS))
        np.add.at(beta, self._channel[self._channel >= 0], probabilities[self._channel >= 0])
        inside = float(beta.sum())
        beta = beta / inside if inside > 0 else np.full(len(SCENTS), 1 / len(SCENTS))
        reason = mixture_reason = ""
        shares = beta.tolist()
        if decide(probabilities[None], self.thresholds)[0] == ABSTAIN:
            reason = mixture_reason = "not sure"
        elif inside < 1 - OUTSIDE:
            known = self.classes[best] in SCENTS
            reason = "not sure" if known else f"{self.classes[best]} is not one of the player's scents"
            mixture_reason = reason
        elif playlist.abstains(shares, margin=self.margin):
            first, second = np.argsort(-beta, kind="stable")[:2]
            reason = f"not sure: {SCENTS[first]} or {SCENTS[second]}"
            mixture_reason = reason if playlist.abstains(shares, margin=self.margin, mixture=True) else ""
        return Recognition(
            self.classes[best],
            float(probabilities[best]),
            tuple(probabilities.tolist()),
            tuple(shares),
            reason,
            mixture_reason,
        )

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Recogniser:
        """Return a recogniser with trained weights, by default those of the kit; WeightsError when they do not fit."""
        from smellkit.odour import predict

        trained = predict.Recogniser.load(Path(folder) if folder else None)
        return cls(
            lambda windows: trained.probabilities(trained.scores(windows)),
            trained.classes,
            protocol=trained.protocol,
            thresholds=trained.calibration.thresholds,
            about=f"trained weights, {len(trained.classes)} substances",
        )

    @classmethod
    def fit(cls, folder: str | Path | None = None, *, protocol: Protocol = LEVEL_FREE) -> Recogniser:
        """Return a recogniser fitted in seconds to the training recordings in `folder`, the sample by default.

        Shrinkage LDA on summary features, its temperature fitted to windows of recordings that it did not see.
        """
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        windows = cut(recordings.read_recordings(folder), protocol, stride=20)
        features = _summaries(windows.values)
        held = windows.fold == windows.fold.max()
        if held.all():
            raise DataError("One recording a substance is too few", hint="two or more, so that one can be held out")
        model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
        normal = QuantileNormalizer(features.shape[1]).fit(features[~held])
        model.fit(normal(features[~held]), windows.target[~held])
        temperature = fit_temperature(model.decision_function(normal(features[held])), windows.target[held])
        normal.fit(features)
        model.fit(normal(features), windows.target)

        def classify(values: NDArray) -> NDArray:
            return softmax(model.decision_function(normal(_summaries(values))) / temperature, axis=-1)

        about = f"fitted to {len(np.unique(windows.recording))} recordings of {len(windows.classes)} substances"
        return cls(classify, windows.classes, protocol=protocol, about=about)


def _summaries(windows: NDArray) -> torch.Tensor:
    return summarise(torch.from_numpy(np.ascontiguousarray(windows, np.float32)))
