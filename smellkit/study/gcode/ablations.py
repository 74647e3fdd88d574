"""What a part of the window decoder, a kind of sensor or a loss is worth: taken away in testing, or trained without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from smellkit import paths, runs, sweep
from smellkit.gcode.recordings import MODALITIES, channel_mask
from smellkit.metrics import over_seeds
from smellkit.runs import Run
from smellkit.study.gcode import protocols as bench
from smellkit.study.gcode import task as tasks
from smellkit.study.gcode.scores import token_accuracy
from smellkit.study.gcode.splits import Prepared
from smellkit.train import Settings

FOLDER = paths.HOME / "notebooks" / "sweeps"
SWEEPS = {  # file -> what it asks, task, score
    "gcode-losses": ("Loss", tasks.WindowDecoderTask, "token"),
    "gcode-modalities": ("Kind of sensor, trained again without", tasks.WindowDecoderTask, "token"),
    "gcode-parts": ("Part of the decoder", tasks.WindowDecoderTask, "token"),
    "gcode-encoder": ("Reconstruction in the published encoder", tasks.EncoderTask, "accuracy"),
    "gcode-frozen": ("Frozen against together, published decoder", tasks.DecoderTask, "accuracy"),
}


def bench_all(
    folder: str, *, names: Sequence[str] = tuple(SWEEPS), seeds: int = 3, workers: int = 1, **fixed: Any
) -> dict[str, Any]:
    """Run the sweeps `names` on `folder` and return their tables, with what is noise; `fixed` overrides all of them."""
    results: dict[str, Any] = {}
    for name in names:
        title, factory, score = SWEEPS[name]
        plan = sweep.read(FOLDER / f"{name}.yaml")
        own = {**fixed, "data": folder}
        if factory is tasks.DecoderTask:
            own = {**fixed, "encoder": _encoder(folder, epochs=int(fixed.get("epochs", 8)))}
        plan = replace(plan, seeds=list(range(1, seeds + 1)), fixed=plan.fixed | own)
        ran = sweep.run(plan, f"{factory.__module__}:{factory.__name__}", workers=workers)
        rows = compared(ran, score=f"test.{score}")
        results[title] = {
            "sweep": name,
            "score": f"test.{score}",
            "settings": {key: value for key, value in plan.fixed.items() if key != "data"},
            "rows": rows.to_dict("records"),
            "says": sentence(rows),
        }
        if name == "gcode-modalities":
            rows = compared(zeroed_all(ran), score="TF")
            results["Kind of sensor, zeroed in testing"] = {
                "sweep": name,
                "score": "TF",
                "rows": rows.to_dict("records"),
                "says": sentence(rows),
            }
    return runs.plain(results)


def _encoder(folder: str, *, epochs: int) -> str:
    """The frozen encoder that all the decoders of `gcode-frozen` share, by the name of its run."""
    options = {"data": folder, "protocol": "G", "fold": 0, "thin": 2}
    settings = Settings(epochs=epochs, batch=64, learning_rate=1e-3, seed=1)
    return bench.fitted(tasks.EncoderTask, options, settings, name="gcode-ablations-encoder").name


def compared(table: pd.DataFrame, *, score: str) -> pd.DataFrame:
    """Mean of each case over its seeds, and its mean difference to the first case, seed by seed, both with intervals.

    Columns: case, seeds, mean, low, high, difference, difference_low, difference_high, apart (the interval of the
    difference is without 0). Student's t over seeds: the same test windows, so nothing is said of other recordings.
    """
    wide = table.pivot(index="seed", columns="case", values=score)[list(table["case"].unique())]
    rows = []
    for case in wide:
        mean, low, high = over_seeds(list(wide[case]))
        off = over_seeds(list(wide[case] - wide.iloc[:, 0]))
        row = {"case": case, "seeds": len(wide), "mean": mean, "low": low, "high": high, "difference": off[0]}
        apart = case != wide.columns[0] and (off[1] > 0 or off[2] < 0)
        rows.append(row | {"difference_low": off[1], "difference_high": off[2], "apart": apart})
    return pd.DataFrame(rows)


def sentence(rows: pd.DataFrame) -> str:
    """What the table of `compared` shows, and what of it is noise, in words."""
    first, others = rows.iloc[0], rows.iloc[1:]
    apart = [f"{row.case} ({100 * row.difference:+.1f})" for row in others.itertuples() if row.apart]
    alike = [str(case) for case in others.loc[~others["apart"], "case"]]
    sentences = []
    if apart:
        sentences.append(f"Against {first['case']!r}, points: {'; '.join(apart)}.")
    if alike:
        spread = 100 * others.loc[~others["apart"], "difference"].abs().max()
        sentences.append(
            f"Noise, within {first['seeds']} seeds: {'; '.join(alike)} (differences of up to {spread:.1f} points)."
        )
    return " ".join(sentences)


def zeroed(run: Run, prepared: Prepared) -> pd.DataFrame:
    """Test scores of one trained decoder when it is blinded to one modality: without, TF, AR, operation.

    The published modality table is of this kind: it shows what a model trained with a channel misses when it is gone,
    not what the channel is worth; for that, train again (`--set without=...`).
    """
    rows = []
    for modality in ("", *MODALITIES):
        test = bench.predictions(run, prepared, mask=channel_mask(without=modality))
        right = test.operation.argmax(axis=1) == test.table["operation_id"].to_numpy()
        row = {"without": modality or "nothing", "TF": token_accuracy(test.forced, test.target)}
        rows.append(row | {"AR": token_accuracy(test.free, test.target), "operation": float(right.mean())})
    return pd.DataFrame(rows)


def zeroed_all(table: pd.DataFrame) -> pd.DataFrame:
    """`zeroed` of every fit with everything in a sweep's table: one row a seed and a modality (case)."""
    tables = []
    for row in table[table["case"] == table["case"].iloc[0]].itertuples():
        run = runs.latest(str(row.run))
        scored = zeroed(run, tasks.config_of(tasks.WindowDecoderTask, run.params).prepared)
        tables.append(scored.rename(columns={"without": "case"}).assign(seed=row.seed))
    return pd.concat(tables, ignore_index=True)


def text(results: dict[str, Any]) -> str:
    """The tables to read: per cent, with 95 % intervals over seeds."""
    blocks = []
    for title, part in results.items():
        rows = pd.DataFrame(part["rows"])
        rows[["mean", "low", "high", "difference"]] = (100 * rows[["mean", "low", "high", "difference"]]).round(1)
        shown = rows[["case", "mean", "low", "high", "difference", "apart"]]
        blocks.append(f"{title} ({part['score']})\n{shown.to_string(index=False)}\n{part['says']}")
    return "\n\n".join(blocks)


def figures_of(results: dict[str, Any]) -> dict[str, Any]:
    """The same as figures for a page: title -> case -> figures {value, low, high}."""

    def figure(row: dict[str, Any], name: str) -> dict[str, float]:
        edges = ("low", "high") if name == "mean" else (f"{name}_low", f"{name}_high")
        return {"value": row[name], "low": row[edges[0]], "high": row[edges[1]]}

    return {
        title: {row["case"]: {name: figure(row, name) for name in ("mean", "difference")} for row in part["rows"]}
        for title, part in results.items()
    }


def added(file: Path, results: dict[str, Any]) -> dict[str, Any]:
    """What a file of ablations holds once `results` is in it; sweeps of the same name are replaced."""
    from smellkit.checks import read_json

    old = read_json(file) if file.exists() else {}
    return {
        "made_by": {"command": "smellkit bench gcode-ablations --data DIR"},
        "tables": old.get("tables", {}) | figures_of(results),
        "ablations": old.get("ablations", {}) | results,
        "stamp": runs.stamp(),
    }
