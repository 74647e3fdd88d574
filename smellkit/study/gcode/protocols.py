"""Three protocols, one table: train (or take up) the fits that a protocol asks for, and score their predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from smellkit import options, paths, runs
from smellkit.gcode import predict
from smellkit.gcode.recordings import channel_mask
from smellkit.gcode.tokens import PAD, default
from smellkit.runs import Run
from smellkit.study.evaluate import Outcome, earlier, percent, publish, summarise
from smellkit.study.gcode import baselines, path
from smellkit.study.gcode import task as tasks
from smellkit.study.gcode.release import program_hmm
from smellkit.study.gcode.scores import forced, token_hits
from smellkit.study.gcode.splits import FOLDS, PROTOCOLS, DataConfig, Prepared
from smellkit.study.metrics import macro_f1
from smellkit.task import collate
from smellkit.train import Settings, fit, parameters

Numbers = NDArray[np.int64]
TRAINING = {"epochs": 24, "batch": 64, "learning_rate": 2e-3, "averaging": 0.99}
ENCODER = {"epochs": 20, "batch": 64, "learning_rate": 1e-3, "patience": 10}
DECODER = {"epochs": 40, "batch": 64, "learning_rate": 1e-3}
TRAINED_ON = {"no-position": "all", "no-position-z": "centred"}  # the window decoder learns to do without the position
SYSTEMS = ("decoder", "two-stage", "two-stage-fourier")  # ours, as claimed, as claimed with Fourier features
CONTEXTS = {"window": "", "recording": ", whole recording", "run": ", known to be one run"}
TOKENS = ("TF", "AR", "Num", "words", "exact")
HEADS = ("type", "command", "parameter", "digits")


@dataclass(frozen=True)
class Predictions:
    """The predictions of a system for the test windows of one fit, beside the truth."""

    table: pd.DataFrame  # the windows: recording, operation, group, start
    operation: NDArray[np.float32]  # (n, 9) probabilities
    forced: Numbers  # (n, 8) published tokens, each from the true ones before it
    free: Numbers  # (n, 8) published tokens, each from its own before it
    target: Numbers  # (n, 8)
    line: Sequence[str]  # (n,) the true lines
    decoded: Sequence[str]  # (n,) the decoded ones, or none: published tokens can't tell most numbers of a line


def bench(
    folder: str,
    *,
    protocol: str = "G",
    channel_set: str = "all",
    folds: Sequence[int] = range(FOLDS),
    seeds: Sequence[int] = (7,),
    system: str = "decoder",
    context: str = "window",
    **training: Any,
) -> dict[str, Any]:
    """Scores of `system` under a protocol and a channel set, beside the baselines that need no network, as `rows`.

    With the `context` "recording" the window decoder follows each test recording from its beginning to its end, with
    "run" it knows that this is one whole run of a program.

    Fits that have been made before with the same parameters are taken up again. For the window decoder `all` and
    `no-position` are one fit (and so are `centred` and `no-position-z`): it hides the position in most of its training
    windows, and for the second it is taken away in testing.
    """
    options.check([protocol], PROTOCOLS, "There is no protocol")
    options.check([system], SYSTEMS, "There is no system")
    mask, numbers = channel_mask(channel_set), list(folds) if protocol == "G" else [0]
    asked = {"protocol": protocol, "channel_set": channel_set, "system": system}
    own = []
    for seed in seeds:
        fits = [trained(folder, **asked, fold=fold, seed=seed, **training) for fold in numbers]
        joined = predictions(fits, mask=mask, context=context)
        own.append(outcome(joined, unseen=protocol == "X"))
    beside = baseline_outcomes([prepared for _, prepared in fits], mask=mask)
    outcomes = {system: own, **{name: [one] for name, one in beside.items()}}
    figures = {name: {m: i._asdict() for m, i in summarise(several).items()} for name, several in outcomes.items()}
    scored = fits[-1][0].scores.get("test", {})
    return runs.plain({
        "system": system, "protocol": protocol, "channels": channel_set, "context": context, "folds": numbers,
        "about": PROTOCOLS[protocol], "seeds": list(seeds), "windows": len(joined.table),
        "recordings": joined.table["recording"].nunique(), "rows": figures, **own[-1].extra,
        "heads": {name: scored[name] for name in HEADS if name in scored},  # of the published decoder, teacher-forced
        "stamp": runs.stamp(),
    })  # fmt: skip


def trained(
    folder: str, *, protocol: str, channel_set: str, fold: int, seed: int, system: str = "decoder", **training: Any
) -> tuple[Run, Prepared]:
    """The finished run of one fit, made now unless it is there, and its data."""
    channels = TRAINED_ON.get(channel_set, channel_set) if system == "decoder" else channel_set
    asked: dict[str, Any] = {"data": folder, "protocol": protocol, "fold": fold, "channels": channels}
    where, how = f"bench/gcode-{system}-{protocol}-{channels}-{fold}-{seed}", {"seed": seed, **training}
    prepared = DataConfig(**asked).prepared
    if system == "decoder":
        return fitted(tasks.WindowDecoderTask, asked, TRAINING | how, name=f"{where}/window-decoder"), prepared
    first = ENCODER | {"seed": seed, "epochs": min(20, training.get("epochs", 20))}
    named = {"fourier": True} if system == "two-stage-fourier" else {}
    fitted(tasks.EncoderTask, asked | named, first, name=f"{where}/encoder")
    stage = {"encoder": f"{where}/encoder"}
    return fitted(tasks.DecoderTask, stage, DECODER | how, name=f"{where}/decoder"), prepared


def fitted(factory, asked: dict[str, Any], how: dict[str, Any], *, name: str) -> Run:
    """The finished run `name` with these parameters, made now unless it is there."""
    task, settings, old = factory(**asked), Settings(**how), Run(name, paths.runs() / name)
    if old.finished and old.params == parameters(task, settings, asked):
        return old
    return fit(task, settings, name=name, params=asked)


@torch.no_grad()
def predictions(
    fits: Sequence[tuple[Run, Prepared]], *, mask: NDArray[np.bool_], context: str = "window"
) -> Predictions:
    """The predictions of every fit for the test part of its split, one after another, seeing the channels of `mask`.

    By itself a window is all it sees; with the `context` "recording" all windows of the recording, with "run" also that
    this is one whole run of a program.
    """
    tables, parts, decoded = [], [], list[str]()
    for run, prepared in fits:
        windows = prepared.windows("test", mask=prepared.mask & mask)
        tables.append(prepared.machine.windows.iloc[prepared.parts.test])
        batches = list(DataLoader(windows, batch_size=256, collate_fn=collate))
        if run.params["task"] == "gcode-decoder":
            operation, tokens = _two_stages(run, batches)
        else:
            operation, tokens, lines = _window_decoder(run, batches, prepared, tables[-1], context)
            decoded += lines
        teacher, free = map(torch.cat, zip(*tokens, strict=True))
        parts.append((operation, teacher, free, windows.tensors["published"]))
    names = ("operation", "forced", "free", "target")
    arrays = {name: torch.cat(part).numpy() for name, part in zip(names, zip(*parts, strict=True), strict=True)}
    truth = [text for _, prepared in fits for text in prepared.texts[prepared.parts.test]]
    return Predictions(pd.concat(tables, ignore_index=True), **arrays, line=truth, decoded=decoded)


def _two_stages(run: Run, batches: list) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    encoder, decoder = tasks.two_stages(run)
    outputs = [encoder(batch) for batch in batches]
    tokens = []
    for batch, one in zip(batches, outputs, strict=True):
        own = {"memory": one["memory"], "logits": one["operation"]}
        tokens.append((decoder(batch | own)["token"].argmax(dim=-1), decoder.free(*own.values())))
    return torch.cat([one["operation"] for one in outputs]).softmax(dim=1), tokens


def _window_decoder(
    run: Run, batches: list, prepared: Prepared, table: pd.DataFrame, context: str
) -> tuple[Tensor, list[tuple[Tensor, Tensor]], list[str]]:
    """Of the windows in `table`, in order of time, in a `context` as `LinePredictor.predict` knows it."""
    model = tasks.model_of(tasks.WindowDecoderTask, run)
    grammar, outputs = model.grammar, [model(batch) for batch in batches]
    line, operation = (torch.cat([one[name] for one in outputs]).softmax(dim=1) for name in ("line", "operation"))
    if context != "window":
        hmm, seen, how = program_hmm(prepared), torch.cat([one["seen"] for one in outputs]), context == "run"
        for rows in table.groupby("recording", sort=False).indices.values():
            line[rows], operation[rows] = hmm(line[rows], operation[rows], seen=seen[rows], run=how)
    tokens, lines = [], []
    for batch, one, own in zip(batches, outputs, line.split(256), strict=True):
        teacher = grammar.published[forced(grammar, own.log(), one["token"], batch["open"])]
        decoded = grammar.tokens[own.argmax(dim=1)]
        tokens.append((teacher, grammar.published_tokens(decoded)))
        lines += grammar.texts_of(decoded)
    return operation, tokens, lines


def outcome(given: Predictions, *, unseen: bool = False) -> Outcome:
    """Token measures and operation measures of a system, drawn again by group; also by recording and by operation.

    `unseen` operations can't be named: then the program counts, which damage* shares with *150025.
    """
    table, truth, best = given.table, given.table["operation_id"].to_numpy(), given.operation.argmax(axis=1)
    logs = pd.DataFrame(np.log(given.operation + 1e-9)).groupby(table["recording"].to_numpy())
    whole = logs.transform("mean").to_numpy().argmax(axis=1)
    if unseen:
        truth, best, whole = (baselines.programs(operation) for operation in (truth, best, whole))
    measures = token_measures(given.forced, given.free, given.target)
    if given.decoded:
        measures |= path.measures(table["recording"].to_numpy(), given.line, given.decoded)
    measures |= {"operation": best == truth, "operation_f1": lambda rows: macro_f1(best[rows], truth[rows])}
    operations = []
    for operation, rows in table.groupby("operation").indices.items():
        size = {"windows": len(rows), "recordings": table["recording"].iloc[rows].nunique()}
        scored = {name: measures[name](rows) for name in ("TF", "AR", "Num")}
        shares = {"named": measures["operation"][rows].mean(), "exact": measures["exact"][rows].mean()}
        operations.append({"operation": operation, **size, **scored, **shares})
    right = (whole == truth)[table["recording"].drop_duplicates().index]
    extra = {"operation_by_recording": float(right.mean()), "operations": operations}
    return Outcome(table["group"].to_numpy(), measures, extra)


def shipped(folder: str) -> dict[str, Outcome]:
    """What the shipped weights score on recordings left out of their training, by window and by whole recording.

    These recordings chose the epoch of the shipped weights, so they are no clean test; others have none of them.
    """
    predictor, prepared = predict.load(paths.weights() / "gcode"), DataConfig(data=folder, protocol="all").prepared
    machine, test = prepared.machine, prepared.parts.test
    table, outcomes = machine.windows.iloc[test].reset_index(drop=True), {}
    for context in ("window", "recording", "run"):
        answers: dict[int, predict.LinePrediction] = {}
        for rows in table.groupby("recording", sort=False).indices.values():
            windows = machine.take(table["row"].to_numpy()[rows])
            answers |= zip(rows.tolist(), predictor.predict(windows, context=context), strict=True)
        said = [answers[row] for row in range(len(table))]
        free = np.array([default().numbers(one.tokens) for one in said])
        measures = token_measures(None, free, prepared.target[test])
        measures |= {"operation": table["operation"].to_numpy() == [one.operation for one in said]}
        measures |= path.measures(table["recording"].to_numpy(), list(prepared.texts[test]), [one.line for one in said])
        outcomes[f"left-out recordings, by {context}"] = Outcome(table["group"].to_numpy(), measures)
    return outcomes


def token_measures(teacher: Numbers | None, free: Numbers, target: Numbers) -> dict[str, Any]:
    """Every token measure: TF teacher-forced, AR free-running, Num numbers, words without EOS and UNK, exact line."""

    def ratio(tokens: Numbers, kind: str):
        hits = token_hits(tokens, target, kind=kind)
        return lambda rows: float(hits[rows, 0].sum() / max(hits[rows, 1].sum(), 1))

    measures: dict[str, Any] = {} if teacher is None else {"TF": ratio(teacher, "all")}
    measures |= {name: ratio(free, kind) for name, kind in (("AR", "all"), ("Num", "numbers"), ("words", "words"))}
    return measures | {"exact": (np.where(target == PAD, PAD, free) == target).all(axis=1)}


def baseline_outcomes(folds: Sequence[Prepared], *, mask: NDArray[np.bool_]) -> dict[str, Outcome]:
    """Every baseline's token measures, over the test parts of all folds together."""
    scored = [baselines.tokens_of(prepared, mask=mask) for prepared in folds]
    target = np.concatenate([one.target[one.parts.test] for one in folds])
    tables = pd.concat([one.machine.windows.iloc[one.parts.test] for one in folds])
    line = [text for one in folds for text in one.texts[one.parts.test]]
    outcomes = {}
    for name in scored[0]:
        teacher, free, like = zip(*(fold[name] for fold in scored), strict=True)
        known = None if teacher[0] is None else np.concatenate(teacher)
        measures = token_measures(known, np.concatenate(free), target)
        if like[0] is not None:  # the training windows whose lines are the answers
            decoded = [text for one, rows in zip(folds, like, strict=True) for text in one.texts[rows]]
            measures |= path.measures(tables["recording"].to_numpy(), line, decoded)
        outcomes[name] = Outcome(tables["group"].to_numpy(), measures)
    return outcomes


def published_rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows for a page: `result`'s system, then the two baselines that stand beside every system, with their inputs."""
    some = result["protocol"] == "G" and len(result["folds"]) < FOLDS
    prefix = result["protocol"] + (f", fold {', '.join(map(str, result['folds']))}" if some else "")
    whole = CONTEXTS[result["context"]]
    channels, system = result["channels"], result["system"]
    own = {name: figure for name, figure in result["rows"][system].items() if name != "operation_f1"}
    if result["protocol"] == "X":
        own["program"] = own.pop("operation")
    named = {"1-NN on position": TRAINED_ON.get(channels, channels), "trees on lines": channels}
    named |= {baselines.BY_LENGTH: "no sensor"} if result["context"] == "run" else {}
    beside = {f"{prefix}: {name} ({inputs})": result["rows"][name] for name, inputs in named.items()}
    return {f"{prefix}: {system}, {channels}{whole}": own} | beside


def write(file: Path, result: dict[str, Any]) -> Path:
    """Add `result` to a file: `rows`, `heads` and `operations` to show, and `results` whole, by name.

    A file holds several protocols and channel sets, since each is a command of its own; the same name is replaced.
    """
    rows = published_rows(result)
    name = next(iter(rows))
    new = {"rows": rows, "heads": {name: result["heads"]} if result["heads"] else {}, "results": {name: result}}
    if name.startswith("G: decoder, "):
        inputs = name.removeprefix("G: decoder, ")
        new["operations"] = {f"{row['operation']}, {inputs}": row for row in result["operations"]}
    old = earlier(file)
    kept = {key: old.get(key, {}) | new.get(key, {}) for key in ("rows", "heads", "operations", "results")}
    kept["rows"] = dict(sorted(kept["rows"].items()))
    return publish(file, kept, command="smellkit bench gcode --data DIR --protocol P --channels C")


def text(result: dict[str, Any]) -> str:
    """The result as a table to read: per cent, with 95 % intervals."""
    rows, own = result["rows"], result["rows"][result["system"]]
    table = pd.DataFrame({name: {m: percent(row[m]) for m in TOKENS if m in row} for name, row in rows.items()})
    what = "program" if result["protocol"] == "X" else "operation"
    head = f"Protocol {result['protocol']}, folds {result['folds']}, {result['channels']}: {result['windows']} windows"
    named = f"{what} {percent(own['operation'])}, macro-F1 {percent(own['operation_f1'])}"
    whole = f"by recording {100 * result['operation_by_recording']:.1f}"
    lines = [f"{head} of {result['recordings']} recordings", f"{named}, {whole}", table.T.fillna("-").to_string()]
    if parts := ", ".join(f"{name} {100 * value:.1f}" for name, value in result["heads"].items()):
        lines.append(f"Structured heads, teacher-forced: {parts}")
    return "\n".join(lines)
