"""Recognise while sniffing, one row after the other, or one recording after the other of a whole folder.

    rows -> the last 125 -> window -> pipeline -> running mean -> Mixture; `Mixture.play` plays it
    smell_data/<odour>/*.csv, images/<odour>/*, smell_descriptions.json -> items -> pipeline -> player -> JSON lines

What can't be read or played of a folder is a line with its error, and the loop goes on; what a log holds already is not
done again.
`study.odour.reproduce` closes the loop: it sniffs what is played, and adjusts it.
"""

import collections
import datetime
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks.ranges import outside
from smellkit.device.clock import Clock
from smellkit.device.enose import Nose
from smellkit.device.errors import LinkError, PortError, PortLost
from smellkit.device.neckwear import NeckWear
from smellkit.device.playlist import Playlist
from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError
from smellkit.noses import Description, difference
from smellkit.odour.pipeline import Evidence, Mixture, Pictures, Pipeline, Played, several
from smellkit.odour.scents import SCENTS, pictures_in, read_scents

log = logging.getLogger(__name__)
EVERY = 5  # rows between two answers
MEMORY = 0.6  # of the answer so far, against the newest window
TRIES = 3  # of a play, where the port goes away


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
        self._indices = [list(columns).index(name) for name in pipeline.smell.columns]
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
        self._indices = [list(nose.columns).index(name) for name in self.pipeline.smell.columns]
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
        row = [values[index] for index in self._indices]
        if not all(map(math.isfinite, row)):  # a window across it would lie
            self.restart()
            return self.pipeline.without_smell(
                "a reading is no number: sniffing begins again", self._shown, single=True
            )
        self._rows.append(row)
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
    """Rows (rows, columns) that follow each other, and after how many of them what was recognised, at least once."""

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
    run = None
    while len(values) < rows or not answers:
        row = nose.read(timeout=timeout)
        if row.run != run:  # a window across a gap would lie
            recogniser.restart()
            values, answers, times, run = [], [], [], row.run
        values.append(row.values)
        times.append(row.time)
        if answer := recogniser.add(row.values):
            answers.append((len(values), answer))
    measured, known = (len(times) - 1) / max(times[-1] - times[0], 1e-9), recogniser.nose
    if not known.at_pace(measured):
        message = "Rows came %.3g a second, and the weights know %.3g: their answers hold for a replay alone"
        log.warning(message, measured, known.rate)
    return Sniff(np.array(values), tuple(answers))


def aired(player: NeckWear, plan: Playlist | None = None) -> pd.DataFrame:
    """What a virtual player emitted as rows of name, start, end in s, by scent; before it what a `plan` wanted."""
    if player.virtual is None:
        raise OptionError("Only a virtual player knows what it emitted", hint="NeckWear.open('virtual')")
    air = player.virtual.air
    begin = air[0].start if air else 0.0
    pieces = [(piece.scent, "in the air", piece.start - begin, (piece.end or Clock.now()) - begin) for piece in air]
    slots = [(scent, " planned", start, start + seconds) for start, scent, seconds in plan.slots] if plan else []
    rows = [(f"{SCENTS[scent - 1]}, {which.strip()}", *when) for scent, which, *when in sorted(slots + pieces)]
    return pd.DataFrame(rows, columns=["name", "start", "end"])


@dataclass(frozen=True)
class Item:
    """One thing to recognise: what there is of it, or `error`, why there is nothing."""

    name: str
    recording: Path | None = None
    picture: Path | None = None
    text: str | None = None
    error: str = ""


def read_items(folder: Path) -> list[Item]:
    """Every recording of a folder in the twelve-scent layout, odour by odour in the order of the player's channels.

    The n-th recording of an odour gets its n-th picture, and begins again where there are fewer; an odour without
    recordings is an item with its error. DataError when there is no such layout.
    """
    folder = Path(folder)
    if not (folder / "smell_data").is_dir():
        raise DataError(f"No smell_data/ in {folder}", hint="smell_data/<odour>/*.csv, images/<odour>/*")
    items = []
    for scent in read_scents(folder):
        inside, shown = folder / "smell_data" / scent.name, pictures_in(folder / "images" / scent.name)
        recordings = sorted(path for path in inside.glob("*.csv") if not path.name.startswith("."))
        if not recordings:
            items.append(Item(scent.name, error=f"no recordings (*.csv) in {inside}: record some, or remove the scent"))
        for number, recording in enumerate(recordings):
            picture = shown[number % len(shown)] if shown else None
            items.append(Item(f"{scent.name}/{recording.name}", recording, picture, scent.long_description))
    return items


def run(
    pipeline: Pipeline,
    items: Sequence[Item],
    *,
    log: Path | None = None,
    player: Callable[[], NeckWear] | None = None,
    seconds: float = 8,
    mixture: bool = False,
) -> Iterator[dict[str, Any]]:
    """Recognise the `items` in order, play each for `seconds` on the `player`, and yield a line for each.

    A line holds time, item, name, confidence, beta, evidence, reason, played and error. With a `log` each line is
    appended to that file at once, and items that it holds without an error are left out.
    """
    done = finished(log)
    held: list[NeckWear] = []
    try:
        for item in items:
            if (item.name, str(item.recording)) in done:
                continue
            answer, played, error = None, None, item.error
            try:
                if not error:
                    answer = pipeline(item.recording, picture=item.picture, text=item.text)
                if answer is not None and player is not None:
                    played = _played(answer, held, player, seconds=seconds, mixture=mixture)
            except SmellkitError as why:
                error = str(why)
            line = as_line(item.name, answer, played, recording=item.recording, error=error)
            if log is not None:
                append(log, line)
            yield line
    finally:
        _let_go(held)


def _played(
    answer: Mixture, held: list[NeckWear], player: Callable[[], NeckWear], *, tries: int = TRIES, **how: Any
) -> Played:
    """Play on the player that is `held`, or on one opened anew where the port went away, at most `tries` times."""
    try:
        if not held:
            held.append(player())
        return answer.play(held[0], wait=True, **how)
    except LinkError as why:
        _let_go(held)
        if tries == 1 or not isinstance(why, (PortError, PortLost)):
            raise
    return _played(answer, held, player, tries=tries - 1, **how)


def _let_go(held: list[NeckWear]) -> None:
    while held:
        held.pop().close()


def as_line(
    name: str, answer: Mixture | None, played: Played | None = None, *, recording: Path | None = None, error: str = ""
) -> dict[str, Any]:
    """What was recognised and played of one item, as plain values for a line of JSON."""
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {"time": time, "item": name, "recording": str(recording or "")}
    if answer is not None:
        fields = asdict(answer)
        line |= {key: fields[key] for key in ("name", "confidence", "beta", "evidence", "reason", "mixture_reason")}
    aired: Any = None  # the scent that was played, or the slots of a mixture as (start, scent, seconds)
    if played and played.plan is not None:
        aired = [(start, SCENTS[scent - 1], length) for start, scent, length in played.plan.slots]
    elif played:
        aired = SCENTS[(played.scent or 1) - 1]
    return line | {"played": aired, "error": error}


def append(log: Path, line: dict[str, Any]) -> None:
    """Add a line of JSON to a file, at once and whole; below a last line that was cut."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    before = Path(log).read_bytes() if Path(log).is_file() else b""
    cut = bool(before) and not before.endswith(b"\n")
    with Path(log).open("a", encoding="utf-8") as file:
        file.write("\n" * cut + json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def finished(log: Path | None) -> set[tuple[str, str]]:
    """The items, each with its recording, that a log holds without an error; a line that was cut is as if not there."""
    if log is None or not Path(log).is_file():
        return set()
    done = set()
    for text in Path(log).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and not line.get("error"):
            done.add((str(line.get("item")), str(line.get("recording"))))
    return done
