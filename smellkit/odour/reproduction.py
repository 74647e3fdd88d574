"""Close the loop between player and nose: play a mixture, sniff it, compare it with the target, adjust, again.

    each scent of the target alone -> what it answers, how strong it is -> play target / strength
       +-> air out -> play -> sniff -> amounts of each scent -> shares -> near the target? -> done
       +----------- played * (target / sniffed) ** gain <---------------- no

What counts is the change of log conductance from the clean air just before, so that offset and drift drop out. The
power law ln(G / G0) = exponent * ln(1 + sum_i a_i x_i) makes amounts a_i of the scents' own answers x_i of it (Clifford
and Tuma, Sensors and Actuators 3, 1983, 233-254). Time is told by the nose's rows; nothing here sleeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smellkit.device import playlist
from smellkit.device.enose import Row
from smellkit.device.errors import LinkError
from smellkit.device.neckwear import NeckWear
from smellkit.errors import OptionError, SmellkitError
from smellkit.odour.calibration import POWER
from smellkit.odour.pipeline import Mixture, named
from smellkit.odour.scents import SCENTS, substance
from smellkit.odour.windows import log_conductance
from smellkit.options import nearest
from smellkit.sensors import GROVE

FAINT = 0.05  # a share of a recognised mixture that is left out: recognition is no better than that
WEAK = 0.03  # log conductance by which a scent alone has to move the sensors to be measured
STRANGE = 0.1  # root mean square in log conductance by which a sniff may differ from every mixture of the scents
NOISE = 0.02  # in log conductance: how well the pattern of a sniff repeats
REFERENCE = 0.13  # in logarithm: how well the amount of a scent alone is measured
GUST = 0.12  # in logarithm: how far the amounts of one sniff may be from those of another, all alike
FADED = 0.03  # in logarithm: how much one scent may change from sniff to sniff
SLOT = 1.0  # s: the shortest that the player takes, for the evenest air
STEP = 3.0  # the most by which one step changes a share, as a ratio
Answer = NDArray[np.float64]  # (4,) ln(G / G0) of the Grove sensors: over clean air


@dataclass(frozen=True)
class Sniffing:
    """How one sniff is made: aired out for `air` seconds, played for `seconds`, of both the last `window` count.

    `exponents` are those of the board's four Grove sensors, NO2, C2H5OH, VOC, CO; by default SmellNet's board's.
    """

    seconds: float = 40.0
    air: float = 300.0
    window: float = 10.0
    exponents: Sequence[float] = tuple(1 / POWER)

    def __post_init__(self) -> None:
        if not 0 < self.window <= min(self.seconds, self.air):
            raise OptionError(f"window is {self.window:g} s", hint="above 0, and no longer than seconds and air")
        if len(self.exponents) != len(GROVE) or not all(0 < one <= 1 for one in self.exponents):
            hint = f"one from 0 to 1 for each of {', '.join(GROVE)}"
            raise OptionError(f"exponents are {self.exponents!r}", hint=hint)


@dataclass(frozen=True)
class Step:
    """One mixture: the shares that were played and sniffed, by scent, and their mean absolute error from the target."""

    played: Mapping[str, float]
    sniffed: Mapping[str, float]
    error: float


@dataclass(frozen=True)
class Reproduction:
    """How near the sniffed mixture came to the target, in twelve shares by scent."""

    target: Mapping[str, float]
    reason: str  # why it ended
    strengths: Mapping[str, float] = field(default_factory=dict)  # how strong each scent was alone, a sniff each
    steps: tuple[Step, ...] = ()  # the mixtures, in order
    failure: SmellkitError | None = None  # what a device or a sniff did wrong, if that was why

    @property
    def best(self) -> Step | None:
        """The step that was nearest to the target; None when no mixture was sniffed."""
        return min(self.steps, key=lambda step: step.error, default=None)

    @property
    def sniffs(self) -> int:
        return len(self.strengths) + len(self.steps)


class Unmeasurable(SmellkitError):
    """A sniff that tells no shares: too weak, like no mixture of its scents, interrupted, or with rows lost in it."""


def reproduce(
    nose: Any,
    neck: NeckWear,
    target: Mixture | Mapping[str, float] | Sequence[float],
    *,
    budget: int = 12,
    near: float = 0.005,
    gain: float = 0.8,
    standards: Mapping[str, Answer] | None = None,
    sniffing: Sniffing | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Reproduction:
    """Play `target` and adjust what is played until the nose finds its shares in the air; at most `budget` sniffs.

    `nose` is a `Nose`, or what has its `columns`, `read` and `rows`. `target` maps scents to shares, or holds all
    twelve, or was recognised. Each of its scents is sniffed alone first. It ends when the mean absolute error of the
    twelve shares is `near` or less; `gain` is the part of a difference that one step corrects. Shares are of amounts in
    units of the `standards`, which `answers` measures once; without them, of how strongly the sensors answer. `go_on`
    is asked at each row. Whatever happens, the player is stopped in the end; what went wrong with a device or a sniff
    is the `failure` of the result.
    """
    asked = wanted(target)
    if isinstance(target, Mixture) and target.mixture_reason:
        return Reproduction(asked, f"nothing was played: {target.mixture_reason}")
    scents = [name for name, share in asked.items() if share > 0]
    if isinstance(budget, bool) or not isinstance(budget, int) or budget <= len(scents):
        raise OptionError(f"budget is {budget!r}", hint=f"{len(scents) + 1} or more: each scent is sniffed alone first")
    if missing := [name for name in scents if standards is not None and name not in standards]:
        raise OptionError(f"There is no standard of {', '.join(missing)}", hint="measure it with `answers`")
    bench = _Bench(nose, neck, sniffing or Sniffing(), go_on)
    power = np.asarray(bench.sniffing.exponents)
    alone: dict[str, Answer] = {}
    strengths: dict[str, float] = {}
    steps: list[Step] = []
    why: SmellkitError | None = None
    try:
        for name in scents:
            alone[name] = bench.alone(name)
            unit = np.ones(len(GROVE)) if standards is None else np.expm1(np.asarray(standards[name]) / power)
            strengths[name] = float(np.expm1(alone[name] / power).sum() / unit.sum())
        aim, strong = np.array([asked[name] for name in scents]), np.array([*strengths.values()])
        asking, belief = aim / strong, Belief.first(len(scents))
        while len(strengths) + len(steps) < budget and not (steps and steps[-1].error <= near):
            asking = asking / asking.sum()
            played, belief = bench.mixture(alone, asking, belief)
            sniffed = played * np.exp(belief.logs) * strong
            sniffed = sniffed / sniffed.sum()
            first, second = (
                dict.fromkeys(SCENTS, 0.0) | dict(zip(scents, one.tolist(), strict=True)) for one in (played, sniffed)
            )
            steps.append(Step(first, second, float(abs(sniffed - aim).sum()) / len(SCENTS)))
            asking = asking * np.clip(aim / np.maximum(sniffed, 1e-9), 1 / STEP, STEP) ** gain
    except (LinkError, Unmeasurable) as failure:
        why = failure
    finally:
        bench.silence()
    reason = why.what if why else "near the target" if steps[-1].error <= near else "no sniff is left"
    return Reproduction(asked, reason, strengths, tuple(steps), why)


def answers(
    nose: Any, neck: NeckWear, scents: Iterable[str] = SCENTS, *, sniffing: Sniffing | None = None
) -> dict[str, Answer]:
    """Sniff each of `scents` alone and return what the four Grove sensors answer: ln(G / G0), by scent.

    From cartridges of known strength these are the standards of `reproduce`. LinkError and Unmeasurable come through.
    """
    bench = _Bench(nose, neck, sniffing or Sniffing(), lambda: True)
    try:
        return {name: bench.alone(name) for name in map(_scent, scents)}
    finally:
        bench.silence()


def wanted(target: Mixture | Mapping[str, float] | Sequence[float]) -> dict[str, float]:
    """Return the twelve shares of `target` by scent, sum 1, or raise OptionError that says what is wrong with it.

    Of a recognised mixture, shares below `FAINT` are left out.
    """
    if isinstance(target, Mixture):
        shares = np.where(np.array(target.shares) < FAINT, 0.0, target.shares)
        return named(shares / shares.sum())
    if isinstance(target, Mapping):
        given = {_scent(name): share for name, share in target.items()}
        if len(given) < len(target):
            raise OptionError(f"A target names a scent twice: {', '.join(target)}", hint="each scent once")
        target = [given.get(name, 0.0) for name in SCENTS]
    return dict(zip(SCENTS, playlist.check(target), strict=True))


def _scent(name: str) -> str:
    known = substance(str(name))
    if known not in SCENTS:
        raise OptionError(f"The player has no scent {name!r}", hint=nearest(known, SCENTS))
    return known


@dataclass(frozen=True)
class Belief:
    """What is believed of the scents' deliveries, at first as sure as a scent alone is measured."""

    logs: NDArray[np.float64]  # (scents,), logarithm of how much more of each comes than came alone
    covariance: NDArray[np.float64]  # (scents, scents), how sure that is

    @classmethod
    def first(cls, scents: int) -> Belief:
        return cls(np.zeros(scents), REFERENCE**2 * np.eye(scents))

    def updated(self, change: Answer, alone: NDArray, played: NDArray, exponents: ArrayLike) -> tuple[Belief, float]:
        """Return what a sniff makes of it, and the root mean square in log conductance of what no mixture explains.

        `change` (4,) is the sniff, `alone` (scents, 4) what each scent answered, `played` (scents,) the shares sent.
        Since the sniff before, all may come stronger or weaker (`GUST`), and each may have changed (`FADED`).
        """
        from scipy.optimize import least_squares

        power, count = np.asarray(exponents), len(played)
        pure = np.expm1(alone / power)
        before = self.covariance + GUST**2 * np.ones((count, count)) + FADED**2 * np.eye(count)
        root = np.linalg.cholesky(np.linalg.inv(before)).T

        def rest(logs: NDArray) -> NDArray:
            return power * np.log1p((played * np.exp(logs)) @ pure) - change

        fit = least_squares(lambda logs: np.concatenate([rest(logs) / NOISE, root @ (logs - self.logs)]), self.logs)
        after = np.linalg.inv(fit.jac.T @ fit.jac)
        return Belief(fit.x, after), float(np.sqrt(np.mean(rest(fit.x) ** 2)))


class _Bench:
    """Player and nose, and how a sniff is made with them."""

    def __init__(self, nose: Any, neck: NeckWear, sniffing: Sniffing, go_on: Callable[[], bool]):
        if missing := [name for name in GROVE if name not in nose.columns]:
            raise OptionError(f"The nose has no {', '.join(missing)}", hint=f"a board with {', '.join(GROVE)}")
        self.sniffing, self._nose, self._neck, self._go_on = sniffing, nose, neck, go_on
        self._places = [list(nose.columns).index(name) for name in GROVE]
        self._run: int | None = None

    def alone(self, name: str) -> Answer:
        """What the sensors answer to one scent."""
        change, _ = self.sniff({name: 1.0})
        if (strong := float(np.sqrt(np.mean(change**2)))) < WEAK or change.mean() < 0:
            hint = "is its cartridge empty, or the nose too far away?"
            raise Unmeasurable(f"{name} moves the sensors by {strong:.3f} in log conductance, too little", hint=hint)
        return change

    def mixture(self, alone: Mapping[str, Answer], shares: NDArray, belief: Belief) -> tuple[NDArray, Belief]:
        """Play `shares` of the scents that are known `alone`; return those that were sent, and what is believed now."""
        change, sent = self.sniff(dict(zip(alone, shares.tolist(), strict=True)))
        played = np.array([sent.get(SCENTS.index(name) + 1, 0.0) for name in alone])
        belief, rest = belief.updated(change, np.array([*alone.values()]), played, self.sniffing.exponents)
        if rest > STRANGE:
            hint = "sniff its scents again: the air, the session or a cartridge has changed"
            raise Unmeasurable(f"The sniff differs by {rest:.2f} from every mixture of its scents", hint=hint)
        return played, belief

    def silence(self) -> None:
        """Stop the player; a port that is gone can't be told, and its device stops by itself."""
        with suppress(LinkError):
            self._neck.stop()

    def sniff(self, shares: Mapping[str, float]) -> tuple[Answer, dict[int, float]]:
        """The change of log conductance from clean air to the end of playing `shares`, and the shares sent."""
        self._run = None
        self._nose.rows()  # what came before
        clean = self._level(self.sniffing.air)
        beta = [shares.get(name, 0.0) for name in SCENTS]
        plan = self._neck.play_mixture(beta, seconds=self.sniffing.seconds, slot=SLOT, gap=0.0, keep=len(shares))
        smelled = self._level(math.inf)
        self._neck.wait()
        sent, planned = self._neck.achieved(), {scent for scent, share in enumerate(plan.achieved, 1) if share}
        if self._neck.ended in ("stopped", "replaced") or set(sent) != planned:
            raise Unmeasurable("The player was stopped, or played something else", hint="leave it alone meanwhile")
        return smelled - clean, sent

    def _level(self, seconds: float) -> Answer:
        """Mean log conductance (4,) at the end of the next `seconds`, or of what plays; a gap in it is Unmeasurable."""
        rows: list[Row] = []
        while not rows or (rows[-1].time - rows[0].time < seconds if seconds < math.inf else self._neck.playing):
            if not self._go_on():
                raise Unmeasurable("It was asked to end", hint="start again")
            row = self._nose.read()
            self._run = row.run if self._run is None else self._run
            if row.run != self._run:
                raise Unmeasurable("Rows of the nose were lost in the middle of a sniff", hint="start again")
            rows.append(row)
        last = [row.values for row in rows if row.time > rows[-1].time - self.sniffing.window]
        return np.asarray(log_conductance(np.array(last)[:, self._places]), np.float64).mean(axis=0)
