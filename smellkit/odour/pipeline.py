"""The way of a recording, in one file: from what three senses have to what is played.

    recording -> windows -> z (50 channels) -> odour vector --+
    picture   -> scene encoder -> probe ----------------------+-- evidence of each sense -> beta (12) -> play, or not
    text      -> scene encoder -> probe ----------------------+

`Pipeline.load()` takes trained weights, `Pipeline.fit(data)` fits the last layers to a folder of one's own in seconds.
Live recognition, prediction, the panel and the notebooks go through here; `play` is the one way from a result to air.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from smellkit.checks.ranges import outside
from smellkit.device import playlist
from smellkit.device.neckwear import NeckWear
from smellkit.device.playlist import Playlist
from smellkit.errors import DataError, OptionError
from smellkit.odour.confidence import ABSTAIN, decide
from smellkit.odour.recordings import find
from smellkit.odour.scenes import SceneProbes
from smellkit.odour.scents import SCENTS
from smellkit.odour.smell import Smell, SubstanceSmell, load_smell

OUTSIDE = 0.5  # the most that may speak for a smell which the player has not
FLOOR = 0.01  # the least share that a sense leaves to any scent: no sense alone may rule one out
Recording: TypeAlias = str | Path | pd.DataFrame | ArrayLike


@dataclass(frozen=True)
class Evidence:
    """What one sense alone says: shares of the twelve scents, and how much it is trusted (an exponent, 0 to 1)."""

    shares: Mapping[str, float]
    trust: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """What was recognised and what may be played of it.

    `beta` has a share for each of the twelve scents, in the order of the player's channels, and sums to 1. `name` and
    `confidence` are the likeliest class, which may be none of the twelve; `probabilities` are those of all classes.
    `reason` says why no single scent should be played, `mixture_reason` why no mixture; empty when it may. `seconds`
    is how long the answer took.
    """

    beta: Mapping[str, float]
    name: str
    confidence: float
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    probabilities: tuple[float, ...] = ()
    reason: str = ""
    mixture_reason: str = ""
    seconds: float = 0.0

    @property
    def abstains(self) -> bool:
        """Whether the smell is too uncertain, or not among the twelve, so that no scent should be played."""
        return bool(self.reason)

    @property
    def shares(self) -> tuple[float, ...]:
        """The twelve shares alone, in channel order."""
        return tuple(self.beta.values())

    def play(self, neck: NeckWear, *, seconds: float = 8) -> Played:
        """Play the loudest scent for `seconds`, or nothing when this abstains; return at once."""
        return play(self, neck, seconds=seconds)

    def mix(self, neck: NeckWear, *, seconds: float = 60) -> Played:
        """Play the mixture as a sequence of slots, or nothing when this abstains; return at once."""
        return play(self, neck, seconds=seconds, mixture=True)


@dataclass(frozen=True)
class Played:
    """What was recognised and what was played of it: nothing, one scent, or the slots of a mixture."""

    mixture: Mixture
    scent: int | None = None
    plan: Playlist | None = None

    def __bool__(self) -> bool:
        return self.scent is not None or self.plan is not None


def play(answer: Mixture, neck: NeckWear, *, seconds: float, mixture: bool = False, wait: bool = False) -> Played:
    """Play what was recognised, or nothing when it abstains; return at once, or after the end with `wait`."""
    if answer.mixture_reason if mixture else answer.reason:
        return Played(answer)
    if mixture:
        played = Played(answer, plan=neck.play_mixture(answer.shares, seconds=seconds))
    else:
        played = Played(answer, scent=playlist.top(answer.shares))
        neck.play(played.scent or 0, seconds=seconds)
    if wait:
        neck.wait()
    return played


class Pipeline:
    """Smell, and where they are known picture and text, to a Mixture.

    >>> pipeline = Pipeline.load()
    >>> answer = pipeline("banana.csv")
    >>> answer.name, answer.beta["banana"], answer.reason
    """

    def __init__(self, smell: Smell, *, scene: SceneProbes | None = None, margin: float = playlist.MARGIN):
        self.smell = smell
        self.scene = scene
        self.margin = margin

    @classmethod
    def load(cls, weights: str | Path = "odour") -> Pipeline:
        """With trained weights: odour (twelve columns, 1 Hz), mixture (four columns, 10 Hz), or a folder of such."""
        return cls(load_smell(weights))

    @classmethod
    def fit(cls, data: str | Path | None = None, *, scene: str = "light") -> Pipeline:
        """With the shipped encoder and read-outs fitted to the recordings, pictures and descriptions in `data`.

        The sample by default, whose simulated nose the shipped read-out has never smelled. Pictures and descriptions
        are read by the encoder `scene` when one is first asked about.
        """
        shipped = load_smell("odour")
        assert isinstance(shipped, SubstanceSmell)
        return cls(shipped.fit(data), scene=SceneProbes(find(data), scene))

    @cached_property
    def about(self) -> str:
        """What the smell was learned from, in a few words."""
        return self.smell.about

    def __call__(
        self, recording: Recording | None = None, *, picture: str | Path | None = None, text: str | None = None
    ) -> Mixture:
        """Return the Mixture of a recording, a picture and a text; each may be absent, but not all.

        A recording is a CSV file, a table with the nose's columns, or an array (rows, columns) of just those.
        """
        if recording is None and picture is None and text is None:
            raise OptionError("Nothing to recognise", hint="give a recording, a picture or a text")
        evidence = self._seen(picture, text)
        if recording is None:
            return self.fuse(evidence)
        if why := self.unknown(recording):
            return unanswered(why)
        probabilities = self.recognise(recording)
        return self.judge(probabilities) if not evidence else self.fuse(self._smelled(probabilities) | evidence)

    def unknown(self, recording: Recording) -> str:
        """Why a recording lies outside what the weights know, or ""."""
        rows = read_rows(recording, self.smell)
        return outside(rows, self.smell.ranges) if len(rows) >= self.smell.span else ""

    def recognise(self, recording: Recording) -> NDArray[np.float64]:
        """Probabilities of the smell's classes for a whole recording, (classes,): the mean over its windows."""
        windows = read_windows(recording, self.smell)
        if isinstance(self.smell, SubstanceSmell):
            return self.smell.calibrated(self.smell.scores(windows).mean(axis=0))
        return self.smell.probabilities(windows).mean(axis=0)

    def judge(self, probabilities: NDArray) -> Mixture:
        """Return what the smell's `probabilities` (classes,) amount to: a name, beta, and whether to play it."""
        best = int(np.argmax(probabilities))
        shares = self.smell.shares(probabilities)
        inside = float(shares.sum())
        beta = normalised(shares)
        if decide(probabilities[None], self.smell.confidence.thresholds)[0] == ABSTAIN:
            reasons = ("not sure", "not sure")
        elif inside < 1 - OUTSIDE:
            name = self.smell.classes[best]
            reasons = 2 * ("not sure" if name in SCENTS else f"{name} is not one of the player's scents",)
        else:
            reasons = undecided(beta, margin=self.margin)
        return Mixture(
            named(beta),
            self.smell.classes[best],
            float(probabilities[best]),
            {"smell": Evidence(named(beta))},
            tuple(probabilities.tolist()),
            *reasons,
        )

    def fuse(self, evidence: Mapping[str, Evidence]) -> Mixture:
        """Return the Mixture of several senses: the product of their shares, each to the power of its trust."""
        logs = sum(each.trust * np.log(np.array([*each.shares.values()]) + FLOOR) for each in evidence.values())
        beta = normalised(np.exp(logs - np.max(logs)))
        best = int(beta.argmax())
        return Mixture(named(beta), SCENTS[best], float(beta[best]), evidence, (), *undecided(beta, margin=self.margin))

    def _smelled(self, probabilities: NDArray) -> dict[str, Evidence]:
        """The smell's evidence beside other senses: trusted as far as it speaks for the twelve at all."""
        shares = self.smell.shares(probabilities)
        return {"smell": Evidence(named(normalised(shares)), trust=min(1.0, float(shares.sum())))}

    def _seen(self, picture: str | Path | None, text: str | None) -> dict[str, Evidence]:
        if picture is None and text is None:
            return {}
        if self.scene is None:
            raise OptionError("These weights know a smell alone", hint="Pipeline.fit(data) learns pictures and texts")
        seen = {"picture": self.scene.picture(picture)} if picture is not None else {}
        seen |= {"text": self.scene.text(text)} if text is not None else {}
        return {sense: Evidence(named(shares)) for sense, shares in seen.items()}


def read_rows(recording: Recording, smell: Smell) -> NDArray[np.float32]:
    """Return a recording as rows (rows, columns) of the smell's nose: from a CSV file, a table or an array.

    DataError for a column that is missing, another number of columns, and a cell that is not a finite number.
    """
    columns = smell.columns
    if isinstance(recording, (str, Path)):
        return smell.read(Path(recording))
    if isinstance(recording, pd.DataFrame):
        lost = [name for name in columns if name not in recording]
        if lost:
            raise DataError(f"The table has no column {', '.join(lost)}", hint=f"needed are {', '.join(columns)}")
        recording = recording[list(columns)]
    try:
        rows = np.asarray(recording, np.float32)
    except (TypeError, ValueError) as why:
        raise DataError(f"The recording holds what is not a number: {why}", hint="numbers alone") from why
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise DataError(f"A recording of shape {rows.shape}", hint=f"(rows, {len(columns)}): {', '.join(columns)}")
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(f"Row {row}, column {columns[column]}: {rows[row, column]}", hint="drop or fill the rows first")
    return rows


def read_windows(recording: Recording, smell: Smell, *, stride: int = 0) -> NDArray[np.float32]:
    """Return a recording's windows (n, steps, channels), at least one; DataError when it is too short for that."""
    if isinstance(recording, (str, Path)):
        parts = [stretch.values for stretch in smell.stretches(Path(recording))]
    else:
        parts = [read_rows(recording, smell)]
    longest = max(map(len, parts))
    if longest < smell.span:
        raise DataError(f"{longest} rows are fewer than the {smell.span} of one window", hint="record longer")
    return np.concatenate([smell.windows(rows, stride=stride) for rows in parts])


def normalised(shares: NDArray) -> NDArray[np.float64]:
    """Twelve shares of sum 1; a flat mixture where nothing speaks for any of them."""
    shares = np.asarray(shares, np.float64)
    return shares / shares.sum() if shares.sum() > 0 else np.full(len(SCENTS), 1 / len(SCENTS))


def named(shares: NDArray) -> dict[str, float]:
    """Shares in channel order under the names of the twelve scents."""
    return dict(zip(SCENTS, np.asarray(shares).tolist(), strict=True))


def undecided(beta: NDArray, *, margin: float = playlist.MARGIN) -> tuple[str, str]:
    """Why neither a scent nor a mixture of `beta` should be played, each empty when it may."""
    shares = beta.tolist()
    if not playlist.abstains(shares, margin=margin):
        return "", ""
    first, second = np.argsort(-beta, kind="stable")[:2]
    reason = f"not sure: {SCENTS[first]} or {SCENTS[second]}"
    return reason, reason if playlist.abstains(shares, margin=margin, mixture=True) else ""


def unanswered(reason: str) -> Mixture:
    """No answer at all, for a `reason`: a flat mixture of which nothing may be played."""
    flat = np.full(len(SCENTS), 1 / len(SCENTS))
    return Mixture(named(flat), "", 0.0, {}, (), reason, reason)


def as_mixture(shares: ArrayLike, *, margin: float = playlist.MARGIN) -> Mixture:
    """A Mixture of shares (12,) in channel order that come from elsewhere, such as a model just trained."""
    beta = normalised(np.asarray(shares))
    best = int(beta.argmax())
    return Mixture(named(beta), SCENTS[best], float(beta[best]), {}, (), *undecided(beta, margin=margin))
