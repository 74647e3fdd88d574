"""Three protocols, one table: train (or take up) the fits that a protocol asks for, and score what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from smellkit import checkpoint as weights
from smellkit import metrics, paths, runs
from smellkit.checks import read_json
from smellkit.errors import OptionError
from smellkit.gcode import channels, data, decode, samples, scores, splits, tasks
from smellkit.gcode.channels import OPERATIONS
from smellkit.gcode.samples import Prepared, Windows
from smellkit.gcode.window_decoder import MachineReader
from smellkit.options import accepted
from smellkit.runs import Run
from smellkit.study.gcode import baselines
from smellkit.task import collate
from smellkit.train import Settings, fit, parameters

Numbers = NDArray[np.int64]
TRAINING = {"epochs": 24, "batch": 64, "learning_rate": 2e-3, "averaging": 0.99}
ENCODER = {"epochs": 20, "batch": 64, "learning_rate": 1e-3, "patience": 10}
DECODER = {"epochs": 40, "batch": 64, "learning_rate": 1e-3}
TRAINED_ON = {"no-position": "all", "no-position-z": "centred"}  # the reader learns to do without the position
NEAREST, TREES = "1-NN on position", "trees on lines"  # the baselines that stand beside every result
SYSTEMS = {"reader": "one", "two-stage": "as claimed", "two-stage-waves": "two stages, position as waves"}


@dataclass(frozen=True)
class Told:
    """What a system said of the test windows of one fit, beside what is true."""

    table: pd.DataFrame  # the windows: recording, operation, group, start
    operation: NDArray[np.float32]  # (n, 9) probabilities
    forced: Numbers  # (n, 8) published tokens, each from the true ones before it
    free: Numbers  # (n, 8) published tokens, each from its own before it
    target: Numbers  # (n, 8)
    lines: list[str]  # (n,) the decoded line with all its digits

    def __add__(self, other: Told) -> Told:
        return Told(
            pd.concat([self.table, other.table], ignore_index=True),
            np.concatenate([self.operation, other.operation]),
            np.concatenate([self.forced, other.forced]),
            np.concatenate([self.free, other.free]),
            np.concatenate([self.target, other.target]),
            self.lines + other.lines,
        )


def bench(
    folder: str,
    *,
    protocol: str = "G",
    channel_set: str = "all",
    folds: Sequence[int] = range(splits.FOLDS),
    seed: int = 7,
    system: str = "reader",
    context: str = "window",
    **training: Any,
) -> dict[str, Any]:
    """Scores of `system` under a protocol and a channel set, beside the baselines that need no learning.

    With the `context` "recording" the reader follows each test recording from its beginning to its end.

    Fits that have been made before with the same parameters are taken up again. For the reader `all` and `no-position`
    are one fit (and so are `centred` and `no-position-z`): it hides the position in most of its training windows, and
    for the second it is taken away in testing.
    """
    if protocol not in splits.PROTOCOLS:
        raise OptionError(f"There is no protocol {protocol!r}", hint="one of S, G, X")
    if system not in SYSTEMS:
        raise OptionError(f"There is no system {system!r}", hint=", ".join(SYSTEMS))
    mask = channels.keep(channel_set)
    folds = list(folds) if protocol == "G" else [0]
    told, floor = [], []
    for fold in folds:
        run, prepared = trained(
            folder, protocol=protocol, channel_set=channel_set, fold=fold, seed=seed, system=system, **training
        )
        told.append(say(run, prepared, mask=mask, context=context))
        floor.append(floors(prepared, mask=mask))
    joined = told[0]
    for more in told[1:]:
        joined = joined + more
    vocabulary = prepared.vocabulary
    return runs.plain(
        {
            "system": system,
            "protocol": protocol,
            "about": splits.PROTOCOLS[protocol],
            "channels": channel_set,
            "context": context,
            "folds": folds,
            "seed": seed,
            "windows": len(joined.table),
            "recordings": joined.table["recording"].nunique(),
            **summary(joined, vocabulary=vocabulary, unseen=protocol == "X"),
            "heads": heads(run),
            "operations": per_operation(joined, vocabulary=vocabulary),
            "baselines": pooled(floor, vocabulary=vocabulary),
            "stamp": runs.stamp(),
        }
    )


def heads(run: Run) -> dict[str, float]:
    """Teacher-forced accuracy of each structured head in the (last) fit, of the published decoder."""
    scored = run.scores.get("test", {})
    return {name: scored[name] for name in ("type", "command", "parameter", "digits") if name in scored}


def trained(
    folder: str, *, protocol: str, channel_set: str, fold: int, seed: int, system: str = "reader", **training: Any
) -> tuple[Run, Prepared]:
    """The finished run of one fit, made now unless it is there, and its data."""
    trains_on = TRAINED_ON.get(channel_set, channel_set) if system == "reader" else channel_set
    asked = {"data": folder, "protocol": protocol, "fold": fold, "channels": trains_on}
    where = f"bench/gcode-{protocol}-{trains_on}-{fold}-{seed}"
    settings = TRAINING | {"seed": seed} | training
    if system != "reader":
        where = where.replace("gcode-", f"gcode-{system}-")
        options = asked | ({"waves": True} if system == "two-stage-waves" else {})
        shorter = {"epochs": min(ENCODER["epochs"], training["epochs"])} if "epochs" in training else {}
        first, settings = ENCODER | {"seed": seed} | shorter, DECODER | {"seed": seed} | training
        fitted(tasks.encoder, options, Settings(**first), name=f"{where}/encoder")
        run = fitted(tasks.decoder, {"encoder": f"{where}/encoder"}, Settings(**settings), name=f"{where}/decoder")
    else:
        run = fitted(tasks.reader, asked, Settings(**settings), name=f"{where}/reader")
    return run, samples.prepare(folder, protocol=protocol, fold=fold, seed=7, channel_set=trains_on)


def fitted(factory, options: dict[str, Any], settings: Settings, *, name: str) -> Run:
    """The finished run `name` with these parameters, made now unless it is there."""
    task = factory(**options)
    old = Run(name, paths.runs() / name)
    if old.finished and old.params == parameters(task, settings, options):
        return old
    return fit(task, settings, name=name, params=options)


def model_of(run: Run) -> MachineReader:
    """The trained model of a finished run of `gcode-reader`."""
    options = {name: value for name, value in run.params.items() if name in accepted(tasks.reader)}
    model = tasks.reader(**options).build()
    weights.fill(model, weights.load(run.folder)[0], where=str(run.folder)).eval()
    return cast(MachineReader, model)


@torch.no_grad()
def say(run: Run, prepared: Prepared, *, mask: NDArray[np.bool_], part: str = "test", context: str = "window") -> Told:
    """What the model of `run` says of a part of its split, seeing only the channels of `mask`.

    By itself a window is all it sees; with the `context` "recording" it sees all windows of the recording.
    """
    rows = getattr(prepared.parts, part)
    windows = Windows(prepared, rows, mask=prepared.mask & mask)
    table = prepared.machine.windows.iloc[rows].reset_index(drop=True)
    if run.params["task"] == "gcode-decoder":
        return _say_two(run, prepared, windows, table)
    model = model_of(run)
    grammar, batches = model.grammar, list(DataLoader(windows, batch_size=256, collate_fn=collate))
    outputs = [model(batch) for batch in batches]
    line, operation = (torch.cat([one[name] for one in outputs]).softmax(dim=1) for name in ("line", "operation"))
    if context == "recording":
        line, operation = _followed(prepared, table, line, operation)
    found = []
    for batch, one, told in zip(batches, outputs, line.split(256), strict=True):
        free, _ = decode.decode(model, batch["continuous"], batch["categorical"], line=told)
        forced = decode.forced(grammar, told.log(), one["token"], batch["open"])
        found.append((grammar.published[forced], free, batch["published"]))
    forced, free, target = (torch.cat(parts) for parts in zip(*found, strict=True))
    published = torch.where(free == 0, 0, grammar.published[free])
    said = decode.lines(grammar, free)
    return Told(table, operation.numpy(), forced.numpy(), published.numpy(), target.numpy(), said)


def _followed(prepared: Prepared, table: pd.DataFrame, line: Tensor, operation: Tensor) -> tuple[Tensor, Tensor]:
    """Line and operation of every window, each recording followed by itself; `table` is in order of time."""
    courses = prepared.courses()
    line, operation = line.clone(), operation.clone()
    for rows in table.groupby("recording", sort=False).indices.values():
        line[rows], operation[rows] = courses(line[rows], operation[rows])
    return line, operation


def _say_two(run: Run, prepared: Prepared, windows: Windows, table: pd.DataFrame) -> Told:
    from smellkit.gcode.tokens import join

    encoder, decoder = tasks.two_stages(run)
    found = []
    for batch in DataLoader(windows, batch_size=256, collate_fn=collate):
        seen = encoder(batch)
        batch |= {"memory": seen["memory"], "logits": seen["operation"]}
        free = decoder.free(seen["memory"], seen["operation"])
        found.append(
            (seen["operation"].softmax(dim=1), decoder(batch)["token"].argmax(dim=-1), free, batch["published"])
        )
    arrays = [torch.cat(parts).numpy() for parts in zip(*found, strict=True)]
    lines = [join(prepared.vocabulary.decode(row)) for row in arrays[2].tolist()]
    return Told(table, arrays[0], arrays[1], arrays[2], arrays[3], lines)


def summary(told: Told, *, vocabulary, unseen: bool = False) -> dict[str, Any]:
    """Token measures and operation measures, each [value, low, high] from drawing recordings again.

    `unseen` operations can't be named: then the program counts, which damage* shares with *150025.
    """
    groups, truth = told.table["group"].to_numpy(), told.table["operation_id"].to_numpy()
    best = told.operation.argmax(axis=1)
    whole = votes(told)
    if unseen:
        truth, best, whole = (baselines.programs(operation) for operation in (truth, best, whole))

    def f1(rows: Numbers) -> float:
        return metrics.macro_f1(best[rows], truth[rows])

    return {
        "tokens": scores.table(told.forced, told.free, told.target, vocabulary=vocabulary, groups=groups),
        "operation": list(metrics.bootstrap((best == truth).astype(float), groups=groups)),
        "operation_f1": list(metrics.bootstrap_of(f1, groups, rounds=200)),
        "operation_by_recording": float((whole == truth)[told.table["recording"].drop_duplicates().index].mean()),
    }


def votes(told: Told) -> Numbers:
    """For each window the operation of its whole recording: the largest mean log-probability over the windows."""
    logs = pd.DataFrame(np.log(told.operation + 1e-9))
    mean = logs.groupby(told.table["recording"].to_numpy()).transform("mean")
    return mean.to_numpy().argmax(axis=1)


def per_operation(told: Told, *, vocabulary) -> list[dict[str, Any]]:
    """One row an operation: windows, recordings, operation accuracy, TF, AR, Num and exact line."""
    rows = []
    for operation, index in told.table.groupby("operation", sort=True).indices.items():
        truth = OPERATIONS.index(str(operation))
        free, target = told.free[index], told.target[index]
        rows.append(
            {
                "operation": operation,
                "windows": len(index),
                "recordings": told.table["recording"].iloc[index].nunique(),
                "named": float((told.operation[index].argmax(axis=1) == truth).mean()),
                "TF": scores.accuracy(told.forced[index], target),
                "AR": scores.accuracy(free, target),
                "Num": scores.accuracy(free, target, kind="numbers", vocabulary=vocabulary),
                "exact": float((np.where(target == 0, 0, free) == target).all(axis=1).mean()),
            }
        )
    return rows


def floors(
    prepared: Prepared, *, mask: NDArray[np.bool_]
) -> dict[str, tuple[Numbers | None, Numbers, Numbers, NDArray]]:
    """(forced, free, target, groups) of every baseline on the test part; `train` is the training part.

    The trees see the channels of `mask`, the nearest path sees the position all the same, the others no sensor.
    """
    machine, (train, _, test) = prepared.machine, prepared.parts
    target = data.encode(machine, prepared.vocabulary)
    operation = baselines.programs(machine.windows["operation_id"].to_numpy())
    groups = machine.windows["group"].to_numpy()[test]
    plain = baselines.trie(target[train], target[test])
    told = baselines.trie(target[train], target[test], train_of=operation[train], of=operation[test])
    near = baselines.nearest(machine, train, test, target)
    most = baselines.majority(target[train], target[test])
    when = baselines.clock(machine, train, test, target)
    rows = {
        "majority": (most, most),
        "trie, no sensors": plain,
        "trie + true program": told,
        "time since start + true program": (None, when),
        NEAREST: (None, near),
        TREES: (None, _trees(prepared, mask, target)),
    }
    return {name: (forced, free, target[test], groups) for name, (forced, free) in rows.items()}


def _trees(prepared: Prepared, mask: NDArray[np.bool_], target: Numbers) -> Numbers:
    machine, (train, _, test) = prepared.machine, prepared.parts
    sets = [Windows(prepared, rows, mask=prepared.mask & mask) for rows in (train, test)]
    known, asked = (part.__getitems__(range(len(part)))["continuous"] for part in sets)
    line = machine.windows["line"].to_numpy()[train]
    first = dict(zip(line[::-1].tolist(), train[::-1].tolist(), strict=True))  # a training window with each line
    return target[[first[found] for found in baselines.trees(known, line, asked).tolist()]]


def pooled(folds: list[dict], *, vocabulary) -> dict[str, dict[str, list[float]]]:
    """The baselines' token measures over all folds together."""
    found = {}
    for name in folds[0]:
        columns = list(zip(*(fold[name] for fold in folds), strict=True))
        forced = None if columns[0][0] is None else np.concatenate(columns[0])
        free, target, groups = (np.concatenate(column) for column in columns[1:])
        found[name] = scores.table(forced, free, target, vocabulary=vocabulary, groups=groups)
    return found


def added(file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """What a file of results holds once `result` is in it: `rows` to show and `results` whole, by name.

    A file holds several protocols and channel sets, since each is a command of its own; the same name is replaced.
    """
    old = read_json(file) if file.exists() else {}
    some = result["protocol"] == "G" and len(result["folds"]) < splits.FOLDS
    folds = f", fold {', '.join(map(str, result['folds']))}" if some else ""
    place = f"{result['protocol']}{folds}: "
    whole = ", whole recording" if result["context"] == "recording" else ""
    name = f"{place}{result['system']}, {result['channels']}{whole}"
    named = {"program" if result["protocol"] == "X" else "operation": result["operation"]}
    told = {name: result["tokens"] | named}
    seen = {NEAREST: TRAINED_ON.get(result["channels"], result["channels"]), TREES: result["channels"]}
    told |= {f"{place}{floor} ({inputs})": result["baselines"][floor] for floor, inputs in seen.items()}
    keys = ("value", "low", "high")
    figures = {
        row: {measure: dict(zip(keys, value, strict=True)) for measure, value in measures.items()}
        for row, measures in told.items()
    }
    by_operation = {}
    if place == "G: " and result["system"] == "reader":
        inputs = name.removeprefix("G: reader, ")
        by_operation = {f"{row['operation']}, {inputs}": row for row in result["operations"]}
    return {
        "made_by": {"command": "smellkit bench gcode --data DIR --protocol P --channels C"},
        "rows": old.get("rows", {}) | figures,
        "heads": old.get("heads", {}) | ({name: result["heads"]} if result["heads"] else {}),
        "operations": old.get("operations", {}) | by_operation,
        "results": old.get("results", {}) | {name: result},
    }


def text(result: dict[str, Any]) -> str:
    """The result as a table to read: per cent, with 95 % intervals."""

    def cell(value: list[float] | None) -> str:
        return f"{100 * value[0]:5.1f} [{100 * value[1]:.1f}, {100 * value[2]:.1f}]" if value else "-"

    names = ("TF", "AR", "Num", "words", "exact")
    rows = {f"{result['system']} ({result['channels']})": result["tokens"], **result["baselines"]}
    table = pd.DataFrame([[cell(row.get(name)) for name in names] for row in rows.values()], rows, names)
    folds = f", folds {result['folds']}" if result["protocol"] == "G" else ""
    what = "program" if result["protocol"] == "X" else "operation"
    head = f"Protocol {result['protocol']}{folds}: {result['windows']} windows of {result['recordings']} recordings"
    operation = f"{what} {cell(result['operation'])}, macro-F1 {cell(result['operation_f1'])}, "
    whole = f"by recording {100 * result['operation_by_recording']:.1f}"
    parts = ", ".join(f"{name} {100 * value:.1f}" for name, value in result["heads"].items())
    said = f"\nStructured heads, teacher-forced: {parts}" if parts else ""
    return f"{head}\n{operation}{whole}\n{table.to_string()}{said}"
