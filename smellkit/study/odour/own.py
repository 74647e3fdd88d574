"""`smellkit learn`: the whole answer about a folder of somebody's own recordings, step by step as notebook 07 shows it.

    folder -- understand --> Own -- windows --> validate --> Trial: what each learner gets right on recordings left out
                                            --> audit: what recordings say before any smell; curves; weights with a card

Folds hold whole recordings, and whole sessions where they are known. Nothing is chosen on what is scored but, of two
networks, the one to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import noses
from smellkit.checks import Report, fault, read_texts
from smellkit.errors import DataError
from smellkit.noses import Description
from smellkit.odour import readers
from smellkit.odour.encoder import Encoder
from smellkit.odour.features import describe
from smellkit.odour.windows import LabelledWindows, Protocol, cut
from smellkit.study import metrics
from smellkit.study.evaluate import Outcome, percent, summarise
from smellkit.study.odour.figures import sniffing
from smellkit.study.odour.smellnet import combine
from smellkit.study.odour.systems import BASELINES, Discriminant, forest, network_scores, trained

SPAN = 125  # rows under a window, where recordings are long enough: the protocol's
SHORT, LEAST = 50, 26  # rows below which no differences are summarised, and below which nothing is
WINDOWS, PER_CLASS = 1000, 240  # to train on, at most the larger of these
STEPS = 400  # that a network is trained at least
BY_DAY = "by-day"


@dataclass(frozen=True)
class Own:
    """Recordings of somebody's own nose, understood: its description, the tidy table, and what was told on the way."""

    nose: Description
    table: pd.DataFrame
    notes: str
    folder: Path = Path()

    @property
    def files(self) -> pd.DataFrame:
        """One row a file, in order: substance, recording, session, rows."""
        groups = self.table.groupby("file", sort=True)
        return groups[["substance", "recording", "session"]].first().assign(rows=groups.size())

    def overview(self) -> pd.DataFrame:
        """One row a class: recordings, sessions, shortest and longest in seconds (rows where the rate is unknown)."""
        unit, rate = ("seconds", self.nose.rate) if self.nose.rate else ("rows", 1.0)
        groups = self.files.groupby("substance")
        length = groups["rows"].agg(["min", "max"]) / rate
        sessions = self.files[self.files["session"] != ""].groupby("substance")["session"].nunique()
        table = groups["recording"].nunique().to_frame("recordings").join(sessions.rename("sessions"))
        table[[f"shortest, {unit}", f"longest, {unit}"]] = length.round(1)
        return table.fillna(0).astype({"sessions": int}).reset_index(names="class")

    def protocol(self, representation: str = "level-free", *, columns: Sequence[str] = ()) -> Protocol:
        """Windows of SmellNet's length where recordings hold two of them, shorter or longer ones to fit elsewhere."""
        columns = tuple(columns) or self.nose.gas
        if self.nose.features:
            return Protocol("absolute", columns, length=1, stride=1, lag=0)
        rows = int(self.files["rows"].quantile(0.1))
        if rows < LEAST:
            raise DataError(f"{self.folder}: recordings of {rows} rows", hint=f"{LEAST} at least: record longer")
        span = SPAN if rows >= 2 * SPAN else max(LEAST, rows // 2)
        span = min(4 * SPAN, rows // 16) if rows > 16 * SPAN else span
        return Protocol(representation, columns, length=span - span // 5, stride=max(1, 2 * span // 5), lag=span // 5)

    def windows(self, protocol: Protocol) -> LabelledWindows:
        """Windows to train on and to grade: of the latter every one starts at the protocol's stride.

        Recordings that are shorter than a window are left out. DataError where a class has not two others.
        """
        most = max(WINDOWS, PER_CLASS * self.table["substance"].nunique())
        step = protocol.stride
        while step > max(1, protocol.stride // 5) and len(self.table) / step < most:
            step = next(smaller for smaller in range(step - 1, 0, -1) if protocol.stride % smaller == 0)
        windows = cut(self.table, protocol, stride=step)
        for number, name in enumerate(windows.classes):
            if (count := len(np.unique(windows.fold[windows.target == number]))) < 2:
                what = f"{self.folder}: {name} has {count} recordings of {protocol.span} rows, as a window takes"
                raise DataError(what, hint="two at least: record longer, or leave the class out")
        return windows

    def sessions(self, windows: LabelledWindows) -> NDArray[np.int64] | None:
        """Number of the session of each window; None unless each class was recorded in two known ones at least."""
        files = self.files
        if (files["session"] == "").any() or files.groupby("substance")["session"].nunique().min() < 2:
            return None
        return pd.factorize(files["session"])[0][windows.recording]


def understand(folder: str | Path, *, nose: str = "", sessions: str = "") -> Own:
    """Read any folder of recordings; `sessions` is a CSV (file, session), "by-day", or what the recordings tell.

    DataError with what to write where, when there are less than two classes or a class has a single recording.
    """
    report, folder = Report(), Path(folder).expanduser()
    described, table = readers.read_folder(folder, noses.load(nose) if nose else None, report=report)
    if sessions == BY_DAY and (table["session"] == "").all():
        hint = "a clock with dates, or --sessions FILE: a CSV with the columns file and session"
        raise DataError(f"{folder}: no recording tells its day", hint=hint)
    if sessions and sessions != BY_DAY:
        table["session"] = table["file"].map(_sessions(Path(sessions), set(table["file"])))
    own = Own(described, table, str(report), folder)
    counts = own.files.groupby("substance")["recording"].nunique()
    if len(counts) < 2:
        hint = "a folder for each class, or its name in that of each file (coffee_1.csv), or a column label"
        raise DataError(f"{folder}: all recordings are of one class, {counts.index[0]!r}", hint=hint)
    if (counts < 2).any():
        hint = "a second one of each, so that one can be held out, or leave the class out"
        raise DataError(f"{folder}: a single recording of {', '.join(counts.index[counts < 2][:5])}", hint=hint)
    return own


def _sessions(path: Path, files: set[str]) -> dict[str, str]:
    """File -> session from a CSV with these two columns; every one of `files` must be in it."""
    table = read_texts(path, columns=["file", "session"])
    for line, name in table.loc[~table["file"].isin(files), "file"].items():
        hint = f"paths below the folder, such as {min(files)}"
        raise fault(path, "a recording", repr(name), hint, line=int(line), column="file")
    if missing := sorted(files - set(table["file"])):
        raise DataError(f"{path} has no session for {missing[0]}", hint="one row a recording: file,session")
    return dict(zip(table["file"], table["session"], strict=True))


# How good, honestly


@dataclass(frozen=True)
class Trial:
    """Log-probabilities of windows by fits that did not see their recording (or session), one array a learner."""

    windows: LabelledWindows
    scores: Mapping[str, NDArray]
    folds: int

    @property
    def kept(self) -> str:
        """What weights can hold and named more windows right: "lda" or "network"; "ensemble" of rows of features."""
        names = ("lda", "network") if "network" in self.scores else ("ensemble",)
        return max(names, key=lambda name: self.accuracy(name, count=1).value)

    def outcome(self, learner: str, *, count: int = 0) -> Outcome:
        """Which recordings are named right, or which runs of `count` windows; by recording."""
        scores, target, recording = combine(self.scores[learner], self.windows, count)
        return Outcome(recording, {"accuracy": metrics.hits(scores, target)})

    def accuracy(self, learner: str, *, count: int = 0) -> metrics.Interval:
        """Share of recordings named right, or of every run of `count` windows; 95 %: bootstrap over recordings."""
        return summarise([self.outcome(learner, count=count)])["accuracy"]

    def table(self) -> pd.DataFrame:
        """One row a learner: per cent of recordings and of windows, with intervals."""
        rows = [(n, percent(self.accuracy(n)), percent(self.accuracy(n, count=1))) for n in self.scores]
        return pd.DataFrame(rows, columns=["learner", "recordings", "windows"])

    def confusion(self) -> NDArray[np.int64]:
        """Recordings (classes, classes) by the learner that is kept: rows what it was, columns what was said."""
        from sklearn.metrics import confusion_matrix

        scores, target, _ = combine(self.scores[self.kept], self.windows, 0)
        return confusion_matrix(target, scores.argmax(1), labels=range(len(self.windows.classes)))

    def sniffing(self, protocol: Protocol, rate: float | None) -> pd.DataFrame:
        """Accuracy after ever more windows in a row, up to the shortest recording: seconds, value, low, high."""
        answers = {self.kept: "top1"}
        return sniffing(self.scores[self.kept], self.windows, protocol, rate=rate or 1.0, answers=answers)


def folds_of(windows: LabelledWindows, most: int = 5) -> NDArray[np.int64]:
    """Fold of each window: recordings of a class dealt in turn over as many folds as the rarest class has of them."""
    rarest = min(int(windows.fold[windows.target == number].max()) + 1 for number in range(len(windows.classes)))
    return windows.fold % min(rarest, most, 3 if len(windows) > WINDOWS else most)


def validate(
    windows: LabelledWindows, protocol: Protocol, fold: NDArray[np.int64], *, seed: int = 7, networks: int = 2
) -> Trial:
    """Score every window at the protocol's stride by fits on the other folds: null, LDA, the network, the ensemble.

    The ensemble averages a forest and `networks` networks; "network" is the first of them. Rows of features have no
    network: there the ensemble is the forest.
    """
    from tqdm.auto import tqdm

    graded = windows.start % protocol.stride == 0
    scores: dict[str, NDArray] = {}
    for number in tqdm(np.unique(fold), desc="folds", leave=False):
        train, test = windows[fold != number], windows[graded & (fold == number)]
        for name, part in _fit_all(train, seed=seed, networks=networks)(test.values).items():
            kept = scores.setdefault(name, np.zeros((len(windows), len(windows.classes)), np.float32))
            kept[graded & (fold == number)] = part
    return Trial(windows[graded], {name: part[graded] for name, part in scores.items()}, len(np.unique(fold)))


def _fit_all(train: LabelledWindows, *, seed: int, networks: int) -> Callable[[NDArray], dict[str, NDArray]]:
    """Fit every learner and return windows -> {learner: log-probabilities}; an absent class gets hardly any."""
    here, target = np.unique(train.target, return_inverse=True)
    if len(train) <= len(here):
        what = f"{len(train)} windows of {len(here)} classes to learn from are too few"
        raise DataError(what, hint="record longer, or more recordings of each")
    frequent = np.where(np.arange(len(here)) == np.bincount(target).argmax(), 0.0, -20.0)
    steps = train.values.shape[1]
    linear = Discriminant.fit(features(train.values), target)
    kind, model = ("curve-trees", "curve-mlp") if steps >= SHORT else ("extratrees-lda", "summary-mlp")
    if steps == 1:
        trees = forest(seed, trees=150).fit(features(train.values), target)
    else:
        some = replace(train, target=target.astype(np.int64), classes=tuple(train.classes[i] for i in here))
        deep = [network(model, some, seed=seed + 100 * n) for n in range(networks)]
        woods = BASELINES[kind](seed).fit(train.values, target)

    def scores(values: NDArray) -> dict[str, NDArray]:
        parts = {"null": np.tile(frequent, (len(values), 1)), "lda": linear.scores(features(values)).clip(-50)}
        if steps == 1:
            parts["ensemble"] = np.log(trees.predict_proba(features(values)) + 1e-3)
        else:
            nets = [network_scores(one, values) for one in deep]
            parts |= {"network": nets[0], "ensemble": (woods.scores(values) + np.mean(nets, axis=0)) / 2}
        whole = {name: np.full((len(values), len(train.classes)), -20.0) for name in parts}
        for name, part in parts.items():
            whole[name][:, here] = part
        return whole

    return scores


def network(model: str, train: LabelledWindows, *, seed: int) -> Encoder:
    """The kit's network, trained with its recipe, in smaller batches where there are few windows."""
    from smellkit.study.odour.encoder_task import RECIPES

    recipe = RECIPES[model]
    batch = int(np.clip(recipe.epochs * len(train) // STEPS, 16, recipe.batch))  # small sets: as many steps, not epochs
    return trained(model, train, seed=seed, name="own", batch=batch)


def features(values: NDArray) -> NDArray[np.float32]:
    """What linear learners see of windows: their summary features, or the row itself where there is but one."""
    return values[:, 0] if values.shape[1] == 1 else describe(values).numpy()


def learning_curve(windows: LabelledWindows, protocol: Protocol, fold: NDArray[np.int64]) -> pd.DataFrame:
    """Accuracy of the LDA on recordings when ever more recordings of each class are there to learn from."""
    x, graded = features(windows.values), windows.start % protocol.stride == 0
    rows, count = [], 1
    while count <= windows.fold.max():
        shares = []
        for number in np.unique(fold):
            rank = np.unique(windows.fold[fold != number], return_inverse=True)[1]
            train = np.flatnonzero(fold != number)[rank < count]
            if len(train) <= len(windows.classes):
                continue
            test = graded & (fold == number)
            scores = Discriminant.fit(x[train], windows.target[train]).scores(x[test]).clip(-50)
            scores, target, recording = combine(scores, windows[test], 0)
            shares.append((recording, metrics.hits(scores, target)))
        if shares:
            groups, hits = (np.concatenate(part) for part in zip(*shares, strict=True))
            right = summarise([Outcome(groups, {"accuracy": hits})])["accuracy"]
            rows.append({"recordings": count, **right._asdict()})
        count *= 2
    return pd.DataFrame(rows)
