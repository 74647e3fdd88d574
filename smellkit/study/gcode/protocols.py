"""Three protocols, one table: train (or take up) the fits that a protocol asks for, and score their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from smellkit import paths, runs
from smellkit.checks import read_json
from smellkit.errors import OptionError
from smellkit.evaluate import Outcome, evaluate
from smellkit.gcode.recordings import OPERATIONS, channel_mask
from smellkit.gcode.tokens import PAD, join
from smellkit.gcode.window_decoder import decode, forced
from smellkit.metrics import macro_f1
from smellkit.runs import Run
from smellkit.study.gcode import baselines
from smellkit.study.gcode import task as tasks
from smellkit.study.gcode.release import program_hmm
from smellkit.study.gcode.scores import token_accuracy, token_hits
from smellkit.study.gcode.splits import FOLDS, PROTOCOLS, DataConfig, Prepared
from smellkit.task import Tensors, collate
from smellkit.train import Settings, fit, parameters

Numbers = NDArray[np.int64]
TRAINING = {"epochs": 24, "batch": 64, "learning_rate": 2e-3, "averaging": 0.99}
ENCODER = {"epochs": 20, "batch": 64, "learning_rate": 1e-3, "patience": 10}
DECODER = {"epochs": 40, "batch": 64, "learning_rate": 1e-3}
TRAINED_ON = {"no-position": "all", "no-position-z": "centred"}  # the window decoder learns to do without the position
NEAREST, TREES = "1-NN on position", "trees on lines"  # the baselines that stand beside every result
SYSTEMS = ("decoder", "two-stage", "two-stage-fourier")  # ours, as claimed, as claimed with Fourier features
TOKENS = ("TF", "AR", "Num", "words", "exact")


@dataclass(frozen=True)
class Predictions:
    """The predictions of a system for the test windows of one fit, beside the truth."""

    table: pd.DataFrame  # the windows: recording, operation, group, start
    operation: NDArray[np.float32]  # (n, 9) probabilities
    forced: Numbers  # (n, 8) published tokens, each from the true ones before it
    free: Numbers  # (n, 8) published tokens, each from its own before it
    target: Numbers  # (n, 8)
    lines: list[str]  # (n,) the decoded line with all its digits

    def __add__(self, other: Predictions) -> Predictions:
        names = ("operation", "forced", "free", "target")
        arrays = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        table = pd.concat([self.table, other.table], ignore_index=True)
        return Predictions(table, lines=self.lines + other.lines, **arrays)


def bench(
    folder: str,
    *,
    protocol: str = "G",
    channel_set: str = "all",
    folds: Sequence[int] = range(FOLDS),
    seed: int = 7,
    system: str = "decoder",
    context: str = "window",
    **training: Any,
) -> dict[str, Any]:
    """Scores of `system` under a protocol and a channel set, beside the baselines that need no network.

    With the `context` "recording" the window decoder follows each test recording from its beginning to its end.

    Fits that have been made before with the same parameters are taken up again. For the window decoder `all` and
    `no-position` are one fit (and so are `centred` and `no-position-z`): it hides the position in most of its training
    windows, and for the second it is taken away in testing.
    """
    if protocol not in PROTOCOLS:
        raise OptionError(f"There is no protocol {protocol!r}", hint="one of S, G, X")
    if system not in SYSTEMS:
        raise OptionError(f"There is no system {system!r}", hint=", ".join(SYSTEMS))
    mask = channel_mask(channel_set)
    numbers = list(folds) if protocol == "G" else [0]
    fits = [
        trained(folder, protocol=protocol, channel_set=channel_set, fold=fold, seed=seed, system=system, **training)
        for fold in numbers
    ]
    joined, *others = [predictions(run, prepared, mask=mask, context=context) for run, prepared in fits]
    for more in others:
        joined = joined + more
    asked = {"system": system, "protocol": protocol, "channels": channel_set, "context": context, "folds": numbers}
    outcomes = {system: outcome(joined, fits[-1][1], unseen=protocol == "X")}
    outcomes |= baseline_outcomes([prepared for _, prepared in fits], mask=mask)
    rows = {name: partial(_measured, own) for name, own in outcomes.items()}
    result = evaluate(rows, seeds=[seed], about=asked | {"data": folder})
    figures = {row: {name: _triple(value) for name, value in splits["test"].items() if name in MEASURES}
               for row, splits in result["rows"].items()}  # fmt: skip
    own = figures.pop(system)
    extra = result["rows"][system]["test"]
    return runs.plain(
        {
            **asked,
            "about": PROTOCOLS[protocol],
            "seed": seed,
            "windows": len(joined.table),
            "recordings": joined.table["recording"].nunique(),
            "tokens": {name: own[name] for name in TOKENS},
            "operation": own["operation"],
            "operation_f1": own["operation_f1"],
            "operation_by_recording": extra["operation_by_recording"],
            "heads": heads(fits[-1][0]),
            "operations": extra["operations"],
            "baselines": figures,
            "stamp": result["stamp"],
        }
    )


MEASURES = (*TOKENS, "operation", "operation_f1")


def _measured(own: Outcome, seed: int) -> dict[str, Outcome]:
    return {"test": own}


def _triple(interval: Mapping[str, float]) -> list[float]:
    return [interval["value"], interval["low"], interval["high"]]


def heads(run: Run) -> dict[str, float]:
    """Teacher-forced accuracy of each structured head in the (last) fit, of the published decoder."""
    scored = run.scores.get("test", {})
    return {name: scored[name] for name in ("type", "command", "parameter", "digits") if name in scored}


def trained(
    folder: str, *, protocol: str, channel_set: str, fold: int, seed: int, system: str = "decoder", **training: Any
) -> tuple[Run, Prepared]:
    """The finished run of one fit, made now unless it is there, and its data."""
    trains_on = TRAINED_ON.get(channel_set, channel_set) if system == "decoder" else channel_set
    asked: dict[str, Any] = {"data": folder, "protocol": protocol, "fold": fold, "channels": trains_on}
    where = f"bench/gcode-{system}-{protocol}-{trains_on}-{fold}-{seed}"
    if system == "decoder":
        settings = Settings(**TRAINING | {"seed": seed} | training)
        run = fitted(tasks.WindowDecoderTask, asked, settings, name=f"{where}/window-decoder")
    else:
        options = asked | ({"fourier": True} if system == "two-stage-fourier" else {})
        shorter = {"epochs": min(int(ENCODER["epochs"]), training["epochs"])} if "epochs" in training else {}
        first = Settings(**ENCODER | {"seed": seed} | shorter)
        fitted(tasks.EncoderTask, options, first, name=f"{where}/encoder")
        settings = Settings(**DECODER | {"seed": seed} | training)
        run = fitted(tasks.DecoderTask, {"encoder": f"{where}/encoder"}, settings, name=f"{where}/decoder")
    return run, DataConfig(**asked).prepared


def fitted(factory, options: dict[str, Any], settings: Settings, *, name: str) -> Run:
    """The finished run `name` with these parameters, made now unless it is there."""
    task = factory(**options)
    old = Run(name, paths.runs() / name)
    if old.finished and old.params == parameters(task, settings, options):
        return old
    return fit(task, settings, name=name, params=options)


@torch.no_grad()
def predictions(
    run: Run, prepared: Prepared, *, mask: NDArray[np.bool_], part: str = "test", context: str = "window"
) -> Predictions:
    """The predictions of the model of `run` for a part of its split, seeing only the channels of `mask`.

    By itself a window is all it sees; with the `context` "recording" it sees all windows of the recording.
    """
    windows = prepared.windows(part, mask=prepared.mask & mask)
    table = prepared.machine.windows.iloc[getattr(prepared.parts, part)].reset_index(drop=True)
    if run.params["task"] == "gcode-decoder":
        return _two_stage_predictions(run, prepared, windows, table)
    model = tasks.model_of(run)
    grammar, batches = model.grammar, list(DataLoader(windows, batch_size=256, collate_fn=collate))
    outputs = [model(batch) for batch in batches]
    line, operation = (torch.cat([one[name] for one in outputs]).softmax(dim=1) for name in ("line", "operation"))
    if context == "recording":
        line, operation = _followed(prepared, table, line, operation)
    columns = []
    for batch, one, own in zip(batches, outputs, line.split(256), strict=True):
        free, _ = decode(model, batch["continuous"], batch["categorical"], line=own)
        columns.append((grammar.published[forced(grammar, own.log(), one["token"], batch["open"])], free))
    teacher, free = (torch.cat(parts) for parts in zip(*columns, strict=True))
    published, target = grammar.published_tokens(free).numpy(), windows.tensors["published"].numpy()
    return Predictions(table, operation.numpy(), teacher.numpy(), published, target, grammar.texts_of(free))


def _followed(prepared: Prepared, table: pd.DataFrame, line: Tensor, operation: Tensor) -> tuple[Tensor, Tensor]:
    """Line and operation of every window, each recording followed by itself; `table` is in order of time."""
    hmm = program_hmm(prepared)
    line, operation = line.clone(), operation.clone()
    for rows in table.groupby("recording", sort=False).indices.values():
        line[rows], operation[rows] = hmm(line[rows], operation[rows])
    return line, operation


def _two_stage_predictions(run: Run, prepared: Prepared, windows: Tensors, table: pd.DataFrame) -> Predictions:
    encoder, decoder = tasks.two_stages(run)
    columns = []
    for batch in DataLoader(windows, batch_size=256, collate_fn=collate):
        encoded = encoder(batch)
        inputs = batch | {"memory": encoded["memory"], "logits": encoded["operation"]}
        free = decoder.free(encoded["memory"], encoded["operation"])
        columns.append((encoded["operation"].softmax(dim=1), decoder(inputs)["token"].argmax(dim=-1), free))
    operation, teacher, tokens = (torch.cat(parts).numpy() for parts in zip(*columns, strict=True))
    lines = [join(prepared.vocabulary.decode(row)) for row in tokens.tolist()]
    return Predictions(table, operation, teacher, tokens, windows.tensors["published"].numpy(), lines)


def outcome(given: Predictions, prepared: Prepared, *, unseen: bool = False) -> Outcome:
    """Token measures and operation measures of a system, drawn again by group.

    `unseen` operations can't be named: then the program counts, which damage* shares with *150025.
    """
    truth, best, whole = given.table["operation_id"].to_numpy(), given.operation.argmax(axis=1), votes(given)
    if unseen:
        truth, best, whole = (baselines.programs(operation) for operation in (truth, best, whole))
    measures = token_measures(given.forced, given.free, given.target, vocabulary=prepared.vocabulary)
    first = given.table["recording"].drop_duplicates().index
    extra = {
        "operation_by_recording": float((whole == truth)[first].mean()),
        "operations": per_operation(given, vocabulary=prepared.vocabulary),
    }
    named = {"operation": best == truth, "operation_f1": lambda rows: macro_f1(best[rows], truth[rows])}
    return Outcome(given.table["group"].to_numpy(), measures | named, extra)


def token_measures(teacher: Numbers | None, free: Numbers, target: Numbers, *, vocabulary) -> dict[str, Any]:
    """Every token measure: TF teacher-forced, AR free-running, Num numbers, words without EOS and UNK, exact line."""

    def ratio(hits: Numbers):
        return lambda rows: float(hits[rows, 0].sum() / max(hits[rows, 1].sum(), 1))

    measures = {} if teacher is None else {"TF": ratio(token_hits(teacher, target))}
    measures["AR"] = ratio(token_hits(free, target))
    measures["Num"] = ratio(token_hits(free, target, kind="numbers", vocabulary=vocabulary))
    measures["words"] = ratio(token_hits(free, target, kind="words"))
    return measures | {"exact": (np.where(target == PAD, PAD, free) == target).all(axis=1)}


def votes(given: Predictions) -> Numbers:
    """For each window the operation of its whole recording: the largest mean log-probability over the windows."""
    logs = pd.DataFrame(np.log(given.operation + 1e-9))
    mean = logs.groupby(given.table["recording"].to_numpy()).transform("mean")
    return mean.to_numpy().argmax(axis=1)


def per_operation(given: Predictions, *, vocabulary) -> list[dict[str, Any]]:
    """One row an operation: windows, recordings, operation accuracy, TF, AR, Num and exact line."""
    rows = []
    for operation, index in given.table.groupby("operation", sort=True).indices.items():
        truth = OPERATIONS.index(str(operation))
        free, target = given.free[index], given.target[index]
        rows.append(
            {
                "operation": operation,
                "windows": len(index),
                "recordings": given.table["recording"].iloc[index].nunique(),
                "named": float((given.operation[index].argmax(axis=1) == truth).mean()),
                "TF": token_accuracy(given.forced[index], target),
                "AR": token_accuracy(free, target),
                "Num": token_accuracy(free, target, kind="numbers", vocabulary=vocabulary),
                "exact": float((np.where(target == PAD, PAD, free) == target).all(axis=1).mean()),
            }
        )
    return rows


def baseline_outcomes(folds: Sequence[Prepared], *, mask: NDArray[np.bool_]) -> dict[str, Outcome]:
    """Every baseline's token measures, over the test parts of all folds together."""
    scored = [baselines.tokens_of(prepared, mask=mask) for prepared in folds]
    tests = [prepared.parts.test for prepared in folds]
    targets = [one.machine.encode(one.vocabulary)[test] for one, test in zip(folds, tests, strict=True)]
    groups = [one.machine.windows["group"].to_numpy()[test] for one, test in zip(folds, tests, strict=True)]
    outcomes = {}
    for name in scored[0]:
        teacher = None if scored[0][name][0] is None else np.concatenate([fold[name][0] for fold in scored])
        free = np.concatenate([fold[name][1] for fold in scored])
        measures = token_measures(teacher, free, np.concatenate(targets), vocabulary=folds[0].vocabulary)
        outcomes[name] = Outcome(np.concatenate(groups), measures)
    return outcomes


def added(file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """What a file of results holds once `result` is in it: `rows` to show and `results` whole, by name.

    A file holds several protocols and channel sets, since each is a command of its own; the same name is replaced.
    """
    old = read_json(file) if file.exists() else {}
    some = result["protocol"] == "G" and len(result["folds"]) < FOLDS
    folds = f", fold {', '.join(map(str, result['folds']))}" if some else ""
    prefix = f"{result['protocol']}{folds}: "
    whole = ", whole recording" if result["context"] == "recording" else ""
    inputs = f"{result['channels']}{whole}"
    name = f"{prefix}{result['system']}, {inputs}"
    named = {"program" if result["protocol"] == "X" else "operation": result["operation"]}
    rows = {name: result["tokens"] | named}
    used = {NEAREST: TRAINED_ON.get(result["channels"], result["channels"]), TREES: result["channels"]}
    rows |= {f"{prefix}{row} ({channels})": result["baselines"][row] for row, channels in used.items()}
    keys = ("value", "low", "high")
    figures = {
        row: {measure: dict(zip(keys, value, strict=True)) for measure, value in measures.items()}
        for row, measures in rows.items()
    }
    by_operation = {}
    if prefix == "G: " and result["system"] == "decoder":
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

    rows = {f"{result['system']} ({result['channels']})": result["tokens"], **result["baselines"]}
    table = pd.DataFrame([[cell(row.get(name)) for name in TOKENS] for row in rows.values()], list(rows), TOKENS)
    folds = f", folds {result['folds']}" if result["protocol"] == "G" else ""
    what = "program" if result["protocol"] == "X" else "operation"
    head = f"Protocol {result['protocol']}{folds}: {result['windows']} windows of {result['recordings']} recordings"
    operation = f"{what} {cell(result['operation'])}, macro-F1 {cell(result['operation_f1'])}, "
    whole = f"by recording {100 * result['operation_by_recording']:.1f}"
    parts = ", ".join(f"{name} {100 * value:.1f}" for name, value in result["heads"].items())
    structured = f"\nStructured heads, teacher-forced: {parts}" if parts else ""
    return f"{head}\n{operation}{whole}\n{table.to_string()}{structured}"
