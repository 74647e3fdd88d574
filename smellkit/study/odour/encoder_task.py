"""The task "odour-encoder": name the substance in a window of sensor values.

recordings -> windows (protocol) -> augment -> network -> focal loss      scores: accuracy, top5, macro_f1, recording
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from smellkit.errors import DataError
from smellkit.odour import recordings
from smellkit.odour.confidence import Confidence
from smellkit.odour.encoder import BACKBONES, FEATURE_LAG, Encoder, make
from smellkit.odour.features import QuantileNormalizer, describe
from smellkit.odour.windows import LEVELS, LabelledWindows, Protocol, cut
from smellkit.options import check, listed
from smellkit.study import metrics
from smellkit.study.losses import focal
from smellkit.study.odour.survey import other_sessions
from smellkit.task import Batch, Task, Tensors
from smellkit.train import Settings

Splits = Callable[[], dict[str, LabelledWindows]]  # "train", "valid", and others to score at the end
VARIANTS = 4  # changed copies of a training window, for networks on summary features
RECIPES = {  # what cross-validation on the training recordings chose
    "summary-mlp": Settings(epochs=32, batch=256, learning_rate=3e-3, weight_decay=0.05, warmup=0.25, clip=0.0),
    "curve-mlp": Settings(epochs=10, batch=256, learning_rate=3e-3, weight_decay=0.05, warmup=0.25, clip=0.0),
    "lstm": Settings(epochs=24, batch=128, learning_rate=3e-3, weight_decay=0.01),
    "scentformer": Settings(epochs=24, batch=128, learning_rate=1e-3, weight_decay=0.02, warmup=0.2),
}


@dataclass(frozen=True)
class EncoderConfig:
    """What `smellkit train odour-encoder --set name=value` may set; how to train is `Settings`."""

    data: str = ""  # a folder of recordings, the sample by default
    model: str = "lstm"  # one of BACKBONES
    representation: str = "fotd"  # and how windows are cut, see `Protocol`
    sensors: str = ""  # columns joined by commas, the six gas channels by default
    length: int = 100
    stride: int = 50
    lag: int = 25
    train_stride: int = 20
    fold: int = 0  # number of the recording of every substance that is held out to choose the epoch; -1: none is
    gamma: float = 0.0  # of the focal loss; 0 is cross-entropy
    smoothing: float = 0.05
    jitter: float = 0.0  # noise, in deviations of a channel within the batch; this and the next four augment batches
    scale: float = 0.0  # one amplitude for all channels, deviation of its logarithm
    gain: float = 0.0  # an amplitude for each channel, as another day's sensors have, deviation of its logarithm
    sensor_dropout: float = 0.0  # probability that a channel is still
    mixup: float = 0.0  # both parameters of the beta distribution that shares are drawn from
    hidden: int = 0  # 0, and below 0 for the next two, leave a network's own defaults
    dropout: float = -1.0
    noise: float = -1.0  # of the summary features
    positions: str = "sincos"  # of the transformer, and its pool
    pool: str = "mean"

    def __post_init__(self):
        check([self.model], BACKBONES, "There is no model")
        replace(self.protocol, stride=self.train_stride)  # a wrong option is refused now, not when data are read

    @property
    def protocol(self) -> Protocol:
        """How recordings become windows."""
        columns = tuple(listed(self.sensors, recordings.SENSORS, what="sensor")) if self.sensors else recordings.GAS
        return Protocol(self.representation, columns, self.length, self.stride, self.lag)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the network that were set."""
        options: dict[str, Any] = {"hidden": self.hidden} if self.hidden else {}
        options |= {"dropout": self.dropout} if self.dropout >= 0 else {}
        options |= {"noise": self.noise} if self.noise >= 0 and self.model in FEATURE_LAG else {}
        return options | ({"positions": self.positions, "pool": self.pool} if self.model == "scentformer" else {})


def augment(batch: Batch, config: EncoderConfig, classes: int) -> Batch:
    """Change a training batch {"window" (batch, steps, channels), "target" (batch,)}; drawn from torch's generator.

    Each change leaves the smell what it is. Where windows show levels, amplitudes act on what changes since the first
    row. After a mixup (Zhang et al., arXiv 1710.09412) targets are shares, (batch, classes).
    """
    x, target = batch["window"], batch["target"]
    level = x[:, :1] if config.representation in LEVELS else torch.zeros(())
    if config.scale:
        x = level + (x - level) * torch.exp(config.scale * torch.randn(len(x), 1, 1))
    if config.gain:
        x = level + (x - level) * torch.exp(config.gain * torch.randn(len(x), 1, x.shape[2]))
    if config.jitter:
        x = x + config.jitter * x.std(dim=(0, 1), keepdim=True) * torch.randn_like(x)
    if config.sensor_dropout:
        x = x * (torch.rand(len(x), 1, x.shape[2]) >= config.sensor_dropout)
    if config.mixup:
        share = float(torch.distributions.Beta(config.mixup, config.mixup).sample())
        other, one_hot = torch.randperm(len(x)), F.one_hot(target, classes).to(x)
        x, target = (share * both + (1 - share) * both[other] for both in (x, one_hot))
    return {**batch, "window": x, "target": target}


def task(config: EncoderConfig | None = None, **options: Any) -> Task:
    """Return the task that `config`, or the `options` of one, describes."""
    config = config or EncoderConfig(**options)
    splits = functools.cache(lambda: read_splits(config))

    def about() -> dict[str, Any]:
        described = asdict(config.protocol) | {"columns": list(config.protocol.columns)}
        known = {"kind": "odour", "model": config.model, "options": config.options, "protocol": described}
        return known | {"classes": list(splits()["train"].classes), "calibration": Confidence().asdict()}

    return replace(over_windows(splits, config), about=about)


task.__signature__ = inspect.signature(EncoderConfig)  # type: ignore[attr-defined] # what `--set` may name


def over_windows(splits: Splits, config: EncoderConfig) -> Task:
    """Return the task over windows that are there already.

    With nothing held out, the epoch that explains the training windows best is kept, the last mostly.
    """

    def load() -> dict[str, Dataset]:
        windows = splits()
        train, features = windows["train"], None
        changes = config.jitter or config.scale or config.gain or config.sensor_dropout or config.mixup
        change = functools.partial(augment, config=config, classes=len(train.classes)) if changes else None
        if config.model in FEATURE_LAG:  # summary features, computed once
            lag = FEATURE_LAG[config.model]
            known = describe(train.values, lag=lag)
            normalizer = QuantileNormalizer(known.shape[1]).fit(known)
            features = lambda values: normalizer(describe(values, lag=lag))  # noqa: E731
        rest = {name: samples(part, features=features) for name, part in windows.items() if name != "train"}
        return {"train": samples(train, change=change, features=features), **rest}

    def build() -> Encoder:
        train = splits()["train"]
        network = make(config.model, train.values.shape[1:], classes=len(train.classes), **config.options)
        return network.prepare(torch.from_numpy(train.values))

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        return focal(outputs["logits"], batch["target"], gamma=config.gamma, smoothing=config.smoothing)

    return Task("odour-encoder", load, build, loss, score, watch="likelihood" if config.fold < 0 else "accuracy")


def read_splits(config: EncoderConfig) -> dict[str, LabelledWindows]:
    """The windows of the recordings in `config.data`; with fold -1, "valid" are training windows."""
    stride = int(np.gcd(config.train_stride, config.stride))
    everything = cut(recordings.read_recordings(config.data, "training"), config.protocol, stride=stride)
    train, valid = hold_out(everything, config.fold)
    base, tables = recordings.base_of(recordings.find(config.data)), {"other_session": other_sessions(config.data)}
    if base is None or (base / "testing").is_dir():
        tables = {"test": recordings.read_recordings(config.data, "testing")} | tables
    rest = {n: cut(t, config.protocol, classes=everything.classes) for n, t in tables.items() if t is not None}
    return {"train": train.every(config.train_stride), "valid": valid.every(config.stride), **rest}


def samples(
    windows: LabelledWindows,
    *,
    change: Callable[[Batch], Batch] | None = None,
    features: Callable[[NDArray], Tensor] | None = None,
) -> Tensors:
    """Windows as samples {"window", "target", "recording"}; with `features`, those of the window as "summary" too.

    Summary features take long: changed windows have theirs computed beforehand, for `VARIANTS` copies that are always
    the same, and a batch draws one of the copies of each.
    """
    whole: dict[str, Any] = {"window": windows.values, "target": windows.target, "recording": windows.recording}
    if features is None:
        return Tensors(change=change, **whole)
    if change is None:
        return Tensors(summary=features(windows.values), **whole)
    tensors, copies = {name: torch.as_tensor(values) for name, values in whole.items()}, []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(VARIANTS):
            order = torch.randperm(len(windows))
            parts = [change({name: tensor[rows] for name, tensor in tensors.items()}) for rows in order.split(256)]
            copy = {name: torch.cat([part[name] for part in parts])[order.argsort()] for name in tensors}
            copies.append({**copy, "summary": features(copy["window"].numpy())})
    stacked = {name: torch.stack([copy[name] for copy in copies], dim=1) for name in copies[0]}
    return Tensors(change=drawn, **stacked)  # (windows, VARIANTS, ...)


def drawn(batch: Batch) -> Batch:
    """One of the `VARIANTS` copies of each sample of a batch (samples, VARIANTS, ...)."""
    rows = torch.arange(len(batch["target"]))
    which = torch.randint(VARIANTS, rows.shape)
    return {name: copies[rows, which] for name, copies in batch.items()}


def score(outputs: Batch, batch: Batch) -> dict[str, float]:
    """Accuracy, top 5, macro F1 and mean log-likelihood of windows; accuracy of whole recordings, windows pooled."""
    scores = torch.log_softmax(outputs["logits"], 1).numpy()
    target, recording = batch["target"].numpy(), batch["recording"].numpy()
    whole = pd.DataFrame(scores).groupby(recording).mean().to_numpy()
    whole_target = pd.Series(target).groupby(recording).first().to_numpy()
    return {
        "accuracy": float(metrics.hits(scores, target).mean()),
        "top5": float(metrics.hits(scores, target, k=5).mean()),
        "macro_f1": metrics.macro_f1(scores.argmax(1), target),
        "recording": float(metrics.hits(whole, whole_target).mean()),
        "likelihood": float(scores[np.arange(len(target)), target].mean()),
    }


def hold_out(windows: LabelledWindows, fold: int) -> tuple[LabelledWindows, LabelledWindows]:
    """Split whole recordings: all but number `fold` of every substance, and number `fold`; -1 holds nothing out."""
    if fold < 0:
        return windows, windows
    held = windows.fold == fold
    if not held.any() or set(windows.target[held]) != set(windows.target) or held.all():
        most = int(windows.fold.max())
        raise DataError(f"Not every substance has a recording number {fold}", hint=f"a fold from 0 to {most}, or -1")
    return windows[~held], windows[held]
