"""Recognise while sniffing: one row after the other in, what it smells of out.

rows -> the last 125 -> window -> pipeline -> running mean -> Mixture; `Mixture.play` plays it
`study.odour.reproduce` closes the loop: it sniffs what is played, and adjusts it.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks.ranges import outside
from smellkit.device.clock import Clock
from smellkit.device.enose import Nose
from smellkit.device.neckwear import NeckWear
from smellkit.device.playlist import Playlist
from smellkit.errors import OptionError, WeightsError
from smellkit.noses import Description, difference
from smellkit.odour.pipeline import Evidence, Mixture, Pictures, Pipeline, several
from smellkit.odour.scents import SCENTS

log = logging.getLogger(__name__)
EVERY = 5  # rows between two answers
MEMORY = 0.6  # of the answer so far, against the newest window


class Recogniser:
    """A pipeline that listens: `add` a row of its nose, get a Mixture every few rows or None. Memory is constant.

    `columns` are those of a row, where it has not all of the nose's in their order.

    >>> recogniser = Recogniser(Pipeline.load())
    >>> for row in nose:
    ...     answer = recogniser.add(row.values) or answer
    """

    def __init__(self, pipeline: Pipeline, *, columns: Sequence[str] = ()):
        self.pipeline = pipeline
        self.nose = pipeline.smell.nose  # whose rows these are
        columns = columns or tuple(self.nose.columns)
        self.span = pipeline.smell.span
        self._places = [list(columns).index(name) for name in pipeline.smell.columns]
        self._rows: collections.deque[list[float]] = collections.deque(maxlen=self.span)
        self._shown: dict[str, Evidence] = {}
        self.restart()

    def show(self, *, picture: Pictures | None = None, text: str | None = None) -> Mixture | None:
        """Take a picture and a text of what is sniffed, fused with every answer from now on; none of both ends that.

        Returns what they say alone, or None. DataError when they can't be read.
        """
        self._shown = self.pipeline.seen({"picture": several(picture), "text": several(text or None)})
        return self.pipeline.fuse(shown=self._shown, single=True) if self._shown else None

    def listen(self, nose: Description) -> None:
        """Take rows of `nose` in the order of its columns; WeightsError when the weights know another one."""
        if why := difference(self.nose, nose, columns=self.pipeline.smell.columns):
            hint = "weights of this nose, or open the port as the nose that it is (nose=...)"
            raise WeightsError(f"These weights are for another nose: {why}", hint=hint)
        self._places = [list(nose.columns).index(name) for name in self.pipeline.smell.columns]
        self.restart()

    def restart(self) -> None:
        """Forget everything: another smell begins, or rows were lost."""
        self._rows.clear()
        self._count = 0
        self._mean: NDArray | None = None

    @property
    def filled(self) -> float:
        """Share of the first window that is there: 1 from the moment on that there are answers."""
        return len(self._rows) / self.span

    def add(self, values: Sequence[float]) -> Mixture | None:
        """Take one row; return what the window that ends with it smells of, every few rows from the first window on."""
        began = time.perf_counter()
        self._rows.append([values[place] for place in self._places])
        self._count += 1
        late = self._count - self.span
        if late < 0 or late % EVERY:
            return None
        smell = self.pipeline.smell
        if why := outside(np.asarray(self._rows), smell.ranges):
            answer = self.pipeline.without_smell(why, self._shown, single=True)
            return replace(answer, seconds=time.perf_counter() - began)
        windows = smell.windows(np.asarray(self._rows, np.float32))
        newest = smell.probabilities(windows)[0]
        self._mean = newest if self._mean is None else MEMORY * self._mean + (1 - MEMORY) * newest
        if self._shown:
            answer = self.pipeline.fuse(self.pipeline.smelled(smell, windows, self._mean), shown=self._shown)
        else:
            answer = self.pipeline.judge(self._mean)
        return replace(answer, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class Sniff:
    """Rows that follow each other, and what they were recognised as on the way.

    `values` is (rows, columns); `answers` are (number of rows until then, Mixture), at least one.
    """

    values: NDArray[np.float64]
    answers: tuple[tuple[int, Mixture], ...]

    @property
    def mixture(self) -> Mixture:
        """The last answer."""
        return self.answers[-1][1]

    def shares(self, *, best: int = 3) -> pd.DataFrame:
        """Return the shares of the `best` scents on the way, with columns rows, scent and share."""
        chosen = sorted(SCENTS, key=lambda name: -self.mixture.beta[name])[:best]
        lines = [(rows, name, answer.beta[name]) for rows, answer in self.answers for name in chosen]
        return pd.DataFrame(lines, columns=["rows", "scent", "share"])


def sniff(nose: Nose, recogniser: Recogniser, *, rows: int = 200, timeout: float = 10) -> Sniff:
    """Read `rows` rows that follow each other, or as many as one window takes, and recognise on the way.

    WeightsError for another nose; NoReply when no row comes for `timeout` seconds, PortLost when the board is gone. A
    warning where rows came at another rate than the weights know; a replayed recording may.
    """
    recogniser.listen(nose.description)
    values: list[tuple[float, ...]] = []
    answers: list[tuple[int, Mixture]] = []
    times: list[float] = []
    run, pace = None, recogniser.nose.pace
    while len(values) < rows or not answers:
        row = nose.read(timeout=timeout)
        if row.run != run:  # a window across a gap would lie
            recogniser.restart()
            values, answers, times, run = [], [], [], row.run
        values.append(row.values)
        times.append(row.time)
        if answer := recogniser.add(row.values):
            answers.append((len(values), answer))
    measured = (len(times) - 1) / max(times[-1] - times[0], 1e-9)
    if recogniser.nose.rate and not pace.slowest < measured / pace.rate < 1 / pace.slowest:
        told = "Rows came %.3g a second, and the weights know %.3g: their answers hold for a replay alone"
        log.warning(told, measured, pace.rate)
    return Sniff(np.array(values), tuple(answers))


def aired(player: NeckWear, plan: Playlist | None = None) -> pd.DataFrame:
    """Return what a virtual player emitted as rows of name, start, end in seconds after the first, for a timeline.

    In the order of the scents; with `plan`, before what was emitted of a scent comes what was planned.
    """
    if player.virtual is None:
        raise OptionError("Only a virtual player knows what it emitted", hint="NeckWear.open('virtual')")
    air = player.virtual.air
    begin = air[0].start if air else 0.0
    pieces = [(piece.scent, "in the air", piece.start - begin, (piece.end or Clock.now()) - begin) for piece in air]
    slots = [(scent, " planned", start, start + seconds) for start, scent, seconds in plan.slots] if plan else []
    rows = [(f"{SCENTS[scent - 1]}, {which.strip()}", *when) for scent, which, *when in sorted(slots + pieces)]
    return pd.DataFrame(rows, columns=["name", "start", "end"])
