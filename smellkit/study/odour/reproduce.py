"""How near does the closed loop bring the air to a target? Player, air and nose are simulated, on a fake clock.

    seeded target -> sniff, adjust -> best shares --played once more--> true shares in the air --+-- error
                  \\-> played once, open loop ------------------------> true shares in the air --+

True shares are those of the amounts given off, cartridge strengths included, in units of the air above each substance.
The loop is told neither these nor the session: only what standard cartridges answered in another session.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from smellkit.device.link import Link
from smellkit.device.neckwear import NeckWear
from smellkit.device.virtual import VirtualNeckWear
from smellkit.errors import DeviceError
from smellkit.odour.reproduction import Sniffing, answers, reproduce
from smellkit.odour.scents import SCENTS
from smellkit.sensors import SENSORS
from smellkit.simulate import nose
from smellkit.simulate.chamber import Chamber, ChamberNose
from smellkit.study.device.fake import FakeClock, MemoryPort
from smellkit.study.evaluate import Outcome, evaluate

EXPONENTS = tuple(nose.BETA[:4].tolist())
GUESS = (0.45,) * 4  # when the exponents of a board are not known
STANDARDS_SEED = 1_000_000  # another session than any that is measured


class Room:
    """A player and a nose in one simulated chamber, on a fake clock; `chamber` options are those of `Chamber`."""

    def __init__(self, seed: int, *, device: VirtualNeckWear | None = None, **chamber: Any):
        self.clock = FakeClock()
        self.device = device or VirtualNeckWear(now=self.clock.now)
        self.clock.watch(self.device.due)
        self.neck = NeckWear(self._connect, name="memory", clock=cast(Any, self.clock))
        self.chamber = Chamber(self.device, seed=seed, now=self.clock.now, **chamber)
        self.nose = ChamberNose(self.chamber, self.clock.sleep)

    def _connect(self) -> Link:
        self.port = MemoryPort(self.device, clock=self.clock)
        return Link(self.port, name="memory")

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


MIXTURE_BOARD, SUBSTANCE_BOARD = {"rate": 10.0}, {"rate": 1.0, "columns": SENSORS}
CASES = {
    "closed loop, four columns at 10 Hz": Case(MIXTURE_BOARD),
    "closed loop, twelve columns at 1 Hz": Case(SUBSTANCE_BOARD),
    "the board's exponents not known": Case(MIXTURE_BOARD, exponents=GUESS),
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
    found = errors(room.play(result.best.played), target)
    first = errors(room.play(result.steps[0].played), target)["mae"]  # from the scents alone, before any step
    return found | {"first": first, "sniffed": result.best.error, "sniffs": float(result.sniffs)}


def errors(true: NDArray, target: Mapping[str, float]) -> dict[str, float]:
    """The mean absolute error of twelve true shares, and the largest."""
    off = np.abs(true - [target.get(name, 0.0) for name in SCENTS])
    return {"mae": float(off.mean()), "worst": float(off.max())}


def run(count: int = 20, *, progress: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Return the figures of every case on `count` targets: medians and means with 95 % intervals over targets."""
    aims = targets(count)

    def once(_: int) -> dict[str, Outcome]:
        return _splits(aims, [errors(Room(n, rate=1.0).play(aim), aim) for n, aim in enumerate(aims, 1)])

    def closed(case: Case, _: int) -> dict[str, Outcome]:
        known = Room(STANDARDS_SEED, uneven=0.0, **case.board)
        measured = answers(known.nose, known.neck, sniffing=Sniffing(exponents=case.exponents))
        standards = measured if case.standards else None
        return _splits(aims, [close(aim, n, case, standards) for n, aim in enumerate(aims, 1)])

    about = {"targets": [{name: round(share, 4) for name, share in aim.items()} for aim in aims], "budget": 12}
    about["sniffing"] = vars(Sniffing(exponents=EXPONENTS))
    about["shares"] = "amounts given off, by scent, cartridges included"
    rows = {OPEN: once} | {name: functools.partial(closed, case) for name, case in CASES.items()}
    return evaluate(rows, seeds=[1], about=about, progress=progress)


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


def report(result: Mapping[str, Any]) -> str:
    """A line a case: the mean absolute error of twelve true shares, the largest one's, and the sniffs, as medians."""
    lines = [f"{'':38}{'MAE of 12':>10}{'worst share':>13}{'sniffs':>8}"]
    for name, row in result["rows"].items():
        of = row["all"]
        sniffs = f"{of['median_sniffs']['value']:.0f}" if "median_sniffs" in of else "-"
        lines.append(f"{name:38}{of['median_mae']['value']:10.4f}{of['median_worst']['value']:13.3f}{sniffs:>8}")
    return "\n".join(lines)
