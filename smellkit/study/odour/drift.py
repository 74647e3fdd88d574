"""`smellkit bench drift`: sensors that age for three years (UCI 270), three ways to live with it.

    first to later     trained on batch 1, each later batch without a label of its own: its rows are looked at
    before to next     trained on all batches before, nothing of the next one is looked at
    references         trained on batches 1 to 5, and on k labelled rows of each gas of the batch itself

Nothing is chosen on a batch that is tested. How to adapt without labels is chosen on simulated days: halves of batch 1,
of which one is moved as sensors age (`simulated_day`), with other shares of the gases. Before-to-next and references
choose nothing: every learner on every view of the features counts alike.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from smellkit.checks import fault
from smellkit.checks.report import content, decoded
from smellkit.errors import DataError
from smellkit.study import evaluate
from smellkit.study.evaluate import Outcome

Array = NDArray[np.float64]
GASES = ("ethanol", "ethylene", "ammonia", "acetaldehyde", "acetone", "toluene")  # 1 to 6 in the files
SENSORS, PER_SENSOR = 16, 8
TYPES = [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]]  # sensors of one make: TGS2602, 2600, 2610, 2620
LATER, REFERRED, COUNTS = (2, 3, 4, 5, 6, 8, 9), (6, 8, 9), (0, 5, 10, 25, 50)
DAYS = 20  # simulated, to choose how to adapt
PUBLISHED = {
    "AMDS-PFFA, several labelled first batches, mean over batches 2-10 (arXiv 2409.13167)": 83.2,
    "OpenSmell, batches 1-5 to 6-10, no references": 52.3,
    "OpenSmell, 5 references a gas": 65.6,
    "OpenSmell, 10 references a gas": 73.4,
    "OpenSmell, 25 references a gas": 83.5,
    "OpenSmell, 50 references a gas": 91.2,
}


class Batch(NamedTuple):
    """Rows of one time: `values` (rows, 128) as in the file, `target` (rows,) number of the gas in `GASES`."""

    values: Array
    target: NDArray[np.int64]

    def weights(self, alike: bool) -> Array:
        """Weights of the rows: 1 each, or with `alike` 1 for each gas together."""
        return 1 / np.bincount(self.target)[self.target] if alike else np.ones(len(self.target))


# Features: a sensor that ages is mostly a sensor with another gain, which is an offset of its logarithm


def logs(values: Array) -> Array:
    """Logarithms of the sizes of all features, (rows, 128)."""
    return np.log(np.abs(values) + 1e-3)


def ratios(values: Array) -> Array:
    """What no common gain changes, (rows, 72): log ratios between makes of sensors, and of transients to steady state.

    A make is the median of its four sensors, so that one that fails does not count.
    """
    each = logs(values).reshape(len(values), SENSORS, PER_SENSOR)
    make = np.stack([np.median(each[:, members], axis=1) for members in TYPES], axis=1)  # (rows, 4, 8)
    first, second = np.triu_indices(len(TYPES), 1)
    between, within = make[:, first] - make[:, second], make[..., 2:] - make[..., :1]
    return np.concatenate([between.reshape(len(values), -1), within.reshape(len(values), -1)], axis=1)


VIEWS: dict[str, Callable[[Array], Array]] = {
    "logs": logs,
    "ratios": ratios,
    "both": lambda values: np.concatenate([logs(values), ratios(values)], axis=1),
}


def learners(seed: int) -> dict[str, Any]:
    """Name -> unfitted classifier."""
    return {
        "logistic, C 0.1": LogisticRegression(C=0.1, max_iter=500),
        "logistic, C 1": LogisticRegression(C=1.0, max_iter=500),
        "SVM, C 10": SVC(C=10.0),
        "SVM, C 100": SVC(C=100.0),
        "LDA": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
        "extra trees": ExtraTreesClassifier(100, random_state=seed, n_jobs=1),
    }


def fitted(model: Any, rows: Array, target: NDArray, weight: Array | None = None) -> Callable[[Array], Array]:
    """Fit `model` and return rows -> log-probabilities (rows, 6); discriminants take no weights."""
    if weight is None or "shrinkage" in model.get_params():
        model.fit(rows, target)
    else:
        model.fit(rows, target, sample_weight=weight / weight.mean())

    def scores(new: Array) -> Array:
        decided = not hasattr(model, "predict_proba")
        probability = softmax(2 * model.decision_function(new), axis=1) if decided else model.predict_proba(new)
        whole = np.full((len(new), len(GASES)), 1e-6)
        whole[:, model.classes_] += probability
        return np.log(whole / whole.sum(1, keepdims=True))

    return scores


# The three ways


def ensemble(before: Sequence[Batch], rows: Array, *, references: Batch | None = None, seed: int = 1) -> Array:
    """Mean log-probabilities (rows, 6) of every learner on every view, with rows alike and with gases of batches alike.

    `references` are labelled rows of today; they weigh as much as all batches `before` together. Beside that, learners
    see the references alone, both they and `rows` standardised by all of today: its unlabelled rows are looked at.
    """
    batches = [*before, *([references] if references else [])]
    target, parts = np.concatenate([batch.target for batch in batches]), []
    for view in VIEWS.values():
        seen = [view(batch.values) for batch in batches]
        past = np.concatenate(seen[: len(before)])
        mean, scale = past.mean(0), past.std(0) + 1e-9
        train, test = (np.concatenate(seen) - mean) / scale, (view(rows) - mean) / scale
        for alike in (False, True):
            weight = np.concatenate([batch.weights(alike) for batch in before])
            if references:
                own = references.weights(alike)
                weight = np.concatenate([weight, own * weight.sum() / own.sum()])
            able = [one for name, one in learners(seed).items() if not (alike and name == "LDA")]
            parts += [fitted(one, train, target, weight)(test) for one in able]
        if references:
            own, test = np.split(_standard(np.concatenate([seen[-1], view(rows)])), [len(references.target)])
            parts += [fitted(one, own, references.target)(test) for one in learners(seed).values()]
    return np.mean(parts, axis=0)


def plain(before: Sequence[Batch], rows: Array, *, references: Batch | None = None, seed: int = 1) -> Array:
    """The yardstick: 200 extra trees on logarithms, references together as heavy as all batches before."""
    train, target = (np.concatenate(part) for part in zip(*before, *([references] if references else []), strict=True))
    old = sum(len(batch.target) for batch in before)
    weight = np.where(np.arange(len(target)) < old, 1, old / max(1, len(target) - old))
    trees = ExtraTreesClassifier(200, random_state=seed, n_jobs=1)
    return fitted(trees, logs(train), target, weight)(logs(rows))


def aligned(
    before: Sequence[Batch], rows: Array, *, views: Sequence[str], names: Sequence[str], rounds: int, seed: int = 1
) -> Array:
    """Log-probabilities (rows, 6) by learners `names`, the labelled batches and today's unlabelled `rows` standardised.

    Standardising takes today's gains away, but also a difference in what was measured: so the labelled rows are
    weighted by the shares of the gases that are found in `rows`, and both are found again, `rounds` times.
    """
    seen = [([VIEWS[view](batch.values) for batch in before], _standard(VIEWS[view](rows))) for view in views]
    target = np.concatenate([batch.target for batch in before])
    own = [np.bincount(batch.target, minlength=len(GASES)) / len(batch.target) for batch in before]
    shares, scores = np.mean(own, axis=0), np.zeros((len(rows), len(GASES)))
    for _ in range(rounds):
        parts = []
        for labelled, today in seen:
            weight = [(shares / share.clip(1e-3))[batch.target] for share, batch in zip(own, before, strict=True)]
            train = np.concatenate([_standard(part, w) for part, w in zip(labelled, weight, strict=True)])
            parts += [fitted(learners(seed)[name], train, target)(today) for name in names]
        scores = np.mean(parts, axis=0)
        shares = shares + softmax(scores, axis=1).mean(0).clip(0.02)  # damped: the mean of old and new
        shares /= shares.sum()
    return scores


def _standard(rows: Array, weight: Array | None = None) -> Array:
    mean = np.average(rows, axis=0, weights=weight)
    return (rows - mean) / (np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight)) + 1e-9)


LOGISTIC = ("logistic, C 0.1", "logistic, C 1")
ADAPTED: Mapping[str, Callable[..., Array]] = {  # how to meet a batch without labels: which is chosen on simulated days
    f"{name}, standardised by the target": partial(aligned, views=["logs"], names=[name], rounds=1)
    for name in ("LDA", "logistic, C 1", "SVM, C 10", "extra trees")
} | {
    f"logistic, {' and '.join(views)}, {rounds} rounds": partial(aligned, views=views, names=LOGISTIC, rounds=rounds)
    for views in (["logs"], ["ratios"], ["logs", "ratios"])
    for rounds in (1, 8)
}


# Choosing, on batch 1 alone


def simulated_day(batch: Batch, *, seed: int) -> tuple[Batch, Batch]:
    """Half of `batch` as it is, and the other half on another day: aged sensors, and other shares of the gases.

    Logarithms move by an offset of each make (deviation 0.4), of each sensor (0.2) and of each of its features (0.2),
    and spread out by a factor of each make (0.15); shares of gases are drawn evenly from all there are (Dirichlet, 1).
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(batch.target))
    here, there = (Batch(batch.values[rows], batch.target[rows]) for rows in np.array_split(order, 2))
    share = random.dirichlet(np.ones(len(GASES)))[there.target] / np.bincount(there.target)[there.target]
    drawn = random.choice(len(share), size=len(share), p=share / share.sum())
    make = np.array([next(n for n, members in enumerate(TYPES) if sensor in members) for sensor in range(SENSORS)])
    spread = np.exp(random.normal(0, 0.15, len(TYPES)))[make][:, None]
    offset = random.normal(0, 0.4, len(TYPES))[make][:, None] + random.normal(0, 0.2, (SENSORS, 1))
    offset = offset + random.normal(0, 0.2, (SENSORS, PER_SENSOR))
    values = there.values[drawn].reshape(-1, SENSORS, PER_SENSOR)
    log = logs(values)
    centre = log.mean(0)
    moved = np.sign(values) * np.exp(centre + spread * (log - centre) + offset)
    return here, Batch(moved.reshape(len(drawn), -1), there.target[drawn])


def choose(first: Batch) -> dict[str, float]:
    """How often each way in `ADAPTED` is right on simulated days of `first`; the best is the chosen one."""
    days = [simulated_day(first, seed=day) for day in range(DAYS)]
    rate = lambda way: np.mean([(way([here], there.values).argmax(1) == there.target).mean() for here, there in days])  # noqa: E731
    return {name: float(rate(way)) for name, way in ADAPTED.items()}


# The bench


def run(
    data: Path,
    *,
    seeds: int = 3,
    parts: Sequence[str] = (),
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure the protocols on the batches in `data`; {"about", "chosen", "published", "rows"}.

    `parts` are beginnings of rows' names; all without. Rows and the choice of `earlier`, on the same data, are kept.
    """
    batches = read(Path(data))
    later = [number for number in LATER if number in batches]
    sizes = {str(number): len(batch.target) for number, batch in batches.items()}
    before = (earlier or {}).get("about", {})
    days = before["simulated_days"] if before.get("rows") == sizes else choose(batches[min(batches)])
    chosen = max(days, key=lambda name: days[name])
    progress(f"chosen on {DAYS} simulated days of batch 1: {chosen} ({days[chosen]:.1%})")
    fit = partial(partial, tested, batches)
    referred: dict[str, Any] = {"after": min(REFERRED), "numbers": [number for number in REFERRED if number in batches]}
    learnt = {"all learners": ensemble, "extra trees": plain}
    rows = {f"first to later/{name}": fit(way, numbers=later, after=min(later)) for name, way in ADAPTED.items()}
    rows |= {f"before to next/{name}": fit(way, numbers=later) for name, way in learnt.items()}
    rows |= {f"references/0 a gas, {chosen}": fit(ADAPTED[chosen], **referred)}
    for count in COUNTS:
        more = {f"references/{count} a gas, {name}": way for name, way in learnt.items()}
        rows |= {name: fit(way, count=count, **referred) for name, way in more.items()}
    rows = {name: row for name, row in rows.items() if not parts or name.startswith(tuple(parts))}
    about = {"rows": sizes, "simulated_days": days}
    result = evaluate.evaluate(rows, seeds=seeds, about=about, earlier=earlier, progress=progress)
    return {"chosen": chosen, "published": PUBLISHED, **result}


def tested(
    batches: Mapping[int, Batch],
    way: Callable[..., Array],
    seed: int,
    *,
    numbers: Sequence[int],
    after: int = 0,
    count: int = 0,
) -> dict[str, Outcome]:
    """Accuracy of `way` on each batch of `numbers` and the mean of the batches; rows are drawn for the intervals.

    It is given the batches before `after` (by default before each tested one), and `count` labelled rows of each gas
    of the tested one, at most half of them, which are not scored.
    """
    hits = {}
    for number in numbers:
        before = [batch for other, batch in batches.items() if other < (after or number)]
        values, target = batches[number]
        known = references(target, count, seed=seed)
        rest = np.setdiff1d(np.arange(len(target)), known)
        more = {"references": Batch(values[known], target[known])} if count else {}
        hits[number] = (way(before, values[rest], seed=seed, **more).argmax(1) == target[rest]).astype(float)
    which = np.concatenate([np.full(len(part), number) for number, part in hits.items()])
    every = np.concatenate(list(hits.values()))
    mean = lambda rows: float(np.mean([every[rows][which[rows] == number].mean() for number in hits]))  # noqa: E731
    each = {f"batch {number}": Outcome(np.arange(len(part)), {"accuracy": part}) for number, part in hits.items()}
    return {"mean": Outcome(np.arange(len(which)), {"accuracy": mean}), **each}


def references(target: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Row numbers of `count` drawn rows of each gas, at most half of what there is of it."""
    random = np.random.default_rng(seed)
    rows = [random.permutation(np.flatnonzero(target == gas)) for gas in np.unique(target)]
    return np.sort(np.concatenate([part[: min(count, len(part) // 2)] for part in rows]))


def read(folder: Path) -> dict[int, Batch]:
    """Number -> batch of every `batchN.dat` in `folder`, as UCI has them (`1;10.0 1:15596.1 ...`) or with commas."""
    files = {int(number[0]): file for file in folder.glob("batch*.dat") if (number := re.findall(r"\d+", file.stem))}
    if len(files) < 2:
        raise DataError(f"{folder} has not two files batchN.dat", hint="UCI data set 270; see data/README.md")
    return {number: _read_one(files[number]) for number in sorted(files)}


def _read_one(file: Path) -> Batch:
    lines = pd.Series(decoded(file, content(file)).splitlines())
    cells = lines.str.strip().str.split(r"[;,\s]+", regex=True, expand=True)
    known = {name: gas for gas, name in enumerate(GASES)} | {str(gas + 1): gas for gas in range(len(GASES))}
    gas, numbers = cells[0].str.lower().map(known), cells.iloc[:, 2:].set_axis(range(1, cells.shape[1] - 1), axis=1)
    numbers = numbers.apply(lambda cell: cell.str.removeprefix(f"{cell.name}:"))  # of another place, it is no number
    values = numbers.apply(pd.to_numeric, errors="coerce").to_numpy(float)[:, : SENSORS * PER_SENSOR]
    whole = np.isfinite(values).all(axis=1) & (numbers.notna().sum(axis=1) == SENSORS * PER_SENSOR)
    for number in np.flatnonzero(~whole | gas.isna())[:1]:
        expected = f"a gas, its concentration and {SENSORS * PER_SENSOR} numbers"
        actual = repr(lines[number][:60])
        raise fault(file, line=number + 1, expected=expected, actual=actual, hint="fetch it again")
    return Batch(values, gas.to_numpy(int))
