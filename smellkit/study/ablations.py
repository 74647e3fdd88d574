"""What a part is worth: the sweeps of notebooks/sweeps, each case trained again with several seeds, beside the first.

    sweep -> runs -> a row a case, "Loss/focal, gamma 2" -> means over seeds, differences to the first case -> words

Student's t over seeds: how much training varies, on the same test windows. Nothing is said of other recordings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from smellkit import options
from smellkit.gcode.recordings import MODALITIES
from smellkit.study import sweep
from smellkit.study.evaluate import Fit, Outcome, evaluate, intervals, splits

GCODE, PLUME = "smellkit.study.gcode", "smellkit.study.plume.task:PlumeTask"
DECODER, TOKENS, MASKS = f"{GCODE}.task:WindowDecoderTask", ("test.token",), ("test.miou", "test.balanced")
NAMED, TOGETHER = ("test.accuracy",), "Frozen against together, published decoder"
AGAIN, ZEROED = "Kind of sensor, trained again without", "Kind of sensor, zeroed in testing"


class Study(NamedTuple):
    """A sweep of notebooks/sweeps: what it asks, the task "module:function", and the scores that are shown."""

    title: str
    task: str = "smellkit.study.odour.encoder_task:task"
    scores: Sequence[str] = ("test.accuracy", "test.top5", "other_session.accuracy")
    shared: str = ""  # "module:function" from the data and what is fixed to options that all cases share
    blinded: str = ""  # "module:function" from the name of a run and a kind of sensor to what it scores without


STUDIES: dict[str, dict[str, Study]] = {
    "smellnet": {name: Study(name) for name in ("technique", "sensors", "tricks", "sessions")},
    "gcode": {
        "gcode-losses": Study("Loss", DECODER, TOKENS),
        "gcode-modalities": Study(AGAIN, DECODER, TOKENS, blinded=f"{GCODE}.protocols:blinded"),
        "gcode-parts": Study("Part of the decoder", DECODER, TOKENS),
        "gcode-encoder": Study("Reconstruction in the published encoder", f"{GCODE}.task:EncoderTask", NAMED),
        "gcode-frozen": Study(TOGETHER, f"{GCODE}.task:DecoderTask", NAMED, f"{GCODE}.protocols:shared_encoder"),
    },
    "plume": {
        "plume-fusion": Study("How the gases meet", PLUME, MASKS),
        "plume-gases": Study("Which gases there are", PLUME, MASKS),
        "plume-tasks": Study("Which tasks are learned", PLUME, MASKS),
        "plume-dropout": Study("How often a gas is hidden in training", PLUME, MASKS),
        "plume-training": Study("Classes and augmentation", PLUME, MASKS),
    },
}


def run(
    data: str = "",
    *,
    system: str,
    only: Sequence[str] = (),
    seeds: int = 3,
    workers: int = 1,
    fixed: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The sweeps `only` (all of STUDIES[system] without any) on `data`: {"about", "rows", "says": {title: words}}.

    `fixed` and `more` override what the files say for all their cases. Runs that are finished are not run again; rows
    of `earlier`, of other sweeps or with the same settings, are kept.
    """
    options.check(only, STUDIES[system], "There is no sweep")
    result = dict(earlier or {})
    for name in only or STUDIES[system]:
        study, plan = STUDIES[system][name], sweep.shipped(name, seeds=seeds, **{**more, **(fixed or {})})
        how = {"sweep": name, "data": Path(data).name or "sample", **plan.fixed}
        for rows in _rows(study, plan, data, workers=workers, fixed={**more, **(fixed or {})}):
            first, old = next(iter(rows)), result.get("rows", {}).items()
            title = first.split("/", 1)[0] + "/"  # cases that the sweep has no more go
            kept = {"rows": {case: row for case, row in old if case in rows or not case.startswith(title)}}
            asked: dict[str, Any] = {"about": {}, "settings": dict.fromkeys(rows, how), "against": first}
            result = evaluate(rows, seeds=seeds, progress=progress, earlier=result | kept, **asked)
    titles = dict.fromkeys(name.split("/", 1)[0] for name in result["rows"])
    return result | {"says": {title: says(tidy(result["rows"], title)) for title in titles}}


def _rows(
    study: Study, plan: sweep.Sweep, data: str, *, workers: int, fixed: Mapping[str, Any]
) -> Iterable[dict[str, Fit]]:
    """A row a case, whose sweep runs when the first is asked for; and those of the blinded first case."""

    @functools.cache
    def table() -> pd.DataFrame:
        shared = options.resolve(study.shared)(data, fixed) if study.shared else {"data": data}
        again = sweep.shipped(plan.name, seeds=len(plan.seeds), **fixed, **shared)
        return sweep.run(again, study.task, workers=workers)

    cases = list(plan.cases())

    def blinded(kind: str, seed: int) -> dict[str, Outcome]:
        return {"test": options.resolve(study.blinded)(_run(table(), cases[0], seed)["run"], kind)}

    yield {f"{study.title}/{case}": functools.partial(_fit, table, case, study.scores) for case in cases}
    if study.blinded:
        yield {f"{ZEROED}/{kind or 'nothing'}": functools.partial(blinded, kind) for kind in ("", *MODALITIES)}


def _run(table: pd.DataFrame, case: str, seed: int) -> dict[str, Any]:
    """The row of the run of a case with a seed."""
    (row,) = table[(table["case"] == case) & (table["seed"] == seed)].to_dict("records")
    return {str(name): value for name, value in row.items()}


def _fit(table: Callable[[], pd.DataFrame], case: str, scores: Sequence[str], seed: int) -> dict[str, Outcome]:
    """The `scores` ("test.accuracy") of the run of a case with a seed."""
    row = _run(table(), case, seed)
    measures: dict[str, dict[str, float]] = {}
    for score in [score for score in scores if pd.notna(row.get(score))]:
        split, _, measure = score.rpartition(".")
        measures.setdefault(split or "test", {})[measure] = row[score]
    return {split: Outcome(None, each) for split, each in measures.items()}


def compare(table: pd.DataFrame, *, scores: Sequence[str]) -> pd.DataFrame:
    """Cases of a table of runs (case, seed, scores) beside the first, as `tidy` has them."""
    fits = {case: functools.partial(_fit, lambda: table, case, scores) for case in table["case"].unique()}
    seeds = sorted(table["seed"].unique().tolist())
    return tidy(evaluate(fits, seeds=seeds, about={}, against=next(iter(fits)))["rows"])


def tidy(rows: Mapping[str, Any], title: str = "") -> pd.DataFrame:
    """Cases of the sweep `title`: case, score, mean, low, high, difference (and its low, high), apart, seeds.

    A case is `apart` when the interval of its difference to the first, seed by seed, is without 0.
    """
    begins, table = f"{title}/" if title else "", []
    for name, row in rows.items():
        for split, figures in splits(row).items() if name.startswith(begins) else ():
            for measure, (mean, low, high) in intervals(figures).items():
                off, least, most = intervals(figures.get("difference", {})).get(measure, (0.0, None, None))
                named = measure if split == "test" else f"{split}.{measure}"
                clear = None not in (least, most) and not least <= 0 <= most  # type: ignore[operator]
                table.append([name.removeprefix(begins), named, mean, low, high, off, least, most, clear, row["seeds"]])
    numbers = ["mean", "low", "high", "difference", "difference_low", "difference_high"]
    effects = pd.DataFrame(table, columns=["case", "score", *numbers, "apart", "seeds"])
    return effects.astype(dict.fromkeys(numbers, float)).assign(seeds=effects["seeds"].map(len))


def says(table: pd.DataFrame) -> str:
    """What a table of `tidy` shows of its first score, and what of it is noise, in words."""
    rows = table[table["score"] == table["score"].iloc[0]].set_index("case") if len(table) else table
    first, others = next(iter(rows.index), ""), rows.iloc[1:]
    if others["difference_low"].isna().all():
        return ""
    off = 100 * others["difference"]
    apart = [f"{case} ({off[case]:+.1f})" for case in others.index[others["apart"]]]
    sentences = [f"Against {first!r}, points: {'; '.join(apart)}."] if apart else []
    if (alike := off[~others["apart"]].abs()).size:
        reach = f"differences of up to {alike.max():.1f} points"
        sentences.append(f"Noise, within {rows['seeds'].iloc[0]} seeds: {'; '.join(alike.index)} ({reach}).")
    return " ".join(sentences)
