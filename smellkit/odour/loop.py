"""The closed loop: sniff, recognise, reproduce. No widgets and no thread; it returns when it is done."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.device import playlist
from smellkit.device.enose import Nose
from smellkit.device.errors import NoReply
from smellkit.device.neckwear import NeckWear
from smellkit.device.playlist import Playlist
from smellkit.errors import OptionError
from smellkit.odour.live import Recogniser, Recognition
from smellkit.odour.scents import SCENTS


@dataclass(frozen=True)
class Sniff:
    """Rows that follow each other, and what they were recognised as on the way.

    `values` is (rows, columns); `answers` are (number of rows until then, Recognition), at least one.
    """

    values: NDArray[np.float64]
    answers: tuple[tuple[int, Recognition], ...]

    @property
    def recognition(self) -> Recognition:
        """The last answer."""
        return self.answers[-1][1]

    def shares(self, *, best: int = 3) -> pd.DataFrame:
        """Return the shares of the `best` scents on the way, with columns rows, scent and share."""
        last = self.recognition.beta
        chosen = sorted(range(len(SCENTS)), key=lambda n: -last[n])[:best]
        found = [(rows, SCENTS[n], answer.beta[n]) for rows, answer in self.answers for n in chosen]
        return pd.DataFrame(found, columns=["rows", "scent", "share"])


@dataclass(frozen=True)
class Outcome:
    """What was smelled and what was played of it: nothing, one scent, or the slots of a mixture."""

    recognition: Recognition
    scent: int | None = None
    plan: Playlist | None = None

    @property
    def played(self) -> bool:
        """Whether a scent was played at all."""
        return self.scent is not None or self.plan is not None


def sniff(nose: Nose, recogniser: Recogniser, *, rows: int = 200, timeout: float = 10) -> Sniff:
    """Read `rows` rows that follow each other, or as many as one window takes, and recognise on the way.

    Raises NoReply when no row comes for `timeout` seconds, PortLost when the board is gone.
    """
    values: list[tuple[float, ...]] = []
    answers: list[tuple[int, Recognition]] = []
    run = None
    while len(values) < rows or not answers:
        row = nose.read(timeout=timeout)
        if row.run != run:  # a window across a gap would lie
            recogniser.restart()
            values, answers, run = [], [], row.run
        values.append(row.values)
        if answer := recogniser.add(row.values):
            answers.append((len(values), answer))
    return Sniff(np.array(values), tuple(answers))


def reproduce(
    nose: Nose, player: NeckWear, recogniser: Recogniser, *, rows: int = 200, seconds: float = 5, mixture: bool = False
) -> Outcome:
    """Close the loop once: sniff `rows` rows, recognise, play it for `seconds` and wait for the end.

    Plays the scent with the largest share, or the rendered `mixture`; nothing when the recogniser abstains.
    """
    found = sniff(nose, recogniser, rows=rows).recognition
    return perform(player, found, seconds=seconds, mixture=mixture, wait=True)


def perform(
    player: NeckWear, answer: Recognition, *, seconds: float, mixture: bool = False, wait: bool = False
) -> Outcome:
    """Play what was recognised, or nothing when it abstains; return at once, or after the end with `wait`."""
    if answer.mixture_reason if mixture else answer.reason:
        return Outcome(answer)
    if mixture:
        outcome = Outcome(answer, plan=player.play_mixture(answer.beta, seconds=seconds))
    else:
        outcome = Outcome(answer, scent=playlist.top(answer.beta))
        player.play(outcome.scent or 0, seconds=seconds)
    if wait:
        player.wait()
    return outcome


def aired(player: NeckWear, plan: Playlist | None = None) -> pd.DataFrame:
    """Return what a virtual player emitted as rows of name, start, end in seconds after the first, for a timeline.

    In the order of the scents; with `plan`, before what was emitted of a scent comes what was planned.
    """
    if player.virtual is None:
        raise OptionError("Only a virtual player knows what it emitted", hint="NeckWear.open('virtual')")
    air = player.virtual.air
    begin = air[0].start if air else 0.0
    pieces = [
        (piece.scent, "in the air", piece.start - begin, (piece.end or time.monotonic()) - begin) for piece in air
    ]
    slots = [(scent, " planned", start, start + seconds) for start, scent, seconds in plan.slots] if plan else []
    rows = [(f"{SCENTS[scent - 1]}, {which.strip()}", *when) for scent, which, *when in sorted(slots + pieces)]
    return pd.DataFrame(rows, columns=["name", "start", "end"])


def stop_delay(player: NeckWear, *, times: int = 5) -> list[float]:
    """Return the seconds from calling `stop` to silence, as a virtual player emitted it: play, stop, `times` over."""
    virtual = player.virtual
    if virtual is None:
        raise OptionError("Only a virtual player knows what it emitted", hint="NeckWear.open('virtual')")
    delays = []
    for _ in range(times):
        player.play(1, seconds=10)
        deadline = time.monotonic() + 10
        while not virtual.emitting and time.monotonic() < deadline:
            time.sleep(0.01)
        if not virtual.emitting:
            raise NoReply(
                "The virtual player emits nothing", port=player.status().port, elapsed=10, remedy="plug it in"
            )
        called = time.monotonic()
        player.stop()
        delays.append((virtual.air[-1].end or math.inf) - called)
    return delays
