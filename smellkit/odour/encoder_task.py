"""The task "odour-encoder": name the substance in a window of sensor values.

recordings -> windows (protocol) -> augment -> model -> focal loss      scores: accuracy, top5, macro_f1, recording
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit import metrics
from smellkit.errors import DataError, OptionError
from smellkit.losses import focal
from smellkit.odour import recordings
from smellkit.odour.augment import Augment
from smellkit.odour.encoder import BODIES, SUMMARIES, Encoder
from smellkit.odour.features import Normal, describe
from smellkit.odour.sessions import other_sessions
from smellkit.odour.windows import LEVELS, Protocol, Windows, cut
from smellkit.options import nearest
from smellkit.task import Batch, Task, Tensors
from smellkit.train import Settings

View = Callable[[NDArray[np.float32]], Tensor]  # windows -> their features, (windows, features)
VARIANTS = 4  # changed copies of a training window, for models of summary features
RECIPES = {  # what cross-validation on the training recordings chose
    "twopath": Settings(epochs=24, batch=256, learning_rate=3e-3, weight_decay=0.05, warmup=0.25, clip=0.0),
    "summary-mlp": Settings(epochs=32, batch=256, learning_rate=3e-3, weight_decay=0.05, warmup=0.25, clip=0.0),
    "curve-mlp": Settings(epochs=10, batch=256, learning_rate=3e-3, weight_decay=0.05, warmup=0.25, clip=0.0),
    "cnn": Settings(epochs=16, batch=128, learning_rate=2e-3, weight_decay=0.02),
    "lstm": Settings(epochs=24, batch=128, learning_rate=3e-3, weight_decay=0.01),
    "scentformer": Settings(epochs=24, batch=128, learning_rate=1e-3, weight_decay=0.02, warmup=0.2),
}


def task(
    *,
    data: str = "",
    model: str = "lstm",
    representation: str = "fotd",
    sensors: str = "",
    length: int = 100,
    stride: int = 50,
    lag: int = 25,
    train_stride: int = 20,
    fold: int = 0,
    gamma: float = 0.0,
    smoothing: float = 0.05,
    jitter: float = 0.0,
    scale: float = 0.0,
    gain: float = 0.0,
    shift: float = 0.0,
    warp: float = 0.0,
    sensor_dropout: float = 0.0,
    mixup: float = 0.0,
    alignment: float = 0.0,
    adversary: float = 0.0,
    hidden: int = 0,
    dropout: float = -1.0,
    noise: float = -1.0,
    positions: str = "sincos",
    pool: str = "mean",
) -> Task:
    """Return the task for the recordings in `data` (the sample by default).

    `sensors` are columns joined by commas, the six gas channels by default. Recording number `fold` of every substance
    is held out for validation; with -1 none is, and "valid" are training windows. `gamma` and `smoothing` shape the
    loss; `jitter` to `mixup` are augmentations (see `Augment`); `alignment` weighs the GC-MS loss, `adversary` the
    guess at the recording (see `Opponent`). `hidden` 0, and `dropout` and `noise` below 0, leave a model's own
    defaults; `positions` and `pool` are the transformer's.
    """
    protocol = Protocol(representation, columns_of(sensors), length, stride, lag)
    options = {
        "hidden": hidden or None,
        "dropout": dropout if dropout >= 0 else None,
        "noise": noise if noise >= 0 and model in SUMMARIES else None,
        "positions": positions if model == "scentformer" else None,
        "pool": pool if model == "scentformer" else None,
    }

    @functools.cache
    def splits() -> dict[str, Windows]:
        everything = cut(
            recordings.read_recordings(data, "training"), protocol, stride=int(np.gcd(train_stride, stride))
        )
        train, valid = hold_out(everything, fold)
        tables = {"test": _testing(data), "other_session": other_sessions(data)}
        rest = {name: cut(t, protocol, classes=everything.classes) for name, t in tables.items() if t is not None}
        return {"train": train.every(train_stride), "valid": valid.every(stride), **rest}

    found = of_windows(
        splits,
        model=model,
        options={name: value for name, value in options.items() if value is not None},
        augment={
            "jitter": jitter,
            "scale": scale,
            "gain": gain,
            "shift": shift,
            "levels": representation in LEVELS,
            "warp": warp,
            "sensor_dropout": sensor_dropout,
            "mixup": mixup,
        },
        gamma=gamma,
        smoothing=smoothing,
        alignment=alignment,
        adversary=adversary,
        data=data,
    )
    return settled(found) if fold < 0 else found


def settled(task: Task) -> Task:
    """The task with nothing held out: the epoch that explains the training windows best is kept, the last mostly."""
    return replace(task, watch="likelihood")


def of_windows(
    splits: Callable[[], dict[str, Windows]],
    *,
    model: str,
    options: Mapping[str, Any] | None = None,
    augment: Mapping[str, Any] | None = None,
    gamma: float = 0.0,
    smoothing: float = 0.05,
    alignment: float = 0.0,
    adversary: float = 0.0,
    data: str | Path = "",
) -> Task:
    """Return the task over windows: `splits()` gives those of "train", "valid", and of others to score at the end."""
    if model not in BODIES:
        raise OptionError(f"There is no model {model!r}", hint=nearest(model, BODIES))

    changed = any(value for name, value in (augment or {}).items() if name != "levels")

    def load() -> dict:
        windows = splits()
        change = Augment(len(windows["train"].classes), **(augment or {})) if changed else None
        view = None
        if model in SUMMARIES:
            lag = SUMMARIES[model]
            known = describe(windows["train"].values, lag=lag)
            normal = Normal(known.shape[1]).fit(known)
            view = lambda values: normal(describe(values, lag=lag))  # noqa: E731
        found = {"train": samples(windows["train"], change=change, view=view)}
        return found | {name: samples(part, view=view) for name, part in windows.items() if name != "train"}

    def build() -> Encoder:
        train = splits()["train"]
        table = chemistry(data, train.classes) if alignment else None
        count = int(train.fold.max()) + 1 if adversary else 0
        shape, classes = train.values.shape[1:], len(train.classes)
        network = make(model, shape, classes=classes, table=table, recordings=count, **(options or {}))
        return network.prepare(torch.from_numpy(train.values))

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        value = focal(outputs["logits"], batch["target"], gamma=gamma, smoothing=smoothing)
        if "match" in outputs:
            value = value + alignment * focal(outputs["match"], batch["target"])
        if "recording" in outputs:
            value = value + adversary * focal(outputs["recording"], batch["fold"])
        return value

    return Task("odour-encoder", load, build, loss, score)


def make(
    model: str,
    shape: tuple[int, ...],
    *,
    classes: int,
    table: Tensor | None = None,
    recordings: int = 0,
    **options: Any,
) -> Encoder:
    """Build a model by name for windows of `shape` (steps, channels); `table` and `recordings` are for training."""
    if model not in BODIES:
        raise OptionError(f"There is no model {model!r}", hint=nearest(model, BODIES))
    body = BODIES[model](steps=shape[0], channels=shape[1], **options)
    return Encoder(body, classes=classes, table=table, recordings=recordings)


def samples(windows: Windows, *, change: Augment | None = None, view: View | None = None) -> Tensors:
    """Windows as samples {"window", "target", "recording", "fold"}; with a `view`, its features as "summary" too."""
    whole: dict[str, Any] = {"window": windows.values, "target": windows.target}
    whole |= {"recording": windows.recording, "fold": windows.fold}
    if view is None:
        return Tensors(change=change, **whole)
    if change is None:
        return Tensors(summary=view(windows.values), **whole)
    return Variants([{**part, "summary": view(part["window"].numpy())} for part in varied(whole, change)])


def varied(whole: Mapping[str, Any], change: Augment, *, batch: int = 256) -> list[Batch]:
    """`VARIANTS` changed copies of the samples `whole`, always the same ones."""
    tensors = {name: torch.as_tensor(values) for name, values in whole.items()}
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(VARIANTS):
            order = torch.randperm(len(tensors["target"]))
            parts = [change({name: tensor[rows] for name, tensor in tensors.items()}) for rows in order.split(batch)]
            back = order.argsort()
            found.append({name: torch.cat([part[name] for part in parts])[back] for name in tensors})
    return found


class Variants(Tensors):
    """Samples that were changed beforehand, because summary features take long: a batch draws one copy of each."""

    def __init__(self, copies: list[Batch]):
        first: dict[str, Any] = copies[0]
        super().__init__(**first)
        self.copies = {name: torch.stack([copy[name] for copy in copies]) for name in copies[0]}

    def __getitems__(self, indices):
        rows = torch.as_tensor(indices)
        which = torch.randint(len(next(iter(self.copies.values()))), rows.shape)
        return {name: copies[which, rows] for name, copies in self.copies.items()}


def score(outputs: Batch, batch: Batch) -> dict[str, float]:
    """Accuracy, top 5, macro F1 and mean log-likelihood of windows; accuracy of whole recordings, windows pooled."""
    scores = torch.log_softmax(outputs["logits"], 1).numpy()
    target, recording = batch["target"].numpy(), batch["recording"].numpy()
    whole, whole_target = pooled(scores, recording), pooled(target[:, None], recording)[:, 0].astype(int)
    return {
        "accuracy": metrics.top_k(scores, target),
        "top5": metrics.top_k(scores, target, k=5),
        "macro_f1": metrics.macro_f1(scores.argmax(1), target),
        "recording": metrics.top_k(whole, whole_target),
        "likelihood": float(scores[np.arange(len(target)), target].mean()),
    }


def pooled(values: NDArray, recording: NDArray) -> NDArray:
    """Mean of `values` (windows, ...) over the windows of each recording, in order of the recordings' numbers."""
    _, which, counts = np.unique(recording, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, which, values)
    return sums / counts[:, None]


def hold_out(windows: Windows, fold: int) -> tuple[Windows, Windows]:
    """Split whole recordings: all but number `fold` of every substance, and number `fold`; -1 holds nothing out."""
    if fold < 0:
        return windows, windows
    held = windows.fold == fold
    if not held.any() or set(windows.target[held]) != set(windows.target) or held.all():
        most = int(windows.fold.max())
        raise DataError(f"Not every substance has a recording number {fold}", hint=f"a fold from 0 to {most}, or -1")
    return windows[~held], windows[held]


def _testing(data: str | Path):
    """The test split, or None where the layout has none."""
    try:
        return recordings.read_recordings(data, "testing")
    except DataError:
        return None


def columns_of(sensors: str) -> tuple[str, ...]:
    """Sensor columns from names joined by commas; the six gas channels for an empty text."""
    names = tuple(name.strip() for name in sensors.split(",") if name.strip()) or recordings.GAS
    for name in names:
        if name not in recordings.SENSORS:
            raise OptionError(f"There is no sensor {name!r}", hint=nearest(name, recordings.SENSORS))
    return names


def chemistry(data: str | Path, classes: tuple[str, ...]) -> Tensor:
    """GC-MS element abundances of the classes (classes, elements), as standardised centred log-ratios.

    gcms.csv of the SmellNet folder has one row a substance. Zeros become half the smallest abundance of their element;
    elements that are zero everywhere are left out. Source of the transform: Aitchison (1982).
    """
    import pandas as pd

    path = recordings.find(data) / "gcms.csv"
    if not path.exists():
        raise DataError(f"There is no {path}", hint="alignment needs the GC-MS table: `smellkit data get smellnet`")
    table = pd.read_csv(path).set_index("food_name")
    absent = [name for name in classes if name not in table.index]
    if absent:
        raise DataError(f"{path} has no row for {', '.join(absent[:5])}", hint="alignment needs all substances")
    values = table.loc[list(classes)].to_numpy(float)
    values = values[:, (values > 0).any(0)]
    least = np.where(values > 0, values, np.inf).min(0) / 2
    logs = np.log(np.where(values > 0, values, least))
    ratios = logs - logs.mean(1, keepdims=True)
    return torch.from_numpy(((ratios - ratios.mean(0)) / ratios.std(0).clip(1e-6)).astype(np.float32))
