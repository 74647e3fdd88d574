"""Close the loop between player and nose, and measure how near it brings the air to a target.

    each scent of the target alone -> what it answers, how strong it is -> play target / strength
       +-> air out -> play -> sniff -> amounts of each scent -> shares -> near the target? -> done
       +----------- played * (target / sniffed) ** gain <---------------- no

What counts is the change of log conductance from the clean air just before, so that offset and drift drop out. The
power law ln(G / G0) = exponent * ln(1 + sum_i a_i x_i) makes amounts a_i of the scents' own answers x_i of it (Clifford
and Tuma, Sensors and Actuators 3, 1983, 233-254). Time is told by the nose's rows; nothing here sleeps.

The bench simulates player, air and nose on a fake clock. True shares are those of the amounts given off, cartridge
strengths included, in units of the air above each substance. The loop is told neither these nor the session: only what
standard cartridges answered in another session.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from smellkit.device import playlist
from smellkit.device.enose import Row
from smellkit.device.errors import LinkError
from smellkit.device.link import Link
from smellkit.device.neckwear import NeckWear
from smellkit.errors import DeviceError, OptionError, SmellkitError
from smellkit.odour.calibration import POWER
from smellkit.odour.scents import SCENTS, substance
from smellkit.odour.windows import log_conductance
from smellkit.options import nearest
from smellkit.sensors import GROVE, SENSORS
from smellkit.simulate import nose as physics
from smellkit.simulate.chamber import Chamber, ChamberNose
from smellkit.simulate.faulty_player import FaultyNeckWear
from smellkit.study.device.fake import FakeClock, MemoryPort
from smellkit.study.evaluate import Outcome, evaluate

WEAK = 0.03  # log conductance by which a scent alone has to move the sensors to be measured
STRANGE = 0.1  # root mean square in log conductance by which a sniff may differ from every mixture of the scents
NOISE = 0.02  # in log conductance: how well the pattern of a sniff repeats
REFERENCE = 0.13  # in logarithm: how well the amount of a scent alone is measured
GUST = 0.12  # in logarithm: how far the amounts of one sniff may be from those of another, all alike
FADED = 0.03  # in logarithm: how much one scent may change from sniff to sniff
SLOT = 1.0  # s: the shortest that the player takes, for the evenest air
STEP = 3.0  # the most by which one step changes a share, as a ratio
BUDGET = 12  # sniffs
EXPONENTS = tuple(physics.BETA[:4].tolist())
STANDARDS_SEED = 1_000_000  # another session than any that is measured
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
    target: Mapping[str, float],
    *,
    budget: int = BUDGET,
    near: float = 0.005,
    gain: float = 0.8,
    standards: Mapping[str, Answer] | None = None,
    sniffing: Sniffing | None = None,
) -> Reproduction:
    """Play `target` (shares by scent) and adjust it until the nose finds these shares, in at most `budget` sniffs.

    `nose` is a `Nose`, or what has its `columns`, `read` and `rows`. Each scent is sniffed alone first. It ends when
    the mean absolute error of the twelve shares is `near` or less; `gain` is the part of a difference that one step
    corrects. Shares are of amounts in units of the `standards`, which `answers` measures once; without them, of how
    strongly the sensors answer. Whatever happens, the player is stopped in the end; what went wrong with a device or a
    sniff is the `failure` of the result.
    """
    asked = wanted(target)
    scents = [name for name, share in asked.items() if share > 0]
    if budget <= len(scents):
        raise OptionError(f"budget is {budget!r}", hint=f"{len(scents) + 1} or more: each scent is sniffed alone first")
    if missing := [name for name in scents if standards is not None and name not in standards]:
        raise OptionError(f"There is no standard of {', '.join(missing)}", hint="measure it with `answers`")
    bench = _Bench(nose, neck, sniffing or Sniffing())
    alone: dict[str, Answer] = {}
    strengths: dict[str, float] = {}
    steps: list[Step] = []
    failure: SmellkitError | None = None
    try:
        for name in scents:
            alone[name] = bench.alone(name)
            unit = bench.amount(standards[name]).sum() if standards is not None else len(GROVE)
            strengths[name] = float(bench.amount(alone[name]).sum() / unit)
        aim, strong = np.array([asked[name] for name in scents]), np.array([*strengths.values()])
        asking, belief = aim / strong, Belief.first(len(scents))
        while len(strengths) + len(steps) < budget and not (steps and steps[-1].error <= near):
            played, belief = bench.mixture(alone, asking / asking.sum(), belief)
            sniffed = played * np.exp(belief.logs) * strong
            sniffed = sniffed / sniffed.sum()
            error = float(abs(sniffed - aim).sum()) / len(SCENTS)
            steps.append(Step(_by_scent(scents, played), _by_scent(scents, sniffed), error))
            asking = asking / asking.sum() * np.clip(aim / np.maximum(sniffed, 1e-9), 1 / STEP, STEP) ** gain
    except (LinkError, Unmeasurable) as why:
        failure = why
    finally:
        bench.silence()
    reason = failure.what if failure else "near the target" if steps[-1].error <= near else "no sniff is left"
    return Reproduction(reason, strengths, tuple(steps), failure)


def answers(
    nose: Any, neck: NeckWear, scents: Iterable[str] = SCENTS, *, sniffing: Sniffing | None = None
) -> dict[str, Answer]:
    """Sniff each of `scents` alone and return what the four Grove sensors answer: ln(G / G0), by scent.

    From cartridges of known strength these are the standards of `reproduce`. LinkError and Unmeasurable come through.
    """
    bench = _Bench(nose, neck, sniffing or Sniffing())
    try:
        return {name: bench.alone(name) for name in scents}
    finally:
        bench.silence()


def wanted(target: Mapping[str, float]) -> dict[str, float]:
    """Return the twelve shares of `target` by scent, sum 1, or raise OptionError that says what is wrong with it."""
    given = {substance(str(name)): share for name, share in target.items()}
    if unknown := [name for name in given if name not in SCENTS]:
        raise OptionError(f"The player has no scent {unknown[0]!r}", hint=nearest(unknown[0], SCENTS))
    if len(given) < len(target):
        raise OptionError(f"A target names a scent twice: {', '.join(target)}", hint="each scent once")
    return _by_scent(SCENTS, playlist.check([given.get(name, 0.0) for name in SCENTS]))


def _by_scent(names: Iterable[str], shares: Iterable[float]) -> dict[str, float]:
    """Twelve shares by scent: 0 for what is not among `names`."""
    return dict.fromkeys(SCENTS, 0.0) | {name: float(share) for name, share in zip(names, shares, strict=True)}


@dataclass(frozen=True)
class Belief:
    """What is believed of the scents' deliveries, at first as sure as a scent alone is measured."""

    logs: NDArray[np.float64]  # (scents,), logarithm of how much more of each comes than came alone
    covariance: NDArray[np.float64]  # (scents, scents), how sure that is

    @classmethod
    def first(cls, scents: int) -> Belief:
        return cls(np.zeros(scents), REFERENCE**2 * np.eye(scents))

    def updated(
        self, change: Answer, alone: NDArray, played: NDArray, exponents: Sequence[float]
    ) -> tuple[Belief, float]:
        """Return what a sniff makes of it, and the root mean square in log conductance of what no mixture explains.

        `change` (4,) is the sniff, `alone` (scents, 4) what each scent answered, `played` (scents,) the shares sent.
        Since the sniff before, all may come stronger or weaker (`GUST`), and each may have changed (`FADED`).
        """
        power, count = np.asarray(exponents), len(played)
        pure = np.expm1(alone / power)
        before = self.covariance + GUST**2 * np.ones((count, count)) + FADED**2 * np.eye(count)
        root = np.linalg.cholesky(np.linalg.inv(before)).T

        def rest(logs: NDArray) -> NDArray:
            return power * np.log1p((played * np.exp(logs)) @ pure) - change

        fit = least_squares(lambda logs: np.concatenate([rest(logs) / NOISE, root @ (logs - self.logs)]), self.logs)
        return Belief(fit.x, np.linalg.inv(fit.jac.T @ fit.jac)), float(np.sqrt(np.mean(rest(fit.x) ** 2)))


class _Bench:
    """Player and nose, and how a sniff is made with them."""

    def __init__(self, nose: Any, neck: NeckWear, sniffing: Sniffing):
        if missing := [name for name in GROVE if name not in nose.columns]:
            raise OptionError(f"The nose has no {', '.join(missing)}", hint=f"a board with {', '.join(GROVE)}")
        self.sniffing, self._nose, self._neck = sniffing, nose, neck
        self._places = [list(nose.columns).index(name) for name in GROVE]
        self._run: int | None = None

    def amount(self, answer: Answer) -> NDArray[np.float64]:
        """What an answer amounts to, (4,), by the power law."""
        return np.expm1(np.asarray(answer) / np.asarray(self.sniffing.exponents))

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
            row = self._nose.read()
            self._run = row.run if self._run is None else self._run
            if row.run != self._run:
                raise Unmeasurable("Rows of the nose were lost in the middle of a sniff", hint="start again")
            rows.append(row)
        last = [row.values for row in rows if row.time > rows[-1].time - self.sniffing.window]
        return np.asarray(log_conductance(np.array(last)[:, self._places]), np.float64).mean(axis=0)


class Room:
    """A player and a nose in one simulated chamber, on a fake clock; `chamber` options are those of `Chamber`."""

    def __init__(self, seed: int, **chamber: Any):
        self.clock = FakeClock()
        self.device = FaultyNeckWear(faults={}, now=self.clock.now)
        self.clock.watch(self.device.due)
        link = lambda: Link(MemoryPort(self.device, clock=self.clock), name="memory")  # noqa: E731
        self.neck = NeckWear(link, name="memory", clock=cast(Any, self.clock))
        self.chamber = Chamber(self.device, seed=seed, now=self.clock.now, **chamber)
        self.nose = ChamberNose(self.chamber, self.clock.sleep)

    def play(self, shares: Mapping[str, float], *, seconds: float = 60.0) -> NDArray[np.float64]:
        """Play `shares` and return the true shares (12,) of what was given off."""
        before = self.chamber.emitted.copy()
        self.neck.play_mixture([shares.get(name, 0.0) for name in SCENTS], seconds=seconds, slot=1.0, gap=0.0)
        while self.neck.playing:
            self.nose.read()
        given_off = self.chamber.emitted - before
        return given_off / given_off.sum()


@dataclass(frozen=True)
class Case:
    """One row of the bench: which board smells, and what the loop is told of it."""

    board: Mapping[str, Any]
    exponents: tuple[float, ...] = EXPONENTS
    standards: bool = True


MIXTURE_BOARD: dict[str, Any] = {"rate": 10.0}
CASES = {
    "closed loop, four columns at 10 Hz": Case(MIXTURE_BOARD),
    "closed loop, twelve columns at 1 Hz": Case({"rate": 1.0, "columns": SENSORS}),
    "the board's exponents not known": Case(MIXTURE_BOARD, exponents=(0.45,) * 4),
    "no standards": Case(MIXTURE_BOARD, standards=False),
}
OPEN = "played once, no loop"


def targets(count: int) -> list[dict[str, float]]:
    """Seeded targets, `count` of them: a scent, two (20/80 to 50/50) and three (15 % each or more) in turn."""
    chosen = []
    for seed in range(1, count + 1):
        draw = np.random.default_rng([seed, 7])
        names = draw.choice(SCENTS, (seed - 1) % 3 + 1, replace=False).tolist()
        first = draw.uniform(0.2, 0.5)
        shares = {1: [1.0], 2: [first, 1 - first], 3: (0.15 + 0.55 * draw.dirichlet([1, 1, 1])).tolist()}[len(names)]
        chosen.append(dict(zip(names, shares, strict=True)))
    return chosen


def close(target: Mapping[str, float], seed: int, case: Case, standards: Mapping[str, Any] | None) -> dict[str, float]:
    """Close the loop on one target; the true errors of its best shares, played once more, and how it went."""
    room = Room(seed, **case.board)
    sniffing = Sniffing(exponents=case.exponents)
    result = reproduce(room.nose, room.neck, target, standards=standards, sniffing=sniffing)
    if result.best is None:
        raise DeviceError(f"No mixture of {dict(target)} was sniffed: {result.reason}", hint=f"target {seed}")
    error = errors(room.play(result.best.played), target)
    first = errors(room.play(result.steps[0].played), target)["mae"]  # from the scents alone, before any step
    return error | {"first": first, "sniffed": result.best.error, "sniffs": float(result.sniffs)}


def errors(true: NDArray, target: Mapping[str, float]) -> dict[str, float]:
    """The mean absolute error of twelve true shares, and the largest."""
    off = np.abs(true - [target.get(name, 0.0) for name in SCENTS])
    return {"mae": float(off.mean()), "worst": float(off.max())}


def run(
    *,
    seeds: int = 20,
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the figures of every case on `seeds` targets: medians and means with 95 % intervals over targets."""
    aims = targets(seeds)

    def once(_: int) -> dict[str, Outcome]:
        return _splits(aims, [errors(Room(n, rate=1.0).play(aim), aim) for n, aim in enumerate(aims, 1)])

    def closed(case: Case, _: int) -> dict[str, Outcome]:
        known = Room(STANDARDS_SEED, uneven=0.0, **case.board)
        measured = answers(known.nose, known.neck, sniffing=Sniffing(exponents=case.exponents))
        standards = measured if case.standards else None
        return _splits(aims, [close(aim, n, case, standards) for n, aim in enumerate(aims, 1)])

    about = {"targets": [{name: round(share, 4) for name, share in aim.items()} for aim in aims], "budget": BUDGET}
    about["sniffing"] = vars(Sniffing(exponents=EXPONENTS))
    about["shares"] = "amounts given off, by scent, cartridges included"
    rows = {OPEN: once} | {name: functools.partial(closed, case) for name, case in CASES.items()}
    return evaluate(rows, seeds=[1], about=about, earlier=earlier, progress=progress)


def _splits(aims: list[dict[str, float]], each: list[dict[str, float]]) -> dict[str, Outcome]:
    """Medians and means over all targets, and over those of one, two and three scents."""
    sizes = np.array([len(aim) for aim in aims])
    splits = {}
    for name, size in (("all", 0), ("one", 1), ("two", 2), ("three", 3)):
        rows = np.flatnonzero((sizes == size) | (size == 0))
        if len(rows):
            columns = {key: np.array([each[row][key] for row in rows]) for key in each[0]}
            medians = {f"median_{k}": lambda rows, v=v: float(np.median(v[rows])) for k, v in columns.items()}
            splits[name] = Outcome(groups=np.arange(len(rows)), measures={**medians, **columns})
    return splits
