"""The way of a recording, in one file: from what three senses have to what is played.

    recording -> windows -> z (50 channels) -> odour vector --+
    picture   -> scene encoder -> probe ----------------------+-- evidence -> experts -> beta (12) -> play, or not
    text      -> scene encoder -> probe ----------------------+

`Pipeline.load()` takes trained weights, `Pipeline.fit(data)` fits the last layers to a folder of one's own in seconds.
A recording alone is judged by its board's own weights; several senses are fused by `experts`.
Live recognition, prediction, the panel and the notebooks go through here; `play` is the one way from a result to air.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from smellkit import checkpoint
from smellkit.checks.ranges import outside
from smellkit.device import playlist
from smellkit.device.neckwear import NeckWear
from smellkit.device.playlist import Playlist
from smellkit.errors import DataError, OptionError
from smellkit.odour.confidence import ABSTAIN, decide
from smellkit.odour.fused import SHIPPED, Fused
from smellkit.odour.mixtures import MIXTURE_GAS
from smellkit.odour.recordings import by_clock, find
from smellkit.odour.scents import SCENTS
from smellkit.odour.smell import MixtureSmell, Smell, SubstanceSmell, load_smell

OUTSIDE = 0.5  # the most that may speak for a smell which the player has not
ALIKE = 1e-3  # shares that differ by less are equally loud
Recording: TypeAlias = str | Path | pd.DataFrame | ArrayLike
Pictures: TypeAlias = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Evidence:
    """What one sense alone says: shares of the twelve scents, and how much it is trusted, 0 to 1.

    A smell is trusted as far as its session is known, or as it speaks for the twelve at all; pictures and texts as
    often as their kind was right where it could be checked. 0 means that it said nothing, and was left out, and
    `why` says for which reason.
    """

    shares: Mapping[str, float]
    trust: float = 1.0
    why: str = ""


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
    >>> answer = pipeline("banana.csv", picture="fruit.jpg", text="sweet and ripe")
    >>> answer.name, answer.beta["banana"], answer.evidence["picture"].shares, answer.reason
    """

    def __init__(
        self, smell: Smell, *, fused: Fused | None = None, margin: float = playlist.MARGIN, others: bool = False
    ):
        self.smell = smell
        self.margin = margin
        self._fused = fused
        self._others = others

    @classmethod
    def load(cls, weights: str | Path = "odour") -> Pipeline:
        """With trained weights: odour (twelve columns, 1 Hz), mixture (four columns, 10 Hz), or a folder of such.

        Without a name both boards are understood: a recording says by its columns which one it is of. Weights of a
        fusion belong to the mixture board.
        """
        folder = checkpoint.find(weights)
        if checkpoint.manifest(folder).get("kind") == "fusion":
            return cls(load_smell("mixture"), fused=Fused.load(folder))
        return cls(load_smell(folder), others=str(weights) == "odour")

    @classmethod
    def fit(cls, data: str | Path | None = None, *, scene: str = "") -> Pipeline:
        """With the shipped encoder and read-outs fitted to the recordings, pictures and descriptions in `data`.

        The sample by default, whose simulated nose the shipped read-out has never smelled. Pictures and descriptions
        are read by the encoder `scene` when one is first asked about.
        """
        shipped = load_smell("odour")
        assert isinstance(shipped, SubstanceSmell)
        pipeline = cls(shipped.fit(data))
        pipeline._refit = (find(data), scene)
        return pipeline

    _refit: tuple[Path, str] | None = None

    @cached_property
    def about(self) -> str:
        """What the smell was learned from, in a few words."""
        return self.smell.about

    @cached_property
    def fused(self) -> Fused:
        """What fuses the senses; loaded, or fitted to a folder's pictures and descriptions, when it is first needed."""
        if self._refit is None:
            return self._fused or Fused.load()
        folder, scene = self._refit
        return Fused.load(scene=scene if scene in SHIPPED else "").fit(folder, scene=scene)

    @cached_property
    def _mixture_board(self) -> Smell:
        return load_smell("mixture")

    def board(self, recording: Recording, nose: str = "") -> Smell:
        """The weights for a recording's board: by the name of the `nose` (odour, mixture), or by its columns."""
        if nose not in ("", "odour", "mixture"):
            raise OptionError(f"There is no nose {nose!r}", hint="odour (twelve columns) or mixture (four columns)")
        if not self._others:
            if nose and (nose == "mixture") != isinstance(self.smell, MixtureSmell):
                raise OptionError(f"These weights are not of the nose {nose!r}", hint="Pipeline.load() knows both")
            return self.smell
        other = nose == "mixture" or (not nose and _of_mixture_board(recording, self.smell))
        return self._mixture_board if other else self.smell

    def __call__(
        self,
        recording: Recording | None = None,
        *,
        picture: Pictures | None = None,
        text: str | Sequence[str] | None = None,
        nose: str = "",
    ) -> Mixture:
        """Return the Mixture of a recording, a picture and a text; each may be absent, but not all.

        A recording is a CSV file, a table with the nose's columns, or an array (rows, columns) of just those, with
        the name of its `nose` where the number of columns does not tell. Several pictures or texts of one scene are
        averaged.
        """
        given = {"picture": several(picture), "text": several(text)}
        shown = {sense: contents for sense, contents in given.items() if contents}
        if recording is None and not shown:
            raise OptionError("Nothing to recognise", hint="give a recording, a picture or a text")
        if recording is None:
            return self.fuse(shown=self.seen(shown), single=single(shown))
        smell = self.board(recording, nose)
        parts = read_parts(recording, smell)
        why = unknown(parts, smell)
        if why:
            return self.without_smell(why, self.seen(shown), single=single(shown))
        windows = windows_of(parts, smell)
        if not shown:
            return self.judge(*smell.recording(windows), smell=smell)
        return self.fuse(self.smelled(smell, windows), shown=self.seen(shown))

    def without_smell(self, why: str, shown: Mapping[str, Evidence], *, single: bool = False) -> Mixture:
        """Return what is `shown` alone, with the smell left out and `why`; no answer where nothing is shown."""
        if not shown:
            return unanswered(why)
        silent = Evidence(named(normalised(np.zeros(len(SCENTS)))), 0.0, why)
        return self.fuse(shown={"smell": silent, **shown}, single=single)

    def judge(self, probabilities: NDArray, trust: float | None = None, *, smell: Smell | None = None) -> Mixture:
        """Return what the smell's `probabilities` (classes,) amount to: a name, beta, and whether to play it.

        `trust` is how far the smell is trusted; as far as it speaks for the twelve, if nothing else is known.
        """
        smell = smell or self.smell
        best = int(np.argmax(probabilities))
        shares = smell.shares(probabilities)
        inside = float(shares.sum())
        beta = normalised(shares)
        if decide(probabilities[None], smell.confidence.thresholds)[0] == ABSTAIN:
            reasons = ("not sure", "not sure")
        elif inside < 1 - OUTSIDE:
            name = smell.classes[best]
            reasons = 2 * ("not sure" if name in SCENTS else f"{name} is not one of the player's scents",)
        else:
            reasons = undecided(beta, margin=self.margin)
        return Mixture(
            named(beta),
            smell.classes[best],
            float(probabilities[best]),
            {"smell": Evidence(named(beta), min(1.0, inside) if trust is None else trust)},
            tuple(probabilities.tolist()),
            *reasons,
        )

    def smelled(self, smell: Smell, windows: NDArray) -> tuple[NDArray[np.float64], float]:
        """What windows of one recording make the experts believe, (m + 1,), and how far that is to be trusted."""
        if isinstance(smell, MixtureSmell):
            each, known = self.fused.smelled(smell.hybrid, windows)
            return each.mean(axis=0), known
        return self.believed(smell.recording(windows)[0], smell)

    def believed(self, probabilities: NDArray, smell: Smell | None = None) -> tuple[NDArray[np.float64], float]:
        """The same from the `probabilities` (classes,) of a board: a running mean, say."""
        shares = (smell or self.smell).shares(probabilities)
        inside = min(1.0, float(shares.sum()))
        return self.fused.experts.named(shares[None], np.array([1 - inside]))[0], inside

    def seen(self, shown: Mapping[str, Sequence[str | Path]]) -> dict[str, Evidence]:
        """The evidence of pictures and texts, by sense: their mean shares; trust 0 where it is like nothing."""
        evidence = {}
        for sense, contents in shown.items():
            try:
                said = [self.fused.senses.shares(sense, one) for one in contents]
            except DataError as why:
                raise DataError(f"The {sense}: {why.what}", hint=why.hint) from why
            each = [shares for shares in said if shares is not None]
            right = float(np.trace(self.fused.experts.confusion[sense]) / len(SCENTS))
            told = np.mean(each, axis=0) if each else normalised(np.zeros(len(SCENTS)))
            evidence[sense] = Evidence(named(told), right if each else 0.0, "" if each else "like nothing known")
        return evidence

    def fuse(
        self,
        smelled: tuple[NDArray, float] | None = None,
        *,
        shown: Mapping[str, Evidence] | None = None,
        single: bool = False,
    ) -> Mixture:
        """Return the Mixture of what is `smelled` (a belief and its trust) and what pictures and texts have `shown`.

        `single`: there is at most one of each, so without a smell it is probably of one scent.
        """
        experts = self.fused.experts
        evidence: dict[str, Evidence] = {}
        shown = shown or {}
        if smelled is not None:
            evidence["smell"] = Evidence(named(normalised(experts.mean(smelled[0][None])[0])), smelled[1])
        evidence |= shown
        told = {sense: one for sense, one in shown.items() if one.trust > 0}
        likelihoods = [experts.seen(sense, [[*one.shares.values()]]) for sense, one in told.items()]
        belief = smelled[0][None] if smelled is not None else experts.flat(single=single)
        posterior = experts.fuse(belief, *likelihoods)
        beta = experts.decide(posterior)[0]
        best = int(beta.argmax())
        sure = float(posterior[0, :-1] @ loudest(experts.compositions)[:, best])
        reasons = self._reasons(posterior[0], beta, sure, nothing=not told and smelled is None)
        return Mixture(named(normalised(beta)), SCENTS[best], sure, evidence, (), *reasons)

    def _reasons(self, posterior: NDArray, beta: NDArray, sure: float, *, nothing: bool) -> tuple[str, str]:
        experts, limits = self.fused.experts, self.fused.limits
        if nothing:
            return 2 * ("like nothing that these weights know",)
        if posterior[-1] > 1 - OUTSIDE:
            return 2 * ("probably none of the player's scents",)
        expected = float(experts.expected_error(posterior[None], beta[None])[0])
        likely = np.argsort(-(posterior[:-1] @ loudest(experts.compositions)), kind="stable")[:2]
        doubt = f"not sure: {SCENTS[likely[0]]} or {SCENTS[likely[1]]}"
        return doubt if sure < limits.sure else "", doubt if expected > limits.error else ""


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


def read_parts(recording: Recording, smell: Smell) -> list[NDArray[np.float32]]:
    """Return a recording as parts (rows, columns) between which its clock shows a gap."""
    if isinstance(recording, (str, Path)):
        return [stretch.values for stretch in smell.stretches(Path(recording))]
    rows = read_rows(recording, smell)
    if isinstance(recording, pd.DataFrame):
        return [part.values for part in by_clock(recording, rows, pace=smell.pace)]
    return [rows]


def unknown(parts: Sequence[NDArray], smell: Smell) -> str:
    """Why a recording's parts lie outside what the weights know, or ""."""
    rows = np.concatenate(parts)
    return outside(rows, smell.ranges) if len(rows) >= smell.span else ""


def windows_of(parts: Sequence[NDArray], smell: Smell, *, stride: int = 0) -> NDArray[np.float32]:
    """Return the windows (n, steps, channels) of a recording's parts, at least one; DataError when it is too short."""
    longest = max(map(len, parts))
    if longest < smell.span:
        raise DataError(f"{longest} rows are fewer than the {smell.span} of one window", hint="record longer")
    return np.concatenate([smell.windows(rows, stride=stride) for rows in parts])


def read_windows(recording: Recording, smell: Smell, *, stride: int = 0) -> NDArray[np.float32]:
    """Return a recording's windows (n, steps, channels), at least one; DataError when it is too short for that."""
    return windows_of(read_parts(recording, smell), smell, stride=stride)


def loudest(table: NDArray) -> NDArray[np.bool_]:
    """Whether a scent is the loudest in each row of shares (m, 12), or one of those that are equally loud, (m, 12)."""
    return table >= table.max(axis=1, keepdims=True) - ALIKE


def several(given: Any) -> list:
    """One path or text as a list of it, None as an empty one, and a list as it is."""
    if given is None:
        return []
    return [given] if isinstance(given, (str, Path)) else list(given)


def single(shown: Mapping[str, Sequence]) -> bool:
    """Whether there is at most one picture and one text: then they are probably of one scent."""
    return all(len(contents) == 1 for contents in shown.values())


def _of_mixture_board(recording: Recording, smell: Smell) -> bool:
    """Whether a recording has the mixture board's columns and not those of `smell`."""
    if isinstance(recording, (str, Path)):
        names: Iterable[str] = _header(Path(recording))
    elif isinstance(recording, pd.DataFrame):
        names = map(str, recording.columns)
    else:
        return np.ndim(recording) == 2 and np.shape(recording)[1] == len(MIXTURE_GAS) != len(smell.columns)
    there = {name.strip() for name in names}
    return (
        not set(smell.columns) <= there and {"NO2", "VOC", "CO"} <= there and not there & {"LPG", "Alcohol", "Benzene"}
    )


def _header(path: Path) -> list[str]:
    """The names in the first line of a CSV file; none where it can't be read, which its reader explains."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(10_000)
    except (OSError, UnicodeDecodeError):
        return []
    return next(csv.reader([line], delimiter=";" if line.count(";") > line.count(",") else ","), [])


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
