"""`smellkit bench drift`: sensors that age for three years (UCI 270), three ways to live with it.

    first to later     trained on batch 1, each later batch without a label of its own: its rows are looked at
    before to next     trained on all batches before, nothing of the next one is looked at
    references         trained on batches 1 to 5, and on k labelled rows of each gas of the batch itself

Nothing is chosen on a batch that is tested. How to adapt without labels is chosen on simulated days: halves of batch 1,
of which one is moved as sensors age (`simulated_day`), with other shares of the gases. Before-to-next and references
choose nothing: every learner on every view of the features counts alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from smellkit.checks import fault
from smellkit.errors import DataError
from smellkit.study import evaluate
from smellkit.study.evaluate import Outcome, percent

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


def both(values: Array) -> Array:
    """`logs` and `ratios` side by side."""
    return np.concatenate([logs(values), ratios(values)], axis=1)


VIEWS = {"logs": logs, "ratios": ratios, "both": both}


def learners(seed: int) -> dict[str, Callable[[], Any]]:
    """Name -> function that makes an unfitted classifier."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    return {
        "logistic, C 0.1": partial(LogisticRegression, C=0.1, max_iter=500),
        "logistic, C 1": partial(LogisticRegression, C=1.0, max_iter=500),
        "SVM, C 10": partial(SVC, C=10.0),
        "SVM, C 100": partial(SVC, C=100.0),
        "LDA": partial(LinearDiscriminantAnalysis, solver="lsqr", shrinkage=0.1),
        "extra trees": partial(ExtraTreesClassifier, 100, random_state=seed, n_jobs=1),
    }


def fitted(make: Callable[[], Any], rows: Array, target: NDArray, weight: Array | None = None) -> Callable:
    """Fit a classifier and return rows -> log-probabilities (rows, 6); discriminants take no weights."""
    model = make()
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
    batches = [*before, *([references] if references is not None else [])]
    target = np.concatenate([batch.target for batch in batches])
    parts = []
    for view in VIEWS.values():
        seen = [view(batch.values) for batch in batches]
        past = np.concatenate(seen[: len(before)])
        mean, scale = past.mean(0), past.std(0) + 1e-9
        train, test = (np.concatenate(seen) - mean) / scale, (view(rows) - mean) / scale
        for alike in (False, True):
            weight = np.concatenate([weights(batch, alike) for batch in before])
            if references is not None:
                own = weights(references, alike)
                weight = np.concatenate([weight, own * weight.sum() / own.sum()])
            for name, make in learners(seed).items():
                if not (alike and name == "LDA"):
                    parts.append(fitted(make, train, target, weight)(test))
        if references is not None:
            today = _standard(np.concatenate([seen[-1], view(rows)]))
            own, test = np.split(today, [len(references.target)])
            parts += [fitted(make, own, references.target)(test) for make in learners(seed).values()]
    return np.mean(parts, axis=0)


def plain(before: Sequence[Batch], rows: Array, *, references: Batch | None = None, seed: int = 1) -> Array:
    """The yardstick: 200 extra trees on logarithms, references together as heavy as all batches before."""
    from sklearn.ensemble import ExtraTreesClassifier

    batches = [*before, *([references] if references is not None else [])]
    weight = np.ones(sum(len(batch.target) for batch in batches))
    if references is not None:
        old = len(weight) - len(references.target)
        weight[old:] = old / len(references.target)
    make = partial(ExtraTreesClassifier, 200, random_state=seed, n_jobs=1)
    train, target = (np.concatenate(part) for part in zip(*batches, strict=True))
    return fitted(make, logs(train), target, weight)(logs(rows))


def weights(batch: Batch, alike: bool) -> Array:
    """Weights of a batch's rows: 1 each, or with `alike` 1 for each gas together."""
    return 1 / np.bincount(batch.target)[batch.target] if alike else np.ones(len(batch.target))


def aligned(
    before: Sequence[Batch], rows: Array, *, views: Sequence[str], names: Sequence[str], rounds: int, seed: int = 1
) -> Array:
    """Log-probabilities (rows, 6) by learners `names`, the labelled batches and today's unlabelled `rows` standardised.

    Standardising takes today's gains away, but also a difference in what was measured: so the labelled rows are
    weighted by the shares of the gases that are found in `rows`, and both are found again, `rounds` times.
    """
    seen = {view: ([VIEWS[view](batch.values) for batch in before], _standard(VIEWS[view](rows))) for view in views}
    target = np.concatenate([batch.target for batch in before])
    own = [np.bincount(batch.target, minlength=len(GASES)) / len(batch.target) for batch in before]
    shares, scores = np.mean(own, axis=0), np.zeros((len(rows), len(GASES)))
    for _ in range(rounds):
        parts = []
        for labelled, today in seen.values():
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
ADAPTED: dict[str, Callable[..., Array]] = {  # how to meet a batch without labels: which is chosen on simulated days
    **{
        f"{name}, standardised by the target": partial(aligned, views=["logs"], names=[name], rounds=1)
        for name in ("LDA", "logistic, C 1", "SVM, C 10", "extra trees")
    },
    **{
        f"logistic, {' and '.join(views)}, {rounds} rounds": partial(
            aligned, views=views, names=LOGISTIC, rounds=rounds
        )
        for views in (["logs"], ["ratios"], ["logs", "ratios"])
        for rounds in (1, 8)
    },
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
    make = np.empty(SENSORS, int)
    for number, members in enumerate(TYPES):
        make[members] = number
    spread = np.exp(random.normal(0, 0.15, len(TYPES)))[make][:, None]
    offset = random.normal(0, 0.4, len(TYPES))[make][:, None] + random.normal(0, 0.2, (SENSORS, 1))
    offset = offset + random.normal(0, 0.2, (SENSORS, PER_SENSOR))
    values = there.values[drawn].reshape(-1, SENSORS, PER_SENSOR)
    log = np.log(np.abs(values) + 1e-3)
    centre = log.mean(0)
    moved = np.sign(values) * np.exp(centre + spread * (log - centre) + offset)
    return here, Batch(moved.reshape(len(drawn), -1), there.target[drawn])


def choose(first: Batch) -> dict[str, float]:
    """How often each way in `ADAPTED` is right on simulated days of `first`; the best is the chosen one."""
    right: dict[str, list[float]] = {name: [] for name in ADAPTED}
    for day in range(DAYS):
        here, there = simulated_day(first, seed=day)
        for name, way in ADAPTED.items():
            right[name].append(float((way([here], there.values).argmax(1) == there.target).mean()))
    return {name: float(np.mean(values)) for name, values in right.items()}


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
    first = batches[min(batches)]
    sizes = {str(number): len(batch.target) for number, batch in batches.items()}
    before = (earlier or {}).get("about", {})
    days = before["simulated_days"] if before.get("rows") == sizes else choose(first)
    chosen = max(days, key=lambda name: days[name])
    progress(f"chosen on {DAYS} simulated days of batch 1: {chosen} ({days[chosen]:.1%})")
    fit = partial(Fit, batches)
    referred: dict[str, Any] = {"after": min(REFERRED), "tested": [number for number in REFERRED if number in batches]}
    both_ways = {"all learners": ensemble, "extra trees": plain}
    rows = {f"first to later/{name}": fit(way, later, after=min(later)) for name, way in ADAPTED.items()}
    rows |= {f"before to next/{name}": fit(way, later) for name, way in both_ways.items()}
    rows |= {f"0 references/{chosen}": fit(ADAPTED[chosen], **referred)}
    for count in COUNTS:
        rows |= {f"{count} references/{name}": fit(way, count=count, **referred) for name, way in both_ways.items()}
    rows = {name: row for name, row in rows.items() if not parts or name.startswith(tuple(parts))}
    about = {"rows": sizes, "simulated_days": days}
    result = evaluate.evaluate(rows, seeds=seeds, about=about, earlier=earlier, progress=progress)
    return {"chosen": chosen, "published": PUBLISHED, **result}


@dataclass(frozen=True)
class Fit:
    """One row of the table: `way` is given the batches before `after` (by default before each tested one)."""

    batches: Mapping[int, Batch]
    way: Callable[..., Array]
    tested: Sequence[int]
    after: int = 0
    count: int = 0  # labelled rows of each gas of the tested batch, at most half of them

    def __call__(self, seed: int) -> dict[str, Outcome]:
        """Accuracy on each tested batch, and the mean of the batches; rows are drawn for the intervals."""
        hits = {number: self._hits(number, seed) for number in self.tested}
        which = np.concatenate([np.full(len(part), number) for number, part in hits.items()])
        every = np.concatenate(list(hits.values()))

        def mean(rows: NDArray) -> float:
            drawn = which[rows]
            return float(np.mean([every[rows][drawn == number].mean() for number in hits]))

        whole = Outcome(np.arange(len(which)), {"accuracy": mean})
        return {"mean": whole} | {
            f"batch {number}": Outcome(np.arange(len(part)), {"accuracy": part}) for number, part in hits.items()
        }

    def _hits(self, number: int, seed: int) -> Array:
        before = [batch for other, batch in self.batches.items() if other < (self.after or number)]
        values, target = self.batches[number]
        if not self.count:
            return (self.way(before, values, seed=seed).argmax(1) == target).astype(float)
        chosen = references(target, self.count, seed=seed)
        rest = np.setdiff1d(np.arange(len(target)), chosen)
        scores = self.way(before, values[rest], references=Batch(values[chosen], target[chosen]), seed=seed)
        return (scores.argmax(1) == target[rest]).astype(float)


def references(target: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Row numbers of `count` drawn rows of each gas, at most half of what there is of it."""
    random = np.random.default_rng(seed)
    rows = [random.permutation(np.flatnonzero(target == gas)) for gas in np.unique(target)]
    return np.sort(np.concatenate([part[: min(count, len(part) // 2)] for part in rows]))


def report(result: Mapping[str, Any]) -> str:
    """The means and each batch as text, in per cent."""
    lines = [f"Chosen on simulated days of batch 1: {result['chosen']}"]
    for name, row in result["rows"].items():
        each = " ".join(f"{100 * row[part]['accuracy']['value']:.0f}" for part in row if part.startswith("batch"))
        lines.append(f"  {name:62} {percent(row['mean']['accuracy'])}   [{each}]")
    return "\n".join(lines)


# Reading


def read(folder: Path) -> dict[int, Batch]:
    """Number -> batch of every `batchN.dat` in `folder`, as UCI has them (`1;10.0 1:15596.1 ...`) or with commas."""
    files = sorted(folder.glob("batch*.dat"), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))
    if len(files) < 2:
        raise DataError(f"{folder} has not two files batchN.dat", hint="UCI data set 270; see data/README.md")
    return {int(re.sub(r"\D", "", file.stem)): _read_one(file) for file in files}


def _read_one(file: Path) -> Batch:
    target, values = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = re.split(r"[;,\s]+", line.strip())
        try:
            gas = int(words[0]) - 1 if words[0].isdigit() else GASES.index(words[0].lower())
            row = [float(word.split(":")[-1]) for word in words[2:]]
            if len(row) != SENSORS * PER_SENSOR or not np.isfinite(row).all() or gas not in range(len(GASES)):
                raise ValueError
        except ValueError as why:
            expected = f"a gas, its concentration and {SENSORS * PER_SENSOR} numbers"
            raise fault(file, line=number, expected=expected, found=repr(line[:60]), hint="fetch it again") from why
        target.append(gas)
        values.append(row)
    return Batch(np.array(values), np.array(target))
