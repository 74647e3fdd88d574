"""`smellkit bench early`: how soon is a substance named, and how often rightly? Stop when sure.

    windows that end every 5 s -> log-probabilities, summed -> times a weight -> log-odds of first against second
    odds above the threshold -> decided; else sniff on                (a sequential probability ratio test, Wald 1945)

Windows overlap, so their sum says too much: the weight makes it honest. Weight and threshold are learnt on training
recordings that the fits did not see; of what they decide there, nine of ten are right.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import checkpoint
from smellkit.odour.confidence import fit_temperature
from smellkit.odour.live import EVERY
from smellkit.odour.recordings import read_recordings
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import Protocol, cut
from smellkit.study.evaluate import Outcome, evaluate, summarise
from smellkit.study.odour import sessions, systems
from smellkit.study.odour.release import ANOTHER_DAY, SYSTEM
from smellkit.study.odour.survey import other_sessions

RIGHT = 0.9  # of what is decided
SECONDS = (125, 500)  # the first and the last of a curve
WEIGHTS = {"odour": sessions.METHODS[ANOTHER_DAY], "odour-same-session": systems.named(SYSTEM)}


class Sniffed(NamedTuple):
    """Summed log-probabilities of recordings while they are sniffed."""

    sums: NDArray  # (answers, classes)
    target: NDArray[np.int64]  # (answers,)
    recording: NDArray[np.int64]  # (answers,)
    seconds: NDArray[np.int64]  # (answers,), rows until then

    def lead(self, weight: float) -> NDArray:
        """Log-odds of the first class against the second, (answers,)."""
        ranked = np.sort(self.sums, axis=1)
        return weight * (ranked[:, -1] - ranked[:, -2])

    def right(self) -> pd.Series:
        """Whether the first class is the true one, (answers,)."""
        return pd.Series(self.sums.argmax(1) == self.target)


def sniffed(
    scorer: Callable[[Any], NDArray], table: pd.DataFrame, protocol: Protocol, classes: tuple[str, ...]
) -> Sniffed:
    """What `scorer` adds up over the recordings of `table`, in the order of their rows."""
    windows = cut(table, protocol, stride=EVERY, classes=classes)
    sums = pd.DataFrame(scorer(windows.values), dtype=float).groupby(windows.recording).cumsum().to_numpy()
    return Sniffed(sums, windows.target, windows.recording, windows.start + protocol.span)


def decided(sniffed: Sniffed, weight: float, threshold: float) -> tuple[NDArray, NDArray]:
    """Of each recording, when its odds first pass the threshold (infinity: never), and whether it is right then."""
    answers = pd.DataFrame({"when": sniffed.seconds.astype(float), "good": sniffed.right()})
    sure = sniffed.lead(weight) >= threshold
    first = answers[sure].groupby(sniffed.recording[sure]).first()
    every = first.reindex(np.unique(sniffed.recording))
    return every["when"].fillna(np.inf).to_numpy(), every["good"].eq(True).to_numpy()


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


def outcomes(sniffed: Sniffed, weight: float, threshold: float) -> dict[str, Outcome]:
    """By second: the share named rightly if it had to be then, the share decided until then, and of these the right.

    And the "decision", without a measure: the median second, none where fewer than half are ever decided.
    """
    when, good = decided(sniffed, weight, threshold)
    every, median = np.arange(len(when)), float(np.median(when))
    facts = {"median seconds to a decision": median if np.isfinite(median) else None, "recordings": len(when)}
    splits = {"decision": Outcome(every, {}, facts | {"weight": weight, "threshold": threshold})}
    for second in range(SECONDS[0], SECONDS[-1] + 1, EVERY):
        until, done = sniffed.seconds <= second, when <= second
        forced = sniffed.right()[until].groupby(sniffed.recording[until]).last().to_numpy(float)
        right = summarise([Outcome(every[done], {"right": good[done]})])["right"] if done.any() else None
        extra = {"right of decided": right._asdict()} if right else {}  # of fewer units than what is beside
        splits[f"{second} s"] = Outcome(every, {"forced": forced, "decided": done}, extra)
    return splits


def held_out(name: str, training: pd.DataFrame, classes: tuple[str, ...], folds: int) -> Sniffed:
    """What fits that did not see them say of the training recordings of `folds` folds, in their own session."""
    system, moved = WEIGHTS[name], sessions.movements(training)
    fits = sessions.held_out(system, training, moved, folds=folds, name=f"early/{name}")
    parts = [sniffed(scorer, table, system.protocol, classes) for scorer, table, _ in fits]
    apart = [part._replace(recording=1000 * number + part.recording) for number, part in enumerate(parts)]
    return Sniffed(*map(np.concatenate, zip(*apart, strict=True)))


def run(
    data: str | Path = "",
    *,
    models: Sequence[str] = (),
    folds: int = 3,
    progress: Callable[[str], object] = lambda _: None,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """{"about", "stamp", "rows": {"weights, test": {"150 s": ...}}}; rows of other weights in `earlier` are kept."""
    training = read_recordings(data, "training")
    tables = {"same session": read_recordings(data, "testing"), "other session": other_sessions(data)}
    there = {split: table for split, table in tables.items() if table is not None}
    classes = tuple(sorted(training["substance"].unique()))
    learnt = cache(lambda name: learn(held_out(name, training, classes, folds)))

    def fit(name: str, split: str, _: int) -> dict[str, Outcome]:
        smell = SubstanceSmell.load(checkpoint.find(name))
        return outcomes(sniffed(smell.scores, there[split], smell.protocol, smell.classes), *learnt(name))

    rows = {f"{name}, {split}": partial(fit, name, split) for name in models or WEIGHTS for split in there}
    about = {"recordings": {split: table["file"].nunique() for split, table in {"training": training, **there}.items()}}
    settings = {
        f"{name}, {split}": {"folds": folds, "weights": checkpoint.manifest(checkpoint.find(name))["sha256"]}
        for name in models or WEIGHTS
        for split in there
    }
    return evaluate(rows, seeds=1, about=about, settings=settings, earlier=earlier, progress=progress)
