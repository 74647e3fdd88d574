"""Three protocols, one table: train (or take up) the fits that a protocol asks for, and score their predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from smellkit import options, paths, runs
from smellkit.gcode import predict
from smellkit.gcode.data import load
from smellkit.gcode.recordings import channel_mask
from smellkit.gcode.tokens import PAD, default
from smellkit.runs import Run
from smellkit.study.evaluate import Fit, Outcome, evaluate
from smellkit.study.gcode import baselines, path
from smellkit.study.gcode import task as tasks
from smellkit.study.gcode.release import program_hmm
from smellkit.study.gcode.scores import forced, token_accuracy, token_hits
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
HEADS = ("type", "command", "parameter", "digits")


SHOWN = "protocols"  # the table of the results page that has a row


@dataclass(frozen=True)
class Decoded:
    """What a system decodes for the test windows of one fit, beside the truth."""

    table: pd.DataFrame  # the windows: recording, operation, group, start
    operation: NDArray[np.float32]  # (n, 9) probabilities
    forced: Numbers  # (n, 8) published tokens, each from the true ones before it
    free: Numbers  # (n, 8) published tokens, each from its own before it
    target: Numbers  # (n, 8)
    line: Sequence[str]  # (n,) the true lines
    decoded: Sequence[str]  # (n,) the decoded ones, or none: published tokens can't tell most numbers of a line


def run(
    data: str = "",
    *,
    protocol: str = "G",
    channel_set: str = "all",
    folds: Sequence[int] = range(FOLDS),
    seeds: Sequence[int] = (7,),
    system: str = "decoder",
    context: str = "window",
    progress: Callable[[str], object] = lambda _: None,
    earlier: Mapping[str, Any] | None = None,
    **training: Any,
) -> dict[str, Any]:
    """Scores of `system` under a protocol and a channel set, beside the baselines that need no network.

    With the `context` "recording" the window decoder follows each test recording from its beginning to its end, with
    "run" it knows that this is one whole run of a program.

    Fits that have been made before with the same parameters are taken up again. For the window decoder `all` and
    `no-position` are one fit (and so are `centred` and `no-position-z`): it hides the position in most of its training
    windows, and for the second it is taken away in testing.
    """
    options.check([protocol], PROTOCOLS, "There is no protocol")
    options.check([system], SYSTEMS, "There is no system")
    asked = {"protocol": protocol, "channel_set": channel_set, "system": system}
    numbers = list(folds) if protocol == "G" else [0]
    training = {name: value for name, value in training.items() if value}
    some = f", fold {', '.join(map(str, numbers))}" if protocol == "G" and len(numbers) < FOLDS else ""
    table, how = load(data).labelled().windows, {"protocol": protocol, "folds": numbers}
    about = {"windows": len(table), "recordings": table["recording"].nunique()}
    name = f"{protocol}{some}: {system}, {channel_set}{CONTEXTS[context]}"
    facts = {**how, "system": system, "channels": channel_set, "context": context, "table": SHOWN, **training}
    beside = cache(partial(_beside, data, protocol, numbers, channel_set))
    seen = {"": "no sensor", "position": TRAINED_ON.get(channel_set, channel_set), "channels": channel_set}
    names = {f"{protocol}{some}: {one} ({seen[what]})": one for one, what in baselines.SEES.items()}
    tables = {row: how | {"table": SHOWN if one in baselines.SHOWN else "baselines"} for row, one in names.items()}
    fits: dict[str, Fit] = {name: partial(_scored, data, numbers, context, asked, training)}
    fits |= {row: lambda _, one=one: {"test": beside()[one]} for row, one in names.items()}  # type: ignore[misc]
    repeated = {name: seeds, **dict.fromkeys(names, [0])}
    settings = {name: facts, **tables}
    result = evaluate(fits, seeds=repeated, about=about, settings=settings, earlier=earlier, progress=progress)
    return result | {"rows": dict(sorted(result["rows"].items()))}


def _scored(
    data: str, folds: Sequence[int], context: str, asked: dict[str, str], training: dict[str, Any], seed: int
) -> dict[str, Outcome]:
    """What the fits of all folds with a seed score together."""
    fits = [trained(data, **asked, fold=fold, seed=seed, **training) for fold in folds]
    last = fits[-1][0].scores.get("test", {})
    heads = {name: last[name] for name in HEADS if name in last}  # of the published decoder, teacher-forced
    fits_decoded = decoded(fits, mask=channel_mask(asked["channel_set"]), context=context)
    return outcomes(fits_decoded, unseen=asked["protocol"] == "X", **({"heads": heads} if heads else {}))


def _beside(data: str, protocol: str, folds: Sequence[int], channel_set: str) -> dict[str, Outcome]:
    """What the baselines score under the same protocol."""
    channels = TRAINED_ON.get(channel_set, channel_set)
    configs = [DataConfig(data=data, protocol=protocol, fold=fold, channels=channels) for fold in folds]
    return baseline_outcomes([config.prepared for config in configs], mask=channel_mask(channel_set))


def trained(
    folder: str, *, protocol: str, channel_set: str, fold: int, seed: int, system: str = "decoder", **training: Any
) -> tuple[Run, Prepared]:
    """The finished run of one fit, made now unless it is there, and its data."""
    channels = TRAINED_ON.get(channel_set, channel_set) if system == "decoder" else channel_set
    asked: dict[str, Any] = {"data": folder, "protocol": protocol, "fold": fold, "channels": channels}
    where, how = f"bench/gcode-{system}-{protocol}-{channels}-{fold}-{seed}", {"seed": seed, **training}
    data = DataConfig(**asked).prepared
    if system == "decoder":
        return fitted(tasks.WindowDecoderTask, asked, TRAINING | how, name=f"{where}/window-decoder"), data
    first = ENCODER | {"seed": seed, "epochs": min(20, training.get("epochs", 20))}
    named = {"fourier": True} if system == "two-stage-fourier" else {}
    fitted(tasks.EncoderTask, asked | named, first, name=f"{where}/encoder")
    stage = {"encoder": f"{where}/encoder"}
    return fitted(tasks.DecoderTask, stage, DECODER | how, name=f"{where}/decoder"), data


def shared_encoder(data: str, fixed: Mapping[str, Any]) -> dict[str, str]:
    """The option of the published decoder's ablations that all of them share: one frozen encoder."""
    asked = {"data": data, "protocol": "G", "fold": 0, "thin": 2}
    how = {"epochs": int(fixed.get("epochs", 8)), "batch": 64, "learning_rate": 1e-3, "seed": 1}
    return {"encoder": fitted(tasks.EncoderTask, asked, how, name="gcode-ablations-encoder").name}


def blinded(name: str, kind: str) -> Outcome:
    """What one trained decoder, the run `name`, scores on its test when it is blinded to a kind of sensor ("": none).

    The published modality table is of this kind: it shows what a model trained with a channel misses when it is gone,
    not what the channel is worth; for that, train again (`--set without=...`).
    """
    run = runs.latest(name)
    data = options.task_of(tasks.WindowDecoderTask, run.params).prepared
    test = decoded([(run, data)], mask=channel_mask(without=kind))
    return Outcome(None, {"TF": token_accuracy(test.forced, test.target)})


def fitted(factory, asked: dict[str, Any], how: dict[str, Any], *, name: str) -> Run:
    """The finished run `name` with these parameters, made now unless it is there."""
    task, settings, old = factory(**asked), Settings(**how), Run(name, paths.runs() / name)
    if old.finished and old.params == parameters(task, settings, asked):
        return old
    return fit(task, settings, name=name, params=asked)


@torch.no_grad()
def decoded(fits: Sequence[tuple[Run, Prepared]], *, mask: NDArray[np.bool_], context: str = "window") -> Decoded:
    """What every fit decodes for the test part of its split, one after another, seeing the channels of `mask`.

    By itself a window is all it sees; with the `context` "recording" all windows of the recording, with "run" also that
    this is one whole run of a program.
    """
    tables, parts, texts = [], [], list[str]()
    for run, prepared in fits:
        windows = prepared.windows("test", mask=prepared.mask & mask)
        tables.append(prepared.machine.windows.iloc[prepared.parts.test])
        batches = list(DataLoader(windows, batch_size=256, collate_fn=collate))
        if run.params["task"] == "gcode-decoder":
            operation, tokens = _two_stages(run, batches)
        else:
            operation, tokens, lines = _window_decoder(run, batches, prepared, tables[-1], context)
            texts += lines
        teacher, free = map(torch.cat, zip(*tokens, strict=True))
        parts.append((operation, teacher, free, windows.tensors["published"]))
    names = ("operation", "forced", "free", "target")
    arrays = {name: torch.cat(part).numpy() for name, part in zip(names, zip(*parts, strict=True), strict=True)}
    truth = [text for _, prepared in fits for text in prepared.texts[prepared.parts.test]]
    return Decoded(pd.concat(tables, ignore_index=True), **arrays, line=truth, decoded=texts)


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
        likeliest = own.argmax(dim=1)
        tokens.append((teacher, grammar.published_tokens(grammar.tokens[likeliest])))
        lines += [grammar.texts[number] for number in likeliest.tolist()]
    return operation, tokens, lines


def outcomes(given: Decoded, *, unseen: bool = False, **extra: Any) -> dict[str, Outcome]:
    """Token measures and operation measures of a system, drawn again by group: "test", and each operation's part of it.

    `unseen` operations can't be named: then the program counts, which damage* shares with *150025. `extra` stays.
    """
    table, truth, best = given.table, given.table["operation_id"].to_numpy(), given.operation.argmax(axis=1)
    logs = pd.DataFrame(np.log(given.operation + 1e-9)).groupby(table["recording"].to_numpy())
    whole = logs.transform("mean").to_numpy().argmax(axis=1)
    if unseen:
        truth, best, whole = (baselines.programs(operation) for operation in (truth, best, whole))
    named, few = "program" if unseen else "operation", token_measures(given.forced, given.free, given.target)
    measures = few | (path.measures(table["recording"].to_numpy(), given.line, given.decoded) if given.decoded else {})
    measures |= {named: best == truth, f"{named}_f1": lambda rows: macro_f1(best[rows], truth[rows])}
    right = (whole == truth)[table["recording"].drop_duplicates().index]
    size = lambda rows: {"windows": len(rows), "recordings": rows["recording"].nunique()}  # noqa: E731
    extras = size(table) | {f"{named}_by_recording": float(right.mean()), **extra}
    every = Outcome(table["group"].to_numpy(), few | {named: best == truth})
    own = {operation: replace(every.of(rows), extra=size(table.iloc[rows])) for operation, rows in
           table.groupby("operation").indices.items()}  # fmt: skip
    return {"test": Outcome(every.groups, measures, extras), **own}


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
        every = [answers[row] for row in range(len(table))]
        free = np.array([default().numbers(one.tokens) for one in every])
        measures = token_measures(None, free, prepared.target[test])
        measures |= {"operation": table["operation"].to_numpy() == [one.operation for one in every]}
        measures |= path.measures(
            table["recording"].to_numpy(), list(prepared.texts[test]), [one.line for one in every]
        )
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
