"""The way of a recording, in one file: from what three senses have to what is played.

    recording -> windows -> z (50 channels) -> odour vector --+
    picture   -> scene encoder -> probe ----------------------+-- evidence -> experts -> beta (12) -> play, or not
    text      -> scene encoder -> probe ----------------------+

`Pipeline.load()` takes trained weights, `Pipeline.fit(data)` fits the last layers to a folder of one's own in seconds.
A recording alone is judged by its board's own weights; several senses are fused by `experts`.
Live recognition, prediction, the panel and the notebooks go through here; `Mixture.play` alone leads to the air.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from smellkit import checkpoint, paths
from smellkit.checks import Report
from smellkit.checks.ranges import outside
from smellkit.device import playlist
from smellkit.device.neckwear import NeckWear
from smellkit.device.playlist import Playlist
from smellkit.errors import DataError, OptionError
from smellkit.odour.confidence import ABSTAIN, decide, prediction_sets
from smellkit.odour.formats import header_of
from smellkit.odour.readers import Stretch, by_clock
from smellkit.odour.recordings import MIXTURE_GAS, find
from smellkit.odour.scents import SCENTS
from smellkit.odour.smell import SHIPPED, Fused, MixtureSmell, Smell, SubstanceSmell, load_smell
from smellkit.sensors import PPM

OUTSIDE = 0.5  # the most that may speak for a smell which the player has not
FEW = 4  # substances that are told where one is not sure
ALIKE = 1e-3  # shares that differ by less are equally loud
Recording: TypeAlias = str | Path | pd.DataFrame | ArrayLike
Pictures: TypeAlias = str | Path | Sequence[str | Path]
Belief: TypeAlias = tuple[NDArray[np.float64], float]  # of the experts in each composition, (m + 1,), and its trust


@dataclass(frozen=True)
class Evidence:
    """What one sense alone says: shares of the twelve scents, and how much it is trusted, 0 to 1.

    A smell is trusted as far as its session is known, or as it speaks for the twelve; pictures and texts as often as
    their kind was right where it could be checked. At 0 it said nothing and was left out, and `why` says the reason.
    """

    shares: Mapping[str, float]
    trust: float = 1.0
    why: str = ""


@dataclass(frozen=True)
class Mixture:
    """What was recognised and what may be played of it."""

    beta: Mapping[str, float]  # a share for each of the twelve scents, in the order of the player's channels, sum 1
    name: str  # the likeliest class, which may be none of the twelve, and its probability
    confidence: float
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    probabilities: tuple[float, ...] = ()  # of all classes
    reason: str = ""  # why no single scent should be played, empty when it may
    mixture_reason: str = ""  # why no mixture should be played
    seconds: float = 0.0  # how long the answer took
    category: str = ""  # the likeliest kind of food, of a single smell, and its probability
    category_confidence: float = 0.0
    among: tuple[str, ...] = ()  # of a single smell: the classes that hold it as often as was learnt

    @property
    def abstains(self) -> bool:  # so that no single scent should be played
        return bool(self.reason)

    @property
    def shares(self) -> tuple[float, ...]:
        """The twelve shares alone, in channel order."""
        return tuple(self.beta.values())

    def play(self, neck: NeckWear, *, seconds: float = 8, mixture: bool = False, wait: bool = False) -> Played:
        """Play the loudest scent, or nothing when this abstains; return at once, or after the end with `wait`."""
        if self.mixture_reason if mixture else self.reason:
            return Played(self)
        if mixture:
            played = Played(self, plan=neck.play_mixture(self.shares, seconds=seconds))
        else:
            played = Played(self, scent=playlist.top(self.shares))
            neck.play(played.scent or 0, seconds=seconds)
        if wait:
            neck.wait()
        return played

    def mix(self, neck: NeckWear, *, seconds: float = 60) -> Played:
        """Play the mixture as a sequence of slots, or nothing when this abstains; return at once."""
        return self.play(neck, seconds=seconds, mixture=True)


@dataclass(frozen=True)
class Played:
    """What was recognised and what was played of it: nothing, one scent, or the slots of a mixture."""

    mixture: Mixture
    scent: int | None = None
    plan: Playlist | None = None

    def __bool__(self) -> bool:
        return self.scent is not None or self.plan is not None


class Pipeline:
    """Smell, and where they are known picture and text, to a Mixture.

    >>> pipeline = Pipeline.load()
    >>> answer = pipeline("banana.csv", picture="fruit.jpg", text="sweet and ripe")
    >>> answer.name, answer.beta["banana"], answer.evidence["picture"].shares, answer.reason
    """

    def __init__(self, smell: Smell, *, fused: Callable[[], Fused] = Fused.load, others: bool = False):
        self.smell = smell
        self._load_fused = fused
        self._others = others  # whether a recording of the other board is understood, too

    @classmethod
    def load(cls, weights: str | Path = "odour") -> Pipeline:
        """With trained weights: odour (twelve columns, 1 Hz), mixture (four columns, 10 Hz), or a folder of such.

        odour is for a day of one's own, odour-same-session for the days of its training recordings. With these two
        both boards are understood: a recording says by its columns which one it is of. Weights of a fusion belong to
        the mixture board.
        """
        folder = checkpoint.find(weights)
        if checkpoint.manifest(folder).get("kind") == "fusion":
            fused = Fused.load(folder)
            return cls(load_smell("mixture"), fused=lambda: fused)
        both = folder.parent == paths.weights() and folder.name.startswith("odour")
        return cls(load_smell(folder), others=both)

    @classmethod
    def fit(cls, data: str | Path | None = None, *, scene: str = "") -> Pipeline:
        """With the shipped encoder and read-outs fitted to the recordings, pictures and descriptions in `data`.

        The sample by default, whose simulated nose the shipped read-out has never smelled. Pictures and descriptions
        are read by the encoder `scene` when one is first asked about.
        """
        smell, folder = SubstanceSmell.load(checkpoint.find("odour")).fit(data), find(data)
        known = scene if scene in SHIPPED else ""
        return cls(smell, fused=lambda: Fused.load(scene=known).fit(folder, scene=scene))

    @cached_property
    def fused(self) -> Fused:
        """What fuses the senses; loaded, or fitted to a folder's pictures and descriptions, when it is first needed."""
        return self._load_fused()

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
        mixture = nose == "mixture" or (not nose and _of_mixture_board(recording, self.smell))
        return self._mixture_board if mixture else self.smell

    def __call__(
        self,
        recording: Recording | None = None,
        *,
        picture: Pictures | None = None,
        text: str | Sequence[str] | None = None,
        nose: str = "",
    ) -> Mixture:
        """Return the Mixture of a recording, pictures and texts of one scene; each may be absent, but not all.

        A recording is a CSV file, a table with the nose's columns, or an array (rows, columns) of just those, with
        the name of its `nose` where the number of columns does not tell.
        """
        given = {"picture": several(picture), "text": several(text)}
        single = max(map(len, given.values())) == 1
        if recording is None and not any(given.values()):
            raise OptionError("Nothing to recognise", hint="give a recording, a picture or a text")
        if recording is None:
            return self.fuse(shown=self.seen(given), single=single)
        smell = self.board(recording, nose)
        windows, _, why = read_windows(recording, smell)
        if why:
            return self.without_smell(why, self.seen(given), single=single)
        if shown := self.seen(given):
            return self.fuse(self.smelled(smell, windows), shown=shown)
        return self.judge(*smell.recording(windows), smell=smell)  # by z and the odour vector, see `smell.scores`

    def without_smell(self, why: str, shown: Mapping[str, Evidence], *, single: bool = False) -> Mixture:
        """Return what is `shown` alone, with the smell left out and `why`; no answer where nothing is shown."""
        if not shown:
            return Mixture(FLAT, "", 0.0, reason=why, mixture_reason=why)
        return self.fuse(shown={"smell": Evidence(FLAT, 0.0, why), **shown}, single=single)

    def judge(self, probabilities: NDArray, trust: float | None = None, *, smell: Smell | None = None) -> Mixture:
        """What `probabilities` (classes,) amount to; without a `trust`, trusted as they speak for the twelve."""
        smell = smell or self.smell
        shares, name = smell.shares(probabilities), smell.classes[int(np.argmax(probabilities))]
        beta, speaking = normalised(shares), float(shares.sum())
        kind, sure = smell.category(probabilities)
        inside = prediction_sets(probabilities[None], smell.confidence.quantile)[0]
        among = tuple(smell.classes[i] for i in np.argsort(-probabilities, kind="stable") if inside[i])
        if decide(probabilities[None], smell.confidence.thresholds)[0] == ABSTAIN:
            which = f" which of the {kind}" if sure > smell.confidence.category_least else ""
            which = f": {', '.join(among[:-1])} or {among[-1]}" if 1 < len(among) <= FEW else which
            reasons = 2 * (f"not sure{which}",)
        elif speaking < 1 - OUTSIDE:
            reasons = 2 * ("not sure" if name in SCENTS else f"{name} is not one of the player's scents",)
        else:
            reasons = undecided(beta)
        evidence = {"smell": Evidence(named(beta), min(1.0, speaking) if trust is None else trust)}
        every = tuple(probabilities.tolist())
        answer = Mixture(named(beta), name, float(probabilities.max()), evidence, every, *reasons)
        return replace(answer, category=kind, category_confidence=sure, among=among)

    def smelled(self, smell: Smell, windows: NDArray, probabilities: NDArray | None = None) -> Belief:
        """What windows of one recording make the experts believe, and how far that is to be trusted.

        A board of substances goes by its `probabilities` (classes,), such as a running mean, where they are given.
        """
        if isinstance(smell, MixtureSmell):
            each, known = self.fused.smelled(smell.hybrid, windows)
            return each.mean(axis=0), known
        shares = smell.shares(smell.recording(windows)[0] if probabilities is None else probabilities)
        speaking = min(1.0, float(shares.sum()))
        return self.fused.experts.named(shares[None], np.array([1 - speaking]))[0], speaking

    def seen(self, shown: Mapping[str, Sequence[str | Path]]) -> dict[str, Evidence]:
        """The evidence of pictures and texts, by sense: their mean shares; trust 0 where it is like nothing."""
        evidence = {}
        for sense, contents in shown.items():
            if not contents:
                continue
            try:
                answers = [self.fused.senses.shares(sense, one) for one in contents]
            except DataError as why:
                raise DataError(f"The {sense}: {why.what}", hint=why.hint) from why
            each = [shares for shares in answers if shares is not None]
            right = float(self.fused.experts.confusion[sense].trace() / len(SCENTS))
            known = Evidence(named(np.mean(each, axis=0)), right) if each else None
            evidence[sense] = known or Evidence(FLAT, 0.0, "like nothing known")
        return evidence

    def likelihoods(self, shown: Mapping[str, Evidence]) -> list[NDArray[np.float64]]:
        """What the evidence that is trusted at all says of each composition, (1, m + 1) each."""
        trusted = {sense: one for sense, one in shown.items() if one.trust > 0}
        return [self.fused.experts.seen(sense, [[*one.shares.values()]]) for sense, one in trusted.items()]

    def fuse(
        self, smelled: Belief | None = None, *, shown: Mapping[str, Evidence] | None = None, single: bool = False
    ) -> Mixture:
        """The Mixture of what is `smelled` and `shown`; `single`: at most one of each, so probably one scent."""
        experts, evidence = self.fused.experts, dict(shown or {})
        likelihoods, belief = self.likelihoods(evidence), experts.flat(single=single)
        nothing = not likelihoods and smelled is None
        if smelled is not None:
            belief = smelled[0][None]
            evidence = {"smell": Evidence(named(normalised(experts.mean(belief)[0])), smelled[1])} | evidence
        posterior = experts.fuse(belief, *likelihoods)
        beta, chances = experts.decide(posterior), posterior[0, :-1] @ loudest(experts.compositions)
        best = int(beta[0].argmax())
        first, second = np.argsort(-chances, kind="stable")[:2]
        unsure, limits = f"not sure: {SCENTS[first]} or {SCENTS[second]}", self.fused.limits
        if nothing:
            reasons = 2 * ("like nothing that these weights know",)
        elif posterior[0, -1] > 1 - OUTSIDE:
            reasons = 2 * ("probably none of the player's scents",)
        else:
            wrong = experts.expected_error(posterior, beta)[0] > limits.error
            reasons = unsure if chances[best] < limits.sure else "", unsure if wrong else ""
        return Mixture(named(normalised(beta[0])), SCENTS[best], float(chances[best]), evidence, (), *reasons)


def read_windows(
    recording: Recording, smell: Smell, *, stride: int = 0, report: Report | None = None
) -> tuple[NDArray[np.float32], list[int], str]:
    """Windows (n, steps, channels) of a recording, the row at which each begins, and why the weights can't know it.

    They lie `stride` rows apart, by default as far as the weights want; none lies across a gap. DataError for a
    recording without a whole window, and for what `read_parts` refuses.
    """
    parts, stride = read_parts(recording, smell, report=report), stride or smell.stride
    rows, longest = np.concatenate([part.values for part in parts]), max(len(part.row) for part in parts)
    why = outside(rows, smell.ranges) if len(rows) >= smell.span else ""
    if longest < smell.span and not why:
        name = f"{recording}: " if isinstance(recording, (str, Path)) else ""
        what = f"{name}{longest} rows are fewer than the {smell.span} of one window"
        raise DataError(what, hint="record longer")
    windows = [smell.windows(part.values, stride=stride) for part in parts]
    begins = [part.row[::stride][: len(own)].tolist() for part, own in zip(parts, windows, strict=True)]
    return np.concatenate(windows), sum(begins, []), why


def read_parts(recording: Recording, smell: Smell, *, report: Report | None = None) -> list[Stretch]:
    """Return a CSV file, a table or an array as rows (rows, columns) of the smell's nose, a part between two gaps.

    DataError for a column that is missing, another number of columns, and a cell that is not a finite number.
    """
    if isinstance(recording, (str, Path)):
        return smell.stretches(Path(recording), report=report)
    columns, values = smell.columns, recording
    if isinstance(recording, pd.DataFrame):
        if lost := [name for name in columns if name not in recording]:
            raise DataError(f"The table has no column {', '.join(lost)}", hint=f"needed are {', '.join(columns)}")
        values = recording[list(columns)]
    try:
        rows = np.asarray(values, np.float32)
    except (TypeError, ValueError) as why:
        raise DataError(f"The recording holds what is not a number: {why}", hint="numbers alone") from why
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise DataError(f"A recording of shape {rows.shape}", hint=f"(rows, {len(columns)}): {', '.join(columns)}")
    if len(wrong := np.argwhere(~np.isfinite(rows))):
        row, column = wrong[0]
        raise DataError(f"Row {row}, column {columns[column]}: {rows[row, column]}", hint="drop or fill the rows first")
    if isinstance(recording, pd.DataFrame):
        return by_clock(recording, rows, smell.nose)
    return [Stretch(rows, np.arange(len(rows)))]


def _of_mixture_board(recording: Recording, smell: Smell) -> bool:
    """Whether a recording has the mixture board's columns and not those of `smell`."""
    if not isinstance(recording, (str, Path, pd.DataFrame)):
        return np.ndim(recording) == 2 and np.shape(recording)[1] == len(MIXTURE_GAS) != len(smell.columns)
    names = recording.columns if isinstance(recording, pd.DataFrame) else header_of(Path(recording))
    there = {str(name).strip() for name in names}
    other = not set(smell.columns) <= there and not there & set(PPM)
    return other and {"NO2", "VOC", "CO"} <= there


def loudest(table: NDArray) -> NDArray[np.bool_]:
    """Whether a scent is the loudest in each row of shares (m, 12), or one of those that are equally loud, (m, 12)."""
    return table >= table.max(axis=1, keepdims=True) - ALIKE


def several(given: Any) -> list:
    """One path or text as a list of it, None as an empty one, and a list as it is."""
    return [] if given is None else [given] if isinstance(given, (str, Path)) else list(given)


def normalised(shares: ArrayLike) -> NDArray[np.float64]:
    """Twelve shares of sum 1; a flat mixture where nothing speaks for any of them."""
    shares = np.asarray(shares, np.float64)
    return shares / shares.sum() if shares.sum() > 0 else np.full(len(SCENTS), 1 / len(SCENTS))


def named(shares: NDArray) -> dict[str, float]:
    """Shares in channel order under the names of the twelve scents."""
    return dict(zip(SCENTS, np.asarray(shares).tolist(), strict=True))


FLAT = named(normalised(np.zeros(len(SCENTS))))  # what is said where nothing is known


def undecided(beta: NDArray) -> tuple[str, str]:
    """Why neither a scent nor a mixture of `beta` should be played, each empty when it may."""
    first, second = np.argsort(-beta, kind="stable")[:2]
    reason = f"not sure: {SCENTS[first]} or {SCENTS[second]}"
    scent, mixture = (playlist.abstains(beta.tolist(), mixture=kind) for kind in (False, True))
    return reason if scent else "", reason if scent and mixture else ""


def as_mixture(shares: ArrayLike) -> Mixture:
    """A Mixture of shares (12,) in channel order that come from elsewhere, such as a model just trained."""
    beta = normalised(shares)
    best = int(beta.argmax())
    return Mixture(named(beta), SCENTS[best], float(beta[best]), {}, (), *undecided(beta))
