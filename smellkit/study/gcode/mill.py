"""`smellkit bench smart-mill`: which line of its program a second machine runs, by whole experiments.

experiment_NN.csv (10 Hz) -> blocks of a second -> summaries of 44 channels -> line of the program, process

SMART mill (University of Michigan, 2018): one part in wax, 18 experiments with other feeds, clamps and tools. The text
of the program is not in the set, so a line is its number. Once a second the number says 2, whatever runs; most files
hold their seconds in no order (the tool jumps where it says so), so no window is longer. Where it is 0 no line is told.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.checks import fault, read_texts
from smellkit.checks.tables import numbers
from smellkit.errors import DataError
from smellkit.study import evaluate
from smellkit.study.evaluate import Outcome
from smellkit.study.metrics import macro_f1

MOTION = (
    "ActualPosition",
    "ActualVelocity",
    "ActualAcceleration",
    "CommandPosition",
    "CommandVelocity",
    "CommandAcceleration",
)
DRIVE = ("CurrentFeedback", "DCBusVoltage", "OutputCurrent", "OutputVoltage", "OutputPower")
AXES = [f"{axis}_{what}" for axis in ("X1", "Y1", "Z1", "S1") for what in (*MOTION, *DRIVE)]
AXIS_CHANNELS = tuple(name for name in AXES if name != "Z1_OutputPower") + ("S1_SystemInertia",)
PROGRAM, LINE, PROCESS = "M1_CURRENT_PROGRAM_NUMBER", "M1_sequence_number", "Machining_Process"
OTHER = (0, 4)  # programs that are not of the part
TICK, ROWS = 2, 10  # what the number says once a second, and the rows of a second
FOLDS = 6
INPUTS = {  # name -> kinds of channels that are hidden; commands tell what the control wants, not what happens
    "all": (),
    "no position": ("ActualPosition", "CommandPosition"),
    "drives alone": MOTION,
    "place alone": (*MOTION[1:], *DRIVE, "SystemInertia", "S1_ActualPosition"),
}
Array = NDArray[np.float64]


def read(folder: Path) -> pd.DataFrame:
    """Blocks of at most a second: experiment, line (number), process, and of each channel mean, deviation, first, last.

    Blocks that run another program or tell no line are left out. DataError names what is no number, with its place.
    """
    files = sorted(Path(folder).rglob("experiment_*.csv"))
    if len(files) < FOLDS:
        raise DataError(
            f"{folder} has {len(files)} files experiment_NN.csv", hint="the 18 of the set; see data/README.md"
        )
    return pd.concat([_blocks(file) for file in files], ignore_index=True)


def _blocks(file: Path) -> pd.DataFrame:
    names = [*AXIS_CHANNELS, PROGRAM, LINE]
    texts = read_texts(file, columns=[*names, PROCESS])
    process = texts[PROCESS].str.capitalize().to_numpy()  # `end` is `End`
    table = pd.DataFrame({name: numbers(texts[name].to_numpy()) for name in names})
    for row, column in np.argwhere(~np.isfinite(table.to_numpy()))[:1]:
        actual, line = texts[names[column]].iloc[row], int(texts.index[row])
        raise fault(file, line=line, column=names[column], expected="a number", actual=actual, hint="fetch it again")
    if (wrong := np.flatnonzero((table[LINE] % 1 != 0) | (table[LINE] < 0))).size:
        actual, line = f"{table[LINE].iloc[wrong[0]]:g}", int(texts.index[wrong[0]])
        raise fault(file, line=line, column=LINE, expected="a line's number", actual=actual, hint="fetch it again")
    tick = (table[LINE] == TICK).cumsum()
    block = tick.astype(str) + "/" + (table.groupby(tick).cumcount() // ROWS).astype(str)
    labelled = ~table[LINE].isin((0, TICK)) & ~table[PROGRAM].isin(OTHER)
    grouped = table.assign(block=block, process=process)[labelled].groupby("block", sort=False)
    summary = grouped[list(AXIS_CHANNELS)].agg(["mean", "std", "first", "last"]).fillna(0.0)
    summary.columns = ["/".join(names) for names in summary.columns]
    labels = grouped[[LINE, "process"]].agg(lambda column: column.mode().iloc[0])
    return summary.reset_index(drop=True).assign(
        experiment=file.stem, line=labels[LINE].to_numpy(int), process=labels["process"].to_numpy()
    )


def columns(blocks: pd.DataFrame, inputs: str) -> Array:
    """The summaries (blocks, features) that are seen under one of `INPUTS`."""
    names = [name for name in AXIS_CHANNELS if not {name, name.split("_")[1]} & set(INPUTS[inputs])]
    return blocks[[f"{name}/{kind}" for name in names for kind in ("mean", "std", "first", "last")]].to_numpy()


def outcome(blocks: pd.DataFrame, line: NDArray, process: NDArray) -> Outcome:
    """Line right, within two of it, and process right, of predictions for every block; drawn by whole experiments."""
    truth, kind = blocks["line"].to_numpy(), blocks["process"].to_numpy()
    measures: dict[str, evaluate.Measure] = {
        "line": line == truth,
        "within_2": np.abs(line - truth) <= 2,
        "process": process == kind,
        "process_f1": lambda rows: macro_f1(process[rows], kind[rows]),
    }
    return Outcome(blocks["experiment"].to_numpy(), measures)


def held_out(blocks: pd.DataFrame, learner: Callable[[int], Any], inputs: str, seed: int) -> Mapping[str, Outcome]:
    """Predictions for every block by a learner that never saw its experiment: six folds of three experiments."""
    x, names = columns(blocks, inputs), sorted(blocks["experiment"].unique())
    fold = blocks["experiment"].map({name: number % FOLDS for number, name in enumerate(names)}).to_numpy()
    predicted: dict[str, NDArray] = {target: blocks[target].to_numpy().copy() for target in ("line", "process")}
    for target, answer in predicted.items():
        truth = blocks[target].to_numpy()
        for part in range(FOLDS):
            answer[fold == part] = learner(seed).fit(x[fold != part], truth[fold != part]).predict(x[fold == part])
    return {"whole experiments": outcome(blocks, predicted["line"], predicted["process"])}


def run(
    data: Path,
    *,
    seeds: int = 3,
    trees: int = 100,
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """{"about", "stamp", "rows"}: trees on every input, beside the most frequent answer and the nearest position."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.neighbors import KNeighborsClassifier

    blocks = read(data)
    fit = partial(partial, held_out, blocks)
    rows: dict[str, Callable[[int], Mapping[str, Outcome]]] = {
        "most frequent": fit(lambda _: DummyClassifier(), "all"),
        "1-NN on position": fit(lambda _: KNeighborsClassifier(1), "place alone"),
    }
    for inputs in ("all", "no position", "drives alone"):
        rows[f"trees, {inputs}"] = fit(lambda seed: ExtraTreesClassifier(trees, random_state=seed), inputs)
    about = {"experiments": blocks["experiment"].nunique(), "blocks": len(blocks), "lines": blocks["line"].nunique()}
    return evaluate.evaluate(rows, seeds=seeds, about=about | {"trees": trees}, earlier=earlier, progress=progress)
