"""`smellkit bench early`: how soon is a substance named, and how often rightly? Stop when sure.

    windows that end every 5 s -> log-probabilities, summed -> times a weight -> log-odds of first against second
    odds above the threshold -> decided; else sniff on                (a sequential probability ratio test, Wald 1945)

Windows overlap, so their sum says too much: the weight makes it honest. Weight and threshold are learnt on training
recordings that the fits did not see; of what they decide there, nine of ten are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import checkpoint
from smellkit.odour.confidence import fit_temperature
from smellkit.odour.live import EVERY
from smellkit.odour.recordings import read_recordings
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import Protocol, cut
from smellkit.study.evaluate import Outcome, percent, scores
from smellkit.study.odour import sessions, systems
from smellkit.study.odour.days import movements
from smellkit.study.odour.release import ANOTHER_DAY, SYSTEM
from smellkit.study.odour.survey import other_sessions

RIGHT = 0.9  # of what is decided
SECONDS = (125, 150, 200, 300, 400, 500)  # at which tables look
WEIGHTS = {"odour": sessions.METHODS[ANOTHER_DAY], "odour-same-session": systems.named(SYSTEM)}


@dataclass(frozen=True)
class Sniffed:
    """Summed log-probabilities of recordings while they are sniffed."""

    sums: NDArray  # (answers, classes)
    target: NDArray[np.int64]  # (answers,)
    recording: NDArray[np.int64]  # (answers,)
    seconds: NDArray[np.int64]  # (answers,), rows until then

    def lead(self, weight: float) -> NDArray:
        """Log-odds of the first class against the second, (answers,)."""
        ranked = np.sort(self.sums, axis=1)
        return weight * (ranked[:, -1] - ranked[:, -2])

    def right(self) -> NDArray[np.bool_]:
        return self.sums.argmax(1) == self.target


def sniffed(
    scorer: Callable[[Any], NDArray], table: pd.DataFrame, protocol: Protocol, classes: tuple[str, ...]
) -> Sniffed:
    """What `scorer` adds up over the recordings of `table`, in the order of their rows."""
    windows = cut(table, protocol, stride=EVERY, classes=classes)
    values, sums = scorer(windows.values), np.zeros((len(windows), len(classes)))
    for number in np.unique(windows.recording):
        rows = windows.recording == number
        sums[rows] = np.cumsum(values[rows], axis=0)
    return Sniffed(sums, windows.target, windows.recording, windows.start + protocol.span)


def joined(parts: list[Sniffed]) -> Sniffed:
    """Several as one; recordings of different parts are different ones."""
    numbers = [1000 * number + part.recording for number, part in enumerate(parts)]
    rest = [np.concatenate([getattr(part, name) for part in parts]) for name in ("sums", "target", "seconds")]
    return Sniffed(rest[0], rest[1], np.concatenate(numbers), rest[2])


def decided(found: Sniffed, weight: float, threshold: float) -> tuple[NDArray, NDArray]:
    """Of each recording, when its odds first pass the threshold (infinity: never), and whether it is right then."""
    sure, right, numbers = found.lead(weight) >= threshold, found.right(), np.unique(found.recording)
    when, good = np.full(len(numbers), np.inf), np.zeros(len(numbers), bool)
    for place, number in enumerate(numbers):
        rows = np.flatnonzero((found.recording == number) & sure)
        if len(rows):
            when[place], good[place] = found.seconds[rows[0]], right[rows[0]]
    return when, good


def learn(held: Sniffed) -> tuple[float, float]:
    """Weight and threshold from recordings `held` out: the least threshold whose decisions are right as `RIGHT` says.

    Where none is, the one that is right most often.
    """
    weight, best = 1 / fit_temperature(held.sums, held.target), (0.0, np.inf)
    for threshold in np.unique(np.round(np.quantile(held.lead(weight), np.linspace(0, 0.995, 100)), 4)):
        when, good = decided(held, weight, threshold)
        share = good[np.isfinite(when)].mean()
        if share >= RIGHT:
            return weight, float(threshold)
        best = max(best, (float(share), float(threshold)), key=lambda one: one[0])
    return weight, best[1]


def figures(found: Sniffed, weight: float, threshold: float) -> dict[str, Any]:
    """By second: the share named rightly if it had to be then, the share decided until then, and of these the right."""
    when, good = decided(found, weight, threshold)
    right, numbers, every = found.right(), np.unique(found.recording), np.arange(len(when))
    rows: dict[str, Any] = {}
    for second in range(SECONDS[0], SECONDS[-1] + 1, EVERY):
        last = [np.flatnonzero((found.recording == number) & (found.seconds <= second))[-1] for number in numbers]
        done = when <= second
        measures = {"forced": right[last].astype(float), "decided": done.astype(float)}
        row: dict[str, Any] = scores([Outcome(every, measures)])
        if done.any():
            row |= scores([Outcome(every[done], {"right of decided": good[done].astype(float)})])
        rows[str(second)] = {name: row[name] for name in (*measures, "right of decided") if name in row}
    median = float(np.median(when))
    ends = {"median seconds to a decision": median if np.isfinite(median) else None, "recordings": len(when)}
    return {**ends, "by second": rows}


def held_out(name: str, training: pd.DataFrame, classes: tuple[str, ...], folds: int) -> Sniffed:
    """What fits that did not see them say of the training recordings of `folds` folds, in their own session."""
    system, moved, parts = WEIGHTS[name], movements(training), []
    for fold in range(folds):
        held, others, _ = sessions.left_out(training, moved, fold)
        scorer = sessions.fit(system, training[~held], others, name=f"early/{name}/fold={fold}")
        parts.append(sniffed(scorer, training[held], system.protocol, classes))
    return joined(parts)


def run(
    data: str | Path = "",
    *,
    models: tuple[str, ...] = (),
    folds: int = 3,
    progress: Callable[[str], object] = lambda _: None,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """{"models": {name: weight, threshold, and for each test the curve}, "rows": what tables show}; others are kept."""
    training, away = read_recordings(data, "training"), other_sessions(data)
    classes, found = tuple(sorted(training["substance"].unique())), dict((earlier or {}).get("models", {}))
    for name in models or WEIGHTS:
        smell = SubstanceSmell.load(checkpoint.find(name))
        weight, threshold = learn(held_out(name, training, classes, folds))
        found[name] = {"weight": weight, "threshold": threshold}
        for split, table in {"same session": read_recordings(data, "testing"), "other session": away}.items():
            if table is not None:
                sniff = sniffed(smell.scores, table, smell.protocol, smell.classes)
                found[name][split] = figures(sniff, weight, threshold)
        progress(line(name, found[name]))
    splits = ("same session", "other session")
    tests = {f"{name}, {split}": one[split] for name, one in found.items() for split in splits if split in one}
    rows = {f"{test}, {second} s": one["by second"][str(second)] for test, one in tests.items() for second in SECONDS}
    ends = {test: {key: one[key] for key in one if key != "by second"} for test, one in tests.items()}
    return {"models": found, "rows": rows, "decisions": ends}


def line(name: str, row: dict[str, Any]) -> str:
    """One model's tests in a line each."""
    parts = []
    for split in ("same session", "other session"):
        if split in row:
            last, median = row[split]["by second"][str(SECONDS[-1])], row[split]["median seconds to a decision"]
            told = f"decided {percent(last['decided'])}, right {percent(last.get('right of decided', (0, 0, 0)))}"
            parts.append(f"  {name}, {split}: median {median} s to a decision; after {SECONDS[-1]} s {told}")
    return "\n".join(parts)


def report(result: dict[str, Any]) -> str:
    """The models' lines."""
    return "\n".join(line(name, row) for name, row in result["models"].items())
