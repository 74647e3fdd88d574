"""A mixture for a device that plays one scent at a time: a sequence of short slots. Arithmetic only, no I/O.

    beta  .6 .3 .1   ->   AA B AA B A C ...      one slot after the other, each scent near its share all along

Slots of one to two seconds are smelled one after the other, not as a blend: nothing here claims that it is perceived
as the mixture would be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from smellkit.errors import OptionError

SCENT_COUNT = 12
MARGIN = 0.05  # the least lead that makes one scent the answer
LONGEST = 3600.0  # seconds: a typing error shall not become a day of scent
NEAR = 1e-9  # two remainders closer than this are a tie: 0.1 * 27 and 0.3 * 9 differ in the last bit


@dataclass(frozen=True)
class Playlist:
    """What to play when, and how near that comes to the requested mixture.

    `slots` has (start in seconds, scent 1 to 12, seconds) in order of time; `seconds` is when to send stop.
    `planned` are the shares of the kept scents (sum 1), `achieved` those of the slots, both by scent from 1 to 12: with
    K scents in N slots they differ in total variation by K/(4 N) at most. `lost` is the share of the mixture that was
    left out.
    """

    slots: tuple[tuple[float, int, float], ...]
    planned: tuple[float, ...]
    achieved: tuple[float, ...]
    lost: float
    seconds: float

    @property
    def error(self) -> float:
        """Largest difference between a planned and an achieved share: at most (K-1)/(K N)."""
        return max(abs(a - p) for a, p in zip(self.achieved, self.planned, strict=True))


def render(beta: Sequence[float], *, seconds: float = 60, slot: float = 2.0, gap: float = 0.2,
           keep: int = 4) -> Playlist:  # fmt: skip
    """Return the sequence of slots that renders `beta` within `seconds`.

    `beta` has one share a scent (12, from scent 1 on, sum 1). The `keep` largest shares are played; each slot is
    `slot` seconds (1 to 5) of one scent, then `gap` seconds (0 to 5) of none. At any moment each scent is within
    one slot of its share. Source: largest remainder for the numbers, Tijdeman (1980) for the order.
    Raises OptionError for a mixture or a time that can't be played.
    """
    shares = check(beta)
    slot = _number(slot, "slot", low=1, high=5)
    gap = _number(gap, "gap", low=0, high=5)
    seconds = _number(seconds, "seconds", low=slot + gap, high=LONGEST)
    if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= SCENT_COUNT:
        raise OptionError(f"keep is {keep!r}", hint=f"a whole number of scents from 1 to {SCENT_COUNT}")
    kept = sorted(range(SCENT_COUNT), key=lambda scent: (-shares[scent], scent))[:keep]
    mass = sum(shares[scent] for scent in kept)
    planned = [shares[scent] / mass if scent in kept else 0.0 for scent in range(SCENT_COUNT)]
    number = math.floor(seconds / (slot + gap) + NEAR)
    counts = apportion(planned, number)
    starts = (turn * (slot + gap) for turn in range(number))  # products, not sums: nothing adds up to a drift
    return Playlist(
        slots=tuple((start, scent + 1, slot) for start, scent in zip(starts, order(planned, counts), strict=True)),
        planned=tuple(planned),
        achieved=tuple(count / number for count in counts),
        lost=max(0.0, 1 - mass),
        seconds=number * (slot + gap),
    )


def top(beta: Sequence[float]) -> int:
    """Return the scent (1 to 12) with the largest share, of several the lowest: what is played by default."""
    shares = check(beta)
    return shares.index(max(shares)) + 1


def abstains(beta: Sequence[float], *, margin: float = MARGIN, mixture: bool = False) -> bool:
    """Return whether `beta` is too flat to be played, so that its largest share would be a guess.

    For one scent: the largest share leads the second by less than `margin`. For a `mixture`, where two equal shares
    are a fine answer: the largest share leads the flat mixture, 1/12, by less than `margin`.
    """
    first, second = sorted(check(beta), reverse=True)[:2]
    return first - (1 / SCENT_COUNT if mixture else second) < _number(margin, "margin", low=0, high=1)


def check(beta: Sequence[float]) -> list[float]:
    """Return the 12 shares of `beta`, made to sum to exactly 1, or raise OptionError that names the share."""
    try:
        shares = list(beta)
    except TypeError as why:
        raise OptionError(f"A mixture of {beta!r}", hint=f"{SCENT_COUNT} shares, one a scent") from why
    if len(shares) != SCENT_COUNT:
        raise OptionError(f"A mixture of {len(shares)} shares", hint=f"{SCENT_COUNT} shares, one a scent; 0 for none")
    shares = [_number(share, f"the share of scent {n}", low=0, high=2) for n, share in enumerate(shares, 1)]
    total = math.fsum(shares)
    if abs(total - 1) > 1e-6:
        raise OptionError(f"The shares of the mixture add up to {total:.6g}", hint="shares that add up to 1")
    return [share / total for share in shares]


def apportion(shares: Sequence[float], number: int) -> list[int]:
    """Return how many of `number` slots each share gets: largest remainder, ties to the lowest scent."""
    exact = [round(share * number, 9) for share in shares]
    counts = [math.floor(quota) for quota in exact]
    by_remainder = sorted(range(len(shares)), key=lambda scent: (-round(exact[scent] - counts[scent], 9), scent))
    for scent in by_remainder[: number - sum(counts)]:
        counts[scent] += 1
    return counts


def order(shares: Sequence[float], counts: Sequence[int]) -> list[int]:
    """Return the scents (from 0) of the slots in order of time: of those that are due, the earliest deadline first.

    The n-th slot of a scent may not come while that would put it a whole slot ahead of its share, and must come before
    it falls a whole slot behind: of the share that was planned, and of the one that its `counts` amount to.
    """
    number = sum(counts)
    waiting = []  # (release, deadline, scent), in turns from 1 on
    for scent, count in enumerate(counts):
        rates = [rate for rate in (shares[scent], count / number) if rate > 0]
        for n in range(1, count + 1):
            release = max(math.floor((n - 1) / rate + NEAR) + 1 for rate in rates)
            deadline = min(math.ceil(n / rate - NEAR) for rate in rates)
            waiting.append((release, min(deadline, number), scent))
    turns = []
    for turn in range(1, number + 1):
        due = [job for job in waiting if job[0] <= turn] or waiting
        job = min(due, key=lambda job: job[1:])
        waiting.remove(job)
        turns.append(job[2])
    return turns


def _number(value: object, name: str, *, low: float, high: float) -> float:
    """Return `value` as a float within bounds. Text, True and NaN are mistakes, not numbers."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as why:
        raise OptionError(f"{name} is {value!r}", hint=f"a number from {low:g} to {high:g}") from why
    if not low <= number <= high:
        raise OptionError(f"{name} is {number:g}", hint=f"a number from {low:g} to {high:g}")
    return number
