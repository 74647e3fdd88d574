"""What a part of the window decoder, a kind of sensor or a loss is worth: taken away in testing, or trained without."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from smellkit import runs
from smellkit.gcode.recordings import MODALITIES, channel_mask
from smellkit.options import task_of
from smellkit.study import sweep
from smellkit.study.evaluate import earlier, publish
from smellkit.study.gcode import protocols as bench
from smellkit.study.gcode import task as tasks
from smellkit.study.gcode.scores import token_accuracy
from smellkit.study.metrics import over_seeds

SWEEPS = {  # file -> what it asks, task, score
    "gcode-losses": ("Loss", tasks.WindowDecoderTask, "test.token"),
    "gcode-modalities": ("Kind of sensor, trained again without", tasks.WindowDecoderTask, "test.token"),
    "gcode-parts": ("Part of the decoder", tasks.WindowDecoderTask, "test.token"),
    "gcode-encoder": ("Reconstruction in the published encoder", tasks.EncoderTask, "test.accuracy"),
    "gcode-frozen": ("Frozen against together, published decoder", tasks.DecoderTask, "test.accuracy"),
}


def bench_all(
    folder: str, *, names: Sequence[str] = tuple(SWEEPS), seeds: int = 3, workers: int = 1, **fixed: Any
) -> dict[str, Any]:
    """Run the sweeps `names` on `folder` and return their tables, with what is noise; `fixed` overrides all of them."""
    results: dict[str, Any] = {}
    for name in names:
        title, factory, score = SWEEPS[name]
        own = {**fixed, "data": folder}
        if factory is tasks.DecoderTask:  # all of them share one frozen encoder
            options = {"data": folder, "protocol": "G", "fold": 0, "thin": 2}
            how = {"epochs": int(fixed.get("epochs", 8)), "batch": 64, "learning_rate": 1e-3, "seed": 1}
            encoder = bench.fitted(tasks.EncoderTask, options, how, name="gcode-ablations-encoder")
            own = {**fixed, "encoder": encoder.name}
        plan = sweep.shipped(name, seeds=seeds, **own)
        ran = sweep.run(plan, f"{factory.__module__}:{factory.__name__}", workers=workers)
        settings = {key: value for key, value in plan.fixed.items() if key != "data"}
        results[title] = {"sweep": name, "score": score, "settings": settings, **compared(ran, score=score)}
        if name == "gcode-modalities":
            whole = ran[ran["case"] == ran["case"].iloc[0]]
            blinded = pd.concat(map(_zeroed, whole["run"], whole["seed"]))
            own = {"sweep": name, "score": "TF", **compared(blinded, score="TF")}
            results["Kind of sensor, zeroed in testing"] = own
    return runs.plain(results)


def compared(table: pd.DataFrame, *, score: str) -> dict[str, Any]:
    """`rows`: mean of each case over its seeds, and its mean difference to the first case, seed by seed; and `says`.

    In a row: case, seeds, mean, low, high, difference, difference_low, difference_high, apart (the interval of the
    difference is without 0). Student's t over seeds: the same test windows, so nothing is said of other recordings.
    `says` is what the table shows, and what of it is noise, in words.
    """
    wide = table.pivot(index="seed", columns="case", values=score)[list(table["case"].unique())]
    rows, apart, alike = [], [], {}
    for case in wide:
        mean, low, high = over_seeds(list(wide[case]))
        off, least, most = over_seeds(list(wide[case] - wide.iloc[:, 0]))
        clear = case != wide.columns[0] and (least > 0 or most < 0)
        rows.append({"case": case, "seeds": len(wide), "mean": mean, "low": low, "high": high, "difference": off,
                     "difference_low": least, "difference_high": most, "apart": clear})  # fmt: skip
        if clear:
            apart.append(f"{case} ({100 * off:+.1f})")
        elif case != wide.columns[0]:
            alike[str(case)] = 100 * abs(off)
    says = [f"Against {wide.columns[0]!r}, points: {'; '.join(apart)}."] if apart else []
    if alike:
        reach = f"differences of up to {max(alike.values()):.1f} points"
        says.append(f"Noise, within {len(wide)} seeds: {'; '.join(alike)} ({reach}).")
    return {"rows": rows, "says": " ".join(says)}


def _zeroed(name: str, seed: int) -> pd.DataFrame:
    """Test scores of one trained decoder when it is blinded to one modality: case, seed, TF.

    The published modality table is of this kind: it shows what a model trained with a channel misses when it is gone,
    not what the channel is worth; for that, train again (`--set without=...`).
    """
    run, rows = runs.latest(name), []
    prepared = task_of(tasks.WindowDecoderTask, run.params).prepared
    for kind in ("", *MODALITIES):
        test = bench.predictions([(run, prepared)], mask=channel_mask(without=kind))
        rows.append({"case": kind or "nothing", "seed": seed, "TF": token_accuracy(test.forced, test.target)})
    return pd.DataFrame(rows)


def text(results: dict[str, Any]) -> str:
    """The tables to read: per cent, with 95 % intervals over seeds."""
    blocks = []
    for title, part in results.items():
        rows = pd.DataFrame(part["rows"]).set_index("case")
        shown = (100 * rows[["mean", "low", "high", "difference"]]).round(1).assign(apart=rows["apart"])
        blocks.append(f"{title} ({part['score']})\n{shown.to_string()}\n{part['says']}")
    return "\n\n".join(blocks)


def write(file: Path, results: dict[str, Any]) -> Path:
    """Add `results` to a file, whole and as tables for a page; sweeps of the same title are replaced."""
    tables: dict[str, Any] = {}
    for title, part in results.items():
        for row in part["rows"]:
            mean = {"value": row["mean"], "low": row["low"], "high": row["high"]}
            off = {name: row[f"difference{edge}"] for name, edge in (("value", ""), ("low", "_low"), ("high", "_high"))}
            tables.setdefault(title, {})[row["case"]] = {"mean": mean, "difference": off}
    new, old = {"tables": tables, "ablations": results}, earlier(file)
    merged = {key: old.get(key, {}) | part for key, part in new.items()}
    return publish(file, merged, command="smellkit bench gcode-ablations --data DIR")
